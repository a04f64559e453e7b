"""A process dies in the middle: the client's retry gets the true answer, and the sandbox shows one effect."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from shared.bus import Publisher
from shared.ids import new_id
from tests.faults.nursery import Nursery
from tests.faults.system import System, a_system
from tests.payments.test_observations import observed, tell
from tests.world import ORDER, TOTAL, Answer, Payment, Place, World, patiently, until

ANSWERED_TOO_LATE = {
    "authorize": "tok_timeout_after_success",
    "confirm": "tok_3ds_timeout",
    "capture": "tok_capture_timeout",
    "refund": "tok_refund_timeout",
    "void": "tok_void_timeout",
}


@pytest.fixture
async def system(nursery: Nursery, own_place: Place, tmp_path: Path) -> AsyncIterator[tuple[System, World]]:
    # The pause of a payment that waits for its customer is made long, so that a crash that waited for it would fail the test.
    async with a_system(nursery, own_place, tmp_path, customer_look_seconds=3600) as made:
        yield made


async def _called(world: World, kind: str, times: int) -> bool:
    return world.sandbox.calls.get(kind, 0) >= times


class TestPaymentsDies:
    @pytest.mark.parametrize("operation", ["authorize", "confirm", "capture", "refund", "void"])
    async def test_while_the_provider_acts(self, system: tuple[System, World], operation: str) -> None:
        processes, world = system
        send = await _prepared(world, operation, ANSWERED_TOO_LATE[operation])
        before = world.sandbox.calls.get(operation, 0)
        first = asyncio.create_task(send())
        await until(lambda: _called(world, operation, before + 1))

        await processes.kill("payments")
        await processes.start("payments")

        answer = await patiently(send)
        told = 200 if operation == "confirm" else 201
        assert answer.status == told
        assert (await first).status in (told, 202)
        payment = next(iter(world.sandbox.books.payments.values()))
        kind = "authorize" if operation == "confirm" else operation
        assert [o.status for o in payment.operations if o.kind == kind] == ["succeeded"]
        await world.books_agree(_order_of(world))

    @pytest.mark.parametrize("what", ["put order", "quote"])
    async def test_in_the_middle_of_its_only_transaction(self, system: tuple[System, World], what: str) -> None:
        processes, world = system
        order_id, key = await world.an_order(), new_id().hex

        async def send() -> Answer:
            if what == "quote":
                return await world.quote(order_id, key=key)
            return await world.put_order(order_id, {**ORDER, "shipping_amount": 490}, key=key)

        async with _held(world, order_id):
            first = asyncio.create_task(send())
            await until(lambda: _waits_for_a_lock(world))
            await processes.kill("payments")
        await processes.start("payments")

        answer = await patiently(send)
        assert answer.status == (201 if what == "quote" else 200), answer
        assert (await first).status in (answer.status, 202)
        order = (await world.rows("SELECT version FROM payments.orders WHERE id = $1", order_id))[0]
        snapshots = await world.rows("SELECT FROM payments.order_checkout_snapshots WHERE order_id = $1", order_id)
        assert (order["version"], len(snapshots)) == ((1, 1) if what == "quote" else (2, 0))

    async def test_in_the_middle_of_an_observation(self, system: tuple[System, World]) -> None:
        processes, world = system
        payment = await world.a_captured_payment()
        refunded = world.sandbox.books.add(payment.at_the_provider(), "refund", 2_000, reason="dashboard")
        async with Publisher(world.place.amqp_url, name="tests") as publisher, _held(world, payment.order_id):
            await tell(world, publisher, observed(payment, "refund", 2_000, provider_txn_id=refunded.id))
            await until(lambda: _waits_for_a_lock(world))
            await processes.kill("payments")
        await processes.start("payments")

        await until(lambda: _refunded(payment, 2_000))
        await world.books_agree(payment.order_id)

    async def test_and_its_stop_waits_for_what_is_in_hand(self, system: tuple[System, World]) -> None:
        processes, world = system
        send = await _prepared(world, "authorize", "tok_slow")
        first = asyncio.create_task(send())
        await until(lambda: _called(world, "authorize", 1))

        stopping = processes.ask_to_stop("payments")

        assert (await first).status == 201
        await until(lambda: _over(stopping))


@contextlib.asynccontextmanager
async def _held(world: World, order_id: UUID) -> AsyncIterator[None]:
    """Hold an order's row, so that whoever needs it stands in the middle of its transaction."""
    connection = await asyncpg.connect(world.place.database_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM payments.orders WHERE id = $1 FOR UPDATE", order_id)
            yield
    finally:
        await connection.close()


async def _waits_for_a_lock(world: World) -> bool:
    return bool(await world.rows("SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"))


async def _refunded(payment: Payment, amount: int) -> bool:
    return bool((await payment.intent())["refunded_amount"] == amount)


async def _over(process: Any) -> bool:
    return not process.running


class TestGatewayDies:
    async def test_before_the_reply_and_another_one_answers(self, system: tuple[System, World]) -> None:
        processes, world = system
        await processes.start("gateway 2")
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)
        first = asyncio.create_task(world.authorize(order_id, snapshot_id, "tok_slow", key=key))
        await until(lambda: _called(world, "authorize", 1))

        await processes.kill("gateway")
        with pytest.raises(httpx.HTTPError):
            await first
        other = processes.through("gateway 2", world)
        answer = await patiently(lambda: other.authorize(order_id, snapshot_id, "tok_slow", key=key))

        assert (answer.status, answer.json["intent"]["authorized_amount"]) == (201, TOTAL)
        assert len(world.sandbox.books.payments) == 1
        await other.http.aclose()

    async def test_and_what_it_left_is_finished_without_anybody_asking(self, system: tuple[System, World]) -> None:
        processes, world = system
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)
        first = asyncio.create_task(world.authorize(order_id, snapshot_id, "tok_slow", key=key))
        await until(lambda: _called(world, "authorize", 1))

        await processes.kill("gateway")
        with pytest.raises(httpx.HTTPError):
            await first
        await processes.start("gateway")

        rows = await until(lambda: _completed(world, key))
        assert rows[0]["response_code"] == 201

    async def test_two_gateways_have_one_answer(self, system: tuple[System, World]) -> None:
        processes, world = system
        await processes.start("gateway 2")
        other = processes.through("gateway 2", world)
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)

        answers = await asyncio.gather(*(w.authorize(order_id, snapshot_id, key=key) for w in (world, other) for _ in range(10)))

        assert {a.status for a in answers} == {201}
        assert len({a.content for a in answers}) == 1
        assert len(world.sandbox.books.payments) == 1
        await other.http.aclose()


async def _completed(world: World, key: str) -> Any:
    return await world.rows("SELECT * FROM gateway.idempotency_keys WHERE idempotency_key = $1 AND status = 'completed'", key)


async def _prepared(world: World, operation: str, token: str) -> Any:
    key = new_id().hex
    if operation == "authorize":
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)
        return lambda: world.authorize(order_id, snapshot_id, token, key=key)
    payment: Payment = await (world.a_captured_payment(token) if operation == "refund" else world.a_payment(token))
    return {
        "confirm": lambda: payment.confirm(key=key),
        "capture": lambda: payment.capture(4_000, key=key),
        "refund": lambda: payment.refund(4_000, key=key),
        "void": lambda: payment.void(key=key),
    }[operation]


def _order_of(world: World) -> Any:
    return next(iter(world.sandbox.books.payments.values())).order_id
