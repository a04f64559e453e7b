"""What is exported of recorded tax: which columns, in which order, and how amounts are written."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from enum import StrEnum

import msgspec

from services.fulfillment.domain.tax.rules import percent_text
from shared.errors import Refusal
from shared.money import Money, decimal_text

# VAT returns name Greece otherwise than ISO 3166-1 does.
VAT_NAMES = {"GR": "EL"}
# What the German portal takes in one file of the Union scheme.
BZST_ROWS_MAX = 6_000
BZST_HEADING = "#v1.0"
EURO = "EUR"
# The tax code of fees on a whole order.
FEE = "fee"


class Format(StrEnum):
    """In which shape tax is exported."""

    ITEMIZED = "itemized"
    OSS = "oss"
    BZST = "bzst"
    US_STATES = "us_states"


class NotExportable(Refusal):
    """The period holds something that this format cannot say."""

    code = "not-exportable"
    title = "This format cannot hold the period"
    status = 422


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded tax on a line, with what its document says."""

    document_id: str
    kind: str
    order_id: str
    document_date: date
    tax_date: date
    line: int | None
    tax_code: str
    quantity: int
    currency: str
    ship_from: str
    ship_to: str
    ship_to_region: str
    level: str
    country: str
    region: str
    jurisdiction: str
    rate_percent: Decimal
    reason: str
    included: bool
    taxable_amount: int
    untaxed_amount: int
    amount: int
    rule_version: str
    provider: str


ITEMIZED_HEADING = (
    *("document_id", "type", "order_id", "transaction_date", "tax_date", "line", "tax_code", "quantity", "currency"),
    *("origin_country", "destination_country", "destination_region"),
    *("jurisdiction_level", "jurisdiction_country", "jurisdiction_region", "jurisdiction_name", "tax_rate", "taxability_reason"),
    *("tax_behavior", "taxable_amount", "non_taxable_amount", "tax_amount", "rule_version", "provider"),
)


def itemized(items: Iterable[Item], *, heading: bool) -> str:
    """Write recorded taxes one by one."""
    rows = (
        (
            *(item.document_id, item.kind, item.order_id, item.document_date, item.tax_date),
            *(_line_of(item), item.tax_code, item.quantity, item.currency),
            *(item.ship_from, item.ship_to, item.ship_to_region, item.level, item.country, item.region, item.jurisdiction),
            *(percent_text(item.rate_percent), item.reason, "inclusive" if item.included else "exclusive"),
            *(_amount(item.taxable_amount, item.currency), _amount(item.untaxed_amount, item.currency)),
            *(_amount(item.amount, item.currency), item.rule_version, item.provider),
        )
        for item in items
    )
    return _written(ITEMIZED_HEADING if heading else None, rows)


def _line_of(item: Item) -> str:
    if item.line is not None:
        return str(item.line)
    return FEE if item.tax_code == FEE else "shipping"


class OssRow(msgspec.Struct, frozen=True, kw_only=True):
    """Sales to consumers of one member state, from one, at one rate; corrections are those of another quarter's sales."""

    ship_from: str
    ship_to: str
    reason: str
    rate_percent: Decimal
    currency: str
    tax_year: int
    tax_quarter: int
    taxable_amount: int
    amount: int

    @property
    def rate_type(self) -> str:
        """Name the kind of rate as VAT returns do."""
        return "STANDARD" if self.reason == "standard_rated" else "REDUCED"


OSS_HEADING = (
    *("consumption_country", "dispatch_country", "rate_type", "tax_rate", "currency", "tax_period"),
    *("taxable_amount", "tax_amount"),
)


def oss(rows: Sequence[OssRow]) -> str:
    """Write a One-Stop-Shop return in the order of Regulation (EU) 2020/194, Annex III: by consumption, then by dispatch."""
    ordered = sorted(rows, key=lambda r: (r.ship_to, r.ship_from, r.tax_year, r.tax_quarter, r.rate_type, r.rate_percent, r.currency))
    return _written(
        OSS_HEADING,
        (
            (
                *(_vat_name(row.ship_to), _vat_name(row.ship_from), row.rate_type, percent_text(row.rate_percent), row.currency),
                *(f"{row.tax_year}-Q{row.tax_quarter}", _amount(row.taxable_amount, row.currency), _amount(row.amount, row.currency)),
            )
            for row in ordered
        ),
    )


def bzst(rows: Sequence[OssRow], *, home: str, vat_numbers: dict[str, str], year: int, quarter: int) -> str:
    """Write the quarter's return as the German portal takes it (Union scheme, version 1.0); raises NotExportable.

    Records of kind 3 are goods sent from home, of kind 5 those sent from another member state.
    """
    if strange := sorted({row.currency for row in rows} - {EURO}):
        raise NotExportable(
            f"The return is in euros, and there are sales in {', '.join(strange)}: convert them at the rate of the period's last day.",
            {"currencies": strange},
        )
    if late := [row for row in rows if (row.tax_year, row.tax_quarter) != (year, quarter)]:
        periods = sorted({f"{row.tax_year}-Q{row.tax_quarter}" for row in late})
        raise NotExportable(
            "Corrections of earlier periods do not fit into this version of the format; enter them by hand (the oss format lists them).",
            {"periods": periods},
        )
    # An amount of nothing is not allowed in a return.
    told = [row for row in rows if row.amount]
    if len(told) > BZST_ROWS_MAX:
        raise NotExportable(f"There are {len(told)} rows, and the portal takes {BZST_ROWS_MAX}.", {"rows": len(told)})
    lines = [BZST_HEADING]
    for row in sorted(told, key=lambda r: (r.ship_from != home, r.ship_to, r.ship_from, r.rate_type, r.rate_percent)):
        rate, net, tax = f"{row.rate_percent:.2f}", _amount(row.taxable_amount, EURO), _amount(row.amount, EURO)
        if row.ship_from == home:
            lines.append(f"3,{_vat_name(row.ship_to)},{row.rate_type},{rate},{net},{tax}")
            continue
        number = vat_numbers.get(row.ship_from)
        if not number:
            raise NotExportable(
                f"Goods were sent from {row.ship_from}, and no registration there has a number.", {"country": row.ship_from}
            )
        lines.append(f"5,{_vat_name(row.ship_to)},2,{_vat_name(row.ship_from)},{number},,{row.rate_type},{rate},{net},{tax}")
    return "".join(f"{line}\n" for line in lines)


class StateRow(msgspec.Struct, frozen=True, kw_only=True):
    """Sales under one jurisdiction of a US state at one rate."""

    region: str
    level: str
    jurisdiction: str
    rate_percent: Decimal
    currency: str
    taxable_amount: int
    shipping_taxable_amount: int
    exempt_customer_amount: int
    exempt_product_amount: int
    not_collected_amount: int
    other_untaxed_amount: int
    amount: int


STATES_HEADING = (
    *("state", "jurisdiction_level", "jurisdiction_name", "tax_rate", "currency", "gross_amount", "taxable_amount"),
    *("taxable_shipping_amount", "exempt_customer_amount", "exempt_product_amount", "not_collected_amount", "other_untaxed_amount"),
    "tax_amount",
)


def us_states(rows: Sequence[StateRow]) -> str:
    """Write the summary that a state's return is filled in from."""
    ordered = sorted(rows, key=lambda r: (r.region, r.level, r.jurisdiction, r.rate_percent, r.currency))
    return _written(
        STATES_HEADING,
        (
            (
                *(row.region.removeprefix("US-"), row.level, row.jurisdiction, percent_text(row.rate_percent), row.currency),
                *(
                    _amount(each, row.currency)
                    for each in (
                        *(row.taxable_amount + _untaxed(row), row.taxable_amount, row.shipping_taxable_amount),
                        *(row.exempt_customer_amount, row.exempt_product_amount, row.not_collected_amount, row.other_untaxed_amount),
                        row.amount,
                    )
                ),
            )
            for row in ordered
        ),
    )


def _untaxed(row: StateRow) -> int:
    return row.exempt_customer_amount + row.exempt_product_amount + row.not_collected_amount + row.other_untaxed_amount


def quarter_of(first: date, last: date) -> tuple[int, int]:
    """Name the quarter that a period is; raises NotExportable for any other period."""
    quarter = (first.month - 1) // 3 + 1
    whole = first.day == 1 and first.month % 3 == 1 and last.year == first.year and last.month == first.month + 2
    if not whole or (date.fromordinal(last.toordinal() + 1)).day != 1:
        raise NotExportable("This return is for a quarter, from its first day to its last.", {"from": str(first), "to": str(last)})
    return first.year, quarter


def _vat_name(country: str) -> str:
    return VAT_NAMES.get(country, country)


def _amount(amount: int, currency: str) -> str:
    return decimal_text(Money(amount, currency))


def _written(heading: Sequence[str] | None, rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if heading is not None:
        writer.writerow(heading)
    writer.writerows(rows)
    return out.getvalue()
