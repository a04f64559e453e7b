"""Reconciling a long past: so many payments in both books, killed in the middle, beside reading the provider's pages and nothing else."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from deploy import setup
from deploy.servers import Choice, servers
from deploy.state import Instance
from tests.bench.export import resident_mib
from tests.faults.nursery import Nursery
from tests.faults.system import System, a_system
from tests.reconciler.past import a_past
from tests.world import PASSWORD, SANDBOX_KEY, Place, World

UNLIMITED = "1000000"
POLL_SECONDS = 0.05
LOST_EVERY = 10_000
WATCHED = ("reconciler", "payments")


class Reconciled(dict[str, Any]):
    """What came of it, by name."""


def run(payments: int, *, home: Path, say: Callable[[str], None]) -> Reconciled:
    """Measure on servers of its own."""
    instance = Instance(home, "bench-reconcile")
    with servers(instance, Choice(), say) as found:
        return asyncio.run(_measure(payments, found.database_url, found.amqp_url, instance, say))


async def _measure(payments: int, server_url: str, amqp_url: str, instance: Instance, say: Callable[[str], None]) -> Reconciled:
    name = "tender_bench_reconcile"
    await setup.drop_database(server_url, name)
    database_url = await setup.create_database(server_url, name)
    await setup.prepare(database_url, amqp_url, password=PASSWORD)
    place = Place(database_url=database_url, amqp_url=amqp_url, management_url=None, vhost="/")
    nursery = Nursery(instance.folder / f"nursery-{time.time_ns()}")
    try:
        async with a_system(nursery, place, instance.folder, asks_per_second=UNLIMITED, log_level="WARNING") as (system, world):
            say(f"Loading {payments} payments into both books ...")
            made = await a_past(database_url, world.sandbox.books, store_id=system.store_id, payments=payments)
            lost = made[LOST_EVERY // 2 :: LOST_EVERY]
            for key in lost:
                world.sandbox.books.forget(world.sandbox.books.get(key))
            await system.start("reconciler")
            say("Reading the provider's pages alone ...")
            bare_seconds = await _read_alone(world)
            say("Reconciling ...")
            whole = await _reconciled(system, world, kill_at=None)
            say("Once more, killed in the middle ...")
            killed = await _reconciled(system, world, kill_at=payments // 2)
            drift = await _open_drift(database_url)
    finally:
        nursery.close()
    return Reconciled(
        payments=payments,
        per_second=round(payments / whole["seconds"]),
        seconds=round(whole["seconds"], 1),
        bare_listing_per_second=round(payments / bare_seconds),
        ratio=round(bare_seconds / whole["seconds"], 2),
        compared=whole["compared"],
        most_mib={name: round(mib) for name, mib in whole["most_mib"].items()},
        grown_mib={name: round(mib) for name, mib in whole["grown_mib"].items()},
        killed_seconds=round(killed["seconds"], 1),
        killed_compared=killed["compared"],
        lost=len(lost),
        drift_open=drift,
        errors=0 if whole["compared"] == killed["compared"] == payments and drift == len(lost) else 1,
    )


async def _read_alone(world: World) -> float:
    started, cursor = time.monotonic(), ""
    async with httpx.AsyncClient(base_url=world.sandbox.base_url, headers={"Authorization": f"Bearer {SANDBOX_KEY}"}) as http:
        while cursor is not None:
            cursor = (await http.get("/v1/payments", params={"cursor": cursor, "limit": "100"})).json()["next_cursor"]
    return time.monotonic() - started


async def _reconciled(system: System, world: World, *, kill_at: int | None) -> dict[str, Any]:
    since, until = datetime.now(UTC) - timedelta(hours=12), datetime.now(UTC)
    before = {name: resident_mib(system.child(name).pid) for name in WATCHED}
    most, started = dict(before), time.monotonic()
    body = {"domain": "payments", "provider": "sandbox", "since": since.isoformat(), "until": until.isoformat()}
    answer = await world.send("POST", "/api/v1/admin/reconciliation/runs", body)
    assert answer.status == httpx.codes.CREATED, answer
    run = answer.json
    while run["status"] != "completed":
        await asyncio.sleep(POLL_SECONDS)
        [row] = await world.rows("SELECT status, compared FROM reconciler.reconciliation_runs WHERE id = $1", UUID(answer.json["id"]))
        run = dict(row)
        if kill_at is not None and run["compared"] >= kill_at:
            kill_at = None
            await system.kill("reconciler")
            await system.start("reconciler")
        for name in WATCHED:
            most[name] = max(most[name], resident_mib(system.child(name).pid))
    grown = {name: most[name] - before[name] for name in WATCHED}
    return {"seconds": time.monotonic() - started, "compared": run["compared"], "most_mib": most, "grown_mib": grown}


async def _open_drift(database_url: str) -> int:
    connection = await asyncpg.connect(database_url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM reconciler.drift_items WHERE status = 'open'"))
    finally:
        await connection.close()
