"""What the merchant is told: addresses, their secrets and deliveries, and everything that happened, to catch up."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Response, delete, get, post, put
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from services.gateway.routes.answers import ADMIN, READ, RETRY, carry_out, documented, gateway_of, principal_of, show
from shared.contracts.webhooks import (
    PAGE_ROWS_MAX,
    CatchUp,
    DeletedView,
    DeleteEndpoint,
    DeliveryPage,
    DeliveryView,
    EndpointsView,
    EndpointView,
    GetSecrets,
    ListDeliveries,
    ListEndpoints,
    MerchantEvents,
    PutEndpoint,
    RecoverDeliveries,
    RecoveryView,
    Redeliver,
    RotateSecret,
    SecretsView,
)
from shared.ids import new_id
from shared.received import HttpRequest
from shared.vault import endpoint_place

EventType = Annotated[str, Meta(pattern=r"^[a-z_]+(\.[a-z_]+)+$", max_length=100)]


class EndpointBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to tell of which events; none named means all of them."""

    url: Annotated[str, Meta(pattern="^https?://", max_length=2000)]
    event_types: Annotated[list[EventType], Meta(max_length=50)] = []
    enabled: bool = True


@post(
    "/admin/webhook-endpoints",
    before_request=ADMIN,
    status_code=200,
    tags=["Webhooks to you"],
    summary="Have an address told of what happens",
    responses=documented(200, EndpointView, "The address; its secret is read apart."),
)
async def make_endpoint(request: HttpRequest, data: JSONBody[EndpointBody]) -> Response[Any]:
    endpoint_id = new_id()
    command = put_endpoint(request, endpoint_id, data, change=False)
    return await carry_out(request, lambda _: command, data=data)


def put_endpoint(request: HttpRequest, endpoint_id: UUID, data: EndpointBody, *, change: bool) -> PutEndpoint:
    """Write the command for an endpoint; its URL, in which there may be a token, is wrapped for webhooks."""
    principal = principal_of(request)
    place = endpoint_place(principal.store_id, principal.environment.value, endpoint_id)
    url = gateway_of(request).hide("webhooks", data.url, info=place)
    return PutEndpoint(endpoint_id=endpoint_id, url=url, event_types=tuple(data.event_types), enabled=data.enabled, change=change)


@put(
    "/admin/webhook-endpoints/{endpoint_id:uuid}",
    before_request=ADMIN,
    tags=["Webhooks to you"],
    summary="Change an address, or enable it again",
    responses=documented(200, EndpointView, "The address as it is now."),
)
async def change_endpoint(request: HttpRequest, endpoint_id: FromPath[UUID], data: JSONBody[EndpointBody]) -> Response[Any]:
    command = put_endpoint(request, endpoint_id, data, change=True)
    return await carry_out(request, lambda _: command, data=data)


@delete(
    "/admin/webhook-endpoints/{endpoint_id:uuid}",
    before_request=ADMIN,
    status_code=200,
    tags=["Webhooks to you"],
    summary="Forget an address and its deliveries",
    responses=documented(200, DeletedView, "It is gone."),
)
async def delete_endpoint(request: HttpRequest, endpoint_id: FromPath[UUID]) -> Response[Any]:
    return await carry_out(request, lambda _: DeleteEndpoint(endpoint_id=endpoint_id))


@post(
    "/admin/webhook-endpoints/{endpoint_id:uuid}/rotate-secret",
    before_request=ADMIN,
    status_code=200,
    tags=["Webhooks to you"],
    summary="Sign with a new secret besides the present one",
    responses=documented(200, EndpointView, "Deliveries now bear two signatures; the older secret goes with the next rotation."),
)
async def rotate_secret(request: HttpRequest, endpoint_id: FromPath[UUID]) -> Response[Any]:
    return await carry_out(request, lambda _: RotateSecret(endpoint_id=endpoint_id))


class RecoverBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Since when to deliver what an endpoint has missed; events are stored for 90 days."""

    since: Annotated[datetime, Meta(tz=True)]


@post(
    "/admin/webhook-endpoints/{endpoint_id:uuid}/recover",
    before_request=RETRY,
    status_code=200,
    tags=["Webhooks to you"],
    summary="Deliver what an endpoint has missed",
    responses=documented(200, RecoveryView, "So many events are due now, the oldest first; with more, the same request goes on."),
)
async def recover_deliveries(request: HttpRequest, endpoint_id: FromPath[UUID], data: JSONBody[RecoverBody]) -> Response[Any]:
    return await carry_out(request, lambda _: RecoverDeliveries(endpoint_id=endpoint_id, since=data.since), data=data)


@get(
    "/admin/webhook-endpoints",
    before_request=READ,
    tags=["Webhooks to you"],
    summary="List your addresses",
    responses=documented(200, EndpointsView, "All of them.", keyed=False),
)
async def list_endpoints(request: HttpRequest) -> Response[Any]:
    return await show(request, ListEndpoints())


@get(
    "/admin/webhook-endpoints/{endpoint_id:uuid}/secrets",
    before_request=ADMIN,
    tags=["Webhooks to you"],
    summary="Read the secrets that deliveries to an address are signed with",
    responses=documented(200, SecretsView, "The newest first. The reading is in the audit.", keyed=False),
)
async def read_secrets(request: HttpRequest, endpoint_id: FromPath[UUID]) -> Response[Any]:
    return await show(request, GetSecrets(endpoint_id=endpoint_id))


@get(
    "/admin/webhook-deliveries",
    before_request=READ,
    tags=["Webhooks to you"],
    summary="List deliveries, the newest first",
    responses=documented(200, DeliveryPage, "A page; ask for the next one with before=next.", 400, 422, keyed=False),
)
async def list_deliveries(
    request: HttpRequest,
    endpoint_id: Annotated[UUID | None, QueryParameter(name="endpoint_id", required=False)] = None,
    event_id: Annotated[UUID | None, QueryParameter(name="event_id", required=False)] = None,
    status: Annotated[str | None, QueryParameter(name="status", max_length=40, pattern="^[a-z]+$", required=False)] = None,
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = PAGE_ROWS_MAX,
) -> Response[Any]:
    return await show(request, ListDeliveries(endpoint_id=endpoint_id, event_id=event_id, status=status, before=before, limit=limit))


@post(
    "/admin/webhook-deliveries/{delivery_id:uuid}/redeliver",
    before_request=RETRY,
    status_code=200,
    tags=["Webhooks to you"],
    summary="Deliver an event again",
    responses=documented(200, DeliveryView, "It is due now."),
)
async def redeliver(request: HttpRequest, delivery_id: FromPath[UUID]) -> Response[Any]:
    return await carry_out(request, lambda _: Redeliver(delivery_id=delivery_id))


@get(
    "/events",
    before_request=READ,
    tags=["Webhooks to you"],
    summary="Read what happened after an event, the oldest first",
    responses=documented(200, MerchantEvents, "Ask again with after=next for what follows.", 400, 422, keyed=False),
)
async def catch_up(
    request: HttpRequest,
    after: Annotated[UUID | None, QueryParameter(name="after", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = PAGE_ROWS_MAX,
) -> Response[Any]:
    return await show(request, CatchUp(after=after, limit=limit))


ROUTES = [
    make_endpoint,
    change_endpoint,
    delete_endpoint,
    rotate_secret,
    recover_deliveries,
    list_endpoints,
    read_secrets,
    list_deliveries,
    redeliver,
    catch_up,
]
