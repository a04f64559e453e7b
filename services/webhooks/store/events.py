"""Events from providers in SQL: kept as a group, worked on, shown, forgotten."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from services.webhooks.domain import MATCH_FOR_SECONDS, Account, Event, Status
from shared.contracts.webhooks import REPLAYS_MAX, AttemptView, EventDetail, EventView, ListEvents, ReplayMany
from shared.database import Connection, Pool, Record, Statement, connected
from shared.ids import first_id_at, new_id
from shared.messages import Envelope
from shared.outbox import Parcel, promises

ERROR_MAX_CHARACTERS = 2_000
DELETE_ROWS_MAX = 5_000
KEPT_DAYS = 400
REJECTIONS_KEPT_MAX = 1_000
REJECTIONS_KEPT_HOURS = 24
REJECTED_BODY_MAX_BYTES = 2_048
MATCH_ROWS_MAX = 100
COUNTED_MAX = 10_000
# By so much the clock that ids were made by and the database's may differ.
CLOCKS_APART = timedelta(minutes=1)
# Nothing came in before or will come in after, and what is further away no id can bear.
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A genuine event on its way into the table, with the command that will work on it."""

    id: UUID
    account: Account
    event: Event
    headers: dict[str, str]
    process: Parcel

    @property
    def key(self) -> tuple[UUID, str, str, str, str]:
        """By what a repeat is known."""
        account = self.account
        return account.received_for, account.environment.value, account.provider, account.account, self.event.id


async def keep(pool: Pool, arrivals: Sequence[Arrival], *, head_start_seconds: float) -> list[bool]:
    """Keep events as a group, each with the command that works on it; tells for each whether it is new."""
    # Sorted, so that two groups never wait for each other; one of each key, so that none waits for itself.
    first = {arrival.key: arrival for arrival in reversed(arrivals)}
    wanted = [first[key] for key in sorted(first)]
    sending = promises([a.process for a in wanted], head_start_seconds=head_start_seconds)
    async with connected(pool) as db:
        rows = await db.fetch(
            f"""
            WITH new AS (
              INSERT INTO webhook_events (id, store_id, received_for, environment, provider, account, provider_event_id, event_type,
                                          happened_at)
              SELECT id, store_id, store_id, environment, provider, account, provider_event_id, event_type, happened_at
                FROM unnest($7::uuid[], $8::uuid[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::timestamptz[])
                     AS t (id, store_id, environment, provider, account, provider_event_id, event_type, happened_at)
              ON CONFLICT (received_for, environment, provider, account, provider_event_id) DO NOTHING
              RETURNING id, received_at),
            kept AS (
              INSERT INTO webhook_payloads (event_id, received_at, headers, body)
              SELECT new.id, new.received_at, t.headers::jsonb, t.body
                FROM unnest($7::uuid[], $15::text[], $16::bytea[]) AS t (id, headers, body)
                JOIN new USING (id)),
            sent AS ({sending.sql} WHERE id IN (SELECT id FROM new))
            SELECT id FROM new
            """,
            *sending.arguments,
            [a.id for a in wanted],
            [a.account.received_for for a in wanted],
            [a.account.environment.value for a in wanted],
            [a.account.provider for a in wanted],
            [a.account.account for a in wanted],
            [a.event.id for a in wanted],
            [a.event.type for a in wanted],
            [a.event.happened_at for a in wanted],
            [msgspec.json.encode(a.headers).decode() for a in wanted],
            [a.event.payload for a in wanted],
        )
    new = {row["id"] for row in rows}
    return [arrival.id in new for arrival in arrivals]


async def keep_rejection(pool: Pool, *, provider: str, reason: str, headers: dict[str, str], body: bytes) -> None:
    """Keep a sample of what was refused, in place of the oldest once there are many."""
    async with connected(pool) as db:
        await db.execute(
            """
            WITH old AS (
              DELETE FROM webhook_rejections WHERE id <= (SELECT id FROM webhook_rejections ORDER BY id DESC OFFSET $6 LIMIT 1))
            INSERT INTO webhook_rejections (id, provider, reason, headers, body_start) VALUES ($1, $2, $3, $4, $5)
            """,
            new_id(),
            provider,
            reason,
            msgspec.json.encode(headers).decode(),
            body[:REJECTED_BODY_MAX_BYTES],
            REJECTIONS_KEPT_MAX - 1,
        )


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A kept event as whoever works on it needs it."""

    id: UUID
    provider: str
    account: str
    provider_event_id: str
    event_type: str
    status: Status
    attempt_count: int
    order_id: UUID | None
    received_at: datetime
    age_seconds: float
    body: bytes | None


async def kept(db: Connection, envelope: Envelope, event_id: UUID) -> Kept | None:
    """Read an event with its payload."""
    row = await db.fetchrow(
        """
        SELECT e.id, e.provider, e.account, e.provider_event_id, e.event_type, e.status, e.attempt_count, e.order_id, e.received_at,
               extract(epoch FROM now() - e.received_at)::float8 AS age_seconds, p.body
          FROM webhook_events e
          LEFT JOIN webhook_payloads p ON p.event_id = e.id AND p.received_at = e.received_at
         WHERE e.id = $1 AND e.store_id IS NOT DISTINCT FROM $2 AND e.environment IS NOT DISTINCT FROM $3
        """,
        event_id,
        envelope.store_id,
        envelope.environment.value,
    )
    return None if row is None else Kept(**{**dict(row), "status": Status(row["status"])})


def attempted(envelope: Envelope, event_id: UUID, *, replays: UUID | None, outcome: str, error: str | None) -> Statement:
    """Write down one try at an event."""
    return Statement(
        "INSERT INTO webhook_attempts (id, event_id, command_id, replays, actor, outcome, error) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        (new_id(), event_id, envelope.id, replays, envelope.actor, outcome, _kept_error(error)),
    )


def _kept_error(error: str | None) -> str | None:
    # It may tell of what a stranger sent, with a NUL in it.
    return None if error is None else error.replace("\0", "")[:ERROR_MAX_CHARACTERS]


def stands(
    event_id: UUID,
    status: Status,
    *,
    error: str | None,
    store_id: UUID | None = None,
    order_id: UUID | None = None,
    look_again_seconds: float = 0,
) -> Statement:
    """Set how an event stands after a try, and whose it is once that is known; processed or ignored it stays, whatever a later try says."""
    return Statement(
        """
        UPDATE webhook_events
           SET attempt_count = attempt_count + 1,
               status = CASE WHEN status IN ('processed', 'ignored') AND $2 NOT IN ('processed', 'ignored') THEN status ELSE $2 END,
               last_error = $3,
               store_id = coalesce($6, store_id),
               order_id = coalesce($4, order_id),
               processed_at = CASE WHEN $2 IN ('processed', 'ignored') THEN coalesce(processed_at, now()) ELSE processed_at END,
               next_attempt_at = CASE WHEN $2 = 'waiting' THEN now() + make_interval(secs => $5) END
         WHERE id = $1
        """,
        (event_id, status.value, _kept_error(error), order_id, look_again_seconds, store_id),
    )


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """An event due to be matched, and to which store it belongs."""

    id: UUID
    store_id: UUID
    environment: str
    provider: str


async def due(db: Connection) -> list[Waiting]:
    """Take what waits to be matched and is due; in a minute it is due again unless something came of it."""
    rows = await db.fetch(
        """
        UPDATE webhook_events
           SET next_attempt_at = now() + interval '1 minute'
         WHERE id = ANY(ARRAY(SELECT id
                                FROM webhook_events
                               WHERE status = 'waiting' AND next_attempt_at <= now()
                               ORDER BY next_attempt_at
                               LIMIT $1
                                 FOR UPDATE SKIP LOCKED))
        RETURNING id, store_id, environment, provider
        """,
        MATCH_ROWS_MAX,
    )
    return [Waiting(**dict(row)) for row in rows]


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept and not processed: still tried, and given up."""

    pending: int
    oldest_pending_seconds: float
    dead: int


async def backlog(pool: Pool) -> Backlog:
    """Count what is not processed yet and what was given up; what waits to be matched is not late."""
    async with connected(pool) as db:
        row = await db.fetchrow(
            """
            SELECT count(*) AS pending, coalesce(extract(epoch FROM now() - min(received_at)), 0)::float8 AS oldest_pending_seconds,
                   (SELECT count(*) FROM (SELECT FROM webhook_events WHERE status = 'dead' LIMIT $1) AS given_up) AS dead
              FROM (SELECT received_at
                      FROM webhook_events
                     WHERE status IN ('received', 'failing')
                     ORDER BY received_at
                     LIMIT $1) AS oldest
            """,
            COUNTED_MAX,
        )
    assert row is not None, "an aggregate has one row"
    return Backlog(**dict(row))


async def discarded(db: Connection, envelope: Envelope) -> None:
    """Ignore the event that was given up with this command, which an operator has discarded."""
    await db.execute(
        """
        UPDATE webhook_events e
           SET status = 'ignored', last_error = 'An operator discarded it: ' || coalesce(last_error, ''), processed_at = now()
         WHERE status = 'dead' AND EXISTS (SELECT FROM webhook_attempts a WHERE a.event_id = e.id AND a.command_id = $1)
        """,
        envelope.id,
    )


_VIEW = """
    id, provider, account, provider_event_id, event_type, status, signature_valid, attempt_count, last_error, order_id, happened_at,
    received_at, processed_at, next_attempt_at
"""


async def page(db: Connection, envelope: Envelope, wanted: ListEvents, *, limit: int) -> list[EventView]:
    """Read events, the newest first."""
    # Only what is asked for is in the statement: a plan for every wish at once could use no index but that of the whole list.
    wishes = [
        (wanted.provider, "provider = ${}"),
        (wanted.event_type, "event_type = ${}"),
        (wanted.status, "status = ${}"),
        (wanted.order_id, "order_id = ${}"),
        (wanted.since, "received_at >= ${}"),
        (wanted.until, "received_at < ${}"),
        # The same by id, which there is an index for.
        (wanted.since and first_id_around(wanted.since, -CLOCKS_APART), "id >= ${}"),
        (wanted.until and first_id_around(wanted.until, CLOCKS_APART), "id < ${}"),
        (wanted.before, "id < ${}"),
    ]
    given = [(value, condition) for value, condition in wishes if value is not None]
    conditions = "".join(f" AND {condition.format(number)}" for number, (_, condition) in enumerate(given, start=4))
    is_its = "=" if wanted.order_id is None else "IS NOT DISTINCT FROM"
    rows = await db.fetch(
        f"""
        SELECT {_VIEW}
          FROM webhook_events
         WHERE store_id {is_its} $1 AND environment {is_its} $2{conditions}
         ORDER BY id DESC
         LIMIT $3
        """,
        envelope.store_id,
        envelope.environment.value,
        limit,
        *(value for value, _ in given),
    )
    return [_view(row) for row in rows]


def first_id_around(moment: datetime, apart: timedelta) -> UUID:
    """Name the smallest id that can be minted so long after a moment, or before it; what is out of range is brought into it."""
    return first_id_at(min(max(moment, EARLIEST), LATEST) + apart)


def _view(row: Record) -> EventView:
    return EventView(**dict(row))


async def detail(db: Connection, envelope: Envelope, event_id: UUID) -> EventDetail | None:
    """Read an event with its payload and every attempt."""
    found = await db.fetchrow(
        f"""
        SELECT {_VIEW}
          FROM webhook_events
         WHERE id = $1 AND store_id IS NOT DISTINCT FROM $2 AND environment IS NOT DISTINCT FROM $3
        """,
        event_id,
        envelope.store_id,
        envelope.environment.value,
    )
    if found is None:
        return None
    payload = await db.fetchrow(
        "SELECT headers, body FROM webhook_payloads WHERE event_id = $1 AND received_at = $2", event_id, found["received_at"]
    )
    attempts = await db.fetch(
        "SELECT command_id, replays, actor, outcome, error, at FROM webhook_attempts WHERE event_id = $1 ORDER BY id", event_id
    )
    return EventDetail(
        event=_view(found),
        payload=None if payload is None else payload["body"].decode(errors="replace"),
        headers={} if payload is None else msgspec.json.decode(payload["headers"]),
        attempts=[AttemptView(**dict(row)) for row in attempts],
    )


async def in_range(db: Connection, envelope: Envelope, wanted: ReplayMany) -> list[UUID]:
    """List the events of a range, the oldest first, one more than a call takes when there are more."""
    rows = await db.fetch(
        """
        SELECT id
          FROM webhook_events
         WHERE store_id = $1 AND environment = $2 AND received_at >= $3 AND received_at < $4 AND id >= $9 AND id < $10
           AND ($5::text IS NULL OR provider = $5)
           AND ($6::text IS NULL OR event_type = $6)
           AND ($7::text IS NULL OR status = $7)
         ORDER BY id
         LIMIT $8
        """,
        envelope.store_id,
        envelope.environment.value,
        wanted.since,
        wanted.until,
        wanted.provider,
        wanted.event_type,
        wanted.status,
        REPLAYS_MAX + 1,
        first_id_around(wanted.since, -CLOCKS_APART),
        first_id_around(wanted.until, CLOCKS_APART),
    )
    return [row["id"] for row in rows]


async def give_up_matching(pool: Pool) -> int:
    """Stop looking for what never became known; it stays and can be replayed."""
    async with connected(pool) as db:
        result = await db.execute(
            """
            UPDATE webhook_events
               SET status = 'unmatched', next_attempt_at = NULL
             WHERE status = 'waiting' AND next_attempt_at IS NOT NULL AND received_at < now() - make_interval(secs => $1)
            """,
            MATCH_FOR_SECONDS,
        )
    return int(result.split()[-1])


async def forget_old(pool: Pool) -> None:
    """Drop a batch of events past retention, and all of the sample but its newest rows."""
    async with connected(pool) as db:
        await db.execute(
            """
            WITH old AS (SELECT array_agg(id) AS ids FROM (SELECT id FROM webhook_events WHERE id < $1 ORDER BY id LIMIT $2) AS oldest),
                 tries AS (DELETE FROM webhook_attempts WHERE event_id = ANY((SELECT ids FROM old)::uuid[]))
            DELETE FROM webhook_events WHERE id = ANY((SELECT ids FROM old)::uuid[])
            """,
            first_id_at(datetime.now(UTC) - timedelta(days=KEPT_DAYS)),
            DELETE_ROWS_MAX,
        )
        await db.execute(
            """
            DELETE FROM webhook_rejections
             WHERE received_at < now() - make_interval(hours => $1)
                OR id <= (SELECT id FROM webhook_rejections ORDER BY id DESC OFFSET $2 LIMIT 1)
            """,
            REJECTIONS_KEPT_HOURS,
            REJECTIONS_KEPT_MAX,
        )


async def keep_payload_partitions(pool: Pool, *, months_ahead: int, months_kept: int) -> None:
    """Make the payloads' coming months and drop the ones past retention."""
    async with connected(pool) as db:
        await db.execute("SELECT keep_payload_partitions($1, $2)", months_ahead, months_kept)
