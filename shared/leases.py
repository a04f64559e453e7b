"""Leases: kept alive while the work they are for takes its time, so that they can be short and a crash costs seconds."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from shared.errors import Unavailable

# A lease is renewed this often while it lasts.
RENEWALS_PER_LEASE = 2.5


@asynccontextmanager
async def lease_kept(renew: Callable[[], Awaitable[object]], *, lease_seconds: float) -> AsyncIterator[None]:
    """Renew a lease again and again while inside; a database that is silent for a moment does not end the work."""

    async def again() -> None:
        while True:
            await asyncio.sleep(lease_seconds / RENEWALS_PER_LEASE)
            with suppress(Unavailable):
                await renew()

    renewing = asyncio.create_task(again())
    try:
        yield
    finally:
        renewing.cancel()
