"""The broker's own counters: each command passes payments.in, a failing one the retry tiers, and then payments.dead."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared import topology
from tests.shared.probe import take
from tests.world import ORDER, Place, World, a_world, management, until


@pytest.fixture
async def broken(own_place: Place) -> AsyncIterator[World]:
    """A world whose orders cannot be written: a bug, as far as payments can tell."""
    if own_place.management_url is None:
        pytest.skip("needs the broker's management API for its counters")
    async with a_world(own_place) as world:
        yield world


async def _published(world: World, queue: str) -> int:
    async with management(world.place.management_url) as http:
        found: Any = (await http.get(f"/api/queues/{world.place.vhost}/{queue}")).json()
    stats = found.get("message_stats", {})
    return int(stats.get("publish", 0))


async def test_a_failing_command_passes_the_tiers_and_is_parked_with_its_reason(broken: World) -> None:
    order_id = await broken.an_order()
    await broken.change("ALTER TABLE payments.order_checkout_snapshots RENAME TO elsewhere")

    answer = await broken.quote(order_id, headers={"Prefer": "wait=1"})

    assert answer.status == 202
    dead = await until(lambda: take(broken.place, topology.dead_queue("payments")))
    assert dead.type == "payments.quote.v1"
    assert "order_checkout_snapshots" in dead.headers["dead_reason"]
    assert dead.headers["dead_attempts"] == 3
    assert "in quote" in dead.headers["dead_traceback"]
    await until(lambda: _at_least(broken, topology.lane("payments"), 2))
    await until(lambda: _at_least(broken, "payments.retry.1s.v2", 2))
    await until(lambda: _at_least(broken, topology.dead_queue("payments"), 1))


async def _at_least(world: World, queue: str, count: int) -> bool:
    return await _published(world, queue) >= count


async def test_a_poisoned_neighbour_holds_nobody_up(broken: World) -> None:
    order_id = await broken.an_order()
    await broken.change("ALTER TABLE payments.order_checkout_snapshots RENAME TO elsewhere")
    await broken.quote(order_id, headers={"Prefer": "respond-async"})

    answer = await broken.put_order(order_id, {**ORDER, "shipping_amount": 1})

    assert answer.status == 200
