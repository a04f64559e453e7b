"""The command line: demo, up, down, status, logs, test, check, bench, soak, and the jobs an operator runs."""

import logging
import sys
from typing import Any

import asyncpg
import click

from deploy.broker_users import UsersRefused
from deploy.cli import attending, checking, letters, operating, running
from deploy.demo.shop import DemoFailed
from deploy.fx import RatesRefused
from deploy.keys import RotationStalled
from deploy.operator import Refused
from deploy.processes import Failed
from deploy.settlements import ReportRefused
from deploy.taxes import ImportRefused
from shared import topology
from shared.migrations import MigrationRefused
from shared.settings import SettingsRefused

FAILED_EXIT = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Tender: the provider layer of a shop.

    \b
    ./tender demo     watch an order go from its rates to its tax export over the real system
    ./tender up       keep the system running, with a key and a curl to paste
    ./tender test     run everything that has to pass
    """


for _command in (
    *(running.demo, running.up, running.down, running.status, running.logs),
    *(checking.test, checking.check, checking.bench, checking.soak),
    *(
        operating.migrate,
        operating.declare_topology,
        operating.make_broker_users,
        operating.keys,
        operating.stores,
        operating.tax,
        operating.exchange,
        operating.seed_orders,
    ),
    *(attending.reconcile, attending.outcomes, attending.webhook_events, attending.api, letters.dead_letters),
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line; whatever goes wrong for a known reason is one clear message and a non-zero exit."""
    known: tuple[type[Exception], ...] = (
        Failed,
        MigrationRefused,
        topology.TopologyRefused,
        ImportRefused,
        RatesRefused,
        RotationStalled,
        Refused,
        ReportRefused,
        UsersRefused,
        SettingsRefused,
        DemoFailed,
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
