"""The life of one payment as a state machine: what we ask, what the provider does, what we hear and when, all by chance.

Runs on two stages: in memory over the rules alone, and over HTTP, messages and a real database.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

AUTHORIZED = 10_000
KINDS = ("authorize", "capture", "void", "refund", "chargeback", "chargeback_reversal")
ENDED = ("succeeded", "declined", "failed")

amounts = st.sampled_from([1, 2_500, 4_000, 6_000, AUTHORIZED, AUTHORIZED + 1])
# What becomes of a call: its answer comes; it happens and nobody hears; it does not happen and nobody hears.
fates = st.sampled_from(["answered", "unheard", "unmade"])


class Row(msgspec.Struct, frozen=True):
    """A row of the ledger as a stage shows it."""

    id: str
    operation: str
    status: str
    amount: int
    moved: int


class Sight(msgspec.Struct, frozen=True):
    """The payment as a stage shows it."""

    status: str
    amounts: dict[str, int]
    rows: tuple[Row, ...]


class Stage(Protocol):
    """Where the machine plays."""

    def ask(self, kind: str, amount: int | None, fate: str) -> bool:
        """Ask for an operation; whether it was taken up rather than refused."""
        ...

    def happen(self, kind: str, amount: int) -> None:
        """Have something happen at the provider that we did not ask for."""
        ...

    def hear(self, number: int) -> None:
        """Be told of one of the provider's operations, perhaps again, perhaps late."""
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

    @initialize(fate=fates)
    def authorize(self, fate: str) -> None:
        assert self.stage.ask("authorize", None, fate)

    @rule(amount=amounts, fate=fates)
    def capture(self, amount: int, fate: str) -> None:
        self.stage.ask("capture", amount, fate)

    @rule(amount=amounts, fate=fates)
    def refund(self, amount: int, fate: str) -> None:
        self.stage.ask("refund", amount, fate)

    @rule(fate=fates)
    def void(self, fate: str) -> None:
        self.stage.ask("void", None, fate)

    @rule(kind=st.sampled_from(["capture", "refund", "chargeback", "chargeback_reversal"]), amount=amounts)
    def happens_without_us(self, kind: str, amount: int) -> None:
        self.uninvited = True
        self.stage.happen(kind, amount)

    @precondition(lambda self: len(self.stage.theirs()) > 0)
    @rule(data=st.data())
    def hears(self, data: st.DataObject) -> None:
        self.stage.hear(data.draw(st.integers(0, len(self.stage.theirs()) - 1)))

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
        assert sum(1 for r in sight.rows if r.status in ("pending", "unknown")) <= 1, sight

    @invariant()
    def the_ledger_only_moves_on(self) -> None:
        sight = self.stage.sight()
        if self.before is not None:
            now = {row.id: row for row in sight.rows}
            order = ("pending", "unknown", "failed", "declined", "succeeded")
            for row in self.before.rows:
                assert row.id in now, "a row is gone"
                assert now[row.id].amount == row.amount, "an amount changed"
                assert order.index(now[row.id].status) >= order.index(row.status), "a status went back"
        self.before = sight

    def teardown(self) -> None:
        """In the end, whatever the way there was, both sides say the same."""
        for number in reversed(range(len(self.stage.theirs()))):
            self.stage.hear(number)
        self.stage.find_out()
        sight, theirs = self.stage.sight(), self.stage.theirs()
        for kind in KINDS:
            ours = sorted(r.moved for r in sight.rows if r.operation == kind and r.status == "succeeded" and kind != "void")
            assert ours == sorted(a for k, s, a in theirs if (k, s) == (kind, "succeeded") and kind != "void"), (kind, sight, theirs)
        assert not any(r.status in ("pending", "unknown") for r in sight.rows), sight
        self.stage.close()
