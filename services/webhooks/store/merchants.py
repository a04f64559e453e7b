"""What is told to merchants in SQL: addresses, events in their order, and deliveries."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from shared.contracts.webhooks import DeliveryView, EndpointView, ListDeliveries, MerchantEvent
from shared.database import Connection, Pool, Record, Rows, Statement, connected
from shared.ids import new_id
from shared.messages import Envelope

DUE_ROWS_MAX = 50
ERROR_MAX_CHARACTERS = 500
EVENTS_KEPT_DAYS = 90
DELETE_ROWS_MAX = 5_000


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An address as its row holds it."""

    id: UUID
    url: str
    event_types: list[str]
    secrets: list[str]
    enabled: bool
    disabled_why: str | None
    failing_since: datetime | None
    created_at: datetime
    updated_at: datetime

    def view(self) -> EndpointView:
        """Show it, without its secrets."""
        return EndpointView(**{key: value for key, value in msgspec.structs.asdict(self).items() if key != "secrets"})


_ENDPOINT = "id, url, event_types, secrets, enabled, disabled_why, failing_since, created_at, updated_at"


async def endpoints(db: Connection, envelope: Envelope) -> list[Endpoint]:
    """Read every address of a store."""
    rows = await db.fetch(
        f"SELECT {_ENDPOINT} FROM webhook_endpoints WHERE store_id = $1 AND environment = $2 ORDER BY id",
        envelope.store_id,
        envelope.environment.value,
    )
    return [Endpoint(**dict(row)) for row in rows]


def put(envelope: Envelope, endpoint: Endpoint) -> Statement:
    """Write an address, in the place of what it was; enabling it forgets that it failed."""
    return Statement(
        """
        INSERT INTO webhook_endpoints (id, store_id, environment, url, event_types, secrets, enabled, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        ON CONFLICT (id) DO UPDATE
           SET url = EXCLUDED.url, event_types = EXCLUDED.event_types, secrets = EXCLUDED.secrets, enabled = EXCLUDED.enabled,
               disabled_why = NULL, failing_since = NULL, updated_at = EXCLUDED.updated_at
         WHERE webhook_endpoints.store_id = EXCLUDED.store_id AND webhook_endpoints.environment = EXCLUDED.environment
        RETURNING id
        """,
        (
            endpoint.id,
            envelope.store_id,
            envelope.environment.value,
            endpoint.url,
            endpoint.event_types,
            endpoint.secrets,
            endpoint.enabled,
            endpoint.created_at,
            endpoint.updated_at,
        ),
        must=True,
    )


def delete(envelope: Envelope, endpoint_id: UUID) -> Statement:
    """Forget an address with its deliveries."""
    return Statement(
        "DELETE FROM webhook_endpoints WHERE id = $1 AND store_id = $2 AND environment = $3 RETURNING id",
        (endpoint_id, envelope.store_id, envelope.environment.value),
        must=True,
    )


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be known to tell of something: what was told last of the order and of the subject, and to whom."""

    last: int
    version: int
    endpoints: list[UUID]
    now: datetime


async def ground(rows: Rows, envelope: Envelope, *, order_id: UUID, subject_id: UUID, kind: str) -> Ground:
    """Read what has to be known to tell of something, as of one moment."""
    row = await rows.one(
        """
        SELECT coalesce((SELECT last FROM order_sequences WHERE store_id = $1 AND environment = $2 AND order_id = $3), 0) AS last,
               coalesce((SELECT max(version) FROM merchant_events WHERE subject_id = $4), 0) AS version,
               ARRAY(SELECT id
                       FROM webhook_endpoints
                      WHERE store_id = $1 AND environment = $2 AND enabled AND (event_types = '{}' OR $5 = ANY(event_types))) AS endpoints,
               now() AS now
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        subject_id,
        kind,
    )
    return Ground(**dict(row))


def told(envelope: Envelope, event: MerchantEvent, *, subject_id: UUID, version: int, endpoint_ids: Sequence[UUID]) -> list[Statement]:
    """Write an event with its deliveries, only if its number is the next one."""
    store = (envelope.store_id, envelope.environment.value)
    return [
        Statement(
            """
            INSERT INTO order_sequences AS s (store_id, environment, order_id, last)
            VALUES ($1, $2, $3, $4)
            ON CONFLICT (store_id, environment, order_id) DO UPDATE SET last = EXCLUDED.last WHERE s.last = EXCLUDED.last - 1
            RETURNING last
            """,
            (*store, event.order_id, event.sequence),
            must=True,
        ),
        Statement(
            """
            INSERT INTO merchant_events (id, store_id, environment, type, order_id, sequence, subject_id, version, body, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            """,
            (
                event.id,
                *store,
                event.type,
                event.order_id,
                event.sequence,
                subject_id,
                version,
                msgspec.json.encode(event),
                event.created_at,
            ),
        ),
        Statement(
            """
            INSERT INTO webhook_deliveries (id, endpoint_id, event_id, store_id, environment)
            SELECT id, endpoint_id, $1, $2, $3 FROM unnest($4::uuid[], $5::uuid[]) AS t (id, endpoint_id)
            """,
            (event.id, *store, [new_id() for _ in endpoint_ids], list(endpoint_ids)),
        ),
    ]


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery to make now."""

    id: UUID
    endpoint_id: UUID
    event_id: UUID
    attempt_count: int
    url: str
    secrets: list[str]
    body: bytes


async def take_due(pool: Pool, *, lease_seconds: float) -> list[Due]:
    """Take deliveries that are due; after the lease they are due again, so that a crash loses none."""
    async with connected(pool) as db:
        rows = await db.fetch(
            """
            UPDATE webhook_deliveries d
               SET next_attempt_at = now() + make_interval(secs => $2)
              FROM webhook_endpoints e, merchant_events m
             WHERE e.id = d.endpoint_id AND m.id = d.event_id
               AND d.id = ANY(ARRAY(SELECT id
                                      FROM webhook_deliveries
                                     WHERE status = 'pending' AND next_attempt_at <= now()
                                     ORDER BY next_attempt_at
                                     LIMIT $1
                                       FOR UPDATE SKIP LOCKED))
            RETURNING d.id, d.endpoint_id, d.event_id, d.attempt_count, e.url, e.secrets, m.body
            """,
            DUE_ROWS_MAX,
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


async def disable(pool: Pool, endpoint_id: UUID, *, why: str) -> bool:
    """Stop telling an address; what was not delivered yet ends, and can be delivered again by hand."""
    async with connected(pool) as db:
        result = await db.execute(
            """
            WITH ended AS (UPDATE webhook_deliveries SET status = 'failed' WHERE endpoint_id = $1 AND status = 'pending')
            UPDATE webhook_endpoints SET enabled = false, disabled_why = $2, updated_at = now() WHERE id = $1 AND enabled
            """,
            endpoint_id,
            why,
        )
    return bool(result == "UPDATE 1")


async def failing_long(pool: Pool, *, after_seconds: float) -> list[UUID]:
    """List the addresses that have taken nothing for so long."""
    async with connected(pool) as db:
        rows = await db.fetch(
            "SELECT id FROM webhook_endpoints WHERE enabled AND failing_since < now() - make_interval(secs => $1)", after_seconds
        )
    return [row["id"] for row in rows]


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


async def after(db: Connection, envelope: Envelope, event_id: UUID | None, *, limit: int) -> list[MerchantEvent]:
    """Read events in the order of their commits; leaves out what could still be overtaken by one under way."""
    rows = await db.fetch(
        """
        SELECT body
          FROM merchant_events
         WHERE store_id = $1 AND environment = $2
           AND written_by < pg_snapshot_xmin(pg_current_snapshot())
           AND ($3::uuid IS NULL OR (written_by, id) > (SELECT written_by, id FROM merchant_events
                                                         WHERE id = $3 AND store_id = $1 AND environment = $2))
         ORDER BY written_by, id
         LIMIT $4
        """,
        envelope.store_id,
        envelope.environment.value,
        event_id,
        limit,
    )
    return [msgspec.json.decode(row["body"], type=MerchantEvent) for row in rows]


async def known(db: Connection, envelope: Envelope, event_id: UUID) -> bool:
    """Tell whether there is such an event."""
    found = await db.fetchval(
        "SELECT true FROM merchant_events WHERE id = $1 AND store_id = $2 AND environment = $3",
        event_id,
        envelope.store_id,
        envelope.environment.value,
    )
    return bool(found)


async def forget_old(pool: Pool) -> None:
    """Drop a batch of events past retention, with their deliveries."""
    async with connected(pool) as db:
        await db.execute(
            """
            DELETE FROM merchant_events
             WHERE id = ANY(ARRAY(SELECT id FROM merchant_events WHERE created_at < now() - make_interval(days => $1)
                                   ORDER BY created_at LIMIT $2))
            """,
            EVENTS_KEPT_DAYS,
            DELETE_ROWS_MAX,
        )
