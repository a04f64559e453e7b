"""The broker or the database is stopped and started under load: nothing is lost, nothing happens twice."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from deploy import setup
from deploy.servers import postgres, rabbitmq
from deploy.state import Instance, free_port
from shared import topology
from shared.ids import new_id
from tests.world import PASSWORD, Answer, Place, World, a_world, until

ORDERS = 12


async def _checkout(world: World, number: int) -> Answer:
    """Pay an order with patience: the same key until there is an answer."""
    order_id = new_id()
    content = {"currency": "EUR", "items": [_item(number)]}
    pushed = await _until_answered(lambda: world.put_order(order_id, content, key=f"order-{number}"))
    assert pushed.status == 200, pushed
    quoted = await _until_answered(lambda: world.quote(order_id, key=f"quote-{number}"))
    assert quoted.status == 201, quoted
    snapshot_id = quoted.json["snapshot_id"]
    return await _until_answered(lambda: world.authorize(order_id, snapshot_id, key=f"pay-{number}"))


def _item(number: int) -> Any:
    return {"product_variant_id": str(new_id()), "name": f"Item {number}", "quantity": 1, "unit_price": 100 + number}


async def _until_answered(send: Any) -> Answer:
    async def answered() -> Answer | None:
        answer: Answer = await send()
        return answer if answer.status not in (202, 500, 503) else None

    found: Answer = await until(answered, timeout_seconds=60)
    return found


async def _nothing_lost_nothing_twice(world: World, answers: list[Answer]) -> None:
    assert Counter(a.status for a in answers) == {201: ORDERS}
    charged = Counter(p.order_id for p in world.sandbox.books.payments.values() if p.moved("authorize"))
    assert set(charged.values()) == {1}
    assert len(charged) == ORDERS
    rows = await world.rows("SELECT status FROM payments.payment_intents")
    assert Counter(row["status"] for row in rows) == {"authorized": ORDERS}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestBroker:
    async def test_stopped_and_started(self, own_place: Place, tmp_path: Path) -> None:
        installation = rabbitmq.installed()
        if installation is None:
            pytest.skip("RabbitMQ is not installed here, so a second one cannot be run")
        instance, ports = Instance(tmp_path, "broker"), rabbitmq.free_ports()
        loop = asyncio.get_running_loop()
        broker = rabbitmq.private(instance, installation, ports=ports)
        amqp_url, _ = await loop.run_in_executor(None, broker.__enter__)
        await topology.declare(amqp_url, setup.CONSUMERS)
        place = Place(database_url=own_place.database_url, amqp_url=amqp_url, management_url=None, vhost="/")
        async with a_world(place) as world:
            working = asyncio.gather(*(_checkout(world, n) for n in range(ORDERS)))
            await loop.run_in_executor(None, broker.__exit__, None, None, None)
            broker = rabbitmq.private(instance, installation, ports=ports)
            await loop.run_in_executor(None, broker.__enter__)

            answers = await working

            await _nothing_lost_nothing_twice(world, answers)
        await loop.run_in_executor(None, broker.__exit__, None, None, None)


class TestDatabase:
    async def test_stopped_and_started(self, own_place: Place, tmp_path: Path) -> None:
        instance, port = Instance(tmp_path, "database"), free_port()
        loop = asyncio.get_running_loop()
        server = postgres.embedded(instance, port=port)
        owner_url = await loop.run_in_executor(None, server.__enter__)
        database_url = await setup.create_database(owner_url, "tender")
        await setup.prepare(database_url, own_place.amqp_url, password=PASSWORD)
        place = Place(database_url=database_url, amqp_url=own_place.amqp_url, management_url=None, vhost=own_place.vhost)
        async with a_world(place) as world:
            working = asyncio.gather(*(_checkout(world, n) for n in range(ORDERS)))
            await loop.run_in_executor(None, server.__exit__, None, None, None)
            server = postgres.embedded(instance, port=port)
            await loop.run_in_executor(None, server.__enter__)

            answers = await working

            await _nothing_lost_nothing_twice(world, answers)
        await loop.run_in_executor(None, server.__exit__, None, None, None)

    async def test_every_connection_cut(self, own_place: Place) -> None:
        async with a_world(own_place) as world:
            working = asyncio.gather(*(_checkout(world, n) for n in range(ORDERS)))
            for _ in range(3):
                await world.rows(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

            answers = await working

            await _nothing_lost_nothing_twice(world, answers)
