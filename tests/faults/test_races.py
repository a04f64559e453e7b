"""Races that a clock would have to win: forced here, each with its right outcome."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from services.gateway.domain import Role
from shared import topology
from shared.bus import Letter, Publisher, headers_of
from shared.ids import new_id
from shared.messages import Envelope, Environment
from shared.migrations import role_of
from tests.bench.client import Connection
from tests.faults.nursery import Nursery
from tests.faults.system import System, a_system
from tests.world import ORDER, TOTAL, Answer, Payment, Place, World, management, patiently, until

AT_ONCE = 50
IN_FLIGHT = 500
COPIES = 20
EVENTS = 1_000


@pytest.fixture
async def system(nursery: Nursery, own_place: Place, tmp_path: Path) -> AsyncIterator[tuple[System, World]]:
    async with a_system(nursery, own_place, tmp_path) as made:
        yield made


async def _called(world: World, kind: str, times: int) -> bool:
    return world.sandbox.calls.get(kind, 0) >= times


async def _copy_of(world: World, key: str) -> Letter:
    """Write another copy of the command that a key has under way, as a redelivery or an impatient gateway does."""
    row = (await world.rows("SELECT * FROM gateway.idempotency_keys WHERE idempotency_key = $1", key))[0]
    envelope = Envelope(
        id=row["operation_id"],
        store_id=row["store_id"],
        environment=Environment(row["environment"]),
        source="gateway",
        actor=row["actor"],
        correlation_id=row["correlation_id"],
    )
    kind = row["command_type"]
    return Letter(exchange=topology.COMMANDS, routing_key=kind, body=row["command"], headers=headers_of(envelope), type=kind)


class TestDuringTheCall:
    async def test_the_order_cannot_change(self, system: tuple[System, World]) -> None:
        _, world = system
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)
        paying = asyncio.create_task(world.authorize(order_id, snapshot_id, "tok_slow"))
        await until(lambda: _called(world, "authorize", 1))

        changed = await world.put_order(order_id, {**ORDER, "shipping_amount": 490})

        assert (changed.status, changed.code) == (409, "order-locked")
        assert (await paying).json["intent"]["authorized_amount"] == TOTAL

    async def test_copies_of_the_command_and_the_resolver_make_one_call(self, system: tuple[System, World]) -> None:
        processes, world = system
        await processes.start("payments 2")
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)
        paying = asyncio.create_task(world.authorize(order_id, snapshot_id, "tok_slow", key=key))
        await until(lambda: _called(world, "authorize", 1))

        copy = await _copy_of(world, key)
        async with Publisher(world.place.amqp_url, name="tests") as publisher:
            for _ in range(COPIES):
                await world.change("UPDATE payments.payment_transactions SET next_look_at = now() WHERE status = 'pending'")
                await publisher.publish(copy)

        assert (await paying).status == 201
        assert (world.sandbox.calls["authorize"], world.sandbox.calls.get("read", 0)) == (1, 0)
        await world.books_agree(order_id)


class TestTheKey:
    async def test_whose_reply_is_lost_is_answered_all_the_same(self, system: tuple[System, World]) -> None:
        _, world = system
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)
        paying = asyncio.create_task(world.authorize(order_id, snapshot_id, "tok_slow"))
        await until(lambda: _called(world, "authorize", 1))

        await _delete_reply_queues(world)

        assert (await paying).status == 201
        assert len(world.sandbox.books.payments) == 1

    @pytest.mark.parametrize("operation", ["capture", "refund"])
    async def test_whose_row_is_long_gone_is_still_in_the_ledger(self, system: tuple[System, World], operation: str) -> None:
        _, world = system
        payment = await (world.a_payment() if operation == "capture" else world.a_captured_payment())
        first = await _change(payment, operation, 1_000, key="once")
        await _forgotten(world, "once")

        again = await _change(payment, operation, 1_000, key="once")
        await _forgotten(world, "once")
        other = await _change(payment, operation, 2_000, key="once")

        assert (first.status, again.status) == (201, 201)
        assert again.json["transaction"]["id"] == first.json["transaction"]["id"]
        assert (other.status, other.code) == (422, "idempotency-key-reused")
        assert payment.at_the_provider().moved(operation) == 1_000
        await world.books_agree(payment.order_id)

    async def test_of_an_authorization_whose_row_is_long_gone_charges_nothing(self, system: tuple[System, World]) -> None:
        _, world = system
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)
        await world.authorize(order_id, snapshot_id, key="once")
        await _forgotten(world, "once")

        again = await world.authorize(order_id, snapshot_id, key="once")

        assert (again.status, again.code) == (409, "payment-already-active")
        assert len(world.sandbox.books.payments) == 1

    async def test_raced_fifty_times_over_two_gateways_one_of_which_dies_is_one(self, system: tuple[System, World]) -> None:
        processes, world = system
        await processes.start("gateway 2")
        other = processes.through("gateway 2", world)
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)
        gateways = [world, other]

        async def ask(number: int) -> Answer:
            # Whose gateway has died goes to the other one, as a load balancer would have it.
            tries = iter(range(number, number + 1_000))
            return await patiently(lambda: gateways[next(tries) % 2].authorize(order_id, snapshot_id, "tok_slow", key=key))

        asking = asyncio.gather(*(ask(n) for n in range(AT_ONCE)))
        await until(lambda: _called(world, "authorize", 1))
        await processes.kill("gateway")

        answers = await asking

        assert {a.status for a in answers} == {201}
        assert len({a.content for a in answers}) == 1
        assert [p.moved("authorize") for p in world.sandbox.books.payments.values()] == [TOTAL]
        await other.http.aclose()


class TestStopping:
    @pytest.mark.parametrize("name", ["payments", "gateway"])
    async def test_with_five_hundred_in_flight_loses_nothing(self, system: tuple[System, World], name: str) -> None:
        processes, world = system
        world.sandbox.weather = {"slow": 0.2}
        shop = _Crowd(world)
        quoted = await asyncio.gather(*(shop.quoted() for _ in range(IN_FLIGHT)))
        paying = asyncio.gather(*(shop.authorized(order_id, snapshot_id) for order_id, snapshot_id in quoted))
        await until(lambda: _called(world, "authorize", IN_FLIGHT // 10), timeout_seconds=60)

        await processes.stop_one(name)
        await processes.start(name)

        assert set(await paying) == {201}
        charged = Counter(p.order_id for p in world.sandbox.books.payments.values() if p.moved("authorize"))
        assert (len(charged), set(charged.values())) == (IN_FLIGHT, {1})


class _Crowd:
    """Many clients that cost little: a connection each, the same key until there is a true answer."""

    def __init__(self, world: World) -> None:
        self._url = world.gateway_url
        self._headers = {"content-type": "application/json", "authorization": f"Bearer {world.keys[Role.ADMIN]}"}

    async def quoted(self) -> tuple[UUID, str]:
        order_id = new_id()
        status, answer = await self._send("PUT", f"/api/v1/admin/orders/{order_id}", ORDER)
        assert status == 200, (status, answer)
        status, answer = await self._send("POST", "/api/v1/checkout/quote", {"order_id": order_id})
        assert status == 201, (status, answer)
        return order_id, msgspec.json.decode(answer)["snapshot_id"]

    async def authorized(self, order_id: UUID, snapshot_id: str) -> int:
        body = {"snapshot_id": snapshot_id, "payment_method": "tok_success"}
        status, _ = await self._send("POST", f"/api/v1/checkout/orders/{order_id}/payments/authorize", body)
        return status

    async def _send(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        headers = {**self._headers, "idempotency-key": new_id().hex}

        async def answered() -> tuple[int, bytes] | None:
            connection = Connection(self._url)
            try:
                status, answer = await connection.request(method, path, msgspec.json.encode(body), headers)
            except (OSError, asyncio.IncompleteReadError):
                return None
            finally:
                connection.close()
            # What is under way already, for its connection broke, or was cut off by a busy machine, is asked for again as clients do.
            again = status in (202, 408, 429, 503) or (status == 409 and msgspec.json.decode(answer).get("retry") == "after")
            return None if again else (status, answer)

        found: tuple[int, bytes] = await until(answered, timeout_seconds=120)
        return found


class TestRelay:
    async def test_killed_with_a_batch_in_flight_and_then_two_of_them_lose_no_event(self, system: tuple[System, World]) -> None:
        processes, world = system
        await processes.kill("payments")
        await _may_say_anything(world)
        ids = [new_id() for _ in range(EVENTS)]
        await world.change(
            """
            INSERT INTO payments.outbox (id, routing_key, headers, body, available_at)
            SELECT id, 'nobody.listens.v1', jsonb_build_object('id', id), '{}', now() FROM unnest($1::uuid[]) AS t (id)
            """,
            ids,
        )

        await processes.start("payments")
        await until(lambda: _some_events(world))
        await processes.kill("payments")
        await processes.start("payments")
        await processes.start("payments 2")

        await until(lambda: _outbox_empty(world))
        assert set(ids) <= {UUID(event) for event in await _events(world)}


async def _change(payment: Payment, operation: str, amount: int, **how: Any) -> Answer:
    return await (payment.capture(amount, **how) if operation == "capture" else payment.refund(amount, **how))


async def _forgotten(world: World, key: str) -> None:
    """Have a key's time run out, and its row deleted as the job does it; the inbox's row is long gone as well."""
    await world.change("DELETE FROM payments.inbox")
    # An answer goes out before it is kept.
    forget = "DELETE FROM gateway.idempotency_keys WHERE idempotency_key = $1 AND status = 'completed' RETURNING operation_id"
    assert await until(lambda: world.rows(forget, key))


async def _delete_reply_queues(world: World) -> None:
    async with management(world.place.management_url) as http:
        for queue in (await http.get(f"/api/queues/{world.place.vhost}")).json():
            if queue["name"].startswith("gateway.reply."):
                await http.delete(f"/api/queues/{world.place.vhost}/{queue['name']}")


async def _may_say_anything(world: World) -> None:
    """Let payments tell events that are not its own, so that nobody is bound to them."""
    async with management(world.place.management_url) as http:
        path = f"/api/topic-permissions/{world.place.vhost}/{role_of('payments')}"
        (await http.put(path, json={"exchange": topology.EVENTS, "write": ".*", "read": ".*"})).raise_for_status()


async def _some_events(world: World) -> bool:
    rows = await world.rows("SELECT count(*) AS left FROM payments.outbox")
    return bool(rows[0]["left"] < EVENTS)


async def _outbox_empty(world: World) -> bool:
    return not await world.rows("SELECT FROM payments.outbox LIMIT 1")


async def _events(world: World) -> list[str]:
    async with management(world.place.management_url) as http:
        answer = await http.post(
            f"/api/queues/{world.place.vhost}/{topology.UNROUTED_QUEUE}/get",
            json={"count": 10 * EVENTS, "ackmode": "ack_requeue_false", "encoding": "auto"},
        )
    return [message["properties"]["headers"]["id"] for message in answer.json()]
