"""Errands: tasks that are out for somebody, so many at once in all and for each, so that one who is slow holds up nobody else."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from uuid import UUID

from shared.stopping import stop

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 3.0


class Errands:
    """What is out now; `back` is told when one has come back that others may have waited for."""

    def __init__(self, *, out_max: int, per_endpoint_max: int, back: Callable[[], None]) -> None:
        self.per_endpoint_max = per_endpoint_max
        self._out_max = out_max
        self._back = back
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_endpoint: Counter[UUID] = Counter()

    @property
    def room(self) -> int:
        """How many more may go out."""
        return self._out_max - len(self._tasks)

    @property
    def by_endpoint(self) -> Mapping[UUID, int]:
        """How many are out for each."""
        return dict(self._by_endpoint)

    def start(self, endpoint_id: UUID, errand: Coroutine[None, None, None]) -> None:
        """Send one out."""
        task = asyncio.create_task(errand)
        self._tasks.add(task)
        self._by_endpoint[endpoint_id] += 1
        task.add_done_callback(lambda done: self._came_back(endpoint_id, done))

    def _came_back(self, endpoint_id: UUID, task: asyncio.Task[None]) -> None:
        waited_for = self.room == 0 or self._by_endpoint[endpoint_id] >= self.per_endpoint_max
        self._tasks.discard(task)
        self._by_endpoint[endpoint_id] -= 1
        if not self._by_endpoint[endpoint_id]:
            del self._by_endpoint[endpoint_id]
        if not task.cancelled() and (bug := task.exception()) is not None:
            logger.error("an errand failed", exc_info=bug)
        if waited_for:
            self._back()

    async def close(self) -> None:
        """Wait a little for those that are out, then give them up."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS)
        await stop(*self._tasks)
