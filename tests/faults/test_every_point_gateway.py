"""The gateway is killed at every point of an operation."""

from pathlib import Path

import pytest

from tests.faults.nursery import Nursery
from tests.faults.operation_points import GATEWAY_POINTS, OPERATIONS, die_at_every_point
from tests.world import Place


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_dying_at_any_point_costs_nothing(nursery: Nursery, own_place: Place, tmp_path: Path, operation: str) -> None:
    await die_at_every_point(nursery, own_place, tmp_path, operation=operation, victim="gateway", wanted=GATEWAY_POINTS)
