"""Group commit, migrations and settings."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from shared.database import Connection, GroupCommit, connected, open_pool
from shared.errors import Unavailable
from shared.migrations import MigrationRefused, Owned, migrate
from tests.world import PASSWORD, until


class TestGroupCommit:
    async def test_what_piles_up_goes_together(self) -> None:
        groups: list[list[int]] = []

        async def flush(items: list[int]) -> list[int]:
            groups.append(items)
            await asyncio.sleep(0)
            return [item * 2 for item in items]

        group = GroupCommit(flush)
        results = await asyncio.gather(*(group.submit(n) for n in range(10)))

        assert results == [n * 2 for n in range(10)]
        assert len(groups) < 10

    async def test_a_poisoned_item_fails_alone(self) -> None:
        async def flush(items: list[int]) -> list[int]:
            if 3 in items:
                raise ValueError("poisoned")
            return items

        group = GroupCommit(flush)
        results = await asyncio.gather(*(group.submit(n) for n in range(6)), return_exceptions=True)

        assert [r for r in results if not isinstance(r, Exception)] == [0, 1, 2, 4, 5]
        assert isinstance(results[3], ValueError)

    async def test_a_database_that_is_away_is_not_asked_once_per_item(self) -> None:
        asked = 0

        async def flush(items: list[int]) -> list[int]:
            nonlocal asked
            asked += 1
            raise Unavailable("away")

        group = GroupCommit(flush)
        results = await asyncio.gather(*(group.submit(n) for n in range(50)), return_exceptions=True)

        assert all(isinstance(r, Unavailable) for r in results)
        assert asked <= 2

    async def test_nobody_is_waited_for_when_the_group_is_full(self) -> None:
        group = GroupCommit(_as_they_are, items_max=5, pause_seconds=3600)

        results = await asyncio.gather(*(group.submit(n) for n in range(10)))

        assert results == list(range(10))


CLOSED_WITHIN_SECONDS = 5.0


async def _as_they_are(items: list[int]) -> list[int]:
    return items


class TestPool:
    async def test_whoever_waits_is_served(self, bare_database: str) -> None:
        pool = await open_pool(bare_database, connections=1)

        async def ask(number: int) -> int:
            async with connected(pool) as db:
                answer: int = await db.fetchval("SELECT $1::integer", number)
                return answer

        answers = await asyncio.gather(*(ask(n) for n in range(20)))

        assert answers == list(range(20))
        await pool.close()

    async def test_one_that_was_cut_while_nobody_used_it_is_not_lent(self, bare_database: str) -> None:
        pool = await open_pool(bare_database, connections=1)
        async with connected(pool) as db:
            process = await db.fetchval("SELECT pg_backend_pid()")
            in_hand = db
        other = await asyncpg.connect(bare_database)
        await other.execute("SELECT pg_terminate_backend($1)", process)
        await other.close()
        await until(lambda: _closed(in_hand))

        async with connected(pool) as db:
            assert await db.fetchval("SELECT pg_backend_pid()") != process
        await pool.close()

    async def test_one_on_which_something_failed_is_as_good_as_new(self, bare_database: str) -> None:
        pool = await open_pool(bare_database, connections=1)
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with connected(pool) as db, db.transaction():
                await db.fetchval("SELECT 1 / 0")

        async with connected(pool) as db:
            assert not db.is_in_transaction()
            assert await db.fetchval("SELECT 1") == 1
        await pool.close()

    async def test_what_is_in_hand_closes_with_it(self, bare_database: str) -> None:
        pool = await open_pool(bare_database, connections=3)
        async with connected(pool) as one, connected(pool) as another:
            assert one is not another

        await pool.close()

        with pytest.raises(Unavailable):
            async with connected(pool):
                pass

    async def test_closing_waits_for_what_is_lent_and_for_no_more(self, bare_database: str) -> None:
        pool = await open_pool(bare_database, connections=2)
        async with connected(pool) as db:
            closing = asyncio.create_task(pool.close())
            await asyncio.sleep(0)
            assert await db.fetchval("SELECT 1") == 1

        await asyncio.wait_for(closing, CLOSED_WITHIN_SECONDS)


async def _closed(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


# What every schema has.
MESSAGING = (
    *("000_messaging.sql", "001_optimism.sql", "002_commands.sql", "003_admin_audit.sql"),
    *("004_put_away.sql", "005_spans.sql", "006_service_replicas.sql"),
)


class TestMigrations:
    async def test_happen_once_and_say_what_they_did(self, bare_database: str, tmp_path: Path) -> None:
        (tmp_path / "001_first.sql").write_text("CREATE TABLE first (id uuid)")
        owned = Owned(name="probe", files=tmp_path)

        first = await migrate(bare_database, [owned], password=PASSWORD)
        second = await migrate(bare_database, [owned], password=PASSWORD)

        assert (first, second) == (
            [f"probe/{name}" for name in (*MESSAGING, "001_first.sql")],
            [],
        )

    async def test_two_at_once_are_one(self, bare_database: str, tmp_path: Path) -> None:
        (tmp_path / "001_first.sql").write_text("CREATE TABLE first (id uuid)")
        owned = Owned(name="probe", files=tmp_path)

        applied = await asyncio.gather(*(migrate(bare_database, [owned], password=PASSWORD) for _ in range(4)))

        assert sum(len(each) for each in applied) == len(MESSAGING) + 1

    async def test_a_changed_file_is_refused(self, bare_database: str, tmp_path: Path) -> None:
        file = tmp_path / "001_first.sql"
        file.write_text("CREATE TABLE first (id uuid)")
        owned = Owned(name="probe", files=tmp_path)
        await migrate(bare_database, [owned], password=PASSWORD)
        file.write_text("CREATE TABLE first (id bigint)")

        with pytest.raises(MigrationRefused, match=r"probe/001_first\.sql was changed"):
            await migrate(bare_database, [owned], password=PASSWORD)

    async def test_a_broken_file_leaves_nothing_behind(self, bare_database: str, tmp_path: Path) -> None:
        (tmp_path / "001_first.sql").write_text("CREATE TABLE first (id uuid); SELECT nonsense")

        with pytest.raises(asyncpg.PostgresError):
            await migrate(bare_database, [Owned(name="probe", files=tmp_path)], password=PASSWORD)

        connection = await asyncpg.connect(bare_database)
        assert await connection.fetchval("SELECT to_regclass('probe.first')") is None
        await connection.close()
