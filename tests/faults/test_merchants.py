"""Telling the merchant while webhooks dies at every point: each event once in the books, in order, and told at least once."""

from pathlib import Path
from typing import Any

from tests.faults import points
from tests.faults.nursery import Nursery
from tests.faults.system import System, a_system
from tests.faults.test_webhooks import grown_quiet, nothing_is_left_over
from tests.webhooks.test_merchants import Merchant, a_merchant, an_endpoint
from tests.world import Payment, Place, World, until

VICTIM = "webhooks"
WANTED = (
    "before WITH",
    "after WITH",
    "before ack",
    "before post to the merchant",
    "after post",
    "before WITH unhealthy",
    "after WITH unhealthy",
)


async def test_dying_at_any_point_loses_no_event_and_leaves_no_gap(nursery: Nursery, own_place: Place, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"allow_private_endpoints": True, "deliver_every_seconds": 0.1, "delivery_timeout_seconds": 0.5}
    async with a_system(nursery, own_place, tmp_path, webhooks=True, **changes) as (system, world), a_merchant() as merchant:
        await an_endpoint(world, merchant.url)
        ground = _AnyPoint(system, world, merchant, tmp_path)
        seen = await ground.points()

        for at in range(1, len(seen) + 1):
            await ground.dies_at(at)

        await nothing_is_left_over(world)
    assert [want for want in WANTED if not any(want in name for name in seen)] == [], seen


class _AnyPoint:
    """One capture after the other, webhooks dying a little later each time while it tells of it."""

    def __init__(self, system: System, world: World, merchant: Merchant, folder: Path) -> None:
        self._system = system
        self._world = world
        self._merchant = merchant
        self._folder = folder

    async def points(self) -> list[str]:
        """Tell of one capture without dying; every point passed, in order."""
        await self._again(0)
        payment = await self._world.a_payment()
        await self._captured(payment, 0)
        await self._told(payment)
        await grown_quiet(self._file(0))
        await self._again(1)
        return self._file(0).read_text().splitlines()

    async def dies_at(self, at: int) -> None:
        """Have webhooks die at one point, and come back."""
        payment = await self._world.a_payment()
        await self._told(payment, 1)
        await self._captured(payment, at)
        await until(lambda: self._dead_or_over(payment, at))
        await self._again(at + 1)

        await self._told(payment)

        rows = await self._world.rows(
            "SELECT type, sequence FROM webhooks.merchant_events WHERE order_id = $1 ORDER BY sequence", payment.order_id
        )
        assert [tuple(row) for row in rows] == [("payment.authorized", 1), ("payment.captured", 2)], at
        bodies = {each["id"]: each for each in self._merchant.events() if each["order_id"] == str(payment.order_id)}
        assert sorted(each["sequence"] for each in bodies.values()) == [1, 2], at

    async def _captured(self, payment: Payment, at: int) -> None:
        assert (await payment.capture(headers={"X-Correlation-Id": f"tells-{at}"})).status == 201

    async def _told(self, payment: Payment, count: int = 2) -> None:
        async def so() -> bool:
            return await self._delivered(payment) == count

        await until(so)

    async def _delivered(self, payment: Payment) -> int:
        [row] = await self._world.rows(
            """
            SELECT count(*) AS count
              FROM webhooks.webhook_deliveries d JOIN webhooks.merchant_events m ON m.id = d.event_id
             WHERE m.order_id = $1 AND d.status = 'delivered'
            """,
            payment.order_id,
        )
        return int(row["count"])

    async def _again(self, at: int) -> None:
        if self._system.child(VICTIM).running:
            await self._system.stop_one(VICTIM)
        await self._system.start(VICTIM, {points.WHERE: str(self._file(at)), points.WHOSE: f"tells-{at}", points.WHEN: str(at)})

    def _file(self, at: int) -> Path:
        return self._folder / f"points-{at}"

    async def _dead_or_over(self, payment: Payment, at: int) -> bool:
        if not self._system.child(VICTIM).running:
            return True
        if await self._delivered(payment) < 2:
            return False
        # The count can vary by what happened to be done in one group.
        await grown_quiet(self._file(at))
        return True
