"""Every SQL statement of the gateway, one typed function each."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from services.gateway.domain import Principal, Role
from shared.database import Connection, Pool, Record, connected, each_row
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
    created_at: datetime
    claimed_now: bool = False


_COLUMNS = """
    operation_id, request_hash, command_type, command, store_id, environment, actor, correlation_id, traceparent, scope,
    status = 'completed' AS completed, response_code, response_body, created_at
"""


_FOUND = f"""
    SELECT {_COLUMNS}
      FROM idempotency_keys
     WHERE (scope, idempotency_key) = ($1, $2)
"""


# One row always: the key as claimed now, or as it was found, or neither, when another gateway has claimed it since this statement began.
_CLAIM = f"""
    WITH made AS (
      INSERT INTO idempotency_keys (scope, idempotency_key, request_hash, status, operation_id, parent_id, command_type, command,
                                    store_id, environment, actor, correlation_id, traceparent)
      VALUES ($1, $2, $3, 'in_progress', $4, $5, $6, $7, $8, $9, $10, $11, $12)
      ON CONFLICT (scope, idempotency_key) DO NOTHING
      RETURNING operation_id, created_at)
    SELECT made.operation_id AS claimed_as, made.created_at AS claimed_at, found.*
      FROM (SELECT 1) AS always
      LEFT JOIN made ON true
      LEFT JOIN ({_FOUND}) AS found ON true
"""


def _kept(row: Record) -> Kept:
    return Kept(**{name: row[name] for name in _KEPT}, environment=Environment(row["environment"]))


_KEPT = [name for name in Kept.__struct_fields__ if name not in ("environment", "claimed_now")]


async def claim(pool: Pool, claims: Sequence[Claim]) -> list[Kept]:
    """Claim keys as a group; a key that was there comes back as it is."""
    # In order, so that two groups never wait for each other.
    ordered = sorted(range(len(claims)), key=lambda number: (claims[number].scope, claims[number].key))
    async with connected(pool) as db:
        rows = await each_row(db, _CLAIM, [_values(claims[number]) for number in ordered])
        made = dict(zip(ordered, rows, strict=True))
        return [await _claimed(db, each, made[number]) for number, each in enumerate(claims)]


def _values(claim: Claim) -> tuple[object, ...]:
    return (
        claim.scope,
        claim.key,
        claim.request_hash,
        new_id(),
        claim.parent_id,
        claim.command_type,
        claim.command,
        claim.store_id,
        claim.environment.value,
        claim.actor,
        claim.correlation_id,
        claim.traceparent,
    )


async def _claimed(db: Connection, claim: Claim, row: Record) -> Kept:
    if row["claimed_as"] is None:
        found = row if row["operation_id"] is not None else await db.fetchrow(_FOUND, claim.scope, claim.key)
        assert found is not None, "a key that cannot be claimed is there"
        return _kept(found)
    return Kept(
        operation_id=row["claimed_as"],
        request_hash=claim.request_hash,
        command_type=claim.command_type,
        command=claim.command,
        store_id=claim.store_id,
        environment=claim.environment,
        actor=claim.actor,
        correlation_id=claim.correlation_id,
        traceparent=claim.traceparent,
        scope=claim.scope,
        completed=False,
        response_code=None,
        response_body=None,
        created_at=row["claimed_at"],
        claimed_now=True,
    )


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
    """Delete a batch of keys past their time, and of those whose caller never came back; returns how many."""
    async with connected(pool) as db:
        result = await db.execute(
            """
            DELETE FROM idempotency_keys
             WHERE ctid = ANY(ARRAY(SELECT ctid FROM idempotency_keys WHERE expires_at < now() LIMIT $1)
                              || ARRAY(SELECT ctid
                                         FROM idempotency_keys
                                        WHERE status = 'in_progress' AND resting AND driven_at < now() - make_interval(days => $2)
                                        LIMIT $1))
            """,
            DELETE_ROWS_MAX,
            KEPT_DAYS,
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
