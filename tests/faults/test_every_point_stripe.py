"""Payments is killed at every point of an operation at Stripe."""

from pathlib import Path

import pytest

from tests.faults.nursery import Nursery
from tests.faults.operation_points import OPERATIONS, PAYMENTS_POINTS, die_at_every_point
from tests.world import Place


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_dying_at_any_point_costs_nothing(nursery: Nursery, own_place: Place, tmp_path: Path, operation: str) -> None:
    await die_at_every_point(
        nursery, own_place, tmp_path, operation=operation, victim="payments", provider="stripe", wanted=PAYMENTS_POINTS
    )
