"""What the shop says of an order: its lines, discounts, addresses and, where it prices them itself, shipping and tax."""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from shared.contracts.customs import CustomsTerms, DangerousGoods, DeliveryConfirmation
from shared.money import AMOUNT_MAX_MINOR_UNITS

ITEMS_MAX = 500
ADJUSTMENTS_MAX = 50
TAX_LINES_MAX = 2_000

Amount = Annotated[int, Meta(ge=0, le=AMOUNT_MAX_MINOR_UNITS, description="Minor units of the currency.")]
PositiveAmount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX_MINOR_UNITS, description="Minor units of the currency.")]
SignedAmount = Annotated[
    int, Meta(ge=-AMOUNT_MAX_MINOR_UNITS, le=AMOUNT_MAX_MINOR_UNITS, description="Minor units of the currency, signed.")
]
CurrencyCode = Annotated[str, Meta(pattern="^[A-Z]{3}$", description="ISO 4217.")]
CountryCode = Annotated[str, Meta(pattern="^[A-Z]{2}$", description="ISO 3166-1 alpha-2.")]
ShortText = Annotated[str, Meta(min_length=1, max_length=200)]
Token = Annotated[str, Meta(min_length=1, max_length=200, description="A payment method's token; never a card number.")]
Rate = Annotated[str, Meta(pattern=r"^\d{1,3}(\.\d{1,6})?$", description="Percent, as a decimal string.")]


class FundedBy(StrEnum):
    """Who bears a discount."""

    MERCHANT = "merchant"
    THIRD_PARTY = "third_party"


class TaxBehavior(StrEnum):
    """Whether a price holds its tax already."""

    INCLUSIVE = "inclusive"
    EXCLUSIVE = "exclusive"


class SupplyKind(StrEnum):
    """What a line supplies: goods, a service by electronic means (Directive 2006/112/EC, Article 58(1)(c)), or any other service."""

    GOODS = "goods"
    DIGITAL = "digital"
    SERVICE = "service"


class AdjustmentKind(StrEnum):
    """Where a discount comes from."""

    CAMPAIGN = "campaign"
    LEVEL = "level"


class Address(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A postal address as the customer typed it."""

    name: ShortText
    country_code: CountryCode
    street_address: Annotated[str, Meta(max_length=400)] = ""
    city: Annotated[str, Meta(max_length=200)] = ""
    postal_code: Annotated[str, Meta(max_length=40)] = ""
    country_area: Annotated[str, Meta(max_length=200)] = ""
    company_name: Annotated[str, Meta(max_length=200)] = ""
    phone: Annotated[str, Meta(max_length=60)] = ""


class Adjustment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A discount on one line, as a positive amount taken off."""

    label: ShortText
    amount: PositiveAmount
    kind: AdjustmentKind = AdjustmentKind.CAMPAIGN
    funded_by: FundedBy = FundedBy.MERCHANT


class Dimensions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Outer size of one unit."""

    length_mm: Annotated[int, Meta(gt=0, le=100_000)]
    width_mm: Annotated[int, Meta(gt=0, le=100_000)]
    height_mm: Annotated[int, Meta(gt=0, le=100_000)]


class Customs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What customs want to know of one unit."""

    hs_code: Annotated[str, Meta(pattern=r"^\d{6,10}$", description="Harmonized System code.")]
    origin_country: CountryCode
    description: ShortText
    # What one unit is worth, where its price does not say it: gifts, samples, what a discount makes free.
    unit_value: PositiveAmount | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of an order: a product variant, how many, at what price."""

    product_variant_id: UUID
    name: ShortText
    quantity: Annotated[int, Meta(gt=0, le=1_000_000)]
    unit_price: Amount
    tax_code: Annotated[str, Meta(max_length=60)] = ""
    tax_behavior: TaxBehavior = TaxBehavior.EXCLUSIVE
    supply: SupplyKind = SupplyKind.GOODS
    weight_grams: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    dimensions: Dimensions | None = None
    customs: Customs | None = None
    dangerous_goods: DangerousGoods | None = None
    adjustments: Annotated[list[Adjustment], Meta(max_length=ADJUSTMENTS_MAX)] = []


class TaxLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tax on one line (by its position, from 0) or, without a position, on shipping."""

    jurisdiction: ShortText
    rate_percent: Rate
    amount: Amount
    behavior: TaxBehavior = TaxBehavior.EXCLUSIVE
    line: Annotated[int, Meta(ge=0, le=ITEMS_MAX)] | None = None
    # What of the line's price was taxed, why it was or was not, and by which rule; empty where the shop did not say.
    taxable_amount: Amount | None = None
    reason: Annotated[str, Meta(max_length=60)] = ""
    rule_version: Annotated[str, Meta(max_length=80)] = ""


class OrderContent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the shop says of an order; shipping and tax that it does not state are worked out when it is quoted."""

    currency: CurrencyCode
    items: Annotated[list[Item], Meta(min_length=1, max_length=ITEMS_MAX)]
    shipping_amount: Amount | None = None
    tax_lines: Annotated[list[TaxLine], Meta(max_length=TAX_LINES_MAX)] | None = None
    shipping_address: Address | None = None
    billing_address: Address | None = None
    customer_id: UUID | None = None
    # The buyer's, as typed; a valid one of another EU member state makes a supply free of VAT (Directive 2006/112/EC, Article 138).
    vat_id: Annotated[str, Meta(max_length=40)] = ""
    # How it is declared and handed over, where that is not as the store's settings say.
    customs: CustomsTerms | None = None
    delivery_confirmation: DeliveryConfirmation | None = None
    cancelled: bool = False


class Personal(msgspec.Struct, frozen=True, kw_only=True):
    """What of an order is about its buyer; it travels wrapped."""

    shipping_address: Address | None = None
    billing_address: Address | None = None
    vat_id: str = ""


def personal_text(content: OrderContent) -> str:
    """Write what of an order is about its buyer, to be wrapped."""
    return msgspec.json.encode(Personal(**{name: getattr(content, name) for name in Personal.__struct_fields__})).decode()


def impersonal(content: OrderContent) -> OrderContent:
    """Leave out of an order what is about its buyer."""
    return msgspec.structs.replace(content, **msgspec.structs.asdict(Personal()))


def with_personal(content: OrderContent, personal: Personal) -> OrderContent:
    """Put what is about its buyer back into an order."""
    return msgspec.structs.replace(content, **msgspec.structs.asdict(personal))
