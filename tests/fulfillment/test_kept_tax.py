"""Recorded tax follows the money: what is left of it is the tax of what is kept, after any story of a payment, however its news come."""

import contextlib
import random
from fractions import Fraction
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fulfillment.domain.tax.amounts import RoundingMode, rounded
from services.fulfillment.domain.tax.engine import Row
from services.fulfillment.domain.tax.kept import Payment, not_kept, payment_of
from services.fulfillment.domain.tax.reversal import Correction, corrections
from services.payments.domain import guards
from services.payments.domain.intents import Intent, Operation, Transaction, TransactionStatus, fold, money_returned
from services.payments.store.intents import view
from shared.contracts.payments import IntentChanged
from shared.errors import Refusal
from shared.refund_shares import RefundLine, Returned, given_back
from tests.fulfillment.rates import goods, rule, taxed
from tests.payments.test_reducer import an_intent

SUCCEEDED = TransactionStatus.SUCCEEDED
RATES = ("0", "5.5", "7", "19", "20", "25.5")


def by_name(sold: dict[int, int]) -> dict[int | None, int]:
    return dict[int | None, int](sold.items())


class Ledger:
    """A payment as payments keeps it, and the event of each change."""

    def __init__(self, total: int) -> None:
        self.rows: list[Transaction] = []
        self.intent: Intent = an_intent(requested_amount=total)
        self.events: list[IntentChanged] = []
        self.add(Operation.AUTHORIZE, total)

    def add(self, operation: Operation, amount: int, **facts: object) -> None:
        row = Transaction(id=UUID(int=len(self.rows) + 1), operation=operation, amount=amount, status=SUCCEEDED)
        self.rows.append(msgspec.structs.replace(row, **facts))
        self.told()

    def fails(self, n: int) -> None:
        self.rows[n] = msgspec.structs.replace(self.rows[n], status=TransactionStatus.FAILED, processed_amount=0)
        self.told()

    def told(self) -> None:
        after = fold(self.intent, self.rows)
        self.intent = msgspec.structs.replace(after, version=self.intent.version + 1)
        self.events.append(IntentChanged(intent=view(self.intent), order_status="", returned=money_returned(self.rows)))

    @property
    def payments(self) -> list[Payment]:
        """What fulfillment makes of each event."""
        return [payment_of(event.intent, event.returned) for event in self.events]


class Books:
    """What fulfillment has recorded of a sale."""

    def __init__(self, rows: list[Row], sold: dict[int, int]) -> None:
        self.rows, self.sold = rows, sold
        self.before = dict.fromkeys(sold, 0)
        self.version = 0
        self.documents: list[tuple[str, Correction]] = []

    def take(self, payment: Payment) -> None:
        if payment.version <= self.version:
            return
        self.version = payment.version
        after = not_kept(by_name(self.sold), [payment])
        target = {line: amount for line, amount in after.items() if line is not None}
        for kind, found in zip(
            ("reversal", "reinstatement"), corrections(self.rows, sold=self.sold, before=self.before, after=target), strict=True
        ):
            if found is not None:
                self.documents.append((kind, found))
        self.before = target

    def left(self, row: Row, name: str) -> int:
        same = (row.line, row.rule_version)
        found = [each for _, document in self.documents for each in document.rows if (each.line, each.rule_version) == same]
        return sum(int(getattr(each, name)) for each in [row, *found])


@st.composite
def stories(draw: st.DrawFn) -> tuple[dict[int, int], list[Row], Ledger]:
    """What is sold, its taxes, and a payment to which anything happens that its provider and our guards allow."""
    prices = draw(st.lists(st.integers(0, 20_000), min_size=1, max_size=4).filter(any))
    sold = dict(enumerate(prices))
    rows = []
    for n, price in sold.items():
        [row] = taxed([goods(price, included=True, paid_by_others=0 if price else 700)], rule(draw(st.sampled_from(RATES))))
        rows.append(msgspec.structs.replace(row, line=n))
    ledger = Ledger(sum(prices))
    rng = draw(st.randoms())
    for _ in range(rng.randint(1, 12)):
        happens_to(ledger, rng, by_name(sold))
    return sold, rows, ledger


def happens_to(ledger: Ledger, rng: random.Random, prices: dict[int | None, int]) -> None:
    """Something that its provider and our guards allow, or nothing."""
    intent = ledger.intent
    what = rng.choice(["capture", "release", "refund", "lines", "lines", "chargeback", "won", "fails"])
    if what == "capture" and intent.capturable:
        ledger.add(Operation.CAPTURE, rng.choice([intent.capturable, rng.randint(1, intent.capturable)]), final=rng.random() < 0.3)
    elif what == "release" and intent.held:
        ledger.add(Operation.VOID, intent.held)
    elif what in ("refund", "chargeback") and intent.refundable:
        ledger.add(Operation(what), rng.choice([intent.refundable, rng.randint(1, intent.refundable)]))
    elif what == "lines" and intent.refundable:
        named = rng.sample(list(prices), rng.randint(1, len(prices)))
        lines = tuple(RefundLine(line=line, amount=rng.randint(1, max(1, prices[line]))) for line in named)
        with contextlib.suppress(Refusal):
            guards.check_lines(intent, ledger.rows, lines, prices)
            amount = guards.amount_to_refund(intent, guards.amount_of_lines(lines, None), None)
            ledger.add(Operation.REFUND, amount, lines=lines)
    elif what == "won" and intent.charged_back_amount:
        ledger.add(Operation.CHARGEBACK_REVERSAL, rng.randint(1, intent.charged_back_amount))
    elif what == "fails" and (refunds := [n for n, row in enumerate(ledger.rows) if row.operation is Operation.REFUND and row.moved]):
        ledger.fails(rng.choice(refunds))


@given(story=stories(), data=st.data())
def test_what_is_left_is_the_tax_of_what_is_kept(story: tuple[dict[int, int], list[Row], Ledger], data: st.DataObject) -> None:
    """The news come in any order, twice or never, but for the last: Directive 2006/112/EC, Articles 63, 65 and 90(1)."""
    sold, rows, ledger = story
    *earlier, last = ledger.payments
    books = Books(rows, sold)

    for event in [*data.draw(st.lists(st.sampled_from(ledger.payments), max_size=12)), *data.draw(st.permutations(earlier)), last, last]:
        books.take(event)

    kept = max(0, min(ledger.intent.captured_amount, sum(sold.values())) - ledger.intent.returned)
    by_line = {n: price - books.before[n] for n, price in sold.items()}
    assert sum(by_line.values()) == kept
    assert all(0 <= amount <= sold[n] for n, amount in by_line.items())
    for row in rows:
        part = Fraction(by_line[row.line], sold[row.line]) if sold[row.line] else Fraction(kept, sum(sold.values()))
        for name in ("amount", "taxable_amount", "untaxed_amount"):
            whole = getattr(row, name)
            assert books.left(row, name) == whole - rounded(whole * (1 - part), RoundingMode.HALF_UP)


@given(story=stories())
def test_news_one_by_one_or_the_last_alone_is_the_same(story: tuple[dict[int, int], list[Row], Ledger]) -> None:
    sold, rows, ledger = story
    one, other = Books(rows, sold), Books(rows, sold)

    for event in ledger.payments:
        one.take(event)
    other.take(ledger.payments[-1])

    assert one.before == other.before
    assert [one.left(row, "amount") for row in rows] == [other.left(row, "amount") for row in rows]
    assert all(row.amount <= 0 for kind, document in one.documents if kind == "reversal" for row in document.rows)
    assert all(row.amount >= 0 for kind, document in one.documents if kind == "reinstatement" for row in document.rows)


@given(story=stories(), data=st.data())
def test_a_named_line_reverses_its_own_rows(story: tuple[dict[int, int], list[Row], Ledger], data: st.DataObject) -> None:
    """G1, G2: whatever went back before, a refund that names a line takes of that line alone."""
    sold, _, ledger = story
    ledger.add(Operation.CAPTURE, ledger.intent.capturable) if ledger.intent.capturable else None
    before = not_kept(by_name(sold), [ledger.payments[-1]])
    line = data.draw(st.sampled_from(sorted(sold)))
    left = min(sold[line] - before[line], ledger.intent.refundable)
    if left < 1 or ledger.intent.captured_amount < sum(sold.values()):
        return
    amount = data.draw(st.integers(1, left))

    named = (RefundLine(line=line, amount=amount),)
    guards.check_lines(ledger.intent, ledger.rows, named, by_name(sold))
    ledger.add(Operation.REFUND, amount, lines=named)

    assert not_kept(by_name(sold), [ledger.payments[-1]]) == {**before, line: before[line] + amount}


def test_what_rounds_a_total_goes_back_with_it() -> None:
    """A line of less than nothing, as a total rounded down to five hundredths has."""
    prices: dict[int | None, int] = {0: 1_003, 1: 500, 2: -3}

    half = given_back(prices, (Returned(transaction_id=UUID(int=1), amount=750),))
    first, again = corrections([], sold={0: 1_003, 1: 500, 2: -3}, before={0: 501, 1: 250, 2: -1}, after={0: 0, 1: 500, 2: -2})

    assert (sum(half.values()), half[2] in (-1, -2)) == (750, True)
    assert given_back(prices, (Returned(transaction_id=UUID(int=1), amount=1_500),)) == prices
    # Also where lines are named: what is left is a line and what rounded it away.
    named = Returned(transaction_id=UUID(int=1), amount=1_000, lines=(RefundLine(line=0, amount=1_000),))
    assert given_back({0: 1_049, 1: -49}, (named,)) == {0: 1_049, 1: -49}
    assert first is not None
    assert again is not None
    assert (first.line_amounts, again.line_amounts) == ({1: 250, 2: -1}, {0: 501})


PART = Returned(transaction_id=UUID(int=1), amount=11_900, lines=(RefundLine(line=1, amount=11_900),))
PRICES = {0: 10_700, 1: 11_900, None: 1_190}


@pytest.mark.parametrize(
    ("parts", "back"),
    [
        ((PART,), {0: 0, 1: 11_900, None: 0}),
        ((msgspec.structs.replace(PART, amount=1_190, lines=(RefundLine(line=None, amount=1_190),)),), {0: 0, 1: 0, None: 1_190}),
        # Without lines, by value: 11 895 is half of it all.
        ((msgspec.structs.replace(PART, amount=11_895, lines=()),), {0: 5_350, 1: 5_950, None: 595}),
        # In the provider's dashboard, after a line went back: by what is left.
        (
            (PART, Returned(transaction_id=UUID(int=2), amount=1_189)),
            {0: 1_070, 1: 11_900, None: 119},
        ),
        # More than there is takes all, and nothing twice.
        ((PART, Returned(transaction_id=UUID(int=2), amount=99_999)), PRICES),
    ],
)
def test_shares_of_refunds(parts: tuple[Returned, ...], back: dict[int | None, int]) -> None:
    """G1, G2, G3 and G9."""
    assert given_back(PRICES, parts) == back
