"""Stripe's API as far as payments go: PaymentIntents, charges, refunds, disputes and events (docs.stripe.com/api)."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from litestar import Response, Router, get, post
from litestar.params import FromPath

from deploy.sandbox.books import Books, Operation, Payment, Refused
from deploy.sandbox.faces import stripe_objects as objects
from deploy.sandbox.faces.stripe_objects import Thing
from deploy.sandbox.faces.stripe_versions import (
    NO_PAYMENT_METHOD_TYPES,
    NO_REFUND_OF_THE_REST,
    WRITTEN,
    before,
    older,
    speak,
    spoken,
)
from deploy.sandbox.server import Fields, HttpRequest, Sandbox, age_seconds, json_response, sandbox_of
from deploy.sandbox.tokens import METHODS, Act, behaviour_at
from shared.ids import new_id

PREFIX = "pi_"
PAGE_ROWS_MAX = 100
PAGE_ROWS = 10

# docs.stripe.com/currencies: what can be charged, the least of it, and the digits of the most. What the page named once is taken too, for
# payments that were made then: ANG, BGN, EEK, HRK, LTL, LVL, MRO, SLL, STD, VEF.
PRESENTMENT_CURRENCIES = """
    usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd cad cdf chf clp cny cop crc cve czk
    djf dkk dop dzd eek egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl hrk htg huf idr ils inr isk jmd jod jpy kes kgs khr kmf krw
    kwd kyd kzt lak lbp lkr lrd lsl ltl lvl mad mdl mga mkd mmk mnt mop mro mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk
    php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp sle sll sos srd std szl thb tjs tnd top try ttd twd tzs uah ugx uyu uzs
    vef vnd vuv wst xaf xcd xcg xof xpf yer zar zmw
"""
CURRENCIES = frozenset(PRESENTMENT_CURRENCIES.split())
AMOUNT_MIN = (
    dict.fromkeys(("usd", "ars", "aud", "brl", "cad", "chf", "cop", "eur", "idr", "ils", "inr", "jpy", "krw", "nzd", "php", "rub"), 50)
    | {"sgd": 50, "zar": 50, "gbp": 30, "aed": 200, "myr": 200, "pln": 200, "ron": 200, "dkk": 250, "nok": 300, "sek": 300, "hkd": 400}
    | {"mxn": 1000, "thb": 1000, "czk": 1500, "huf": 17_500}
)
AMOUNT_MAX_DIGITS = {"idr": 12, "cop": 10, "inr": 9}
AMOUNT_MAX_DIGITS_OF_OTHERS = 8
# The last digit of three decimals is a zero, as are both decimals of what has none but for old callers.
AMOUNT_STEPS = {"bhd": 10, "jod": 10, "kwd": 10, "omr": 10, "tnd": 10, "isk": 100, "ugx": 100}
# docs.stripe.com/payments/multicapture, docs.stripe.com/metadata
CAPTURES_MAX = 50
METADATA_KEYS_MAX = 50
METADATA_KEY_MAX_CHARACTERS = 40
METADATA_VALUE_MAX_CHARACTERS = 500

TYPES = {400: "invalid_request_error", 401: "invalid_request_error", 402: "card_error", 404: "invalid_request_error"}

CREATE_FIELDS = frozenset(
    {
        *("amount", "currency", "payment_method", "payment_method_types", "payment_method_options", "capture_method", "confirm"),
        *("return_url", "error_on_requires_action", "metadata", "expand", "description", "automatic_payment_methods", "off_session"),
        "allowed_payment_method_types",
    }
)
CONFIRM_FIELDS = frozenset({"payment_method", "return_url", "error_on_requires_action", "expand", "capture_method"})
CAPTURE_FIELDS = frozenset({"amount_to_capture", "final_capture", "metadata", "expand"})
CANCEL_FIELDS = frozenset({"cancellation_reason", "expand"})
REFUND_FIELDS = frozenset({"payment_intent", "charge", "amount", "reason", "metadata", "expand"})
CANCELABLE = frozenset({"requires_payment_method", "requires_confirmation", "requires_action", "requires_capture", "processing"})


class Stripe:
    """Forms in, JSON out; a failure of Stripe's own is remembered with its key."""

    remembers_failures = True

    def read(self, raw: bytes) -> Fields:
        """Read a form with its brackets."""
        return nested(parse_qsl(raw.decode(errors="replace"), keep_blank_values=True))

    def error(self, refused: Refused) -> bytes:
        """Write an error (docs.stripe.com/api/errors)."""
        kind = "idempotency_error" if refused.code.startswith("idempotency") else TYPES.get(refused.status, "api_error")
        code = {} if kind in ("api_error", "idempotency_error") or not refused.code else {"code": refused.code}
        return msgspec.json.encode({"error": {"type": kind, **code, "message": str(refused), **refused.facts}})


STRIPE = Stripe()


def nested(pairs: Iterable[tuple[str, str]]) -> Fields:
    """Read `a[b]=1`, `list[]=x` and `list[0]=x` as the fields they stand for; a list comes as a mapping."""
    fields: Fields = {}
    for name, value in pairs:
        outer, *inner = name.replace("]", "").split("[")
        place = fields
        for step in inner:
            place = place.setdefault(outer, {})
            if not isinstance(place, dict):
                raise Refused(400, "parameter_invalid", f"Invalid parameter: {name}")
            outer = step or str(len(place))
        place[outer] = value
    return fields


# PaymentIntents


@post("/v1/payment_intents", status_code=200)
async def create(request: HttpRequest) -> Response[bytes]:
    sandbox = sandbox_of(request)

    def act(body: Fields) -> Act:
        return behaviour_at(body.get("payment_method"), "authorize") if body.get("confirm") == "true" else Act.SUCCEED

    return await _done(request, "authorize", CREATE_FIELDS, act, lambda body: _created(sandbox, body))


def _created(sandbox: Sandbox, body: Fields) -> Thing:
    if "payment_method_types" in body and not before(NO_PAYMENT_METHOD_TYPES):
        text = "payment_method_types is no longer supported; use allowed_payment_method_types."
        raise Refused(400, "payment_method_types_no_longer_supported", text, param="payment_method_types")
    metadata = _metadata({}, body.get("metadata", {}))
    method = body.get("payment_method", "")
    if method and method not in METHODS:
        raise Refused(400, "resource_missing", f"No such PaymentMethod: '{method}'", param="payment_method")
    asked = body.get("payment_method_options", {}).get("card", {}).get("request_multicapture") == "if_available"
    currency = _text(body, "currency").lower()
    payment = sandbox.books.open(
        "pi",
        amount=_chargeable(_integer(body, "amount"), currency),
        currency=currency,
        payment_method=method,
        reference=metadata.get("tender_reference"),
        # So that tests and the control endpoint find a payment by its order, whatever the face.
        order_id=metadata.get("tender_order"),
        metadata=metadata,
        capture_method=body.get("capture_method", "automatic"),
        multicapture=asked and sandbox.account.multicapture,
        return_url=body.get("return_url"),
    )
    sandbox.books.keep(payment)
    return _confirmed(sandbox, payment, body) if body.get("confirm") == "true" else _shown(payment, body)


@post("/v1/payment_intents/{payment_id:str}/confirm", status_code=200)
async def confirm(request: HttpRequest, payment_id: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)

    def do(body: Fields) -> Thing:
        payment = _payment(sandbox.books, payment_id)
        if objects.status_of(payment) not in ("requires_confirmation", "requires_payment_method") or payment.operations:
            raise _unexpected(payment, "confirmed")
        payment.payment_method = body.get("payment_method", payment.payment_method)
        return _confirmed(sandbox, payment, body)

    return await _done(request, "confirm", CONFIRM_FIELDS, lambda _: Act.SUCCEED, do)


def _confirmed(sandbox: Sandbox, payment: Payment, body: Fields) -> Thing:
    if not payment.payment_method:
        raise Refused(400, "parameter_missing", "A payment method is missing", param="payment_method")
    sandbox.books.attempt(payment, sandbox.base_url, may_act=body.get("error_on_requires_action") != "true")
    failed = objects.last_error(payment)
    if failed is not None:
        facts = {key: value for key, value in failed.items() if key not in ("type", "code", "message")}
        raise Refused(402, failed["code"], failed["message"], **facts, payment_intent=objects.payment_intent(payment))
    return _shown(payment, body)


@post("/v1/payment_intents/{payment_id:str}/capture", status_code=200)
async def capture(request: HttpRequest, payment_id: FromPath[str]) -> Response[bytes]:
    def do(books: Books, payment: Payment, body: Fields) -> Thing:
        if books.check_amounts and objects.status_of(payment) != "requires_capture":
            raise _unexpected(payment, "captured")
        if body.get("final_capture") == "false" and not payment.multicapture:
            raise Refused(400, "payment_intent_invalid_parameter", "This payment has no multicapture.", param="final_capture")
        amount = _integer(body, "amount_to_capture") if "amount_to_capture" in body else payment.held
        final = body.get("final_capture") != "false"
        if len([o for o in payment.operations if o.kind == "capture" and o.status == "succeeded"]) >= CAPTURES_MAX:
            raise Refused(400, "", f"This PaymentIntent has been captured {CAPTURES_MAX} times, which is the maximum.")
        metadata, seen = _metadata(payment.metadata, body.get("metadata", {})), len(payment.operations)
        payment.metadata, kept = metadata, payment.metadata
        try:
            books.capture(payment, {"amount": amount, "final": final})
        except Refused:
            payment.metadata = kept
            raise
        _refuse_declined(payment.operations[seen])
        return _shown(payment, body)

    return await _change(request, payment_id, "capture", CAPTURE_FIELDS, do)


@post("/v1/payment_intents/{payment_id:str}/cancel", status_code=200)
async def cancel(request: HttpRequest, payment_id: FromPath[str]) -> Response[bytes]:
    def do(books: Books, payment: Payment, body: Fields) -> Thing:
        if objects.status_of(payment) not in CANCELABLE:
            raise _unexpected(payment, "canceled")
        if payment.operations and objects.status_of(payment) != "requires_payment_method":
            books.void(payment, {"reason": body.get("cancellation_reason")})
        else:
            books.add(payment, "void", 0, reason=body.get("cancellation_reason") or "")
        return _shown(payment, body)

    return await _change(request, payment_id, "void", CANCEL_FIELDS, do)


@get("/v1/payment_intents/{payment_id:str}")
async def read_payment(request: HttpRequest, payment_id: FromPath[str]) -> Response[bytes]:
    payment = _payment(sandbox_of(request).read(request), payment_id)
    return _answer(_shown(payment, nested(request.query_params.multi_items())))


@get("/v1/payment_intents")
async def list_payments(request: HttpRequest) -> Response[bytes]:
    query = nested(request.query_params.multi_items())
    payments = [p for p in _payments(sandbox_of(request).read(request)) if _created_within(p, query.get("created", {}))]
    return _answer(_list(payments, lambda p: p.id, lambda p: objects.payment_intent(p), query, "/v1/payment_intents"))


@get("/v1/payment_intents/search")
async def search(request: HttpRequest) -> Response[bytes]:
    """By one metadata field, as `metadata['name']:'value'`; what is very new is not found yet."""
    sandbox, query = sandbox_of(request), nested(request.query_params.multi_items())
    name, _, value = query.get("query", "").removeprefix("metadata['").removesuffix("'").partition("']:'")
    books = sandbox.read(request)
    if not sandbox.account.searchable:
        raise Refused(400, "search_not_available", "Search is not available for this account.")
    lag = sandbox.account.search_lag_seconds
    found = [p for p in _payments(books) if p.metadata.get(name) == value and age_seconds(p) >= lag] if value else []
    rows = [objects.expanded(objects.payment_intent(p), p, _deeper(_paths(query))) for p in found]
    return _answer({"object": "search_result", "data": rows, "has_more": False, "next_page": None, "url": "/v1/payment_intents/search"})


# Charges, refunds, disputes


@get("/v1/charges/{charge:str}")
async def read_charge(request: HttpRequest, charge: FromPath[str]) -> Response[bytes]:
    payment = _payment(sandbox_of(request).read(request), charge.replace("ch_", PREFIX, 1))
    if not objects.attempted(payment):
        raise Refused(404, "resource_missing", f"No such charge: '{charge}'", param="id")
    return _answer(objects.expanded(objects.charge(payment), payment, _paths(nested(request.query_params.multi_items()))))


@post("/v1/refunds", status_code=200)
async def refund(request: HttpRequest) -> Response[bytes]:
    sandbox = sandbox_of(request)

    def paid(body: Fields) -> Payment:
        named = body.get("payment_intent") or body.get("charge", "").replace("ch_", PREFIX, 1)
        return _payment(sandbox.books, named, status=400)

    def do(body: Fields) -> Thing:
        payment = paid(body)
        if payment.moved("capture") == 0 and sandbox.books.check_amounts:
            raise Refused(400, "charge_not_captured", "This payment has no captured charge to refund.")
        if any(payment.lost_by(d) > 0 for d in payment.disputes) and sandbox.books.check_amounts:
            raise Refused(400, "charge_disputed", f"Charge {objects.charge_id(payment)} has been charged back; cannot issue a refund.")
        if payment.refundable <= 0 and sandbox.books.check_amounts:
            raise Refused(400, "charge_already_refunded", f"Charge {objects.charge_id(payment)} has already been refunded.")
        amount = _integer(body, "amount") if "amount" in body else payment.refundable
        metadata = _metadata({}, body.get("metadata", {}))
        wanted = {"amount": amount, "reference": metadata.get("tender_reference"), "metadata": metadata, "reason": body.get("reason")}
        sandbox.books.refund(payment, wanted)
        return objects.expanded(objects.refund(payment, payment.operations[-1]), payment, _paths(body))

    return await _done(request, "refund", REFUND_FIELDS, lambda body: behaviour_at(paid(body).payment_method, "refund"), do)


@get("/v1/refunds")
async def list_refunds(request: HttpRequest) -> Response[bytes]:
    return _listed(request, _refunds, "/v1/refunds")


@get("/v1/refunds/{refund_id:str}")
async def read_refund(request: HttpRequest, refund_id: FromPath[str]) -> Response[bytes]:
    return _one(request, _refunds, refund_id)


@get("/v1/disputes")
async def list_disputes(request: HttpRequest) -> Response[bytes]:
    return _listed(request, _disputes, "/v1/disputes")


@get("/v1/disputes/{dispute_id:str}")
async def read_dispute(request: HttpRequest, dispute_id: FromPath[str]) -> Response[bytes]:
    return _one(request, _disputes, dispute_id)


def _refunds(payment: Payment) -> list[Thing]:
    return [objects.refund(payment, o) for o in reversed(payment.operations) if o.kind in objects.REFUNDS]


def _disputes(payment: Payment) -> list[Thing]:
    return [objects.dispute(payment, d) for d in reversed(payment.disputes)]


@get("/v1/balance_transactions/{transaction_id:str}")
async def read_balance_transaction(request: HttpRequest, transaction_id: FromPath[str]) -> Response[bytes]:
    payment = _payment(sandbox_of(request).read(request), transaction_id.replace(objects.TRANSACTION, PREFIX, 1))
    if payment.moved("capture") == 0:
        raise Refused(404, "resource_missing", f"No such balance transaction: '{transaction_id}'", param="id")
    return _answer(objects.balance_transaction(payment))


# Events


@get("/v1/events")
async def list_events(request: HttpRequest) -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.authenticate(request)
    query = nested(request.query_params.multi_items())
    told = [each for each in sandbox.stripe.events.values() if query.get("type") in (None, each.type)]
    return _answer(_list(told[::-1], lambda each: each.id, lambda each: msgspec.json.decode(each.body), query, "/v1/events"))


@get("/v1/events/{event_id:str}")
async def read_event(request: HttpRequest, event_id: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.authenticate(request)
    if event_id not in sandbox.stripe.events:
        raise Refused(404, "resource_missing", f"No such event: '{event_id}'", param="id")
    return json_response(sandbox.stripe.events[event_id].body)


# What they share


async def _change(
    request: HttpRequest, payment_id: str, kind: str, known: frozenset[str], do: Callable[[Books, Payment, Fields], Thing]
) -> Response[bytes]:
    books = sandbox_of(request).books
    return await _done(
        request,
        kind,
        known,
        lambda _: behaviour_at(_payment(books, payment_id).payment_method, kind),
        lambda body: do(books, _payment(books, payment_id), body),
    )


async def _done(
    request: HttpRequest, kind: str, known: frozenset[str], act: Callable[[Fields], Act], do: Callable[[Fields], Thing]
) -> Response[bytes]:
    def checked(body: Fields) -> Act:
        if unknown := sorted(body.keys() - known):
            raise Refused(400, "parameter_unknown", f"Received unknown parameter: {unknown[0]}", param=unknown[0])
        return act(body)

    answer = await sandbox_of(request).keyed(request, STRIPE, kind, checked, do)
    answer.headers["Request-Id"] = f"req_{new_id().hex}"
    return answer


def _answer(thing: Thing) -> Response[bytes]:
    return json_response(msgspec.json.encode(thing), headers={"Request-Id": f"req_{new_id().hex}"})


def _shown(payment: Payment, body: Fields) -> Thing:
    return objects.expanded(objects.payment_intent(payment), payment, _paths(body))


def _payments(books: Books) -> list[Payment]:
    ids = sorted((i for i in books.payments if i.startswith(PREFIX)), reverse=True)
    return [books.get(i) for i in ids]


def _payment(books: Books, payment_id: str, *, status: int = 404) -> Payment:
    if not payment_id.startswith(PREFIX) or payment_id not in books.payments:
        raise Refused(status, "resource_missing", f"No such payment_intent: '{payment_id}'", param="intent")
    return books.get(payment_id)


def _listed(request: HttpRequest, things_of: Callable[[Payment], list[Thing]], url: str) -> Response[bytes]:
    query, books = nested(request.query_params.multi_items()), sandbox_of(request).read(request)
    payments = [_payment(books, query["payment_intent"])] if "payment_intent" in query else _payments(books)
    rows = [thing for p in payments for thing in things_of(p)]
    return _answer(_list(rows, lambda row: str(row["id"]), lambda row: row, query, url))


def _one(request: HttpRequest, things_of: Callable[[Payment], list[Thing]], wanted: str) -> Response[bytes]:
    for payment in _payments(sandbox_of(request).read(request)):
        for thing in things_of(payment):
            if thing["id"] == wanted:
                return _answer(thing)
    raise Refused(404, "resource_missing", f"No such object: '{wanted}'", param="id")


def _list(rows: list[Any], id_of: Callable[[Any], str], write: Callable[[Any], Thing], query: Mapping[str, Any], url: str) -> Thing:
    limit = min(int(query.get("limit", PAGE_ROWS)), PAGE_ROWS_MAX)
    if "starting_after" in query:
        place = next((n for n, row in enumerate(rows) if id_of(row) == query["starting_after"]), None)
        if place is None:
            raise Refused(400, "resource_missing", f"No such object: '{query['starting_after']}'", param="starting_after")
        rows = rows[place + 1 :]
    things = [objects.expanded(write(row), row, _deeper(_paths(query))) if isinstance(row, Payment) else write(row) for row in rows[:limit]]
    return {"object": "list", "data": things, "has_more": len(rows) > limit, "url": url}


def _created_within(payment: Payment, bounds: Mapping[str, str]) -> bool:
    made = objects.seconds(payment.created_at)
    tests = {"gt": made.__gt__, "gte": made.__ge__, "lt": made.__lt__, "lte": made.__le__}
    return all(tests[name](int(bound)) for name, bound in bounds.items())


def _paths(fields: Mapping[str, Any]) -> list[str]:
    return list(fields.get("expand", {}).values())


def _deeper(paths: list[str]) -> list[str]:
    return [path.removeprefix("data.") for path in paths if path.startswith("data.")]


def _integer(fields: Mapping[str, Any], name: str) -> int:
    text = fields.get(name, "")
    if not text:
        raise Refused(400, "parameter_missing", f"Missing required param: {name}.", param=name)
    if not text.isdigit() or int(text) == 0:
        raise Refused(400, "parameter_invalid_integer", f"Invalid positive integer: {text}", param=name)
    return int(text)


def _chargeable(amount: int, currency: str) -> int:
    if currency not in CURRENCIES:
        raise Refused(400, "", f"Invalid currency: {currency}. Stripe currently supports these currencies: …", param="currency")
    if amount < (least := AMOUNT_MIN.get(currency, 1)):
        raise Refused(400, "amount_too_small", f"Amount must be at least {least} {currency}", param="amount")
    if len(str(amount)) > (digits := AMOUNT_MAX_DIGITS.get(currency, AMOUNT_MAX_DIGITS_OF_OTHERS)):
        raise Refused(400, "amount_too_large", f"Amount must be no more than {'9' * digits} {currency}", param="amount")
    if amount % (step := AMOUNT_STEPS.get(currency, 1)):
        raise Refused(400, "parameter_invalid_integer", f"Amount must be divisible by {step} in {currency}", param="amount")
    return amount


def _metadata(known: Mapping[str, str], wanted: Any) -> dict[str, str]:
    """Merge metadata as Stripe does: an empty value unsets its key (docs.stripe.com/api/metadata)."""
    # Nothing at all, an empty `metadata`, unsets every key.
    pairs: Mapping[str, Any] = wanted if isinstance(wanted, Mapping) else {}
    for key, value in pairs.items():
        if len(key) > METADATA_KEY_MAX_CHARACTERS or "[" in key or "]" in key:
            raise Refused(400, "", f"Metadata keys can be up to {METADATA_KEY_MAX_CHARACTERS} characters long.", param=f"metadata[{key}]")
        if not isinstance(value, str) or len(value) > METADATA_VALUE_MAX_CHARACTERS:
            text = f"Metadata values can be up to {METADATA_VALUE_MAX_CHARACTERS} characters long."
            raise Refused(400, "", text, param=f"metadata[{key}]")
    merged = {} if wanted == "" else {key: value for key, value in {**known, **pairs}.items() if value != ""}
    if len(merged) > METADATA_KEYS_MAX or len(pairs) > METADATA_KEYS_MAX:
        raise Refused(400, "", f"Metadata can have up to {METADATA_KEYS_MAX} keys.", param="metadata")
    return merged


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str) or not value:
        raise Refused(400, "parameter_missing", f"Missing required param: {name}.", param=name)
    return value


def _refuse_declined(operation: Operation) -> None:
    if operation.status == "declined":
        raise Refused(402, "card_declined", "Your card was declined.", decline_code=operation.decline_code)


def _unexpected(payment: Payment, verb: str) -> Refused:
    status = objects.status_of(payment)
    text = f"This PaymentIntent could not be {verb} because it has a status of {status}."
    return Refused(400, "payment_intent_unexpected_state", text, payment_intent=objects.payment_intent(payment))


def let_go_of_the_rest(sandbox: Sandbox, payment: Payment, operation: Operation) -> None:
    """Leave a Refund of what was held and is let go, where whoever let go of it speaks a version that does."""
    lapsed = operation.reason == "expired"
    version = sandbox.account.api_version if lapsed else spoken(sandbox.account.api_version)
    rest = payment.moved("authorize") - payment.moved("capture")
    ended = operation.kind in ("void", "capture") and payment.released and payment.moved("let_go") == 0
    if ended and rest > 0 and older(version, NO_REFUND_OF_THE_REST):
        sandbox.books.add(payment, "let_go", rest, reason="expired_uncaptured_charge" if lapsed else "")


async def _speak(request: HttpRequest) -> None:
    """Take the version that a request names, else its account's (docs.stripe.com/api/versioning)."""
    version = request.headers.get("stripe-version") or sandbox_of(request).account.api_version
    if not WRITTEN.fullmatch(version):
        raise Refused(400, "", f"Invalid Stripe API version: {version}")
    speak(version)


def _handled(_: HttpRequest, refused: Refused) -> Response[bytes]:
    return json_response(STRIPE.error(refused), refused.status, {"Request-Id": f"req_{new_id().hex}"})


router = Router(
    path="/",
    route_handlers=[
        *(create, confirm, capture, cancel, read_payment, list_payments, search),
        *(read_charge, refund, list_refunds, read_refund, list_disputes, read_dispute, list_events, read_event),
        read_balance_transaction,
    ],
    before_request=_speak,
    exception_handlers={Refused: _handled},
)
