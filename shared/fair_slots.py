"""Slots for messages being handled: no store has more than its share, and stores wait for them in turns."""

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from uuid import UUID

from shared.errors import Refusal, Retry


class StoreOverloaded(Refusal):
    """As many messages of this store are waiting as one store may have; others' go on."""

    code = "too-many-in-hand"
    title = "Too many requests in progress"
    status = 429
    retry = Retry.SAME_KEY
    retry_after_seconds = 1


class FairSlots:
    """Lets so many messages be handled at once, at most a share of them of one store; of its others so many may wait."""

    def __init__(self, slots: int, *, per_store_max: int, waiting_max: int) -> None:
        self._free = slots
        self._per_store_max = per_store_max
        self._waiting_max = waiting_max
        self._working: Counter[UUID] = Counter()
        # In the order in which stores get their turn.
        self._waiting: OrderedDict[UUID, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def holding(self, store_id: UUID, *, refusable: bool) -> AsyncIterator[None]:
        """Hold a slot inside; waits for one, or raises StoreOverloaded where too many wait and the sender can be told to come again."""
        await self._acquire(store_id, refusable=refusable)
        try:
            yield
        finally:
            self._release(store_id)

    async def _acquire(self, store_id: UUID, *, refusable: bool) -> None:
        if self._may_work(store_id) and store_id not in self._waiting:
            self._begin(store_id)
            return
        queue = self._waiting.setdefault(store_id, deque())
        if refusable and len(queue) >= self._waiting_max:
            raise StoreOverloaded("As many operations of this store are under way as one store may have.", {"waiting": len(queue)})
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release(store_id)
            else:
                self._leave(store_id, turn)
            raise

    def _may_work(self, store_id: UUID) -> bool:
        return self._free > 0 and self._working[store_id] < self._per_store_max

    def _begin(self, store_id: UUID) -> None:
        self._free -= 1
        self._working[store_id] += 1

    def _release(self, store_id: UUID) -> None:
        self._free += 1
        self._working[store_id] -= 1
        if not self._working[store_id]:
            del self._working[store_id]
        next_store = next((each for each in self._waiting if self._may_work(each)), None)
        if next_store is not None:
            turn = self._waiting[next_store].popleft()
            self._waiting.move_to_end(next_store)
            self._forget_empty(next_store)
            self._begin(next_store)
            turn.set_result(None)

    def _leave(self, store_id: UUID, turn: "asyncio.Future[None]") -> None:
        queue = self._waiting.get(store_id)
        if queue is not None and turn in queue:
            queue.remove(turn)
        self._forget_empty(store_id)

    def _forget_empty(self, store_id: UUID) -> None:
        if not self._waiting.get(store_id):
            self._waiting.pop(store_id, None)
