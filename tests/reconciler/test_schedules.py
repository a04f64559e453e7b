"""Schedules: each time is fired once by whoever leads, and what nobody could fire is caught up."""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.reconciler.app import build
from services.reconciler.domain.runs import Schedule, covered, last_due, schedules_of
from services.reconciler.store import runs
from shared.contracts.books import Book, Domain
from shared.database import Rows, connected, open_pool
from shared.errors import Contended
from shared.ids import new_id
from shared.settings import SettingsRefused
from tests.world import Place, World, a_world, reconciler_settings, until

EVERY_MINUTE = '[{"domain": "payments", "cron": "* * * * *"}]'
NIGHTLY = Schedule(domain=Domain.PAYMENTS, cron="17 3 * * *")
NIGHT = datetime(2026, 11, 20, 3, 17, tzinfo=UTC)


@contextlib.asynccontextmanager
async def a_shop(place: Place) -> AsyncIterator[World]:
    """A shop with a payment, and nobody who compares yet."""
    async with a_world(place) as world:
        await world.a_captured_payment()
        yield world


def a_reconciler(place: Place, **changes: Any) -> contextlib.AbstractAsyncContextManager[Any]:
    return build(reconciler_settings(place, {"reconcile_schedules": EVERY_MINUTE, **changes})).running()


async def fired(world: World, count: int = 1) -> Any:
    """Wait until scheduled runs are complete; gives all there are."""

    async def complete() -> Any:
        rows = await world.rows("SELECT * FROM reconciler.reconciliation_runs WHERE schedule IS NOT NULL ORDER BY due_at")
        return rows if len([row for row in rows if row["status"] == "completed"]) >= count else None

    return await until(complete)


async def test_a_time_is_fired_once_a_book_however_many_copies_there_are(own_place: Place) -> None:
    async with a_shop(own_place) as world, a_reconciler(own_place), a_reconciler(own_place), a_reconciler(own_place):
        rows = await fired(world, 2)
        leaders = await world.rows("SELECT * FROM reconciler.leaders")

    assert len({(row["provider"], row["due_at"]) for row in rows}) == len(rows)
    assert {row["provider"] for row in rows} == {"sandbox", "stripe"}
    assert {row["store_id"] for row in rows} == {world.store_id}
    assert len(leaders) == 1


async def test_another_takes_the_lead_when_the_first_is_gone_and_catches_up(own_place: Place) -> None:
    async with a_shop(own_place) as world:
        async with a_reconciler(own_place):
            before = await fired(world, 2)
        # It resigned; now as if it had been away for five days, its successor too.
        await world.change("UPDATE reconciler.schedules_fired SET fired_at = fired_at - interval '5 days'")
        [missed] = await world.rows("SELECT fired_at FROM reconciler.schedules_fired")
        await world.change("DELETE FROM reconciler.reconciliation_runs")
        async with a_reconciler(own_place):
            after = await fired(world, 2)
        [leader] = await world.rows("SELECT token FROM reconciler.leaders")

    assert before
    assert leader["token"] > 1
    # One run a book makes up for all the times in between.
    assert len({row["provider"] for row in after}) == len(after)
    assert all(row["since"] <= missed["fired_at"] - timedelta(minutes=5) for row in after)


async def test_whoever_leads_no_more_fires_nothing(own_place: Place) -> None:
    settings = reconciler_settings(own_place)
    pool = await open_pool(settings.database_url, connections=2)
    try:
        token = await runs.lead(pool, "schedules", new_id(), lease_seconds=0)
        assert token == 1
        assert await runs.lead(pool, "schedules", new_id(), lease_seconds=60) == 2
        assert await runs.lead(pool, "schedules", new_id(), lease_seconds=60) is None
        book = Book(store_id=new_id(), environment="sandbox", domain=Domain.PAYMENTS, provider="sandbox")

        since, ends = covered(NIGHTLY, due=NIGHT, fired_at=None)
        statements = runs.fire(NIGHTLY, [book], role="schedules", token=token, due=NIGHT, since=since, until=ends)
        with pytest.raises(Contended):
            await Rows(pool).write(statements)

        async with connected(pool) as db:
            assert await db.fetchval("SELECT count(*) FROM reconciliation_runs") == 0
    finally:
        await pool.close()


class TestWhatIsDue:
    @pytest.mark.parametrize(
        ("now", "fired_at", "due"),
        [
            (NIGHT - timedelta(seconds=1), NIGHT - timedelta(days=1), None),
            (NIGHT, NIGHT - timedelta(days=1), NIGHT),
            (NIGHT + timedelta(hours=20), NIGHT - timedelta(days=1), NIGHT),
            (NIGHT + timedelta(hours=20), NIGHT, None),
            (NIGHT + timedelta(days=3, hours=1), NIGHT, NIGHT + timedelta(days=3)),
            (NIGHT + timedelta(hours=1), None, NIGHT),
        ],
        ids=["not yet", "now", "late", "fired", "three nights missed", "never fired"],
    )
    def test_is_the_last_time_that_was_not_fired(self, now: datetime, fired_at: datetime | None, due: datetime | None) -> None:
        assert last_due(NIGHTLY, now=now, fired_at=fired_at) == due

    def test_a_run_covers_what_it_looks_back_on_and_all_since_the_run_before(self) -> None:
        usual = covered(NIGHTLY, due=NIGHT, fired_at=NIGHT - timedelta(days=1))
        after_a_week = covered(NIGHTLY, due=NIGHT, fired_at=NIGHT - timedelta(days=6))

        settling = timedelta(minutes=5)
        assert usual == (NIGHT - settling - timedelta(hours=48), NIGHT - settling)
        assert after_a_week == (NIGHT - timedelta(days=6) - settling, NIGHT - settling)


@pytest.mark.parametrize(
    "text", ["nonsense", '[{"domain": "payments", "cron": "61 * * * *"}]', '[{"domain": "money", "cron": "* * * * *"}]']
)
def test_schedules_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(SettingsRefused, match="must be a JSON list of schedules"):
        schedules_of(text)
