"""Avalara AvaTax: tax by its REST API, version 2 (developer.avalara.com); a quote is a SalesOrder, which Avalara does not record."""

import base64
import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from services.fulfillment.domain.tax.certificates import certificates_of
from services.fulfillment.domain.tax.engine import Kind, Line, Row
from services.fulfillment.domain.tax.rules import Level, Reason
from services.fulfillment.providers import TaxRequest
from services.fulfillment.providers.figures import Component, decimal_of, minor, percent_of, rows_of
from services.fulfillment.providers.tax_books import TaxFiling, TaxRecord, TaxRecordPage, TaxRefusedForGood
from services.fulfillment.providers.taxjar import TaxRefused
from shared.contracts.orders import Address
from shared.http_client import Answer, ProviderClient
from shared.provider_answers import AnswerFormat, ProviderError, text_of

# Shipping by a carrier, delivered (AvaTax system tax codes).
FREIGHT = "FR020100"
PAGE_ROWS = 100
KINDS = {"SalesInvoice": "sale", "ReturnInvoice": "reversal"}
# Only a committed document is reported on a return (developer.avalara.com, "What's a DocStatusError?"). An adjusted one was replaced by
# another of the same code.
COMMITTED, ADJUSTED = "Committed", "Adjusted"
# By JurisdictionType, and by JurisTypeId, which older answers have alone (AvaTax-REST-V2-DotNet-SDK, src/enums).
LEVELS = {
    "Country": Level.COUNTRY,
    "State": Level.STATE,
    "County": Level.COUNTY,
    "City": Level.CITY,
    "Special": Level.DISTRICT,
    "CNT": Level.COUNTRY,
    "STA": Level.STATE,
    "CTY": Level.COUNTY,
    "CIT": Level.CITY,
    "STJ": Level.DISTRICT,
}
# The limits of AvaTax: address lines and their length (AvaTax-REST-V2-PHP-SDK, release 23.7.0), an exemption number (Batch File Reference).
ADDRESS_LINES_MAX = 3
ADDRESS_LINE_MAX_CHARACTERS = 100
EXEMPTION_MAX_CHARACTERS = 25
# Each error links to the page about it, which is named by its code (developer.avalara.com/avatax/errors, "Handling Error Messages").
ERRORS_PAGE = "developer.avalara.com/avatax/errors/"
# Whose fault an error is: the request's, or what its calculation found wrong (an address, a document that is committed already).
CLIENT_FAULTS = frozenset({"Client", "GetTaxError"})
MISSING = "EntityNotFoundError"

AUDITED = frozenset(
    {
        *("type", "companyCode", "date", "currencyCode", "lines", "number", "quantity", "amount", "taxCode", "taxIncluded", "code"),
        *("addresses", "shipFrom", "shipTo", "country", "region", "postalCode", "totalTax", "totalAmount", "totalExempt", "lineNumber"),
        *("tax", "taxableAmount", "exemptAmount", "details", "jurisType", "jurisName", "taxName", "rate", "nonTaxableAmount"),
        *("error", "message", "summary", "id", "status", "commit", "taxOverride", "taxAmount", "reason", "referenceCode", "value"),
    }
)


class Avalara:
    """Asks AvaTax what a sale's tax is."""

    name = "avalara"
    remote = True

    def __init__(self, *, base_url: str, account_id: str, license_key: str, company_code: str, timeout_seconds: float) -> None:
        credential = base64.b64encode(f"{account_id}:{license_key}".encode()).decode()
        self._company_code = company_code
        self._client = ProviderClient(
            service="fulfillment",
            provider=self.name,
            base_url=base_url,
            headers={
                "Authorization": f"Basic {credential}",
                "Content-Type": "application/json",
                "X-Avalara-Client": "Tender; 1; REST; v2; tender",
            },
            timeout_seconds=timeout_seconds,
            audited=AUDITED,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def quote(self, request: TaxRequest) -> list[Row]:
        """Say what the tax comes to."""
        body = msgspec.json.encode(transaction_body(request, company_code=self._company_code))
        answer = await self._client.call("create_transaction", "POST", "/api/v2/transactions/create", body=body)
        if (error := ANSWERS.refusal(answer)) is not None:
            raise TaxRefused(error.message, {"tax_provider": self.name, "provider_code": error.code})
        with ANSWERS.reading():
            return rows_from(_transaction(answer, _code(request)), request)

    async def file(self, filing: TaxFiling) -> None:
        """Record a sale as a committed SalesInvoice, or a reversal as a ReturnInvoice, each with the tax that was charged."""
        body = msgspec.json.encode(invoice_body(filing, company_code=self._company_code))
        answer = await self._client.call(f"create_{filing.kind}", "POST", "/api/v2/transactions/create", body=body)
        key = str(filing.document_id)
        if (error := ANSWERS.refusal(answer)) is None:
            with ANSWERS.reading():
                _transaction(answer, key)
        # A second one of the same name is refused, too.
        elif await self.get_record(key) is None:
            raise TaxRefusedForGood(f"{error.code}: {error.message}")

    async def get_record(self, key: str) -> TaxRecord | None:
        """Read a transaction by our code for it."""
        answer = await self._client.call("get_transaction", "GET", f"{self._transactions}/{key}")
        if ANSWERS.says_absent(answer):
            return None
        with ANSWERS.reading():
            return _record(_transaction(answer, key))

    async def list_records(self, *, since: datetime, until: datetime, cursor: str | None) -> TaxRecordPage:
        """Page through invoices by their day; orders, which quotes are, are not recorded."""
        # AvaTax's "between" excludes the second value.
        end = until.date() + timedelta(days=1)
        query = {
            "$filter": f"date between '{since.date().isoformat()}' and '{end.isoformat()}'",
            "$orderBy": "id",
            "$top": str(PAGE_ROWS),
            "$skip": cursor or "0",
        }
        answer = await self._client.call("list_transactions", "GET", self._transactions, query=query)
        with ANSWERS.reading():
            found = ANSWERS.shown(answer)["value"]
            records = tuple(_record(each) for each in found if each["type"] in KINDS and each["status"] != ADJUSTED)
        following = str(int(cursor or "0") + len(found)) if len(found) == PAGE_ROWS else None
        return TaxRecordPage(records=records, next=following)

    @property
    def _transactions(self) -> str:
        return f"/api/v2/companies/{self._company_code}/transactions"


def invoice_body(filing: TaxFiling, *, company_code: str) -> dict[str, Any]:
    """Write a document as AvaTax records it; its tax is what was charged, or the share of it that goes back."""
    parties, currency = filing.parties, filing.currency
    lines: list[dict[str, Any]] = []
    for n, line in enumerate(filing.lines):
        code = FREIGHT if line.line is None else line.tax_code
        override = {
            "type": "TaxAmount",
            "taxAmount": float(decimal_of(line.tax_amount, currency)),
            "taxDate": filing.recorded_at.date().isoformat(),
            "reason": "As it was charged",
        }
        net = float(decimal_of(line.net_amount, currency))
        said: dict[str, Any] = {"number": str(n), "quantity": 1, "amount": net, "taxIncluded": False, "taxOverride": override}
        lines.append({**said, "taxCode": code} if code else said)
    body = {
        "type": "SalesInvoice" if filing.kind == "sale" else "ReturnInvoice",
        "code": str(filing.document_id),
        "companyCode": company_code,
        "commit": True,
        "date": filing.recorded_at.date().isoformat(),
        "customerCode": parties.customer,
        "currencyCode": currency,
        "referenceCode": "" if filing.reverses is None else str(filing.reverses),
        "addresses": {
            "shipFrom": _address(parties.ship_from, parties.ship_from_region),
            "shipTo": _address(parties.ship_to, parties.ship_to_region),
        },
        "lines": lines,
    }
    return _exempted(body, [parties.certificate(line.line) for line in filing.lines], whole=parties.exempt)


def _error(answer: Answer) -> ProviderError | None:
    error = answer.body["error"]
    code, detail = error["code"], error["details"][0]
    own = detail["faultCode"] in CLIENT_FAULTS and str(detail["helpLink"]).endswith(f"{ERRORS_PAGE}{detail['code']}")
    return ProviderError(code=code, message=text_of(error["message"])) if own and isinstance(code, str) else None


ANSWERS = AnswerFormat(provider="avalara", read_error=_error, refusing_statuses=frozenset({400, 404}), absence_codes=frozenset({MISSING}))


def _code(request: TaxRequest) -> str:
    return f"tender-{request.reference}"


def _transaction(answer: Answer, code: str) -> Mapping[str, Any]:
    """Take the transaction of an answer, which must be the one that was asked for."""
    transaction = ANSWERS.shown(answer)
    if str(transaction["code"]) != code:
        raise ValueError("it is another transaction")
    return transaction


def _record(said: Mapping[str, Any]) -> TaxRecord:
    currency = str(said["currencyCode"])
    return TaxRecord(
        key=str(said["code"]),
        kind=KINDS.get(str(said["type"]), str(said["type"])),
        currency=currency,
        net_amount=minor(said["totalAmount"], currency),
        tax_amount=minor(said["totalTax"], currency),
        made_at=datetime.fromisoformat(str(said["date"])).replace(tzinfo=UTC),
        standing=said["status"] == COMMITTED,
    )


def transaction_body(request: TaxRequest, *, company_code: str) -> dict[str, Any]:
    """Write the question: a sales order with its lines, each with or without its tax in it."""
    content, sale = request.content, request.sale
    to = content.shipping_address or content.billing_address
    assert to is not None, "a sale without an address is refused before"
    body: dict[str, Any] = {
        "type": "SalesOrder",
        "code": _code(request),
        "companyCode": company_code,
        "date": sale.day.isoformat(),
        "customerCode": "guest" if content.customer_id is None else str(content.customer_id),
        "currencyCode": content.currency,
        "addresses": {"shipFrom": _address(request.ship_from, sale.ship_from.region), "shipTo": _address(to, sale.ship_to.region)},
        "lines": [_line(n, line, content.currency) for n, line in enumerate(request.lines)],
    }
    if content.vat_id:
        body["businessIdentificationNo"] = content.vat_id
    certificates = certificates_of(sale, request.lines)
    return _exempted(body, certificates, whole=all(certificates))


def rows_from(answer: Mapping[str, Any], request: TaxRequest) -> list[Row]:
    """Read the answer into rows, each amount as it is given."""
    currency = request.content.currency
    by_number = {str(line["lineNumber"]): line for line in answer["lines"]}
    rows: list[Row] = []
    for n, line in enumerate(request.lines):
        said = by_number[str(n)]
        details = said.get("details") or []
        # A line's own exemptAmount counts what is not taxable, too.
        exempt = any(minor(each.get("exemptAmount"), currency) for each in details)
        rows += rows_of(
            n,
            line,
            request.sale.ship_to,
            [_component(each, currency) for each in details],
            tax=minor(said.get("tax"), currency),
            taxable=minor(said.get("taxableAmount"), currency),
            provider=Avalara.name,
            reason=Reason.CUSTOMER_EXEMPT if exempt else Reason.NOT_SUBJECT_TO_TAX,
        )
    return rows


def _component(said: Mapping[str, Any], currency: str) -> Component:
    region, country = str(said.get("region") or ""), str(said.get("country") or "")
    level = LEVELS.get(str(said.get("jurisdictionType") or said.get("jurisType")), Level.DISTRICT)
    # A state's districts share one name of a tax.
    names = ("jurisName", "taxName") if level is Level.DISTRICT else ("taxName", "jurisName")
    return Component(
        level=level,
        name=str(said.get(names[0]) or said.get(names[1]) or level.value),
        region=f"{country}-{region}" if region and region != country and level is not Level.COUNTRY else "",
        # The rate of a fee is an amount of money.
        rate_percent=percent_of(None if said.get("isFee") else said.get("rate")),
        taxable_amount=minor(said.get("taxableAmount"), currency),
        amount=minor(said.get("tax"), currency),
    )


def _line(n: int, line: Line, currency: str) -> dict[str, Any]:
    tax_code = FREIGHT if line.kind is Kind.SHIPPING else line.tax_code
    said: dict[str, Any] = {
        "number": str(n),
        "quantity": line.quantity,
        "amount": float(decimal_of(line.taxed_amount, currency)),
        "taxIncluded": line.included,
    }
    return {**said, "taxCode": tax_code} if tax_code else said


def _exempted(body: dict[str, Any], certificates: Sequence[str], *, whole: bool) -> dict[str, Any]:
    """Say by which certificates lines are free: any number frees what it is written at, the document or the line (developer.avalara.com,
    exempt transactions)."""
    numbers = [certificate[:EXEMPTION_MAX_CHARACTERS] for certificate in certificates]
    if whole and len(set(numbers)) == 1 and numbers[0]:
        return {**body, "exemptionNo": numbers[0]}
    lines = [{**line, "exemptionCode": number} if number else line for line, number in zip(body["lines"], numbers, strict=True)]
    return {**body, "lines": lines}


def _address(address: Address, region: str) -> dict[str, str]:
    lines = textwrap.wrap(address.street_address, ADDRESS_LINE_MAX_CHARACTERS)[:ADDRESS_LINES_MAX] or [""]
    return {
        **{f"line{number}": line for number, line in enumerate(lines, start=1)},
        "city": address.city,
        "region": region.partition("-")[2] or address.country_area,
        "country": address.country_code,
        "postalCode": address.postal_code,
    }
