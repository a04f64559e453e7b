"""What a customer may read of their own; and where the old routes under /me have gone."""

from typing import Annotated, Any, Literal
from uuid import UUID

from litestar import Response, get
from litestar.datastructures import ResponseHeader
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from litestar.response import Redirect

from services.gateway.routes.answers import CUSTOMER, PROBLEM_TYPE, ProblemDocument, documented, open_to_all, principal_of, show
from shared.contracts.payments import PAGE_ROWS_MAX, GetOrder, ListOrders, OrderPage, OrderView
from shared.reason_phrases import REASON_PHRASES
from shared.received import HttpRequest

PAGE_ROWS_DEFAULT = 50
# Since when they have moved (RFC 9745), and until when they say where (RFC 8594).
MOVED_DEPRECATED = "@1767225600"
SUNSET = "Fri, 31 Dec 2027 23:59:59 GMT"


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


# Where the routes of the first releases have gone. They are followed by whoever may call the new ones: a customer's token only reads.
MOVED: dict[str, tuple[Literal["GET", "POST"], str]] = {
    "/me/checkout/quote": ("POST", "/checkout/quote"),
    "/me/orders/{order_id:uuid}/pay": ("POST", "/checkout/orders/{order_id}/submit-payment"),
    "/me/orders/{order_id:uuid}/payments/authorize": ("POST", "/checkout/orders/{order_id}/payments/authorize"),
    "/me/orders/{order_id:uuid}/shipping/rates": ("POST", "/checkout/orders/{order_id}/shipping/rates"),
    "/me/orders/{order_id:uuid}/shipping/tracking": ("GET", "/checkout/orders/{order_id}/shipping/tracking"),
    "/me/orders/{order_id:uuid}/tax/finalize": ("POST", "/checkout/orders/{order_id}/tax/finalize"),
}
MOVED_HEADERS = [
    ResponseHeader(name="Deprecation", value=MOVED_DEPRECATED, description="Since when (RFC 9745).", documentation_only=True),
    ResponseHeader(name="Sunset", value=SUNSET, description="Until when this says where it is (RFC 8594).", documentation_only=True),
]


def _moved(old: str, method: Literal["GET", "POST"], new: str) -> HTTPRouteHandler:
    async def moved(request: HttpRequest) -> Redirect:
        query = request.scope["query_string"].decode("latin-1")
        location = f"/api/v1{new.format(**request.path_params)}" + (f"?{query}" if query else "")
        return Redirect(location, status_code=308, headers={"Deprecation": MOVED_DEPRECATED, "Sunset": SUNSET})

    problems = {
        status: ResponseSpec(ProblemDocument, description=REASON_PHRASES[status], media_type=PROBLEM_TYPE, generate_examples=False)
        for status in (400, 404)
    }
    return HTTPRouteHandler(
        old,
        http_method=method,
        before_request=open_to_all,
        status_code=308,
        tags=["Customers"],
        summary=f"Moved to {new}",
        deprecated=True,
        responses=problems,
        response_description="Call the same at `Location`, with its query.",
        response_headers=MOVED_HEADERS,
    )(moved)


ROUTES = [my_orders, my_order, *(_moved(old, method, new) for old, (method, new) in MOVED.items())]
