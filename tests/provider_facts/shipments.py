"""What is shipped to try a carrier's facts: where from, where to, in what, and which label."""

from typing import Any

import msgspec

from services.fulfillment.domain.shipping.customs import Terms, terms_of, way_of
from services.fulfillment.providers import LabelRequest, RatesRequest
from shared.contracts.fulfillment.pricing import PackageBody
from shared.contracts.orders import Address, OrderContent

ITEM: dict[str, Any] = {
    "product_variant_id": "0192f0c1-7e00-7000-8000-000000000001",
    "name": "Sweet shirts",
    "quantity": 2,
    "unit_price": 2325,
    "weight_grams": 156,
    "customs": {"hs_code": "654321", "origin_country": "US", "description": "Sweet shirts"},
}
CONTENT = msgspec.convert({"currency": "USD", "items": [ITEM]}, OrderContent)
PLAIN_ITEM = {name: value for name, value in ITEM.items() if name != "customs"}
UNDECLARED = msgspec.convert({"currency": "USD", "items": [PLAIN_ITEM]}, OrderContent)
PACKAGE = PackageBody(weight_grams=437, length_mm=254, width_mm=204, height_mm=101)
HOME = Address(
    name="Jack Sparrow", street_address="388 Townsend St", city="San Francisco", country_area="CA", postal_code="94107", country_code="US"
)
AWAY = msgspec.structs.replace(HOME, name="Elizabeth Swan", street_address="179 N Harbor Dr", city="Redondo Beach", postal_code="90277")
TOKYO = Address(
    name="Haruka", street_address="1-2-3 Ginza", city="Chuo-ku", country_area="Tokyo", postal_code="104-0061", country_code="JP"
)


def a_rates_request(**changes: Any) -> RatesRequest:
    """Ask for the rates of the package, with changes, and declare its goods where they are declared at all."""
    request = RatesRequest(**{"ship_from": HOME, "ship_to": AWAY, "packages": (PACKAGE,), "content": CONTENT, **changes})
    return msgspec.structs.replace(request, terms=terms_between(request)) if "terms" not in changes else request


def terms_between(request: RatesRequest) -> Terms:
    """Say what the carrier must know of a request's goods."""
    if any(item.customs is None for item in request.content.items):
        return Terms()
    way = way_of(request.ship_from, request.ship_to)
    return terms_of(request.content, request.packages, way, said=(), confirmations=())


def a_label_request(rate_id: str, **changes: Any) -> LabelRequest:
    """Ask for a label by a rate, with changes."""
    request: dict[str, Any] = {
        "provider_rate_id": rate_id,
        "service": "Sandbox Ground",
        "ship_from": HOME,
        "ship_to": AWAY,
        "packages": (PACKAGE,),
        "content": CONTENT,
        "document": "pdf",
        "insured_amount": None,
        "is_return": False,
    }
    return LabelRequest(**{**request, **changes})
