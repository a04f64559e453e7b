"""A day's traces in our own database, so that they can be looked at with no other tool."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from shared import telemetry
from shared.contracts.traces import SPANS_MAX, Spans, SpanView
from shared.database import Connection, Pool, Record, connected
from shared.messages import Envelope
from shared.telemetry import Ended

FLUSH_EVERY_SECONDS = 1.0
FORGET_ROWS_MAX = 10_000

_COLUMNS = "trace_id, span_id, parent_id, name, kind, started_at, duration_us, failed, attributes"


async def flush(pool: Pool) -> None:
    """Write down what has ended since the last time."""
    ended = telemetry.ended_spans()
    if ended:
        async with connected(pool) as db:
            await _write(db, ended)


async def _write(db: Connection, ended: Sequence[Ended]) -> None:
    await db.execute(
        """
        INSERT INTO spans (trace_id, span_id, parent_id, name, kind, started_at, duration_us, failed, attributes, correlation_id,
                           store_id, environment)
        SELECT trace_id, span_id, parent_id, name, kind, started_at, duration_us, failed, attributes::jsonb,
               attributes::jsonb->>'correlation_id', (attributes::jsonb->>'store_id')::uuid, attributes::jsonb->>'environment'
          FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::bigint[], $8::boolean[],
                      $9::text[])
               AS t (trace_id, span_id, parent_id, name, kind, started_at, duration_us, failed, attributes)
        """,
        [e.trace_id for e in ended],
        [e.span_id for e in ended],
        [e.parent_id for e in ended],
        [e.name for e in ended],
        [e.kind for e in ended],
        [datetime.fromtimestamp(e.started_ns / 1e9, UTC) for e in ended],
        [e.duration_ns // 1000 for e in ended],
        [e.failed for e in ended],
        [msgspec.json.encode(e.attributes, enc_hook=str).decode() for e in ended],
    )


async def forget(pool: Pool, *, hours: float) -> None:
    """Delete a batch of what is older than that."""
    async with connected(pool) as db:
        await db.execute(
            """
            DELETE FROM spans
             WHERE ctid = ANY(ARRAY(SELECT ctid FROM spans WHERE started_at < now() - make_interval(secs => $1 * 3600) LIMIT $2))
            """,
            hours,
            FORGET_ROWS_MAX,
        )


async def spans_of(pool: Pool, envelope: Envelope, *, trace_id: str, correlation_id: str) -> Spans:
    """Read a trace of the store's, or those in which a correlation id was worked for."""
    async with connected(pool) as db:
        rows = await db.fetch(
            f"""
            WITH meant AS (
              SELECT $1::text AS trace_id
               WHERE $1 <> ''
               UNION
              SELECT trace_id FROM spans WHERE correlation_id = $2 AND $2 <> '')
            SELECT {_COLUMNS}
              FROM spans
             WHERE trace_id = ANY(ARRAY(SELECT m.trace_id
                                          FROM meant m
                                         WHERE EXISTS (SELECT
                                                         FROM spans s
                                                        WHERE s.trace_id = m.trace_id AND s.store_id = $3 AND s.environment = $4)))
             ORDER BY started_at
             LIMIT $5
            """,
            trace_id,
            correlation_id,
            envelope.store_id,
            envelope.environment.value,
            SPANS_MAX + 1,
        )
    return Spans(spans=[_view(row) for row in rows[:SPANS_MAX]], complete=len(rows) <= SPANS_MAX)


async def begun(pool: Pool, envelope: Envelope, *, before: datetime | None, at_least_us: int, failed: bool, limit: int) -> list[SpanView]:
    """List the store's requests that came in here and were traced, the newest first."""
    async with connected(pool) as db:
        rows = await db.fetch(
            f"""
            SELECT {_COLUMNS}
              FROM spans
             WHERE kind = 'server' AND store_id = $1 AND environment = $2 AND started_at < coalesce($3, now() + interval '1 minute')
               AND duration_us >= $4 AND (failed OR NOT $5)
             ORDER BY started_at DESC
             LIMIT $6
            """,
            envelope.store_id,
            envelope.environment.value,
            before,
            at_least_us,
            failed,
            limit,
        )
    return [_view(row) for row in rows]


def _view(row: Record) -> SpanView:
    return SpanView(**{**dict(row), "attributes": msgspec.json.decode(row["attributes"])})
