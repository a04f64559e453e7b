"""Dying at every await: an operation is asked for, its service killed at one point after the other, and asked for again."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import httpx

from tests.faults import points
from tests.faults.system import System
from tests.world import Answer, World, patiently, until

# A point is waited for this long after the answer before the list is taken to be complete.
QUIET_SECONDS = 0.4

Send = Callable[..., Awaitable[Answer]]


class Dying(ABC):
    """One operation tried again and again, the victim dying a little later each time."""

    def __init__(self, system: System, world: World, folder: Path, victim: str) -> None:
        self._system = system
        self.world = world
        self._folder = folder
        self._victim = victim

    async def points(self) -> list[str]:
        """Go through the operation once without dying; every point passed, in order."""
        await self._system.stop_one(self._victim)
        await self._start(0)
        _, send = await self.prepared()
        await until(self._everything_kept)
        answer = await send(headers=self._marked(0))
        assert answer.status in (200, 201), answer
        await self._quiet(0)
        await self._system.stop_one(self._victim)
        await self._start(1)
        return self._file(0).read_text().splitlines()

    async def dies_at(self, at: int) -> None:
        """Have the victim die at one point, come back, and the client ask again with the same key."""
        order_id, send = await self.prepared()
        await until(self._everything_kept)
        first = asyncio.create_task(_tolerantly(send, self._marked(at)))
        await until(lambda: self._dead_or_over(first, at))
        if self._system.child(self._victim).running:
            await self._system.stop_one(self._victim)
        await self._start(at + 1)

        answer = await patiently(send)

        assert answer.status in (200, 201), (at, answer)
        early = await first
        assert early is None or _passing(early) or early.content == answer.content, (at, early, answer)
        await self.check(order_id, at)

    @abstractmethod
    async def prepared(self) -> tuple[UUID, Send]:
        """Make ready for the operation: what it is about, and how it is asked for."""

    @abstractmethod
    async def check(self, order_id: UUID, at: int) -> None:
        """Insist that it happened once."""

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

    async def _everything_kept(self) -> bool:
        """Tell whether the gateway has kept the answers to what was made ready, which would travel with the operation's own."""
        return not await self.world.rows("SELECT FROM gateway.idempotency_keys WHERE status <> 'completed'")

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


async def _tolerantly(send: Send, headers: dict[str, str]) -> Answer | None:
    with contextlib.suppress(httpx.HTTPError):
        return await send(headers=headers)
    return None


def _passing(answer: Answer) -> bool:
    """Whether it says to come again with the same key."""
    return answer.status in (202, 503) or (answer.status == 409 and answer.json["retry"] == "after")
