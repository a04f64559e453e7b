"""Who is signed in at the console, and the keys there are, in SQL."""

from uuid import UUID

from services.gateway.domain import KeyView, Principal, Role, Session
from shared import audit
from shared.database import Pool, connected, transaction
from shared.messages import Envelope, Environment

DELETE_ROWS_MAX = 1_000
KEYS_LISTED_MAX = 1_000
SIGN_IN, SIGN_OUT = "console.sign_in", "console.sign_out"


async def begin(pool: Pool, envelope: Envelope, token_hash: bytes, key_id: UUID, *, lifetime_seconds: float) -> None:
    """Begin a session, and write down who signed in with which key."""
    async with transaction(pool) as db:
        await db.execute(
            "INSERT INTO console_sessions (token_hash, key_id, expires_at) VALUES ($1, $2, now() + make_interval(secs => $3))",
            token_hash,
            key_id,
            lifetime_seconds,
        )
        written = audit.acted(envelope, SIGN_IN, f"key_id={key_id}")
        await db.execute(written.sql, *written.arguments)


# A use is written once in so many of an idle session's seconds, not at every request.
USES_PER_IDLE_TIME = 30


async def session(pool: Pool, token_hash: bytes, *, idle_seconds: float, used: bool) -> Session | None:
    """Read a token's session; none when it has expired, was not used for so long, or its key was revoked."""
    async with connected(pool) as db:
        row = await db.fetchrow(
            """
            SELECT k.id, k.store_id, k.environment, k.role, k.name, s.used_at < now() - make_interval(secs => $3) AS stale
              FROM console_sessions s
              JOIN api_keys k ON k.id = s.key_id
             WHERE s.token_hash = $1 AND s.expires_at > now() AND s.used_at > now() - make_interval(secs => $2) AND k.revoked_at IS NULL
            """,
            token_hash,
            idle_seconds,
            idle_seconds / USES_PER_IDLE_TIME,
        )
        if row is None:
            return None
        if used and row["stale"]:
            await db.execute("UPDATE console_sessions SET used_at = now() WHERE token_hash = $1", token_hash)
    principal = Principal(id=str(row["id"]), store_id=row["store_id"], environment=Environment(row["environment"]), role=Role(row["role"]))
    return Session(principal=principal, key_name=row["name"])


async def end(pool: Pool, envelope: Envelope, token_hash: bytes) -> None:
    """End a session, and write down who signed out."""
    async with transaction(pool) as db:
        key_id = await db.fetchval("DELETE FROM console_sessions WHERE token_hash = $1 RETURNING key_id", token_hash)
        written = audit.acted(envelope, SIGN_OUT, f"key_id={key_id}")
        await db.execute(written.sql, *written.arguments)


async def owner_of(pool: Pool, key_id: UUID) -> tuple[UUID, Environment] | None:
    """Find the store and environment of a key, revoked or not."""
    async with connected(pool) as db:
        row = await db.fetchrow("SELECT store_id, environment FROM api_keys WHERE id = $1", key_id)
    return None if row is None else (row["store_id"], Environment(row["environment"]))


async def forget_expired(pool: Pool) -> None:
    """Delete a batch of sessions past their time."""
    async with connected(pool) as db:
        await db.execute(
            "DELETE FROM console_sessions WHERE ctid = ANY(ARRAY(SELECT ctid FROM console_sessions WHERE expires_at < now() LIMIT $1))",
            DELETE_ROWS_MAX,
        )


async def revoke(pool: Pool, envelope: Envelope, key_id: UUID) -> KeyView | None:
    """Revoke a store's key and write down who did; one that was revoked stays as it is, of one that is not there nothing comes back."""
    async with transaction(pool) as db:
        row = await db.fetchrow(
            """
            UPDATE api_keys
               SET revoked_at = coalesce(revoked_at, now())
             WHERE id = $1 AND store_id = $2 AND environment = $3
            RETURNING id, role, name, created_at, revoked_at
            """,
            key_id,
            envelope.store_id,
            envelope.environment.value,
        )
        if row is None:
            return None
        written = audit.acted(envelope, "api_key.revoke", f"key_id={key_id}", after={"name": row["name"], "role": row["role"]})
        await db.execute(written.sql, *written.arguments)
    return KeyView(**{**dict(row), "role": Role(row["role"])})


async def keys_of(pool: Pool, principal: Principal) -> list[KeyView]:
    """List the API keys of a store's environment, the newest first, revoked ones too; never a secret."""
    async with connected(pool) as db:
        rows = await db.fetch(
            """
            SELECT id, role, name, created_at, revoked_at
              FROM api_keys
             WHERE store_id = $1 AND environment = $2
             ORDER BY id DESC
             LIMIT $3
            """,
            principal.store_id,
            principal.environment.value,
            KEYS_LISTED_MAX,
        )
    return [KeyView(**{**dict(row), "role": Role(row["role"])}) for row in rows]
