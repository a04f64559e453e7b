"""Reconciling that is killed in the middle, again and again: it goes on where it was, and finds everything once."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

from tests.faults.nursery import Nursery
from tests.faults.system import a_system
from tests.reconciler.books import completed, drift, make_drift
from tests.reconciler.past import a_past
from tests.world import Place, World, until

PAYMENTS = 2_500
KILLED_AT_PAGES = (3, 8, 9, 17, 26)


async def test_killed_again_and_again_it_repeats_nothing_and_leaves_nothing_out(nursery: Nursery, own_place: Place, tmp_path: Path) -> None:
    async with a_system(nursery, own_place, tmp_path, asks_per_second="60") as (system, world):
        made = await a_past(own_place.database_url, world.sandbox.books, store_id=system.store_id, payments=PAYMENTS)
        lost, changed = made[100::500], made[350::500]
        for key in lost:
            await make_drift(world, "payments", key, forget=True)
        for key in changed:
            await make_drift(world, "payments", key, kind="capture", amount=1)
        await system.start("reconciler")
        run_id = await a_started_run(world)

        for pages in KILLED_AT_PAGES:
            await until(partial(_is_at, world, run_id, pages))
            await system.kill("reconciler")
            await system.start("reconciler")
        run = await until(lambda: completed(world, run_id))
        found = sorted((item["type"], item["key"]) for item in await drift(world, run_id=run_id))

    # Every one of the provider's was compared once, and of ours what it did not list.
    assert run["compared"] == PAYMENTS
    assert run["drift_found"] == len(lost) + len(changed)
    assert found == sorted([*(("missing_at_provider", key) for key in lost), *(("amount", key) for key in changed)])


async def a_started_run(world: World) -> str:
    times = {"since": (datetime.now(UTC) - timedelta(hours=1)).isoformat(), "until": datetime.now(UTC).isoformat()}
    answer = await world.send("POST", "/api/v1/admin/reconciliation/runs", {"domain": "payments", "provider": "sandbox", **times})
    assert answer.status == 201, answer
    return str(answer.json["id"])


async def _is_at(world: World, run_id: str, pages: int) -> bool:
    rows = await world.rows("SELECT pages, status FROM reconciler.reconciliation_runs WHERE id = $1", UUID(run_id))
    return bool(rows[0]["pages"] >= pages or rows[0]["status"] == "completed")
