"""The sandbox's tax office with the face of TaxJar, API version 2020-08-07; tests/provider_facts/taxjar has its facts."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, FromQuery

from deploy.sandbox.books import Refused
from deploy.sandbox.faces.own import Own
from deploy.sandbox.faces.tax_rates import (
    COUNTRIES,
    EXEMPT_CODES,
    FREIGHT_UNTAXED,
    PROVINCES,
    RATES,
    act_of_quote,
    act_of_record,
    cents,
    decimal,
    is_within,
)
from deploy.sandbox.server import Fields, HttpRequest, json_response, sandbox_of
from deploy.sandbox.taxbooks import Recorded
from shared.ids import new_id

# developers.taxjar.com/api/reference, errors.
ERRORS = {
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    406: "Not Acceptable",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
    500: "Internal Server Error",
}
EXEMPTIONS = frozenset({"wholesale", "government", "other"})
DATE = re.compile(r"(\d{4})[-/](\d\d)[-/](\d\d)(T\d\d:\d\d:\d\d)?(Z|[+-]\d\d:\d\d)?")
DESCRIPTION_MAX_CHARACTERS = 255
KINDS = {"orders": ("sale", "order"), "refunds": ("reversal", "refund")}
REQUIRED = ("transaction_id", "transaction_date", "to_country", "to_zip", "to_state", "amount", "shipping", "sales_tax")
ADDRESS_FIELDS = tuple(f"{side}_{part}" for side in ("from", "to") for part in ("country", "zip", "state", "city", "street"))
# The names of a part's taxable amount, rate and tax, which in the United States differ between the whole order, a line, and shipping.
OF_ORDER = {
    "state": ("state_taxable_amount", "state_tax_rate", "state_tax_collectable"),
    "county": ("county_taxable_amount", "county_tax_rate", "county_tax_collectable"),
    "city": ("city_taxable_amount", "city_tax_rate", "city_tax_collectable"),
    "special_district": ("special_district_taxable_amount", "special_tax_rate", "special_district_tax_collectable"),
}
OF_LINE = {
    "state": ("state_taxable_amount", "state_sales_tax_rate", "state_amount"),
    "county": ("county_taxable_amount", "county_tax_rate", "county_amount"),
    "city": ("city_taxable_amount", "city_tax_rate", "city_amount"),
    "special_district": ("special_district_taxable_amount", "special_tax_rate", "special_district_amount"),
}
OF_SHIPPING = {**OF_LINE, "special_district": ("special_taxable_amount", "special_tax_rate", "special_district_amount")}
OF_CANADA = {tax: (f"{tax}_taxable_amount", f"{tax}_tax_rate", tax) for tax in ("gst", "pst", "qst")}
OF_COUNTRY = {"country": ("country_taxable_amount", "country_tax_rate", "country_tax_collectable")}

Names = Mapping[str, tuple[str, str, str]]


class TaxJarFace(Own):
    """Errors as TaxJar writes them."""

    def error(self, refused: Refused) -> bytes:
        """Write an error."""
        name = ERRORS.get(refused.status, refused.code)
        return msgspec.json.encode({"status": refused.status, "error": name, "detail": str(refused)})


TAXJAR = TaxJarFace()


@post("/v2/taxes", status_code=200)
async def tax_for_order(request: HttpRequest) -> Response[bytes]:
    sandbox = sandbox_of(request)
    return await sandbox.keyed(request, TAXJAR, "tax", lambda body: act_of_quote(body.get("to_city")), _calculated)


def _calculated(body: Fields) -> dict[str, Any]:
    _require(body, ("to_country", "shipping"))
    _require(body, ("to_zip",) if body["to_country"] == "US" else ())
    _require(body, ("to_state",) if body["to_country"] in ("US", "CA") else ())
    if not body.get("line_items") and body.get("amount") is None:
        raise Refused(406, "Not Acceptable", "amount or line_items is missing")
    _check_addresses(body)
    items = body.get("line_items") or []
    found = _taxation(body["to_country"], str(body.get("to_state") or ""))
    if found is None:
        nothing: dict[str, Any] = {"amount_to_collect": 0.0, "freight_taxable": False, "has_nexus": False, "rate": 0.0}
        return {"tax": {**nothing, "tax_source": None, "taxable_amount": 0.0}}
    rates, of_order, of_line, of_shipping = found
    exempt = body.get("exemption_type") in EXEMPTIONS
    nets = [decimal(item["unit_price"]) * item.get("quantity", 1) - decimal(item.get("discount")) for item in items]
    taxed = [Decimal(0) if exempt or i.get("product_tax_code") in EXEMPT_CODES else n for i, n in zip(items, nets, strict=True)]
    freight = decimal(body["shipping"])
    # Freight of goods that all are exempt is exempt in most states (taxjar-woocommerce-plugin, pull request 44).
    carries = body["to_country"] != "US" or not items or any(taxed)
    freight_taxable = not exempt and carries and (body["to_country"] != "US" or body["to_state"] not in FREIGHT_UNTAXED)
    order = _parts(sum(taxed, freight if freight_taxable else Decimal(0)), rates, of_order)
    lines = [{"id": str(i.get("id", n)), **_parts(t, rates, of_line)} for n, (i, t) in enumerate(zip(items, taxed, strict=True), 1)]
    shipping = {"shipping": _parts(freight, rates, of_shipping)} if freight_taxable else {}
    return {
        "tax": {
            "order_total_amount": float(sum(nets, freight)),
            "shipping": float(freight),
            "taxable_amount": order["taxable_amount"],
            "amount_to_collect": order["tax_collectable"],
            "rate": order["combined_tax_rate"],
            "has_nexus": True,
            "freight_taxable": freight_taxable,
            "tax_source": "destination",
            **({"exemption_type": body["exemption_type"]} if body.get("exemption_type") else {}),
            "jurisdictions": _jurisdictions(body),
            **({"breakdown": {**order, **shipping, "line_items": lines}} if items else {}),
        }
    }


def _taxation(country: str, state: str) -> tuple[Sequence[str], Names, Names, Names] | None:
    """Find the rates of a place and what they are called in an order, a line and shipping; None without nexus."""
    if country == "US":
        return (RATES[state], OF_ORDER, OF_LINE, OF_SHIPPING) if state in RATES else None
    if country == "CA":
        return (PROVINCES[state], OF_CANADA, OF_CANADA, OF_CANADA) if state in PROVINCES else None
    return (COUNTRIES[country], OF_COUNTRY, OF_COUNTRY, OF_COUNTRY) if country in COUNTRIES else None


def _jurisdictions(body: Fields) -> dict[str, str]:
    found = {"country": str(body["to_country"]), "city": str(body.get("to_city") or "").upper()}
    if body["to_country"] in ("US", "CA"):
        found["state"] = str(body["to_state"])
    return {**found, "county": f"{body['to_state']} COUNTY"} if body["to_country"] == "US" else found


def _parts(taxed: Decimal, rates: Sequence[str], names: Names) -> dict[str, float]:
    """Write an amount's tax: each part is rounded by itself, and so is the whole, so they need not add up; untaxed amounts have no rate."""
    of_parts = [Decimal(rate) if taxed else Decimal(0) for rate in rates]
    whole = sum(of_parts, Decimal(0))
    said = {"taxable_amount": float(taxed), "tax_collectable": float(cents(taxed * whole)), "combined_tax_rate": float(whole)}
    for rate, (taxable, name, tax) in zip(of_parts, names.values(), strict=True):
        said |= {taxable: float(taxed if rate else 0), name: float(rate), tax: float(cents(taxed * rate))}
    return said


def _require(body: Fields, names: Sequence[str]) -> None:
    for name in names:
        if body.get(name) in (None, ""):
            raise Refused(406, "Not Acceptable", f"{name} is missing")


def _check_addresses(body: Fields) -> None:
    for side in ("to", "from"):
        code, state = str(body.get(f"{side}_zip") or ""), str(body.get(f"{side}_state") or "")
        if body.get(f"{side}_country") == "US" and not is_within(code, state):
            raise Refused(400, "Bad Request", f"{side}_zip {code} is not used within {side}_state {state}")


async def _import(request: HttpRequest, what: str) -> Response[bytes]:
    sandbox = sandbox_of(request)
    kind, name = KINDS[what]

    def recorded(body: Fields) -> dict[str, Any]:
        _check_transaction(body, refund=kind == "reversal")
        key = str(body["transaction_id"])
        if key in sandbox.taxes.documents:
            raise Refused(422, "Unprocessable Entity", "Provider tranx already imported for your user account")
        document = Recorded(
            key=key,
            face="taxjar",
            kind=kind,
            currency="",
            amount=_signed(body["amount"], kind),
            tax=_signed(body["sales_tax"], kind),
            day=_moment(body["transaction_date"])[:10],
            recorded_at=_moment(body["transaction_date"]),
            number=int(new_id()),
            reference=body.get("transaction_reference_id"),
            facts=_facts(body, kind),
        )
        return {name: _imported(sandbox.taxes.keep(document))}

    answer = await sandbox.keyed(request, TAXJAR, "tax_record", lambda body: act_of_record(body.get("to_city")), recorded)
    answer.status_code = 201 if answer.status_code == 200 else answer.status_code
    return answer


def _check_transaction(body: Fields, *, refund: bool) -> None:
    _require(body, (*REQUIRED, "transaction_reference_id") if refund else REQUIRED)
    _check_addresses(body)
    items = body.get("line_items") or []
    goods = sum((decimal(i["unit_price"]) * i.get("quantity", 1) - decimal(i.get("discount")) for i in items), Decimal(0))
    if items and goods + decimal(body["shipping"]) != decimal(body["amount"]):
        raise Refused(400, "Bad Request", "amount param does not equal sum of line_items + shipping")
    if any(len(item.get("description") or "") > DESCRIPTION_MAX_CHARACTERS for item in items):
        raise Refused(400, "Bad Request", "line_items[][description] param exceeds limit of 255 characters")
    taxes = [decimal(each.get("sales_tax")) for each in (body, *items)]
    if body.get("exemption_type") in EXEMPTIONS and any(taxes):
        raise Refused(400, "Bad Request", "sales_tax must be zero when exemption_type is set")
    if not DATE.fullmatch(str(body["transaction_date"])):
        raise Refused(400, "Bad Request", "transaction_date is invalid")


def _facts(body: Fields, kind: str) -> dict[str, Any]:
    """Keep what is shown of a transaction besides its amounts."""
    addresses = {name: body.get(name) or None for name in ADDRESS_FIELDS}
    lines = [
        {
            "id": item.get("id", n),
            "quantity": item.get("quantity", 1),
            **{name: item.get(name) for name in ("product_identifier", "description", "product_tax_code")},
            **{name: _signed(item.get(name), kind) for name in ("unit_price", "sales_tax")},
            "discount": str(float(decimal(item.get("discount")))),
        }
        for n, item in enumerate(body.get("line_items") or [])
    ]
    return {
        **addresses,
        "to_city": str(body.get("to_city") or "").upper() or None,
        "shipping": _signed(body["shipping"], kind),
        "exemption_type": body.get("exemption_type"),
        "customer_id": body.get("customer_id"),
        "line_items": lines,
    }


def _signed(amount: Any, kind: str) -> str:
    """Write an amount with the sign of its kind, whichever it came with."""
    value = abs(float(decimal(amount)))
    return str(-value if kind == "reversal" else value)


def _moment(text: Any) -> str:
    found = DATE.fullmatch(str(text))
    assert found is not None, "a date is checked before"
    year, month, day, time, zone = found.groups()
    moment = datetime.fromisoformat(f"{year}-{month}-{day}{time or 'T00:00:00'}{zone or 'Z'}").astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _imported(document: Recorded) -> dict[str, Any]:
    return {
        "user_id": 225397,
        "transaction_reference_id": document.reference,
        "transaction_id": document.key,
        "transaction_date": document.recorded_at,
        "provider": "api",
        "amount": document.amount,
        "sales_tax": document.tax,
        **document.facts,
    }


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
    first, last = (day.replace("/", "-") for day in (from_transaction_date, to_transaction_date or "9999"))
    found = sandbox.taxes.between(first, last, face="taxjar", kind=KINDS[what][0])
    return json_response(msgspec.json.encode({what: [document.key for document in found]}))


@get(["/v2/transactions/orders/{key:str}", "/v2/transactions/refunds/{key:str}"])
async def show_imported(request: HttpRequest, key: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    kind, name = KINDS[request.url.path.split("/")[-2]]
    return json_response(msgspec.json.encode({name: _imported(sandbox.taxes.get(key, face="taxjar", kind=kind))}))


handlers = [tax_for_order, import_order, import_refund, list_imported, show_imported]
