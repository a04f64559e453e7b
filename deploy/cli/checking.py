"""Checking and measuring it: test, check, bench."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import click

from deploy.cli.terminal import home, say
from deploy.processes import Failed
from deploy.servers import Choice, servers
from deploy.stack import ROOT
from deploy.state import Instance


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> None:
    """Check and test everything.

    Arguments go to pytest and leave the checks away.
    """
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


@click.command()
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


@click.command()
@click.argument("what", type=click.Choice(["authorize", "replay"]), default="authorize")
@click.option("--clients", default=16, show_default=True, type=click.IntRange(1, 256))
@click.option("--seconds", default=8.0, show_default=True, type=click.FloatRange(1, 600))
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench(what: str, clients: int, seconds: float, as_json: bool) -> None:
    """Measure a hot path beside a yardstick in the same run."""
    from tests.bench import run as run_bench

    figures = run_bench.run(what, clients=clients, seconds=seconds, home=home(), say=say)
    click.echo(json.dumps(figures, indent=2) if as_json else run_bench.table(figures))


@click.command()
@click.option("--minutes", default=15.0, show_default=True, type=click.FloatRange(0.1, 24 * 60))
@click.option("--seed", default=None, type=int, help="The same seed breaks the same things in the same order; random by default.")
def soak(minutes: float, seed: int | None) -> None:
    """Break things in pairs under load, and count what came of it.

    Exits with 1 when anything acknowledged was lost, happened twice, or surprised.
    """
    from tests.faults import soak as soaking

    seed = random.randrange(1_000_000) if seed is None else seed
    say(f"Soaking for {minutes:g} minutes with --seed {seed} ...")
    counters = soaking.run(minutes=minutes, seed=seed, say=say)
    say(str(counters))
    if not counters.clean:
        raise Failed(f"The soak found something (--seed {seed}).")
