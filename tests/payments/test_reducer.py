"""The reducer in memory: any order and any number of repeats end the same; amounts are the fold; guards hold."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payments.domain import guards, intents
from services.payments.domain.intents import (
    Intent,
    IntentStatus,
    Observation,
    Operation,
    Source,
    Transaction,
    TransactionStatus,
)
from shared.contracts.payments import NextAction
from shared.errors import Refusal
from shared.ids import new_id

AMOUNT = 10_000
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def an_intent(**facts: object) -> Intent:
    whole = Intent(
        id=new_id(),
        order_id=new_id(),
        snapshot_id=new_id(),
        provider="sandbox",
        provider_account="sandbox:default",
        currency="EUR",
        requested_amount=AMOUNT,
        created_at=NOW,
        updated_at=NOW,
    )
    return msgspec.structs.replace(whole, **facts)


def an_authorization(status: TransactionStatus = TransactionStatus.PENDING, **facts: object) -> Transaction:
    whole = Transaction(id=new_id(), operation=Operation.AUTHORIZE, amount=AMOUNT, status=status)
    return msgspec.structs.replace(whole, **facts)


def seen(
    operation: Operation, amount: int, *, txn: str, status: TransactionStatus = TransactionStatus.SUCCEEDED, **facts: object
) -> Observation:
    whole = Observation(operation=operation, status=status, amount=amount, currency="EUR", provider_payment_id="pay_1", provider_txn_id=txn)
    return msgspec.structs.replace(whole, **facts)


def ids(count: int) -> list[UUID]:
    return [new_id() for _ in range(count)]


def told(intent: Intent, rows: tuple[Transaction, ...], observations: list[Observation]) -> tuple[Intent, tuple[Transaction, ...]]:
    """Hear observations one by one."""
    for observation in observations:
        applied = intents.observe(intent, rows, [observation], source=Source.WEBHOOK, ids=ids(1))
        intent, rows = applied.intent, applied.transactions
    return intent, rows


def what_matters(intent: Intent, rows: tuple[Transaction, ...]) -> object:
    ledger = sorted((t.operation, t.provider_txn_id or "", t.status, t.processed_amount or 0, t.contradicted) for t in rows)
    amounts = (intent.authorized_amount, intent.captured_amount, intent.refunded_amount, intent.voided_amount, intent.charged_back_amount)
    return intent.status, amounts, intent.attention is None, ledger


OUTCOMES = st.sampled_from([TransactionStatus.PENDING, TransactionStatus.DECLINED, TransactionStatus.FAILED, TransactionStatus.SUCCEEDED])
STORIES = st.lists(
    st.builds(
        lambda operation, amount, number, status: seen(operation, amount, txn=f"{operation.value}_{number}", status=status),
        st.sampled_from([operation for operation in Operation if operation is not Operation.AUTHORIZE]),
        st.sampled_from([1_000, 4_000, 6_000, AMOUNT]),
        st.integers(0, 2),
        OUTCOMES,
    ),
    max_size=6,
)


class TestOrder:
    @given(story=STORIES, data=st.data())
    def test_never_changes_the_end(self, story: list[Observation], data: st.DataObject) -> None:
        # One provider id has one amount, as at a provider.
        amounts = {o.provider_txn_id: o.amount for o in story}
        story = [msgspec.structs.replace(o, amount=amounts[o.provider_txn_id]) for o in story]
        authorization = an_authorization()
        story.append(seen(Operation.AUTHORIZE, AMOUNT, txn="aut_1", reference=authorization.id))
        intent = an_intent()
        shuffled = data.draw(st.permutations(story)) + data.draw(st.lists(st.sampled_from(story), max_size=4))

        one = told(intent, (authorization,), story)
        other = told(intent, (authorization,), shuffled)

        assert what_matters(*one) == what_matters(*other)

    @given(story=STORIES)
    def test_amounts_are_always_the_fold(self, story: list[Observation]) -> None:
        authorized = (an_authorization(TransactionStatus.SUCCEEDED),)
        intent, rows = told(intents.fold(an_intent(), authorized), authorized, story)

        assert intents.fold(intent, rows) == intent
        assert intent.captured_amount == sum(t.moved for t in rows if t.operation is Operation.CAPTURE)

    @given(story=STORIES, asked=st.integers(1, 2 * AMOUNT))
    def test_no_guard_lets_more_out_than_is_there(self, story: list[Observation], asked: int) -> None:
        intent, _ = told(an_intent(), (an_authorization(TransactionStatus.SUCCEEDED),), story)

        for decide, taken, limit in (
            (guards.amount_to_capture, intent.captured_amount + intent.voided_amount, intent.authorized_amount),
            (guards.amount_to_refund, intent.refunded_amount + intent.charged_back_amount, intent.captured_amount),
        ):
            try:
                amount = decide(intent, asked, None)
            except Refusal:
                continue
            assert taken + amount <= limit


class TestFacts:
    def test_an_excess_is_a_fact_and_a_conflict(self) -> None:
        rows = (an_authorization(TransactionStatus.SUCCEEDED),)

        intent, _ = told(an_intent(), rows, [seen(Operation.CAPTURE, AMOUNT + 1, txn="c1")])

        assert (intent.status, intent.captured_amount) == (IntentStatus.CONFLICTED, AMOUNT + 1)

    def test_a_refund_before_its_capture_heals_when_the_capture_comes(self) -> None:
        rows: tuple[Transaction, ...] = (an_authorization(TransactionStatus.SUCCEEDED),)

        early, rows = told(an_intent(), rows, [seen(Operation.REFUND, 1_000, txn="r1")])
        late, _ = told(early, rows, [seen(Operation.CAPTURE, AMOUNT, txn="c1")])

        assert (early.status, late.status) == (IntentStatus.CONFLICTED, IntentStatus.PARTIALLY_REFUNDED)

    @pytest.mark.parametrize("status", [TransactionStatus.PENDING, TransactionStatus.SUCCEEDED])
    @pytest.mark.parametrize("other", ["AUD", "USD"])
    def test_another_currency_is_a_conflict(self, other: str, status: TransactionStatus) -> None:
        rows = (an_authorization(TransactionStatus.SUCCEEDED),)

        intent, _ = told(an_intent(), rows, [seen(Operation.CAPTURE, 1_000, txn="c1", currency=other, status=status)])

        assert intent.status is IntentStatus.CONFLICTED

    @pytest.mark.parametrize("first", [TransactionStatus.SUCCEEDED, TransactionStatus.DECLINED])
    def test_two_different_words_about_one_thing_are_a_conflict_whichever_came_first(self, first: TransactionStatus) -> None:
        authorization = an_authorization()
        second = TransactionStatus.DECLINED if first is TransactionStatus.SUCCEEDED else TransactionStatus.SUCCEEDED
        story = [seen(Operation.AUTHORIZE, AMOUNT, txn="a1", status=s, reference=authorization.id) for s in (first, second)]

        intent, rows = told(an_intent(), (authorization,), story)

        assert intent.status is IntentStatus.CONFLICTED
        assert rows[0].status is TransactionStatus.SUCCEEDED

    def test_an_observation_during_the_call_counts_once(self) -> None:
        capture = Transaction(id=new_id(), operation=Operation.CAPTURE, amount=4_000, status=TransactionStatus.PENDING)
        rows: tuple[Transaction, ...] = (an_authorization(TransactionStatus.SUCCEEDED), capture)
        observation = seen(Operation.CAPTURE, 4_000, txn="c1", reference=capture.id)

        intent, rows = told(an_intent(), rows, [observation, observation, msgspec.structs.replace(observation, reference=None)])

        assert (intent.captured_amount, intent.capture_reserved, len(rows)) == (4_000, 0, 2)

    def test_an_inactive_intent_never_holds_its_order_again(self) -> None:
        authorization = an_authorization(TransactionStatus.DECLINED)
        declined = intents.fold(an_intent(), [authorization])

        late, _ = told(declined, (authorization,), [seen(Operation.AUTHORIZE, AMOUNT, txn="a1", reference=authorization.id)])

        assert (declined.holds_order, late.status, late.holds_order) == (False, IntentStatus.CONFLICTED, False)

    def test_a_release_ends_an_authorization_that_waited_for_its_customer(self) -> None:
        authorization = an_authorization(awaiting_customer=True)

        intent, rows = told(an_intent(), (authorization,), [seen(Operation.VOID, 0, txn="v1")])

        assert (intent.status, rows[0].status) == (IntentStatus.VOIDED, TransactionStatus.FAILED)

    def test_what_was_refunded_while_more_is_held_can_still_be_captured(self) -> None:
        rows = (an_authorization(TransactionStatus.SUCCEEDED),)
        story = [seen(Operation.CAPTURE, 4_000, txn="c1"), seen(Operation.REFUND, 4_000, txn="r1")]

        intent, _ = told(an_intent(), rows, story)

        assert (intent.status, guards.amount_to_capture(intent, None, None)) == (IntentStatus.PARTIALLY_REFUNDED, 6_000)

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_a_dispute_that_was_won_gives_the_money_back_whatever_came_first(self, order: tuple[int, int]) -> None:
        rows = (an_authorization(TransactionStatus.SUCCEEDED),)
        story = [seen(Operation.CAPTURE, AMOUNT, txn="c1")]
        dispute = [seen(Operation.CHARGEBACK, 6_000, txn="d1"), seen(Operation.CHARGEBACK_REVERSAL, 6_000, txn="d1")]

        intent, _ = told(an_intent(), rows, story + [dispute[n] for n in order])

        assert (intent.status, intent.charged_back_amount, intent.refundable) == (IntentStatus.CAPTURED, 0, AMOUNT)

    def test_a_void_that_is_but_the_end_of_its_payment_is_ours_when_ours_is_under_way(self) -> None:
        void = Transaction(id=new_id(), operation=Operation.VOID, amount=AMOUNT, status=TransactionStatus.UNKNOWN)
        end = msgspec.structs.replace(seen(Operation.VOID, AMOUNT, txn="pay_1"), provider_payment_id="pay_1")

        intent, rows = told(an_intent(), (an_authorization(TransactionStatus.SUCCEEDED), void), [end, end])

        assert (intent.status, [t.status for t in rows]) == (IntentStatus.VOIDED, [TransactionStatus.SUCCEEDED] * 2)

    def test_a_void_with_a_name_of_its_own_is_not_ours(self) -> None:
        void = Transaction(id=new_id(), operation=Operation.VOID, amount=AMOUNT, status=TransactionStatus.UNKNOWN)
        lapsed = msgspec.structs.replace(seen(Operation.VOID, AMOUNT, txn="voi_1"), provider_payment_id="pay_1")

        _, rows = told(an_intent(), (an_authorization(TransactionStatus.SUCCEEDED), void), [lapsed])

        assert [t.status for t in rows if t.operation is Operation.VOID] == [TransactionStatus.UNKNOWN, TransactionStatus.SUCCEEDED]

    def test_a_void_that_has_ended_is_not_taken_for_another(self) -> None:
        void = Transaction(id=new_id(), operation=Operation.VOID, amount=AMOUNT, status=TransactionStatus.FAILED)
        end = msgspec.structs.replace(seen(Operation.VOID, AMOUNT, txn="pay_1"), provider_payment_id="pay_1")

        intent, rows = told(an_intent(), (an_authorization(TransactionStatus.SUCCEEDED), void), [end])

        assert (intent.status, len(rows), rows[1].contradicted) == (IntentStatus.VOIDED, 3, False)

    @pytest.mark.parametrize(("source", "waits"), [(Source.WEBHOOK, False), (Source.API, True), (Source.JOB, True)])
    def test_an_old_word_of_waiting_does_not_undo_that_the_customer_has_acted(self, source: Source, waits: bool) -> None:
        authorization = an_authorization(confirming=True)
        action = NextAction(type="redirect", url="https://bank.example/3ds")
        waiting = msgspec.structs.replace(
            seen(Operation.AUTHORIZE, AMOUNT, txn="a1", status=TransactionStatus.PENDING, reference=authorization.id), next_action=action
        )

        applied = intents.observe(an_intent(), (authorization,), [waiting], source=source, ids=ids(1))

        assert applied.transactions[0].awaiting_customer is waits
