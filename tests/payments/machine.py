"""The life of one payment as a state machine: what we ask, what the provider does, what we hear and when, all by chance.

Runs on three stages: in memory over the rules alone, over each provider's adapter, and over HTTP, messages and a real database.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

WHOLE = 10_000
KINDS = ("authorize", "capture", "void", "refund", "chargeback", "chargeback_reversal")
ENDED = ("succeeded", "declined", "failed")

# Of a payment of WHOLE; a story multiplies them all.
amounts = st.sampled_from([1, 2_500, 4_000, 6_000, WHOLE, WHOLE + 1])
# What becomes of a call: its answer comes; it happens and nobody hears; it does not happen and nobody hears.
fates = st.sampled_from(["answered", "unheard", "unmade"])
# What may become of a refund that was made, and how a dispute turns (docs.stripe.com/api/disputes/object#dispute_object-status).
ends = st.sampled_from(["refund_succeed", "refund_fail", "refund_cancel"])
turns = st.sampled_from(
    ["warning_needs_response", "warning_closed", "needs_response", "under_review", "appeal_under_review", "won", "lost", "prevented"]
)


class Row(msgspec.Struct, frozen=True):
    """A row of the ledger as a stage shows it."""

    id: str
    operation: str
    status: str
    amount: int
    moved: int
    # A refund that its provider has and has not carried out yet.
    accepted: bool


class Sight(msgspec.Struct, frozen=True):
    """The payment as a stage shows it."""

    status: str
    amounts: dict[str, int]
    rows: tuple[Row, ...]


class Stage(Protocol):
    """Where the machine plays."""

    # By how much amounts may be multiplied.
    units: Sequence[int]

    def begin(self, unit: int, method: str) -> None:
        """Choose how much a payment is of, and what its payment method does."""
        ...

    def ask(self, kind: str, amount: int | None, fate: str) -> bool:
        """Ask for an operation; whether it was taken up rather than refused."""
        ...

    def happen(self, kind: str, amount: int, status: str) -> None:
        """Have something happen at the provider that we did not ask for."""
        ...

    def turn(self, end: str) -> None:
        """Have the latest refund end so, if it can."""
        ...

    def dispute(self, body: dict[str, Any]) -> None:
        """Have a dispute begin or turn."""
        ...

    def news(self) -> int:
        """Count what the provider has told so far."""
        ...

    def hear(self, number: int) -> None:
        """Hear of one of the provider's news, perhaps again, perhaps late."""
        ...

    def find_out(self) -> None:
        """Learn what became of everything that is open."""
        ...

    def sight(self) -> Sight:
        """Look at our side."""
        ...

    def theirs(self) -> Sequence[tuple[str, str, int]]:
        """Look at the provider's side: kind, status and amount of each operation."""
        ...

    def close(self) -> None:
        """Tidy up."""
        ...


class PaymentMachine(RuleBasedStateMachine):
    """The rules of chance and what must hold after each."""

    stage_of: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        self.stage: Stage = type(self).stage_of()
        self.before: Sight | None = None
        self.uninvited = False

    @initialize(fate=fates, data=st.data(), method=st.sampled_from(["tok_success", "tok_refund_pending"]))
    def authorize(self, fate: str, data: st.DataObject, method: str) -> None:
        self.unit = data.draw(st.sampled_from(self.stage.units))
        self.stage.begin(self.unit, method)
        assert self.stage.ask("authorize", None, fate)

    @rule(amount=amounts, fate=fates)
    def capture(self, amount: int, fate: str) -> None:
        self.stage.ask("capture", amount * self.unit, fate)

    @rule(amount=amounts, fate=fates)
    def refund(self, amount: int, fate: str) -> None:
        self.stage.ask("refund", amount * self.unit, fate)

    @rule(fate=fates)
    def void(self, fate: str) -> None:
        self.stage.ask("void", None, fate)

    @rule(kind=st.sampled_from(["capture", "refund", "chargeback", "chargeback_reversal"]), amount=amounts)
    def happens_without_us(self, kind: str, amount: int) -> None:
        self.uninvited = True
        self.stage.happen(kind, amount * self.unit, "succeeded")

    @rule(amount=amounts)
    def is_to_be_refunded_by_the_dashboard(self, amount: int) -> None:
        self.uninvited = True
        self.stage.happen("refund", amount * self.unit, "pending")

    @rule(end=ends)
    def ends_a_refund(self, end: str) -> None:
        self.stage.turn(end)

    @rule(status=turns, amount=amounts, new=st.booleans(), extra=st.sampled_from([{}, {"returned": 1}, {"withdrawn": True}]))
    def disputes(self, status: str, amount: int, new: bool, extra: dict[str, Any]) -> None:
        self.uninvited = True
        self.stage.dispute({"status": status, "amount": amount * self.unit, "new": new, **extra})

    @precondition(lambda self: self.stage.news() > 0)
    @rule(data=st.data())
    def hears(self, data: st.DataObject) -> None:
        self.stage.hear(data.draw(st.integers(0, self.stage.news() - 1)))

    @rule()
    def finds_out(self) -> None:
        self.stage.find_out()

    @invariant()
    def amounts_are_the_fold(self) -> None:
        sight = self.stage.sight()
        moved = {kind: sum(r.moved for r in sight.rows if r.operation == kind) for kind in KINDS}
        for kind, name in (("authorize", "authorized"), ("capture", "captured"), ("refund", "refunded")):
            assert sight.amounts[name] == moved[kind], (kind, sight)
        assert sight.amounts["charged_back"] == max(0, moved["chargeback"] - moved["chargeback_reversal"]), sight
        for kind in ("capture", "refund"):
            reserved = sum(r.amount for r in sight.rows if r.operation == kind and r.status not in ENDED)
            assert sight.amounts[f"{kind}_reserved"] == reserved, (kind, sight)

    @invariant()
    def no_guard_is_passed(self) -> None:
        sight = self.stage.sight()
        a = sight.amounts
        if sight.status == "conflicted":
            assert self.uninvited, sight
            return
        assert a["captured"] + a["capture_reserved"] + a["voided"] <= a["authorized"] or a["captured"] + a["capture_reserved"] == 0, sight
        assert a["refunded"] + a["charged_back"] + a["refund_reserved"] <= a["captured"], sight
        assert sum(1 for r in sight.rows if r.status in ("pending", "unknown") and not r.accepted) <= 1, sight

    @invariant()
    def the_ledger_only_moves_on(self) -> None:
        sight = self.stage.sight()
        if self.before is not None:
            now = {row.id: row for row in sight.rows}
            order = ("pending", "unknown", "failed", "declined", "succeeded")
            for row in self.before.rows:
                assert row.id in now, "a row is gone"
                assert now[row.id].amount == row.amount, "an amount changed"
                if not _may_go_back(row, now[row.id]):
                    assert order.index(now[row.id].status) >= order.index(row.status), "a status went back"
        self.before = sight

    def teardown(self) -> None:
        """In the end, whatever the way there was, both sides say the same."""
        for number in reversed(range(self.stage.news())):
            self.stage.hear(number)
        self.stage.find_out()
        sight, theirs = self.stage.sight(), self.stage.theirs()
        for kind in KINDS:
            ours = sum(r.moved for r in sight.rows if r.operation == kind and kind != "void")
            assert ours == sum(a for k, s, a in theirs if (k, s) == (kind, "succeeded") and kind != "void"), (kind, sight, theirs)
        assert not any(r.status in ("pending", "unknown") and not r.accepted for r in sight.rows), sight
        on_their_way = sum(a for k, s, a in theirs if (k, s) == ("refund", "pending"))
        assert sum(r.amount for r in sight.rows if r.accepted) == on_their_way == sight.amounts["refund_reserved"], (sight, theirs)
        self.stage.close()


def _may_go_back(before: Row, now: Row) -> bool:
    """A refund may fail after it succeeded, and be there after all when nobody knew."""
    if before.operation != "refund":
        return False
    return (before.status == "succeeded" and now.status in ("failed", "declined")) or (before.status == "unknown" and now.accepted)
