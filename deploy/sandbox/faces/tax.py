"""The sandbox's tax office: a few known rates, told with the faces of TaxJar and of AvaTax, each line rounded half-up as both do."""

import re
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import msgspec
from litestar import Response, Router, get, post
from litestar.params import FromPath, FromQuery

from deploy.sandbox.books import Refused, now
from deploy.sandbox.faces.own import Own
from deploy.sandbox.server import Fields, HttpRequest, Sandbox, json_response, sandbox_of
from deploy.sandbox.taxbooks import Recorded
from deploy.sandbox.tokens import Act
from shared.ids import new_id

CENT = Decimal("0.01")
# State, county, city and special rates of where parcels in the tests go, as fractions; nobody's advice.
RATES: dict[str, tuple[str, str, str, str]] = {
    "WA": ("0.065", "0", "0.0385", "0"),
    "NJ": ("0.07", "0", "0", "0"),
    "NY": ("0.04", "0", "0.045", "0.00375"),
    "CA": ("0.0725", "0.0025", "0", "0.0175"),
}
NO_NEXUS = frozenset({"OR", "MT", "NH", "DE", "AK"})
EXEMPT_CODES = frozenset({"40030", "PF050000"})
SILENT_CITY = "Silent Hill"
PARTS = ("state", "county", "city", "special_district")


# developers.taxjar.com/api/reference, errors.
TAXJAR_ERRORS = {
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    406: "Not Acceptable",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
    500: "Internal Server Error",
}
AVALARA_ERRORS = {401: "AuthenticationException", 404: "EntityNotFoundError"}
AVALARA_NUMBERS = {"EntityNotFoundError": 4, "ValueRequiredError": 5, "DocStatusError": 300}


class TaxJarFace(Own):
    """Errors as TaxJar writes them."""

    def error(self, refused: Refused) -> bytes:
        """Write an error."""
        name = TAXJAR_ERRORS.get(refused.status, refused.code)
        return msgspec.json.encode({"status": refused.status, "error": name, "detail": str(refused)})


class AvalaraFace(Own):
    """Errors as AvaTax writes them."""

    def error(self, refused: Refused) -> bytes:
        """Write an error, with a link to its page (developer.avalara.com/avatax/errors)."""
        code = AVALARA_ERRORS.get(refused.status, refused.code)
        detail = {
            "code": code,
            "number": AVALARA_NUMBERS.get(code, 0),
            "message": str(refused),
            "faultCode": "Client" if refused.status < 500 else "Server",
            "helpLink": f"http://developer.avalara.com/avatax/errors/{code}",
            "severity": "Error",
        }
        return msgspec.json.encode({"error": {"code": code, "message": str(refused), "target": "IncorrectData", "details": [detail]}})


TAXJAR, AVALARA = TaxJarFace(), AvalaraFace()


@post("/v2/taxes", status_code=200)
async def tax_for_order(request: HttpRequest) -> Response[bytes]:
    sandbox = sandbox_of(request)
    return await sandbox.keyed(request, TAXJAR, "tax", lambda body: _act(body.get("to_city")), _taxjar)


def _taxjar(body: Fields) -> dict[str, Any]:
    for name in ("to_country", "shipping"):
        if body.get(name) is None:
            raise Refused(406, "Not Acceptable", f"{name} is missing")
    if body["to_country"] == "US" and not body.get("to_zip"):
        raise Refused(406, "Not Acceptable", "to_zip is missing")
    state = str(body.get("to_state") or "")
    collects = body["to_country"] == "US" and state in RATES and state not in NO_NEXUS
    exempt = body.get("exemption_type") not in (None, "non_exempt")
    items = []
    for item in body.get("line_items") or []:
        net = Decimal(str(item["unit_price"])) * item["quantity"] - Decimal(str(item.get("discount") or 0))
        untaxed = not collects or exempt or item.get("product_tax_code") in EXEMPT_CODES
        items.append({"id": item["id"], **_taxjar_parts(net, state, untaxed=untaxed, special="special_district_taxable_amount")})
    freight = Decimal(str(body["shipping"]))
    shipping = _taxjar_parts(freight, state, untaxed=not collects or exempt, special="special_taxable_amount")
    collected = sum((Decimal(str(each["tax_collectable"])) for each in (*items, shipping)), Decimal(0))
    answer: dict[str, Any] = {
        "order_total_amount": float(sum((Decimal(str(i["unit_price"])) * i["quantity"] for i in body.get("line_items") or []), freight)),
        "shipping": float(freight),
        "taxable_amount": float(sum((Decimal(str(each["taxable_amount"])) for each in (*items, shipping)), Decimal(0))),
        "amount_to_collect": float(collected),
        "rate": float(sum(map(Decimal, RATES[state]))) if collects else 0.0,
        "has_nexus": collects,
        "freight_taxable": collects,
        "tax_source": "destination" if collects else None,
        "exemption_type": body.get("exemption_type") or "non_exempt",
        "jurisdictions": {"country": body["to_country"], "state": state, "city": str(body.get("to_city") or "").upper()},
    }
    if collects:
        answer["breakdown"] = {"shipping": shipping, "line_items": items, "tax_collectable": float(collected)}
    return {"tax": answer}


def _taxjar_parts(net: Decimal, state: str, *, untaxed: bool, special: str) -> dict[str, Any]:
    rates = dict(zip(PARTS, map(Decimal, RATES.get(state, ("0",) * 4)), strict=True))
    taxes = {name: Decimal(0) if untaxed else _cents(net * rate) for name, rate in rates.items()}
    said: dict[str, Any] = {"taxable_amount": float(0 if untaxed else net), "tax_collectable": float(sum(taxes.values(), Decimal(0)))}
    names = {
        "state": ("state_taxable_amount", "state_sales_tax_rate", "state_amount"),
        "county": ("county_taxable_amount", "county_tax_rate", "county_amount"),
        "city": ("city_taxable_amount", "city_tax_rate", "city_amount"),
        "special_district": (special, "special_tax_rate", "special_district_amount"),
    }
    for name, (taxable, rate, amount) in names.items():
        said[taxable] = float(0 if untaxed or not rates[name] else net)
        said[rate], said[amount] = float(rates[name]), float(taxes[name])
    return {**said, "combined_tax_rate": float(sum(rates.values(), Decimal(0)))}


KINDS = {"orders": ("sale", "order"), "refunds": ("reversal", "refund")}


async def _import(request: HttpRequest, what: str) -> Response[bytes]:
    sandbox = sandbox_of(request)
    kind, name = KINDS[what]

    def recorded(body: Fields) -> dict[str, Any]:
        for field in ("transaction_id", "transaction_date", "to_country", "amount", "shipping", "sales_tax"):
            if body.get(field) is None:
                raise Refused(406, "Not Acceptable", f"{field} is missing")
        if str(body["transaction_id"]) in sandbox.taxes.documents:
            raise Refused(422, "Unprocessable Entity", "Provider tranx already imported for your user account")
        if kind == "reversal" and str(body.get("transaction_reference_id")) not in sandbox.taxes.documents:
            raise Refused(406, "Not Acceptable", "transaction_reference_id names no order")
        document = Recorded(
            key=str(body["transaction_id"]),
            face="taxjar",
            kind=kind,
            currency="",
            amount=str(body["amount"]),
            tax=str(body["sales_tax"]),
            day=str(body["transaction_date"])[:10],
            recorded_at=str(body["transaction_date"]),
            number=int(new_id()),
            reference=body.get("transaction_reference_id"),
        )
        return {name: _imported(sandbox.taxes.keep(document))}

    answer = await sandbox.keyed(request, TAXJAR, "tax_record", lambda body: _act_of_record(body.get("to_city")), recorded)
    answer.status_code = 201 if answer.status_code == 200 else answer.status_code
    return answer


def _imported(document: Recorded) -> dict[str, Any]:
    said = {"transaction_id": document.key, "transaction_date": document.recorded_at, "provider": "api", "amount": document.amount}
    return {**said, "shipping": "0.0", "sales_tax": document.tax, "transaction_reference_id": document.reference, "line_items": []}


@post("/v2/transactions/orders", status_code=201)
async def import_order(request: HttpRequest) -> Response[bytes]:
    return await _import(request, "orders")


@post("/v2/transactions/refunds", status_code=201)
async def import_refund(request: HttpRequest) -> Response[bytes]:
    return await _import(request, "refunds")


@get(["/v2/transactions/orders", "/v2/transactions/refunds"])
async def list_imported(
    request: HttpRequest, from_transaction_date: FromQuery[str] = "", to_transaction_date: FromQuery[str] = ""
) -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    what = request.url.path.rpartition("/")[2]
    found = sandbox.taxes.between(from_transaction_date, to_transaction_date or "9999", face="taxjar", kind=KINDS[what][0])
    return json_response(msgspec.json.encode({what: [document.key for document in found]}))


@get(["/v2/transactions/orders/{key:str}", "/v2/transactions/refunds/{key:str}"])
async def show_imported(request: HttpRequest, key: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    kind, name = KINDS[request.url.path.split("/")[-2]]
    return json_response(msgspec.json.encode({name: _imported(sandbox.taxes.get(key, face="taxjar", kind=kind))}))


@get("/api/v2/companies/{company:str}/transactions")
async def list_invoices(request: HttpRequest, company: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    query = request.query_params
    days = DAYS.search(str(query.get("$filter") or ""))
    found = sandbox.taxes.between(days[1] if days else "", days[2] if days else "9999", face="avalara")
    first = int(query.get("$skip") or 0)
    page = found[first : first + int(query.get("$top") or 100)]
    return json_response(msgspec.json.encode({"value": [_invoice(document) for document in page]}))


@get("/api/v2/companies/{company:str}/transactions/{code:str}")
async def show_invoice(request: HttpRequest, company: FromPath[str], code: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    return json_response(msgspec.json.encode(_invoice(sandbox.taxes.get(code, face="avalara"))))


DAYS = re.compile(r"date between '([0-9-]+)' and '([0-9-]+)'")
INVOICES = {"SalesInvoice": "sale", "ReturnInvoice": "reversal"}


def _invoice(document: Recorded) -> dict[str, Any]:
    return {
        "id": document.number % 10**12,
        "code": document.key,
        "type": next(name for name, kind in INVOICES.items() if kind == document.kind),
        "status": document.status,
        "date": document.day,
        "currencyCode": document.currency,
        "totalAmount": float(document.amount),
        "totalTax": float(document.tax),
        "referenceCode": document.reference,
    }


def _invoiced(sandbox: Sandbox, body: Fields) -> dict[str, Any]:
    """Record an invoice, its tax as it is given where it is."""
    code = str(body["code"])
    if code in sandbox.taxes.documents:
        raise Refused(400, "DocStatusError", "DocStatus is invalid for this operation.")
    lines = body["lines"]
    tax = sum((Decimal(str((line.get("taxOverride") or {}).get("taxAmount", 0))) for line in lines), Decimal(0))
    document = Recorded(
        key=code,
        face="avalara",
        kind=INVOICES[body["type"]],
        currency=str(body.get("currencyCode") or "USD"),
        amount=str(sum((Decimal(str(line["amount"])) for line in lines), Decimal(0))),
        tax=str(tax),
        day=str(body["date"]),
        recorded_at=now().isoformat(),
        number=int(new_id()),
        reference=body.get("referenceCode"),
    )
    return _invoice(sandbox.taxes.keep(document))


@post("/api/v2/transactions/create", status_code=201)
async def create_transaction(request: HttpRequest) -> Response[bytes]:
    sandbox = sandbox_of(request)
    answer = await sandbox.keyed(
        request,
        AVALARA,
        "tax",
        lambda body: (_act_of_record if body.get("type") in INVOICES else _act)(
            ((body.get("addresses") or {}).get("shipTo") or {}).get("city")
        ),
        lambda body: _invoiced(sandbox, body) if body.get("type") in INVOICES else _avalara(body),
    )
    answer.status_code = 201 if answer.status_code == 200 else answer.status_code
    # Its own library logs it.
    answer.headers["x-correlation-id"] = str(new_id())
    return answer


def _avalara(body: Fields) -> dict[str, Any]:
    to = (body.get("addresses") or {}).get("shipTo")
    if not isinstance(to, dict) or not body.get("lines") or not body.get("customerCode"):
        raise Refused(400, "ValueRequiredError", "Field addresses.shipTo, lines and customerCode are required.")
    state, lines = str(to.get("region") or ""), []
    rates = dict(zip(("State", "County", "City", "Special"), map(Decimal, RATES.get(state, ("0",) * 4)), strict=True))
    whole = sum(rates.values(), Decimal(0))
    for line in body["lines"]:
        amount = Decimal(str(line["amount"]))
        exempt = bool(body.get("exemptionNo")) or line.get("taxCode") in EXEMPT_CODES
        net = _cents(amount / (1 + whole)) if line.get("taxIncluded") and not exempt else amount
        details = []
        for kind, rate in rates.items():
            if rate:
                tax = Decimal(0) if exempt else _cents(net * rate)
                details.append(
                    {
                        "id": 0,
                        "country": to.get("country"),
                        "region": state,
                        "jurisType": kind,
                        "jurisName": f"{state} {kind}".upper(),
                        "taxName": f"{state} {kind.upper()} TAX",
                        "rate": float(rate),
                        "tax": float(tax),
                        "taxableAmount": float(0 if exempt else net),
                        "nonTaxableAmount": 0.0,
                        "exemptAmount": float(net if exempt else 0),
                    }
                )
        if line.get("taxIncluded") and details and not exempt:
            # What is over a cent after the parts are rounded goes to the first, so that the price stays what it is.
            over = amount - net - sum((Decimal(str(d["tax"])) for d in details), Decimal(0))
            details[0]["tax"] = float(Decimal(str(details[0]["tax"])) + over)
        tax = sum((Decimal(str(d["tax"])) for d in details), Decimal(0))
        lines.append(
            {
                "lineNumber": line["number"],
                "quantity": line.get("quantity", 1),
                "lineAmount": float(net),
                "tax": float(tax),
                "taxableAmount": float(0 if exempt or not details else net),
                "exemptAmount": float(net if exempt else 0),
                "taxIncluded": bool(line.get("taxIncluded")),
                "details": details,
            }
        )
    return {
        "id": int(new_id()) % 10**12,
        "code": body.get("code"),
        "type": body.get("type"),
        "status": "Temporary",
        "date": body.get("date") or now().date().isoformat(),
        "currencyCode": body.get("currencyCode", "USD"),
        "totalTax": float(sum((Decimal(str(line["tax"])) for line in lines), Decimal(0))),
        "lines": lines,
    }


def _cents(value: Decimal) -> Decimal:
    return value.quantize(CENT, rounding=ROUND_HALF_UP)


def _act_of_record(city: Any) -> Act:
    acts = {"Late Harbour": Act.SUCCEED_SILENTLY, "Failing Once": Act.FAIL_ONCE, "Silent Once": Act.SILENT_ONCE}
    return acts.get(str(city), Act.SUCCEED)


def _act(city: Any) -> Act:
    return Act.SILENT if city == SILENT_CITY else Act.SUCCEED


def _refused(request: HttpRequest, refused: Refused) -> Response[bytes]:
    face = AVALARA if request.url.path.startswith("/api/") else TAXJAR
    return json_response(face.error(refused), refused.status)


router = Router(
    path="/",
    route_handlers=[
        tax_for_order,
        import_order,
        import_refund,
        list_imported,
        show_imported,
        create_transaction,
        list_invoices,
        show_invoice,
    ],
    exception_handlers={Refused: _refused},
)
