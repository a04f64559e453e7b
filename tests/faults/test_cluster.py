"""A cluster of three brokers loses the node that leads our queues: the other two go on, and nothing is lost or done twice."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy import broker_users
from deploy.servers import rabbitmq
from deploy.state import Instance
from shared import topology
from tests.faults.audit import audit, report
from tests.faults.nursery import Nursery
from tests.faults.shopping import Shop
from tests.faults.system import a_system
from tests.world import PASSWORD, Place, management, until

NODES = 3
SHOPPERS = 6
ANSWERS = 20

pytestmark = pytest.mark.cluster


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[list[rabbitmq.Private]]:
    installation = rabbitmq.installed() or rabbitmq.downloaded(Instance(tmp_path, "servers"), lambda _: None)
    first = rabbitmq.Private(Instance(tmp_path, "node1"), installation)
    nodes = [first, *(rabbitmq.Private(Instance(tmp_path, f"node{n}"), installation, beside=first) for n in range(2, NODES + 1))]
    try:
        await asyncio.to_thread(first.start)
        for node in nodes[1:]:
            await asyncio.to_thread(node.start)
            await asyncio.to_thread(node.join)
        yield nodes
    finally:
        for node in reversed(nodes):
            await asyncio.to_thread(node.stop)


async def test_loses_its_leader(nursery: Nursery, own_place: Place, tmp_path: Path, cluster: list[rabbitmq.Private]) -> None:
    near, leading, _ = cluster
    # Whoever declares a queue leads it.
    await topology.declare(leading.amqp_url, topology.CONSUMERS)
    await broker_users.make(leading.management_url, password=PASSWORD)
    await broker_users.grant(leading.management_url, "/")
    await until(lambda: _replicated(near))
    assert await _leader(near) == leading.node
    place = Place(database_url=own_place.database_url, amqp_url=near.amqp_url, management_url=near.management_url, vhost="/")
    async with a_system(nursery, place, tmp_path) as (_, world):
        shop = Shop(world, random.Random(3))
        shopping = asyncio.create_task(shop.shoppers(SHOPPERS))
        await shop.more_answers(ANSWERS)

        assert leading.process is not None
        leading.process.send_group(signal.SIGKILL)

        await until(lambda: _led_by_another(near, leading.node), timeout_seconds=60)
        await shop.more_answers(ANSWERS)
        shop.close()
        await shopping
        counters = await audit(world, shop.attempts)
    assert counters.clean, report(counters)
    assert counters.acknowledged > ANSWERS


async def _queue(node: rabbitmq.Private) -> dict[str, object]:
    async with management(node.management_url) as http:
        found: dict[str, object] = (await http.get(f"/api/queues/%2F/{topology.lane('payments')}")).json()
        return found


async def _leader(node: rabbitmq.Private) -> object:
    return (await _queue(node)).get("leader")


async def _replicated(node: rabbitmq.Private) -> bool:
    online = (await _queue(node)).get("online")
    return isinstance(online, list) and len(online) == NODES


async def _led_by_another(node: rabbitmq.Private, dead: str) -> bool:
    return await _leader(node) not in (None, "", dead)
