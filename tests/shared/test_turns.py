"""Due rows of many stores are taken in turns."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from shared.turns import due_in_turns

DUE = due_in_turns("due_rows", "next_look_at <= now()", limit="$1")


@pytest.fixture
async def rows(database_server: str) -> AsyncIterator[asyncpg.Connection]:
    """Nine rows of one store, all older than the two of another and the one that is not due."""
    db = await asyncpg.connect(database_server)
    await db.execute("CREATE TEMPORARY TABLE due_rows (id integer, store_id integer, environment text, next_look_at timestamptz)")
    for n in range(9):
        await db.execute("INSERT INTO due_rows VALUES ($1, 1, 'live', now() - make_interval(hours => 10 - $1))", n)
    await db.execute("INSERT INTO due_rows VALUES (20, 2, 'live', now() - '2 s'::interval), (21, 2, 'live', now() - '1 s'::interval)")
    await db.execute("INSERT INTO due_rows VALUES (30, 3, 'live', now() + '1 h'::interval)")
    yield db
    await db.close()


@pytest.mark.parametrize(
    ("limit", "taken"), [(1, {0}), (2, {0, 20}), (4, {0, 1, 20, 21}), (6, {0, 1, 2, 3, 20, 21}), (50, {*range(9), 20, 21})]
)
async def test_one_store_with_many_rows_delays_no_other(rows: asyncpg.Connection, limit: int, taken: set[int]) -> None:
    """H1's kind: the oldest rows of all stores would be those of the store whose provider is silent."""
    async with rows.transaction():
        found = await rows.fetch(DUE, limit)

    assert {row["id"] for row in found} == taken
