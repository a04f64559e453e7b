"""Two processes at one payment: what was decided on an old state is not written, and a lost lease neither sends nor writes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import UUID

import msgspec
import pytest

from services.payments.domain.intents import Operation, Transaction, TransactionStatus
from services.payments.domain.orders import OrderStatus
from services.payments.providers.sandbox import SandboxPayments
from services.payments.store import intents, ledger, orders, questions
from services.payments.store.intents import Seen
from services.payments.store.questions import Question
from shared.bus import Publisher
from shared.database import Pool, Rows, Statement, connected, open_pool
from shared.errors import Contended
from shared.ids import new_id
from shared.messages import Envelope, Environment
from tests.locks import rows_held, waiting
from tests.payments.test_observations import observed, tell
from tests.world import ORDER, SANDBOX_KEY, TOTAL, Payment, Place, World, a_world, payments_settings, until

LEASE_SECONDS = 2.0


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    """A world in which only the tests bring a second process: no job comes round by itself, and the gateway sends no command again."""
    never = dict.fromkeys(("resolve_every_seconds", "housekeeping_every_seconds"), 3600.0)
    payments = {**never, "lease_seconds": LEASE_SECONDS, "provider_timeout_seconds": 30.0}
    async with a_world(place, payments=payments, gateway={"redrive_after_seconds": 3600.0}) as made:
        yield made


@pytest.fixture(scope="module")
async def pool(place: Place) -> AsyncIterator[Pool]:
    opened = await open_pool(payments_settings(place, "").database_url, connections=4)
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
async def publisher(place: Place) -> AsyncIterator[Publisher]:
    async with Publisher(place.amqp_url, name="tests") as made:
        yield made


def an_envelope(world: World) -> Envelope:
    return Envelope(
        id=new_id(), store_id=world.store_id, environment=Environment.SANDBOX, source="tests", actor="tests", correlation_id="tests"
    )


def a_row(operation: Operation, amount: int) -> Transaction:
    return Transaction(id=new_id(), operation=operation, amount=amount, status=TransactionStatus.PENDING)


async def seen_of(pool: Pool, world: World, payment: Payment) -> Seen:
    async with connected(pool) as db:
        seen = await intents.see_intent(db.fetchrow, an_envelope(world), payment.id)
    assert seen is not None
    return seen


async def order_of(pool: Pool, world: World, payment: Payment) -> orders.Order:
    async with connected(pool) as db:
        order = await orders.get_order(db, an_envelope(world), payment.order_id)
    assert order is not None
    return order


Decided = Callable[[Envelope, Seen, orders.Order], Statement]


def _intent_changed(_: Envelope, seen: Seen, __: orders.Order) -> Statement:
    after = msgspec.structs.replace(seen.intent, attention="of yesterday", version=seen.intent.version + 1)
    return intents.changed(seen.intent, after)


DECIDED: dict[str, Decided] = {
    "an intent's amounts": _intent_changed,
    "a capture's reservation": lambda _, seen, __: intents.reserved(seen.intent, a_row(Operation.CAPTURE, 1_000))[1],
    "a void's, which reserves nothing": lambda _, seen, __: intents.reserved(seen.intent, a_row(Operation.VOID, 1_000))[1],
    "an intent that stays": lambda _, seen, __: intents.unchanged(seen.intent),
    "an order's status": lambda envelope, seen, order: orders.stands(
        envelope, order.id, revision=seen.order_revision, status=OrderStatus.OPEN
    ),
    "an order's content": lambda envelope, _, order: orders.changed_order(
        envelope, order, msgspec.structs.replace(order, status=OrderStatus.OPEN, version=order.version + 1), None
    ),
}
OTHERS = (
    "UPDATE payments.payment_intents SET version = version + 1 WHERE order_id = $1",
    "UPDATE payments.orders SET revision = revision + 1 WHERE id = $1",
)
BOTH = """
    SELECT i.version, i.attention, i.capture_reserved, o.status, o.version AS order_version, o.revision
      FROM payments.payment_intents i JOIN payments.orders o ON o.id = i.order_id
     WHERE i.id = $1
"""


class TestWhatWasSeen:
    """Every `version` and `revision` in the SQL of payments: an update of what was changed in between would be lost."""

    @pytest.mark.parametrize("what", DECIDED)
    async def test_is_written_only_while_it_is_so(self, world: World, pool: Pool, what: str) -> None:
        payment = await world.a_payment()
        envelope, rows = an_envelope(world), Rows(pool)
        statement = DECIDED[what](envelope, await seen_of(pool, world, payment), await order_of(pool, world, payment))
        for change in OTHERS:
            await world.change(change, payment.order_id)
        before = await world.rows(BOTH, payment.id)

        with pytest.raises(Contended):
            await rows.write([statement])

        assert await world.rows(BOTH, payment.id) == before
        await rows.write([DECIDED[what](envelope, await seen_of(pool, world, payment), await order_of(pool, world, payment))])

    @pytest.mark.parametrize("operation", [Operation.CAPTURE, Operation.REFUND])
    async def test_reserves_no_more_than_is_there(self, world: World, pool: Pool, operation: Operation) -> None:
        payment = await (world.a_payment() if operation is Operation.CAPTURE else world.a_captured_payment())
        seen, rows = await seen_of(pool, world, payment), Rows(pool)

        with pytest.raises(Contended):
            await rows.write([intents.reserved(seen.intent, a_row(operation, TOTAL + 1))[1]])

        _, all_of_it = intents.reserved(seen.intent, a_row(operation, TOTAL))
        await rows.write([all_of_it])

    async def test_an_order_is_made_once(self, world: World, pool: Pool) -> None:
        order_id = await world.an_order()
        order = await order_of(pool, world, Payment(world, order_id, new_id()))

        with pytest.raises(Contended):
            await Rows(pool).write([orders.new_order(an_envelope(world), order, None)])

    async def test_a_payment_that_waited_is_gone_on_with_once(self, world: World, pool: Pool) -> None:
        payment, rows = await world.a_payment("tok_3ds"), Rows(pool)
        seen = await seen_of(pool, world, payment)
        other = await seen_of(pool, world, await world.a_payment())

        def continued(intent: Any, row: Transaction) -> Statement:
            return questions.continued(
                intent, row, answers=an_envelope(world), command_type="tests", command_digest=b"", lease_seconds=LEASE_SECONDS
            )

        for intent, row in ((other.intent, seen.transactions[0]), (other.intent, other.transactions[0])):
            with pytest.raises(Contended):
                await rows.write([continued(intent, row)])
        await rows.write([continued(seen.intent, seen.transactions[0])])
        with pytest.raises(Contended):
            await rows.write([continued(seen.intent, seen.transactions[0])])


class _Gate:
    """Holds every call of the provider that changes something until it is opened."""

    def __init__(self, world: World) -> None:
        self._gate, self._sandbox, self.came = asyncio.Event(), world.sandbox, asyncio.Event()

    def open(self) -> None:
        self._gate.set()

    def __enter__(self) -> "_Gate":
        before = self._sandbox._before

        async def wait(*arguments: Any) -> Any:
            self.came.set()
            await self._gate.wait()
            return await before(*arguments)

        self._sandbox._before = wait  # type: ignore[assignment, method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        del self._sandbox._before


class TestHeld:
    """Each held between its reading and its writing, while the other changes what it has read."""

    async def test_news_set_no_reservation_back(self, world: World, publisher: Publisher) -> None:
        """Of writing an intent as it was seen before an operation reserved: until that is answered, its amount would be free."""
        payment = await world.a_payment()
        with _Gate(world) as gate:
            async with rows_held(world.place, "payments.payment_intents WHERE id = $1", payment.id):
                taking = asyncio.create_task(payment.capture(4_000))
                await waiting(world.place, 1)
                theirs = world.sandbox.books.add(payment.at_the_provider(), "capture", 1_000, reason="dashboard")
                await tell(world, publisher, observed(payment, "capture", 1_000, provider_txn_id=theirs.id))
                await waiting(world.place, 2)
            found = await until(lambda: _at(payment, captured_amount=1_000))
            gate.open()

        assert found["capture_reserved"] == 4_000
        assert (await taking).status == 201
        assert await _at(payment, captured_amount=5_000, capture_reserved=0)
        await world.books_agree(payment.order_id)

    async def test_an_operation_looks_again_after_news(self, world: World, publisher: Publisher) -> None:
        """Of reserving on an intent that has changed: here it is frozen since, so that nothing may be asked of its provider."""
        payment, before = await world.a_payment(), world.sandbox.calls.get("capture", 0)

        async with rows_held(world.place, "payments.payment_intents WHERE id = $1", payment.id):
            await tell(world, publisher, observed(payment, "refund", 500))
            await waiting(world.place, 1)
            taking = asyncio.create_task(payment.capture(4_000))
            await waiting(world.place, 2)
        answer = await taking

        assert (answer.status, answer.code) == (409, "invalid-payment-state")
        assert world.sandbox.calls.get("capture", 0) == before
        assert await _at(payment, status="conflicted", capture_reserved=0)

    async def test_an_order_changed_at_once_is_not_charged(self, world: World) -> None:
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)

        async with rows_held(world.place, "payments.orders WHERE id = $1", order_id):
            changing = asyncio.create_task(world.put_order(order_id, {**ORDER, "shipping_amount": 490}))
            await waiting(world.place, 1)
            paying = asyncio.create_task(world.authorize(order_id, snapshot_id))
            await waiting(world.place, 2)

        assert ((await changing).status, (await paying).code) == (200, "order-changed")
        assert [p for p in world.sandbox.books.payments.values() if p.order_id == str(order_id)] == []

    async def test_an_order_paid_at_once_is_not_changed(self, world: World) -> None:
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)

        with _Gate(world) as gate:
            async with rows_held(world.place, "payments.orders WHERE id = $1", order_id):
                paying = asyncio.create_task(world.authorize(order_id, snapshot_id))
                await waiting(world.place, 1)
                changing = asyncio.create_task(world.put_order(order_id, {**ORDER, "shipping_amount": 490}))
                await waiting(world.place, 2)
            changed = await changing
            gate.open()

        assert (changed.status, changed.code) == (409, "order-locked")
        assert (await paying).status == 201
        await world.books_agree(order_id)


async def _at(payment: Payment, **facts: Any) -> Any:
    intent = await payment.intent()
    return intent if all(intent[name] == value for name, value in facts.items()) else None


LEASE = """
    SELECT id, lease_token, looks, status, next_look_at, lease_expires_at, lease_expires_at - created_at AS lasts,
           lease_expires_at > now() + interval '30 minutes' AS long
      FROM payments.payment_transactions
     WHERE payment_intent_id = $1 AND operation = 'capture'
"""
OPEN = """
    INSERT INTO payments.payment_transactions (id, payment_intent_id, store_id, environment, operation, idempotency_key, command_id,
                                               answers, command_type, command_digest, provider_idempotency_key, provider_account, amount,
                                               status, source, request, actor, correlation_id, next_look_at, lease_expires_at)
    SELECT gen_random_uuid(), payment_intent_id, store_id, environment, 'capture', gen_random_uuid()::text, gen_random_uuid(),
           gen_random_uuid(), 'job', '', gen_random_uuid()::text, provider_account, 1, 'pending', source, 'null', actor, correlation_id,
           now(), now() + make_interval(secs => $2)
      FROM payments.payment_transactions
     WHERE payment_intent_id = $1 AND operation = 'authorize'
    RETURNING id
"""
ANOTHERS = """
    UPDATE payments.payment_transactions
       SET lease_token = lease_token + 1, lease_expires_at = now() + interval '1 hour', next_look_at = now() + interval '1 hour'
     WHERE payment_intent_id = $1 AND operation = 'capture'
"""


async def lease_of(world: World, payment: Payment) -> Any:
    rows = await world.rows(LEASE, payment.id)
    return rows[0] if rows else None


async def an_open_question(world: World, pool: Pool, *, lease_seconds: float) -> tuple[Payment, Question]:
    """A payment with a capture that was asked, and whose lease lasts so long."""
    payment = await world.a_payment()
    [row] = await world.rows(OPEN, payment.id, lease_seconds)
    return payment, await questions.question(pool, row["id"])


class TestLease:
    async def test_an_old_token_changes_nothing(self, world: World, pool: Pool) -> None:
        """Of a process that renews a lease, or gives a row back, after it lost the lease."""
        payment, lost = await an_open_question(world, pool, lease_seconds=3600)
        await world.change(ANOTHERS, payment.id)
        before = await lease_of(world, payment)

        renewed = await questions.renew(pool, lost, lease_seconds=LEASE_SECONDS)
        await Rows(pool).write([questions.unknown(lost, look_again_seconds=0)])

        assert (renewed, await lease_of(world, payment)) == (False, before)
        held_by = await questions.question(pool, lost.transaction_id)
        assert await questions.renew(pool, held_by, lease_seconds=7200)
        assert (await lease_of(world, payment))["lease_expires_at"] > before["lease_expires_at"]
        await Rows(pool).write([questions.unknown(held_by, look_again_seconds=3600)])
        assert (await lease_of(world, payment))["status"] == "unknown"

    async def test_what_is_leased_or_over_is_not_taken(self, world: World, pool: Pool) -> None:
        payment, leased = await an_open_question(world, pool, lease_seconds=3600)
        over = (await world.a_payment()).id
        [ended] = await world.rows("SELECT id FROM payments.payment_transactions WHERE payment_intent_id = $1", over)

        assert await questions.take_one(pool, leased.transaction_id, lease_seconds=3600) is None
        assert await questions.take_one(pool, ended["id"], lease_seconds=3600) is None
        await Rows(pool).write([questions.unknown(await questions.question(pool, ended["id"]), look_again_seconds=0)])
        assert {leased.transaction_id, ended["id"]} & set(await _taken(pool)) == set()
        assert (await lease_of(world, payment))["lease_token"] == leased.lease_token
        await world.change(ANOTHERS, payment.id)

    @pytest.mark.parametrize("take", ["one", "due"])
    async def test_what_is_free_is_taken_by_one_of_many(self, world: World, pool: Pool, take: str) -> None:
        payment, free = await an_open_question(world, pool, lease_seconds=0)

        async def taken() -> list[int]:
            if take == "one":
                found = await questions.take_one(pool, free.transaction_id, lease_seconds=3600)
                return [] if found is None else [found.lease_token]
            return [token for each, token in (await _taken(pool)).items() if each == free.transaction_id]

        found = await asyncio.gather(*(taken() for _ in range(4)))
        assert [token for tokens in found for token in tokens] == [free.lease_token + 1]
        await world.change(ANOTHERS, payment.id)

    async def test_news_of_what_is_open_leave_its_lease(self, world: World, pool: Pool) -> None:
        """The holder lets it go; an event that comes while its call is out does not, and does not make an unknown outcome pending."""
        payment, leased = await an_open_question(world, pool, lease_seconds=3600)
        seen = await seen_of(pool, world, payment)
        row = next(each for each in seen.transactions if each.id == leased.transaction_id)
        before = await lease_of(world, payment)

        await Rows(pool).write([ledger.changed(row, now=seen.now, next_look_seconds=None)])
        assert await lease_of(world, payment) == before

        await Rows(pool).write([ledger.changed(row, now=seen.now, next_look_seconds=3600)])
        after = await lease_of(world, payment)
        assert after["lease_expires_at"] < before["lease_expires_at"]
        assert after["next_look_at"] > before["next_look_at"]

        await Rows(pool).write([questions.unknown(leased, look_again_seconds=3600)])
        await Rows(pool).write([ledger.changed(row, now=seen.now, next_look_seconds=None)])
        assert (await lease_of(world, payment))["status"] == "unknown"

    async def test_what_is_due_later_is_not_taken(self, world: World, pool: Pool) -> None:
        payment, free = await an_open_question(world, pool, lease_seconds=0)
        later = "UPDATE payments.payment_transactions SET next_look_at = now() + interval '1 hour' WHERE id = $1"
        await world.change(later, free.transaction_id)

        assert free.transaction_id not in await _taken(pool)
        await world.change(ANOTHERS, payment.id)

    async def test_is_kept_while_the_provider_is_asked(self, world: World, pool: Pool) -> None:
        """Of leases that are never renewed: another would ask the same while the first call is out."""
        payment = await world.a_payment()
        with _Gate(world) as gate:
            taking = asyncio.create_task(payment.capture(4_000))
            row = await until(lambda: lease_of(world, payment))

            async def renewed() -> bool:
                now = await lease_of(world, payment)
                return bool(now["lasts"] > row["lasts"])

            await until(renewed)
            assert await questions.take_one(pool, row["id"], lease_seconds=LEASE_SECONDS) is None
            gate.open()

        assert (await taking).status == 201
        now = await lease_of(world, payment)
        assert (now["lease_token"], now["looks"]) == (1, 0)

    async def test_that_ran_out_before_sending_sends_nothing(self, world: World) -> None:
        """A process that froze for longer than its lease: another may be at it, so what became of it is looked up first."""
        payment = await world.a_payment()

        async with rows_held(world.place, "payments.payment_intents WHERE id = $1", payment.id):
            taking = asyncio.create_task(payment.capture(4_000))
            await waiting(world.place, 1, longer_than_seconds=LEASE_SECONDS)

        assert (await taking).status == 201
        now = await lease_of(world, payment)
        asked = "SELECT operation FROM payments.provider_call_audit WHERE transaction_id = $1 ORDER BY operation"
        assert [row["operation"] for row in await world.rows(asked, now["id"])] == ["capture", "find_by_reference"]
        assert (now["lease_token"], now["looks"]) == (2, 1)

    async def test_that_was_lost_while_looking_repeats_nothing(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a resolver that froze after its look: another process has the lease by now, so it neither sends nor writes."""
        payment = await world.a_payment()
        with _locked_out(world):
            await payment.capture(4_000, headers={"Prefer": "respond-async"})
            await until(lambda: _unknown(world, payment))
        looking, renewals = _Looking(monkeypatch), _Renewals(monkeypatch)
        before = world.sandbox.calls.get("capture", 0)

        # The next capture resolves the unknown one first.
        asking = asyncio.create_task(payment.capture(1_000))
        await looking.came.wait()
        await world.change(ANOTHERS, payment.id)
        theirs = await lease_of(world, payment)
        await renewals.one_more()
        looking.gate.set()
        answer = await asking

        assert (answer.status, answer.json["retry"]) == (409, "after")
        assert await lease_of(world, payment) == theirs
        assert world.sandbox.calls.get("capture", 0) == before


async def _taken(pool: Pool) -> dict[UUID, int]:
    return {each.transaction_id: each.lease_token for each in await questions.take_due(pool, lease_seconds=3600)}


@contextlib.contextmanager
def _locked_out(world: World) -> Iterator[None]:
    """Have the provider turn our key away."""
    world.sandbox.api_key = "another"
    yield
    world.sandbox.api_key = SANDBOX_KEY


async def _unknown(world: World, payment: Payment) -> bool:
    """Tell whether the one look is over that comes at once."""
    now = await lease_of(world, payment)
    return now is not None and (now["status"], now["looks"]) == ("unknown", 1) and bool(now["next_look_at"] > now["lease_expires_at"])


class _Looking:
    """Holds a look for what became of an operation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.came, self.gate = asyncio.Event(), asyncio.Event()
        look = SandboxPayments.find_by_reference

        async def wait(*arguments: Any, **facts: Any) -> Any:
            self.came.set()
            await self.gate.wait()
            return await look(*arguments, **facts)

        monkeypatch.setattr(SandboxPayments, "find_by_reference", wait)


class _Renewals:
    """Counts the renewals of leases."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._count = 0
        renew = questions.renew

        async def counted(*arguments: Any, **facts: Any) -> bool:
            found = await renew(*arguments, **facts)
            self._count += 1
            return found

        monkeypatch.setattr(questions, "renew", counted)

    async def one_more(self) -> None:
        """Wait for one that begins from now on."""
        wanted = self._count + 1

        async def there() -> bool:
            return self._count >= wanted

        await until(there)
