"""From a ledger to where its payment stands: one row for each shape, with everything that is left to do."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payments.domain import guards, intents
from services.payments.domain.intents import Intent, IntentStatus, Observation, Operation, Reason, Source, Transaction, TransactionStatus
from shared.contracts.payments import NextAction
from shared.errors import Refusal
from shared.ids import new_id
from tests.payments.test_reducer import AMOUNT, NOW, STORIES, an_authorization, an_intent, told

ACTION = NextAction(type="redirect", url="https://bank.example/3ds")
LATER = NextAction(type="redirect", url="https://bank.example/again")


def row(operation: str, amount: int, status: str = "succeeded", **facts: Any) -> Transaction:
    return Transaction(id=new_id(), operation=Operation(operation), amount=amount, status=TransactionStatus(status), **facts)


HELD = row("authorize", AMOUNT)

# The ledger; then status, what may be captured, refunded, released, and what is reserved for either.
SHAPES: list[tuple[str, list[Transaction], str, tuple[int, int, int, int, int]]] = [
    ("nothing yet", [row("authorize", AMOUNT, "pending")], "processing", (0, 0, 0, 0, 0)),
    ("not known yet", [row("authorize", AMOUNT, "unknown")], "processing", (0, 0, 0, 0, 0)),
    ("waiting", [row("authorize", AMOUNT, "pending", awaiting_customer=True)], "requires_action", (0, 0, 0, 0, 0)),
    ("declined", [row("authorize", AMOUNT, "declined")], "declined", (0, 0, 0, 0, 0)),
    ("not executed", [row("authorize", AMOUNT, "failed")], "declined", (0, 0, 0, 0, 0)),
    ("held", [HELD], "authorized", (AMOUNT, 0, AMOUNT, 0, 0)),
    ("one held", [row("authorize", 1)], "authorized", (1, 0, 1, 0, 0)),
    ("a capture under way", [HELD, row("capture", 4_000, "pending")], "authorized", (6_000, 0, AMOUNT, 4_000, 0)),
    ("all of it under way", [HELD, row("capture", AMOUNT, "unknown")], "authorized", (0, 0, AMOUNT, AMOUNT, 0)),
    ("a part captured", [HELD, row("capture", 4_000)], "partially_captured", (6_000, 4_000, 6_000, 0, 0)),
    ("captured in two", [HELD, row("capture", 4_000), row("capture", 6_000)], "captured", (0, AMOUNT, 0, 0, 0)),
    ("a declined capture", [HELD, row("capture", 4_000, "declined")], "authorized", (AMOUNT, 0, AMOUNT, 0, 0)),
    ("the rest let go", [HELD, row("capture", 4_000), row("void", 6_000)], "captured", (0, 4_000, 0, 0, 0)),
    ("a last capture", [HELD, row("capture", 4_000, final=True)], "captured", (0, 4_000, 0, 0, 0)),
    ("a last capture of all", [HELD, row("capture", AMOUNT, final=True)], "captured", (0, AMOUNT, 0, 0, 0)),
    ("a last capture declined", [HELD, row("capture", 4_000, "declined", final=True)], "authorized", (AMOUNT, 0, AMOUNT, 0, 0)),
    ("let go", [HELD, row("void", AMOUNT)], "voided", (0, 0, 0, 0, 0)),
    ("a void declined", [HELD, row("void", AMOUNT, "declined")], "authorized", (AMOUNT, 0, AMOUNT, 0, 0)),
    ("lapsed", [HELD, row("void", AMOUNT, reason=Reason.EXPIRED.value)], "expired", (0, 0, 0, 0, 0)),
    ("let go for its own reason", [HELD, row("void", AMOUNT, reason="requested_by_customer")], "voided", (0, 0, 0, 0, 0)),
    ("lapsing failed", [HELD, row("void", AMOUNT), row("void", 0, "failed", reason="expired")], "voided", (0, 0, 0, 0, 0)),
    ("a refund under way", [HELD, row("capture", AMOUNT), row("refund", 1, "pending")], "captured", (0, AMOUNT - 1, 0, 0, 1)),
    ("a refund of one", [HELD, row("capture", AMOUNT), row("refund", 1)], "partially_refunded", (0, AMOUNT - 1, 0, 0, 0)),
    ("all refunded", [HELD, row("capture", AMOUNT), row("refund", AMOUNT)], "refunded", (0, 0, 0, 0, 0)),
    ("charged back", [HELD, row("capture", AMOUNT), row("chargeback", AMOUNT)], "refunded", (0, 0, 0, 0, 0)),
    ("charged back and won", [HELD, row("capture", AMOUNT), row("chargeback", 4_000), row("chargeback_reversal", 4_000)], "captured",
     (0, AMOUNT, 0, 0, 0)),
    ("won for less", [HELD, row("capture", AMOUNT), row("chargeback", 4_000), row("chargeback_reversal", 1_000)], "partially_refunded",
     (0, 7_000, 0, 0, 0)),
    ("won before it was lost", [HELD, row("capture", AMOUNT), row("chargeback_reversal", 1_000)], "captured", (0, AMOUNT, 0, 0, 0)),
    ("refunded, more held", [HELD, row("capture", 4_000), row("refund", 4_000)], "partially_refunded", (6_000, 0, 6_000, 0, 0)),
    ("less done than asked", [HELD, row("capture", 4_000, processed_amount=3_999)], "conflicted", (6_001, 3_999, 6_001, 0, 0)),
    ("more done than asked", [HELD, row("capture", 4_000, processed_amount=4_001)], "conflicted", (5_999, 4_001, 5_999, 0, 0)),
    ("less seen in passing", [HELD, row("capture", 4_000, processed_amount=3_999, source=Source.WEBHOOK)], "partially_captured",
     (6_001, 3_999, 6_001, 0, 0)),
    ("a void of another amount", [HELD, row("void", AMOUNT, processed_amount=1)], "voided", (0, 0, 0, 0, 0)),
    ("contradicted", [row("authorize", AMOUNT, contradicted=True)], "conflicted", (AMOUNT, 0, AMOUNT, 0, 0)),
    ("contradicted and let go", [row("authorize", AMOUNT, contradicted=True), row("void", AMOUNT)], "voided", (0, 0, 0, 0, 0)),
    ("contradicted, taken, given back and the rest let go",
     [row("authorize", AMOUNT, contradicted=True), row("capture", 5), row("refund", 5), row("void", AMOUNT - 5)], "conflicted",
     (0, 0, 0, 0, 0)),
    ("refunded before its capture", [HELD, row("refund", 1)], "conflicted", (AMOUNT, 0, AMOUNT, 0, 0)),
    ("that and let go", [HELD, row("refund", 1), row("void", AMOUNT)], "conflicted", (0, 0, 0, 0, 0)),
    ("captured too much", [HELD, row("capture", AMOUNT + 1)], "conflicted", (0, AMOUNT + 1, 0, 0, 0)),
    ("captured too much and let go", [HELD, row("capture", AMOUNT + 1), row("void", 0)], "conflicted", (0, AMOUNT + 1, 0, 0, 0)),
    ("crowded out", [HELD, row("capture", 1), row("capture", AMOUNT, "pending")], "conflicted", (0, 1, AMOUNT - 1, AMOUNT, 0)),
    ("just not crowded out", [HELD, row("capture", 1), row("capture", AMOUNT - 1, "pending")], "partially_captured",
     (0, 1, AMOUNT - 1, AMOUNT - 1, 0)),
    ("a refund crowded out", [HELD, row("capture", 5), row("refund", 3), row("refund", 3, "pending")], "conflicted",
     (AMOUNT - 5, 0, AMOUNT - 5, 0, 3)),
    ("a refund of one crowded out", [HELD, row("capture", 5), row("refund", 5), row("refund", 1, "pending")], "conflicted",
     (AMOUNT - 5, 0, AMOUNT - 5, 0, 1)),
    ("a refund just not", [HELD, row("capture", 5), row("refund", 3), row("refund", 2, "pending")], "partially_refunded",
     (AMOUNT - 5, 0, AMOUNT - 5, 0, 2)),
]  # fmt: skip


def as_it_stands(intent: Intent) -> tuple[str, tuple[int, int, int, int, int]]:
    left = (intent.capturable, intent.refundable, intent.held, intent.capture_reserved, intent.refund_reserved)
    return intent.status.value, left


@pytest.mark.parametrize(("what", "rows", "status", "left"), SHAPES, ids=[shape[0] for shape in SHAPES])
def test_a_ledger_is_where_its_payment_stands(
    what: str, rows: list[Transaction], status: str, left: tuple[int, int, int, int, int]
) -> None:
    forwards, backwards = intents.fold(an_intent(), rows), intents.fold(an_intent(), rows[::-1])

    assert as_it_stands(forwards) == as_it_stands(backwards) == (status, left)
    if status != "conflicted":
        assert forwards.authorized_amount == forwards.captured_amount + forwards.voided_amount + forwards.held
    assert forwards.voided_amount >= 0
    assert (forwards.attention is not None) == (status == "conflicted")
    assert forwards.holds_order == (IntentStatus(status) not in intents.INACTIVE)


CONTRADICTED = row("authorize", AMOUNT, contradicted=True)
# Ledgers that contradict themselves, and where the payment stands once that is accepted: status, capturable, refundable.
ACCEPTED: list[tuple[str, list[Transaction], str, tuple[int, int]]] = [
    ("less done than asked", [HELD, row("capture", 4_000, processed_amount=3_999)], "partially_captured", (6_001, 3_999)),
    ("more held than asked", [row("authorize", AMOUNT, processed_amount=AMOUNT + 5)], "authorized", (AMOUNT + 5, 0)),
    ("contradicted", [CONTRADICTED], "authorized", (AMOUNT, 0)),
    ("contradicted and captured", [CONTRADICTED, row("capture", AMOUNT, contradicted=True)], "captured", (0, AMOUNT)),
    ("refunded before its capture", [HELD, row("refund", 1)], "authorized", (AMOUNT, 0)),
    ("captured too much", [HELD, row("capture", AMOUNT + 1)], "captured", (0, AMOUNT + 1)),
    ("refunded and lost", [HELD, row("capture", AMOUNT), row("refund", 4_000), row("chargeback", AMOUNT)], "refunded", (0, 0)),
    ("refunded too much, more held", [HELD, row("capture", 1_000), row("refund", 1_001)], "partially_refunded", (9_000, 0)),
]  # fmt: skip


class TestAcceptance:
    @pytest.mark.parametrize(("what", "rows", "status", "left"), ACCEPTED, ids=[shape[0] for shape in ACCEPTED])
    def test_lets_the_status_follow_from_the_facts(self, what: str, rows: list[Transaction], status: str, left: tuple[int, int]) -> None:
        """F10."""
        frozen = intents.fold(an_intent(), rows)

        accepted = intents.accept(frozen, rows)

        assert frozen.status is IntentStatus.CONFLICTED
        assert (accepted.status.value, accepted.attention, accepted.overpaid_amount) == (status, None, 0)
        assert (accepted.capturable, accepted.refundable) == left
        assert intents.fold(accepted, rows[::-1]) == accepted

    @pytest.mark.parametrize(
        "more",
        [
            row("capture", 1), row("refund", 2 * AMOUNT), row("chargeback", 2 * AMOUNT), row("capture", 5, processed_amount=4),
            row("void", 0, contradicted=True),
        ],
        ids=["captured", "refunded", "disputed", "mismatched", "contradicted"],
    )  # fmt: skip
    def test_is_of_what_was_known(self, more: Transaction) -> None:
        rows = [HELD, row("capture", AMOUNT + 1)]

        accepted = intents.accept(intents.fold(an_intent(), rows), rows)

        assert intents.fold(accepted, [*rows, more]).status is IntentStatus.CONFLICTED

    def test_of_a_sum_is_not_of_other_facts_that_come_to_it(self) -> None:
        rows = [HELD, row("capture", AMOUNT), row("refund", 4_000), row("chargeback", AMOUNT)]
        accepted = intents.accept(intents.fold(an_intent(), rows), rows)
        won = [*rows, row("chargeback_reversal", AMOUNT)]

        assert intents.fold(accepted, won).status is IntentStatus.PARTIALLY_REFUNDED
        assert intents.fold(accepted, [*won, row("refund", AMOUNT)]).status is IntentStatus.CONFLICTED

    def test_lasts_when_less_is_off(self) -> None:
        rows = [HELD, row("capture", AMOUNT), row("refund", 4_000), row("chargeback", AMOUNT)]
        accepted = intents.accept(intents.fold(an_intent(), rows), rows)

        assert intents.fold(accepted, [*rows, row("chargeback_reversal", 1_000)]).attention is None

    def test_of_a_row_ends_when_it_moves_more(self) -> None:
        half = row("authorize", AMOUNT, processed_amount=5_000)
        accepted = intents.accept(intents.fold(an_intent(), [half]), [half])

        assert intents.fold(accepted, [msgspec.structs.replace(half, processed_amount=6_000)]).status is IntentStatus.CONFLICTED
        assert intents.fold(accepted, [msgspec.structs.replace(half, contradicted=True)]).status is IntentStatus.CONFLICTED

    @pytest.mark.parametrize(
        ("done", "under_way", "status"),
        [
            ([row("capture", 1)], row("capture", AMOUNT, "pending"), "partially_captured"),
            ([row("capture", AMOUNT), row("chargeback", AMOUNT)], row("refund", 400, "pending", provider_txn_id="re_1"), "refunded"),
        ],
        ids=["capture", "refund and dispute"],
    )
    def test_is_also_of_what_is_under_way(self, done: list[Transaction], under_way: Transaction, status: str) -> None:
        """F4, F10: a refund may be pending for days, and nothing freezes for so long; what comes of it is another fact."""
        rows = [HELD, *done, under_way]

        accepted = intents.accept(intents.fold(an_intent(), rows), rows)

        assert (accepted.status.value, accepted.attention, accepted.capturable) == (status, None, 0)
        succeeded = msgspec.structs.replace(under_way, status=TransactionStatus.SUCCEEDED)
        assert intents.fold(accepted, [HELD, *done, succeeded]).status is IntentStatus.CONFLICTED
        another = msgspec.structs.replace(under_way, id=new_id())
        assert intents.fold(accepted, [HELD, *done, another]).status is IntentStatus.CONFLICTED


class TestOverpayment:
    """F9: what was taken and the order does not owe."""

    @pytest.mark.parametrize(
        ("facts", "rows", "amount"),
        [
            ({}, [HELD, row("capture", AMOUNT)], 0),
            ({}, [row("authorize", AMOUNT + 5), row("capture", AMOUNT + 5)], 5),
            ({"requested_amount": AMOUNT - 5}, [HELD, row("capture", AMOUNT), row("refund", 2)], 3),
            ({"superseded": True}, [HELD], 0),
            ({"superseded": True}, [HELD, row("capture", 4_000)], 4_000),
            ({"superseded": True}, [HELD, row("capture", 4_000), row("refund", 1_000), row("refund", 500, "pending")], 3_000),
            ({"superseded": True}, [HELD, row("capture", 4_000), row("chargeback", 4_000)], 0),
            ({"superseded": True}, [HELD, row("capture", 4_000), row("chargeback", 4_000), row("chargeback_reversal", 4_000)], 4_000),
            ({"abandoned": True}, [HELD, row("capture", AMOUNT)], AMOUNT),
        ],
    )
    def test_is_what_is_left_of_it(self, facts: dict[str, Any], rows: list[Transaction], amount: int) -> None:
        intent = intents.fold(an_intent(**facts), rows)

        assert (intent.overpaid_amount, intent.attention is not None) == (amount, amount > 0)
        assert intent.status is not IntentStatus.CONFLICTED

    def test_holds_no_order_that_went_on(self) -> None:
        rows = [HELD, row("void", AMOUNT), row("capture", AMOUNT)]
        let_go = an_intent(holds_order=False)

        assert intents.fold(let_go, rows).holds_order
        assert not intents.fold(msgspec.structs.replace(let_go, superseded=True), rows).holds_order
        assert not intents.fold(msgspec.structs.replace(let_go, abandoned=True), rows).holds_order

    def test_that_is_accepted_is_none_until_more_is_taken(self) -> None:
        rows = [HELD, row("capture", 4_000)]
        kept = intents.accept(intents.fold(an_intent(superseded=True), rows), rows)

        assert kept.overpaid_amount == intents.fold(kept, [*rows, row("refund", 1_000)]).overpaid_amount == 0
        # As much as was accepted, and taken anew.
        assert intents.fold(kept, [*rows, row("refund", 1_000), row("capture", 1_000)]).overpaid_amount == 4_000

    @given(story=STORIES, data=st.data(), superseded=st.booleans(), early=st.integers(0, 6))
    def test_and_acceptance_end_the_same_in_any_order(
        self, story: list[Observation], data: st.DataObject, superseded: bool, early: int
    ) -> None:
        """F9, F10: what is told after something was accepted comes in any order and more than once."""
        amounts = {o.provider_txn_id: o.amount for o in story}
        story = [msgspec.structs.replace(o, amount=amounts[o.provider_txn_id]) for o in story]
        intent, rows = told(an_intent(superseded=superseded, holds_order=not superseded), (HELD,), story[:early])
        accepted = intents.accept(intent, rows)
        shuffled = data.draw(st.permutations(story[early:])) + data.draw(
            st.lists(st.sampled_from(story), max_size=4) if story else st.just([])
        )

        one, other = told(accepted, rows, story[early:])[0], told(accepted, rows, shuffled)[0]

        ends = [(i.status, i.attention is None, i.overpaid_amount, i.refunded_amount, i.captured_amount) for i in (one, other)]
        assert ends[0] == ends[1]
        if early >= len(story):
            assert one.status is not IntentStatus.CONFLICTED

    @pytest.mark.parametrize(("reserved", "available"), [(0, 5), (3, 2), (5, 0), (8, 0)])
    def test_is_given_back_once(self, reserved: int, available: int) -> None:
        rows = [row("authorize", AMOUNT + 5), row("capture", AMOUNT + 5), row("refund", reserved, "pending")]
        intent = intents.fold(an_intent(), rows)

        if available:
            assert guards.amount_to_give_back(intent, None, None) == available
        with pytest.raises(guards.AmountExceeded):
            guards.amount_to_give_back(intent, available + 1, None)


def test_a_payment_begins_with_nothing() -> None:
    new = an_intent()

    assert (new.authorized_amount, new.captured_amount, new.refunded_amount, new.voided_amount, new.charged_back_amount) == (0,) * 5
    assert (new.capture_reserved, new.refund_reserved, new.version) == (0, 0, 1)


def test_an_abandoned_payment_stays_abandoned_whatever_comes() -> None:
    intent = intents.fold(an_intent(abandoned=True), [HELD])

    assert (intent.status, intent.held, intent.holds_order) == (IntentStatus.ABANDONED, AMOUNT, False)


def told_to_wait(authorization: Transaction, action: NextAction, *, until: datetime = NOW) -> Observation:
    """The provider waits for its customer to do something, and holds so long what it may."""
    return Observation(
        operation=Operation.AUTHORIZE,
        status=TransactionStatus.PENDING,
        amount=AMOUNT,
        currency="EUR",
        provider_payment_id="pay_1",
        provider_txn_id="aut_1",
        reference=authorization.id,
        next_action=action,
        authorization_expires_at=until,
    )


class TestTheNextAction:
    def test_stands_while_the_customer_is_waited_for(self) -> None:
        waiting = row("authorize", AMOUNT, "pending", awaiting_customer=True)

        assert intents.fold(an_intent(next_action=ACTION), [waiting]).next_action == ACTION

    @pytest.mark.parametrize(
        "ended", [row("authorize", AMOUNT), row("authorize", AMOUNT, "pending"), row("authorize", AMOUNT, awaiting_customer=True)]
    )
    def test_goes_when_nobody_is(self, ended: Transaction) -> None:
        assert intents.fold(an_intent(next_action=ACTION), [ended]).next_action is None

    def test_is_the_last_one_told(self) -> None:
        authorization = an_authorization()
        heard = [told_to_wait(authorization, action) for action in (ACTION, LATER)]

        intent, rows = told(an_intent(), (authorization,), heard)
        again = intents.observe(intent, rows, [msgspec.structs.replace(heard[0], next_action=None)], source=Source.WEBHOOK, ids=[new_id()])

        assert (intent.status, intent.next_action, rows[0].awaiting_customer) == (IntentStatus.REQUIRES_ACTION, LATER, True)
        assert (again.intent.next_action, again.transactions[0].awaiting_customer) == (LATER, True)
        assert (intent.provider_payment_id, intent.authorization_expires_at) == ("pay_1", NOW)

    def test_and_its_last_day_also_are_the_last_when_several_are_told_at_once(self) -> None:
        authorization = an_authorization()
        heard = [told_to_wait(authorization, ACTION), told_to_wait(authorization, LATER, until=NOW + timedelta(days=1))]

        applied = intents.observe(an_intent(), (authorization,), heard, source=Source.WEBHOOK, ids=[new_id(), new_id()])

        assert (applied.intent.next_action, applied.intent.authorization_expires_at) == (LATER, NOW + timedelta(days=1))


class TestGuards:
    @pytest.mark.parametrize(("status", "code"), [("pending", "operation-in-progress"), ("unknown", "outcome-unknown")])
    def test_nothing_is_asked_beside_what_is_open(self, status: str, code: str) -> None:
        with pytest.raises(Refusal) as refused:
            guards.check_nothing_open([HELD, row("capture", 1, status)])

        assert refused.value.code == code
        assert refused.value.problem().retry_after_seconds == {"pending": 1, "unknown": 5}[status]

    def test_a_payment_that_waits_for_its_customer_is_not_open(self) -> None:
        guards.check_nothing_open([HELD, row("authorize", AMOUNT, "pending", awaiting_customer=True)])

    def test_a_key_finds_what_it_did_and_only_that(self) -> None:
        done = row("capture", 1_000, idempotency_key="k")
        rows = [HELD, done, row("refund", 1_000, idempotency_key="k"), row("capture", 2_000, "pending", idempotency_key="open")]

        assert guards.done_with_key(rows, Operation.CAPTURE, "k", 1_000) is done
        assert guards.done_with_key(rows, Operation.CAPTURE, "k", None) is done
        assert guards.done_with_key(rows, Operation.CAPTURE, "other", 1_000) is None
        assert guards.done_with_key(rows, Operation.CAPTURE, "another", 1_000) is None
        assert guards.done_with_key(rows, Operation.VOID, "k", None) is None
        with pytest.raises(guards.OperationInProgress):
            guards.done_with_key(rows, Operation.CAPTURE, "open", 2_000)
        with pytest.raises(guards.KeyUsed) as refused:
            guards.done_with_key(rows, Operation.CAPTURE, "k", 1_001)
        assert refused.value.problem().status == 422

    @pytest.mark.parametrize("amount", [0, -1, AMOUNT + 1])
    def test_no_more_than_is_there_and_no_less_than_one_is_captured(self, amount: int) -> None:
        with pytest.raises(guards.AmountExceeded):
            guards.amount_to_capture(intents.fold(an_intent(), [HELD]), amount, None)

    def test_a_capture_of_all_takes_what_the_order_owes_where_more_is_held(self) -> None:
        """C44: an authorization that was raised in the dashboard and accepted; more is captured by saying how much."""
        held = intents.fold(an_intent(), [row("authorize", AMOUNT + 5_000)])
        accepted = intents.accept(held, [row("authorize", AMOUNT + 5_000)])
        part = intents.fold(an_intent(), [HELD, row("capture", 4_000)])

        assert guards.amount_to_capture(msgspec.structs.replace(accepted, status=IntentStatus.AUTHORIZED), None, None) == AMOUNT
        assert guards.amount_to_capture(part, None, None) == AMOUNT - 4_000

    def test_a_void_takes_what_is_held_and_nothing_where_the_customer_is_waited_for(self) -> None:
        part = intents.fold(an_intent(), [HELD, row("capture", 4_000)])
        waiting = intents.fold(an_intent(), [row("authorize", AMOUNT, "pending", awaiting_customer=True)])
        refunded = intents.fold(an_intent(), [HELD, row("capture", AMOUNT), row("refund", 1)])

        assert (guards.amount_to_void(part), guards.amount_to_void(waiting)) == (6_000, 0)
        with pytest.raises(guards.WrongState):
            guards.amount_to_void(refunded)
