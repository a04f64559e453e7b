"""The database as its owner: what migrates and sets up connects by this."""

import asyncpg

from shared.connection_errors import naming
from shared.database import Connection

CONNECT_TIMEOUT_SECONDS = 10.0


async def connect_as_owner(url: str) -> Connection:
    """Open a connection; raises ServerRefused, which names the host and the reason, when there is none."""
    with naming("Postgres", url, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection: Connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_SECONDS)
        return connection
