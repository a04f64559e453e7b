"""Dead letters in SQL: one row a message, however often it dies, and what became of it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from services.reconciler.domain.letters import Letter
from shared.contracts.dead_letters import Change, Death, Filter, Group, LetterStatus, LetterView
from shared.database import Connection, Pool, Record, Statement, connected
from shared.ids import NOBODY, new_id
from shared.messages import Envelope

GROUPS_MAX = 200
DELETE_ROWS_MAX = 1_000

_SHOWN = """
    id, service, message_type, message_id, order_id, correlation_id, actor, reason, attempts, fingerprint, status, deaths, retries,
    first_seen_at, died_at, settled_at, settled_by, settled_reason, replaces, replaced_by
"""
_CONDITIONS = {
    "service": "service = {}",
    "message_type": "message_type = {}",
    "fingerprint": "fingerprint = {}",
    "order_id": "order_id = {}",
    "correlation_id": "correlation_id = {}",
    "message_id": "message_id = {}",
    "text": "words @@ websearch_to_tsquery('simple', {})",
}


class Scope(msgspec.Struct, frozen=True):
    """Whose letters are meant; nobody's are those that do not say."""

    store_id: UUID
    environment: str


UNREADABLE = Scope(NOBODY, "")


def scope_of(envelope: Envelope) -> Scope:
    """Tell which letters belong to whoever asks."""
    return Scope(envelope.store_id, envelope.environment.value)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A letter as its row holds it, with what it takes to send it once more."""

    view: LetterView
    store_id: UUID
    environment: str
    queue: str
    source: str
    digest: bytes
    headers: dict[str, Any]
    body: bytes
    difference: list[Change]


def _view(row: Record) -> LetterView:
    return msgspec.convert({name: row[name] for name in LetterView.__struct_fields__}, LetterView)


def _kept(row: Record) -> Kept:
    return Kept(
        view=_view(row),
        headers=msgspec.json.decode(row["headers"]),
        difference=msgspec.json.decode(row["difference"], type=list[Change]),
        **{name: row[name] for name in ("store_id", "environment", "queue", "source", "digest", "body")},
    )


async def keep(pool: Pool, letter: Letter) -> None:
    """Keep a dead letter; the same death again changes nothing, and what was put away stays so."""
    async with connected(pool) as db:
        await db.execute(
            """
            WITH kept AS (
                INSERT INTO dead_letters (id, identity, service, queue, store_id, environment, source, message_id, digest,
                                          message_type, actor, correlation_id, order_id, headers, body, reason, attempts, fingerprint,
                                          first_seen_at, died_at, replaces)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                        (SELECT id FROM dead_letters WHERE replaced_by = $8))
                ON CONFLICT (identity) DO UPDATE
                   SET deaths = dead_letters.deaths + 1, reason = EXCLUDED.reason, attempts = EXCLUDED.attempts,
                       fingerprint = EXCLUDED.fingerprint, headers = EXCLUDED.headers, died_at = EXCLUDED.died_at,
                       status = CASE dead_letters.status WHEN 'retried' THEN 'waiting' ELSE dead_letters.status END,
                       settled_at = CASE dead_letters.status WHEN 'retried' THEN NULL ELSE dead_letters.settled_at END
                 WHERE dead_letters.died_at < EXCLUDED.died_at
                RETURNING id
            ), died AS (
                INSERT INTO dead_letter_deaths (letter_id, died_at, reason, traceback, attempts)
                SELECT id, $20, $16, $21, $17 FROM kept
                ON CONFLICT DO NOTHING
            )
            INSERT INTO dead_letter_groups (store_id, environment, fingerprint, service, message_type, reason)
            VALUES ($5, $6, $18, $3, $10, $16)
            ON CONFLICT DO NOTHING
            """,
            new_id(),
            letter.identity,
            letter.service,
            letter.queue,
            letter.store_id,
            letter.environment,
            letter.source,
            letter.message_id,
            letter.digest,
            letter.message_type,
            letter.actor,
            letter.correlation_id,
            letter.order_id,
            msgspec.json.encode(letter.headers).decode(),
            letter.body,
            letter.reason,
            letter.attempts,
            letter.fingerprint,
            letter.first_seen_at,
            letter.died_at,
            letter.traceback,
        )


# Showing


async def page(
    db: Connection, scope: Scope, chosen: Filter, *, status: LetterStatus | None, before: UUID | None, limit: int
) -> list[LetterView]:
    """Read a page of letters, the newest first."""
    where, arguments = _where(scope, chosen, status=status)
    if before is not None:
        arguments.append(before)
        where += f" AND id < ${len(arguments)}"
    rows = await db.fetch(f"SELECT {_SHOWN} FROM dead_letters WHERE {where} ORDER BY id DESC LIMIT {limit:d}", *arguments)
    return [_view(row) for row in rows]


def _where(scope: Scope, chosen: Filter, *, status: LetterStatus | None) -> tuple[str, list[Any]]:
    # Said as it is asked, so that each question gets a plan of its own.
    conditions, arguments = ["store_id = $1", "environment = $2"], [scope.store_id, scope.environment]
    asked = {name: getattr(chosen, name) for name in _CONDITIONS if getattr(chosen, name) is not None}
    for name, value in asked.items():
        arguments.append(value)
        conditions.append(_CONDITIONS[name].format(f"${len(arguments)}"))
    if status is not None:
        arguments.append(status.value)
        conditions.append(f"status = ${len(arguments)}")
    return " AND ".join(conditions), arguments


async def groups(db: Connection, scope: Scope, status: LetterStatus) -> list[Group]:
    """Count letters by what went wrong, the largest group first."""
    rows = await db.fetch(
        """
        SELECT c.fingerprint, g.service, g.message_type, g.reason, c.letters, c.oldest_at, c.newest_at
          FROM (SELECT fingerprint, count(*) AS letters, min(died_at) AS oldest_at, max(died_at) AS newest_at
                  FROM dead_letters
                 WHERE store_id = $1 AND environment = $2 AND status = $3
                 GROUP BY fingerprint
                 ORDER BY count(*) DESC
                 LIMIT $4) c
          JOIN dead_letter_groups g ON (g.store_id, g.environment, g.fingerprint) = ($1, $2, c.fingerprint)
         ORDER BY c.letters DESC, c.fingerprint
        """,
        scope.store_id,
        scope.environment,
        status.value,
        GROUPS_MAX,
    )
    return [Group(**dict(row)) for row in rows]


async def one(db: Connection, scopes: Sequence[Scope], letter_id: UUID) -> Kept | None:
    """Read a letter that is in one of these scopes."""
    row = await db.fetchrow(
        f"""
        SELECT {_SHOWN}, store_id, environment, queue, source, digest, headers, body, difference
          FROM dead_letters
         WHERE id = $1 AND (store_id, environment) IN (SELECT * FROM unnest($2::uuid[], $3::text[]))
        """,
        letter_id,
        [scope.store_id for scope in scopes],
        [scope.environment for scope in scopes],
    )
    return None if row is None else _kept(row)


async def history(db: Connection, letter_id: UUID) -> list[Death]:
    """Read every time that a letter died, the latest first."""
    rows = await db.fetch(
        "SELECT died_at, reason, traceback, attempts FROM dead_letter_deaths WHERE letter_id = $1 ORDER BY died_at DESC", letter_id
    )
    return [Death(**dict(row)) for row in rows]


# Settling


def retried(ids: Sequence[UUID], *, actor: str, reason: str) -> Statement:
    """Write that letters are sent once more, those of them that still wait."""
    return Statement(
        """
        UPDATE dead_letters
           SET status = 'retried', retries = retries + 1, settled_at = now(), settled_by = $2, settled_reason = $3
         WHERE id = ANY($1::uuid[]) AND status = 'waiting'
        RETURNING id
        """,
        (list(ids), actor, reason),
        must=len(ids) == 1,
    )


def discarded(ids: Sequence[UUID], *, actor: str, reason: str) -> Statement:
    """Write that letters are put away, those of them that still wait."""
    return Statement(
        """
        UPDATE dead_letters
           SET status = 'discarded', settled_at = now(), settled_by = $2, settled_reason = $3
         WHERE id = ANY($1::uuid[]) AND status = 'waiting'
        RETURNING id
        """,
        (list(ids), actor, reason),
        must=len(ids) == 1,
    )


def replaced(letter_id: UUID, *, by: UUID, difference: Sequence[Change], actor: str, reason: str) -> Statement:
    """Write that another message was sent in a letter's place, and where it differs."""
    return Statement(
        """
        UPDATE dead_letters
           SET status = 'replaced', replaced_by = $2, difference = $3, settled_at = now(), settled_by = $4, settled_reason = $5
         WHERE id = $1 AND status = 'waiting'
        RETURNING id
        """,
        (letter_id, by, msgspec.json.encode(difference).decode(), actor, reason),
        must=True,
    )


# Many at once


async def count(db: Connection, scope: Scope, chosen: Filter, ids: Sequence[UUID] | None) -> int:
    """Count the waiting letters that are meant."""
    where, arguments = _meant(scope, chosen, ids)
    found: int = await db.fetchval(f"SELECT count(*) FROM dead_letters WHERE {where}", *arguments)
    return found


async def next_of(
    db: Connection, scope: Scope, chosen: Filter, ids: Sequence[UUID] | None, *, after: UUID, until: datetime, limit: int
) -> list[Kept]:
    """Read the next waiting letters that are meant, of those that lay there by then."""
    where, arguments = _meant(scope, chosen, ids)
    arguments += [after, until]
    rows = await db.fetch(
        f"""
        SELECT {_SHOWN}, store_id, environment, queue, source, digest, headers, body, difference
          FROM dead_letters
         WHERE {where} AND id > ${len(arguments) - 1} AND died_at <= ${len(arguments)}
         ORDER BY id
         LIMIT {limit:d}
        """,
        *arguments,
    )
    return [_kept(row) for row in rows]


def _meant(scope: Scope, chosen: Filter, ids: Sequence[UUID] | None) -> tuple[str, list[Any]]:
    where, arguments = _where(scope, chosen, status=LetterStatus.WAITING)
    if ids is not None:
        arguments.append(list(ids))
        where += f" AND id = ANY(${len(arguments)}::uuid[])"
    return where, arguments


# Keeping the house


async def waiting(db: Connection) -> list[tuple[str, int, float]]:
    """Count waiting letters by service, with the age of the oldest in seconds."""
    rows = await db.fetch(
        """
        SELECT service, count(*) AS letters, extract(epoch FROM now() - min(died_at))::float8 AS oldest
          FROM dead_letters
         WHERE status = 'waiting'
         GROUP BY service
        """
    )
    return [(row["service"], row["letters"], row["oldest"]) for row in rows]


async def forget_settled(pool: Pool, *, kept_days: int) -> int:
    """Delete a batch of letters settled long ago; returns how many."""
    async with connected(pool) as db:
        result = await db.execute(
            """
            DELETE FROM dead_letters
             WHERE id = ANY(ARRAY(SELECT id FROM dead_letters WHERE settled_at < now() - make_interval(days => $1) LIMIT $2))
            """,
            kept_days,
            DELETE_ROWS_MAX,
        )
    return int(result.split()[-1])
