"""Shipping: a store's settings, and what it costs to ship an order."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Response, get, post, put
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from services.gateway.routes.answers import ADMIN, CHECKOUT, HttpRequest, KeyHeader, PreferHeader, carry_out, documented, show
from shared.contracts.fulfillment.pricing import PACKAGES_MAX, GetSettings, PackageBody, PutSettings, RatesView, SettingsView, StoreSettings
from shared.contracts.payments import ShopRates


class RatesBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """In which packages the order goes; worked out when none are given."""

    packages: Annotated[list[PackageBody], Meta(max_length=PACKAGES_MAX)] = []


@post(
    "/checkout/orders/{order_id:uuid}/shipping/rates",
    before_request=CHECKOUT,
    status_code=200,
    tags=["Shipping"],
    summary="Ask what it costs to ship an order",
    responses=documented(200, RatesView, "Ways to ship, the cheapest first, and who did not answer."),
)
async def shop_rates(
    request: HttpRequest, order_id: FromPath[UUID], data: JSONBody[RatesBody], key: KeyHeader = None, prefer: PreferHeader = None
) -> Response[Any]:
    return await carry_out(request, lambda _: ShopRates(order_id=order_id, packages=tuple(data.packages)), data=data)


@put(
    "/admin/fulfillment/settings",
    before_request=ADMIN,
    tags=["Shipping"],
    summary="Set where the store sells from, by whom it ships and how its tax is worked out",
    responses=documented(200, SettingsView, "The settings as they are now."),
)
async def put_settings(
    request: HttpRequest, data: JSONBody[StoreSettings], key: KeyHeader = None, prefer: PreferHeader = None
) -> Response[Any]:
    return await carry_out(request, lambda _: PutSettings(settings=data), data=data)


@get(
    "/admin/fulfillment/settings",
    before_request=ADMIN,
    tags=["Shipping"],
    summary="Read the store's settings for shipping and tax",
    responses=documented(200, SettingsView, "The settings.", keyed=False),
)
async def get_settings(request: HttpRequest) -> Response[Any]:
    return await show(request, GetSettings())


ROUTES = [shop_rates, put_settings, get_settings]
