"""Quotes: what shipping and tax come to for an order, and what a store decided about both."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from shared.contracts.customs import CustomsTerms, DeliveryConfirmation
from shared.contracts.orders import Address, Amount, CountryCode, CurrencyCode, OrderContent, ShortText, TaxLine
from shared.messages import Message, Query

PACKAGES_MAX = 50
RULE_CODES_MAX = 1_000

RegionCode = Annotated[str, Meta(pattern=r"^([A-Z]{2}-[A-Z0-9]{1,3})?$", description="ISO 3166-2, or empty.")]
PostalPattern = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 -]*\*?$",
        max_length=40,
        description="`12345`, `123*` or `12000-12999`; codes as their country writes them (`01310-100`, `K1A 0B1`).",
    ),
]
PercentText = Annotated[str, Meta(pattern=r"^\d{1,3}(\.\d{1,6})?$", description="Percent, as a decimal string.")]
Grams = Annotated[int, Meta(gt=0, le=10_000_000)]
Millimetres = Annotated[int, Meta(ge=0, le=100_000)]


# Pricing


class ShippingRate(msgspec.Struct, frozen=True, kw_only=True):
    """A way to ship, its price, and until when it holds."""

    service: str
    amount: int
    currency: str
    id: UUID | None = None
    carrier: str = ""
    transit_days: int | None = None
    quoted_at: datetime | None = None
    expires_at: datetime | None = None


class ProviderMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """A selected provider: its name, what it can do, and what the browser needs for it."""

    name: str
    capabilities: dict[str, Any]
    browser: dict[str, str]


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it should be, and what was done instead."""

    code: str
    detail: str


class PackageBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A package as it goes out: its weight and outer size, and how many units of which lines are in it."""

    weight_grams: Grams
    length_mm: Millimetres = 0
    width_mm: Millimetres = 0
    height_mm: Millimetres = 0
    units: dict[str, Annotated[int, Meta(gt=0)]] = {}


class Price(Query, frozen=True, kw_only=True, tag="fulfillment.price.v1"):
    """Work out what an order leaves open of shipping and tax, for a snapshot."""

    order_id: UUID
    snapshot_id: UUID
    priced_hash: str
    content: OrderContent
    expires_at: datetime
    # A rate that was shown before, or a service by its name; else the cheapest.
    rate_id: UUID | None = None
    service: str | None = None
    # The buyer's address and such, wrapped for fulfillment.
    personal: str | None = None


class RemovedTax(msgspec.Struct, frozen=True, kw_only=True):
    """Tax of home that a price held and the buyer does not pay; without a line it is shipping's."""

    line: int | None
    amount: int


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What shipping and tax come to, and by whom."""

    shipping_amount: int
    rates: list[ShippingRate]
    selected: ShippingRate | None
    tax_lines: list[TaxLine]
    providers: dict[str, ProviderMetadata]
    notices: list[Notice] = []
    # Binds the tax to what was priced; finalizing asks for it.
    tax_hash: str = ""
    removed_taxes: list[RemovedTax] = []
    # What brings the total to the store's step, either way.
    rounding_amount: int = 0


class QuoteRates(Query, frozen=True, kw_only=True, tag="fulfillment.quote_rates.v1"):
    """Ask the carriers what it costs to ship an order."""

    order_id: UUID
    priced_hash: str
    content: OrderContent
    packages: tuple[PackageBody, ...] = ()
    # The buyer's address and such, wrapped for fulfillment.
    personal: str | None = None


class RatesView(msgspec.Struct, frozen=True, kw_only=True):
    """Ways to ship, the cheapest first, and who did not answer."""

    order_id: UUID
    rates: list[ShippingRate]
    packages: list[PackageBody]
    notices: list[Notice] = []


# Settings of a store


class FallbackRate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shipping costs when no carrier answers."""

    service: ShortText
    amount: Amount
    currency: CurrencyCode


class ZoneBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the same prices hold; no postal codes mean all of the country, or of the region."""

    name: ShortText
    country: CountryCode
    region: RegionCode = ""
    postal_codes: Annotated[list[PostalPattern], Meta(max_length=RULE_CODES_MAX)] = []


class BandBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a package up to a weight costs."""

    up_to_grams: Grams
    amount: Amount


class TariffBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service's prices in a zone, by weight; over the last band so much a kilogram, or nothing is carried."""

    service: ShortText
    zone: ShortText
    currency: CurrencyCode
    bands: Annotated[list[BandBody], Meta(min_length=1, max_length=200)]
    per_kilogram_over: Amount | None = None
    transit_days: Annotated[int, Meta(ge=0, le=365)] | None = None


class TableBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A carrier that is a table."""

    zones: Annotated[list[ZoneBody], Meta(max_length=500)]
    tariffs: Annotated[list[TariffBody], Meta(max_length=500)]
    volumetric_mm3_per_gram: Annotated[int, Meta(ge=1, le=100_000_000)] | None = None


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a store sells from, by whom it ships, and how its tax is worked out."""

    home_country: CountryCode
    ship_from: Address
    carriers: Annotated[list[ShortText], Meta(max_length=20)] = []
    fallback_rates: Annotated[list[FallbackRate], Meta(max_length=20)] = []
    package_limit_grams: Grams = 30_000
    tax_provider: ShortText = "built_in"
    shipping_prices_include_tax: bool = False
    # Of prices that hold their tax: what stays the same where another tax is due, or none.
    fixed_price: Literal["gross", "net"] = "gross"
    # By currency, to multiples of how many minor units totals are rounded: {"CHF": 5}.
    total_steps: Annotated[dict[CurrencyCode, Annotated[int, Meta(ge=1, le=10_000)]], Meta(max_length=200)] = {}
    # Zones, tariffs and bands of the `table_rate` carrier.
    table: TableBody | None = None
    # How goods are declared and handed over, unless an order or a label says otherwise.
    customs: CustomsTerms | None = None
    delivery_confirmation: DeliveryConfirmation | None = None


class PutSettings(Message, frozen=True, kw_only=True, tag="fulfillment.put_settings.v1"):
    """Set where a store sells from and how."""

    settings: StoreSettings


class GetSettings(Query, frozen=True, kw_only=True, tag="fulfillment.get_settings.v1"):
    """Read a store's settings."""


class SettingsView(msgspec.Struct, frozen=True, kw_only=True):
    """A store's settings and their revision."""

    settings: StoreSettings
    revision: int
    updated_at: datetime
