"""Holding a process between its reading and its writing of a row, so that something else happens in between."""

import contextlib
from collections.abc import AsyncIterator

import asyncpg

from tests.world import Place, until

WAITING = """
    SELECT count(*)
      FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event_type = 'Lock' AND now() - query_start > make_interval(secs => $1)
"""


@contextlib.asynccontextmanager
async def held(place: Place, rows: str, *arguments: object) -> AsyncIterator[asyncpg.Connection]:
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
    """Wait until so many are held."""
    connection = await asyncpg.connect(place.database_url)

    async def enough() -> bool:
        return bool(await connection.fetchval(WAITING, longer_than_seconds) >= count)

    try:
        await until(enough)
    finally:
        await connection.close()
