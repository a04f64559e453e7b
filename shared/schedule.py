"""Jobs: work that comes round, or at once when somebody wakes it; a failing round never ends the job."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from shared import telemetry
from shared.dependencies import WARNING_INTERVAL_SECONDS, Throttle
from shared.errors import Refusal, Unavailable
from shared.stopping import stop

logger = logging.getLogger(__name__)


class Job:
    """Calls a function every so often until it is stopped."""

    def __init__(self, name: str, run: Callable[[], Awaitable[None]], *, every_seconds: float) -> None:
        self.name = name
        self._run = run
        self._every_seconds = every_seconds
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._waiting = Throttle(WARNING_INTERVAL_SECONDS)
        self._failing = Throttle(WARNING_INTERVAL_SECONDS)

    async def __aenter__(self) -> "Job":
        self._task = asyncio.create_task(self._rounds())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            await stop(self._task)

    def wake(self) -> None:
        """Have the next round at once."""
        self._woken.set()

    async def _rounds(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self._run()
                self._waiting.over()
                self._failing.over()
            except Unavailable as silent:
                if self._waiting.due():
                    telemetry.say(logger, logging.WARNING, "a job waits", {"job": self.name, "reason": str(silent)})
            except Exception as bug:
                if self._failing.due():
                    logger.error("a job failed", exc_info=bug, extra={"tender": {"job": self.name}})
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._every_seconds)


async def alone(what: str, item: Awaitable[None], facts: Mapping[str, str]) -> bool:
    """Carry out one item of a round; one that fails is logged, and holds up no other. Gives whether it went well."""
    try:
        await item
    except Exception as failure:
        level = logging.WARNING if isinstance(failure, Unavailable | Refusal) else logging.ERROR
        logger.log(level, "one of a round failed", exc_info=failure, extra={"tender": {"what": what, **facts}})
        return False
    return True
