"""Payments is killed at every point of operations that take several steps, which do not depend on the provider."""

from pathlib import Path
from uuid import UUID

import pytest

from shared.ids import new_id
from tests.faults.dying import Dying, Send
from tests.faults.nursery import Nursery
from tests.faults.operation_points import PAYMENTS_POINTS, die_at_every_point, nothing_is_left_over
from tests.faults.system import a_system
from tests.world import Payment, Place


@pytest.mark.parametrize("operation", ["another card", "confirm submitted"])
async def test_dying_between_steps_costs_nothing(nursery: Nursery, own_place: Place, tmp_path: Path, operation: str) -> None:
    """F11, F12."""
    await die_at_every_point(nursery, own_place, tmp_path, operation=operation, victim="payments", wanted=PAYMENTS_POINTS)


async def test_dying_while_facts_are_accepted(nursery: Nursery, own_place: Place, tmp_path: Path) -> None:
    """F10: an operator's word is taken and written down once."""
    async with a_system(nursery, own_place, tmp_path) as (system, world):
        ground = _Accepting(system, world, tmp_path, "payments")
        seen = await ground.points()
        # Up to its only write; the way back is that of the operations above.
        written = 1 + next(at for at, name in enumerate(seen) if name.startswith("after WITH"))

        for at in range(1, written + 1):
            await ground.dies_at(at)

        await nothing_is_left_over(world)


class _Accepting(Dying):
    """The facts of a payment of which half was approved."""

    async def prepared(self) -> tuple[UUID, Send]:
        world, key = self.world, new_id().hex
        order_id = await world.an_order()
        answer = await world.authorize(order_id, await world.a_snapshot(order_id), "tok_partial_approval")
        assert answer.code == "provider-mismatch"
        payment = Payment(world, order_id, UUID(answer.json["intent_id"]))
        body = {"version": (await payment.intent())["version"], "reason": "half of it will do"}
        path = f"/api/v1/admin/orders/{order_id}/payments/{payment.id}/accept"
        return order_id, lambda **how: world.send("POST", path, body, key=key, **how)

    async def check(self, order_id: UUID, at: int) -> None:
        [payment] = (await self.world.ledger(order_id))["payments"]
        assert (payment["intent"]["status"], payment["intent"]["attention"]) == ("authorized", None), at
        sql = "SELECT reason FROM payments.admin_audit WHERE action = 'payment.accept' AND subject = $1"
        assert [row["reason"] for row in await self.world.rows(sql, payment["intent"]["id"])] == ["half of it will do"], at
