"""A process is killed at every await that leaves it, one after the other: the retry gets the true answer, once."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from shared.ids import new_id
from tests.faults import points
from tests.faults.nursery import Nursery
from tests.faults.system import System, a_system
from tests.world import Answer, Payment, Place, World, patiently, until

OPERATIONS = ["authorize", "confirm", "capture", "refund", "void"]
# A point is waited for this long after the answer before the list is taken to be complete.
QUIET_SECONDS = 0.4
# What has to be among the points, or the wrapping no longer sees what leaves the process.
PAYMENTS_POINTS = ("before provider", "after provider", "before WITH", "after WITH", "publish to the reply queue", "before ack")
GATEWAY_POINTS = (
    "before WITH made AS ( INSERT INTO idempotency_keys",
    "before publish to tender.commands",
    "before UPDATE idempotency_keys",
)

Send = Callable[..., Awaitable[Answer]]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("victim", "provider", "wanted"),
    [("payments", "sandbox", PAYMENTS_POINTS), ("gateway", "sandbox", GATEWAY_POINTS), ("payments", "stripe", PAYMENTS_POINTS)],
    ids=["payments", "gateway", "payments with Stripe"],
)
async def test_dying_at_any_point_costs_nothing(
    nursery: Nursery, own_place: Place, tmp_path: Path, victim: str, provider: str, wanted: tuple[str, ...], operation: str
) -> None:
    async with a_system(nursery, own_place, tmp_path, provider=provider, customer_look_seconds=3600) as (system, world):
        ground = _Ground(system, world, tmp_path, victim, operation)
        seen = await ground.points()

        for at in range(1, len(seen) + 1):
            await ground.dies_at(at)

        await _nothing_is_left_over(world)
    assert [want for want in wanted if not any(want in name for name in seen)] == [], seen


class _Ground:
    """One operation tried again and again, the victim dying a little later each time."""

    def __init__(self, system: System, world: World, folder: Path, victim: str, operation: str) -> None:
        self._system = system
        self._world = world
        self._folder = folder
        self._victim = victim
        self._operation = operation

    async def points(self) -> list[str]:
        """Go through the operation once without dying; every point passed, in order."""
        await self._system.stop_one(self._victim)
        await self._start(0)
        _, send = await self._prepared()
        answer = await send(headers=self._marked(0))
        assert answer.status in (200, 201), answer
        await self._quiet(0)
        await self._system.stop_one(self._victim)
        await self._start(1)
        return self._file(0).read_text().splitlines()

    async def dies_at(self, at: int) -> None:
        """Have the victim die at one point, come back, and the client ask again with the same key."""
        order_id, send = await self._prepared()
        first = asyncio.create_task(_tolerantly(send, self._marked(at)))
        await until(lambda: self._dead_or_over(first, at))
        if self._system.child(self._victim).running:
            await self._system.stop_one(self._victim)
        await self._start(at + 1)

        answer = await patiently(send)

        assert answer.status in (200, 201), (at, answer)
        early = await first
        assert early is None or early.status in (202, 503) or early.content == answer.content, (at, early, answer)
        payments = [p for p in self._world.sandbox.books.payments.values() if p.order_id == str(order_id)]
        kind = "authorize" if self._operation == "confirm" else self._operation
        assert [o.status for p in payments for o in p.operations if o.kind == kind] == ["succeeded"], at
        await self._world.books_agree(order_id)

    async def _start(self, at: int) -> None:
        environment = {points.WHERE: str(self._file(at)), points.WHOSE: self._marked(at)["X-Correlation-Id"], points.WHEN: str(at)}
        await self._system.start(self._victim, environment)

    def _marked(self, at: int) -> dict[str, str]:
        return {"X-Correlation-Id": f"dies-{at}"}

    def _file(self, at: int) -> Path:
        return self._folder / f"points-{at}"

    async def _dead_or_over(self, first: "asyncio.Task[Answer | None]", at: int) -> bool:
        if not self._system.child(self._victim).running:
            return True
        # The count can vary by what happened to be done in one group.
        if first.done():
            await self._quiet(at)
            return True
        return False

    async def _quiet(self, at: int) -> None:
        loop = asyncio.get_running_loop()
        size, since = -1, loop.time()

        async def unchanged() -> bool:
            nonlocal size, since
            now = self._file(at).stat().st_size
            if now != size:
                size, since = now, loop.time()
            return loop.time() - since > QUIET_SECONDS

        await until(unchanged)

    async def _prepared(self) -> tuple[UUID, Send]:
        world, key = self._world, new_id().hex
        if self._operation == "authorize":
            order_id = await world.an_order()
            snapshot_id = await world.a_snapshot(order_id)
            return order_id, lambda **how: world.authorize(order_id, snapshot_id, key=key, **how)
        if self._operation == "refund":
            payment: Payment = await world.a_captured_payment()
            return payment.order_id, lambda **how: payment.refund(4_000, key=key, **how)
        payment = await world.a_payment("tok_3ds" if self._operation == "confirm" else "tok_success")
        if self._operation == "confirm":
            world.sandbox.books.decide(payment.at_the_provider(), passed=True)
            return payment.order_id, lambda **how: payment.confirm(key=key, **how)
        if self._operation == "capture":
            return payment.order_id, lambda **how: payment.capture(4_000, key=key, **how)
        return payment.order_id, lambda **how: payment.void(key=key, **how)


async def _tolerantly(send: Send, headers: dict[str, str]) -> Answer | None:
    with contextlib.suppress(httpx.HTTPError):
        return await send(headers=headers)
    return None


async def _nothing_is_left_over(world: World) -> None:
    """Insist that every command, key, event and outcome has found its end, and that nothing went to the dead letters."""

    async def clean() -> bool:
        row: Any = (
            await world.rows(
                """
                SELECT (SELECT count(*) FROM payments.inbox WHERE state <> 'done') AS commands,
                       (SELECT count(*) FROM payments.outbox) AS events,
                       (SELECT count(*) FROM gateway.idempotency_keys WHERE status <> 'completed') AS keys,
                       (SELECT count(*) FROM payments.payment_transactions WHERE status IN ('pending', 'unknown')) AS outcomes
                """
            )
        )[0]
        return not any(row.values())

    await until(clean)
