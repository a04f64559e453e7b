"""The command line: demo, up, down, status, logs, test, check, bench, soak, and the jobs an operator runs."""

import logging
import sys
from importlib import import_module
from typing import Any

import click

from shared.connection_errors import one_line
from shared.errors import Clear
from shared.version import version

FAILED_EXIT = 1
# Where each command is; a module is read when one of its commands is typed, for what some need takes a second to read.
COMMANDS = {
    **{name: f"running:{name}" for name in ("demo", "up", "down", "status", "logs")},
    **{name: f"checking:{name}" for name in ("test", "check", "mutate", "bench", "soak")},
    "migrate": "operating:migrate",
    "topology": "operating:declare_topology",
    "asyncapi": "operating:show_asyncapi",
    "settings": "operating:show_settings",
    "broker-users": "operating:make_broker_users",
    "keys": "operating:keys",
    "secrets": "operating:secrets_of_containers",
    "stores": "operating:stores",
    "tax": "operating:tax",
    "fx": "operating:exchange",
    "seed": "operating:seed_orders",
    "reconcile": "attending:reconcile",
    "outcomes": "attending:outcomes",
    "payments": "attending:payments",
    "webhooks": "attending:webhook_events",
    "api": "attending:api",
    "dlq": "letters:dead_letters",
    **{name: f"watching:{name}" for name in ("overview", "orders", "attention", "calls", "audit", "traces")},
}


class Lazily(click.Group):
    """A group whose commands are read when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command by its name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        found: click.Command = getattr(import_module(f"deploy.cli.{module}"), attribute)
        return found


@click.group(cls=Lazily, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), message="tender %(version)s")
def cli() -> None:
    """Tender: the provider layer of a shop.

    \b
    ./tender demo     watch an order go from its rates to its tax export over the real system
    ./tender up       keep the system running, with a key, a curl to paste, and a console at /console
    ./tender test     run everything that has to pass
    """


def main() -> None:
    """Run the command line; whatever goes wrong for a known reason is one clear message and a non-zero exit."""
    for library in ("aio_pika", "aiormq"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # They tell what we tell, in many more lines.
    try:
        cli.main(prog_name="./tender", standalone_mode=False)
    except click.ClickException as wrong:
        _fail(f"{wrong.format_message()} (see ./tender --help)")
    except (click.Abort, KeyboardInterrupt):
        _fail("Stopped.")
    except _known() as wrong:
        _fail(str(wrong) if isinstance(wrong, Clear) else one_line(wrong))


# What servers refuse, by library; a library that no command has read cannot have raised anything.
REFUSALS = {"asyncpg": ("PostgresError", "InterfaceError"), "aiormq": ("AMQPError",), "httpx": ("HTTPError", "InvalidURL")}


def _known() -> tuple[type[Exception], ...]:
    """Name what goes wrong for a known reason; any other exception is a bug and shows its traceback."""
    read = ((sys.modules[library], names) for library, names in REFUSALS.items() if library in sys.modules)
    return (Clear, OSError, *(getattr(library, name) for library, names in read for name in names))


def _fail(text: str) -> Any:
    click.echo(f"tender: {text}", err=True)
    sys.exit(FAILED_EXIT)
