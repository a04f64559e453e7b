"""One row tried: its system made, its servers started, the demo and the suite run in a fresh clone."""

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.platforms import chroots, host, servers
from tests.platforms.chroots import Chroot, ChrootFailed, CommandResult
from tests.platforms.rows import PlatformRow

COPY_TIMEOUT_SECONDS = 300
COMMAND_TIMEOUT_SECONDS = 60
INSTALL_TIMEOUT_SECONDS = 900
DEMO_TIMEOUT_SECONDS = 600
SUITE_TIMEOUT_SECONDS = 5400
# What the demo started has ended with it; the system may need a moment to notice.
ENDING_TIMEOUT_SECONDS = 5
POLL_SECONDS = 0.2
USER_ID = "1000"
# Installing a server must not start it: the script does, as the server's user, on private ports.
NO_SERVICES = "#!/bin/sh\nexit 101\n"
SUMMARY = re.compile(r"^=*\s*((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s", re.MULTILINE)
FAILED_TEST = re.compile(r"^(?:FAILED|ERROR) (tests/[\w/.]+(?:::\w+)*(?:\[.*?\](?= - |$))?)", re.MULTILINE)
# Each prints a version where it is, and nothing where it is not.
PYTHON_VERSION = "{ .tender/venv/bin/python --version || python3 --version; } 2>/dev/null"
RABBITMQ_VERSION = "dpkg-deb --field .tender/broker/archives/rabbitmq-server_*.deb Version 2>/dev/null"
POSTGRES_VERSION = "find .tender -path '*/bin/postgres' -exec {} --version ';' -quit 2>/dev/null"
VERSION = re.compile(r"\d+(\.\d+)+")


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """What is tried in every row, and with what."""

    folder: Path
    repository: Path
    commit: str
    mirror: str | None
    demo: bool
    suite: bool
    pytest_arguments: Sequence[str]
    chromium: bool
    keep: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How the demo or the suite went."""

    passed: bool
    seconds: float
    text: str
    failed_tests: Sequence[str] = ()


@dataclass(kw_only=True)
class RowResult:
    """A line of the table."""

    name: str
    location: str
    servers: str
    log: str
    system: str
    python: str = ""
    rabbitmq: str = ""
    postgres: str = ""
    demo: Verdict | None = None
    suite: Verdict | None = None
    trouble: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.trouble and all(verdict is None or verdict.passed for verdict in (self.demo, self.suite))


def try_row(row: PlatformRow, plan: TrialPlan, say: Callable[[str], None]) -> RowResult:
    """Try a row; what goes wrong is in its result."""
    file = row.name.replace("/", "-")
    root, log = plan.folder / file, plan.folder / "logs" / f"{file}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    result = RowResult(name=row.name, location=row.location.described, servers=row.servers, log=str(log), system=f"Debian {row.suite}")
    say(f"{row.name}: log in {log}")
    try:
        base = chroots.make_base(plan.folder, row.suite, plan.mirror, log)
        chroots.copy_base(base, root)
        host.copy_configuration(root)
        result.system = _system_name(root)
        with chroots.started(root, log) as chroot:
            _try(row, plan, chroot, result, say)
    except (ChrootFailed, OSError, subprocess.SubprocessError) as wrong:
        result.trouble = str(wrong)
        say(f"{row.name}: {wrong}")
    finally:
        if not plan.keep:
            chroots.remove(root)
    return result


def _system_name(root: Path) -> str:
    pretty = re.search(r'^PRETTY_NAME="(.*)"$', (root / "etc/os-release").read_text(), re.MULTILINE)
    return pretty[1].replace(" GNU/Linux", "") if pretty else "unknown"


def _try(row: PlatformRow, plan: TrialPlan, chroot: Chroot, result: RowResult, say: Callable[[str], None]) -> None:
    _install(row, plan, chroot)
    _clone(row, plan, chroot)
    env = {"HOME": row.location.home, "USER": row.location.account, **host.environment(chroot.root)}
    if row.servers == "system":
        say(f"{row.name}: starting Debian's Postgres and RabbitMQ")
        started = servers.start_servers(chroot)
        result.postgres, result.rabbitmq = started.postgres, started.rabbitmq
        env |= started.env

    def tender(*arguments: str, timeout_seconds: float) -> CommandResult:
        say(f"{row.name}: ./tender {' '.join(arguments)}")
        command = ["./tender", *arguments]
        return chroot.run(command, timeout_seconds=timeout_seconds, account=row.location.account, folder=row.location.clone, env=env)

    if plan.demo:
        before = chroot.processes()
        result.demo = _demo_verdict(tender("demo", timeout_seconds=DEMO_TIMEOUT_SECONDS), chroot, before)
        say(f"{row.name}: demo: {result.demo.text}")
    if plan.suite:
        result.suite = suite_verdict(tender("test", *plan.pytest_arguments, timeout_seconds=SUITE_TIMEOUT_SECONDS))
        say(f"{row.name}: suite: {result.suite.text}")
    result.python = _version(chroot, row, PYTHON_VERSION)
    result.rabbitmq = result.rabbitmq or _version(chroot, row, RABBITMQ_VERSION)
    result.postgres = result.postgres or _version(chroot, row, POSTGRES_VERSION)


def _install(row: PlatformRow, plan: TrialPlan, chroot: Chroot) -> None:
    (chroot.root / "usr/sbin/policy-rc.d").write_text(NO_SERVICES)
    (chroot.root / "usr/sbin/policy-rc.d").chmod(0o755)
    packages = [*(servers.PACKAGES if row.servers == "system" else ()), *(["chromium"] if plan.suite and plan.chromium else [])]
    env = {"DEBIAN_FRONTEND": "noninteractive", **host.environment(chroot.root)}
    chroot.must(["apt-get", "-q", "update"], timeout_seconds=INSTALL_TIMEOUT_SECONDS, env=env)
    if packages:
        command = ["apt-get", "-qy", "install", "--no-install-recommends", *packages]
        chroot.must(command, timeout_seconds=INSTALL_TIMEOUT_SECONDS, env=env)


def _clone(row: PlatformRow, plan: TrialPlan, chroot: Chroot) -> None:
    account, clone = row.location.account, row.location.clone
    target = str(chroot.root / clone[1:])
    if account != "root":
        chroot.must(["useradd", "--create-home", "--uid", USER_ID, account], timeout_seconds=COMMAND_TIMEOUT_SECONDS)
    for command in (
        ["git", "clone", "--quiet", "--no-hardlinks", "--no-checkout", str(plan.repository), target],
        ["git", "-C", target, "checkout", "--quiet", "--detach", plan.commit],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COPY_TIMEOUT_SECONDS)
        if done.returncode != 0:
            raise ChrootFailed(f"git failed: {done.stderr.strip()}")
    chroot.must(["chown", "-R", f"{account}:", clone], timeout_seconds=COMMAND_TIMEOUT_SECONDS)


def _demo_verdict(result: CommandResult, chroot: Chroot, before: dict[int, str]) -> Verdict:
    if result.code is None:
        return Verdict(passed=False, seconds=result.seconds, text=f"took longer than {DEMO_TIMEOUT_SECONDS} s")
    if result.code != 0:
        return Verdict(passed=False, seconds=result.seconds, text=result.last_line)
    left = _left_running(chroot, before)
    if left:
        return Verdict(passed=False, seconds=result.seconds, text=f"left running: {'; '.join(left)}")
    return Verdict(passed=True, seconds=result.seconds, text=f"{result.seconds:.1f} s")


def _left_running(chroot: Chroot, before: dict[int, str]) -> list[str]:
    # A server's own process for a connection of the demo is the server's, and begins with its name.
    own = {arguments.split(maxsplit=1)[0] for arguments in before.values()}
    ends = time.monotonic() + ENDING_TIMEOUT_SECONDS
    while True:
        left = [a for pid, a in chroot.processes().items() if pid not in before and a.split(maxsplit=1)[0] not in own]
        if not left or time.monotonic() > ends:
            return left
        time.sleep(POLL_SECONDS)


def suite_verdict(result: CommandResult) -> Verdict:
    """Read how the suite went from what it wrote."""
    failed = sorted(set(FAILED_TEST.findall(result.output)))
    summaries: list[str] = SUMMARY.findall(result.output)
    if result.code is None:
        text = f"took longer than {SUITE_TIMEOUT_SECONDS} s"
    else:
        text = f"{summaries[-1]}, {result.seconds:.0f} s" if summaries else result.last_line
    return Verdict(passed=result.code == 0, seconds=result.seconds, text=text, failed_tests=failed)


def _version(chroot: Chroot, row: PlatformRow, script: str) -> str:
    result = chroot.run(["sh", "-c", script], timeout_seconds=COMMAND_TIMEOUT_SECONDS, folder=row.location.clone)
    found = VERSION.search(result.output)
    return found[0] if found else "—"
