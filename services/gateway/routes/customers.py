"""What a customer may read of their own; and where the old mutations under /me have gone."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath, QueryParameter

from services.gateway.routes.answers import CUSTOMER, documented, principal_of, show
from shared.contracts.payments import PAGE_ROWS_MAX, GetOrder, ListOrders, OrderPage, OrderView
from shared.received import HttpRequest

PAGE_ROWS_DEFAULT = 50
MOVED_DEPRECATED = "@1767225600"


@get(
    "/me/orders",
    before_request=CUSTOMER,
    tags=["Customers"],
    summary="List my orders, the newest first",
    responses=documented(200, OrderPage, "A page of orders; `next` is the `before` of the following one.", 422, keyed=False),
)
async def my_orders(
    request: HttpRequest,
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = PAGE_ROWS_DEFAULT,
) -> Response[Any]:
    customer_id = principal_of(request).customer_id
    assert customer_id is not None, "a customer's token names its customer"
    return await show(request, ListOrders(customer_id=customer_id, before=before, limit=limit))


@get(
    "/me/orders/{order_id:uuid}",
    before_request=CUSTOMER,
    tags=["Customers"],
    summary="Read one of my orders",
    responses=documented(200, OrderView, "The order.", keyed=False),
)
async def my_order(request: HttpRequest, order_id: FromPath[UUID]) -> Response[Any]:
    return await show(request, GetOrder(order_id=order_id, customer_id=principal_of(request).customer_id))


def _moved(location: str) -> Response[None]:
    return Response(None, status_code=308, headers={"Location": location, "Deprecation": MOVED_DEPRECATED})


@post("/me/checkout/quote", include_in_schema=False, status_code=308)
async def old_quote() -> Response[None]:
    return _moved("/api/v1/checkout/quote")


@post("/me/orders/{order_id:uuid}/pay", include_in_schema=False, status_code=308)
async def old_pay(order_id: FromPath[UUID]) -> Response[None]:
    return _moved(f"/api/v1/checkout/orders/{order_id}/submit-payment")


@post("/me/orders/{order_id:uuid}/payments/authorize", include_in_schema=False, status_code=308)
async def old_authorize(order_id: FromPath[UUID]) -> Response[None]:
    return _moved(f"/api/v1/checkout/orders/{order_id}/payments/authorize")


@post("/me/orders/{order_id:uuid}/shipping/rates", include_in_schema=False, status_code=308)
async def old_rates(order_id: FromPath[UUID]) -> Response[None]:
    return _moved(f"/api/v1/checkout/orders/{order_id}/shipping/rates")


@post("/me/orders/{order_id:uuid}/tax/finalize", include_in_schema=False, status_code=308)
async def old_finalize(order_id: FromPath[UUID]) -> Response[None]:
    return _moved(f"/api/v1/checkout/orders/{order_id}/tax/finalize")


ROUTES = [my_orders, my_order, old_quote, old_pay, old_authorize, old_rates, old_finalize]
