"""The processes of a service that run: each writes its figures down every two seconds, so that any of them can give the sum."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec

from shared.contracts.vitals import Vitals
from shared.database import Pool, connected
from shared.errors import Unavailable
from shared.schedule import Job
from shared.vitals import Pulse

WRITE_EVERY_SECONDS = 2.0
# Three rounds that a process missed, and it counts as gone.
LIVE_SECONDS = 3 * WRITE_EVERY_SECONDS
PURGE_AFTER_SECONDS = 60.0
# How long a process that stops tries to delete its row; what it leaves is not counted after LIVE_SECONDS.
DELETE_TIMEOUT_SECONDS = 1.0


@asynccontextmanager
async def registered(pool: Pool, pulse: Pulse) -> AsyncIterator[None]:
    """Have this process counted among its service's replicas while inside."""

    async def write() -> None:
        await upsert_replica(pool, pulse.replica, pulse.vitals())

    try:
        async with Job("replica", write, every_seconds=WRITE_EVERY_SECONDS):
            yield
    finally:
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(DELETE_TIMEOUT_SECONDS):
                await delete_replica(pool, pulse.replica)


async def service_vitals(pool: Pool, pulse: Pulse) -> Vitals:
    """Sum up how all live replicas of this process's service are; its own figures are those of now."""
    others = await list_replicas(pool, but=pulse.replica)
    return total([pulse.vitals(), *others])


def total(each: Sequence[Vitals]) -> Vitals:
    """Sum up the figures of several processes of one service."""
    letters = {service for vitals in each for service in vitals.dead_letters}
    return Vitals(
        service=each[0].service,
        up_seconds=max(vitals.up_seconds for vitals in each),
        in_flight=sum(vitals.in_flight for vitals in each),
        handled_per_second=sum(vitals.handled_per_second for vitals in each),
        failed_per_second=sum(vitals.failed_per_second for vitals in each),
        p95_seconds=max(vitals.p95_seconds for vitals in each),
        # Every process counts the whole installation; one that has just started did not yet.
        unknown_outcomes=max(vitals.unknown_outcomes for vitals in each),
        drift_open=max(vitals.drift_open for vitals in each),
        dead_letters={service: max(vitals.dead_letters.get(service, 0) for vitals in each) for service in sorted(letters)},
        replicas=sorted((replica for vitals in each for replica in vitals.replicas), key=lambda replica: replica.started_at),
    )


async def upsert_replica(pool: Pool, name: str, vitals: Vitals) -> None:
    """Write down how a process is, and that it was there just now."""
    async with connected(pool) as db:
        await db.execute(
            """
            INSERT INTO service_replicas (name, figures)
            VALUES ($1, $2)
            ON CONFLICT (name) DO UPDATE SET figures = excluded.figures, seen_at = excluded.seen_at
            """,
            name,
            msgspec.json.encode(vitals).decode(),
        )


async def list_replicas(pool: Pool, *, but: str) -> list[Vitals]:
    """Read how every live process but one was when it last wrote."""
    async with connected(pool) as db:
        rows = await db.fetch(
            "SELECT figures FROM service_replicas WHERE seen_at > now() - make_interval(secs => $1) AND name <> $2", LIVE_SECONDS, but
        )
    return [msgspec.json.decode(row["figures"], type=Vitals) for row in rows]


async def delete_replica(pool: Pool, name: str) -> None:
    """Delete a process that has stopped."""
    async with connected(pool) as db:
        await db.execute("DELETE FROM service_replicas WHERE name = $1", name)


async def purge_replicas(pool: Pool) -> None:
    """Delete the processes that have not been seen for a minute."""
    async with connected(pool) as db:
        await db.execute("DELETE FROM service_replicas WHERE seen_at < now() - make_interval(secs => $1)", PURGE_AFTER_SECONDS)
