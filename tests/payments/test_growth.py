"""A long past costs nothing: no statement of the hot path reads more than the rows it is about, whenever it was planned."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from deploy import setup
from deploy.seed import seed
from shared.bus import Publisher
from shared.ids import new_id
from tests.counting import still
from tests.payments.test_observations import observed, tell
from tests.world import ORDER, PASSWORD, Payment, Place, World, a_world, until

ORDERS = 40_000
# What all the statements of the story below may read of any one index or table, rows or pages, with the jobs that run beside it.
READ_MAX = 400


@pytest.fixture(scope="module")
async def old_world(place: Place) -> AsyncIterator[World]:
    """A world whose statements were planned while its tables were empty, and whose tables then filled."""
    async with a_world(place, payments={"resolve_every_seconds": 1.0, "housekeeping_every_seconds": 1.0}) as world:
        await _everything(world)
        await seed(place.database_url, store_id=world.store_id, orders=ORDERS, analyze=False)
        # Of a busy shop's orders as many come after one as before it, so that an index by time cannot lead to it from either end.
        await world.change(
            "UPDATE payments.orders SET created_at = created_at + interval '90 days' WHERE get_byte(uuid_send(id), 15) < 128"
        )
        yield world


async def _everything(world: World) -> None:
    """Everything that happens on the hot path, once."""
    payment = await world.a_payment()
    again = await world.put_order(payment.order_id, {**ORDER, "shipping_amount": 1})
    assert again.code == "order-locked"
    key = new_id().hex
    assert (await payment.capture(4_000, key=key)).status == 201
    assert (await payment.capture(4_000, key=key)).headers["Idempotent-Replayed"] == "true"
    assert (await payment.refund(1_000)).status == 201
    assert (await payment.void()).status == 201
    in_doubt = await world.a_payment("tok_capture_timeout")
    assert (await in_doubt.capture()).status == 201
    waiting = await world.a_payment("tok_3ds_passed")
    assert (await waiting.confirm()).status == 200
    async with Publisher(world.place.amqp_url, name="tests") as publisher:
        theirs = world.sandbox.books.add(payment.at_the_provider(), "refund", 500, reason="dashboard")
        await tell(world, publisher, observed(payment, "refund", 500, provider_txn_id=theirs.id))
        await until(lambda: _refunded(payment, 1_500))


async def _refunded(payment: Payment, amount: int) -> bool:
    return bool((await payment.intent())["refunded_amount"] == amount)


async def test_the_hot_path_reads_only_the_rows_it_is_about(old_world: World) -> None:
    before = await still(old_world, within=READ_MAX)

    await _everything(old_world)

    after = await still(old_world, within=READ_MAX)
    read = {name: after[name] - before.get(name, 0) for name in after}
    assert {name: rows for name, rows in read.items() if rows > READ_MAX} == {}
    assert read["payments.payment_intents_pkey"] > 0


async def test_partitions_past_retention_go_while_calls_are_written(old_world: World) -> None:
    months = ("200001", "200002", "200003")
    for month in months:
        await old_world.change(
            f"CREATE TABLE payments.provider_call_audit_{month} PARTITION OF payments.provider_call_audit"
            f" FOR VALUES FROM ('{month[:4]}-{month[4:]}-01') TO ('{month[:4]}-{month[4:]}-28')"
        )
    working = asyncio.gather(*(old_world.a_captured_payment() for _ in range(20)))
    connection = await asyncpg.connect(setup.service_url(old_world.place.database_url, "payments", PASSWORD))
    try:
        await connection.execute("SELECT keep_audit_partitions(3, 13)")
    finally:
        await connection.close()

    payments = await working

    assert {(await payment.intent())["status"] for payment in payments} == {"captured"}
    left = await old_world.rows("SELECT FROM pg_class WHERE relname ~ '^provider_call_audit_2000'")
    assert left == []
