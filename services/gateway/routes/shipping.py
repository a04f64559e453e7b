"""Shipping: a store's settings, what it costs to ship an order, labels, and where parcels are."""

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post, put
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from services.gateway.domain import Access, Forbidden
from services.gateway.routes.answers import ADMIN, CHECKOUT, FINANCE, READ, ask, carry_out, documented, principal_of, show
from shared.contracts.customs import CustomsTerms, DeliveryConfirmation
from shared.contracts.fulfillment.pricing import PACKAGES_MAX, GetSettings, PackageBody, PutSettings, RatesView, SettingsView, StoreSettings
from shared.contracts.fulfillment.shipping import (
    PAGE_ROWS_MAX,
    BuyLabel,
    DocumentView,
    GetDocument,
    GetTracking,
    LabelResult,
    LabelView,
    ListShipments,
    OrderTracking,
    ShipmentPage,
    VoidLabel,
)
from shared.contracts.orders import PositiveAmount, ShortText
from shared.contracts.payments import ShopRates
from shared.received import HttpRequest

PackageList = Annotated[
    list[PackageBody],
    Meta(
        max_length=PACKAGES_MAX,
        description=(
            "With a key of the role admin alone (else 403): the packages the order goes in. Each unit of the order is in one of them; none "
            "is lighter or smaller than what is in it. A single package without `units` holds all."
        ),
    ),
]


class RatesBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """In which packages the order goes, which only the shop's backend may say; else they follow from the order's weights and sizes."""

    packages: PackageList = []


@post(
    "/checkout/orders/{order_id:uuid}/shipping/rates",
    before_request=CHECKOUT,
    status_code=200,
    tags=["Shipping"],
    summary="Ask what it costs to ship an order",
    responses=documented(200, RatesView, "Ways to ship, the cheapest first, and who did not answer."),
)
async def shop_rates(request: HttpRequest, order_id: FromPath[UUID], data: JSONBody[RatesBody]) -> Response[Any]:
    caller = principal_of(request)
    if data.packages and not caller.may(Access.ADMIN):
        facts = {"field": "$.packages", "role": caller.role.value}
        raise Forbidden("Packages follow from the order; only the shop's backend (a key of the role admin) may name them.", facts)
    return await carry_out(request, lambda _: ShopRates(order_id=order_id, packages=tuple(data.packages)), data=data)


@put(
    "/admin/fulfillment/settings",
    before_request=ADMIN,
    tags=["Shipping"],
    summary="Set where the store sells from, by whom it ships and how its tax is worked out",
    responses=documented(200, SettingsView, "The settings as they are now."),
)
async def put_settings(request: HttpRequest, data: JSONBody[StoreSettings]) -> Response[Any]:
    return await carry_out(request, lambda _: PutSettings(settings=data), data=data)


@get(
    "/admin/fulfillment/settings",
    before_request=READ,
    tags=["Shipping"],
    summary="Read the store's settings for shipping and tax",
    responses=documented(200, SettingsView, "The settings.", keyed=False),
)
async def get_settings(request: HttpRequest) -> Response[Any]:
    return await show(request, GetSettings())


class LabelBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which shipment's label, by which rate (the chosen one when none is named), which way, and how it is printed and declared."""

    snapshot_id: UUID | None = None
    rate_id: UUID | None = None
    service: ShortText | None = None
    document: Literal["pdf", "zpl"] = "pdf"
    insured_amount: PositiveAmount | None = None
    is_return: bool = False
    customs: CustomsTerms | None = None
    delivery_confirmation: DeliveryConfirmation | None = None


@post(
    "/admin/orders/{order_id:uuid}/shipping/labels",
    before_request=FINANCE,
    tags=["Shipping"],
    summary="Buy the label of an order's shipment, or one for its way back",
    responses=documented(201, LabelResult, "The label and its shipment, which is final now."),
)
async def buy_label(request: HttpRequest, order_id: FromPath[UUID], data: JSONBody[LabelBody]) -> Response[Any]:
    return await carry_out(request, lambda _: BuyLabel(order_id=order_id, **msgspec.structs.asdict(data)), data=data)


@post(
    "/admin/orders/{order_id:uuid}/shipping/labels/{label_id:uuid}/void",
    before_request=FINANCE,
    status_code=200,
    tags=["Shipping"],
    summary="Give a label back that will not be used",
    responses=documented(200, LabelView, "The label: refunded, rejected, not applicable, or still to be decided by the carrier."),
)
async def void_label(request: HttpRequest, order_id: FromPath[UUID], label_id: FromPath[UUID]) -> Response[Any]:
    return await carry_out(request, lambda _: VoidLabel(order_id=order_id, label_id=label_id))


PACKAGE_MAX = 10_000
_document = ResponseSpec(bytes, description="The printed label.", media_type="application/pdf", generate_examples=False)


@get(
    "/admin/orders/{order_id:uuid}/shipping/labels/{label_id:uuid}/document",
    before_request=READ,
    tags=["Shipping"],
    summary="Read a label's printed form",
    media_type="application/pdf",
    responses={**documented(200, DocumentView, "", 400, 422, keyed=False), 200: _document},
)
async def get_document(
    request: HttpRequest,
    order_id: FromPath[UUID],
    label_id: FromPath[UUID],
    package: Annotated[int, QueryParameter(name="package", ge=0, le=PACKAGE_MAX, required=False)] = 0,
) -> Response[Any]:
    answer = await ask(request, GetDocument(order_id=order_id, label_id=label_id, package=package))
    found = msgspec.json.decode(answer, type=DocumentView)
    ending = "zpl" if found.media_type.endswith("zpl") else "pdf"
    disposition = f'inline; filename="label-{label_id}-{package}.{ending}"'
    return Response(found.content, media_type=found.media_type, headers={"Content-Disposition": disposition})


@get(
    "/checkout/orders/{order_id:uuid}/shipping/tracking",
    before_request=CHECKOUT,
    tags=["Shipping"],
    summary="Ask where an order's parcels are",
    responses=documented(200, OrderTracking, "Each parcel, and all that was seen of it.", keyed=False),
)
async def get_tracking(request: HttpRequest, order_id: FromPath[UUID]) -> Response[Any]:
    return await show(request, GetTracking(order_id=order_id))


@get(
    "/admin/shipments",
    before_request=READ,
    tags=["Shipping"],
    summary="List shipments, the newest first",
    responses=documented(200, ShipmentPage, "A page; ask for the next one with before=next.", 400, 422, keyed=False),
)
async def list_shipments(
    request: HttpRequest,
    order_id: Annotated[UUID | None, QueryParameter(name="order_id", required=False)] = None,
    status: Annotated[str | None, QueryParameter(name="status", max_length=40, pattern="^[a-z_]+$", required=False)] = None,
    tracking_status: Annotated[
        str | None, QueryParameter(name="tracking_status", max_length=40, pattern="^[a-z_]+$", required=False)
    ] = None,
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = PAGE_ROWS_MAX,
) -> Response[Any]:
    return await show(request, ListShipments(order_id=order_id, status=status, tracking_status=tracking_status, before=before, limit=limit))


ROUTES = [shop_rates, put_settings, get_settings, buy_label, void_label, get_document, get_tracking, list_shipments]
