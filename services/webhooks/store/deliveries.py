"""Deliveries to merchants in SQL: which are due, and what came of them."""

from collections.abc import Mapping
from uuid import UUID

import msgspec

from shared.contracts.webhooks import DeliveryView, ListDeliveries
from shared.database import Connection, Pool, Record, Statement, connected
from shared.messages import Envelope

ERROR_MAX_CHARACTERS = 1000


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery to make now."""

    id: UUID
    endpoint_id: UUID
    event_id: UUID
    attempt_count: int
    url: str
    secrets: list[str]
    body: bytes
    correlation_id: str


async def take_due(pool: Pool, *, limit: int, per_endpoint: int, out: Mapping[UUID, int], lease_seconds: float) -> list[Due]:
    """Take deliveries that are due, the oldest first, of each address no more than it may have out at once.

    After the lease they are due again, so that a crash loses none.
    """
    async with connected(pool) as db:
        rows = await db.fetch(
            """
            UPDATE webhook_deliveries d
               SET next_attempt_at = now() + make_interval(secs => $5)
              FROM webhook_endpoints e, merchant_events m
             WHERE e.id = d.endpoint_id AND m.id = d.event_id
               AND d.id = ANY(ARRAY(SELECT due.id
                                      FROM webhook_endpoints of
                                      LEFT JOIN unnest($3::uuid[], $4::integer[]) AS taken (endpoint_id, out) ON taken.endpoint_id = of.id
                                     CROSS JOIN LATERAL (SELECT id, next_attempt_at
                                                           FROM webhook_deliveries
                                                          WHERE endpoint_id = of.id AND status = 'pending' AND next_attempt_at <= now()
                                                          ORDER BY next_attempt_at
                                                          LIMIT greatest(0, $2 - coalesce(taken.out, 0))
                                                            FOR UPDATE SKIP LOCKED) AS due
                                     ORDER BY due.next_attempt_at
                                     LIMIT $1))
            RETURNING d.id, d.endpoint_id, d.event_id, d.attempt_count, e.url, e.secrets, m.body, m.correlation_id
            """,
            limit,
            per_endpoint,
            list(out.keys()),
            list(out.values()),
            lease_seconds,
        )
    return [Due(**dict(row)) for row in rows]


async def delivered(pool: Pool, due: Due, *, status: int) -> None:
    """Write down that an address took an event, and that it does not fail any more."""
    async with connected(pool) as db:
        await db.execute(
            """
            WITH done AS (UPDATE webhook_deliveries
                             SET status = 'delivered', attempt_count = attempt_count + 1, last_status = $2, last_error = NULL,
                                 delivered_at = now()
                           WHERE id = $1)
            UPDATE webhook_endpoints SET failing_since = NULL WHERE id = $3 AND failing_since IS NOT NULL
            """,
            due.id,
            status,
            due.endpoint_id,
        )


async def undelivered(pool: Pool, due: Due, *, status: int | None, error: str, again_seconds: float | None) -> None:
    """Write down a failed try, and when the next one is due, if any."""
    async with connected(pool) as db:
        await db.execute(
            """
            WITH tried AS (UPDATE webhook_deliveries
                              SET attempt_count = attempt_count + 1, last_status = $2, last_error = $3,
                                  status = CASE WHEN $4::float8 IS NULL THEN 'failed' ELSE status END,
                                  next_attempt_at = now() + make_interval(secs => coalesce($4, 0))
                            WHERE id = $1)
            UPDATE webhook_endpoints SET failing_since = now() WHERE id = $5 AND failing_since IS NULL
            """,
            due.id,
            status,
            error[:ERROR_MAX_CHARACTERS],
            again_seconds,
            due.endpoint_id,
        )


def again(envelope: Envelope, delivery_id: UUID) -> Statement:
    """Have a delivery made again from the start."""
    return Statement(
        """
        UPDATE webhook_deliveries SET status = 'pending', attempt_count = 0, next_attempt_at = now(), delivered_at = NULL
         WHERE id = $1 AND store_id = $2 AND environment = $3
        RETURNING id
        """,
        (delivery_id, envelope.store_id, envelope.environment.value),
        must=True,
    )


_DELIVERY = """
    d.id, d.endpoint_id, d.event_id, m.type AS event_type, d.status, d.attempt_count, d.last_status, d.last_error,
    CASE WHEN d.status = 'pending' THEN d.next_attempt_at END AS next_attempt_at, d.delivered_at, d.created_at
"""


async def delivery(db: Connection, envelope: Envelope, delivery_id: UUID) -> DeliveryView | None:
    """Read how one delivery stands."""
    row = await db.fetchrow(
        f"""
        SELECT {_DELIVERY}
          FROM webhook_deliveries d
          JOIN merchant_events m ON m.id = d.event_id
         WHERE d.id = $1 AND d.store_id = $2 AND d.environment = $3
        """,
        delivery_id,
        envelope.store_id,
        envelope.environment.value,
    )
    return None if row is None else _delivery(row)


async def deliveries(db: Connection, envelope: Envelope, wanted: ListDeliveries, *, limit: int) -> list[DeliveryView]:
    """Read deliveries, the newest first."""
    rows = await db.fetch(
        f"""
        SELECT {_DELIVERY}
          FROM webhook_deliveries d
          JOIN merchant_events m ON m.id = d.event_id
         WHERE d.store_id = $1 AND d.environment = $2
           AND ($3::uuid IS NULL OR d.endpoint_id = $3)
           AND ($4::uuid IS NULL OR d.event_id = $4)
           AND ($5::text IS NULL OR d.status = $5)
           AND ($6::uuid IS NULL OR d.id < $6)
         ORDER BY d.id DESC
         LIMIT $7
        """,
        envelope.store_id,
        envelope.environment.value,
        wanted.endpoint_id,
        wanted.event_id,
        wanted.status,
        wanted.before,
        limit,
    )
    return [_delivery(row) for row in rows]


def _delivery(row: Record) -> DeliveryView:
    return DeliveryView(**dict(row))
