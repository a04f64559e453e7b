"""Deliveries to merchants in SQL: which are due, and what came of them."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from services.webhooks.store.events import CLOCKS_APART, first_id_around
from shared.contracts.webhooks import DeliveryView, ListDeliveries, RecoverDeliveries
from shared.database import Connection, Pool, Record, Statement, connected
from shared.ids import NOBODY, new_id
from shared.messages import Envelope, Environment

ERROR_MAX_CHARACTERS = 1000


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery to make now, under a lease; its secrets are sealed until they are opened to sign with."""

    id: UUID
    endpoint_id: UUID
    event_id: UUID
    attempt_count: int
    url: str
    secrets: list[str]
    body: bytes
    correlation_id: str
    store_id: UUID = NOBODY
    environment: str = Environment.SANDBOX.value
    # The default is no delivery's token, so that no result is written by it.
    lease_token: UUID = NOBODY
    # How many deliveries may be out at once for the endpoint, fewer after time-outs.
    endpoint_max: int = 1


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """How many deliveries may be out at once: for one endpoint, for one store, and for a store's endpoints that time out."""

    per_endpoint: int
    per_store: int
    per_store_timing_out: int


async def claim_due(pool: Pool, *, limit: int, share: Share, out: Mapping[UUID, int], lease_seconds: float) -> list[Due]:
    """Claim deliveries that are due, the stores in turns and the oldest first, none beyond the share of its endpoint and its store.

    After the lease they are due again, so that a crash loses none.
    """
    async with connected(pool) as db:
        rows = await db.fetch(
            """
            WITH endpoints AS (
              SELECT e.id, e.store_id, e.timeout_count > 0 AS timing_out, coalesce(o.out, 0) AS out,
                     greatest(1, $2::integer >> least(e.timeout_count, 30)) AS endpoint_max,
                     coalesce(e.paused_until > now(), false) AS paused
                FROM webhook_endpoints e
                LEFT JOIN unnest($5::uuid[], $6::integer[]) AS o (endpoint_id, out) ON o.endpoint_id = e.id
            ), stores AS (
              SELECT store_id, sum(out) AS out, sum(out) FILTER (WHERE timing_out) AS timing_out
                FROM endpoints
               WHERE out > 0
               GROUP BY store_id
            ), candidates AS (
              SELECT due.id, due.next_attempt_at, e.store_id, e.timing_out, e.endpoint_max,
                     e.out + row_number() OVER (PARTITION BY e.id ORDER BY due.next_attempt_at) AS of_endpoint
                FROM endpoints e
               CROSS JOIN LATERAL (SELECT id, next_attempt_at
                                     FROM webhook_deliveries
                                    WHERE endpoint_id = e.id AND status = 'pending' AND next_attempt_at <= now()
                                    ORDER BY next_attempt_at
                                    LIMIT greatest(0, e.endpoint_max - e.out)
                                      FOR UPDATE SKIP LOCKED) AS due
               WHERE NOT e.paused
            ), turns AS (
              SELECT c.*,
                     coalesce(s.out, 0) + row_number()
                       OVER (PARTITION BY c.store_id ORDER BY c.timing_out, c.of_endpoint, c.next_attempt_at) AS of_store,
                     coalesce(s.timing_out, 0) + row_number()
                       OVER (PARTITION BY c.store_id, c.timing_out ORDER BY c.of_endpoint, c.next_attempt_at) AS of_timing_out
                FROM candidates c
                LEFT JOIN stores s ON s.store_id = c.store_id
            ), chosen AS (
              SELECT id, endpoint_max
                FROM turns
               WHERE of_store <= $3 AND (NOT timing_out OR of_timing_out <= $4)
               ORDER BY of_store, next_attempt_at
               LIMIT $1)
            UPDATE webhook_deliveries d
               SET next_attempt_at = now() + make_interval(secs => $7), lease_token = $8
              FROM chosen, webhook_endpoints e, merchant_events m
             WHERE d.id = chosen.id AND e.id = d.endpoint_id AND m.id = d.event_id
            RETURNING d.id, d.endpoint_id, d.event_id, d.attempt_count, e.url, e.secrets, m.body, m.correlation_id, d.store_id,
                      d.environment, d.lease_token, chosen.endpoint_max
            """,
            limit,
            share.per_endpoint,
            share.per_store,
            share.per_store_timing_out,
            list(out.keys()),
            list(out.values()),
            lease_seconds,
            new_id(),
        )
    return [Due(**dict(row)) for row in rows]


async def mark_delivered(pool: Pool, due: Due, *, status: int) -> bool:
    """Write down that an endpoint received an event, and fails no more; says whether the lease was held, else nothing is written."""
    # The endpoint is locked before its delivery, as deleting or changing it does, or they could wait for each other.
    async with connected(pool) as db:
        row = await db.fetchrow(
            """
            WITH unhealthy AS MATERIALIZED (
                     SELECT id
                       FROM webhook_endpoints
                      WHERE id = $4 AND (failing_since IS NOT NULL OR timeout_count > 0 OR paused_until IS NOT NULL)
                        FOR NO KEY UPDATE),
                 done AS (UPDATE webhook_deliveries
                             SET status = 'delivered', attempt_count = attempt_count + 1, last_status = $3, last_error = NULL,
                                 delivered_at = now(), lease_token = NULL
                           WHERE id = $1 AND lease_token = $2 AND (SELECT count(*) FROM unhealthy) >= 0
                          RETURNING endpoint_id),
                 healthy AS (UPDATE webhook_endpoints e
                                SET failing_since = NULL, timeout_count = 0, paused_until = NULL
                               FROM done, unhealthy
                              WHERE e.id = done.endpoint_id AND e.id = unhealthy.id)
            SELECT FROM done
            """,
            due.id,
            due.lease_token,
            status,
            due.endpoint_id,
        )
    return row is not None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a delivery was not taken: the endpoint's status, if it answered, whether it timed out, and for how long it asked us to wait."""

    status: int | None
    error: str
    timed_out: bool = False
    retry_after_seconds: float | None = None


async def mark_undelivered(pool: Pool, due: Due, failure: Failure, *, again_seconds: float | None) -> bool:
    """Write down a failed try, and when the next one is due, if any; says whether the lease was still held, else nothing is written."""
    # The endpoint is locked first, as above.
    async with connected(pool) as db:
        row = await db.fetchrow(
            """
            WITH endpoint AS MATERIALIZED (SELECT id FROM webhook_endpoints WHERE id = $8 FOR NO KEY UPDATE),
                 tried AS (UPDATE webhook_deliveries
                              SET attempt_count = attempt_count + 1, last_status = $3, last_error = $4, lease_token = NULL,
                                  status = CASE WHEN $5::float8 IS NULL THEN 'failed' ELSE status END,
                                  next_attempt_at = now() + make_interval(secs => coalesce($5, 0))
                            WHERE id = $1 AND lease_token = $2 AND (SELECT count(*) FROM endpoint) >= 0
                           RETURNING endpoint_id),
                 failing AS (UPDATE webhook_endpoints e
                                SET failing_since = coalesce(e.failing_since, now()),
                                    timeout_count = CASE WHEN $6 THEN e.timeout_count + 1 ELSE 0 END,
                                    paused_until = CASE WHEN $7::float8 IS NULL THEN e.paused_until
                                                        ELSE now() + make_interval(secs => $7) END
                               FROM tried
                              WHERE e.id = tried.endpoint_id)
            SELECT FROM tried
            """,
            due.id,
            due.lease_token,
            failure.status,
            failure.error[:ERROR_MAX_CHARACTERS],
            again_seconds,
            failure.timed_out,
            failure.retry_after_seconds,
            due.endpoint_id,
        )
    return row is not None


def again(envelope: Envelope, delivery_id: UUID) -> list[Statement]:
    """Have a delivery made again from the start, also where its endpoint requested a pause."""
    which = (delivery_id, envelope.store_id, envelope.environment.value)
    return [
        Statement(
            """
            UPDATE webhook_deliveries
               SET status = 'pending', attempt_count = 0, next_attempt_at = now(), delivered_at = NULL, lease_token = NULL
             WHERE id = $1 AND store_id = $2 AND environment = $3
            RETURNING id
            """,
            which,
            must=True,
        ),
        Statement(
            """
            UPDATE webhook_endpoints
               SET paused_until = NULL
             WHERE id = (SELECT endpoint_id FROM webhook_deliveries WHERE id = $1 AND store_id = $2 AND environment = $3)
            """,
            which,
        ),
    ]


def end_unwanted(endpoint_id: UUID, event_types: Sequence[str], *, enabled: bool) -> Statement:
    """End the pending deliveries to an endpoint that it wants no more: those of other types, or all where it is disabled."""
    return Statement(
        """
        UPDATE webhook_deliveries d
           SET status = 'failed', lease_token = NULL,
               last_error = CASE WHEN $3 THEN 'The endpoint receives no events of this type any more.' ELSE 'The endpoint is disabled.' END
          FROM merchant_events m
         WHERE d.endpoint_id = $1 AND d.status = 'pending' AND m.id = d.event_id
           AND NOT ($3 AND ($2::text[] = '{}' OR m.type = ANY($2)))
        """,
        (endpoint_id, list(event_types), enabled),
    )


async def missed(db: Connection, envelope: Envelope, wanted: RecoverDeliveries, event_types: Sequence[str], *, limit: int) -> list[UUID]:
    """List the events since a moment that an endpoint has not got and is not about to get, the oldest first."""
    rows = await db.fetch(
        """
        SELECT m.id
          FROM merchant_events m
         WHERE m.store_id = $1 AND m.environment = $2 AND m.created_at >= $4 AND m.id >= $5
           AND ($6::text[] = '{}' OR m.type = ANY($6))
           AND NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.endpoint_id = $3 AND d.event_id = m.id AND d.status <> 'failed')
         ORDER BY m.id
         LIMIT $7
        """,
        envelope.store_id,
        envelope.environment.value,
        wanted.endpoint_id,
        wanted.since,
        first_id_around(wanted.since, -CLOCKS_APART),
        list(event_types),
        limit,
    )
    return [row["id"] for row in rows]


def insert_missed(envelope: Envelope, endpoint_id: UUID, event_ids: Sequence[UUID]) -> Statement:
    """Have events delivered to an endpoint that have not been, from the start; what has been or is about to be is left as it is."""
    return Statement(
        """
        INSERT INTO webhook_deliveries AS d (id, endpoint_id, event_id, store_id, environment)
        SELECT given.id, $3, given.event_id, $4, $5
          FROM unnest($1::uuid[], $2::uuid[]) AS given (id, event_id)
            ON CONFLICT (endpoint_id, event_id) DO UPDATE
           SET status = 'pending', attempt_count = 0, next_attempt_at = now(), lease_token = NULL
         WHERE d.status = 'failed'
        """,
        ([new_id() for _ in event_ids], list(event_ids), endpoint_id, envelope.store_id, envelope.environment.value),
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
