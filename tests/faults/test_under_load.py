"""Every fault under load, with the five counters: nothing acknowledged is lost, nothing happens twice, nothing surprises."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from tests.faults.audit import report
from tests.faults.faults import FAULTS, Fault
from tests.faults.ground import Ground, a_ground
from tests.faults.nursery import Nursery
from tests.faults.soak import ANSWERS_BEFORE, MOODS, strike
from tests.world import until

LASTS_SECONDS = 1.0


@pytest.fixture(scope="module")
async def ground(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    async with a_ground(nursery, tmp_path_factory.mktemp("ground"), moods=MOODS) as made:
        yield made


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
async def test_costs_nothing(ground: Ground, fault: Fault) -> None:
    counters = await strike(ground, [fault], [LASTS_SECONDS], random.Random(fault.name))

    assert counters.clean, report(counters)
    assert counters.acknowledged >= ANSWERS_BEFORE


async def test_an_idle_system_is_ready_again_after_the_broker_was_away(ground: Ground) -> None:
    """Nobody sends anything to what is not ready, so it must come back without being sent anything."""
    await asyncio.to_thread(ground.broker.stop)
    # Webhooks keeps what comes all the same.
    await until(lambda: _ready(ground, [False, False, True]))
    await asyncio.to_thread(ground.broker.start)

    await until(lambda: _ready(ground, [True, True, True]), timeout_seconds=60)


async def _ready(ground: Ground, wanted: list[bool]) -> bool:
    answers = [
        await ground.world.http.get(f"{ground.system.monitoring_url(name)}/health/ready") for name in ("gateway", "payments", "webhooks")
    ]
    return [answer.status_code == 200 for answer in answers] == wanted
