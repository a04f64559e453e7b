"""Stopping what runs beside, for good."""

import asyncio
from typing import Any

CANCEL_AGAIN_SECONDS = 1.0


async def stop(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks until every one has ended, whatever it ended with.

    Some libraries take a cancellation for their own trouble and go on, and `asyncio.wait_for` loses one that comes with the result
    (python/cpython#86296, before 3.12): so it is said until it is heard.
    """
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=CANCEL_AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.exception()
