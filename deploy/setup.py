"""Making a database and a broker ready: schemas, roles, topology, keys; each can be done again without harm."""

import asyncio
import secrets
from collections.abc import Mapping
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import UUID

from deploy.state import SECRET_BYTES
from services.fulfillment.app import OWNED as FULFILLMENT
from services.gateway import domain as gateway_rules
from services.gateway import store as gateway_rows
from services.gateway.app import OWNED as GATEWAY
from services.gateway.domain import Role
from services.payments.app import OWNED as PAYMENTS
from services.reconciler.app import OWNED as RECONCILER
from services.webhooks.app import OWNED as WEBHOOKS
from shared import topology
from shared.connection_errors import naming
from shared.ids import new_id
from shared.messages import Environment
from shared.migrations import migrate, role_of
from shared.owner import acting_as_owner, connect_as_owner

SERVICES = (GATEWAY, PAYMENTS, WEBHOOKS, FULFILLMENT, RECONCILER)


def service_url(owner_url: str, service: str, password: str) -> str:
    """Tell with which URL a service logs into the owner's database."""
    parts = urlsplit(owner_url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role_of(service)}:{quote(password)}@{host}"))


def with_database(url: str, name: str) -> str:
    """Tell the URL of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def create_database(owner_url: str, name: str, *, template: str = "template1") -> str:
    """Create a database unless it is there; returns its URL."""
    connection = await connect_as_owner(owner_url)
    try:
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name):
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    finally:
        await connection.close()
    return with_database(owner_url, name)


async def drop_database(owner_url: str, name: str) -> None:
    """Drop a database with whoever is still in it."""
    connection = await connect_as_owner(owner_url)
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    finally:
        await connection.close()


async def prepare(database_url: str, amqp_url: str, *, password: str | Mapping[str, str]) -> list[str]:
    """Migrate every schema and declare the topology; returns the migrations that were applied."""
    applied, _ = await asyncio.gather(migrate(database_url, SERVICES, password=password), declare_topology(amqp_url))
    return applied


async def declare_topology(amqp_url: str) -> None:
    """Declare exchanges and queues; what is there stays."""
    with naming("RabbitMQ", amqp_url, topology.TopologyRefused):
        await topology.declare(amqp_url, topology.CONSUMERS)


async def create_key(
    database_url: str,
    *,
    store_id: UUID,
    environment: Environment,
    role: Role,
    name: str,
    key_id: UUID | None = None,
    secret: str | None = None,
) -> str:
    """Make an API key; it is shown this once and kept as a hash. Takes the owner's database URL.

    With an id and a secret of the caller's it is made only once, so that a local stack keeps its keys.
    """
    key_id, secret = key_id or new_id(), secret or secrets.token_hex(SECRET_BYTES)
    action, subject, after = "api_key.create", f"key_id={key_id}", {"name": name, "role": role.value}
    async with acting_as_owner(
        database_url, "gateway", action, subject, store_id=store_id, environment=environment, after=after
    ) as connection:
        await gateway_rows.keep_api_key(
            connection,
            key_id=key_id,
            store_id=store_id,
            environment=environment,
            role=role,
            name=name,
            secret_hash=gateway_rules.secret_hash(secret),
        )
    return gateway_rules.api_key(key_id, environment, secret)


async def set_store(
    database_url: str, *, store_id: UUID, environment: Environment, quote_lifetime_seconds: int, reporting_currency: str
) -> None:
    """Decide how long a store's quotes hold and in which currency it reports."""
    after = {"quote_lifetime_seconds": quote_lifetime_seconds, "reporting_currency": reporting_currency}
    async with acting_as_owner(
        database_url, "payments", "store.set", store_id=store_id, environment=environment, after=after
    ) as connection:
        await connection.execute(
            """
            INSERT INTO payments.stores (store_id, environment, quote_lifetime_seconds, reporting_currency)
            VALUES ($1, $2, $3, $4)
            ON CONFLICT (store_id, environment) DO UPDATE
               SET quote_lifetime_seconds = EXCLUDED.quote_lifetime_seconds, reporting_currency = EXCLUDED.reporting_currency
            """,
            store_id,
            environment.value,
            quote_lifetime_seconds,
            reporting_currency,
        )
