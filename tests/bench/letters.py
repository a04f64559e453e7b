"""A mountain of dead letters: listed, grouped, searched and shown over the API, and retried at a rate until somebody stops it."""

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg

from deploy import setup
from deploy.servers import Choice, servers
from deploy.state import Instance
from services.gateway.domain import Role
from tests.faults.nursery import Nursery
from tests.faults.system import a_system
from tests.world import PASSWORD, Place, World

GROUPS = 40
ASKED_TIMES = 100
RATES_PER_SECOND = (50.0, 200.0)
RETRY_SECONDS = 6.0
STILL_SECONDS = 1.0


def run(letters: int, *, home: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure on servers of its own."""
    instance = Instance(home, "bench-letters")
    with servers(instance, Choice(), say) as found:
        return asyncio.run(_measure(letters, found.database_url, found.amqp_url, instance, say))


async def _measure(letters: int, server_url: str, amqp_url: str, instance: Instance, say: Callable[[str], None]) -> dict[str, Any]:
    name = "tender_bench_letters"
    await setup.drop_database(server_url, name)
    database_url = await setup.create_database(server_url, name)
    await setup.prepare(database_url, amqp_url, password=PASSWORD)
    place = Place(database_url=database_url, amqp_url=amqp_url, management_url=None, vhost="/")
    nursery = Nursery(instance.folder / f"nursery-{time.time_ns()}")
    try:
        async with a_system(nursery, place, instance.folder, log_level="WARNING", rate_per_second=100_000) as (system, world):
            say(f"Loading {letters} dead letters ...")
            await _load(database_url, world, letters)
            await system.start("reconciler")
            say("Asking ...")
            asked = {what: await _asked(world, path) for what, path in (await _questions(world)).items()}
            say("Retrying ...")
            retried = [await _retried(world, rate) for rate in RATES_PER_SECOND]
    finally:
        nursery.close()
    bare = asked.pop("bare")
    return {
        "letters": letters,
        "p50_ms": {what: round(statistics.median(times), 1) for what, times in asked.items()},
        "p95_ms": {what: round(statistics.quantiles(times, n=20)[18], 1) for what, times in asked.items()},
        "times_a_query_of_one_row": {what: round(statistics.median(times) / statistics.median(bare), 1) for what, times in asked.items()},
        "retries": retried,
    }


async def _load(database_url: str, world: World, letters: int) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(
            """
            INSERT INTO reconciler.dead_letters (id, identity, service, queue, store_id, environment, source, message_id, digest,
                                                 message_type, actor, correlation_id, order_id, headers, body, reason, attempts,
                                                 fingerprint, first_seen_at, died_at)
            SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, sha256(n::text::bytea), 'payments', 'payments.in.v1',
                   $1, 'sandbox', 'gateway', gen_random_uuid(), sha256('x'), 'payments.capture.v1', 'admin:bench', 'bench-' || n,
                   gen_random_uuid(), '{}', '{"type":"payments.capture.v1"}',
                   'Bench: the provider said ' || (n % $3) || ' when asked about row' || n, 3, 'group' || (n % $3),
                   now() - interval '1 hour', now() - interval '1 hour'
              FROM generate_series(1, $2) AS n
            """,
            world.store_id,
            letters,
            GROUPS,
        )
        await connection.execute(
            """
            INSERT INTO reconciler.dead_letter_groups (store_id, environment, fingerprint, service, message_type, reason)
            SELECT $1, 'sandbox', 'group' || n, 'payments', 'payments.capture.v1', 'Bench: the provider said ' || n
              FROM generate_series(0, $2 - 1) AS n
            """,
            world.store_id,
            GROUPS,
        )
        await connection.execute("ANALYZE reconciler.dead_letters")
    finally:
        await connection.close()


async def _questions(world: World) -> dict[str, str]:
    first = (await _get(world, "dead-letters?limit=1"))["letters"][0]
    deep = (await _get(world, "dead-letters?limit=200"))["next"]
    return {
        # A query that comes back with one row of another table: what asking costs at all.
        "bare": "dead-letters/redrives?limit=1",
        "list": "dead-letters?limit=50",
        "next page": f"dead-letters?limit=50&before={deep}",
        "group": "dead-letters/groups",
        "of a group": "dead-letters?fingerprint=group7&limit=50",
        "search one": "dead-letters?text=row4711&limit=50",
        "search many": "dead-letters?text=provider&limit=50",
        "show": f"dead-letters/{first['id']}",
    }


async def _asked(world: World, path: str) -> list[float]:
    times = []
    for _ in range(ASKED_TIMES):
        started = time.perf_counter()
        await _get(world, path)
        times.append((time.perf_counter() - started) * 1000)
    return times


async def _retried(world: World, rate: float) -> dict[str, Any]:
    """Retry everything at a rate for a while, then stop, and see whether it does."""
    body = {"action": "retry", "filter": {"service": "payments"}, "rate_per_second": rate}
    started = await _post(world, "dead-letters/redrives", body)
    began = time.monotonic()
    while time.monotonic() - began < RETRY_SECONDS:
        await asyncio.sleep(0.1)
    seen = await _get(world, f"dead-letters/redrives/{started['id']}")
    stopping = time.monotonic()
    stopped = await _post(world, f"dead-letters/redrives/{started['id']}/stop", {})
    stop_ms = (time.monotonic() - stopping) * 1000
    await asyncio.sleep(STILL_SECONDS)
    after = await _get(world, f"dead-letters/redrives/{started['id']}")
    return {
        "wanted_per_second": rate,
        "per_second": round((seen["done"] + seen["skipped"]) / RETRY_SECONDS, 1),
        "stop_ms": round(stop_ms, 1),
        "status": after["status"],
        "went_on_after_the_stop": after["done"] - stopped["done"],
    }


async def _get(world: World, path: str) -> Any:
    answer = await world.http.get(f"/api/v1/admin/{path}", headers={"Authorization": f"Bearer {world.keys[Role.ADMIN]}"})
    answer.raise_for_status()
    return answer.json()


async def _post(world: World, path: str, body: Any) -> Any:
    answer = await world.send("POST", f"/api/v1/admin/{path}", body)
    assert answer.status in (200, 201), answer
    return answer.json
