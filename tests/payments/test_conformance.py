"""What every payment provider's adapter must do; a new adapter joins by a row in ADAPTERS."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from deploy.state import free_port
from services.payments.domain.intents import Observation, Operation, TransactionStatus
from services.payments.providers import (
    AuthorizeRequest,
    CaptureRequest,
    ConfirmRequest,
    PaymentProvider,
    RefundRequest,
    Request,
    VoidRequest,
)
from services.payments.providers.sandbox import SandboxPayments
from shared.http_client import NoAnswer, NotSent, recorded
from shared.ids import new_id
from tests.world import SANDBOX_KEY, a_sandbox

AMOUNT = 10_000


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter, the same one facing nobody, and the payment methods that bring its provider to each answer."""

    provider: PaymentProvider
    unreachable: PaymentProvider
    succeeds: str
    declined: str
    needs_action: str
    silent: str


def _sandbox_adapter(url: str) -> SandboxPayments:
    return SandboxPayments(base_url=url, api_key=SANDBOX_KEY, timeout_seconds=0.5)


@contextlib.asynccontextmanager
async def _sandbox() -> AsyncIterator[Subject]:
    async with a_sandbox() as sandbox:
        provider, unreachable = _sandbox_adapter(sandbox.base_url), _sandbox_adapter(f"http://127.0.0.1:{free_port()}")
        yield Subject(
            provider=provider,
            unreachable=unreachable,
            succeeds="tok_success",
            declined="tok_declined_insufficient_funds",
            needs_action="tok_3ds_passed",
            silent="tok_timeout_after_success",
        )
        await provider.close()
        await unreachable.close()


ADAPTERS: dict[str, Callable[[], AbstractAsyncContextManager[Subject]]] = {"sandbox": _sandbox}


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


def of(observations: tuple[Observation, ...], operation: Operation) -> list[tuple[TransactionStatus, int]]:
    return [(o.status, o.amount) for o in observations if o.operation is operation]


class TestAuthorize:
    async def test_shows_our_reference_the_amount_and_the_providers_ids(self, subject: Subject) -> None:
        request = an_authorization(subject.succeeds)

        (seen,) = await ask(subject.provider, request)

        assert (seen.operation, seen.status, seen.amount, seen.currency) == (
            Operation.AUTHORIZE,
            TransactionStatus.SUCCEEDED,
            AMOUNT,
            "EUR",
        )
        assert seen.reference == request.reference
        assert seen.provider_payment_id
        assert seen.provider_txn_id
        assert seen.authorization_expires_at is not None

    async def test_the_same_key_is_one_effect(self, subject: Subject) -> None:
        request = an_authorization(subject.succeeds)

        assert await ask(subject.provider, request) == await ask(subject.provider, request)

    async def test_the_same_request_is_always_the_same_bytes(self, subject: Subject) -> None:
        request = an_authorization(subject.succeeds)

        assert subject.provider.prepare(request) == subject.provider.prepare(request)

    async def test_a_decline_has_its_code(self, subject: Subject) -> None:
        (seen,) = await ask(subject.provider, an_authorization(subject.declined))

        assert (seen.status, seen.decline_code) == (TransactionStatus.DECLINED, "insufficient_funds")

    async def test_a_customer_who_must_act_is_sent_somewhere_and_confirming_goes_on(self, subject: Subject) -> None:
        (seen,) = await ask(subject.provider, an_authorization(subject.needs_action))
        (after,) = await ask(subject.provider, ConfirmRequest(provider_payment_id=seen.provider_payment_id))

        assert seen.status is TransactionStatus.PENDING
        assert seen.next_action is not None
        assert after.status is TransactionStatus.SUCCEEDED


class TestLater:
    async def test_captures_and_refunds_in_parts(self, subject: Subject) -> None:
        payment_id = await a_payment(subject)

        await ask(subject.provider, a_capture(payment_id, 4_000))
        await ask(subject.provider, a_capture(payment_id, 3_000, final=True))
        refund = RefundRequest(reference=new_id(), provider_payment_id=payment_id, amount=1_000, currency="EUR", reason="returned")
        seen = await ask(subject.provider, refund)

        done = TransactionStatus.SUCCEEDED
        assert of(seen, Operation.CAPTURE) == [(done, 4_000), (done, 3_000)]
        assert of(seen, Operation.REFUND) == [(done, 1_000)]

    async def test_voids(self, subject: Subject) -> None:
        payment_id = await a_payment(subject)

        seen = await ask(subject.provider, VoidRequest(reference=new_id(), provider_payment_id=payment_id))

        assert [status for status, _ in of(seen, Operation.VOID)] == [TransactionStatus.SUCCEEDED]

    async def test_more_than_is_held_is_proven_not_executed(self, subject: Subject) -> None:
        request = a_capture(await a_payment(subject), AMOUNT + 1)

        (seen,) = await ask(subject.provider, request)

        assert (seen.status, seen.reference) == (TransactionStatus.FAILED, request.reference)


class TestSilence:
    async def test_after_the_request_left_is_no_answer_and_the_payment_is_found_by_our_reference(self, subject: Subject) -> None:
        request = an_authorization(subject.silent)

        with pytest.raises(NoAnswer):
            await ask(subject.provider, request)
        found = await subject.provider.find_by_reference(request.reference)

        assert found is not None
        assert of(found.observations, Operation.AUTHORIZE) == [(TransactionStatus.SUCCEEDED, AMOUNT)]

    async def test_before_it_left_is_not_sent_and_every_try_is_recorded(self, subject: Subject) -> None:
        with recorded() as calls, pytest.raises(NotSent):
            await ask(subject.unreachable, an_authorization(subject.succeeds))

        assert {call.classification for call in calls} == {"not_sent"}
        assert [call.attempt for call in calls] == [1, 2, 3]


class TestBooks:
    async def test_a_payment_is_found_by_any_reference_of_ours(self, subject: Subject) -> None:
        payment_id = await a_payment(subject)
        request = a_capture(payment_id, 1_000)
        await ask(subject.provider, request)

        found = await subject.provider.find_by_reference(request.reference)

        assert found is not None
        assert found.provider_payment_id == payment_id
        assert found == await subject.provider.get_transaction(payment_id)

    async def test_what_is_not_there_is_nothing(self, subject: Subject) -> None:
        assert await subject.provider.find_by_reference(new_id()) is None
        assert await subject.provider.get_transaction("pay_nowhere") is None

    async def test_are_paged_by_time(self, subject: Subject) -> None:
        payment_id, now = await a_payment(subject), datetime.now(UTC)

        page = await subject.provider.list_transactions(since=now - timedelta(hours=1), until=now + timedelta(hours=1), cursor=None)
        before = await subject.provider.list_transactions(since=now - timedelta(hours=2), until=now - timedelta(hours=1), cursor=None)

        assert payment_id in {t.provider_payment_id for t in page.transactions}
        assert (before.transactions, before.next) == ((), None)
