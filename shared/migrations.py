"""Migrations: forward only, under a lock, by the owner; each service gets a schema and a login role of its own."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import asyncpg
import msgspec

from shared.backoff import reconnecting
from shared.database import Connection, Pool, connected
from shared.dependencies import Misconfigured
from shared.errors import Clear
from shared.owner import connect_as_owner

MIGRATION_LOCK = 7_230_511_001
# What every session of a service begins with. A plan made while a table was empty must not read the whole of it for as long as
# it is cached; every statement has its index, so one plan serves all values and nothing is planned anew or compiled.
SESSION = ("enable_seqscan = off", "plan_cache_mode = force_generic_plan", "jit = off", "timezone = 'UTC'")
MESSAGING = Path(__file__).parent / "schema"


class Owned(msgspec.Struct, frozen=True, kw_only=True):
    """A service's share of the database: its schema's name and where its SQL files lie."""

    name: str
    files: Path
    # Tables that several services have and not all, by their names in schema/optional.
    also: tuple[str, ...] = ()


class MigrationRefused(Clear):
    """An applied migration was changed, or the owner may not do what migrating needs; the text says which."""


def role_of(service: str) -> str:
    """Name the login role of a service."""
    return f"tender_{service}"


async def migrate(owner_url: str, services: Sequence[Owned], *, password: str | Mapping[str, str]) -> list[str]:
    """Bring every schema up to date; returns the names of the migrations that were applied. The password is one for all or by service."""
    connection = await connect_as_owner(owner_url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
        applied: list[str] = []
        for service in services:
            await _give_role(connection, service.name, password_of(password, service.name))
            applied += await _bring_up(connection, service)
        return applied
    except asyncpg.InsufficientPrivilegeError as denied:
        raise MigrationRefused(f"the owner role may not migrate: {denied}") from denied
    finally:
        await connection.close()


def files_of(service: Owned) -> list[Path]:
    """List a service's migrations in order, the messaging tables first."""
    also = [MESSAGING / "optional" / f"{name}.sql" for name in service.also]
    return sorted(MESSAGING.glob("*.sql")) + also + sorted(service.files.glob("*.sql"))


async def schema_trouble(pool: Pool, service: Owned) -> str | None:
    """Say what keeps this code from working on its schema and `migrate` would mend. Raises Misconfigured where rights are missing."""
    try:
        async with connected(pool) as db:
            row = await db.fetchrow(
                """
                SELECT current_user AS who, current_schema() AS current,
                       (SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = $1) AS may_use
                """,
                service.name,
            )
            assert row is not None, "a select without FROM has one row"
            if row["may_use"] is None:
                return f"there is no schema {service.name}: run migrate"
            if not row["may_use"]:
                raise Misconfigured(f"the role {row['who']} may not use the schema {service.name}")
            if row["current"] != service.name:
                return f"the role {row['who']} does not begin in the schema {service.name}: run migrate"
            applied = {each["name"] for each in await db.fetch("SELECT name FROM schema_migrations")}
    except asyncpg.UndefinedTableError:
        applied = set()
    except asyncpg.InsufficientPrivilegeError as denied:
        raise Misconfigured(str(denied)) from denied
    absent = [file.name for file in files_of(service) if file.name not in applied]
    return f"{len(absent)} migrations are missing, the first is {absent[0]}: run migrate" if absent else None


def password_of(password: str | Mapping[str, str], service: str) -> str:
    """Give a service's password: the one of all, or its own."""
    return password if isinstance(password, str) else password[service]


async def _give_role(connection: Connection, service: str, password: str) -> None:
    role = role_of(service)
    async for attempt in reconnecting(asyncpg.InternalServerError, asyncpg.UniqueViolationError):
        # Roles belong to the whole cluster: two databases migrating at once may meet here.
        with attempt:
            await connection.execute(f"DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
            quoted = await connection.fetchval("SELECT quote_literal($1)", password)
            await connection.execute(f"ALTER ROLE {role} PASSWORD {quoted}")
    await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {service}")
    await connection.execute(f"GRANT USAGE ON SCHEMA {service} TO {role}")
    await settle_role(connection, service)
    await connection.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA {service} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}")
    await connection.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA {service} GRANT USAGE ON SEQUENCES TO {role}")


async def settle_role(connection: Connection, service: str) -> None:
    """Set what a service's sessions in this database begin with, also where a pooler keeps no session state."""
    role, database = role_of(service), await connection.fetchval("SELECT quote_ident(current_database())")
    for setting in (f"search_path = {service}", *SESSION):
        async for attempt in reconnecting(asyncpg.InternalServerError, asyncpg.UniqueViolationError):
            with attempt:
                await connection.execute(f"ALTER ROLE {role} IN DATABASE {database} SET {setting}")


async def _bring_up(connection: Connection, service: Owned) -> list[str]:
    applied: list[str] = []
    async with connection.transaction():
        await connection.execute(f"SET LOCAL search_path = {service.name}")
        await connection.execute(
            """
            CREATE TABLE IF NOT EXISTS schema_migrations (
                name       text        PRIMARY KEY,
                digest     text        NOT NULL,
                applied_at timestamptz NOT NULL DEFAULT now()
            )
            """
        )
        known = {row["name"]: row["digest"] for row in await connection.fetch("SELECT name, digest FROM schema_migrations")}
        for file in files_of(service):
            sql = await asyncio.to_thread(file.read_text)
            digest = hashlib.sha256(sql.encode()).hexdigest()
            if known.get(file.name, digest) != digest:
                raise MigrationRefused(f"{service.name}/{file.name} was changed after it was applied; add a new file instead.")
            if file.name not in known:
                await connection.execute(sql)
                await connection.execute("INSERT INTO schema_migrations (name, digest) VALUES ($1, $2)", file.name, digest)
                applied.append(f"{service.name}/{file.name}")
    return applied
