"""The command line: demo, up, down, status, logs, test, check, bench, and the jobs an operator runs."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import click
from rich.console import Console

from deploy import demo as demonstration
from deploy import setup
from deploy.processes import Failed
from deploy.servers import Choice, servers
from deploy.stack import ROOT, STORE_ID, Options, answers, running
from deploy.state import Instance, alive
from services.gateway.domain import Role
from shared import topology
from shared.messages import Environment
from shared.migrations import MigrationRefused

DEFAULT_PORT = 8080
DEFAULT_SANDBOX_PORT = 8090
UP_TIMEOUT_SECONDS = 180.0
DOWN_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.1
FAILED_EXIT = 1

console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Tell the person at the terminal how it goes."""
    console.print(text, style="dim")


def home() -> Path:
    """Where everything we make lies."""
    return Path(os.environ.get("TENDER_HOME", ROOT / ".tender"))


def main_instance() -> Instance:
    """The instance that up, demo, status and down speak of."""
    return Instance(home(), "main")


_docker = click.option("--docker", "use_docker", is_flag=True, help="Run Postgres and RabbitMQ in containers.")
_local = click.option("--use-local", is_flag=True, help="Use the servers on ports 5432 and 5672, in a database of our own.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Tender: the provider layer of a shop.

    \b
    ./tender demo     watch an order go from quote to refund over the real system
    ./tender up       keep the system running, with a key and a curl to paste
    ./tender test     run everything that has to pass
    """


@cli.command()
@click.option("--order", "order_file", type=click.Path(path_type=Path), help="A JSON file with an order; three ship in deploy/orders/.")
@_docker
@_local
def demo(order_file: Path | None, use_docker: bool, use_local: bool) -> None:
    """Run a payment from the quote to the refund."""
    order = demonstration.read_order(order_file)
    instance = main_instance()
    state = instance.stack()
    if state is not None:
        say("Using the system that is already up.")
        demonstration.run(state, order)
        return
    options = Options(choice=Choice(use_docker=use_docker, use_local=use_local))
    with running(instance, options, say) as up:
        demonstration.run(up.state, order)


@cli.command()
@click.option("-d", "--detach", is_flag=True, help="Run in the background; stop with ./tender down.")
@click.option("--port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(0, 65535), help="The gateway's port; 0 for any.")
@click.option(
    "--sandbox-port", default=DEFAULT_SANDBOX_PORT, show_default=True, type=click.IntRange(0, 65535), help="The sandbox provider's port."
)
@click.option("--log-level", default="INFO", show_default=True, type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]))
@click.option("--otlp", default=lambda: os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""), help="Send traces to this OTLP/HTTP endpoint.")
@_docker
@_local
def up(detach: bool, port: int, sandbox_port: int, log_level: str, otlp: str, use_docker: bool, use_local: bool) -> None:
    """Keep the whole system running."""
    instance = main_instance()
    if instance.stack() is not None:
        raise Failed("It is already up; ./tender status shows it, ./tender down stops it.")
    if detach:
        _detach(instance)
        return
    options = Options(
        choice=Choice(use_docker=use_docker, use_local=use_local),
        gateway_port=port,
        sandbox_port=sandbox_port,
        log_level=log_level,
        otlp_endpoint=otlp,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    with running(instance, options, say) as stack:
        _tell(instance)
        try:
            while all(process.running for process in stack.processes.values()):
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            return
        ended = next(name for name, process in stack.processes.items() if not process.running)
        raise Failed(f"{ended} ended by itself:\n{stack.processes[ended].tail()}")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _detach(instance: Instance) -> None:
    arguments = [a for a in sys.argv[1:] if a not in ("-d", "--detach")]
    log = instance.logs / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "deploy", *arguments], stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
    ends = time.monotonic() + UP_TIMEOUT_SECONDS
    with console.status("Starting ..."):
        while instance.stack() is None:
            if child.poll() is not None or time.monotonic() > ends:
                raise Failed(log.read_text(errors="replace").strip() or "It did not start.")
            time.sleep(POLL_SECONDS)
    _tell(instance)


def _tell(instance: Instance) -> None:
    state = instance.stack()
    assert state is not None, "it was just started"
    item = '{"product_variant_id":"0192f0c1-7e00-7000-8000-000000000001","name":"Mug","quantity":2,"unit_price":1250}'
    order = f'{{"currency":"EUR","items":[{item}]}}'
    click.echo(
        f"""
  gateway    {state.gateway_url}   (API documentation: {state.gateway_url}/docs)
  sandbox    {state.sandbox_url}
  admin key     {state.api_key}
  checkout key  {state.checkout_key}

Try it:

  curl -X PUT {state.gateway_url}/api/v1/admin/orders/0192f0c1-7e00-7000-8000-0000000000aa \\
       -H 'Authorization: Bearer {state.api_key}' -H 'Idempotency-Key: first' \\
       -H 'Content-Type: application/json' -d '{order}'

Stop with Ctrl-C, or ./tender down.
"""
    )


@cli.command()
def down() -> None:
    """Stop the system that is up; its data stays."""
    state = main_instance().stack()
    if state is None:
        raise Failed("Nothing is up.")
    os.kill(state.pid, signal.SIGTERM)
    ends = time.monotonic() + DOWN_TIMEOUT_SECONDS
    with console.status("Stopping ..."):
        while alive(state.pid):
            if time.monotonic() > ends:
                raise Failed(f"Process {state.pid} has not stopped after {DOWN_TIMEOUT_SECONDS:.0f} s.")
            time.sleep(POLL_SECONDS)
    click.echo("Stopped.")


@cli.command()
def status() -> None:
    """Show what is up and whether it is ready."""
    state = main_instance().stack()
    if state is None:
        raise Failed("Nothing is up; ./tender up starts it.")
    ready = True
    for name, url in state.urls.items():
        well = answers(url + ("/health/live" if name == "sandbox" else "/health/ready"))
        ready = ready and well
        click.echo(f"{name:10} {'ready' if well else 'NOT READY':10} {url}")
    if not ready:
        raise Failed("Not everything is ready; ./tender logs SERVICE tells more.")


@cli.command()
@click.argument("service")
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come.")
def logs(service: str, follow: bool) -> None:
    """Show the log of a service, or of a server.

    One of gateway, payments, sandbox, postgres, rabbitmq, epmd."""
    folder = main_instance().logs
    file = folder / f"{service}.log"
    if not file.exists():
        there = ", ".join(sorted(f.stem for f in folder.glob("*.log"))) or "none yet"
        raise Failed(f"There is no log of {service!r}; there are: {there}.")
    with file.open(errors="replace") as stream:
        while True:
            line = stream.readline()
            if line:
                click.echo(line, nl=False)
            elif follow:
                time.sleep(POLL_SECONDS)
            else:
                return


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> None:
    """Check and test everything.

    Arguments go to pytest and leave the checks away."""
    if not arguments:
        _check()
    instance = Instance(home(), f"test-{os.getpid()}")
    choice = Choice(use_docker="TENDER_TEST_DOCKER" in os.environ, use_local="TENDER_TEST_LOCAL" in os.environ)
    try:
        with servers(instance, choice, say) as found:
            env = {
                **os.environ,
                "TENDER_TEST_DATABASE_URL": found.database_url,
                "TENDER_TEST_AMQP_URL": found.amqp_url,
                "TENDER_TEST_MANAGEMENT_URL": found.management_url or "",
            }
            code = subprocess.run([sys.executable, "-m", "pytest", *(arguments or ["tests"])], cwd=ROOT, env=env, check=False).returncode
    finally:
        subprocess.run(["rm", "-rf", str(instance.folder)], check=False)
    sys.exit(code)


@cli.command()
def check() -> None:
    """Check format, lint, types and import contracts."""
    _check()


CHECKS = (
    ("format", ["ruff", "format", "--check", "."]),
    ("lint", ["ruff", "check", "."]),
    ("types", ["mypy"]),
    ("imports", ["lint-imports"]),
)


def _check() -> None:
    binaries = Path(sys.executable).parent
    wrong = []
    for name, command in CHECKS:
        started = time.monotonic()
        done = subprocess.run([str(binaries / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
        say(f"{name}: {'ok' if done.returncode == 0 else 'FAILED'} ({time.monotonic() - started:.1f} s)")
        if done.returncode != 0:
            wrong.append(f"{name}:\n{(done.stdout + done.stderr).strip()}")
    if wrong:
        raise Failed("\n\n".join(wrong))


@cli.command()
@click.argument("what", type=click.Choice(["authorize", "replay"]), default="authorize")
@click.option("--clients", default=16, show_default=True, type=click.IntRange(1, 256))
@click.option("--seconds", default=8.0, show_default=True, type=click.FloatRange(1, 600))
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench(what: str, clients: int, seconds: float, as_json: bool) -> None:
    """Measure a hot path beside a yardstick in the same run."""
    from tests.bench import run as run_bench

    figures = run_bench.run(what, clients=clients, seconds=seconds, home=home(), say=say)
    click.echo(json.dumps(figures, indent=2) if as_json else run_bench.table(figures))


_database = click.option("--database-url", envvar="DATABASE_URL", required=True, help="The database, as its owner.")


@cli.command()
@_database
@click.option("--amqp-url", envvar="AMQP_URL", required=True)
@click.option("--password", envvar="SERVICES_PASSWORD", required=True, help="The password of the services' login roles.")
def migrate(database_url: str, amqp_url: str, password: str) -> None:
    """Bring schemas, roles and queues up to date.

    A deployment's first job."""
    applied = asyncio.run(setup.prepare(database_url, amqp_url, password=password))
    click.echo("\n".join(applied) or "Nothing to do.")


@cli.command(name="topology")
@click.option("--amqp-url", envvar="AMQP_URL", required=True)
def declare_topology(amqp_url: str) -> None:
    """Declare exchanges and queues; what is there stays."""
    asyncio.run(topology.declare(amqp_url, setup.CONSUMERS))
    click.echo("Declared.")


@cli.group()
def keys() -> None:
    """API keys."""


@keys.command(name="create")
@click.option("--store", "store_id", type=click.UUID, default=STORE_ID, show_default="the local store")
@click.option("--environment", type=click.Choice([e.value for e in Environment]), default="sandbox", show_default=True)
@click.option("--role", type=click.Choice(["checkout", "admin", "operator"]), required=True)
@click.option("--name", required=True, help="Whose key this is.")
@click.option("--database-url", envvar="DATABASE_URL", help="The owner's database URL; the running stack's by default.")
def create_key(store_id: UUID, environment: str, role: str, name: str, database_url: str | None) -> None:
    """Make an API key and show it, once."""
    key = setup.create_key(_database_url(database_url), store_id=store_id, environment=Environment(environment), role=Role(role), name=name)
    click.echo(asyncio.run(key))


@cli.group()
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


def _database_url(given: str | None) -> str:
    if given:
        return given
    found = main_instance().servers()
    if found is None or found.database_url is None:
        raise Failed("Nothing is up; start it with ./tender up, or give --database-url.")
    return setup.with_database(found.database_url, "tender")


def main() -> None:
    """Run the command line; whatever goes wrong for a known reason is one clear message and a non-zero exit."""
    known: tuple[type[Exception], ...] = (
        Failed,
        MigrationRefused,
        topology.TopologyRefused,
        demonstration.DemoFailed,
        asyncpg.PostgresError,
        OSError,
    )
    for library in ("aio_pika", "aiormq"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # They tell what we tell, in many more lines.
    try:
        cli.main(prog_name="./tender", standalone_mode=False)
    except click.ClickException as wrong:
        _fail(f"{wrong.format_message()} (see ./tender --help)")
    except click.Abort:
        _fail("Stopped.")
    except KeyboardInterrupt:
        _fail("Stopped.")
    except known as wrong:
        _fail(str(wrong))


def _fail(text: str) -> Any:
    click.echo(f"tender: {text}", err=True)
    sys.exit(FAILED_EXIT)
