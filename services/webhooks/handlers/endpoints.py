"""The addresses that merchants are told at: made, changed, given new secrets, and their deliveries."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec
from yarl import URL

from services.webhooks.handlers.context import Webhooks
from services.webhooks.handlers.signing_secrets import SigningSecretClosed, new_secret, owner_of
from services.webhooks.store import deliveries as delivery_rows
from services.webhooks.store import merchants
from services.webhooks.store.merchants import Endpoint
from shared.contracts.webhooks import (
    PAGE_ROWS_MAX,
    RECOVERED_MAX,
    DeletedView,
    DeleteEndpoint,
    DeliveryPage,
    EndpointsView,
    EndpointView,
    GetSecrets,
    ListDeliveries,
    ListEndpoints,
    PutEndpoint,
    RecoverDeliveries,
    RecoveryView,
    Redeliver,
    RotateSecret,
    SecretsView,
)
from shared.database import connected
from shared.errors import Invalid, NotFound, Refusal, Unavailable
from shared.messages import Envelope, done
from shared.outbound import OutboundUrl, OutboundUrlInvalid
from shared.vault import endpoint_place
from shared.work import Work

ENDPOINTS_MAX = 20


class PrivateTarget(Invalid):
    """An address may not lie in a private network, ours perhaps."""

    code = "endpoint-not-public"
    title = "This address cannot be told of events"


class EndpointDisabled(Refusal):
    """A disabled endpoint receives nothing."""

    code = "endpoint-disabled"
    title = "Endpoint disabled"


async def put_endpoint(work: Work, command: PutEndpoint, context: Webhooks) -> None:
    """Make an address or change it."""
    place = endpoint_place(work.envelope.store_id, work.envelope.environment.value, command.endpoint_id)
    given = context.wallet.unhidden(command.url, info=place)
    url = _callable_url(given, allow_private=context.settings.allow_private_endpoints)
    known = await _endpoints(context, work.envelope)
    before = next((each for each in known if each.id == command.endpoint_id), None)
    if before is None and command.change:
        raise NotFound(f"There is no endpoint {command.endpoint_id}.")
    if before is None and len(known) >= ENDPOINTS_MAX:
        raise Invalid(f"A store has at most {ENDPOINTS_MAX} endpoints.")
    moment = datetime.now(UTC)
    sealed = context.signing_secrets.seal([new_secret()], owner_of(work.envelope, command.endpoint_id)) if before is None else before
    endpoint = Endpoint(
        id=command.endpoint_id,
        url=url,
        event_types=list(command.event_types),
        secrets=sealed.secrets,
        key_version=sealed.key_version,
        enabled=command.enabled,
        disabled_why=None,
        failing_since=None,
        created_at=moment if before is None else before.created_at,
        updated_at=moment,
    )
    batch = work.batch()
    batch.add(
        merchants.put(work.envelope, endpoint),
        delivery_rows.end_unwanted(endpoint.id, endpoint.event_types, enabled=endpoint.enabled),
    )
    batch.audit("webhook_endpoint.put", str(endpoint.id), before=None if before is None else _audited(before), after=_audited(endpoint))
    batch.conclude(done(endpoint.view()))
    await batch.commit()


def _audited(endpoint: Endpoint) -> EndpointView:
    """Show an endpoint as the audit keeps it: user, path and query of its URL may hold a token."""
    return msgspec.structs.replace(endpoint.view(), url=str(URL(endpoint.url).origin()))


def _callable_url(url: str, *, allow_private: bool) -> str:
    try:
        return str(OutboundUrl.parse(url, allow_private=allow_private))
    except OutboundUrlInvalid as invalid:
        raise PrivateTarget(f"The address cannot be called: {invalid}.", {"field": "$.url"}) from invalid


async def rotate_secret(work: Work, command: RotateSecret, context: Webhooks) -> None:
    """Sign with a new secret besides the present one."""
    before = await _endpoint(context, work.envelope, command.endpoint_id)
    owner = owner_of(work.envelope, command.endpoint_id)
    try:
        present = context.signing_secrets.open(before.secrets[0], owner)
    except SigningSecretClosed as closed:
        raise Unavailable(str(closed)) from closed
    sealed = context.signing_secrets.seal([new_secret(), present], owner)
    rotated = msgspec.structs.replace(before, secrets=sealed.secrets, key_version=sealed.key_version, updated_at=datetime.now(UTC))
    batch = work.batch()
    batch.add(merchants.put(work.envelope, rotated))
    batch.conclude(done(rotated.view()))
    await batch.commit()


async def delete_endpoint(work: Work, command: DeleteEndpoint, context: Webhooks) -> None:
    """Forget an address and its deliveries."""
    before = await _endpoint(context, work.envelope, command.endpoint_id)
    batch = work.batch()
    batch.audit("webhook_endpoint.delete", str(before.id), before=_audited(before))
    batch.add(merchants.delete(work.envelope, command.endpoint_id))
    batch.conclude(done(DeletedView(deleted=command.endpoint_id)))
    await batch.commit()


async def redeliver(work: Work, command: Redeliver, context: Webhooks) -> None:
    """Deliver an event to an address again."""
    async with connected(context.desk.pool) as db:
        found = await delivery_rows.delivery(db, work.envelope, command.delivery_id)
    if found is None:
        raise NotFound(f"There is no delivery {command.delivery_id}.")
    batch = work.batch()
    batch.add(*delivery_rows.again(work.envelope, command.delivery_id))
    batch.conclude(done(msgspec.structs.replace(found, status="pending", attempt_count=0, delivered_at=None)))
    await batch.commit()
    context.wake_deliveries()


async def recover_deliveries(work: Work, command: RecoverDeliveries, context: Webhooks) -> None:
    """Deliver what an endpoint has not got since a moment, the oldest first, as many events as one call covers."""
    endpoint = await _endpoint(context, work.envelope, command.endpoint_id)
    if not endpoint.enabled:
        raise EndpointDisabled("Enable the endpoint first; then what it has not got can be delivered.")
    async with connected(context.desk.pool) as db:
        found = await delivery_rows.missed(db, work.envelope, command, endpoint.event_types, limit=RECOVERED_MAX + 1)
    batch = work.batch()
    batch.add(delivery_rows.insert_missed(work.envelope, endpoint.id, found[:RECOVERED_MAX]), merchants.resume(work.envelope, endpoint.id))
    recovery = RecoveryView(count=min(len(found), RECOVERED_MAX), more=len(found) > RECOVERED_MAX)
    batch.audit("webhook_endpoint.recover", str(endpoint.id), after={"since": command.since, "count": recovery.count})
    batch.conclude(done(recovery))
    await batch.commit()
    context.wake_deliveries()


async def list_endpoints(envelope: Envelope, query: ListEndpoints, context: Webhooks) -> EndpointsView:
    """Read every address of a store."""
    return EndpointsView(endpoints=[each.view() for each in await _endpoints(context, envelope)])


async def get_secrets(envelope: Envelope, query: GetSecrets, context: Webhooks) -> SecretsView:
    """Read with which secrets deliveries to an endpoint are signed."""
    endpoint = await _endpoint(context, envelope, query.endpoint_id)
    owner = owner_of(envelope, endpoint.id)
    try:
        opened = [context.signing_secrets.open(each, owner) for each in endpoint.secrets]
    except SigningSecretClosed as closed:
        raise Unavailable(str(closed)) from closed
    return SecretsView(secrets=opened)


async def list_deliveries(envelope: Envelope, query: ListDeliveries, context: Webhooks) -> DeliveryPage:
    """Read a page of deliveries, the newest first."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        found = await delivery_rows.deliveries(db, envelope, query, limit=limit + 1)
    shown = found[:limit]
    return DeliveryPage(deliveries=shown, next=shown[-1].id if len(found) > limit else None)


async def _endpoints(context: Webhooks, envelope: Envelope) -> list[Endpoint]:
    async with connected(context.desk.pool) as db:
        return await merchants.endpoints(db, envelope)


async def _endpoint(context: Webhooks, envelope: Envelope, endpoint_id: UUID) -> Endpoint:
    found = next((each for each in await _endpoints(context, envelope) if each.id == endpoint_id), None)
    if found is None:
        raise NotFound(f"There is no endpoint {endpoint_id}.")
    return found
