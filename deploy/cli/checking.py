"""Checking and measuring it: test, check, mutate, bench."""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path

import click
import msgspec
from rich.console import Console

from deploy import packages
from deploy.browser import chromium
from deploy.cli.terminal import home, say
from deploy.processes import Failed, private_folder
from deploy.servers import Choice, servers
from deploy.state import ROOT, Instance

# Tests wait more than they compute, so four run at a time on two cores; those of one file share their system and stay together.
# In the order of their names, for the slow ones (faults) begin early then and do not end alone.
WHOLE = ("tests", "-n", "4", "--dist", "loadfile", "--no-loadscope-reorder", "--durations=15")
BENCHES = (
    *("authorize", "capture", "refund", "replay", "checkout", "quote", "export", "growth", "webhooks", "worker", "telemetry"),
    *("reconcile", "letters"),
)
SOAK_MINUTES = 15.0
HOSTILE_MINUTES = 1.0


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> None:
    """Check and test everything.

    Arguments go to pytest and leave the checks away.
    """
    missing = _install()
    # First, so that a missing browser is said before the checks take their time.
    browser = chromium(say) if _need_browser(arguments) and "playwright" not in missing else ""
    if not arguments:
        _run_checks(missing)
    with _servers_of_tests(missing, browser) as env:
        # A plugin of a package that is of no use would end pytest before it begins.
        plugins = [f"-pno:{each.name}" for each in entry_points(group="pytest11") if each.dist and each.dist.name in missing]
        code = subprocess.run(
            [sys.executable, "-m", "pytest", *plugins, *(arguments or WHOLE)], cwd=ROOT, env={**os.environ, **env}, check=False
        ).returncode
    sys.exit(code)


@contextlib.contextmanager
def _servers_of_tests(missing: Mapping[str, str], browser: str) -> Iterator[dict[str, str]]:
    """Bring the servers that tests need, and say in variables where they are."""
    instance = Instance(home(), f"test-{os.getpid()}")
    choice = Choice(use_docker="TENDER_TEST_DOCKER" in os.environ, use_local="TENDER_TEST_LOCAL" in os.environ, durable=False)
    try:
        with servers(instance, choice, say) as found:
            yield {
                "TENDER_TEST_DATABASE_URL": found.database_url,
                "TENDER_TEST_AMQP_URL": found.amqp_url,
                "TENDER_TEST_MANAGEMENT_URL": found.management_url or "",
                "TENDER_TEST_CHROMIUM": browser,
                "TENDER_TEST_MISSING": msgspec.json.encode(missing).decode(),
            }
    finally:
        subprocess.run(["rm", "-rf", str(private_folder(instance)), str(instance.folder)], check=False)


def _need_browser(arguments: tuple[str, ...]) -> bool:
    """Tell whether what is to be tested looks at pages; whoever names other tests need not have a browser."""
    paths = [each for each in arguments if each.startswith("tests")]
    return not paths or any("console" in each or each.rstrip("/") == "tests" for each in paths)


@click.command()
def check() -> None:
    """Check format, lint, types and import contracts."""
    _run_checks(_install())


def _install() -> dict[str, str]:
    """Install what tests and checks need; returns the packages that are of no use here, and why."""
    locks = (packages.SERVERS, packages.DEVELOPMENT)
    missing = {name: why for lock in locks for name, why in packages.install(lock, say).items()}
    if "pytest" in missing:
        raise Failed(f"Without pytest nothing can be tested: {missing['pytest']}")
    for name, why in missing.items():
        say(f"The package {name} cannot be had here: {why}")
    return packages.unusable("".join(lock.read_text() for lock in locks), missing)


CHECKS = (
    ("format", ["ruff", "format", "--check", "."]),
    ("lint", ["ruff", "check", "."]),
    ("types", ["mypy"]),
    ("imports", ["lint-imports"]),
)


# What mypy cannot know of packages that are missing; where all are there, it is strict.
WITHOUT_PACKAGES = (
    "--no-warn-unused-ignores",
    "--allow-subclassing-any",
    *(f"--disable-error-code={code}" for code in ("import-not-found", "import-untyped", "untyped-decorator")),
)


def _run_checks(missing: Mapping[str, str]) -> None:
    binaries = Path(sys.executable).parent
    wrong = []
    for name, command in CHECKS:
        if not (binaries / command[0]).exists():
            say(f"{name}: left out, {command[0]} cannot be had here")
            continue
        options = WITHOUT_PACKAGES if missing and command[0] == "mypy" else ()
        started = time.monotonic()
        done = subprocess.run([str(binaries / command[0]), *command[1:], *options], cwd=ROOT, capture_output=True, text=True, check=False)
        say(f"{name}: {'ok' if done.returncode == 0 else 'FAILED'} ({time.monotonic() - started:.1f} s)")
        if done.returncode != 0:
            wrong.append(f"{name}:\n{(done.stdout + done.stderr).strip()}")
    if wrong:
        raise Failed("\n\n".join(wrong))


@click.command()
@click.option("--of", "under", multiple=True, help="Only mistakes in this file or folder; may be repeated.")
@click.option("--sample", "size", type=click.IntRange(1), help="So many, drawn at random; all of them otherwise.")
@click.option("--seed", default=None, type=int, help="The same seed draws the same mistakes; random by default.")
@click.option("--only", multiple=True, help="Only the mistakes of these keys, from an earlier list; may be repeated.")
@click.option("--map", "draw", is_flag=True, help="Find out again which tests reach which lines: one run of the suite under coverage.")
@click.option("--workers", default=3, show_default=True, type=click.IntRange(1, 64), help="How many mistakes are tried at a time.")
@click.option("--json", "into", type=click.Path(path_type=Path, dir_okay=False, writable=True), help="Write everything into this file.")
def mutate(
    under: tuple[str, ...], size: int | None, seed: int | None, only: tuple[str, ...], draw: bool, workers: int, into: Path | None
) -> None:
    """Make mistakes in the code, one at a time, and see whether a test notices.

    Exits with 1 when one was not noticed. How it works is in tests/mutation/README.md.
    """
    missing = _install()
    from tests.mutation import run as mutating

    folder = home() / "mutation"
    seed = random.randrange(1_000_000) if seed is None else seed
    with _servers_of_tests(missing, chromium(say)) as env:
        if draw or not (folder / "durations.xml").exists():
            mutating.draw_map(ROOT, folder, env)
        mutations = mutating.sample(ROOT, under, size=None if only else size, seed=seed)
        chosen = [each for each in mutations if not only or each.key in only]
        say(f"Making {len(chosen)} mistakes, one at a time, with --seed {seed} ...")
        tried = mutating.run(ROOT, folder, chosen, env, workers=workers, say=say)
    if into is not None:
        mutating.saved(tried, into)
    say(mutating.summary(tried))
    if any(each.verdict in mutating.MISSED for each in tried):
        raise Failed("Some mistakes were not noticed.")


@click.command()
@click.argument(
    "what",
    type=click.Choice(BENCHES),
    default="authorize",
)
@click.option("--clients", multiple=True, type=click.IntRange(1, 256), help="May be repeated; 1, 16 and 64, or 1, 32 and 128 for webhooks.")
@click.option("--rate", type=click.FloatRange(0.1, 10_000), help="Begin so many a second (an open loop) instead of waiting for answers.")
@click.option("--seconds", default=12.0, show_default=True, type=click.FloatRange(1, 600), help="How long each line is measured.")
@click.option("--orders", default=1_000_000, show_default=True, type=click.IntRange(2_000, 10_000_000), help="How long a past growth has.")
@click.option("--lines", default=1_000_000, show_default=True, type=click.IntRange(1_000, 10_000_000), help="How many taxes are exported.")
@click.option("--payments", default=100_000, show_default=True, type=click.IntRange(1_000, 10_000_000), help="How many are reconciled.")
@click.option("--letters", default=100_000, show_default=True, type=click.IntRange(1_000, 10_000_000), help="How many messages are dead.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False, writable=True), help="Draw them into this file.")
def bench(
    what: str,
    clients: tuple[int, ...],
    rate: float | None,
    seconds: float,
    orders: int,
    lines: int,
    payments: int,
    letters: int,
    as_json: bool,
    svg: Path | None,
) -> None:
    """Measure a path beside yardsticks in the same run."""
    _install()
    from tests.bench import report
    from tests.bench import run as measuring

    if what == "reconcile":
        from tests.bench import reconcile

        click.echo(msgspec.json.format(msgspec.json.encode(reconcile.run(payments, home=home(), say=say))).decode())
        return
    if what == "letters":
        from tests.bench import letters as mountain

        click.echo(msgspec.json.format(msgspec.json.encode(mountain.run(letters, home=home(), say=say))).decode())
        return
    clients = clients or ((1, 32, 128) if what == "webhooks" else (1, 16, 64))
    chosen = clients if rate is None else (1,)
    wish = measuring.Wish(what=what, clients=chosen, seconds=seconds, rate=rate, growth_orders=orders, export_lines=lines)
    figures = measuring.run(wish, home=home(), say=say)
    if svg is not None:
        svg.write_text(report.svg(figures))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(figures)).decode())
    else:
        Console(width=report.WIDTH_CHARACTERS).print(report.table(figures))
        click.echo(report.details(figures))


@click.command()
@click.option(
    "--minutes",
    default=None,
    type=click.FloatRange(0.1, 24 * 60),
    help="How long it lasts (15 by default); with --hostile, how long each attack lasts (1 by default).",
)
@click.option("--seed", default=None, type=int, help="The same seed breaks the same things in the same order; random by default.")
@click.option("--hostile", is_flag=True, help="One store attacks in every way of the security report while another is measured.")
@click.option("--only", multiple=True, help="With --hostile, attack only in this way (H1, M14 …); may be repeated.")
def soak(minutes: float | None, seed: int | None, hostile: bool, only: tuple[str, ...]) -> None:
    """Break things in pairs under load, and count what came of it.

    Exits with 1 when anything acknowledged was lost, happened twice, or surprised; with --hostile, when the other
    store's p99 more than doubled, one of its requests failed, or a service's memory grew.
    """
    _install()
    if hostile:
        _soak_hostile(HOSTILE_MINUTES if minutes is None else minutes, only)
        return
    from tests.faults import soak as soaking

    minutes = SOAK_MINUTES if minutes is None else minutes
    seed = random.randrange(1_000_000) if seed is None else seed
    say(f"Soaking for {minutes:g} minutes with --seed {seed} ...")
    counters = soaking.run(minutes=minutes, seed=seed, say=say)
    say(str(counters))
    if not counters.clean:
        raise Failed(f"The soak found something (--seed {seed}).")


def _soak_hostile(minutes: float, only: tuple[str, ...]) -> None:
    from tests.faults import attacks, hostile

    if unknown := set(only) - attacks.BY_NAME.keys():
        raise click.UsageError(f"There is no attack {', '.join(sorted(unknown))}; there are {', '.join(attacks.BY_NAME)}.")
    say(f"Attacking in {len(only or attacks.ATTACKS)} ways for {minutes:g} minutes each ...")
    report = hostile.run(attack_seconds=minutes * 60, only=only, say=say)
    click.echo(hostile.drawn(report))
    if report.findings:
        raise Failed("An attack was noticed by the other store, or by memory.")
