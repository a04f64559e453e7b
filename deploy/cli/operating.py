"""The jobs an operator runs: migrate, topology, keys, stores, tax rules, seed."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import UUID

import click
import msgspec

from deploy import broker_users, container_secrets, fx, seed, setup, taxes
from deploy import keys as vault
from deploy.cli.attending import attends
from deploy.cli.terminal import main_instance
from deploy.operator import Api, table
from deploy.processes import Failed
from deploy.stack import STORE_ID
from deploy.state import ROOT
from services.gateway.domain import STAFF, Role
from shared.messages import Environment
from shared.migrations import role_of


def _file_of(variable: str, environment: Mapping[str, str] = os.environ) -> Callable[[], str | None]:
    """Read an option from the file that its variable names with _FILE behind it, as services read their secrets."""

    def read() -> str | None:
        name = environment.get(f"{variable}_FILE")
        return Path(name).read_text().strip() if name else None

    return read


_database = click.option(
    "--database-url", envvar="DATABASE_URL", default=_file_of("DATABASE_URL"), required=True, help="The database, as its owner."
)
_broker = click.option("--amqp-url", envvar="AMQP_URL", default=_file_of("AMQP_URL"), required=True)
_password = click.option("--password", envvar="SERVICES_PASSWORD", help="One password for all users of the services.")
_passwords_file = click.option(
    "--passwords-file",
    envvar="SERVICES_PASSWORDS_FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Instead of it, a JSON file with a password for each service.",
)


def _passwords(password: str | None, file: Path | None) -> str | dict[str, str]:
    if (password is None) == (file is None):
        raise click.UsageError("Give either --password or --passwords-file.")
    return container_secrets.passwords_of(file) if file is not None else str(password)


@click.command()
@_database
@_broker
@_password
@_passwords_file
@click.option(
    "--management-url",
    envvar="RABBITMQ_MANAGEMENT_URL",
    default=_file_of("RABBITMQ_MANAGEMENT_URL"),
    help="The broker's management API, for users of the services as broker-users makes.",
)
def migrate(database_url: str, amqp_url: str, password: str | None, passwords_file: Path | None, management_url: str | None) -> None:
    """Bring schemas, roles and queues up to date.

    A deployment's first job.
    """
    given = _passwords(password, passwords_file)
    applied = asyncio.run(setup.prepare(database_url, amqp_url, password=given))
    click.echo("\n".join(applied) or "Nothing to do.")
    if management_url is not None:
        _make_broker_users(management_url, broker_users.vhost_of(amqp_url), given)


@click.command(name="topology")
@_broker
def declare_topology(amqp_url: str) -> None:
    """Declare exchanges and queues; what is there stays."""
    asyncio.run(setup.declare_topology(amqp_url))
    click.echo("Declared.")


@click.command(name="asyncapi")
def show_asyncapi() -> None:
    """Print what travels over the bus, as an AsyncAPI 3 document."""
    from deploy import asyncapi

    click.echo(msgspec.json.format(msgspec.json.encode(asyncapi.document()), indent=2).decode())


@click.command(name="settings")
def show_settings() -> None:
    """Print every setting with its default and meaning, as Markdown."""
    from deploy import settings_reference

    click.echo(settings_reference.page())


@click.command(name="broker-users")
@click.option(
    "--management-url",
    envvar="RABBITMQ_MANAGEMENT_URL",
    default=_file_of("RABBITMQ_MANAGEMENT_URL"),
    required=True,
    help="The broker's management API, as its administrator.",
)
@click.option("--vhost", default="/", show_default=True)
@_password
@_passwords_file
def make_broker_users(management_url: str, vhost: str, password: str | None, passwords_file: Path | None) -> None:
    """Give each service a broker user that may do what it needs and nothing else.

    Each then logs in as tender_<service>.
    """
    _make_broker_users(management_url, vhost, _passwords(password, passwords_file))


def _make_broker_users(management_url: str, vhost: str, password: str | Mapping[str, str]) -> None:
    asyncio.run(broker_users.make(management_url, password=password))
    asyncio.run(broker_users.grant(management_url, vhost))
    click.echo(f"Made: {', '.join(role_of(service) for service in broker_users.USERS)}.")


@click.command(name="seed")
@click.option("--orders", default=10_000, show_default=True, type=click.IntRange(1, 10_000_000))
@click.option("--store", "store_id", type=click.UUID, default=STORE_ID, show_default="the local store")
@click.option("--database-url", envvar="DATABASE_URL", help="The owner's database URL; the running stack's by default.")
def seed_orders(orders: int, store_id: UUID, database_url: str | None) -> None:
    """Load captured sandbox orders, to see how the system does with a past behind it."""
    with click.progressbar(length=orders, label="Loading orders") as bar:
        asyncio.run(
            seed.seed(_database_url(database_url), store_id=store_id, orders=orders, progress=lambda done: bar.update(done - bar.pos))
        )


@click.group()
def keys() -> None:
    """API keys, and the keys that providers' credentials are sealed with."""


@keys.command(name="create")
@click.option("--store", "store_id", type=click.UUID, default=STORE_ID, show_default="the local store")
@click.option("--environment", type=click.Choice([e.value for e in Environment]), default="sandbox", show_default=True)
@click.option("--role", type=click.Choice(["checkout", *sorted(role.value for role in STAFF)]), required=True)
@click.option("--name", required=True, help="Whose key this is.")
@click.option("--database-url", envvar="DATABASE_URL", help="The owner's database URL; the running stack's by default.")
def create_key(store_id: UUID, environment: str, role: str, name: str, database_url: str | None) -> None:
    """Make an API key and show it, once."""
    key = setup.create_key(_database_url(database_url), store_id=store_id, environment=Environment(environment), role=Role(role), name=name)
    click.echo(asyncio.run(key))


_folder = click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where they lie; the local system's by default.")


@keys.command(name="revoke")
@click.argument("key_id", type=click.UUID)
@attends
def revoke_key(api: Api, key_id: UUID) -> None:
    """Let an API key open nothing any more; its console sessions end with it."""
    revoked = api.send("POST", f"api-keys/{key_id}/revoke", None)
    click.echo(table([revoked], "id", "role", "name", "revoked_at"))


@keys.command(name="list")
@attends
def list_keys(api: Api) -> None:
    """List the API keys of the store, without their secrets."""
    click.echo(table(api.get("api-keys")["keys"], "id", "role", "name", "created_at", "revoked_at"))


@keys.command(name="make")
@_folder
def make_keys(folder: Path | None) -> None:
    """Make the keys that providers' credentials are sealed with, unless there are some.

    A file for each service that opens them, and public.json for the gateway.
    """
    where = folder or main_instance().folder / "vault"
    click.echo(f"Made in {where}." if vault.make(where) else f"There are some in {where}.")


@keys.command(name="rotate")
@_folder
@click.option("--database-url", envvar="DATABASE_URL", help="The owner's database URL; the running stack's by default.")
def rotate_keys(folder: Path | None, database_url: str | None) -> None:
    """Seal every credential with another key, while everything runs.

    What was broken off goes on when it is called again.
    """
    asyncio.run(vault.rotate(folder or main_instance().folder / "vault", _database_url(database_url), say=click.echo))


@click.group(name="secrets")
def secrets_of_containers() -> None:
    """The random passwords and keys that the compose file reads."""


@secrets_of_containers.command(name="create")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=ROOT / "deploy" / "secrets", show_default="deploy/secrets"
)
def create_secrets(folder: Path) -> None:
    """Write the secrets of the compose file that are not there yet, one file each."""
    created = container_secrets.create(folder)
    click.echo(f"{len(created)} created in {folder}." if created else f"All are in {folder}.")


@click.group()
def stores() -> None:
    """What a store decides for itself."""


@stores.command(name="set")
@click.option("--store", "store_id", type=click.UUID, default=STORE_ID, show_default="the local store")
@click.option("--environment", type=click.Choice([e.value for e in Environment]), default="sandbox", show_default=True)
@click.option("--quote-lifetime", "quote_lifetime_seconds", type=click.IntRange(1, 86_400), default=900, show_default=True, help="Seconds.")
@click.option("--reporting-currency", default="EUR", show_default=True)
@click.option("--database-url", envvar="DATABASE_URL", help="The owner's database URL; the running stack's by default.")
def set_store(store_id: UUID, environment: str, quote_lifetime_seconds: int, reporting_currency: str, database_url: str | None) -> None:
    """Set how long a store's quotes hold and in which currency it reports."""
    asyncio.run(
        setup.set_store(
            _database_url(database_url),
            store_id=store_id,
            environment=Environment(environment),
            quote_lifetime_seconds=quote_lifetime_seconds,
            reporting_currency=reporting_currency,
        )
    )
    click.echo("Set.")


@click.group()
def tax() -> None:
    """What tax a store collects."""


@tax.command(name="import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--store", "store_id", type=click.UUID, default=STORE_ID, show_default="the local store")
@click.option("--environment", type=click.Choice([e.value for e in Environment]), default="sandbox", show_default=True)
@click.option("--replace", is_flag=True, help="Take rules that the file does not hold out of use.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--database-url", envvar="DATABASE_URL", help="The owner's database URL; the running stack's by default.")
def import_rules(file: Path, store_id: UUID, environment: str, replace: bool, dry_run: bool, database_url: str | None) -> None:
    """Bring tax rules in from a CSV or JSON file, all or none.

    deploy/tax/starter.csv is a set to begin with.
    """
    wanted = taxes.read(file)
    if old := taxes.age_of(wanted):
        click.echo(f"Warning: {old}", err=True)
    found = asyncio.run(
        taxes.bring_in(
            _database_url(database_url),
            wanted,
            store_id=store_id,
            environment=Environment(environment),
            replace=replace,
            dry_run=dry_run,
        )
    )
    out = (*found.missing, *(before for before, _ in found.ended)) if replace else ()
    ended = () if replace else tuple(after for _, after in found.ended)
    for sign, rules in (("+", found.added), ("~", ended), ("-", out)):
        for rule in rules:
            click.echo(f"{sign} {taxes.line_of(rule)}")
    gone = f"{len(out)} out of use" if replace else f"{len(ended)} end, {len(found.missing)} others stay"
    click.echo(f"{len(found.added)} new, {len(found.same)} the same, {gone}." + (" Nothing was changed: a dry run." if dry_run else ""))


@click.group(name="fx")
def exchange() -> None:
    """FX reference rates, at which other currencies are reported."""


@exchange.command(name="import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--database-url", envvar="DATABASE_URL", help="The owner's database URL; the running stack's by default.")
def import_rates(file: Path, database_url: str | None) -> None:
    """Bring reference rates in, all or none.

    The ECB's eurofxref.csv or eurofxref-hist.csv, or a CSV with the columns base, quote, rate, date, source.
    """
    brought = asyncio.run(fx.bring_in(_database_url(database_url), fx.read(file)))
    click.echo(f"{brought.new} new, {brought.known} known already.")


def _database_url(given: str | None) -> str:
    if found := given or _file_of("DATABASE_URL")():
        return found
    running = main_instance().servers()
    if running is None or running.database_url is None:
        raise Failed("Nothing is up; start it with ./tender up, or give --database-url.")
    return setup.with_database(running.database_url, "tender")
