"""Tax: rules, registrations and exemptions; what was finalized, and what is exported of it."""

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from shared.contracts.fulfillment.pricing import RULE_CODES_MAX, PercentText, PostalPattern, RegionCode
from shared.contracts.orders import Amount, CountryCode, CurrencyCode, PositiveAmount, ShortText
from shared.messages import Event, Message, Query

PAGE_ROWS_MAX = 200
EXPORT_PAGE_ROWS_MAX = 1_000
# Of sales within a threshold, and of rules before each other.
COUNT_MAX = 1_000_000_000
IMPORT_LIMITS_MAX = 30


# Tax: rules, registrations, exemptions


class RuleBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tax of one jurisdiction on goods of one tax code, for a time."""

    country: CountryCode
    name: ShortText
    rate_percent: PercentText
    valid_from: date
    region: RegionCode = ""
    postal_codes: Annotated[list[PostalPattern], Meta(max_length=RULE_CODES_MAX)] = []
    postal_codes_excluded: Annotated[list[PostalPattern], Meta(max_length=RULE_CODES_MAX)] = []
    level: Literal["country", "state", "county", "city", "district"] = "country"
    tax_code: Annotated[str, Meta(max_length=60)] = ""
    reason: Literal["standard_rated", "reduced_rated", "zero_rated", "product_exempt", "not_subject_to_tax"] = "standard_rated"
    priority: Annotated[int, Meta(ge=-COUNT_MAX, le=COUNT_MAX)] = 0
    compound: bool = False
    taxed_above: Amount = 0
    # Of each article's price, or of all of a sale that the jurisdiction taxes, what is over the one and up to the other is taxed.
    taxed_up_to: Amount | None = None
    taxed_per: Literal["article", "sale"] = "article"
    # All or nothing by the article's price without tax; of a fee by all that is taxed of the sale.
    applies_from: Amount | None = None
    applies_above: Amount | None = None
    applies_up_to: Amount | None = None
    applies_below: Amount | None = None
    # Whose minor units these amounts are; empty: those of any sale.
    currency: Annotated[str, Meta(pattern="^([A-Z]{3})?$")] = ""
    # Within one region alone (India's CGST and SGST), or from one to another (IGST).
    movement: Literal["any", "within_region", "between_regions"] = "any"
    # What a region's rules that say it may take together; in their order, one that would go over is left out.
    combined_max_percent: PercentText | None = None
    # A fee once a delivery with taxed goods, instead of a rate.
    flat_amount: PositiveAmount | None = None
    shipping: Literal["always", "never", "follows_goods", "highest_rate", "proportional", "by_weight"] = "always"
    rounding: Literal["half_up", "half_even", "half_down", "down", "up"] = "half_up"
    scope: Literal["line", "rate_group", "document"] = "line"
    inclusive: Literal["tax", "net"] = "tax"
    # Tax is rounded to multiples of so many minor units.
    rounding_unit: Annotated[int, Meta(ge=1, le=10_000)] = 1
    sourcing: Literal["destination", "origin", "hybrid"] = "destination"
    valid_to: date | None = None
    source: Annotated[str, Meta(max_length=400)] = ""
    # When it was last compared with its source; quotes say when that was too long ago.
    checked_on: date | None = None


class PutRule(Message, frozen=True, kw_only=True, tag="fulfillment.put_rule.v1"):
    """Add a tax rule, or replace one."""

    rule_id: UUID
    rule: RuleBody
    change: bool = False


class DeleteRule(Message, frozen=True, kw_only=True, tag="fulfillment.delete_rule.v1"):
    """Take a tax rule out of use; what it led to keeps its version."""

    rule_id: UUID


class ListRules(Query, frozen=True, kw_only=True, tag="fulfillment.list_rules.v1"):
    """Read a page of tax rules."""

    country: str | None = None
    tax_code: str | None = None
    on: date | None = None
    after: UUID | None = None
    limit: int = PAGE_ROWS_MAX


class RuleView(msgspec.Struct, frozen=True, kw_only=True):
    """A tax rule and the version that amounts made by it bear."""

    id: UUID
    version: str
    rule: RuleBody
    created_at: datetime


class RulePage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of tax rules; `next` is the cursor of the following one."""

    rules: list[RuleView]
    next: UUID | None = None


class GoneView(msgspec.Struct, frozen=True, kw_only=True):
    """Something is no longer in use."""

    id: UUID
    deleted: bool = True


class NexusBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a store collects tax, or from which sales on it would have to."""

    # Empty together with `oss` or `ioss`, which stand for the whole EU.
    country: Annotated[str, Meta(pattern="^([A-Z]{2})?$")] = ""
    region: RegionCode = ""
    # The One-Stop-Shop's Union scheme: what is sent from one member state to consumers in another.
    oss: bool = False
    # Its import scheme: goods of up to 150 EUR that are sent to consumers in the EU from outside.
    ioss: bool = False
    # The store imports what it sends to this country and sells it there, whatever it is worth.
    importer: bool = False
    # The limit of goods of low value (150 EUR, 135 GBP, 1000 AUD, …) in other currencies in which the store sells.
    import_limits: Annotated[dict[CurrencyCode, PositiveAmount], Meta(max_length=IMPORT_LIMITS_MAX)] = {}
    # Whether tax is collected; without it only sales are counted towards the thresholds.
    registered: bool = True
    registration_number: Annotated[str, Meta(max_length=60)] = ""
    valid_from: date
    valid_to: date | None = None
    threshold_amount: PositiveAmount | None = None
    threshold_currency: CurrencyCode | None = None
    threshold_count: Annotated[int, Meta(ge=1, le=COUNT_MAX)] | None = None
    # Whether both thresholds must be reached (as in New York), or either (as in Georgia).
    threshold_both: bool = False
    threshold_period: Literal["calendar_year", "current_or_previous_year", "rolling_12_months"] = "calendar_year"

    @property
    def number(self) -> str | None:
        """The number that labels and returns bear."""
        return self.registration_number or None


class PutNexus(Message, frozen=True, kw_only=True, tag="fulfillment.put_nexus.v1"):
    """Say where a store collects tax, or watch where it may have to."""

    nexus_id: UUID
    nexus: NexusBody
    change: bool = False


class DeleteNexus(Message, frozen=True, kw_only=True, tag="fulfillment.delete_nexus.v1"):
    """Take a registration or a watch back."""

    nexus_id: UUID


class ListNexus(Query, frozen=True, kw_only=True, tag="fulfillment.list_nexus.v1"):
    """Read where a store collects tax, and how near it is to where it must."""


class ThresholdView(msgspec.Struct, frozen=True, kw_only=True):
    """How near sales are to a threshold: below, near (80 %) or reached."""

    since: date
    amount: int
    count: int
    # Percent of the threshold, cut to whole ones; the larger of the two, the smaller where both must be reached.
    percent: int
    state: str


class NexusView(msgspec.Struct, frozen=True, kw_only=True):
    """A registration or a watch."""

    id: UUID
    nexus: NexusBody
    threshold: ThresholdView | None
    created_at: datetime


class NexusesView(msgspec.Struct, frozen=True, kw_only=True):
    """All of a store's registrations and watches."""

    nexus: list[NexusView]


class ExemptionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A customer's certificate: where, for what, and for how long they are not taxed."""

    customer_id: UUID
    certificate: ShortText
    country: CountryCode
    region: RegionCode = ""
    tax_codes: Annotated[list[ShortText], Meta(max_length=100)] = []
    valid_from: date
    valid_to: date | None = None


class PutExemption(Message, frozen=True, kw_only=True, tag="fulfillment.put_exemption.v1"):
    """Keep a customer's certificate."""

    exemption_id: UUID
    exemption: ExemptionBody
    change: bool = False


class DeleteExemption(Message, frozen=True, kw_only=True, tag="fulfillment.delete_exemption.v1"):
    """Take a certificate out of use."""

    exemption_id: UUID


class ListExemptions(Query, frozen=True, kw_only=True, tag="fulfillment.list_exemptions.v1"):
    """Read certificates, a customer's or all."""

    customer_id: UUID | None = None
    after: UUID | None = None
    limit: int = PAGE_ROWS_MAX


class ExemptionView(msgspec.Struct, frozen=True, kw_only=True):
    """A customer's certificate."""

    id: UUID
    exemption: ExemptionBody
    created_at: datetime


class ExemptionPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of certificates; `next` is the cursor of the following one."""

    exemptions: list[ExemptionView]
    next: UUID | None = None


# Tax: finalized and exported


class FinalizeTax(Message, frozen=True, kw_only=True, tag="fulfillment.finalize_tax.v1"):
    """Record a snapshot's tax for good."""

    order_id: UUID
    snapshot_id: UUID
    tax_hash: str | None = None


class TaxRowView(msgspec.Struct, frozen=True, kw_only=True):
    """What one jurisdiction's tax on one line came to, and why; without a line it is shipping's."""

    line: int | None
    country: str
    region: str
    level: str
    jurisdiction: str
    rate_percent: str
    taxable_amount: int
    untaxed_amount: int
    amount: int
    included: bool
    reason: str
    rule_version: str
    tax_code: str = ""


class TaxDocumentView(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded sale, a reversal or a reinstatement, with every line's tax."""

    id: UUID
    kind: str
    order_id: UUID
    snapshot_id: UUID
    tax_hash: str
    currency: str
    provider: str
    tax_date: date
    document_date: date
    tax_amount: int
    lines: list[TaxRowView]
    evidence: dict[str, Any] = {}
    # The sale that a reversal takes back from, and a reinstatement gives back to.
    reverses: UUID | None = None
    # A snapshot that is not paid yet is recorded once it is.
    recorded: bool = True


class TaxView(msgspec.Struct, frozen=True, kw_only=True):
    """All that is recorded of an order's tax: the sale, and what reversed or reinstated it as money went back or came after all."""

    order_id: UUID
    documents: list[TaxDocumentView]


class GetTax(Query, frozen=True, kw_only=True, tag="fulfillment.get_tax.v1"):
    """Read what is recorded of an order's tax."""

    order_id: UUID


class ExportPage(Query, frozen=True, kw_only=True, tag="fulfillment.export_page.v1"):
    """Read a piece of an export; the first without a cursor."""

    first_day: date
    last_day: date
    format: str
    cursor: str | None = None


class ExportPiece(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of an export; `next` is the cursor of the following one."""

    text: str
    rows: int
    next: str | None
    # Whether the period is over, so that the same export can never come out otherwise.
    closed: bool


class ExportDone(Query, frozen=True, kw_only=True, tag="fulfillment.export_done.v1"):
    """Keep what an export came to; a closed period that came out otherwise is refused."""

    first_day: date
    last_day: date
    format: str
    rows: int
    sha256: str


class ExportView(msgspec.Struct, frozen=True, kw_only=True):
    """What an export came to."""

    first_day: date
    last_day: date
    format: str
    rows: int
    sha256: str
    closed: bool
    exported_at: datetime


class ExportsView(msgspec.Struct, frozen=True, kw_only=True):
    """The exports that were made, the latest first."""

    exports: list[ExportView]


class ListExports(Query, frozen=True, kw_only=True, tag="fulfillment.list_exports.v1"):
    """Read which exports were made."""


class ThresholdReached(Event, frozen=True, kw_only=True, tag="fulfillment.threshold_reached.v1"):
    """Sales came near a threshold from which on tax must be collected, or reached it."""

    nexus_id: UUID
    state: str
    threshold: ThresholdView
