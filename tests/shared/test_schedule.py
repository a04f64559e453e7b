"""Jobs stop when they are told to, whatever they are in the middle of."""

import asyncio

from shared.schedule import Job
from tests.world import until


async def test_a_job_stops_though_something_in_it_takes_the_cancellation_for_its_own() -> None:
    begun, swallowed = asyncio.Event(), 0

    async def stubborn() -> None:
        nonlocal swallowed
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            swallowed += 1
            if swallowed > 1:
                raise

    async with Job("stubborn", stubborn, every_seconds=0.01):
        await begun.wait()

    assert swallowed >= 1


async def test_a_job_goes_on_after_a_round_that_failed() -> None:
    rounds = 0

    async def failing() -> None:
        nonlocal rounds
        rounds += 1
        raise ValueError("a bug")

    async def several() -> bool:
        return rounds > 2

    async with Job("failing", failing, every_seconds=0.01):
        await until(several)
