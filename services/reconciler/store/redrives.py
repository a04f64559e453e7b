"""Redrives in SQL: begun once, taken under a lease, and moved on batch by batch by whoever holds it."""

from datetime import datetime
from uuid import UUID

import msgspec

from services.reconciler.store.letters import Scope
from shared.contracts.dead_letters import Action, Filter, RedriveView, StartRedrive
from shared.database import Connection, Pool, Record, Statement, connected
from shared.messages import Envelope, Environment

ERROR_MAX_CHARACTERS = 1000

_SHOWN = "id, action, status, rate_per_second, letters, done, skipped, last_error, actor, reason, created_at, finished_at"


class Redrive(msgspec.Struct, frozen=True, kw_only=True):
    """A redrive that is ours as long as our lease lasts."""

    id: UUID
    store_id: UUID
    environment: Environment
    action: Action
    ids: list[UUID] | None
    chosen: Filter
    rate_per_second: float
    position: UUID
    until: datetime
    actor: str
    reason: str
    correlation_id: str
    lease_token: int

    @property
    def scope(self) -> Scope:
        """Whose letters it is about."""
        return Scope(self.store_id, self.environment.value)

    @property
    def envelope(self) -> Envelope:
        """For whom it tells services what to do; its id names it."""
        return Envelope(
            id=self.id,
            store_id=self.store_id,
            environment=self.environment,
            source="reconciler",
            actor=self.actor,
            correlation_id=self.correlation_id,
        )


def _view(row: Record) -> RedriveView:
    return msgspec.convert(dict(row), RedriveView)


def started(envelope: Envelope, command: StartRedrive, chosen: Filter, *, letters: int) -> Statement:
    """Write a redrive that somebody asked for."""
    return Statement(
        """
        INSERT INTO redrives (id, store_id, environment, action, ids, chosen, rate_per_second, letters, actor, reason, correlation_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        """,
        (
            envelope.id,
            envelope.store_id,
            envelope.environment.value,
            command.action.value,
            None if command.ids is None else list(command.ids),
            msgspec.json.encode(chosen).decode(),
            command.rate_per_second,
            letters,
            envelope.actor,
            command.reason,
            envelope.correlation_id,
        ),
    )


async def take_due(pool: Pool, *, lease_seconds: float, limit: int) -> list[Redrive]:
    """Take redrives that are due and that nobody works on."""
    async with connected(pool) as db:
        rows = await db.fetch(
            """
            UPDATE redrives
               SET lease_token = lease_token + 1, lease_expires_at = now() + make_interval(secs => $1),
                   next_try_at = now() + make_interval(secs => $1)
             WHERE id = ANY(ARRAY(SELECT id
                                    FROM redrives
                                   WHERE status = 'running' AND next_try_at <= now() AND lease_expires_at <= now()
                                   ORDER BY next_try_at
                                   LIMIT $2
                                     FOR UPDATE SKIP LOCKED))
            RETURNING id, store_id, environment, action, ids, chosen, rate_per_second, position, until, actor, reason, correlation_id,
                      lease_token
            """,
            lease_seconds,
            limit,
        )
    return [msgspec.convert({**dict(row), "chosen": msgspec.json.decode(row["chosen"])}, Redrive) for row in rows]


def moved_on(redrive: Redrive, *, position: UUID, done: int, skipped: int, error: str | None, lease_seconds: float) -> Statement:
    """Write how far a redrive is, only while it is ours and nobody has stopped it."""
    return Statement(
        """
        UPDATE redrives
           SET position = $3, done = done + $4, skipped = skipped + $5, last_error = coalesce($6, last_error),
               lease_expires_at = now() + make_interval(secs => $7), next_try_at = now() + make_interval(secs => $7)
         WHERE id = $1 AND lease_token = $2 AND status = 'running'
        RETURNING id
        """,
        (
            redrive.id,
            redrive.lease_token,
            position,
            done,
            skipped,
            None if error is None else error[:ERROR_MAX_CHARACTERS],
            lease_seconds,
        ),
        must=True,
    )


async def complete(pool: Pool, redrive: Redrive) -> None:
    """Write that a redrive has come to its end."""
    async with connected(pool) as db:
        await db.execute(
            "UPDATE redrives SET status = 'completed', finished_at = now() WHERE id = $1 AND lease_token = $2 AND status = 'running'",
            redrive.id,
            redrive.lease_token,
        )


async def put_off(pool: Pool, redrive: Redrive, *, error: str | None, again_seconds: float) -> None:
    """Let a redrive go that cannot go on now, and say why."""
    async with connected(pool) as db:
        await db.execute(
            """
            UPDATE redrives
               SET last_error = coalesce($3, last_error), lease_expires_at = now(), next_try_at = now() + make_interval(secs => $4)
             WHERE id = $1 AND lease_token = $2 AND status = 'running'
            """,
            redrive.id,
            redrive.lease_token,
            None if error is None else error[:ERROR_MAX_CHARACTERS],
            again_seconds,
        )


def stopped(envelope: Envelope, redrive_id: UUID) -> Statement:
    """Stop a redrive where it is."""
    return Statement(
        """
        UPDATE redrives
           SET status = 'stopped', finished_at = now()
         WHERE id = $1 AND store_id IS NOT DISTINCT FROM $2 AND environment IS NOT DISTINCT FROM $3 AND status = 'running'
        RETURNING id
        """,
        (redrive_id, envelope.store_id, envelope.environment.value),
        must=True,
    )


async def one(db: Connection, envelope: Envelope, redrive_id: UUID) -> RedriveView | None:
    """Read a redrive of a store's."""
    row = await db.fetchrow(
        f"SELECT {_SHOWN} FROM redrives WHERE id = $1 AND store_id IS NOT DISTINCT FROM $2 AND environment IS NOT DISTINCT FROM $3",
        redrive_id,
        envelope.store_id,
        envelope.environment.value,
    )
    return None if row is None else _view(row)


async def latest(db: Connection, envelope: Envelope, *, limit: int) -> list[RedriveView]:
    """Read a store's redrives, the newest first."""
    rows = await db.fetch(
        f"SELECT {_SHOWN} FROM redrives WHERE store_id = $1 AND environment = $2 ORDER BY id DESC LIMIT $3",
        envelope.store_id,
        envelope.environment.value,
        limit,
    )
    return [_view(row) for row in rows]
