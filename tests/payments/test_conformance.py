"""What every payment provider's adapter must do; a new adapter joins by a row in ADAPTERS."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from deploy.sandbox.server import Sandbox
from deploy.state import free_port
from services.payments.domain.intents import NO_MONEY, Observation, Operation, TransactionStatus
from services.payments.providers import (
    AuthorizeRequest,
    CaptureRequest,
    ConfirmRequest,
    PaymentProvider,
    ProviderTransaction,
    RefundRequest,
    Request,
    VoidRequest,
)
from services.payments.providers.sandbox import SandboxPayments
from services.payments.providers.stripe.client import StripePayments
from shared.http_client import NoAnswer, NotSent, recorded
from shared.ids import new_id
from shared.provider_answers import IndeterminateResponse
from tests.world import SANDBOX_KEY, a_sandbox

AMOUNT = 10_000


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter, the same one facing nobody, and the payment methods that bring its provider to each answer."""

    provider: PaymentProvider
    unreachable: PaymentProvider
    sandbox: Sandbox
    succeeds: str
    declined: str
    needs_action: str
    silent: str
    fails_once: str
    busy_once: str
    refund_fails: str

    def act(self, payment_id: str, *, passed: bool = True) -> None:
        """The customer passes the bank's check, or does not."""
        books = self.sandbox.books
        books.decide(books.get(payment_id), passed=passed)

    def in_the_dashboard(self, payment_id: str, kind: str, amount: int) -> None:
        """Something is done without us."""
        books = self.sandbox.books
        books.add(books.get(payment_id), kind, amount, reason="dashboard")


TOKENS = {
    "silent": "tok_timeout_after_success",
    "fails_once": "tok_500_once",
    "busy_once": "tok_429_once",
    "refund_fails": "tok_refund_declined",
}


def _sandbox_adapter(url: str) -> PaymentProvider:
    return SandboxPayments(base_url=url, api_key=SANDBOX_KEY, timeout_seconds=0.5)


def _stripe_adapter(url: str) -> PaymentProvider:
    return StripePayments(base_url=url, api_key=SANDBOX_KEY, timeout_seconds=0.5, multicapture=True, settled_after_seconds=0)


@contextlib.asynccontextmanager
async def _subject(adapter: Callable[[str], PaymentProvider], **methods: str) -> AsyncIterator[Subject]:
    async with a_sandbox() as sandbox:
        provider, unreachable = adapter(sandbox.base_url), adapter(f"http://127.0.0.1:{free_port()}")
        yield Subject(provider=provider, unreachable=unreachable, sandbox=sandbox, **TOKENS, **methods)
        await provider.close()
        await unreachable.close()


ADAPTERS: dict[str, Callable[[], AbstractAsyncContextManager[Subject]]] = {
    "sandbox": lambda: _subject(
        _sandbox_adapter, succeeds="tok_success", declined="tok_declined_insufficient_funds", needs_action="tok_3ds"
    ),
    "stripe": lambda: _subject(
        _stripe_adapter,
        succeeds="pm_card_visa",
        declined="pm_card_visa_chargeDeclinedInsufficientFunds",
        needs_action="pm_card_threeDSecure2Required",
    ),
}


@pytest.fixture(scope="module", params=ADAPTERS)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with ADAPTERS[request.param]() as made:
        yield made


def an_authorization(method: str) -> AuthorizeRequest:
    return AuthorizeRequest(
        reference=new_id(), order_id=new_id(), amount=AMOUNT, currency="EUR", payment_method=method, return_url="https://shop.example/back"
    )


async def ask(provider: PaymentProvider, request: Request, *, key: str = "") -> tuple[Observation, ...]:
    reference = new_id() if isinstance(request, ConfirmRequest) else request.reference
    return await provider.send(provider.prepare(request), idempotency_key=key or f"key-{reference}", reference=reference)


async def a_payment(subject: Subject) -> str:
    (authorized,) = await ask(subject.provider, an_authorization(subject.succeeds))
    return authorized.provider_payment_id


def a_capture(payment_id: str, amount: int, *, final: bool = False) -> CaptureRequest:
    return CaptureRequest(reference=new_id(), provider_payment_id=payment_id, amount=amount, currency="EUR", final=final)


def a_refund(payment_id: str, amount: int) -> RefundRequest:
    return RefundRequest(reference=new_id(), provider_payment_id=payment_id, amount=amount, currency="EUR", reason="returned")


def of(observations: tuple[Observation, ...], operation: Operation) -> list[tuple[TransactionStatus, int]]:
    return [(o.status, o.amount) for o in observations if o.operation is operation]


async def books(subject: Subject, payment_id: str, operation: Operation) -> list[tuple[TransactionStatus, int]]:
    """How the provider's books show a payment's operations of one kind."""
    found = await subject.provider.get_transaction(payment_id)
    assert found is not None
    return sorted(of(found.observations, operation))


async def found(subject: Subject, request: AuthorizeRequest | CaptureRequest | VoidRequest | RefundRequest) -> ProviderTransaction | None:
    """Look for what a request of ours did, as the resolver does."""
    kinds: dict[type, Operation] = {
        AuthorizeRequest: Operation.AUTHORIZE,
        CaptureRequest: Operation.CAPTURE,
        VoidRequest: Operation.VOID,
        RefundRequest: Operation.REFUND,
    }
    payment_id = None if isinstance(request, AuthorizeRequest) else request.provider_payment_id
    return await subject.provider.find_by_reference(request.reference, operation=kinds[type(request)], provider_payment_id=payment_id)


DONE = TransactionStatus.SUCCEEDED


class TestAuthorize:
    async def test_shows_our_reference_the_amount_and_the_providers_ids(self, subject: Subject) -> None:
        request = an_authorization(subject.succeeds)

        (seen,) = await ask(subject.provider, request)

        assert (seen.operation, seen.status, seen.amount, seen.currency) == (Operation.AUTHORIZE, DONE, AMOUNT, "EUR")
        assert seen.reference == request.reference
        assert seen.provider_payment_id
        assert seen.provider_txn_id
        assert seen.authorization_expires_at is not None

    async def test_the_same_key_is_one_effect(self, subject: Subject) -> None:
        request = an_authorization(subject.succeeds)

        assert await ask(subject.provider, request) == await ask(subject.provider, request)

    async def test_the_same_key_for_something_else_says_nothing_of_either(self, subject: Subject) -> None:
        request = an_authorization(subject.succeeds)
        await ask(subject.provider, request)

        with pytest.raises(IndeterminateResponse):
            await ask(subject.provider, msgspec.structs.replace(request, amount=AMOUNT + 1))

    async def test_the_same_request_is_always_the_same_bytes(self, subject: Subject) -> None:
        request = an_authorization(subject.succeeds)

        assert subject.provider.prepare(request) == subject.provider.prepare(request)

    async def test_a_decline_has_its_code(self, subject: Subject) -> None:
        request = an_authorization(subject.declined)

        (seen,) = await ask(subject.provider, request)

        assert (seen.status, seen.decline_code, seen.reference) == (TransactionStatus.DECLINED, "insufficient_funds", request.reference)

    @pytest.mark.parametrize(("passed", "status"), [(True, DONE), (False, TransactionStatus.DECLINED)])
    async def test_a_customer_who_must_act_is_sent_somewhere_and_confirming_goes_on(
        self, subject: Subject, passed: bool, status: TransactionStatus
    ) -> None:
        (seen,) = await ask(subject.provider, an_authorization(subject.needs_action))
        (still,) = await ask(subject.provider, ConfirmRequest(provider_payment_id=seen.provider_payment_id))
        subject.act(seen.provider_payment_id, passed=passed)
        (after,) = await ask(subject.provider, ConfirmRequest(provider_payment_id=seen.provider_payment_id))

        assert (seen.status, still.status) == (TransactionStatus.PENDING, TransactionStatus.PENDING)
        assert seen.next_action is not None
        assert seen.next_action.url.startswith("http")
        assert after.status is status
        assert after.decline_code == (None if passed else "authentication_failed")

    async def test_an_unknown_payment_method_is_proven_not_executed(self, subject: Subject) -> None:
        (seen,) = await ask(subject.provider, an_authorization("nonsense"))

        assert seen.status is TransactionStatus.FAILED


class TestLater:
    async def test_captures_and_refunds_in_parts(self, subject: Subject) -> None:
        payment_id = await a_payment(subject)

        captured = [await ask(subject.provider, a_capture(payment_id, amount, final=amount == 3_000)) for amount in (4_000, 3_000)]
        refunded = [await ask(subject.provider, a_refund(payment_id, amount)) for amount in (1_000, 500)]

        assert [of(seen, Operation.CAPTURE)[-1] for seen in captured] == [(DONE, 4_000), (DONE, 3_000)]
        assert [(DONE, amount) in of(seen, Operation.REFUND) for seen, amount in zip(refunded, (1_000, 500), strict=True)] == [True, True]
        assert await books(subject, payment_id, Operation.CAPTURE) == [(DONE, 3_000), (DONE, 4_000)]
        assert await books(subject, payment_id, Operation.REFUND) == [(DONE, 500), (DONE, 1_000)]

    async def test_more_refunds_than_come_with_a_payment(self, subject: Subject) -> None:
        payment_id = await a_payment(subject)
        await ask(subject.provider, a_capture(payment_id, AMOUNT))

        for amount in range(1, 13):
            await ask(subject.provider, a_refund(payment_id, amount))

        assert await books(subject, payment_id, Operation.REFUND) == [(DONE, amount) for amount in range(1, 13)]

    async def test_voids(self, subject: Subject) -> None:
        payment_id = await a_payment(subject)
        request = VoidRequest(reference=new_id(), provider_payment_id=payment_id)

        seen = await ask(subject.provider, request)

        assert [(o.status, o.reference) for o in seen if o.operation is Operation.VOID] == [(DONE, request.reference)]
        assert [status for status, _ in await books(subject, payment_id, Operation.VOID)] == [DONE]

    async def test_voids_what_waits_for_its_customer(self, subject: Subject) -> None:
        (seen,) = await ask(subject.provider, an_authorization(subject.needs_action))

        after = await ask(subject.provider, VoidRequest(reference=new_id(), provider_payment_id=seen.provider_payment_id))

        assert [status for status, _ in of(after, Operation.VOID)] == [DONE]
        assert [status for status, _ in of(after, Operation.AUTHORIZE)] == [TransactionStatus.FAILED]

    @pytest.mark.parametrize("operation", ["capture", "refund"])
    async def test_more_than_there_is_is_proven_not_executed(self, subject: Subject, operation: str) -> None:
        payment_id = await a_payment(subject)
        if operation == "refund":
            await ask(subject.provider, a_capture(payment_id, AMOUNT))
        request = a_capture(payment_id, AMOUNT + 1) if operation == "capture" else a_refund(payment_id, AMOUNT + 1)

        (seen,) = await ask(subject.provider, request)

        assert (seen.status, seen.reference) == (TransactionStatus.FAILED, request.reference)

    async def test_a_refund_that_the_bank_does_not_take_is_declined(self, subject: Subject) -> None:
        (authorized,) = await ask(subject.provider, an_authorization(subject.refund_fails))
        await ask(subject.provider, a_capture(authorized.provider_payment_id, AMOUNT))

        seen = await ask(subject.provider, a_refund(authorized.provider_payment_id, 100))

        assert [(status in NO_MONEY, amount) for status, amount in of(seen, Operation.REFUND)] == [(True, 100)]

    @pytest.mark.parametrize("end", ["refund_succeed", "refund_fail", "refund_cancel"])
    async def test_a_refund_that_is_pending_ends_as_its_provider_says(self, subject: Subject, end: str) -> None:
        """C06: docs.stripe.com/refunds, pending while the balance does not cover it."""
        (authorized,) = await ask(subject.provider, an_authorization("tok_refund_pending"))
        payment_id = authorized.provider_payment_id
        await ask(subject.provider, a_capture(payment_id, AMOUNT))
        request = a_refund(payment_id, 100)

        seen = await ask(subject.provider, request)
        shown = await found(subject, request)
        subject.sandbox.books.settle_refund(subject.sandbox.books.get(payment_id), end, {})

        assert of(seen, Operation.REFUND) == [(TransactionStatus.PENDING, 100)]
        assert shown is not None
        assert of(shown.observations, Operation.REFUND) == [(TransactionStatus.PENDING, 100)]
        expected = DONE if end == "refund_succeed" else TransactionStatus.FAILED
        assert await books(subject, payment_id, Operation.REFUND) == [(expected, 100)]

    async def test_a_refund_that_fails_after_it_succeeded_is_shown_as_failed(self, subject: Subject) -> None:
        """C05: card 4000000000005126 (docs.stripe.com/testing, "Asynchronous failure")."""
        payment_id = await a_payment(subject)
        await ask(subject.provider, a_capture(payment_id, AMOUNT))

        seen = await ask(subject.provider, a_refund(payment_id, 100))
        subject.sandbox.books.settle_refund(subject.sandbox.books.get(payment_id), "refund_fail", {})

        assert of(seen, Operation.REFUND)[-1] == (DONE, 100)
        after = await subject.provider.get_transaction(payment_id)
        assert after is not None
        [refund] = [o for o in after.observations if o.operation is Operation.REFUND]
        assert (refund.status, refund.decline_code) == (TransactionStatus.FAILED, "expired_or_canceled_card")

    async def test_what_bears_no_reference_of_ours_is_found_by_the_providers_name_for_it(self, subject: Subject) -> None:
        """C07: a refund made in the dashboard."""
        payment_id = await a_payment(subject)
        await ask(subject.provider, a_capture(payment_id, AMOUNT))
        subject.in_the_dashboard(payment_id, "refund", 100)
        there = await subject.provider.get_transaction(payment_id)
        assert there is not None
        [name] = [o.provider_txn_id for o in there.observations if o.operation is Operation.REFUND]

        async def look(operation: Operation, txn: str | None) -> ProviderTransaction | None:
            return await subject.provider.find_by_reference(
                new_id(), operation=operation, provider_payment_id=payment_id, provider_txn_id=txn
            )

        assert await look(Operation.REFUND, name) == there
        assert [await look(Operation.REFUND, txn) for txn in ("re_other", None)] == [None, None]
        assert await look(Operation.CHARGEBACK, name) is None

    async def test_what_is_done_in_the_dashboard_shows_in_the_books(self, subject: Subject) -> None:
        payment_id = await a_payment(subject)
        await ask(subject.provider, a_capture(payment_id, 6_000))

        subject.in_the_dashboard(payment_id, "capture", 2_500)
        subject.in_the_dashboard(payment_id, "refund", 700)
        subject.in_the_dashboard(payment_id, "chargeback", 300)

        assert await books(subject, payment_id, Operation.CAPTURE) == [(DONE, 2_500), (DONE, 6_000)]
        assert await books(subject, payment_id, Operation.REFUND) == [(DONE, 700)]
        assert await books(subject, payment_id, Operation.CHARGEBACK) == [(DONE, 300)]
        assert await books(subject, payment_id, Operation.CHARGEBACK_REVERSAL) == []

        subject.in_the_dashboard(payment_id, "chargeback_reversal", 300)

        assert await books(subject, payment_id, Operation.CHARGEBACK_REVERSAL) == [(DONE, 300)]


class TestSilence:
    async def test_after_the_request_left_is_no_answer_and_the_payment_is_found_by_our_reference(self, subject: Subject) -> None:
        request = an_authorization(subject.silent)

        with pytest.raises(NoAnswer):
            await ask(subject.provider, request)
        seen = await found(subject, request)

        assert seen is not None
        assert of(seen.observations, Operation.AUTHORIZE) == [(DONE, AMOUNT)]

    async def test_before_it_left_is_not_sent_and_every_try_is_recorded(self, subject: Subject) -> None:
        with recorded() as calls, pytest.raises(NotSent):
            await ask(subject.unreachable, an_authorization(subject.succeeds))

        assert {call.classification for call in calls} == {"not_sent"}
        assert [call.attempt for call in calls] == [1, 2, 3]

    async def test_a_failure_of_the_provider_is_no_outcome(self, subject: Subject) -> None:
        request = an_authorization(subject.fails_once)

        with pytest.raises(IndeterminateResponse):
            await ask(subject.provider, request)

        assert await found(subject, request) is None

    async def test_a_busy_provider_says_when_to_come_back(self, subject: Subject) -> None:
        request = an_authorization(subject.busy_once)

        with pytest.raises(IndeterminateResponse) as busy:
            await ask(subject.provider, request)
        (seen,) = await ask(subject.provider, request)

        assert busy.value.retry_after_seconds == 1
        assert seen.status is DONE


class TestBooks:
    async def test_a_payment_is_found_by_any_reference_of_ours(self, subject: Subject) -> None:
        payment_id = await a_payment(subject)
        capture = a_capture(payment_id, 1_000)
        await ask(subject.provider, capture)
        refund = a_refund(payment_id, 300)
        await ask(subject.provider, refund)

        by_capture, by_refund = await found(subject, capture), await found(subject, refund)

        assert by_capture == by_refund == await subject.provider.get_transaction(payment_id)

    async def test_a_void_is_found_by_its_reference(self, subject: Subject) -> None:
        request = VoidRequest(reference=new_id(), provider_payment_id=await a_payment(subject))

        before = await found(subject, request)
        await ask(subject.provider, request)
        after = await found(subject, request)

        assert before is None
        assert after is not None
        assert [o.reference for o in after.observations if o.operation is Operation.VOID] == [request.reference]

    async def test_what_is_not_there_is_nothing(self, subject: Subject) -> None:
        payment_id = await a_payment(subject)

        assert await found(subject, an_authorization(subject.succeeds)) is None
        assert await found(subject, a_capture(payment_id, 1)) is None
        assert await found(subject, a_refund(payment_id, 1)) is None
        assert await subject.provider.get_transaction("pay_nowhere") is None

    async def test_are_paged_by_time(self, subject: Subject) -> None:
        payment_id, now = await a_payment(subject), datetime.now(UTC)

        page = await subject.provider.list_transactions(since=now - timedelta(hours=1), until=now + timedelta(hours=1), cursor=None)
        before = await subject.provider.list_transactions(since=now - timedelta(hours=2), until=now - timedelta(hours=1), cursor=None)

        assert payment_id in {t.provider_payment_id for t in page.transactions}
        assert (before.transactions, before.next) == ((), None)

    async def test_pages_follow_each_other_without_a_gap(self, subject: Subject) -> None:
        for payment_id in [await a_payment(subject) for _ in range(3)]:
            payment = subject.sandbox.books.get(payment_id)
            for n in range(70):
                copy = msgspec.structs.replace(
                    payment, id=f"{payment.id.split('_')[0]}_{new_id().hex}", operations=list(payment.operations)
                )
                copy.metadata = {**copy.metadata, "copy": str(n)}
                subject.sandbox.books.keep(copy)
        now, seen, cursor, pages = datetime.now(UTC), [], None, 0
        while pages == 0 or cursor is not None:
            page = await subject.provider.list_transactions(since=now - timedelta(hours=1), until=now + timedelta(hours=1), cursor=cursor)
            seen += [t.provider_payment_id for t in page.transactions]
            cursor, pages = page.next, pages + 1

        mine = [p for p in subject.sandbox.books.payments if p.split("_")[0] == seen[0].split("_")[0]]
        assert pages > 2
        assert sorted(seen) == sorted(mine)
