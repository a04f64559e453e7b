"""TaxJar: sales tax by its API, version 2 (developers.taxjar.com); prices there never hold their tax."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from services.fulfillment.domain.tax.certificates import certificates_of
from services.fulfillment.domain.tax.engine import Kind, Line, Row
from services.fulfillment.domain.tax.rules import Level, Reason
from services.fulfillment.providers import TaxRequest, Unsupported
from services.fulfillment.providers.figures import Component, decimal_of, minor, percent_of, rows_of
from services.fulfillment.providers.tax_books import TaxFiling, TaxRecord, TaxRecordPage, TaxRefusedForGood, by_line
from shared.contracts.orders import Address
from shared.errors import Invalid
from shared.http_client import Answer, ProviderClient
from shared.provider_answers import AnswerFormat, ProviderError, text_of

# The names of a jurisdiction's parts differ in the US, in Canada, and elsewhere (taxjar-ruby, spec/fixtures/taxes*.json).
US_PARTS = (
    (Level.STATE, "state", "state_taxable_amount", "state_sales_tax_rate", "state_amount"),
    (Level.COUNTY, "county", "county_taxable_amount", "county_tax_rate", "county_amount"),
    (Level.CITY, "city", "city_taxable_amount", "city_tax_rate", "city_amount"),
)
US_SPECIAL = {
    # Lines and shipping name it differently, in TaxJar's own examples.
    "line": (Level.DISTRICT, "special", "special_district_taxable_amount", "special_tax_rate", "special_district_amount"),
    "shipping": (Level.DISTRICT, "special", "special_taxable_amount", "special_tax_rate", "special_district_amount"),
}
CANADA_PARTS = (
    (Level.COUNTRY, "GST", "gst_taxable_amount", "gst_tax_rate", "gst"),
    (Level.STATE, "PST", "pst_taxable_amount", "pst_tax_rate", "pst"),
    (Level.STATE, "QST", "qst_taxable_amount", "qst_tax_rate", "qst"),
)
OTHER_PARTS = ((Level.COUNTRY, "country", "country_taxable_amount", "country_tax_rate", "country_tax_collectable"),)

# Each is read by itself.
PAGE_ROWS = 20
REVERSAL = "reversal"
# TaxJar names no currency: what it records is in dollars.
USD = "USD"
# Without it TaxJar answers by the account's age (developers.taxjar.com/api/reference, API version).
API_VERSION = "2020-08-07"
# Errors that say that nothing was done, by their names (developers.taxjar.com/api/reference, errors); the body says its status, too.
REFUSALS = {400: "Bad Request", 404: "Not Found", 406: "Not Acceptable", 410: "Gone", 422: "Unprocessable Entity"}
ALREADY_RECORDED = "already imported"
# Kinds of exemption that leave an order untaxed; "marketplace" and "non_exempt" do not (developers.taxjar.com, calculate sales tax).
EXEMPTIONS = frozenset({"wholesale", "government", "other"})
# The category "Other Exempt: Item is exempt" (GET /v2/categories). An exemption is a whole order's or a customer's; a line has its category
# alone, by which TaxJar also judges the shipping of what is taxed and what is not.
EXEMPT_CATEGORY = "99999"

AUDITED = frozenset(
    {
        *("tax", "shipping", "line_items", "id", "quantity", "unit_price", "discount", "product_tax_code", "exemption_type"),
        *("from_country", "from_state", "from_zip", "to_country", "to_state", "to_zip", "order_total_amount", "taxable_amount"),
        *("amount_to_collect", "rate", "has_nexus", "freight_taxable", "tax_source", "jurisdictions", "breakdown", "tax_collectable"),
        *("transaction_id", "transaction_date", "transaction_reference_id", "amount", "sales_tax", "order", "orders", "refund", "refunds"),
        *("combined_tax_rate", "country", "state", "county", "city", "error", "detail", "status"),
    }
)


class TaxRefused(Invalid):
    """The tax provider cannot work this sale out, for a reason of its own."""

    code = "tax-refused-by-provider"
    title = "The tax provider refused"


class TaxJar:
    """Asks TaxJar what a sale's tax is."""

    name = "taxjar"
    remote = True

    def __init__(self, *, base_url: str, api_key: str, timeout_seconds: float) -> None:
        self._client = ProviderClient(
            service="fulfillment",
            provider=self.name,
            base_url=base_url,
            headers={"Authorization": f"Bearer {api_key}", "Content-Type": "application/json", "x-api-version": API_VERSION},
            timeout_seconds=timeout_seconds,
            audited=AUDITED,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def quote(self, request: TaxRequest) -> list[Row]:
        """Say what the tax comes to; raises Unsupported for prices that hold their tax."""
        body = msgspec.json.encode(order_body(request))
        answer = await self._client.call("tax_for_order", "POST", "/v2/taxes", body=body)
        if (error := ANSWERS.refusal(answer)) is not None:
            raise TaxRefused(error.message, {"tax_provider": self.name, "provider_status": answer.status})
        with ANSWERS.reading():
            tax = ANSWERS.shown(answer)["tax"]
            # Without these it is nobody's tax.
            _ = tax["has_nexus"], tax["amount_to_collect"]
            return rows_from(tax, request)

    async def file(self, filing: TaxFiling) -> None:
        """Record a sale as an order transaction, or a reversal as a refund (developers.taxjar.com, transactions)."""
        if filing.currency != USD:
            raise TaxRefusedForGood(f"TaxJar records dollars alone, and this document is in {filing.currency}")
        what, body = "orders", filed_body(filing)
        if filing.kind == REVERSAL:
            what, body = "refunds", {**body, "transaction_reference_id": str(filing.reverses)}
        path = f"/v2/transactions/{what}"
        answer = await self._client.call(f"create_{filing.kind}", "POST", path, body=msgspec.json.encode(body))
        if (error := ANSWERS.refusal(answer)) is None:
            _record(answer, filing.kind, str(filing.document_id))
        elif answer.status != 422 or ALREADY_RECORDED not in error.message:
            raise TaxRefusedForGood(f"{answer.status}: {error.message}")

    async def get_record(self, key: str) -> TaxRecord | None:
        """Read an order, or a refund, by the name we gave it."""
        return await self._record("sale", "orders", key) or await self._record(REVERSAL, "refunds", key)

    async def list_records(self, *, since: datetime, until: datetime, cursor: str | None) -> TaxRecordPage:
        """Page through orders and refunds by the day of their transaction; TaxJar lists names alone, and all of them at once."""
        names: list[tuple[str, str, str]] = []
        days = {"from_transaction_date": since.date().isoformat(), "to_transaction_date": until.date().isoformat()}
        for kind, what in (("sale", "orders"), (REVERSAL, "refunds")):
            answer = await self._client.call(f"list_{what}", "GET", f"/v2/transactions/{what}", query=days)
            with ANSWERS.reading():
                names += [(str(name), kind, what) for name in ANSWERS.shown(answer)[what]]
        page = [each for each in sorted(names) if each[0] > (cursor or "")][:PAGE_ROWS]
        records = [await self._record(kind, what, name) for name, kind, what in page]
        following = page[-1][0] if len(page) == PAGE_ROWS else None
        return TaxRecordPage(records=tuple(each for each in records if each is not None), next=following)

    async def _record(self, kind: str, what: str, key: str) -> TaxRecord | None:
        answer = await self._client.call(f"show_{kind}", "GET", f"/v2/transactions/{what}/{key}")
        return None if ANSWERS.says_absent(answer) else _record(answer, kind, key)


def _error(answer: Answer) -> ProviderError | None:
    name, said, detail = REFUSALS.get(answer.status), answer.body, text_of(answer.body.get("detail"))
    if name is None or not detail or said.get("error") != name or str(said.get("status")) != str(answer.status):
        return None
    return ProviderError(code=name, message=detail)


ANSWERS = AnswerFormat(
    provider="taxjar", read_error=_error, refusing_statuses=frozenset(REFUSALS), absence_codes=frozenset({REFUSALS[404]})
)


def _record(answer: Answer, kind: str, key: str) -> TaxRecord:
    """Read the document of an answer, which must be the one that was asked for."""
    with ANSWERS.reading():
        said = ANSWERS.shown(answer)["order" if kind == "sale" else "refund"]
        if str(said["transaction_id"]) != key:
            raise ValueError("it is another document")
        return TaxRecord(
            key=key,
            kind=kind,
            currency="",
            net_amount=minor(said["amount"], USD),
            tax_amount=minor(said["sales_tax"], USD),
            made_at=datetime.fromisoformat(str(said["transaction_date"])),
        )


def filed_body(filing: TaxFiling) -> dict[str, Any]:
    """Write a document as TaxJar records it: every amount without its tax, and the tax beside it."""
    goods, shipping = by_line(filing.lines)
    parties, currency = filing.parties, filing.currency
    body = {
        "transaction_id": str(filing.document_id),
        "transaction_date": filing.recorded_at.isoformat(timespec="seconds"),
        **_place("from", parties.ship_from, parties.ship_from_region),
        **_place("to", parties.ship_to, parties.ship_to_region),
        "amount": float(decimal_of(filing.net_amount, currency)),
        "shipping": float(decimal_of(shipping["net"], currency)),
        "sales_tax": float(decimal_of(filing.tax_amount, currency)),
        "line_items": [
            {
                "id": str(line.line),
                "quantity": 1,
                "unit_price": float(decimal_of(line.net_amount, currency)),
                "sales_tax": float(decimal_of(line.tax_amount, currency)),
                **_category(line.tax_code, exempt=bool(parties.certificate(line.line)) and not parties.exempt),
            }
            for line in goods
        ],
    }
    # What bears an exemption may bear no tax.
    untaxed = not any(line.tax_amount for line in filing.lines)
    return {**body, "exemption_type": "other"} if parties.exempt and untaxed else body


def order_body(request: TaxRequest) -> dict[str, Any]:
    """Write the question: what is sold, from where to where."""
    currency, lines = request.content.currency, request.lines
    if any(line.included for line in lines):
        raise Unsupported("TaxJar knows no prices that hold their tax.", {"tax_provider": TaxJar.name})
    to = request.content.shipping_address or request.content.billing_address
    assert to is not None, "a sale without an address is refused before"
    certificates = certificates_of(request.sale, lines)
    whole = all(certificates)
    freed = [bool(certificate) and not whole for certificate in certificates]
    shipping = sum(line.amount for line, free in zip(lines, freed, strict=True) if line.kind is Kind.SHIPPING and not free)
    body = {
        **_place("from", request.ship_from, request.sale.ship_from.region),
        **_place("to", to, request.sale.ship_to.region),
        "shipping": float(decimal_of(shipping, currency)),
        "line_items": [_line(n, line, currency, exempt=freed[n]) for n, line in enumerate(lines) if line.kind is Kind.GOODS],
    }
    return {**body, "exemption_type": "other"} if whole else body


def rows_from(tax: Mapping[str, Any], request: TaxRequest) -> list[Row]:
    """Read the answer into rows; raises LookupError where a line that may be taxed is missing, ValueError where the sum is another."""
    currency, certificates = request.content.currency, certificates_of(request.sale, request.lines)
    said = [
        {} if line.kind is Kind.SHIPPING and certificate else _said_of(n, line, tax)
        for n, (line, certificate) in enumerate(zip(request.lines, certificates, strict=True))
    ]
    parts = [
        _components(each, request, "shipping" if line.kind is Kind.SHIPPING else "line")
        for line, each in zip(request.lines, said, strict=True)
    ]
    taxes = _collected(
        [minor(each.get("tax_collectable"), currency) for each in said],
        [sum(part.amount for part in of_line) for of_line in parts],
        minor(tax.get("amount_to_collect"), currency) if "amount_to_collect" in tax else None,
    )
    rows: list[Row] = []
    for n, line in enumerate(request.lines):
        rows += rows_of(
            n,
            line,
            request.sale.ship_to,
            parts[n],
            tax=taxes[n],
            taxable=minor(said[n].get("taxable_amount"), currency),
            provider=TaxJar.name,
            reason=_why_untaxed(n, request, tax, certificates),
        )
    return rows


def _why_untaxed(n: int, request: TaxRequest, tax: Mapping[str, Any], certificates: Sequence[str]) -> Reason:
    line = request.lines[n]
    if not tax.get("has_nexus"):
        return Reason.NOT_COLLECTING
    if certificates[n] or tax.get("exemption_type") in EXEMPTIONS:
        return Reason.CUSTOMER_EXEMPT
    if line.kind is Kind.GOODS:
        return Reason.PRODUCT_EXEMPT
    # Freight is free with goods that all are, for the same reason.
    of_goods = [certificate for each, certificate in zip(request.lines, certificates, strict=True) if each.kind is Kind.GOODS]
    return Reason.CUSTOMER_EXEMPT if of_goods and all(of_goods) else Reason.NOT_SUBJECT_TO_TAX


def _collected(taxes: list[int], of_parts: list[int], total: int | None) -> list[int]:
    """Bring the taxes of lines to what is to be collected in all.

    TaxJar rounds the order and each line by itself (taxjar-go, issue 22). It asks for the "amount of sales tax to collect", so each unit
    between them goes to the line whose jurisdictions come nearest to it, the largest of equals. More than a unit a line is no rounding.
    """
    over = 0 if total is None else total - sum(taxes)
    if abs(over) > len(taxes):
        raise ValueError(f"{total} is to be collected, and its lines come to {sum(taxes)}")
    taxes, step = list(taxes), 1 if over > 0 else -1
    for _ in range(abs(over)):
        n = max((n for n, tax in enumerate(taxes) if tax), key=lambda n: (step * (of_parts[n] - taxes[n]), taxes[n]), default=0)
        taxes[n] += step
    return taxes


def _said_of(n: int, line: Line, tax: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find what the breakdown says of a line; where something is collected it leaves out only shipping that is not taxed."""
    breakdown = tax.get("breakdown") or {}
    by_id = {str(item["id"]): item for item in breakdown.get("line_items") or []}
    shipping = line.kind is Kind.SHIPPING
    said: Mapping[str, Any] | None = breakdown.get("shipping") if shipping else by_id.get(str(n))
    untaxed = shipping and not (line.taxed_amount and tax.get("freight_taxable"))
    if said is None and not untaxed and tax.get("amount_to_collect"):
        raise LookupError(f"line {n} is missing in the breakdown")
    return said or {}


def _components(said: Mapping[str, Any], request: TaxRequest, what: str) -> list[Component]:
    parts: Sequence[tuple[Level, str, str, str, str]]
    if "gst" in said:
        parts = CANADA_PARTS
    elif "country_tax_collectable" in said:
        parts = OTHER_PARTS
    else:
        parts = (*US_PARTS, US_SPECIAL[what])
    currency = request.content.currency
    return [
        Component(
            level=level,
            name=name,
            region=request.sale.ship_to.region if level is not Level.COUNTRY else "",
            rate_percent=percent_of(said.get(rate)),
            taxable_amount=minor(said.get(taxable), currency),
            amount=minor(said.get(amount), currency),
        )
        for level, name, taxable, rate, amount in parts
    ]


def _place(side: str, address: Address, region: str) -> dict[str, str]:
    return {
        f"{side}_country": address.country_code,
        f"{side}_zip": address.postal_code,
        f"{side}_state": region.partition("-")[2] or address.country_area,
        f"{side}_city": address.city,
        f"{side}_street": address.street_address,
    }


def _line(n: int, line: Line, currency: str, *, exempt: bool) -> dict[str, Any]:
    # The whole line as one: a discount shared among units could not be said exactly.
    item: dict[str, Any] = {"id": str(n), "quantity": 1, "unit_price": float(decimal_of(line.taxed_amount, currency))}
    return {**item, **_category(line.tax_code, exempt=exempt)}


def _category(tax_code: str, *, exempt: bool) -> dict[str, str]:
    code = EXEMPT_CATEGORY if exempt else tax_code
    return {"product_tax_code": code} if code else {}
