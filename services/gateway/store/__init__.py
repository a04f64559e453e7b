"""Every SQL statement of the gateway, one typed function each."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from services.gateway.domain import Principal, Role
from shared.database import Connection, Pool, Record, connected
from shared.ids import new_id
from shared.messages import Environment

KEPT_DAYS = 30
DELETE_ROWS_MAX = 5_000
SWEEP_ROWS_MAX = 100
REDRIVE_MAX_SECONDS = 300.0


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A keyed request about to be carried out, command and all."""

    scope: str
    key: str
    request_hash: bytes
    command_type: str
    command: bytes
    store_id: UUID
    environment: Environment
    actor: str
    correlation_id: str
    traceparent: str
    parent_id: UUID | None = None


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An idempotency key as its row holds it."""

    operation_id: UUID
    request_hash: bytes
    command_type: str
    command: bytes | None
    store_id: UUID
    environment: Environment
    actor: str
    correlation_id: str
    traceparent: str
    scope: str
    completed: bool
    response_code: int | None
    response_body: bytes | None
    stale_seconds: float
    created_at: datetime
    claimed_now: bool = False


_COLUMNS = """
    operation_id, request_hash, command_type, command, store_id, environment, actor, correlation_id, traceparent, scope,
    status = 'completed' AS completed, response_code, response_body, created_at,
    extract(epoch FROM now() - driven_at)::float8 AS stale_seconds
"""


# What is there of the keys asked for: scopes in $1, keys in $2.
_ASKED = f"""
      FROM unnest($1::text[], $2::text[]) AS asked (s, k)
     CROSS JOIN LATERAL (SELECT {_COLUMNS}, idempotency_key
                           FROM idempotency_keys
                          WHERE (scope, idempotency_key) = (asked.s, asked.k)
                          LIMIT 1) AS found
"""


def _kept(row: Record) -> Kept:
    facts = dict(row)
    facts.pop("idempotency_key", None)
    return Kept(**{**facts, "environment": Environment(facts["environment"])})


async def claim(pool: Pool, claims: Sequence[Claim]) -> list[Kept]:
    """Claim keys as a group; a key that was there comes back as it is."""
    # Sorted, so that two groups never wait for each other; one of each key, so that none waits for itself.
    first = {(c.scope, c.key): c for c in reversed(claims)}
    wanted = {key: first[key] for key in sorted(first)}
    async with connected(pool) as db:
        rows = await db.fetch(
            f"""
            WITH made AS (
              INSERT INTO idempotency_keys (scope, idempotency_key, request_hash, status, operation_id, parent_id, command_type, command,
                                            store_id, environment, actor, correlation_id, traceparent)
              SELECT scope, key, hash, 'in_progress', operation_id, parent_id, type, command, store_id, environment, actor,
                     correlation_id, traceparent
                FROM unnest($1::text[], $2::text[], $3::bytea[], $4::uuid[], $5::uuid[], $6::text[], $7::bytea[], $8::uuid[], $9::text[],
                            $10::text[], $11::text[], $12::text[])
                     AS t (scope, key, hash, operation_id, parent_id, type, command, store_id, environment, actor, correlation_id,
                           traceparent)
              ON CONFLICT (scope, idempotency_key) DO NOTHING
              RETURNING {_COLUMNS}, idempotency_key, true AS claimed_now)
            SELECT * FROM made
             UNION ALL
            SELECT found.*, false
              {_ASKED}
            """,
            [c.scope for c in wanted.values()],
            [c.key for c in wanted.values()],
            [c.request_hash for c in wanted.values()],
            [new_id() for _ in wanted],
            [c.parent_id for c in wanted.values()],
            [c.command_type for c in wanted.values()],
            [c.command for c in wanted.values()],
            [c.store_id for c in wanted.values()],
            [c.environment.value for c in wanted.values()],
            [c.actor for c in wanted.values()],
            [c.correlation_id for c in wanted.values()],
            [c.traceparent for c in wanted.values()],
        )
        made = {(row["scope"], row["idempotency_key"]): _kept(row) for row in rows}
        # A key that another gateway has claimed since this statement began was neither made nor seen by it.
        missing = [key for key in wanted if key not in made]
        if missing:
            found = await db.fetch(f"SELECT found.* {_ASKED}", [scope for scope, _ in missing], [key for _, key in missing])
            made |= {(row["scope"], row["idempotency_key"]): _kept(row) for row in found}
    return _each(claims, made)


def _each(claims: Sequence[Claim], made: dict[tuple[str, str], Kept]) -> list[Kept]:
    # Only the first of several equal keys in a group is the one that claimed.
    result: list[Kept] = []
    seen: set[tuple[str, str]] = set()
    for c in claims:
        kept = made[(c.scope, c.key)]
        result.append(msgspec.structs.replace(kept, claimed_now=False) if (c.scope, c.key) in seen else kept)
        seen.add((c.scope, c.key))
    return result


class Finished(msgspec.Struct, frozen=True):
    """A definitive answer to keep."""

    operation_id: UUID
    code: int
    body: bytes


async def complete(pool: Pool, finished: Sequence[Finished]) -> list[None]:
    """Keep definitive answers as a group; the first answer of an operation stays."""
    rows = {f.operation_id: f for f in sorted(finished, key=lambda f: f.operation_id)}
    async with connected(pool) as db:
        await db.execute(
            """
            UPDATE idempotency_keys
               SET status = 'completed', command = NULL, completed_at = now(), expires_at = now() + make_interval(days => $4),
                   response_code = ($2::integer[])[array_position($1::uuid[], operation_id)],
                   response_body = ($3::bytea[])[array_position($1::uuid[], operation_id)]
             WHERE operation_id = ANY($1::uuid[]) AND status = 'in_progress'
            """,
            list(rows),
            [f.code for f in rows.values()],
            [f.body for f in rows.values()],
            KEPT_DAYS,
        )
    return [None] * len(finished)


async def rest(pool: Pool, operation_id: UUID) -> None:
    """Leave an operation alone until its caller comes back."""
    async with connected(pool) as db:
        await db.execute("UPDATE idempotency_keys SET resting = true WHERE operation_id = $1 AND status = 'in_progress'", operation_id)


async def take_up(pool: Pool, operation_id: UUID, *, stale_seconds: float) -> bool:
    """Take an unfinished operation up again when it rests or nobody has driven it for a while; true when it is ours."""
    async with connected(pool) as db:
        result = await db.execute(
            """
            UPDATE idempotency_keys
               SET resting = false, drives = drives + 1, driven_at = now()
             WHERE operation_id = $1 AND status = 'in_progress'
               AND (resting OR driven_at <= now() - make_interval(secs => $2))
            """,
            operation_id,
            stale_seconds,
        )
    return result == "UPDATE 1"


async def take_forgotten(pool: Pool, *, after_seconds: float) -> list[Kept]:
    """Take the unfinished operations that nobody drives; ever more rarely the more often they were driven."""
    async with connected(pool) as db:
        rows = await db.fetch(
            f"""
            UPDATE idempotency_keys
               SET drives = drives + 1, driven_at = now()
             WHERE operation_id = ANY(ARRAY(
                   SELECT operation_id
                     FROM idempotency_keys
                    WHERE status = 'in_progress' AND NOT resting
                      AND driven_at <= now() - make_interval(secs => least($1 * power(2, least(drives, 16) - 1), $2))
                    ORDER BY driven_at
                    LIMIT $3
                      FOR UPDATE SKIP LOCKED))
            RETURNING {_COLUMNS}
            """,
            after_seconds,
            REDRIVE_MAX_SECONDS,
            SWEEP_ROWS_MAX,
        )
    return [_kept(row) for row in rows]


async def look(pool: Pool, operation_ids: Sequence[UUID]) -> list[Kept | None]:
    """Read operations by id, as a group."""
    async with connected(pool) as db:
        rows = await db.fetch(f"SELECT {_COLUMNS} FROM idempotency_keys WHERE operation_id = ANY($1::uuid[])", list(operation_ids))
    found = {row["operation_id"]: _kept(row) for row in rows}
    return [found.get(each) for each in operation_ids]


async def steps_of(pool: Pool, parent_id: UUID) -> list[Kept]:
    """Read the steps of a composed operation, in order."""
    async with connected(pool) as db:
        rows = await db.fetch(f"SELECT {_COLUMNS} FROM idempotency_keys WHERE parent_id = $1 ORDER BY operation_id", parent_id)
    return [_kept(row) for row in rows]


async def forget_expired(pool: Pool) -> int:
    """Delete a batch of keys past their time; returns how many."""
    async with connected(pool) as db:
        result = await db.execute(
            """
            DELETE FROM idempotency_keys
             WHERE ctid = ANY(ARRAY(SELECT ctid FROM idempotency_keys WHERE expires_at < now() LIMIT $1))
            """,
            DELETE_ROWS_MAX,
        )
    return int(result.split()[-1])


async def keep_api_key(
    db: Connection, *, key_id: UUID, store_id: UUID, environment: Environment, role: Role, name: str, secret_hash: bytes
) -> None:
    """Write a new API key; one that is there stays as it is."""
    await db.execute(
        """
        INSERT INTO api_keys (id, store_id, environment, role, name, secret_hash)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (id) DO NOTHING
        """,
        key_id,
        store_id,
        environment.value,
        role.value,
        name,
        secret_hash,
    )


async def api_key(pool: Pool, key_id: UUID) -> tuple[Principal, bytes] | None:
    """Read an API key that is not revoked: whom it stands for, and its secret's hash."""
    async with connected(pool) as db:
        row = await db.fetchrow(
            "SELECT store_id, environment, role, secret_hash FROM api_keys WHERE id = $1 AND revoked_at IS NULL", key_id
        )
    if row is None:
        return None
    principal = Principal(id=str(key_id), store_id=row["store_id"], environment=Environment(row["environment"]), role=Role(row["role"]))
    return principal, row["secret_hash"]
