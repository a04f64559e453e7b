"""Leases: kept alive while the work they are for takes its time, so that they can be short and a crash costs seconds."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from shared.errors import Unavailable

logger = logging.getLogger(__name__)

# A lease is renewed this often while it lasts.
RENEWALS_PER_LEASE = 2.5


@asynccontextmanager
async def lease_kept(renew: Callable[[], Awaitable[object]], *, lease_seconds: float) -> AsyncIterator[None]:
    """Renew a lease again and again while inside; a database that is silent for a moment does not end the work."""
    pause_seconds = lease_seconds / RENEWALS_PER_LEASE
    renewing: asyncio.Task[None] | None = None

    async def again() -> None:
        while True:
            try:
                await renew()
            except Unavailable:
                pass  # Said by whoever needs the database.
            except Exception as bug:
                logger.error("a lease is not renewed", exc_info=bug)
            await asyncio.sleep(pause_seconds)

    def begin() -> None:
        nonlocal renewing
        renewing = asyncio.create_task(again())

    # Most of what is done under a lease ends long before it has to be renewed.
    first = asyncio.get_running_loop().call_later(pause_seconds, begin)
    try:
        yield
    finally:
        first.cancel()
        if renewing is not None:
            renewing.cancel()
