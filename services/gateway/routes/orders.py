"""Orders: pushed by the shop's backend, read by staff; and the tokens that open them to a browser."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Response, get, post, put
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from services.gateway.domain import expected_version
from services.gateway.handlers.commands import MakeCheckoutToken, MakeCustomerToken, TokenView
from services.gateway.handlers.timeline import timeline_of
from services.gateway.routes.answers import ADMIN, READ, carry_out, correlation_of, documented, gateway_of, principal_of, show
from shared.contracts.orders import OrderContent, impersonal, personal_text
from shared.contracts.payments import (
    PAGE_ROWS_MAX,
    AttentionView,
    FindOrders,
    FoundOrders,
    GetOrder,
    GetPayments,
    Ledger,
    ListAttention,
    OrderView,
    PutOrder,
)
from shared.contracts.timeline import Timeline
from shared.received import HttpRequest
from shared.vault import personal_place

IfMatch = Annotated[
    str | None, HeaderParameter(name="If-Match", description="The version (ETag) you read; 412 when it is stale.", required=False)
]


class _Version(msgspec.Struct):
    version: int = 0


def _etag(body: bytes) -> dict[str, str]:
    return {"ETag": f'"{msgspec.json.decode(body, type=_Version).version}"'}


@put(
    "/admin/orders/{order_id:uuid}",
    before_request=ADMIN,
    tags=["Orders"],
    summary="Create an order or replace what it says",
    responses=documented(200, OrderView, "The order as it is now; ETag is its version.", 412),
)
async def put_order(
    request: HttpRequest,
    order_id: FromPath[UUID],
    data: JSONBody[OrderContent],
    if_match: IfMatch = None,
) -> Response[Any]:
    version = expected_version(if_match)
    principal = principal_of(request)
    place = personal_place(principal.store_id, principal.environment.value, order_id)
    hidden = gateway_of(request).hide("payments", personal_text(data), info=place)
    answer = await carry_out(
        request,
        lambda _: PutOrder(order_id=order_id, content=impersonal(data), personal=hidden, expected_version=version),
        data=data,
        headers=() if if_match is None else (if_match,),
    )
    if answer.status_code == 200:
        answer.headers.update(_etag(answer.content))
    return answer


@get(
    "/admin/orders/{order_id:uuid}",
    before_request=READ,
    tags=["Orders"],
    summary="Read an order",
    responses=documented(200, OrderView, "The order; ETag is its version.", keyed=False),
)
async def get_order(request: HttpRequest, order_id: FromPath[UUID]) -> Response[Any]:
    return await show(request, GetOrder(order_id=order_id), headers=_etag)


@get(
    "/admin/orders/{order_id:uuid}/payments",
    before_request=READ,
    tags=["Payments"],
    summary="Read an order's full ledger",
    responses=documented(200, Ledger, "Every payment, every transaction, every change of status.", keyed=False),
)
async def get_payments(request: HttpRequest, order_id: FromPath[UUID]) -> Response[Any]:
    return await show(request, GetPayments(order_id=order_id))


@post(
    "/admin/orders/{order_id:uuid}/checkout-token",
    before_request=ADMIN,
    tags=["Tokens"],
    summary="Make a token with which a shopper's browser can pay this order",
    responses=documented(201, TokenView, "The token; it is not stored."),
)
async def make_checkout_token(request: HttpRequest, order_id: FromPath[UUID]) -> Response[Any]:
    return await carry_out(request, lambda _: MakeCheckoutToken(order_id=order_id))


@post(
    "/admin/customers/{customer_id:uuid}/token",
    before_request=ADMIN,
    tags=["Tokens"],
    summary="Make a token with which a customer can read their own orders",
    responses=documented(201, TokenView, "The token; it is not stored."),
)
async def make_customer_token(request: HttpRequest, customer_id: FromPath[UUID]) -> Response[Any]:
    return await carry_out(request, lambda _: MakeCustomerToken(customer_id=customer_id))


@get(
    "/admin/orders/{order_id:uuid}/timeline",
    before_request=READ,
    tags=["Orders"],
    summary="Read everything that happened to an order, across services, in order",
    responses=documented(200, Timeline, "Services that could not be asked are named as missing.", keyed=False),
)
async def get_timeline(request: HttpRequest, order_id: FromPath[UUID]) -> Response[Any]:
    gateway, principal = gateway_of(request), principal_of(request)
    return Response(await timeline_of(gateway, principal, order_id, correlation_id=correlation_of(request)))


@get(
    "/admin/orders",
    before_request=READ,
    tags=["Orders"],
    summary="List orders, the newest first, or find those that an id is about",
    responses=documented(200, FoundOrders, "A page; ask for the next one with before=next.", 400, 422, keyed=False),
)
async def find_orders(
    request: HttpRequest,
    status: Annotated[str | None, QueryParameter(name="status", max_length=40, pattern="^[a-z_]+$", required=False)] = None,
    text: Annotated[str | None, QueryParameter(name="text", max_length=200, required=False)] = None,
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = 50,
) -> Response[Any]:
    return await show(request, FindOrders(status=status, text=text, before=before, limit=limit))


@get(
    "/admin/payments/attention",
    before_request=READ,
    tags=["Payments"],
    summary="List the payments that need somebody: in conflict, or with a hold that ends soon",
    responses=documented(200, AttentionView, "Unknown outcomes are listed apart.", 400, 422, keyed=False),
)
async def list_attention(
    request: HttpRequest,
    provider: Annotated[str | None, QueryParameter(name="provider", max_length=60, required=False)] = None,
    expiring_within_hours: Annotated[float, QueryParameter(name="expiring_within_hours", ge=0, le=720, required=False)] = 48.0,
) -> Response[Any]:
    return await show(request, ListAttention(provider=provider, expiring_within_hours=expiring_within_hours))


ROUTES = [find_orders, list_attention, put_order, get_order, get_payments, get_timeline, make_checkout_token, make_customer_token]
