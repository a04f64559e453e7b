"""Every adapter that calls a provider: its calls, and the provider's own errors as its documentation or a recorded answer has them."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from typing import Any

import msgspec

from services.fulfillment.domain.tax.engine import Line
from services.fulfillment.domain.tax.rules import Place
from services.fulfillment.domain.tax.sale import Sale
from services.fulfillment.providers import CarrierRefused, LabelPage, LabelRequest, RatesRequest, TaxRequest
from services.fulfillment.providers.avalara import Avalara
from services.fulfillment.providers.easypost import EasyPost
from services.fulfillment.providers.sandbox import SandboxCarrier
from services.fulfillment.providers.shippo import Shippo
from services.fulfillment.providers.tax_books import FiledLine, TaxFiling, TaxParties, TaxRecordPage, TaxRefusedForGood
from services.fulfillment.providers.taxjar import TaxJar, TaxRefused
from services.payments.domain.intents import Operation, TransactionStatus
from services.payments.providers import AuthorizeRequest, CaptureRequest, ConfirmRequest, RefundRequest, Request, VoidRequest
from services.payments.providers import TransactionPage as PaymentPage
from services.payments.providers.sandbox import SandboxPayments
from services.payments.providers.stripe.client import StripePayments
from shared.contracts.fulfillment.pricing import PackageBody
from shared.contracts.orders import Address, OrderContent
from shared.ids import new_id
from shared.provider_answers import OUTCOME_UNKNOWN

TIMEOUT_SECONDS = 0.5
REFERENCE = new_id()
NOW = datetime.now(UTC)
SINCE = NOW - timedelta(hours=1)
HOME = Address(
    name="Erika Planted",
    company_name="Planted & Daughters",
    street_address="415 Pine St",
    city="Seattle",
    country_area="WA",
    postal_code="98101",
    country_code="US",
    phone="+1 206 555 0100",
)
CONTENT = msgspec.convert(
    {"currency": "USD", "items": [{"product_variant_id": str(new_id()), "name": "Mug", "quantity": 1, "unit_price": 1490}]}, OrderContent
)
PACKAGE = PackageBody(weight_grams=437, length_mm=120, width_mm=95, height_mm=101)

Body = bytes
# What a call came to: the provider refused it, there is nothing, nobody knows, or it shows something.
REFUSED, ABSENT, UNKNOWN, SHOWN = "refused", "absent", "unknown", "shown"
Calls = Mapping[str, Callable[[Any], Awaitable[object]]]


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter, and what its provider says of itself."""

    make: Callable[[str], Any]
    changes: Calls
    looks: Calls
    # Its own error for a status, as it would be if it answered with that.
    error: Callable[[int], Body]
    # The statuses with which its documentation says by that error that nothing was done.
    refusing: frozenset[int]
    # Its own errors that say nothing certain, at any status.
    undecided: tuple[Body, ...]
    # What it says, with 404, of something that is not there, and the looks that then find nothing.
    absence: Body
    finding_nothing: frozenset[str]
    # What it shows of something else: a proxy may have kept it for another request.
    stranger: Body
    # Its answers to looks that a change makes first or after.
    known: Mapping[str, tuple[int, Any]] = {}
    # Changes of which no refusal says what became of them.
    never_refused: frozenset[str] = frozenset()


async def outcome(call: Callable[[Any], Awaitable[object]], adapter: Any) -> str:
    """Make a call and say what it came to."""
    try:
        shown = await call(adapter)
    except OUTCOME_UNKNOWN:
        return UNKNOWN
    except (CarrierRefused, TaxRefused, TaxRefusedForGood):
        return REFUSED
    if isinstance(shown, tuple) and shown and all(each.status in (TransactionStatus.FAILED, TransactionStatus.DECLINED) for each in shown):
        return REFUSED
    empty = isinstance(shown, PaymentPage | LabelPage | TaxRecordPage) and not any((msgspec.structs.asdict(shown)).values())
    return ABSENT if shown is None or shown == [] or shown == () or empty else SHOWN


def _json(value: Any) -> Body:
    return msgspec.json.encode(value)


def _phrase(status: int) -> str:
    # As RFC 9110 had it before; Python 3.13 says "Unprocessable Content".
    names = {422: "Unprocessable Entity", **{each.value: each.phrase for each in HTTPStatus if each.value != 422}}
    return names.get(status, "Something")


# Payments

PAYMENTS: dict[str, Request] = {
    "authorize": AuthorizeRequest(
        amount=1000,
        currency="EUR",
        payment_method="tok_success",
        order_id=new_id(),
        reference=REFERENCE,
        return_url="https://shop.example/",
    ),
    "confirm": ConfirmRequest(provider_payment_id="pi_1"),
    "capture": CaptureRequest(provider_payment_id="pi_1", amount=1000, currency="EUR", final=True, reference=REFERENCE),
    "void": VoidRequest(provider_payment_id="pi_1", reference=REFERENCE),
    "refund": RefundRequest(provider_payment_id="pi_1", amount=400, currency="EUR", reason="", reference=REFERENCE),
}


def _sending(request: Request) -> Callable[[Any], Awaitable[object]]:
    return lambda provider: provider.send(provider.prepare(request), idempotency_key="k", reference=REFERENCE)


PAYMENT_CHANGES: Calls = {name: _sending(request) for name, request in PAYMENTS.items()}


async def _strangers(provider: Any) -> bool | None:
    return await provider.is_strangers("pi_1") or None


PAYMENT_LOOKS: Calls = {
    # Whoever is taken for a stranger is not heard.
    "strangers": _strangers,
    "get": lambda provider: provider.get_transaction("pi_1"),
    "find": lambda provider: provider.find_by_reference(REFERENCE, operation=Operation.AUTHORIZE, provider_payment_id=None),
    "find of known": lambda provider: provider.find_by_reference(REFERENCE, operation=Operation.REFUND, provider_payment_id="pi_1"),
    "list": lambda provider: provider.list_transactions(since=SINCE, until=NOW, cursor=None),
}

# Carriers

RATE = "shp_1/rate_1"
WANTED = LabelRequest(
    provider_rate_id=RATE,
    service="ground",
    ship_from=HOME,
    ship_to=HOME,
    packages=(PACKAGE,),
    content=CONTENT,
    document="pdf",
    insured_amount=None,
    is_return=False,
)
LABEL_CHANGES: Calls = {
    "rates": lambda carrier: carrier.rates(RatesRequest(ship_from=HOME, ship_to=HOME, packages=(PACKAGE,), content=CONTENT)),
    "buy": lambda carrier: carrier.buy(WANTED, reference=REFERENCE),
    "void": lambda carrier: carrier.void("lbl_1", reference=REFERENCE),
}
LABEL_LOOKS: Calls = {
    "find": lambda carrier: carrier.find(WANTED, reference=REFERENCE),
    "status": lambda carrier: carrier.status("lbl_1"),
    "track": lambda carrier: carrier.track("T1", provider_label_id="lbl_1"),
    "get": lambda carrier: carrier.get_label("lbl_1"),
    "list": lambda carrier: carrier.list_labels(since=SINCE, until=NOW, cursor=None),
}

# Tax

SALE = TaxRequest(
    sale=Sale(ship_from=Place(country="US", region="US-NJ"), ship_to=Place(country="US", region="US-WA"), day=date(2026, 11, 1), home="US"),
    lines=(Line(amount=4_990, quantity=2),),
    rules=(),
    content=msgspec.structs.replace(CONTENT, shipping_address=HOME),
    ship_from=HOME,
    reference=REFERENCE,
)
FILING = TaxFiling(
    document_id=REFERENCE,
    kind="sale",
    currency="USD",
    recorded_at=NOW,
    parties=TaxParties(ship_from=HOME, ship_to=HOME, ship_from_region="US-WA", ship_to_region="US-WA"),
    lines=(FiledLine(line=0, net_amount=4_990, tax_amount=324),),
)
TAX_CHANGES: Calls = {"quote": lambda engine: engine.quote(SALE), "file": lambda engine: engine.file(FILING)}
TAX_LOOKS: Calls = {
    "get": lambda engine: engine.get_record(str(REFERENCE)),
    "list": lambda engine: engine.list_records(since=SINCE, until=NOW, cursor=None),
}


def _avalara_error(code: str, number: int, fault: str = "Client") -> Body:
    # avadev/developer.avalara.com, "Handling Error Messages".
    detail = {
        "code": code,
        "number": number,
        "message": "Document with ID 'TESTINGCO - 100' not found.",
        "faultCode": fault,
        "helpLink": f"http://developer.avalara.com/avatax/errors/{code}",
        "severity": "Error",
    }
    return _json({"error": {"code": code, "message": detail["message"], "target": "HttpRequest", "details": [detail]}})


def _taxjar_error(status: int, detail: str = "shipping is missing") -> Body:
    # developers.taxjar.com/api/reference, errors; the status is a number or, in a recorded answer, a text.
    return _json({"error": _phrase(status), "detail": detail, "status": str(status) if status == 406 else status})


def _easypost_error(code: str) -> Body:
    # easypost-python, tests/cassettes/test_address_verify_invalid_address.yaml; codes by docs.easypost.com/guides/errors-guide.
    return _json({"error": {"code": code, "message": "No.", "errors": []}})


def _stripe_error(kind: str, code: str) -> Body:
    # docs.stripe.com/api/errors.
    return _json({"error": {"type": kind, "code": code, "message": "No."}})


def _own_error(code: str) -> Body:
    return _json({"error": {"code": code, "message": "No."}})


ADAPTERS: dict[str, Adapter] = {
    "stripe": Adapter(
        make=lambda url: StripePayments(api_key="sk_test_x", base_url=url, timeout_seconds=TIMEOUT_SECONDS, multicapture=True),
        changes=PAYMENT_CHANGES,
        looks=PAYMENT_LOOKS,
        error=lambda status: (
            _stripe_error("card_error", "card_declined") if status == 402 else _stripe_error("invalid_request_error", "parameter_missing")
        ),
        refusing=frozenset({400, 402, 404}),
        undecided=(
            _stripe_error("api_error", ""),
            _stripe_error("idempotency_error", ""),
            _stripe_error("gateway_error", "blocked"),
        ),
        absence=_stripe_error("invalid_request_error", "resource_missing"),
        finding_nothing=frozenset({"get", "find of known", "strangers"}),
        stranger=_json(
            {"id": "pi_9", "object": "payment_intent", "status": "succeeded", "amount": 1000, "amount_received": 1000, "currency": "eur"}
            | {"created": 1_764_500_000, "metadata": {}}
        ),
        never_refused=frozenset({"confirm"}),
    ),
    "sandbox payments": Adapter(
        make=lambda url: SandboxPayments(api_key="x", base_url=url, timeout_seconds=TIMEOUT_SECONDS),
        changes=PAYMENT_CHANGES,
        looks=PAYMENT_LOOKS,
        error=lambda _: _own_error("amount_too_large"),
        refusing=frozenset({400, 404}),
        undecided=(_own_error("idempotency_error"), _own_error("rate_limit"), _own_error("blocked")),
        absence=_own_error("resource_missing"),
        finding_nothing=frozenset({"get", "strangers"}),
        stranger=_json(
            {"id": "pay_9", "currency": "EUR", "reference": str(new_id()), "created_at": NOW.isoformat()}
            | {"operations": [{"id": "aut_9", "kind": "authorize", "amount": 1000, "status": "succeeded", "reference": str(new_id())}]}
        ),
        never_refused=frozenset({"confirm"}),
    ),
    "sandbox carrier": Adapter(
        make=lambda url: SandboxCarrier(api_key="x", base_url=url, timeout_seconds=TIMEOUT_SECONDS),
        changes=LABEL_CHANGES,
        looks=LABEL_LOOKS,
        error=lambda _: _own_error("rate_expired"),
        refusing=frozenset({400, 404, 409, 422}),
        undecided=(_own_error("idempotency_key_in_use"), _own_error("api_error"), _own_error("blocked")),
        absence=_own_error("label_not_found"),
        finding_nothing=frozenset({"get"}),
        stranger=_json(
            {"id": "lbl_9", "reference": str(new_id()), "amount": 490, "currency": "USD", "status": "purchased", "packages": []}
            | {"created_at": NOW.isoformat(), "tracking_number": "T9", "scans": []}
        ),
    ),
    "easypost": Adapter(
        make=lambda url: EasyPost(api_key="x", base_url=url, timeout_seconds=TIMEOUT_SECONDS),
        changes=LABEL_CHANGES,
        looks=LABEL_LOOKS,
        error=lambda _: _easypost_error("SHIPMENT.INVALID_PARAMS"),
        refusing=frozenset({400, 402, 404, 422}),
        undecided=(
            # The carrier may have sold it, or is about to.
            _easypost_error("SHIPMENT.POSTAGE.NO_RESPONSE"),
            _easypost_error("SHIPMENT.POSTAGE.TIMED_OUT"),
            _easypost_error("SHIPMENT.PURCHASE.IN_PROGRESS"),
            _easypost_error("SHIPMENT.POSTAGE.EXISTS"),
            _easypost_error("INTERNAL_SERVER_ERROR"),
            _easypost_error("blocked"),
        ),
        absence=_easypost_error("NOT_FOUND"),
        finding_nothing=frozenset({"get"}),
        stranger=_json(
            {"id": "shp_9", "object": "Shipment", "created_at": NOW.isoformat(), "postage_label": None, "refund_status": None}
            | {"trackers": [{"tracking_code": "T9", "tracking_details": []}], "has_more": False}
        ),
    ),
    "shippo": Adapter(
        make=lambda url: Shippo(api_key="x", base_url=url, timeout_seconds=TIMEOUT_SECONDS),
        changes=LABEL_CHANGES,
        looks=LABEL_LOOKS,
        # github.com/goshippo/shippo-ruby-client/issues/28
        error=lambda _: _json({"address_from": [{"__all__": ["For an Address to be PURCHASE'able, all information must be provided."]}]}),
        # docs.goshippo.com/api-concepts/apihttp-status-codes
        refusing=frozenset({400, 404, 422}),
        undecided=(_json({"detail": "Request was throttled."}), _json({"detail": "Not Found"}), _json({"rate": "no"})),
        # github.com/goshippo/shippo-node-client/issues/78
        absence=_json({"detail": "Not found"}),
        finding_nothing=frozenset({"get"}),
        stranger=_json(
            {"object_id": "tr_9", "status": "SUCCESS", "metadata": str(new_id()), "transaction": "tr_9"}
            | {"carrier": "usps", "tracking_number": "T9", "eta": None, "tracking_status": None, "tracking_history": []}
        ),
        known={
            "/transactions/lbl_1": (
                200,
                {"object_id": "lbl_1", "status": "SUCCESS", "rate": {"provider": "USPS", "servicelevel": {"token": "usps_priority"}}},
            )
        },
    ),
    "taxjar": Adapter(
        make=lambda url: TaxJar(api_key="x", base_url=url, timeout_seconds=TIMEOUT_SECONDS),
        changes=TAX_CHANGES,
        looks=TAX_LOOKS,
        error=_taxjar_error,
        refusing=frozenset({400, 404, 406, 410, 422}),
        undecided=(
            _json({"status": 500, "error": "Internal Server Error", "detail": "No."}),
            _json({"error": "Not Found", "detail": "Another status", "status": 200}),
            # Spring's, which so many proxies are made of.
            _json({"timestamp": "2026-11-30T12:00:00Z", "status": 404, "error": "Not Found", "path": "/v2/taxes"}),
        ),
        absence=_taxjar_error(404, "Resource can not be found"),
        finding_nothing=frozenset({"get"}),
        stranger=_json({"order": {"transaction_id": "9", "amount": "1.0", "sales_tax": "0.1", "transaction_date": "2026-11-30T00:00:00Z"}}),
    ),
    "avalara": Adapter(
        make=lambda url: Avalara(account_id="1", license_key="x", company_code="TENDER", base_url=url, timeout_seconds=TIMEOUT_SECONDS),
        changes=TAX_CHANGES,
        looks=TAX_LOOKS,
        error=lambda _: _avalara_error("ValueRequiredError", 5),
        refusing=frozenset({400, 404}),
        undecided=(
            _avalara_error("ServerConfiguration", 1, fault="Server"),
            _json({"error": {"code": "EntityNotFoundError", "message": "No.", "details": []}}),
        ),
        absence=_avalara_error("EntityNotFoundError", 4),
        finding_nothing=frozenset({"get"}),
        stranger=_json(
            {"code": "9", "type": "SalesInvoice", "status": "Committed", "date": "2026-11-30", "currencyCode": "USD"}
            | {"totalAmount": 1.0, "totalTax": 0.1, "lines": [{"lineNumber": "0", "tax": 0.1, "taxableAmount": 1.0}]}
        ),
        # It is looked for before a refusal is believed.
        known={f"/api/v2/companies/TENDER/transactions/{REFERENCE}": (404, msgspec.json.decode(_avalara_error("EntityNotFoundError", 4)))},
    ),
}
