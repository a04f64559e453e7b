"""The life of a refund in the rules: pending for days, succeeded, failed after all; heard in any order, twice, or only in part.

That failed and canceled are final: docs.stripe.com/refunds#failed-refunds (the amount is back, another way has to be found) and
docs.stripe.com/api/refunds/cancel. That a refund fails after it succeeded: card 4000000000005126 (docs.stripe.com/testing).
"""

from itertools import permutations, product

import msgspec
import pytest

from services.payments.domain import guards, intents
from services.payments.domain.books import our_side
from services.payments.domain.intents import IntentStatus, Observation, Operation, Source, Transaction, TransactionStatus
from services.reconciler.domain.comparing import compare
from shared.contracts.books import EntryStatus, Pair, Side
from shared.errors import Refusal
from shared.ids import new_id
from tests.payments.test_reducer import AMOUNT, NOW, an_authorization, an_intent, seen, told

PENDING, SUCCEEDED, FAILED, DECLINED = (TransactionStatus(each) for each in ("pending", "succeeded", "failed", "declined"))
TAKEN = (an_authorization(SUCCEEDED), Transaction(id=new_id(), operation=Operation.CAPTURE, amount=AMOUNT, status=SUCCEEDED))


def a_refund(**facts: object) -> Transaction:
    """A refund of ours that was asked for and not answered."""
    return msgspec.structs.replace(Transaction(id=new_id(), operation=Operation.REFUND, amount=400, status=PENDING), **facts)


def said(status: TransactionStatus, *, of: Transaction | None = None, txn: str | None = "re_1", **facts: object) -> Observation:
    """What the provider says of it; a refund made in its dashboard bears no reference of ours."""
    reference = None if of is None else of.id
    return msgspec.structs.replace(seen(Operation.REFUND, 400, txn="r", status=status, reference=reference), provider_txn_id=txn, **facts)


def not_executed(refund: Transaction, **facts: object) -> Observation:
    return said(FAILED, of=refund, txn=None, decline_code="not_executed", **facts)


LIVES = [life for n in range(1, 4) for life in product((PENDING, SUCCEEDED, FAILED), repeat=n)]


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "the dashboard's"])
@pytest.mark.parametrize("life", LIVES, ids=lambda life: "-".join(each.value for each in life))
def test_the_furthest_news_decides_in_any_order(life: tuple[TransactionStatus, ...], ours: bool) -> None:
    """C05, C06, C07: failed goes before succeeded before pending, whichever was told first, twice or never."""
    refund = a_refund()
    rows = (*TAKEN, refund) if ours else TAKEN
    story = [said(each, of=refund if ours else None) for each in life]

    intent, after = told(an_intent(), rows, story)

    end = max(life, key=(PENDING, SUCCEEDED, FAILED).index)
    [row] = [t for t in after if t.operation is Operation.REFUND]
    assert (row.status, row.moved, row.contradicted) == (end, 400 if end is SUCCEEDED else 0, False)
    assert (intent.refunded_amount, intent.refund_reserved) == (row.moved, 400 if end is PENDING else 0)
    assert intent.refundable == (AMOUNT if end is FAILED else AMOUNT - 400)
    assert intent.status is (IntentStatus.PARTIALLY_REFUNDED if end is SUCCEEDED else IntentStatus.CAPTURED)
    assert intent.attention is None


@pytest.mark.parametrize("order", list(permutations((SUCCEEDED, DECLINED, FAILED))), ids=str)
def test_two_words_for_its_end_are_one_end(order: tuple[TransactionStatus, ...]) -> None:
    _, rows = told(an_intent(), TAKEN, [said(each) for each in order])

    assert (rows[-1].status, rows[-1].processed_amount, rows[-1].contradicted) == (DECLINED, 0, False)


def test_a_failure_says_why_and_goes_before_what_we_had_concluded() -> None:
    refund = a_refund()

    _, rows = told(an_intent(), (*TAKEN, refund), [not_executed(refund), said(FAILED, of=refund, decline_code="lost_or_stolen_card")])

    assert rows[-1].decline_code == "lost_or_stolen_card"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_money_that_moved_after_a_proof_that_it_did_not_is_a_contradiction_until_it_is_back(order: tuple[int, int]) -> None:
    """C40: a request that was refused, and was carried out all the same."""
    refund = a_refund()
    words = [not_executed(refund), said(SUCCEEDED, of=refund)]

    intent, rows = told(an_intent(), (*TAKEN, refund), [words[n] for n in order])
    later, ended = told(intent, rows, [said(FAILED, of=refund), words[1]])

    assert (intent.status, rows[-1].status, rows[-1].contradicted) == (IntentStatus.CONFLICTED, SUCCEEDED, True)
    assert (later.status, ended[-1].status, ended[-1].contradicted) == (IntentStatus.CAPTURED, FAILED, False)


@pytest.mark.parametrize("order", list(permutations((PENDING, SUCCEEDED, FAILED))), ids=str)
def test_money_too_much_that_was_accepted_and_then_given_back_in_vain_needs_attention_again(order: tuple[TransactionStatus, ...]) -> None:
    """F9: nobody means to keep it who had it given back; kept after all, it is accepted once more."""
    intent = intents.accept(intents.fold(an_intent(superseded=True, holds_order=False), TAKEN), TAKEN)

    failed, rows = told(intent, TAKEN, [said(each) for each in order])

    assert (intent.overpaid_amount, failed.overpaid_amount, intent.attention is None) == (0, AMOUNT, True)
    assert intents.accept(failed, rows).attention is None


@pytest.mark.parametrize("operation", [o for o in Operation if o is not Operation.REFUND])
@pytest.mark.parametrize("first", [SUCCEEDED, FAILED])
def test_of_all_else_two_ends_are_a_contradiction(operation: Operation, first: TransactionStatus) -> None:
    """C40: nothing but a refund can fail after it succeeded; a late "pending" changes nothing."""
    second = FAILED if first is SUCCEEDED else SUCCEEDED
    story = [seen(operation, 100, txn="x_1", status=each) for each in (first, second, PENDING)]

    _, rows = told(an_intent(), TAKEN, story)

    assert (rows[-1].status, rows[-1].contradicted) == (SUCCEEDED, True)


class TestWhilePending:
    """C06: a refund that its provider has reserves its amount, and nothing else waits for it."""

    def test_everything_goes_on_beside_it(self) -> None:
        part = msgspec.structs.replace(TAKEN[1], amount=6_000)
        intent, rows = told(an_intent(), (TAKEN[0], part, a_refund()), [])
        with pytest.raises(Refusal, match="under way"):
            guards.check_nothing_open(rows)

        intent, rows = told(intent, rows, [said(PENDING, of=rows[-1])])

        guards.check_nothing_open(rows)
        assert guards.amount_to_capture(intent, None, None) == guards.amount_to_void(intent) == 4_000
        assert guards.amount_to_refund(intent, None, None) == 5_600
        with pytest.raises(guards.AmountExceeded):
            guards.amount_to_refund(intent, 5_601, None)

    def test_its_key_makes_no_second_one(self) -> None:
        """C06: also when the gateway has forgotten the key, which a refund that is pending for a month outlives."""
        refund = a_refund(idempotency_key="k", provider_txn_id="re_1")

        with pytest.raises(guards.OperationInProgress):
            guards.done_with_key((*TAKEN, refund), Operation.REFUND, "k", 400)
        with pytest.raises(guards.KeyUsed):
            guards.done_with_key((*TAKEN, refund), Operation.REFUND, "k", 401)
        assert guards.done_with_key((*TAKEN, refund), Operation.REFUND, "another", 400) is None

    def test_one_that_was_not_known_to_be_there_is_pending_again(self) -> None:
        refund = a_refund(status=TransactionStatus.UNKNOWN)

        _, rows = told(an_intent(), (*TAKEN, refund), [said(PENDING, of=refund)])

        assert (rows[-1].status, rows[-1].accepted) == (PENDING, True)

    def test_that_it_was_not_found_does_not_undo_that_it_was_shown(self) -> None:
        """C07: whoever looked before it was shown comes too late with "not executed"."""
        refund = a_refund()

        intent, rows = told(an_intent(), (*TAKEN, refund), [said(PENDING, of=refund), not_executed(refund, inferred=True)])

        assert (rows[-1].status, intent.refund_reserved) == (PENDING, 400)

    def test_books_that_agree_about_it_do_not_hide_what_else_differs(self) -> None:
        intent, rows = told(an_intent(provider_payment_id="pay_1"), TAKEN, [said(PENDING)])
        ours = our_side(intent, rows)

        assert not ours.in_flight
        theirs = [msgspec.structs.replace(e, status=EntryStatus.DONE) for e in ours.entries]
        [difference] = compare(Pair(key="pay_1", ours=ours, theirs=Side(key="pay_1", entries=tuple(theirs), made_at=NOW)))
        assert (difference.type.value, difference.heals) == ("status", True)


def test_no_source_of_the_news_matters() -> None:
    ends = set()
    for source in Source:
        applied = intents.observe(an_intent(), TAKEN, [said(SUCCEEDED), said(FAILED)], source=source, ids=[new_id(), new_id()])
        ends.add((applied.intent.status, applied.intent.refunded_amount))

    assert ends == {(IntentStatus.CAPTURED, 0)}
