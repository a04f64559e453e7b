"""Shipments: what was bought for which order, and where the parcels are."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Response, get
from litestar.params import QueryParameter

from services.gateway.console.pages import PAGE_ROWS, Facts, ask, page, signed_in
from shared.contracts.fulfillment.shipping import ListShipments, ShipmentPage
from shared.received import HttpRequest

Narrow = Annotated[str, QueryParameter(max_length=40, required=False)]


@get("/shipments", before_request=signed_in)
async def list_shipments(
    request: HttpRequest,
    status: Narrow = "",
    tracking_status: Narrow = "",
    order_id: Annotated[UUID | None, QueryParameter(name="order_id", required=False)] = None,
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
) -> Response[Any]:
    async def load() -> Facts:
        query = ListShipments(
            order_id=order_id, status=status or None, tracking_status=tracking_status or None, before=before, limit=PAGE_ROWS
        )
        return {"found": await ask(request, query, ShipmentPage)}

    return await page(request, "shipments.html", load)


ROUTES = [list_shipments]
