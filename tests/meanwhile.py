"""A row that changes between a writer's read and its write: forced with a lock, without a clock."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg

from tests.world import World, until

WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
Change = tuple[str, Sequence[Any]]


@contextlib.asynccontextmanager
async def changed_meanwhile(world: World, *changes: Change) -> AsyncIterator[None]:
    """Change rows as another process would, after the writer that is let go inside has read them and before it writes.

    The writer has to wait for the change; it is kept once the writer waits, and when this is left the writer's statement has ended.
    """
    other = await asyncpg.connect(world.place.database_url)
    try:
        async with other.transaction():
            for sql, arguments in changes:
                await other.execute(sql, *arguments)
            yield
            await until(lambda: world.rows(WAITING))
        await until(lambda: _nothing_waits(world))
    finally:
        await other.close()


async def _nothing_waits(world: World) -> bool:
    return not await world.rows(WAITING)
