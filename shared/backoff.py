"""How long to wait before trying again: named schedules for loops, tiers and lookups."""

from collections.abc import Sequence

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

RECONNECT_WAIT_MAX_SECONDS = 3.0
CALL_WAIT_MAX_SECONDS = 1.0


def reconnecting(*errors: type[BaseException]) -> AsyncRetrying:
    """Try for ever, with full jitter, until the other side is back."""
    return AsyncRetrying(
        retry=retry_if_exception_type(errors),
        wait=wait_random_exponential(multiplier=0.1, max=RECONNECT_WAIT_MAX_SECONDS),
        reraise=True,
    )


def a_few_times(attempts_max: int, *errors: type[BaseException]) -> AsyncRetrying:
    """Try a call again at once or nearly so, then let its last error out."""
    return AsyncRetrying(
        retry=retry_if_exception_type(errors),
        wait=wait_random_exponential(multiplier=0.05, max=CALL_WAIT_MAX_SECONDS),
        stop=stop_after_attempt(attempts_max),
        reraise=True,
    )


def step(schedule_seconds: Sequence[float], tries: int) -> float:
    """Pick the wait after so many tries; the last one repeats."""
    return schedule_seconds[min(tries, len(schedule_seconds) - 1)]
