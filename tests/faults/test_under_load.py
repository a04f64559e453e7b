"""Every fault under load, with the five counters: nothing acknowledged is lost, nothing happens twice, nothing surprises."""

import random
from collections.abc import AsyncIterator

import pytest

from tests.faults.audit import report
from tests.faults.faults import FAULTS, Fault
from tests.faults.ground import Ground, a_ground
from tests.faults.nursery import Nursery
from tests.faults.soak import ANSWERS_BEFORE, MOODS, strike

LASTS_SECONDS = 2.0


@pytest.fixture(scope="module")
async def ground(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    async with a_ground(nursery, tmp_path_factory.mktemp("ground"), moods=MOODS) as made:
        yield made


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
async def test_costs_nothing(ground: Ground, fault: Fault) -> None:
    counters = await strike(ground, [fault], [LASTS_SECONDS], random.Random(fault.name))

    assert counters.clean, report(counters)
    assert counters.acknowledged >= ANSWERS_BEFORE
