"""The life of a payment by chance: thousands of steps over the rules in memory, and hundreds over adapters and the whole system.

`STORIES=500` tells so many over each of them.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from deploy.sandbox.books import Books, Refused
from deploy.sandbox.books import Payment as Theirs
from deploy.sandbox.server import Sandbox
from deploy.sandbox.webhooks import Moods, Told
from services.payments.domain import guards, intents
from services.payments.domain.intents import Observation, Operation, Source, Transaction, TransactionStatus
from services.payments.providers import AuthorizeRequest, CaptureRequest, PaymentProvider, RefundRequest, Request, VoidRequest
from services.payments.providers.sandbox import SandboxPayments, observations_of
from services.payments.providers.stripe.client import StripePayments
from shared.errors import Refusal
from shared.ids import new_id
from tests.payments.machine import WHOLE, PaymentMachine, Row, Sight
from tests.payments.test_reducer import an_intent
from tests.webhooks.test_ingest import once_more, post
from tests.world import MUG, SANDBOX_KEY, Answer, Payment, Place, World, a_sandbox, a_world, until

STORIES = int(os.environ.get("STORIES", "0"))
IN_MEMORY_STEPS, IN_MEMORY_RUNS = 30, STORIES or 300
ADAPTER_STEPS, ADAPTER_RUNS = 20, STORIES or 40
REAL_STEPS, REAL_RUNS = 10, STORIES or 4
# Short, so that what is not heard is soon found out.
TIMEOUT_SECONDS = 0.15
SILENCE_SECONDS = 0.3

NAMES = ("authorized", "captured", "refunded", "voided", "charged_back")
PROVIDERS = ("sandbox", "stripe")
# What a stage may multiply its amounts by: WHOLE then is at most what the provider takes.
UNITS = {"sandbox": (1, 10**5, 9 * 10**10), "stripe": (1, 9_999)}


class Rules:
    """Our rules, and a provider's books as its adapter reads them."""

    def __init__(self, books: Books, name: str) -> None:
        self.books = books
        self.name = name
        self.units = UNITS[name]
        self.payment: Theirs | None = None
        self.rows: tuple[Transaction, ...] = ()
        self.intent = an_intent()
        self.told: list[tuple[Observation, ...]] = []

    def begin(self, unit: int, method: str) -> None:
        self.whole, self.method = WHOLE * unit, method

    def make(self, row: Transaction) -> None:
        """Have the provider carry it out; raises Refused."""
        raise NotImplementedError

    def read(self) -> tuple[Observation, ...]:
        """Read the payment as it is."""
        raise NotImplementedError

    def do(self, act: Callable[[], object]) -> None:
        """Change the provider's books."""
        act()

    def ask(self, kind: str, amount: int | None, fate: str) -> bool:
        try:
            amount = self._allowed(kind, amount)
        except Refusal:
            return False
        row = Transaction(id=new_id(), operation=Operation(kind), amount=amount, status=TransactionStatus.PENDING)
        self.rows = (*self.rows, row)
        self.intent = intents.fold(self.intent, self.rows)
        if fate != "unmade":
            try:
                self.make(row)
            except Refused:
                # What happened there without us is in the way, which is proof that ours did not happen.
                self._observe([self._never(row, inferred=False)])
            self._note()
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
                if self.name == "stripe" and self.intent.captured_amount:
                    raise guards.UnsupportedByProvider("the rest cannot be released after a capture")
                return guards.amount_to_void(self.intent)
        return self.whole

    def _look(self, row: Transaction) -> None:
        now = next(r for r in self.rows if r.id == row.id)
        shown = () if self.payment is None else self.read()
        names = (row.id, now.provider_txn_id)
        if any(o.operation is now.operation and (o.reference == row.id or o.provider_txn_id == now.provider_txn_id) for o in shown):
            self._observe(shown)
        elif now.open:
            assert now.provider_txn_id is None, f"{names}: what was shown is shown for ever"
            self._observe([self._never(now, inferred=True)])

    def _never(self, row: Transaction, *, inferred: bool) -> Observation:
        return Observation(
            operation=row.operation,
            status=TransactionStatus.FAILED,
            amount=0,
            currency="",
            provider_payment_id="",
            provider_txn_id=None,
            reference=row.id,
            inferred=inferred,
        )

    def _observe(self, observations: Sequence[Observation]) -> None:
        ids = [new_id() for _ in observations]
        applied = intents.observe(self.intent, self.rows, observations, source=Source.WEBHOOK, ids=ids)
        self.intent, self.rows = applied.intent, applied.transactions

    def _replace(self, row: Transaction, **facts: Any) -> None:
        now = next(r for r in self.rows if r.id == row.id)
        if now.open and not now.accepted:
            self.rows = tuple(msgspec.structs.replace(r, **facts) if r.id == row.id else r for r in self.rows)
            self.intent = intents.fold(self.intent, self.rows)

    def _note(self) -> None:
        if self.payment is not None:
            self.told.append(self.read())

    def happen(self, kind: str, amount: int, status: str) -> None:
        payment = self.payment
        if payment is not None and _can_happen(self.name, payment, kind, amount, status):
            self.do(lambda: self.books.add(payment, kind, amount, status=status, reason="dashboard"))
            self._note()

    def turn(self, end: str) -> None:
        payment = self.payment
        if payment is not None:
            self.do(lambda: _turned(self.books, payment, end))
            self._note()

    def dispute(self, body: dict[str, Any]) -> None:
        payment = self.payment
        if payment is not None and payment.moved("capture"):
            self.do(lambda: self.books.dispute(payment, body))
            self._note()

    def news(self) -> int:
        return len(self.told)

    def hear(self, number: int) -> None:
        self._observe(self.told[number])

    def find_out(self) -> None:
        for row in self.rows:
            if row.open:
                self._look(row)

    def sight(self) -> Sight:
        amounts = {name: getattr(self.intent, f"{name}_amount") for name in NAMES}
        reserved = {"capture_reserved": self.intent.capture_reserved, "refund_reserved": self.intent.refund_reserved}
        rows = tuple(Row(str(r.id), r.operation.value, r.status.value, r.amount, r.moved, r.accepted) for r in self.rows)
        return Sight(self.intent.status.value, {**amounts, **reserved}, rows)

    def theirs(self) -> Sequence[tuple[str, str, int]]:
        return [] if self.payment is None else [(o.kind, o.status, o.amount) for o in self.payment.operations]

    def close(self) -> None:
        """Nothing to tidy up."""


def _can_happen(provider: str, payment: Theirs, kind: str, amount: int, status: str) -> bool:
    """Nobody promises to give back more than there is; Stripe takes no more than is held, and gives back what a dispute has taken."""
    if status == "pending":
        return amount <= min(payment.refundable, payment.moved("capture"))
    if provider == "sandbox":
        return True
    limits = {"capture": payment.held, "chargeback_reversal": max((payment.lost_by(d) for d in payment.disputes), default=0)}
    return amount <= limits.get(kind, amount) and (kind == "capture" or payment.moved("capture") > 0)


def _turned(books: Books, payment: Theirs, end: str) -> None:
    try:
        books.settle_refund(payment, end, {})
    except Refused:
        return  # There is no refund of which that could become.


class InMemory(Rules):
    """Our rules and the sandbox's books, with nothing in between."""

    def __init__(self) -> None:
        super().__init__(Books(None), "sandbox")

    def make(self, row: Transaction) -> None:
        body = {"amount": row.amount, "currency": "EUR", "reference": str(row.id), "payment_method": self.method}
        if self.payment is None:
            self.payment = self.books.authorize(body, "")
            return
        do = {Operation.CAPTURE: self.books.capture, Operation.REFUND: self.books.refund, Operation.VOID: self.books.void}
        do[row.operation](self.payment, body)

    def read(self) -> tuple[Observation, ...]:
        return observations_of(msgspec.to_builtins(self.payment))

    def close(self) -> None:
        self.books.close()


def test_over_the_rules() -> None:
    class OverTheRules(PaymentMachine):
        stage_of = InMemory

    chosen = settings(max_examples=IN_MEMORY_RUNS, stateful_step_count=IN_MEMORY_STEPS, deadline=None)
    run_state_machine_as_test(OverTheRules, settings=chosen)


T = TypeVar("T")


class OverAdapter(Rules):
    """Our rules, a provider's adapter, and the sandbox as that provider; the machine runs in a thread of its own."""

    def __init__(self, sandbox: Sandbox, provider: PaymentProvider, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(sandbox.books, provider.name)
        self._provider = provider
        self._loop = loop

    def _wait(self, make: Callable[[], Awaitable[T]]) -> T:
        return _waited(self._loop, make)

    def do(self, act: Callable[[], object]) -> None:
        async def acted() -> None:
            act()

        self._wait(acted)

    def make(self, row: Transaction) -> None:
        said = self._wait(lambda: self._send(row))
        if self.payment is None:
            self.payment = next(p for p in self.books.payments.values() if p.reference == str(row.id))
        if all(o.provider_txn_id is None for o in said):
            raise Refused(400, str(said[0].decline_code), "It was refused")

    async def _send(self, row: Transaction) -> tuple[Observation, ...]:
        request = self._request(row)
        return await self._provider.send(self._provider.prepare(request), idempotency_key=str(row.id), reference=row.id)

    def _request(self, row: Transaction) -> Request:
        known = "" if self.payment is None else self.payment.id
        match row.operation:
            case Operation.CAPTURE:
                return CaptureRequest(reference=row.id, provider_payment_id=known, amount=row.amount, currency="EUR", final=False)
            case Operation.REFUND:
                return RefundRequest(reference=row.id, provider_payment_id=known, amount=row.amount, currency="EUR", reason="returned")
            case Operation.VOID:
                return VoidRequest(reference=row.id, provider_payment_id=known)
        return AuthorizeRequest(
            reference=row.id, order_id=new_id(), amount=row.amount, currency="EUR", payment_method=self.method, return_url=None
        )

    def read(self) -> tuple[Observation, ...]:
        assert self.payment is not None, "it is there"
        payment_id = self.payment.id
        found = self._wait(lambda: self._provider.get_transaction(payment_id))
        assert found is not None, "it is there"
        return found.observations

    def _look(self, row: Transaction) -> None:
        if row.operation is Operation.VOID and self.payment is not None:
            # A void has no name of its own everywhere: ours is looked for by its reference.
            found = self._wait(lambda: self._found(row))
            self._observe([self._never(row, inferred=True)] if found is None else found)
            return
        super()._look(row)

    async def _found(self, row: Transaction) -> tuple[Observation, ...] | None:
        payment_id = None if self.payment is None else self.payment.id
        found = await self._provider.find_by_reference(row.id, operation=row.operation, provider_payment_id=payment_id)
        return None if found is None else found.observations


def _waited(loop: asyncio.AbstractEventLoop, make: Callable[[], Awaitable[T]]) -> T:
    async def run() -> T:
        return await make()

    return asyncio.run_coroutine_threadsafe(run(), loop).result(60)


MADE: dict[str, Callable[[str], PaymentProvider]] = {
    "sandbox": lambda url: SandboxPayments(base_url=url, api_key=SANDBOX_KEY, timeout_seconds=5),
    "stripe": lambda url: StripePayments(base_url=url, api_key=SANDBOX_KEY, timeout_seconds=5, multicapture=True),
}


@pytest.mark.parametrize("name", PROVIDERS)
async def test_over_its_adapter(name: str) -> None:
    loop = asyncio.get_running_loop()
    async with a_sandbox() as sandbox:
        provider = MADE[name](sandbox.base_url)

        class OverItsAdapter(PaymentMachine):
            @staticmethod
            def stage_of() -> OverAdapter:
                return OverAdapter(sandbox, provider, loop)

        chosen = settings(
            max_examples=ADAPTER_RUNS, stateful_step_count=ADAPTER_STEPS, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        )
        await asyncio.to_thread(run_state_machine_as_test, OverItsAdapter, settings=chosen)
        await provider.close()


class Real:
    """The system itself; the machine runs in a thread of its own and calls into the loop."""

    def __init__(self, world: World, loop: asyncio.AbstractEventLoop) -> None:
        self._world = world
        self._loop = loop
        self._payment: Payment | None = None
        self.units = UNITS[world.provider]

    def _wait(self, make: Callable[[], Awaitable[T]]) -> T:
        return _waited(self._loop, make)

    def begin(self, unit: int, method: str) -> None:
        self._method = method
        item = {**MUG, "quantity": 1, "unit_price": WHOLE * unit, "adjustments": []}
        self._order_id = self._wait(lambda: self._world.an_order(items=[item]))

    def ask(self, kind: str, amount: int | None, fate: str) -> bool:
        return self._wait(lambda: self._ask(kind, amount, fate))

    async def _ask(self, kind: str, amount: int | None, fate: str) -> bool:
        sandbox = self._world.sandbox
        snapshot_id = await self._world.a_snapshot(self._order_id) if kind == "authorize" else ""
        sandbox.weather = {"unheard": {"late": 1.0}, "unmade": {"silent": 1.0}}.get(fate, {})
        try:
            if kind == "authorize":
                answer = await self._world.authorize(self._order_id, snapshot_id, self._method)
            else:
                assert self._payment is not None, "it is authorized first"
                answer = await self._changed(self._payment, kind, amount)
        finally:
            sandbox.weather = {}
        assert answer.status in (201, 202, 402, 409, 422), answer
        if kind == "authorize":
            self._payment = Payment(self._world, self._order_id, UUID(answer.json["intent"]["id"]))
        if answer.status == 202:
            await until(self._nothing_open)  # A refund that its provider has is answered when it ends.
        return answer.status in (201, 202)

    async def _changed(self, payment: Payment, kind: str, amount: int | None) -> Answer:
        match kind:
            case "capture":
                return await payment.capture(amount)
            case "refund":
                # Nobody waits for what may take days.
                how = {"Prefer": "wait=0"} if self._method == "tok_refund_pending" else {}
                return await payment.refund(amount, headers=how)
        return await payment.void()

    def happen(self, kind: str, amount: int, status: str) -> None:
        self._wait(lambda: self._happen(kind, amount, status))

    async def _happen(self, kind: str, amount: int, status: str) -> None:
        if _can_happen(self._world.provider, self._there(), kind, amount, status):
            self._world.sandbox.books.add(self._there(), kind, amount, status=status, reason="dashboard")

    def turn(self, end: str) -> None:
        self._wait(lambda: self._turn(end))

    async def _turn(self, end: str) -> None:
        _turned(self._world.sandbox.books, self._there(), end)

    def dispute(self, body: dict[str, Any]) -> None:
        self._wait(lambda: self._dispute(body))

    async def _dispute(self, body: dict[str, Any]) -> None:
        if self._there().moved("capture"):
            self._world.sandbox.books.dispute(self._there(), body)

    def _there(self) -> Theirs:
        assert self._payment is not None, "it is authorized first"
        found: Theirs = self._payment.at_the_provider()
        return found

    def _events(self) -> list[Told]:
        if self._payment is None:
            return []
        mine = self._there().id.encode()
        return [told for told in self._world.outgoing.events.values() if mine in told.body]

    def news(self) -> int:
        return len(self._events())

    def hear(self, number: int) -> None:
        self._wait(lambda: self._hear(self._events()[number]))

    async def _hear(self, told: Told) -> None:
        again = once_more(told)
        assert (await post(self._world, again, direct=True)).status == 200
        await until(lambda: self._processed(again.id))

    async def _processed(self, event_id: str) -> bool:
        rows = await self._world.rows("SELECT status FROM webhooks.webhook_events WHERE provider_event_id = $1", event_id)
        return bool(rows and rows[0]["status"] in ("processed", "ignored"))

    def find_out(self) -> None:
        self._wait(lambda: until(self._nothing_open))

    async def _nothing_open(self) -> bool:
        return not any(row.status in ("pending", "unknown") and not row.accepted for row in (await self._sight()).rows)

    def sight(self) -> Sight:
        return self._wait(self._sight)

    async def _sight(self) -> Sight:
        assert self._payment is not None, "it is authorized first"
        ledger = await self._world.ledger(self._order_id)
        mine = ledger["payments"][0]
        intent = mine["intent"]
        amounts = {name: intent[f"{name}_amount"] for name in NAMES}
        reserved = {name: intent[name] for name in ("capture_reserved", "refund_reserved")}
        return Sight(intent["status"], {**amounts, **reserved}, tuple(_row(each) for each in mine["transactions"]))

    def theirs(self) -> Sequence[tuple[str, str, int]]:
        return [] if self._payment is None else [(o.kind, o.status, o.amount) for o in self._there().operations]

    def close(self) -> None:
        """Nothing to tidy up: every run has an order of its own."""


def _row(shown: Any) -> Row:
    moved = (shown["processed_amount"] or 0) if shown["status"] == "succeeded" else 0
    accepted = shown["operation"] == "refund" and shown["status"] in ("pending", "unknown") and shown["provider_txn_id"] is not None
    return Row(shown["id"], shown["operation"], shown["status"], shown["amount"], moved, accepted)


@pytest.fixture(params=PROVIDERS)
async def system(place: Place, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    changes = {"provider_timeout_seconds": TIMEOUT_SECONDS, "resolve_every_seconds": 0.05}
    async with a_world(place, payments=changes, webhooks={}, provider=request.param) as world:
        world.sandbox.silence_seconds = SILENCE_SECONDS
        # Nothing goes out by itself; the machine is the postman.
        world.outgoing.moods = Moods(lost=1.0)
        yield world


async def test_over_the_whole_system(system: World) -> None:
    loop = asyncio.get_running_loop()

    class OverTheSystem(PaymentMachine):
        @staticmethod
        def stage_of() -> Real:
            return Real(system, loop)

    chosen = settings(max_examples=REAL_RUNS, stateful_step_count=REAL_STEPS, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    await asyncio.to_thread(run_state_machine_as_test, OverTheSystem, settings=chosen)
