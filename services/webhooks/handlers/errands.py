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

    def __init__(self, *, out_max: int, per_store_max: int, back: Callable[[], None]) -> None:
        self._out_max = out_max
        self._per_store_max = per_store_max
        self._back = back
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_endpoint: Counter[UUID] = Counter()
        self._by_store: Counter[UUID] = Counter()

    @property
    def room(self) -> int:
        """How many more may go out."""
        return self._out_max - len(self._tasks)

    @property
    def by_endpoint(self) -> Mapping[UUID, int]:
        """How many are out for each."""
        return dict(self._by_endpoint)

    def start(self, errand: Coroutine[None, None, None], *, endpoint_id: UUID, endpoint_max: int, store_id: UUID) -> None:
        """Send one out, for an endpoint that has at most so many, and its store."""
        task = asyncio.create_task(errand)
        self._tasks.add(task)
        self._by_endpoint[endpoint_id] += 1
        self._by_store[store_id] += 1
        task.add_done_callback(lambda done: self._came_back(done, endpoint_id, endpoint_max, store_id))

    def _came_back(self, task: asyncio.Task[None], endpoint_id: UUID, endpoint_max: int, store_id: UUID) -> None:
        full = self._by_endpoint[endpoint_id] >= endpoint_max or self._by_store[store_id] >= self._per_store_max
        waited_for = full or self.room == 0
        self._tasks.discard(task)
        for counter, key in ((self._by_endpoint, endpoint_id), (self._by_store, store_id)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]
        if not task.cancelled() and (bug := task.exception()) is not None:
            logger.error("an errand failed", exc_info=bug)
        if waited_for:
            self._back()

    async def close(self) -> None:
        """Wait a little for those that are out, then give them up."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS)
        await stop(*self._tasks)
