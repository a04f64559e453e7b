"""The life of a payment by chance: thousands of steps over the rules in memory, and hundreds over the whole system."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from deploy.sandbox.books import Books, Refused
from deploy.sandbox.books import Payment as Theirs
from services.payments.domain import guards, intents
from services.payments.domain.intents import Operation, Source, Transaction, TransactionStatus
from services.payments.providers.sandbox import observations_of
from shared.bus import Publisher
from shared.errors import Refusal
from shared.ids import new_id
from tests.payments.machine import AUTHORIZED, PaymentMachine, Row, Sight
from tests.payments.test_observations import observed, tell
from tests.payments.test_reducer import an_intent
from tests.world import Answer, Payment, Place, World, a_world, until

IN_MEMORY_STEPS = 30
IN_MEMORY_RUNS = 300
REAL_STEPS = 10
REAL_RUNS = 6
# Short, so that what is not heard is soon found out.
TIMEOUT_SECONDS = 0.15
SILENCE_SECONDS = 0.3

NAMES = ("authorized", "captured", "refunded", "voided", "charged_back")


def _happened(books: Books, payment: Theirs, kind: str, amount: int, reference: UUID) -> None:
    body = {"amount": amount, "currency": "EUR", "reference": str(reference), "payment_method": "tok_success"}
    match kind:
        case "capture":
            books.capture(payment, body)
        case "refund":
            books.refund(payment, body)
        case "void":
            books.void(payment, body)


class InMemory:
    """Our rules and the sandbox's books, with nothing in between."""

    def __init__(self) -> None:
        self.books = Books(None)
        self.payment: Theirs | None = None
        self.rows: tuple[Transaction, ...] = ()
        self.intent = an_intent()

    def ask(self, kind: str, amount: int | None, fate: str) -> bool:
        try:
            amount = self._allowed(kind, amount)
        except Refusal:
            return False
        row = Transaction(id=new_id(), operation=Operation(kind), amount=amount, status=TransactionStatus.PENDING)
        self.rows = (*self.rows, row)
        self.intent = intents.fold(self.intent, self.rows)
        if fate != "unmade":
            self._make(row)
        if fate == "answered":
            self._look(row)
        else:
            self._replace(row, status=TransactionStatus.UNKNOWN)
        return True

    def _allowed(self, kind: str, amount: int | None) -> int:
        guards.check_nothing_open(self.rows)
        match kind:
            case "capture":
                return guards.amount_to_capture(self.intent, amount, None)
            case "refund":
                return guards.amount_to_refund(self.intent, amount, None)
            case "void":
                return guards.amount_to_void(self.intent)
        return AUTHORIZED

    def _make(self, row: Transaction) -> None:
        if row.operation is Operation.AUTHORIZE:
            body = {"amount": row.amount, "currency": "EUR", "reference": str(row.id), "payment_method": "tok_success"}
            self.payment = self.books.authorize(body, "")
            return
        assert self.payment is not None, "guards let nothing be asked of a payment that is not authorized"
        try:
            _happened(self.books, self.payment, row.operation.value, row.amount, row.id)
        except Refused:
            # What happened there without us is in the way, which is proof that ours did not happen.
            self._observe([self._never(row)])

    def _look(self, row: Transaction) -> None:
        if self.payment is None or all(o.reference != str(row.id) for o in self.payment.operations):
            self._observe([self._never(row)])
        else:
            self._observe(list(observations_of(msgspec.to_builtins(self.payment))))

    def _never(self, row: Transaction) -> intents.Observation:
        return intents.Observation(
            operation=row.operation,
            status=TransactionStatus.FAILED,
            amount=0,
            currency="",
            provider_payment_id="",
            provider_txn_id=None,
            reference=row.id,
        )

    def _observe(self, observations: Sequence[intents.Observation]) -> None:
        ids = [new_id() for _ in observations]
        applied = intents.observe(self.intent, self.rows, observations, source=Source.WEBHOOK, ids=ids)
        self.intent, self.rows = applied.intent, applied.transactions

    def _replace(self, row: Transaction, **facts: Any) -> None:
        now = next(r for r in self.rows if r.id == row.id)
        if now.open:
            self.rows = tuple(msgspec.structs.replace(r, **facts) if r.id == row.id else r for r in self.rows)
            self.intent = intents.fold(self.intent, self.rows)

    def happen(self, kind: str, amount: int) -> None:
        if self.payment is not None:
            self.books.add(self.payment, kind, amount, reason="dashboard")

    def hear(self, number: int) -> None:
        assert self.payment is not None, "there is something to hear of"
        self._observe([observations_of(msgspec.to_builtins(self.payment))[number]])

    def find_out(self) -> None:
        for row in self.rows:
            if row.open:
                self._look(row)

    def sight(self) -> Sight:
        amounts = {name: getattr(self.intent, f"{name}_amount") for name in NAMES}
        reserved = {"capture_reserved": self.intent.capture_reserved, "refund_reserved": self.intent.refund_reserved}
        rows = tuple(Row(str(r.id), r.operation.value, r.status.value, r.amount, r.moved) for r in self.rows)
        return Sight(self.intent.status.value, {**amounts, **reserved}, rows)

    def theirs(self) -> Sequence[tuple[str, str, int]]:
        return [] if self.payment is None else [(o.kind, o.status, o.amount) for o in self.payment.operations]

    def close(self) -> None:
        self.books.close()


def test_over_the_rules() -> None:
    class OverTheRules(PaymentMachine):
        stage_of = InMemory

    chosen = settings(max_examples=IN_MEMORY_RUNS, stateful_step_count=IN_MEMORY_STEPS, deadline=None)
    run_state_machine_as_test(OverTheRules, settings=chosen)


T = TypeVar("T")


class Real:
    """The system itself; the machine runs in a thread of its own and calls into the loop."""

    def __init__(self, world: World, publisher: Publisher, loop: asyncio.AbstractEventLoop) -> None:
        self._world = world
        self._publisher = publisher
        self._loop = loop
        self._payment: Payment | None = None
        self._order_id = self._wait(world.an_order)

    def _wait(self, make: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await make()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(60)

    def ask(self, kind: str, amount: int | None, fate: str) -> bool:
        return self._wait(lambda: self._ask(kind, amount, fate))

    async def _ask(self, kind: str, amount: int | None, fate: str) -> bool:
        sandbox = self._world.sandbox
        snapshot_id = await self._world.a_snapshot(self._order_id) if kind == "authorize" else ""
        sandbox.weather = {"unheard": {"late": 1.0}, "unmade": {"silent": 1.0}}.get(fate, {})
        try:
            if kind == "authorize":
                answer = await self._world.authorize(self._order_id, snapshot_id)
            else:
                assert self._payment is not None, "it is authorized first"
                answer = await self._changed(self._payment, kind, amount)
        finally:
            sandbox.weather = {}
        assert answer.status in (201, 402, 409), answer
        if kind == "authorize":
            self._payment = Payment(self._world, self._order_id, UUID(answer.json["intent"]["id"]))
        return answer.status == 201

    async def _changed(self, payment: Payment, kind: str, amount: int | None) -> Answer:
        match kind:
            case "capture":
                return await payment.capture(amount)
            case "refund":
                return await payment.refund(amount)
        return await payment.void()

    def happen(self, kind: str, amount: int) -> None:
        self._wait(lambda: self._happen(kind, amount))

    async def _happen(self, kind: str, amount: int) -> None:
        self._world.sandbox.books.add(self._there(), kind, amount, reason="dashboard")

    def _there(self) -> Theirs:
        assert self._payment is not None, "it is authorized first"
        found: Theirs = self._payment.at_the_provider()
        return found

    def hear(self, number: int) -> None:
        self._wait(lambda: self._hear(number))

    async def _hear(self, number: int) -> None:
        assert self._payment is not None, "it is authorized first"
        operation = self._there().operations[number]
        told = observed(
            self._payment,
            operation.kind,
            operation.amount,
            provider_txn_id=operation.id,
            status=operation.status,
            reference=None if operation.reference is None else UUID(operation.reference),
            reason=operation.reason,
        )
        before = await self._handled()
        await tell(self._world, self._publisher, told)
        await until(lambda: self._more_than(before))

    async def _handled(self) -> int:
        row = await self._world.rows("SELECT count(*) AS count FROM payments.inbox WHERE source = 'webhooks' AND state = 'done'")
        return int(row[0]["count"])

    async def _more_than(self, count: int) -> bool:
        return await self._handled() > count

    def find_out(self) -> None:
        self._wait(lambda: until(self._nothing_open))

    async def _nothing_open(self) -> bool:
        assert self._payment is not None, "it is authorized first"
        return not any(t["status"] in ("pending", "unknown") for t in await self._payment.transactions())

    def sight(self) -> Sight:
        return self._wait(self._sight)

    async def _sight(self) -> Sight:
        assert self._payment is not None, "it is authorized first"
        ledger = await self._world.ledger(self._order_id)
        mine = ledger["payments"][0]
        intent = mine["intent"]
        amounts = {name: intent[f"{name}_amount"] for name in NAMES}
        reserved = {name: intent[name] for name in ("capture_reserved", "refund_reserved")}
        rows = tuple(
            Row(t["id"], t["operation"], t["status"], t["amount"], (t["processed_amount"] or 0) if t["status"] == "succeeded" else 0)
            for t in mine["transactions"]
        )
        return Sight(intent["status"], {**amounts, **reserved}, rows)

    def theirs(self) -> Sequence[tuple[str, str, int]]:
        return [] if self._payment is None else [(o.kind, o.status, o.amount) for o in self._there().operations]

    def close(self) -> None:
        """Nothing to tidy up: every run has an order of its own."""


async def test_over_the_whole_system(place: Place) -> None:
    loop = asyncio.get_running_loop()
    changes = {"provider_timeout_seconds": TIMEOUT_SECONDS, "resolve_every_seconds": 0.05}
    async with a_world(place, payments=changes) as world, Publisher(place.amqp_url, name="tests") as publisher:
        world.sandbox.silence_seconds = SILENCE_SECONDS

        class OverTheSystem(PaymentMachine):
            @staticmethod
            def stage_of() -> Real:
                return Real(world, publisher, loop)

        chosen = settings(
            max_examples=REAL_RUNS, stateful_step_count=REAL_STEPS, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        )
        await asyncio.to_thread(run_state_machine_as_test, OverTheSystem, settings=chosen)
