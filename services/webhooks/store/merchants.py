"""What is told to merchants in SQL: addresses, events in their order, and deliveries."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from shared.contracts.webhooks import EndpointView, MerchantEvent
from shared.database import Connection, Pool, Statement, connected
from shared.ids import first_id_at, new_id
from shared.messages import Envelope

ERROR_MAX_CHARACTERS = 500
EVENTS_KEPT_DAYS = 90
DELETE_ROWS_MAX = 5_000
RESEAL_ROWS_MAX = 50
NOT_SHOWN = frozenset({"secrets", "key_version"})


class SealedSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """The signing secrets of an endpoint, sealed, and with which version of the key."""

    secrets: list[str]
    key_version: int


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An address as its row holds it; its secrets are sealed."""

    id: UUID
    url: str
    event_types: list[str]
    secrets: list[str]
    key_version: int
    enabled: bool
    disabled_why: str | None
    failing_since: datetime | None
    created_at: datetime
    updated_at: datetime

    def view(self) -> EndpointView:
        """Show it, without its secrets."""
        return EndpointView(**{key: value for key, value in msgspec.structs.asdict(self).items() if key not in NOT_SHOWN})


_ENDPOINT = "id, url, event_types, secrets, key_version, enabled, disabled_why, failing_since, created_at, updated_at"


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
        INSERT INTO webhook_endpoints (id, store_id, environment, url, event_types, secrets, enabled, created_at, updated_at, key_version)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ON CONFLICT (id) DO UPDATE
           SET url = EXCLUDED.url, event_types = EXCLUDED.event_types, secrets = EXCLUDED.secrets, enabled = EXCLUDED.enabled,
               key_version = EXCLUDED.key_version,
               disabled_why = NULL, failing_since = NULL, timeout_count = 0, paused_until = NULL, updated_at = EXCLUDED.updated_at
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
            endpoint.key_version,
        ),
        must=True,
    )


def resume(envelope: Envelope, endpoint_id: UUID) -> Statement:
    """End the pause that an endpoint requested."""
    return Statement(
        "UPDATE webhook_endpoints SET paused_until = NULL WHERE id = $1 AND store_id = $2 AND environment = $3 AND enabled RETURNING id",
        (endpoint_id, envelope.store_id, envelope.environment.value),
        must=True,
    )


def delete(envelope: Envelope, endpoint_id: UUID) -> Statement:
    """Forget an address with its deliveries."""
    return Statement(
        "DELETE FROM webhook_endpoints WHERE id = $1 AND store_id = $2 AND environment = $3 RETURNING id",
        (endpoint_id, envelope.store_id, envelope.environment.value),
        must=True,
    )


class SealedBefore(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint whose secrets are sealed with an older key, or not at all."""

    id: UUID
    store_id: UUID
    environment: str
    secrets: list[str]


async def list_sealed_before(pool: Pool, current: int, after: UUID) -> list[SealedBefore]:
    """List endpoints whose secrets are sealed with an older key than the present one, by id, after the one named."""
    async with connected(pool) as db:
        rows = await db.fetch(
            """
            SELECT id, store_id, environment, secrets
              FROM webhook_endpoints
             WHERE key_version < $1 AND id > $2
             ORDER BY id
             LIMIT $3
            """,
            current,
            after,
            RESEAL_ROWS_MAX,
        )
    return [SealedBefore(**dict(row)) for row in rows]


async def update_secrets(pool: Pool, before: SealedBefore, sealed: SealedSecrets) -> None:
    """Write an endpoint's secrets as they are sealed now, unless they have changed in between."""
    async with connected(pool) as db:
        await db.execute(
            "UPDATE webhook_endpoints SET secrets = $3, key_version = $4 WHERE id = $1 AND secrets = $2",
            before.id,
            before.secrets,
            sealed.secrets,
            sealed.key_version,
        )


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be known to tell of something: what was told last of the order and of the subject, and to whom."""

    last: int
    version: int
    endpoints: list[UUID]
    now: datetime


class Telling(msgspec.Struct, frozen=True, kw_only=True):
    """What is about to be told: for whom, of what, in which version, and to which addresses."""

    envelope: Envelope
    event: MerchantEvent
    subject_id: UUID
    version: int
    endpoint_ids: Sequence[UUID]


async def grounds(pool: Pool, asked: Sequence[tuple[Envelope, UUID, UUID, str]]) -> list[Ground]:
    """Read what has to be known to tell of many things (order, subject and kind of each), as of one moment."""
    async with connected(pool) as db:
        rows = await db.fetch(
            """
            SELECT coalesce((SELECT last
                               FROM order_sequences s
                              WHERE (s.store_id, s.environment, s.order_id) = (asked.store_id, asked.environment, asked.order_id)), 0)
                       AS last,
                   coalesce((SELECT max(version) FROM merchant_events WHERE subject_id = asked.subject_id), 0) AS version,
                   ARRAY(SELECT id
                           FROM webhook_endpoints e
                          WHERE (e.store_id, e.environment) = (asked.store_id, asked.environment) AND e.enabled
                            AND (e.event_types = '{}' OR asked.kind = ANY(e.event_types))) AS endpoints,
                   now() AS now
              FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::text[])
                   WITH ORDINALITY AS asked (store_id, environment, order_id, subject_id, kind, position)
             ORDER BY asked.position
            """,
            [envelope.store_id for envelope, _, _, _ in asked],
            [envelope.environment.value for envelope, _, _, _ in asked],
            [order_id for _, order_id, _, _ in asked],
            [subject_id for _, _, subject_id, _ in asked],
            [kind for _, _, _, kind in asked],
        )
    return [Ground(**dict(row)) for row in rows]


def told(tellings: Sequence[Telling]) -> list[Statement]:
    """Write events of different orders with their deliveries, only if the number of each is the next one of its order."""
    # Sorted, so that two groups never wait for each other.
    news = sorted(tellings, key=lambda each: (each.envelope.store_id, each.envelope.environment, each.event.order_id))
    stores, environments = [each.envelope.store_id for each in news], [each.envelope.environment.value for each in news]
    orders, sequences = [each.event.order_id for each in news], [each.event.sequence for each in news]
    sent = [(each, endpoint_id) for each in news for endpoint_id in each.endpoint_ids]
    return [
        Statement(
            """
            INSERT INTO order_sequences AS s (store_id, environment, order_id, last)
            SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::integer[])
            ON CONFLICT (store_id, environment, order_id) DO UPDATE SET last = EXCLUDED.last WHERE s.last = EXCLUDED.last - 1
            RETURNING last
            """,
            (stores, environments, orders, sequences),
            must=True,
            rows="cardinality($3)",
        ),
        Statement(
            """
            INSERT INTO merchant_events (id, store_id, environment, order_id, sequence, type, subject_id, version, body, created_at,
                                         correlation_id)
            SELECT *
              FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::integer[], $6::text[], $7::uuid[], $8::integer[],
                          $9::bytea[], $10::timestamptz[], $11::text[])
            """,
            (
                [each.event.id for each in news],
                stores,
                environments,
                orders,
                sequences,
                [each.event.type for each in news],
                [each.subject_id for each in news],
                [each.version for each in news],
                [msgspec.json.encode(each.event) for each in news],
                [each.event.created_at for each in news],
                [each.envelope.correlation_id for each in news],
            ),
        ),
        Statement(
            """
            INSERT INTO webhook_deliveries (id, endpoint_id, event_id, store_id, environment)
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[])
            """,
            (
                [new_id() for _ in sent],
                [endpoint_id for _, endpoint_id in sent],
                [each.event.id for each, _ in sent],
                [each.envelope.store_id for each, _ in sent],
                [each.envelope.environment.value for each, _ in sent],
            ),
        ),
    ]


async def disable(pool: Pool, endpoint_id: UUID, *, why: str) -> bool:
    """Stop telling an address; what was not delivered yet ends, and can be delivered again by hand."""
    async with connected(pool) as db:
        result = await db.execute(
            """
            WITH ended AS (UPDATE webhook_deliveries
                              SET status = 'failed', lease_token = NULL
                            WHERE endpoint_id = $1 AND status = 'pending')
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


async def after(db: Connection, envelope: Envelope, event_id: UUID | None, *, limit: int) -> list[MerchantEvent]:
    """Read events in the order of their commits; leaves out what could still be overtaken by one under way."""
    rows = await db.fetch(
        """
        SELECT body
          FROM merchant_events
         WHERE store_id = $1 AND environment = $2
           AND written_by < pg_snapshot_xmin(pg_current_snapshot())
           AND ($3::uuid IS NULL OR (written_by, id) > (SELECT written_by, id FROM merchant_events WHERE id = $3))
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
        """
        SELECT true
          FROM merchant_events
         WHERE id = $1 AND store_id IS NOT DISTINCT FROM $2 AND environment IS NOT DISTINCT FROM $3
        """,
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
            DELETE FROM merchant_events WHERE id = ANY(ARRAY(SELECT id FROM merchant_events WHERE id < $1 ORDER BY id LIMIT $2))
            """,
            first_id_at(datetime.now(UTC) - timedelta(days=EVENTS_KEPT_DAYS)),
            DELETE_ROWS_MAX,
        )
