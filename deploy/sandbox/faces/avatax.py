"""The sandbox's tax office with the face of Avalara AvaTax, REST version 2; tests/provider_facts/avatax has its facts."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from deploy.sandbox.books import Refused, now
from deploy.sandbox.faces.own import Own
from deploy.sandbox.faces.tax_rates import (
    EXEMPT_CODES,
    FREIGHT_UNTAXED,
    act_of_quote,
    act_of_record,
    cents,
    decimal,
    is_within,
    rates_of,
)
from deploy.sandbox.server import Fields, HttpRequest, Sandbox, json_response, sandbox_of
from deploy.sandbox.taxbooks import Recorded
from shared.ids import new_id

ERRORS = {401: "AuthenticationException", 404: "EntityNotFoundError"}
# By developer.avalara.com/avatax/errors.
NUMBERS = {"EntityNotFoundError": 4, "ValueRequiredError": 5, "StringLengthError": 13, "GetTaxError": 300, "MissingLine": 311}
GET_TAX_ERROR = "GetTaxError"
DOC_STATUS_INVALID = "DocStatus is invalid for this operation."
ZIP_INVALID = "Tax calculation cannot be determined. Zip is not valid for the state."
INVOICES = {"SalesInvoice": "sale", "ReturnInvoice": "reversal"}
SAVED, COMMITTED = "Saved", "Committed"
FREIGHT = "FR"
# JurisTypeId and JurisdictionType (AvaTax-REST-V2-DotNet-SDK, src/enums).
JURISDICTIONS = {"STA": "State", "CTY": "County", "CIT": "City", "STJ": "Special"}
# How long a field may be (recorded errors; Batch File Reference; release 23.7.0 for address lines).
LENGTHS_MAX = {"code": 50, "customerCode": 50, "companyCode": 25, "exemptionNo": 25, "referenceCode": 50, "businessIdentificationNo": 25}
LINE_LENGTHS_MAX = {"taxCode": 25, "itemCode": 50}
ADDRESS_LENGTHS_MAX = {"line1": 100, "line2": 100, "line3": 100, "city": 50, "postalCode": 11}
# "between" includes the first day and excludes the second (developer.avalara.com, "Filtering in REST").
DAYS = re.compile(r"date between '([0-9-]+)' and '([0-9-]+)'")
PAGE_ROWS_MAX = 1000
# Of a transaction, and what of its lines each is the sum of.
TOTALS = {
    "totalAmount": "lineAmount",
    "totalExempt": "exemptAmount",
    "totalDiscount": "discountAmount",
    "totalTax": "tax",
    "totalTaxable": "taxableAmount",
    "totalTaxCalculated": "taxCalculated",
}


class AvaTaxFace(Own):
    """Errors as AvaTax writes them."""

    def error(self, refused: Refused) -> bytes:
        """Write an error, with a link to its page (developer.avalara.com/avatax/errors)."""
        code = ERRORS.get(refused.status, refused.code)
        fault = GET_TAX_ERROR if code == GET_TAX_ERROR else "Client" if refused.status < 500 else "Server"
        detail = {
            "code": code,
            "number": NUMBERS.get(code, 0),
            "message": str(refused),
            "description": str(refused.facts.get("description", refused)),
            "faultCode": fault,
            "helpLink": f"https://developer.avalara.com/avatax/errors/{code}",
            "severity": "Error",
        }
        return msgspec.json.encode({"error": {"code": code, "message": str(refused), "target": "Unknown", "details": [detail]}})


AVATAX = AvaTaxFace()


@post("/api/v2/transactions/create", status_code=201)
async def create_transaction(request: HttpRequest) -> Response[bytes]:
    sandbox = sandbox_of(request)
    answer = await sandbox.keyed(
        request,
        AVATAX,
        "tax",
        lambda body: (act_of_record if body.get("type") in INVOICES else act_of_quote)(_ship_to(body).get("city")),
        lambda body: _created(sandbox, body),
    )
    answer.status_code = 201 if answer.status_code == 200 else answer.status_code
    answer.headers.update(correlation())
    return answer


@get("/api/v2/companies/{company:str}/transactions")
async def list_invoices(request: HttpRequest, company: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    query = request.query_params
    days = DAYS.search(str(query.get("$filter") or ""))
    found = sandbox.taxes.between(days[1] if days else "", days[2] if days else "9999", face="avalara")
    found = [document for document in found if days is None or document.day < days[2]]
    first = int(query.get("$skip") or 0)
    page = found[first : first + min(int(query.get("$top") or PAGE_ROWS_MAX), PAGE_ROWS_MAX)]
    shown = [{name: value for name, value in _invoice(document).items() if name != "lines"} for document in page]
    return json_response(msgspec.json.encode({"@recordsetCount": len(found), "value": shown}), headers=correlation())


@get("/api/v2/companies/{company:str}/transactions/{code:str}")
async def show_invoice(request: HttpRequest, company: FromPath[str], code: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    return json_response(msgspec.json.encode(_invoice(sandbox.taxes.get(code, face="avalara"))), headers=correlation())


def correlation() -> dict[str, str]:
    """Return the header that every answer has; AvaTax's own library logs it."""
    return {"x-correlation-id": str(new_id())}


def _ship_to(body: Fields) -> dict[str, Any]:
    addresses = body.get("addresses") or {}
    return dict(addresses.get("shipTo") or addresses.get("singleLocation") or {})


def _created(sandbox: Sandbox, body: Fields) -> dict[str, Any]:
    """Work a transaction out; an invoice is recorded, and one that is not committed may be replaced."""
    _check(body)
    calculated = _calculated(body)
    if body.get("type") not in INVOICES:
        return {"id": 0, "status": "Temporary", **calculated}
    code = str(body.get("code") or new_id())
    known = sandbox.taxes.documents.get(code)
    if known is not None and known.status != SAVED:
        raise Refused(400, GET_TAX_ERROR, DOC_STATUS_INVALID, description="Expected Saved|Posted")
    document = Recorded(
        key=code,
        face="avalara",
        kind=INVOICES[body["type"]],
        currency=str(calculated["currencyCode"]),
        amount=str(calculated["totalAmount"]),
        tax=str(calculated["totalTax"]),
        day=str(body["date"]),
        recorded_at=now().isoformat(),
        number=int(new_id()),
        status=COMMITTED if body.get("commit") else SAVED,
        reference=body.get("referenceCode"),
        facts=calculated,
    )
    return _invoice(sandbox.taxes.keep(document))


def _invoice(document: Recorded) -> dict[str, Any]:
    return {
        **document.facts,
        "id": document.number % 10**12,
        "code": document.key,
        "type": next(name for name, kind in INVOICES.items() if kind == document.kind),
        "status": document.status,
        "date": document.day,
        "currencyCode": document.currency,
        "totalAmount": float(document.amount),
        "totalTax": float(document.tax),
        "referenceCode": document.reference or "",
    }


def _check(body: Fields) -> None:
    to = _ship_to(body)
    if not body.get("lines"):
        raise Refused(400, "MissingLine", "Transactions must have at least one line.")
    for name in ("customerCode", "date"):
        if not body.get(name):
            raise Refused(400, "ValueRequiredError", f"Field {name} is required.")
    if not to:
        raise Refused(400, "ValueRequiredError", "Field addresses is required.")
    for name, value, most in _lengths(body):
        if len(str(value or "")) > most:
            description = f"Field '{name}' must be between 0 and {most} characters in length."
            raise Refused(400, "StringLengthError", f"Field '{name}' has an invalid length.", description=description)
    for address in (body.get("addresses") or {}).values():
        if address.get("country") == "US" and not is_within(str(address.get("postalCode") or ""), str(address.get("region") or "")):
            raise Refused(400, GET_TAX_ERROR, ZIP_INVALID)


def _lengths(body: Fields) -> Iterator[tuple[str, Any, int]]:
    for name, most in LENGTHS_MAX.items():
        yield name, body.get(name), most
    for each, lengths in [(line, LINE_LENGTHS_MAX) for line in body["lines"]] + [
        (address, ADDRESS_LENGTHS_MAX) for address in (body.get("addresses") or {}).values()
    ]:
        for name, most in lengths.items():
            yield name, each.get(name), most


def _calculated(body: Fields) -> dict[str, Any]:
    lines = [_line(line, body) for line in body["lines"]]
    sums = {name: float(sum((decimal(line[part]) for line in lines), Decimal(0))) for name, part in TOTALS.items()}
    return {
        "code": str(body.get("code") or new_id()),
        "companyId": 848107,
        "date": str(body["date"]),
        "type": body.get("type") or "SalesOrder",
        "currencyCode": body.get("currencyCode") or "USD",
        "customerVendorCode": body["customerCode"],
        "customerCode": body["customerCode"],
        "reconciled": False,
        "referenceCode": body.get("referenceCode") or "",
        **sums,
        "adjustmentReason": "NotAdjusted",
        "locked": False,
        "version": 1,
        "exchangeRateEffectiveDate": str(body["date"]),
        "exchangeRate": 1.0,
        "modifiedDate": now().isoformat(),
        "modifiedUserId": 356147,
        "taxDate": f"{body['date']}T00:00:00",
        "lines": lines,
    }


def _line(line: Fields, body: Fields) -> dict[str, Any]:
    to, code, included = _ship_to(body), str(line.get("taxCode") or ""), bool(line.get("taxIncluded"))
    state, amount = str(to.get("region") or ""), decimal(line["amount"])
    rates = rates_of(state) if to.get("country") == "US" else rates_of("")
    # Any number exempts what it is written at (developer.avalara.com, exempt transactions).
    exempt = bool(body.get("exemptionNo") or line.get("exemptionCode"))
    untaxable = not any(rates) or code in EXEMPT_CODES or (code.startswith(FREIGHT) and state in FREIGHT_UNTAXED)
    taxed = not exempt and not untaxable
    net = cents(amount / (1 + sum(rates))) if included and taxed else amount
    details = [
        _detail(to, juris, rate, net, exempt=exempt, taxed=taxed) for juris, rate in zip(JURISDICTIONS, rates, strict=True) if rate
    ] or [_detail(to, "STA" if to.get("country") == "US" else "CNT", Decimal(0), net, exempt=exempt, taxed=False)]
    if included and taxed:
        # What is over a cent after the parts are rounded goes to the last, so that the price stays what it is.
        over = amount - net - sum((decimal(detail["tax"]) for detail in details), Decimal(0))
        details[-1]["tax"] = details[-1]["taxCalculated"] = float(decimal(details[-1]["tax"]) + over)
    calculated = float(sum((decimal(detail["tax"]) for detail in details), Decimal(0)))
    override = line.get("taxOverride") or {}
    overridden = override.get("type") == "TaxAmount"
    return {
        "id": 0,
        "transactionId": 0,
        "lineNumber": str(line["number"]),
        "description": line.get("description") or "",
        "discountAmount": 0.0,
        "exemptAmount": float(Decimal(0) if taxed else net),
        "exemptCertId": 0,
        "isItemTaxable": taxed,
        "itemCode": line.get("itemCode") or "",
        "lineAmount": float(net),
        "quantity": float(line.get("quantity") or 1),
        "reportingDate": str(body["date"]),
        "tax": float(override["taxAmount"]) if overridden else calculated,
        "taxableAmount": float(net if taxed else Decimal(0)),
        "taxCalculated": calculated,
        "taxCode": code or "P0000000",
        "taxCodeId": 8087,
        "taxDate": str(override.get("taxDate") or body["date"]),
        "taxIncluded": included,
        **({"taxOverrideType": "TaxAmount", "taxOverrideAmount": float(override["taxAmount"])} if overridden else {}),
        "details": details,
        "nonPassthroughDetails": [],
        "hsCode": "",
        "costInsuranceFreight": 0.0,
        "vatCode": "",
        "vatNumberTypeId": 0,
    }


def _detail(to: dict[str, Any], juris: str, rate: Decimal, net: Decimal, *, exempt: bool, taxed: bool) -> dict[str, Any]:
    country = str(to.get("country") or "")
    domestic = juris != "CNT"
    region = str(to.get("region") or "") if domestic else country
    level = JURISDICTIONS.get(juris, "Country")
    tax = float(cents(net * rate)) if taxed else 0.0
    return {
        "id": 0,
        "transactionLineId": 0,
        "transactionId": 0,
        "country": country,
        "region": region,
        "exemptAmount": float(net) if exempt else 0.0,
        "jurisCode": juris,
        "jurisName": f"{region} {level}".upper(),
        "stateAssignedNo": "",
        "jurisType": juris,
        "jurisdictionType": level,
        "nonTaxableAmount": 0.0 if taxed or exempt else float(net),
        "rate": float(rate),
        "tax": tax,
        "taxableAmount": float(net) if taxed else 0.0,
        "taxType": "Sales" if domestic else "Output",
        "taxSubTypeId": "S" if domestic else "O",
        "taxName": f"{region} {level} TAX".upper() if domestic else f"{region} VAT",
        "taxAuthorityTypeId": 45,
        "taxCalculated": tax,
        "rateType": "General" if rate or domestic else "Zero",
        "rateTypeCode": "G" if rate or domestic else "Z",
        "unitOfBasis": "PerCurrencyUnit",
        "isNonPassThru": False,
    }


handlers = [create_transaction, list_invoices, show_invoice]
