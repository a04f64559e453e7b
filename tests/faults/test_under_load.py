"""Every fault under load, with the five counters: nothing acknowledged is lost, nothing happens twice, nothing surprises."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from tests.faults.audit import audit, report
from tests.faults.faults import FAULTS, Fault
from tests.faults.ground import Ground, a_ground
from tests.faults.nursery import Nursery
from tests.faults.shopping import Shop
from tests.world import until

SHOPPERS = 8
STORIES_BEFORE = 12
STORIES_AFTER = 12
LASTS_SECONDS = 2.0


@pytest.fixture(scope="module")
async def ground(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    async with a_ground(nursery, tmp_path_factory.mktemp("ground")) as made:
        yield made


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
async def test_costs_nothing(ground: Ground, fault: Fault) -> None:
    shop = Shop(ground.world, random.Random(fault.name))
    shopping = asyncio.create_task(shop.shoppers(SHOPPERS))
    await until(lambda: _answered(shop, STORIES_BEFORE))

    await fault.inject(ground, LASTS_SECONDS)

    after = sum(1 for a in shop.attempts if a.answer is not None)
    await until(lambda: _answered(shop, after + STORIES_AFTER), timeout_seconds=60)
    shop.close()
    await shopping
    counters = await audit(ground.world, shop.attempts)
    print(f"{fault.name}: {counters}")  # noqa: T201
    assert counters.clean, report(counters)
    assert counters.acknowledged > STORIES_BEFORE


async def _answered(shop: Shop, count: int) -> bool:
    return sum(1 for a in shop.attempts if a.answer is not None) >= count
