"""Locks that hold a process between its reading and its writing, so that something else happens in between: no clock is needed."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import asyncpg

from tests.world import Place, World, until

# For a row, for a table, and for either of them.
WAITS = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
WAITS_FOR_A_ROW = f"{WAITS} AND wait_event IN ('tuple', 'transactionid')"
WAITS_FOR_A_TABLE = f"{WAITS} AND wait_event = 'relation'"
WAITS_LONGER = f"{WAITS} AND now() - query_start > make_interval(secs => $1)"
Change = tuple[str, Sequence[Any]]


@contextlib.asynccontextmanager
async def rows_held(place: Place, rows: str, *arguments: object) -> AsyncIterator[asyncpg.Connection]:
    """Lock rows, named by a table and a condition, while inside; waiting writers go on as they came.

    What is done on the connection that is given happens before all of them.
    """
    connection = await asyncpg.connect(place.database_url)
    try:
        async with connection.transaction():
            await connection.execute(f"SELECT FROM {rows} FOR UPDATE", *arguments)
            yield connection
    finally:
        await connection.close()


async def waiting(place: Place, count: int, *, longer_than_seconds: float = 0.0) -> None:
    """Wait until so many processes wait for a lock."""
    connection = await asyncpg.connect(place.database_url)

    async def enough() -> bool:
        return len(await connection.fetch(WAITS_LONGER, longer_than_seconds)) >= count

    try:
        await until(enough)
    finally:
        await connection.close()


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
            await until(lambda: world.rows(WAITS_FOR_A_ROW))
        await until(lambda: _nothing_waits(world))
    finally:
        await other.close()


async def _nothing_waits(world: World) -> bool:
    return not await world.rows(WAITS_FOR_A_ROW)


@contextlib.asynccontextmanager
async def table_held(world: World, table: str) -> AsyncIterator[Callable[[], Awaitable[object]]]:
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
    return bool(await world.rows(WAITS_FOR_A_TABLE))


async def is_free(world: World) -> bool:
    """Tell whether no process waits for a table or a row any more."""
    return not await is_held(world) and await _nothing_waits(world)
