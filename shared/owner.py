"""The database as its owner: what migrates and sets up connects by this."""

import getpass
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg

from shared import audit
from shared.connection_errors import naming
from shared.database import Connection
from shared.ids import NOBODY, new_id
from shared.messages import Envelope, Environment

CONNECT_TIMEOUT_SECONDS = 10.0


async def connect_as_owner(url: str) -> Connection:
    """Open a connection; raises ServerRefused, which names the host and the reason, when there is none."""
    with naming("Postgres", url, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection: Connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_SECONDS)
        return connection


@asynccontextmanager
async def acting_as_owner(
    url: str,
    schema: str,
    action: str,
    subject: str = "",
    *,
    store_id: UUID = NOBODY,
    environment: Environment = Environment.PRODUCTION,
    after: dict[str, Any] | None = None,
) -> AsyncIterator[Connection]:
    """Change a schema as the database's owner, in one transaction; if it writes anything, it leaves a row in the schema's audit.

    Without a store it is about the whole installation. What the caller puts into `after` meanwhile is in the row.
    """
    connection = await connect_as_owner(url)
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL search_path = {schema}")
            yield connection
            # A transaction has an id once it has written a row.
            if await connection.fetchval("SELECT pg_current_xact_id_if_assigned() IS NOT NULL"):
                row = audit.acted(_envelope(store_id, environment), action, subject, after=after)
                await connection.execute(row.sql, *row.arguments)
    finally:
        await connection.close()


async def insert_owner_action(
    url: str, schema: str, action: str, subject: str, *, store_id: UUID = NOBODY, environment: Environment = Environment.PRODUCTION
) -> None:
    """Insert the audit's row of something that cannot be one transaction, before it begins."""
    connection = await connect_as_owner(url)
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL search_path = {schema}")
            row = audit.acted(_envelope(store_id, environment), action, subject)
            await connection.execute(row.sql, *row.arguments)
    finally:
        await connection.close()


def _envelope(store_id: UUID, environment: Environment) -> Envelope:
    action_id = new_id()
    return Envelope(
        id=action_id, store_id=store_id, environment=environment, source="cli", actor=f"cli:{_user()}", correlation_id=str(action_id)
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())  # A container's user needs no name.
