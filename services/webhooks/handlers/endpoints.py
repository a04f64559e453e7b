"""The addresses that merchants are told at: made, changed, given new secrets, and their deliveries."""

import base64
import secrets
from datetime import UTC, datetime
from uuid import UUID

import msgspec
from yarl import URL

from services.webhooks.handlers.context import Webhooks
from services.webhooks.handlers.public_addresses import Forbidden, check_literal
from services.webhooks.providers.standard import SECRET_PREFIX
from services.webhooks.store import deliveries as delivery_rows
from services.webhooks.store import merchants
from services.webhooks.store.merchants import Endpoint
from shared.contracts.webhooks import (
    PAGE_ROWS_MAX,
    DeletedView,
    DeleteEndpoint,
    DeliveryPage,
    EndpointsView,
    EndpointView,
    GetSecrets,
    ListDeliveries,
    ListEndpoints,
    PutEndpoint,
    Redeliver,
    RotateSecret,
    SecretsView,
)
from shared.database import connected
from shared.errors import Invalid, NotFound
from shared.messages import Envelope, done
from shared.vault import endpoint_place
from shared.work import Work

SECRET_BYTES = 32
ENDPOINTS_MAX = 20


class PrivateTarget(Invalid):
    """An address may not lie in a private network, ours perhaps."""

    code = "endpoint-not-public"
    title = "This address cannot be told of events"


async def put_endpoint(work: Work, command: PutEndpoint, context: Webhooks) -> None:
    """Make an address or change it."""
    place = endpoint_place(work.envelope.store_id, work.envelope.environment.value, command.endpoint_id)
    command = msgspec.structs.replace(command, url=context.wallet.unhidden(command.url, info=place))
    _check_url(command.url, allow_private=context.settings.allow_private_endpoints)
    known = await _endpoints(context, work.envelope)
    before = next((each for each in known if each.id == command.endpoint_id), None)
    if before is None and command.change:
        raise NotFound(f"There is no endpoint {command.endpoint_id}.")
    if before is None and len(known) >= ENDPOINTS_MAX:
        raise Invalid(f"A store has at most {ENDPOINTS_MAX} endpoints.")
    moment = datetime.now(UTC)
    endpoint = Endpoint(
        id=command.endpoint_id,
        url=command.url,
        event_types=list(command.event_types),
        secrets=[_new_secret()] if before is None else before.secrets,
        enabled=command.enabled,
        disabled_why=None,
        failing_since=None,
        created_at=moment if before is None else before.created_at,
        updated_at=moment,
    )
    batch = work.batch()
    batch.add(merchants.put(work.envelope, endpoint))
    batch.audit("webhook_endpoint.put", str(endpoint.id), before=None if before is None else _audited(before), after=_audited(endpoint))
    batch.conclude(done(endpoint.view()))
    await batch.commit()


def _audited(endpoint: Endpoint) -> EndpointView:
    """Show an endpoint as the audit keeps it: user, path and query of its URL may hold a token."""
    return msgspec.structs.replace(endpoint.view(), url=str(URL(endpoint.url).origin()))


def _check_url(url: str, *, allow_private: bool) -> None:
    try:
        parts = URL(url)
    except ValueError as broken:
        raise PrivateTarget(f"The address cannot be read: {broken}.", {"field": "$.url"}) from broken
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        raise PrivateTarget("The address must be https.", {"field": "$.url"})
    if not parts.host or parts.user or parts.password:
        raise PrivateTarget("The address must name a host, and no user.", {"field": "$.url"})
    if allow_private:
        return
    try:
        check_literal(parts.host)
    except Forbidden as private:
        raise PrivateTarget(f"{private}.", {"field": "$.url"}) from private
    name = parts.host.removesuffix(".")
    if name == "localhost" or name.endswith((".localhost", ".local", ".internal")):
        raise PrivateTarget(f"{parts.host} is not a public name.", {"field": "$.url"})


def _new_secret() -> str:
    return f"{SECRET_PREFIX}{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


async def rotate_secret(work: Work, command: RotateSecret, context: Webhooks) -> None:
    """Sign with a new secret besides the present one."""
    before = await _endpoint(context, work.envelope, command.endpoint_id)
    rotated = msgspec.structs.replace(before, secrets=[_new_secret(), before.secrets[0]], updated_at=datetime.now(UTC))
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
    batch.add(delivery_rows.again(work.envelope, command.delivery_id))
    batch.conclude(done(msgspec.structs.replace(found, status="pending", attempt_count=0, delivered_at=None)))
    await batch.commit()
    context.wake_deliveries()


async def list_endpoints(envelope: Envelope, query: ListEndpoints, context: Webhooks) -> EndpointsView:
    """Read every address of a store."""
    return EndpointsView(endpoints=[each.view() for each in await _endpoints(context, envelope)])


async def get_secrets(envelope: Envelope, query: GetSecrets, context: Webhooks) -> SecretsView:
    """Read with which secrets deliveries to an address are signed."""
    return SecretsView(secrets=(await _endpoint(context, envelope, query.endpoint_id)).secrets)


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
