"""No store's messages hold up another's in a service, however many there are (security report H1)."""

import asyncio
from uuid import UUID

import pytest

from shared.fair_slots import FairSlots, StoreOverloaded
from shared.ids import new_id

ATTACKER, OTHER, THIRD = new_id(), new_id(), new_id()
SLOTS, SHARE = 8, 6


class Work:
    """Messages that hold a slot until they are let go."""

    def __init__(self, *, waiting_max: int = 100) -> None:
        self.slots = FairSlots(SLOTS, per_store_max=SHARE, waiting_max=waiting_max)
        self.handled: list[UUID] = []
        self.gate = asyncio.Event()

    async def handle(self, store_id: UUID, *, refusable: bool = False) -> None:
        async with self.slots.holding(store_id, refusable=refusable):
            self.handled.append(store_id)
            await self.gate.wait()

    async def begin(self, store_id: UUID, count: int) -> "list[asyncio.Task[None]]":
        tasks = [asyncio.create_task(self.handle(store_id)) for _ in range(count)]
        await asyncio.sleep(0)
        return tasks


async def test_a_store_has_its_share_and_another_goes_on() -> None:
    work = Work()
    waiting = await work.begin(ATTACKER, 50)
    others = await work.begin(OTHER, 1)

    assert work.handled == [ATTACKER] * SHARE + [OTHER]

    work.gate.set()
    await asyncio.gather(*waiting, *others)
    assert work.handled.count(ATTACKER) == 50


async def test_stores_that_wait_have_turns() -> None:
    work = Work()
    tasks = await work.begin(ATTACKER, SHARE + 3)
    tasks += await work.begin(OTHER, SLOTS - SHARE + 3)
    tasks += await work.begin(THIRD, 2)

    work.gate.set()
    await asyncio.gather(*tasks)

    assert sorted(work.handled[SLOTS : SLOTS + 3]) == sorted([ATTACKER, OTHER, THIRD])


async def test_too_many_that_wait_are_refused_unless_no_caller_waits() -> None:
    work = Work(waiting_max=2)
    tasks = await work.begin(ATTACKER, SHARE + 2)

    with pytest.raises(StoreOverloaded) as refused:
        await work.handle(ATTACKER, refusable=True)
    tasks += await work.begin(ATTACKER, 1)

    assert (refused.value.status, refused.value.code) == (429, "too-many-in-hand")
    work.gate.set()
    await asyncio.gather(*tasks)
    assert len(work.handled) == SHARE + 3


async def test_a_message_that_is_given_up_leaves_its_slot() -> None:
    work = Work()
    tasks = await work.begin(ATTACKER, SHARE + 4)

    for task in (*tasks[:2], *tasks[-2:]):
        task.cancel()
    await asyncio.gather(*tasks[:2], *tasks[-2:], return_exceptions=True)
    await asyncio.sleep(0)

    assert len(work.handled) == SHARE + 2
    tasks += await work.begin(OTHER, SLOTS)
    work.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert work.handled.count(OTHER) == SLOTS


async def test_a_turn_that_comes_while_its_message_is_given_up_goes_to_the_next() -> None:
    work = Work()
    tasks = await work.begin(ATTACKER, SHARE + 2)

    tasks[0].cancel()
    await asyncio.gather(tasks[0], return_exceptions=True)
    tasks[SHARE].cancel()
    await asyncio.gather(tasks[SHARE], return_exceptions=True)
    await asyncio.sleep(0)

    assert len(work.handled) in (SHARE + 1, SHARE + 2)
    work.gate.set()
    await asyncio.gather(*tasks[1:], return_exceptions=True)
    async with asyncio.timeout(5):
        await asyncio.gather(*(work.handle(store_id) for store_id in (*[ATTACKER] * SHARE, OTHER, OTHER)))
