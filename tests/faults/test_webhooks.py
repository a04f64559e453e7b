"""Webhooks while things die: every event that was answered 200 is processed, once, and none that was not is half there."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from deploy.sandbox.webhooks import Outgoing, Told
from shared.ids import new_id
from tests.faults import points
from tests.faults.ground import Ground, a_ground
from tests.faults.nursery import Nursery
from tests.faults.system import System, a_system
from tests.world import WEBHOOK_SECRET, Payment, Place, World, until

QUIET_SECONDS = 0.5
BURST = 60
# What has to be among the points, or the wrapping no longer sees what leaves the process.
WANTED = {
    "webhooks": ("before WITH new AS", "after WITH new AS", "publish to tender.commands", "before WITH", "after WITH", "before ack"),
    "payments": ("before WITH", "after WITH", "publish to the reply queue", "before ack"),
}


def a_refund(payment: Payment, amount: int) -> Told:
    """Refund in the provider's dashboard, and the event that tells of it, not sent yet."""
    books, at_provider = payment.world.sandbox.books, payment.at_the_provider()
    books.add(at_provider, "refund", amount, reason="dashboard")
    event_id = f"evt_{new_id().hex}"
    body = {"id": event_id, "type": "payment.refund.succeeded", "data": at_provider}
    return Told(id=event_id, type="payment.refund.succeeded", body=msgspec.json.encode(body))


async def post(world: World, told: Told, *, correlation_id: str = "") -> int:
    """Post an event; gives the status, or 0 when there was no answer."""
    headers = Outgoing(url="", secret=WEBHOOK_SECRET).headers(told)
    with contextlib.suppress(httpx.HTTPError):
        marked = {"X-Correlation-Id": correlation_id} if correlation_id else {}
        return (
            await world.http.post(f"{world.webhooks_url}/api/v1/webhooks/sandbox", content=told.body, headers=headers | marked)
        ).status_code
    return 0


async def event_of(world: World, told: Told) -> Any:
    rows = await world.rows("SELECT * FROM webhooks.webhook_events WHERE provider_event_id = $1", told.id)
    return rows[0] if rows else None


async def processed(world: World, told: Told) -> None:
    async def so() -> bool:
        found = await event_of(world, told)
        return found is not None and found["status"] == "processed"

    await until(so, timeout_seconds=40)


async def nothing_is_left_over(world: World) -> None:
    """Insist that the outboxes are empty, no command is open and nothing lies in the dead letters."""

    async def clean() -> bool:
        [row] = await world.rows(
            """
            SELECT (SELECT count(*) FROM webhooks.outbox) + (SELECT count(*) FROM payments.outbox) AS promised,
                   (SELECT count(*) FROM webhooks.inbox WHERE state <> 'done') AS open
            """
        )
        return (row["promised"], row["open"]) == (0, 0)

    await until(clean)


@pytest.mark.parametrize("victim", ["webhooks", "payments"])
async def test_dying_at_any_point_costs_nothing(nursery: Nursery, own_place: Place, tmp_path: Path, victim: str) -> None:
    async with a_system(nursery, own_place, tmp_path, webhooks=True) as (system, world):
        ground = _AnyPoint(system, world, tmp_path, victim)
        seen = await ground.points()

        for at in range(1, len(seen) + 1):
            await ground.dies_at(at)

        await nothing_is_left_over(world)
    assert [want for want in WANTED[victim] if not any(want in name for name in seen)] == [], seen


class _AnyPoint:
    """One event after the other, the victim dying a little later each time."""

    def __init__(self, system: System, world: World, folder: Path, victim: str) -> None:
        self._system = system
        self._world = world
        self._folder = folder
        self._victim = victim

    async def points(self) -> list[str]:
        """Take one event in without dying; every point passed, in order."""
        await self._system.stop_one(self._victim)
        await self._start(0)
        told = a_refund(await self._world.a_captured_payment(), 1_000)
        assert await post(self._world, told, correlation_id="dies-0") == 200
        await processed(self._world, told)
        await grown_quiet(self._file(0))
        await self._system.stop_one(self._victim)
        await self._start(1)
        return self._file(0).read_text().splitlines()

    async def dies_at(self, at: int) -> None:
        """Have the victim die at one point and come back; a provider that heard nothing posts again."""
        world = self._world
        payment = await world.a_captured_payment()
        told = a_refund(payment, 1_000)
        status = await post(world, told, correlation_id=f"dies-{at}")
        await until(lambda: self._dead_or_over(told, at))
        if self._system.child(self._victim).running:
            await self._system.stop_one(self._victim)
        await self._start(at + 1)
        if status != 200:
            assert await post(world, told, correlation_id=f"again-{at}") == 200, at

        await processed(world, told)

        assert (await payment.intent())["refunded_amount"] == 1_000, at
        assert [t["source"] for t in await payment.transactions()] == ["api", "api", "webhook"], at
        [row] = await world.rows(
            "SELECT count(*) AS count FROM webhooks.webhook_attempts WHERE outcome = 'processed' AND event_id = $1",
            (await event_of(world, told))["id"],
        )
        assert row["count"] == 1, at
        await world.books_agree(payment.order_id)

    async def _start(self, at: int) -> None:
        environment = {points.WHERE: str(self._file(at)), points.WHOSE: f"dies-{at}", points.WHEN: str(at)}
        await self._system.start(self._victim, environment)

    def _file(self, at: int) -> Path:
        return self._folder / f"points-{at}"

    async def _dead_or_over(self, told: Told, at: int) -> bool:
        if not self._system.child(self._victim).running:
            return True
        found = await event_of(self._world, told)
        if found is None or found["status"] != "processed":
            return False
        # The count can vary by what happened to be done in one group.
        await grown_quiet(self._file(at))
        return True


async def grown_quiet(file: Path) -> None:
    """Wait until a process passes no more points."""
    loop = asyncio.get_running_loop()
    size, since = -1, loop.time()

    async def unchanged() -> bool:
        nonlocal size, since
        now = _size(file)
        if now != size:
            size, since = now, loop.time()
        return loop.time() - since > QUIET_SECONDS

    await until(unchanged)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


async def test_events_that_arrive_while_the_broker_is_away_are_kept_and_processed_once(nursery: Nursery, tmp_path: Path) -> None:
    async with a_ground(nursery, tmp_path) as ground:
        world = ground.world
        payments = [await world.a_captured_payment() for _ in range(3)]
        await asyncio.to_thread(ground.broker.stop)

        told = [a_refund(payment, 10) for _ in range(BURST // 3) for payment in payments]
        answers = await asyncio.gather(*(post(world, each) for each in told * 2))
        await asyncio.to_thread(ground.broker.start)

        assert set(answers) == {200}
        await _all_processed(ground, told)
        # The gateway may find the broker again later than the others do.
        await until(lambda: _answers(world, payments[0]), timeout_seconds=60)
        for payment in payments:
            assert (await payment.intent())["refunded_amount"] == 10 * (BURST // 3)
            await world.books_agree(payment.order_id)
        await nothing_is_left_over(world)


async def _answers(world: World, payment: Payment) -> bool:
    return (await world.send("GET", f"/api/v1/admin/orders/{payment.order_id}/payments")).status == 200


async def _all_processed(ground: Ground, told: list[Told]) -> None:
    async def so() -> bool:
        rows = await ground.world.rows(
            "SELECT status, count(*) AS count FROM webhooks.webhook_events WHERE provider_event_id = ANY($1) GROUP BY status",
            [each.id for each in told],
        )
        return {row["status"]: row["count"] for row in rows} == {"processed": len(told)}

    await until(so, timeout_seconds=60)
