"""What Stripe's answers mean where they are not plain: failures it remembers, bad keys, races, and answers nobody can read."""

import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from deploy.sandbox.books import Payment, Refused
from deploy.sandbox.faces import stripe_objects as objects
from deploy.sandbox.server import Account, Sandbox
from services.payments.domain.intents import Observation, Operation, TransactionStatus
from services.payments.providers import (
    AuthorizeRequest,
    CaptureRequest,
    PaymentProvider,
    RefundRequest,
    Request,
    Unreadable,
    VoidRequest,
)
from services.payments.providers.stripe import API_VERSION
from services.payments.providers.stripe.client import StripePayments
from shared.http_client import Answer, ProviderClient
from shared.ids import new_id
from shared.provider_answers import IndeterminateResponse
from tests.world import SANDBOX_KEY, a_sandbox

DONE, DECLINED, FAILED, PENDING = (
    TransactionStatus.SUCCEEDED,
    TransactionStatus.DECLINED,
    TransactionStatus.FAILED,
    TransactionStatus.PENDING,
)
AMOUNT = 10_000
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with a_sandbox() as made:
        yield made


@pytest.fixture
async def stripe(sandbox: Sandbox) -> AsyncIterator[PaymentProvider]:
    made = an_adapter(sandbox, settled_after_seconds=0)
    yield made
    await made.close()


def an_adapter(sandbox: Sandbox, **how: Any) -> StripePayments:
    return StripePayments(**{"base_url": sandbox.base_url, "api_key": SANDBOX_KEY, "timeout_seconds": 1.0, "multicapture": True, **how})


def an_authorization(method: str = "pm_card_visa", **changes: Any) -> AuthorizeRequest:
    facts = {
        "reference": new_id(),
        "order_id": new_id(),
        "amount": AMOUNT,
        "currency": "EUR",
        "payment_method": method,
        "return_url": "https://shop.example/back",
    }
    return AuthorizeRequest(**{**facts, **changes})


def a_capture(payment_id: str, amount: int = AMOUNT, *, final: bool = False) -> CaptureRequest:
    return CaptureRequest(reference=new_id(), provider_payment_id=payment_id, amount=amount, currency="EUR", final=final)


async def send(provider: PaymentProvider, request: Request) -> tuple[Observation, ...]:
    reference = getattr(request, "reference", new_id())
    return await provider.send(provider.prepare(request), idempotency_key=f"key-{reference}", reference=reference)


async def held(provider: PaymentProvider, method: str = "pm_card_visa") -> str:
    (authorized, *_) = await send(provider, an_authorization(method))
    return authorized.provider_payment_id


class TestFailuresOfStripesOwn:
    """Stripe remembers its 500 with the key, and answers every repeat with it (docs.stripe.com/api/idempotent_requests)."""

    async def test_one_that_it_remembers_long_after_is_proven_not_executed(self, sandbox: Sandbox, stripe: PaymentProvider) -> None:
        request = an_authorization("tok_500_once")

        with pytest.raises(IndeterminateResponse):
            await send(stripe, request)
        (seen,) = await send(stripe, request)

        assert (seen.status, seen.reference, seen.decline_code) == (FAILED, request.reference, "provider_error")
        assert sandbox.books.find(str(request.reference)) is None

    async def test_one_that_it_remembers_says_nothing_so_soon(self, sandbox: Sandbox) -> None:
        stripe, request = an_adapter(sandbox), an_authorization("tok_500_once")

        for _ in range(2):
            with pytest.raises(IndeterminateResponse):
                await send(stripe, request)

        await stripe.close()

    async def test_of_a_capture(self, stripe: PaymentProvider) -> None:
        request = a_capture(await held(stripe, "tok_capture_500_once"))

        with pytest.raises(IndeterminateResponse):
            await send(stripe, request)
        (seen,) = await send(stripe, request)

        assert (seen.operation, seen.status, seen.amount) == (Operation.CAPTURE, FAILED, AMOUNT)


class TestKeysAndRaces:
    async def test_a_key_that_is_not_taken_says_nothing_of_the_payment(self, sandbox: Sandbox) -> None:
        stripe = an_adapter(sandbox, api_key="sk_test_revoked")

        with pytest.raises(IndeterminateResponse, match="401"):
            await send(stripe, an_authorization())

        await stripe.close()

    async def test_a_void_of_what_is_canceled_already_has_come_about(self, sandbox: Sandbox, stripe: PaymentProvider) -> None:
        payment_id = await held(stripe)
        sandbox.books.add(sandbox.books.get(payment_id), "void", AMOUNT, reason="dashboard")
        request = VoidRequest(reference=new_id(), provider_payment_id=payment_id)

        seen = await send(stripe, request)

        assert [(o.status, o.reference) for o in seen if o.operation is Operation.VOID] == [(DONE, request.reference)]

    async def test_a_capture_of_what_is_canceled_is_not_executed(self, sandbox: Sandbox, stripe: PaymentProvider) -> None:
        payment_id = await held(stripe)
        sandbox.books.add(sandbox.books.get(payment_id), "void", AMOUNT, reason="dashboard")

        (seen,) = await send(stripe, a_capture(payment_id))

        assert (seen.status, seen.decline_code) == (FAILED, "payment_intent_unexpected_state")

    async def test_a_void_after_a_capture_is_not_executed(self, stripe: PaymentProvider) -> None:
        payment_id = await held(stripe)
        await send(stripe, a_capture(payment_id))

        (seen,) = await send(stripe, VoidRequest(reference=new_id(), provider_payment_id=payment_id))

        assert (seen.operation, seen.status) == (Operation.VOID, FAILED)

    async def test_a_capture_that_is_declined(self, stripe: PaymentProvider) -> None:
        (seen,) = await send(stripe, a_capture(await held(stripe, "tok_capture_declined")))

        assert (seen.operation, seen.status, seen.decline_code) == (Operation.CAPTURE, DECLINED, "capture_declined")

    async def test_without_an_address_to_come_back_to_the_bank_cannot_ask(self, stripe: PaymentProvider) -> None:
        (seen,) = await send(stripe, an_authorization("pm_card_threeDSecure2Required", return_url=None))

        assert (seen.status, seen.decline_code) == (DECLINED, "authentication_required")

    async def test_a_payment_made_and_not_confirmed_because_the_request_was_bad_is_not_executed(
        self, stripe: PaymentProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(_: Any, payment: Payment, __: Any) -> Any:
            raise Refused(400, "url_invalid", "Not a valid URL", payment_intent=objects.payment_intent(payment))

        monkeypatch.setattr("deploy.sandbox.faces.stripe._confirmed", refused)

        (seen,) = await send(stripe, an_authorization())

        assert (seen.status, seen.decline_code) == (FAILED, "url_invalid")

    async def test_the_issuers_advice_is_kept(self, stripe: PaymentProvider) -> None:
        (seen,) = await send(stripe, an_authorization("pm_card_visa_chargeDeclinedStolenCard"))

        assert (seen.decline_code, seen.raw["advice_code"]) == ("stolen_card", "do_not_try_again")


class TestMulticapture:
    async def test_where_the_payment_has_none_a_part_that_is_not_the_last_is_not_executed(self, sandbox: Sandbox) -> None:
        sandbox.account = Account(multicapture=False)
        stripe = an_adapter(sandbox)
        payment_id = await held(stripe)

        (seen,) = await send(stripe, a_capture(payment_id, 4_000))
        last = await send(stripe, a_capture(payment_id, 4_000, final=True))

        assert (seen.status, seen.decline_code) == (FAILED, "payment_intent_invalid_parameter")
        assert [(o.operation, o.amount) for o in last] == [(Operation.AUTHORIZE, AMOUNT), (Operation.CAPTURE, 4_000)]
        sandbox.account = Account()
        await stripe.close()

    @pytest.mark.parametrize(("elsewhere", "reason"), [(False, "expired"), (True, "")])
    async def test_what_is_let_go_without_us_is_a_void(
        self, sandbox: Sandbox, stripe: PaymentProvider, elsewhere: bool, reason: str
    ) -> None:
        payment_id = await held(stripe)
        await send(stripe, a_capture(payment_id, 4_000))
        payment = sandbox.books.get(payment_id)
        if elsewhere:
            sandbox.books.add(payment, "capture", 1_000, final=True)
        else:
            sandbox.books.add(payment, "void", payment.held, reason="expired")

        found = await stripe.get_transaction(payment_id)

        assert found is not None
        voids = [(o.amount, o.reason) for o in found.observations if o.operation is Operation.VOID]
        assert voids == [(5_000 if elsewhere else 6_000, reason)]


class TestSearching:
    async def test_finds_what_is_long_out_of_the_list_looked_through(self, sandbox: Sandbox, stripe: PaymentProvider) -> None:
        request = an_authorization()
        await send(stripe, request)
        [payment] = [p for p in sandbox.books.payments.values() if p.reference == str(request.reference)]
        payment.created_at = "2026-01-01T00:00:00+00:00"

        found = await stripe.find_by_reference(request.reference, operation=Operation.AUTHORIZE, provider_payment_id=None)

        assert found is not None
        assert found.provider_payment_id == payment.id

    @pytest.mark.parametrize("made", ["at once", "much later"])
    async def test_an_account_without_search_looks_through_all_since(self, sandbox: Sandbox, stripe: PaymentProvider, made: str) -> None:
        sandbox.account = Account(searchable=False)
        minted = int((NOW - timedelta(hours=3)).timestamp() * 1000) if made == "much later" else int(NOW.timestamp() * 1000)
        request = an_authorization(reference=UUID(int=(minted << 80) | (new_id().int & ((1 << 80) - 1))))
        await send(stripe, request)

        found = await stripe.find_by_reference(request.reference, operation=Operation.AUTHORIZE, provider_payment_id=None)
        nothing = await stripe.find_by_reference(new_id(), operation=Operation.AUTHORIZE, provider_payment_id=None)

        assert found is not None
        assert found.reference == request.reference
        assert nothing is None
        sandbox.account = Account()

    async def test_too_many_payments_of_that_time_are_no_proof_of_absence(
        self, sandbox: Sandbox, stripe: PaymentProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        payment = sandbox.books.get(await held(stripe))
        copies = [msgspec.structs.replace(payment, id=f"pi_{new_id().hex}", created_at=payment.created_at) for _ in range(501)]
        monkeypatch.setattr(sandbox.books, "payments", {p.id: p for p in copies})

        with pytest.raises(IndeterminateResponse, match="more payments"):
            await stripe.find_by_reference(new_id(), operation=Operation.AUTHORIZE, provider_payment_id=None)


# The query parameters that each list and search takes (stripe-python 16.1.0, params.*ListParams and *SearchParams, MIT).
QUERIES = {
    "/v1/payment_intents": {"created", "customer", "ending_before", "expand", "limit", "starting_after"},
    "/v1/payment_intents/search": {"expand", "limit", "page", "query"},
    "/v1/payment_intents/{intent}": {"client_secret", "expand"},
    "/v1/refunds": {"charge", "created", "ending_before", "expand", "limit", "payment_intent", "starting_after"},
    "/v1/disputes": {"charge", "created", "ending_before", "expand", "limit", "payment_intent", "starting_after"},
}


class TestReading:
    async def test_asks_only_with_parameters_that_there_are(
        self, sandbox: Sandbox, stripe: PaymentProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: set[str] = set()
        original = ProviderClient.call

        async def noted(self: ProviderClient, operation: str, method: str, path: str, **how: Any) -> Answer:
            query = {name.partition("[")[0] for name in how.get("query") or {}}
            place = re.sub(r"pi_\w+", "{intent}", path) if "search" not in path else path
            assert query <= QUERIES[place], (place, query)
            asked.add(place)
            return await original(self, operation, method, path, **how)

        payment_id = await held(stripe, "pm_card_createDispute")
        await send(stripe, a_capture(payment_id))
        for amount in range(1, 13):
            sandbox.books.add(sandbox.books.get(payment_id), "refund", amount)
        monkeypatch.setattr(ProviderClient, "call", noted)

        await stripe.get_transaction(payment_id)
        await stripe.find_by_reference(new_id(), operation=Operation.AUTHORIZE, provider_payment_id=None)
        await stripe.list_transactions(since=NOW - timedelta(hours=1), until=NOW + timedelta(hours=1), cursor=payment_id)

        assert asked == set(QUERIES)


def an_event(thing: dict[str, Any], *, version: str | None = API_VERSION) -> bytes:
    return msgspec.json.encode({"id": "evt_1", "object": "event", "api_version": version, "data": {"object": thing}})


REFERENCE = new_id()
CAPTURE = new_id()
INTENT = {
    "id": "pi_1",
    "object": "payment_intent",
    "amount": AMOUNT,
    "currency": "eur",
    "status": "requires_capture",
    "created": 1_760_000_000,
    "amount_received": 0,
    "metadata": {"tender_reference": str(REFERENCE)},
    "latest_charge": "ch_1",
}
ERROR = {"type": "card_error", "code": "card_declined", "decline_code": "do_not_honor"}
REFUND = {"id": "re_1", "object": "refund", "amount": 300, "currency": "eur", "payment_intent": "pi_1", "status": "succeeded"}
DISPUTE = {"id": "dp_1", "object": "dispute", "amount": 900, "currency": "eur", "payment_intent": "pi_1", "status": "needs_response"}
CHARGE = {"id": "ch_1", "object": "charge", "payment_intent": "pi_1", "metadata": INTENT["metadata"]}

# An event's name, what its object says differently, and what it means: operation, status and amount.
EVENTS: list[tuple[str, dict[str, Any], list[tuple[str, TransactionStatus, int]]]] = [
    ("payment_intent.amount_capturable_updated", INTENT, [("authorize", DONE, AMOUNT)]),
    ("payment_intent.created", {**INTENT, "status": "requires_confirmation", "latest_charge": None}, [("authorize", PENDING, AMOUNT)]),
    ("payment_intent.processing", {**INTENT, "status": "processing"}, [("authorize", PENDING, AMOUNT)]),
    ("payment_intent.requires_action", {**INTENT, "status": "requires_action"}, [("authorize", PENDING, AMOUNT)]),
    (
        "payment_intent.payment_failed",
        {**INTENT, "status": "requires_payment_method", "last_payment_error": ERROR},
        [("authorize", DECLINED, AMOUNT)],
    ),
    (
        "payment_intent.succeeded",
        {**INTENT, "status": "succeeded", "amount_received": AMOUNT},
        [("authorize", DONE, AMOUNT), ("capture", DONE, AMOUNT)],
    ),
    # Whether it was ever held is not in the object; that it is not held any more is.
    ("payment_intent.canceled", {**INTENT, "status": "canceled"}, [("void", DONE, AMOUNT)]),
    (
        "payment_intent.canceled",
        {**INTENT, "status": "canceled", "latest_charge": None},
        [("authorize", FAILED, AMOUNT), ("void", DONE, AMOUNT)],
    ),
    (
        "payment_intent.canceled",
        {**INTENT, "status": "canceled", "last_payment_error": ERROR},
        [("authorize", DECLINED, AMOUNT), ("void", DONE, AMOUNT)],
    ),
]

MOVES_NOTHING = ("warning_needs_response", "warning_under_review", "warning_closed", "prevented")
LOST = ("chargeback", DONE, 900)
# A refund or a dispute in the books, and what it means.
RETURNS: list[tuple[str, dict[str, Any], list[tuple[str, TransactionStatus, int]]]] = [
    ("refund", {"status": "succeeded"}, [("refund", DONE, 300)]),
    ("refund", {"status": "pending"}, [("refund", PENDING, 300)]),
    ("refund", {"status": "requires_action"}, [("refund", PENDING, 300)]),
    ("refund", {"status": "failed", "failure_reason": "expired_or_canceled_card"}, [("refund", FAILED, 300)]),
    ("refund", {"status": "canceled"}, [("refund", FAILED, 300)]),
    *(("dispute", {"status": s, "balance_transactions": []}, []) for s in MOVES_NOTHING),
    *(
        ("dispute", {"status": s}, [LOST])
        for s in ("needs_response", "under_review", "appeal_needs_response", "appeal_under_review", "lost")
    ),
    # What it gives back is listed a little later than it is won.
    ("dispute", {"status": "won"}, [LOST, ("chargeback_reversal", DONE, 900)]),
]


class TestEvents:
    @pytest.mark.parametrize(("kind", "thing", "meaning"), EVENTS)
    def test_each_means_something(
        self, stripe: PaymentProvider, kind: str, thing: dict[str, Any], meaning: list[tuple[str, TransactionStatus, int]]
    ) -> None:
        seen = stripe.observe(kind, an_event(thing))

        assert seen is not None
        assert seen.provider_payment_id == "pi_1"
        assert [(o.operation.value, o.status, o.amount) for o in seen.observations or ()] == meaning

    @pytest.mark.parametrize(("kind", "changes", "meaning"), RETURNS)
    async def test_what_went_back_is_read_from_the_books(
        self,
        sandbox: Sandbox,
        stripe: PaymentProvider,
        monkeypatch: pytest.MonkeyPatch,
        kind: str,
        changes: dict[str, Any],
        meaning: list[tuple[str, TransactionStatus, int]],
    ) -> None:
        payment_id = await held(stripe)
        await send(stripe, a_capture(payment_id))
        sandbox.books.add(sandbox.books.get(payment_id), "refund" if kind == "refund" else "chargeback", 300 if kind == "refund" else 900)
        monkeypatch.setattr(objects, kind, _changed(getattr(objects, kind), changes))

        found = await stripe.get_transaction(payment_id)

        assert found is not None
        assert [(o.operation.value, o.status, o.amount) for o in found.observations[2:]] == meaning

    @pytest.mark.parametrize(
        ("note", "received", "meaning"),
        [
            ("4000", 4_000, [(CAPTURE, 4_000)]),
            ("4000", 7_000, [(CAPTURE, 4_000), (None, 3_000)]),
            # What was noted and never received did not happen.
            ("4000", 3_000, [(None, 3_000)]),
            ("4000", 0, []),
            # F7: anybody writes metadata; what is no note of ours is ignored.
            *((note, 3_000, [(None, 3_000)]) for note in ("", " ", "L", "-1", "1e3", "٣", "3000 last", "9" * 400, "\0")),
        ],
    )
    def test_a_capture_of_ours_is_known_by_its_note(
        self, stripe: PaymentProvider, note: str, received: int, meaning: list[tuple[Any, int]]
    ) -> None:
        thing = {**INTENT, "amount_received": received, "metadata": {**INTENT["metadata"], f"cap_{CAPTURE.hex}": note}}  # type: ignore[dict-item]

        seen = stripe.observe("payment_intent.amount_capturable_updated", an_event(thing))

        assert seen is not None
        captures = [(o.reference, o.amount) for o in seen.observations or () if o.operation is Operation.CAPTURE]
        assert captures == meaning

    @pytest.mark.parametrize(
        ("kind", "thing"),
        [
            *((kind, CHARGE) for kind in ("charge.captured", "charge.refunded", "charge.expired")),
            *((kind, REFUND) for kind in ("refund.created", "refund.updated", "refund.failed", "charge.refund.updated")),
            *((f"charge.dispute.{kind}", DISPUTE) for kind in ("created", "updated", "closed", "funds_withdrawn", "funds_reinstated")),
        ],
    )
    def test_one_that_says_too_little_is_looked_up(self, stripe: PaymentProvider, kind: str, thing: dict[str, Any]) -> None:
        seen = stripe.observe(kind, an_event(thing))

        assert seen is not None
        assert (seen.provider_payment_id, seen.observations) == ("pi_1", None)

    @pytest.mark.parametrize(
        ("kind", "thing"),
        [
            ("refund.created", {**REFUND, "payment_intent": None}),
            ("customer.created", {"id": "cus_1"}),
            ("charge.succeeded", {"id": "ch_1", "payment_intent": "pi_1", "metadata": INTENT["metadata"]}),
        ],
    )
    def test_what_says_nothing_of_a_payment_is_left_alone(self, stripe: PaymentProvider, kind: str, thing: dict[str, Any]) -> None:
        assert stripe.observe(kind, an_event(thing)) is None

    # docs.stripe.com/api/balance/balance_object and /api/invoices/upcoming have no id, a discount's may be null;
    # docs.stripe.com/api/v2/core/events: thin events hold no object.
    @pytest.mark.parametrize(
        ("kind", "payload"),
        [
            ("balance.available", an_event({"object": "balance", "available": []})),
            ("invoice.upcoming", an_event({"object": "invoice", "amount_due": 500})),
            ("checkout.session.completed", an_event({"id": "cs_1", "payment_intent": {"id": "pi_1"}})),
            ("v2.core.event_destination.ping", b'{"id": "evt_1", "object": "v2.core.event", "type": "v2.core.event_destination.ping"}'),
            ("v1.billing.meter.no_meter_found", b'{"id": "evt_1", "object": "v2.core.event", "data": {"validation_start": "2026"}}'),
        ],
    )
    def test_what_is_about_something_else_need_not_be_readable(self, stripe: PaymentProvider, kind: str, payload: bytes) -> None:
        """F7: an endpoint may be sent every kind of event; a kind that we do not read is no event that cannot be read."""
        assert stripe.observe(kind, payload) is None

    @pytest.mark.parametrize(
        ("kind", "thing"),
        [
            ("payment_intent.succeeded", {**INTENT, "metadata": {}}),
            ("payment_intent.succeeded", {**INTENT, "metadata": {"tender_reference": "mine"}, "currency": "xyz", "amount": None}),
            ("charge.captured", {**CHARGE, "metadata": {}}),
        ],
    )
    def test_what_bears_no_reference_is_a_strangers_unless_we_know_it(
        self, stripe: PaymentProvider, kind: str, thing: dict[str, Any]
    ) -> None:
        seen = stripe.observe(kind, an_event(thing))

        assert seen is not None
        assert (seen.provider_payment_id, seen.observations, seen.strangers) == ("pi_1", None, True)

    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b"[]",
            b"{}",
            an_event({"id": "pi_1", "metadata": INTENT["metadata"]}),
            an_event({**INTENT, "amount": "much"}),
            an_event({**INTENT, "currency": "xyz"}),
            an_event({**INTENT, "currency": "isk", "amount": 550}),
        ],
    )
    def test_one_that_cannot_be_read_is_said_to_be_so(self, stripe: PaymentProvider, payload: bytes) -> None:
        with pytest.raises(Unreadable):
            stripe.observe("payment_intent.succeeded", payload)


def _changed(write: Callable[..., dict[str, Any]], changes: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    return lambda *about: {**write(*about), **changes}


class TestNonsense:
    @pytest.mark.parametrize("answer", [{}, {"object": "payment_intent"}, {**INTENT, "amount": "much"}])
    async def test_an_answer_that_cannot_be_read_leaves_the_outcome_open(
        self, sandbox: Sandbox, stripe: PaymentProvider, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
    ) -> None:
        monkeypatch.setattr(objects, "payment_intent", lambda _: dict(answer))

        with pytest.raises(IndeterminateResponse, match="cannot be read"):
            await send(stripe, an_authorization())
        with pytest.raises(IndeterminateResponse, match="cannot be read"):
            await stripe.get_transaction(_newest(sandbox).id)


def _another(**changes: Any) -> dict[str, Any]:
    return {**INTENT, "id": "pi_9", "metadata": {"tender_reference": str(new_id())}, **changes}


def _an_error(told: dict[str, Any], *, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"type": kind, "code": "payment_intent_unexpected_state", "payment_intent": told}}


VOID = VoidRequest(reference=new_id(), provider_payment_id="pi_1")
GIVE_BACK = RefundRequest(reference=new_id(), provider_payment_id="pi_1", amount=300, currency="EUR", reason="")
CANCELED = _another(status="canceled")
DECLINED_ELSEWHERE = _another(status="requires_payment_method", last_payment_error=ERROR)
# What an intermediary kept for another request, and answers ours with.
KEPT: dict[str, tuple[Request, int, dict[str, Any]]] = {
    "another payment's refund": (GIVE_BACK, 200, {**REFUND, "payment_intent": "pi_9", "metadata": {"tender_reference": str(new_id())}}),
    "another refund of ours": (GIVE_BACK, 200, {**REFUND, "metadata": {"tender_reference": str(new_id())}}),
    "the dashboard's refund": (GIVE_BACK, 200, REFUND),
    "a refund refused": (GIVE_BACK, 400, _an_error(_another(status="succeeded"))),
    "a void after another's": (VOID, 400, _an_error(CANCELED)),
    "a capture refused": (a_capture("pi_1"), 400, _an_error(CANCELED)),
    "an authorization declined": (an_authorization(), 402, _an_error(DECLINED_ELSEWHERE, kind="card_error")),
    "an authorization refused, though held": (an_authorization(), 400, _an_error(_another())),
}


class TestKeptForAnotherRequest:
    """F3: an intermediary's answer about something else proves nothing of ours."""

    @pytest.mark.parametrize(("request_of_ours", "status", "body"), KEPT.values(), ids=KEPT)
    async def test_leaves_the_outcome_open(
        self, stripe: PaymentProvider, monkeypatch: pytest.MonkeyPatch, request_of_ours: Request, status: int, body: dict[str, Any]
    ) -> None:
        async def answered(*_: Any) -> Answer:
            return Answer(status, body, {})

        monkeypatch.setattr(ProviderClient, "_exchange", answered)

        with pytest.raises(IndeterminateResponse, match="another payment"):
            await send(stripe, request_of_ours)


def _newest(sandbox: Sandbox) -> Payment:
    return sandbox.books.get(max(sandbox.books.payments))
