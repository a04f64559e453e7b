"""Stopping what runs beside: whatever it makes of being cancelled, it ends."""

import asyncio

import pytest

from shared import stopping
from shared.stopping import stop


async def deaf(times: int, heard: list[int]) -> None:
    """Goes on when it is cancelled, so many times."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            heard.append(len(heard) + 1)
            if len(heard) > times:
                raise


async def failing() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise ValueError("on the way out")


async def test_a_cancellation_that_is_lost_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "CANCEL_AGAIN_SECONDS", 0.01)
    heard: list[int] = []
    tasks = [asyncio.create_task(deaf(2, heard)), asyncio.create_task(failing()), asyncio.create_task(asyncio.sleep(0))]
    await tasks[-1]

    await stop(*tasks)

    assert heard == [1, 2, 3]
    assert [task.cancelled() for task in tasks] == [True, False, False]


async def test_nothing_to_stop_is_stopped_already() -> None:
    """Waiting for nothing is an error of asyncio's; what has ended is not cancelled."""
    done = asyncio.create_task(asyncio.sleep(0, "done"))
    assert await done == "done"

    await stop()
    await stop(done)

    assert (done.cancelled(), done.result()) == (False, "done")
