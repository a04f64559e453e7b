"""Samples of how the services were, in SQL."""

from collections.abc import Mapping
from datetime import datetime

from shared.contracts.vitals import Sample, Vitals
from shared.database import Pool, connected


async def keep_samples(pool: Pool, taken_at: datetime, vitals: Mapping[str, Vitals], depths: Mapping[str, int | None]) -> None:
    """Keep one sample of each service; the first of a moment stays."""
    rows = [(service, vitals.get(service), depth) for service, depth in depths.items()]
    async with connected(pool) as db:
        await db.execute(
            """
            INSERT INTO samples (taken_at, service, handled_per_second, p95_seconds, depth)
            SELECT $1, * FROM unnest($2::text[], $3::float8[], $4::float8[], $5::integer[])
            ON CONFLICT (service, taken_at) DO NOTHING
            """,
            taken_at,
            [service for service, *_ in rows],
            [said and said.handled_per_second for _, said, _ in rows],
            [said and said.p95_seconds for _, said, _ in rows],
            [depth for *_, depth in rows],
        )


async def forget_samples(pool: Pool, *, hours: float) -> None:
    """Delete the samples that are older than that."""
    async with connected(pool) as db:
        await db.execute("DELETE FROM samples WHERE taken_at < now() - make_interval(secs => $1 * 3600)", hours)


async def samples(pool: Pool, *, limit: int) -> dict[str, list[Sample]]:
    """Read the latest samples of each service, the oldest first."""
    async with connected(pool) as db:
        rows = await db.fetch(
            """
            SELECT latest.*
              FROM (WITH RECURSIVE known AS (
                      (SELECT service FROM samples ORDER BY service LIMIT 1)
                       UNION ALL
                      SELECT (SELECT service FROM samples WHERE service > known.service ORDER BY service LIMIT 1)
                        FROM known
                       WHERE known.service IS NOT NULL)
                    SELECT service FROM known WHERE service IS NOT NULL) AS each
             CROSS JOIN LATERAL (SELECT service, taken_at, handled_per_second, p95_seconds, depth
                                   FROM samples
                                  WHERE service = each.service
                                  ORDER BY taken_at DESC
                                  LIMIT $1) AS latest
             ORDER BY latest.service, latest.taken_at
            """,
            limit,
        )
    found: dict[str, list[Sample]] = {}
    for row in rows:
        facts = dict(row)
        found.setdefault(facts.pop("service"), []).append(Sample(**facts))
    return found
