"""A row that changes between a writer's read and its write: forced with locks, without a clock."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import asyncpg

from tests.world import World, until

# For a row, and for a table.
WAITING = """
    SELECT FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event IN ('tuple', 'transactionid')
"""
HELD = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'relation'"
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


@contextlib.asynccontextmanager
async def held(world: World, table: str) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Hold every process that reads a table, until what this gives is called."""
    other = await asyncpg.connect(world.place.database_url)
    try:
        transaction = other.transaction()
        await transaction.start()
        await other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield transaction.commit
    finally:
        await other.close()


async def is_held(world: World) -> bool:
    """Tell whether a process waits for a table that is held."""
    return bool(await world.rows(HELD))


async def is_free(world: World) -> bool:
    """Tell whether no process waits for a table or a row any more."""
    return not await is_held(world) and await _nothing_waits(world)
