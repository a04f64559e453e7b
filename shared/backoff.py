"""How long to wait before trying again: named schedules for loops, tiers and lookups."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

RECONNECT_WAIT_MAX_SECONDS = 3.0
CALL_WAIT_MAX_SECONDS = 1.0

R = TypeVar("R")


def reconnecting(*errors: type[BaseException]) -> AsyncRetrying:
    """Try for ever, with full jitter, until the other side is back."""
    return AsyncRetrying(
        retry=retry_if_exception_type(errors),
        wait=wait_random_exponential(multiplier=0.1, max=RECONNECT_WAIT_MAX_SECONDS),
        reraise=True,
    )


async def trying(call: Callable[[], Awaitable[R]], *errors: type[BaseException], attempts_max: int) -> R:
    """Call, and when it fails with one of these errors call again at once or nearly so; lets the last error out."""
    # The usual case costs nothing: only a failure begins to count.
    with suppress(*errors):
        return await call()
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(errors),
        wait=wait_random_exponential(multiplier=0.05, max=CALL_WAIT_MAX_SECONDS),
        stop=stop_after_attempt(attempts_max - 1),
        reraise=True,
    ):
        with attempt:
            return await call()
    raise AssertionError("the last attempt returns or raises")


def step(schedule_seconds: Sequence[float], tries: int) -> float:
    """Pick the wait after so many tries; the last one repeats."""
    return schedule_seconds[min(tries, len(schedule_seconds) - 1)]
