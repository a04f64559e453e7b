"""Systems in folders: made by debootstrap, copied for each row, started with mounts and process ids of their own."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

PACKAGES = ("python3", "python3-venv", "git", "ca-certificates", "curl", "procps", "util-linux", "adduser")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEBOOTSTRAP_TIMEOUT_SECONDS = 1800
STOP_TIMEOUT_SECONDS = 30

# In mount and process namespaces of its own: whatever ends the first process ends them all, and the mounts go with them.
NAMESPACES = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child")
# The first process of a system mounts what every system has, and then only collects the ended ones.
FIRST_PROCESS = """
set -e
mount -t proc proc "$1/proc"
mount -t sysfs -o ro sysfs "$1/sys"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$1/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm"
echo ready
exec env --ignore-signal=CHLD sleep infinity
"""


class ChrootFailed(Exception):
    """A system could not be made or started; the text says why."""


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """What became of a command."""

    code: int | None
    seconds: float
    output: str

    @property
    def last_line(self) -> str:
        """The last line it wrote."""
        return next((line.strip() for line in reversed(self.output.splitlines()) if line.strip()), "(no output)")


class Chroot:
    """A started system."""

    def __init__(self, root: Path, log: Path, first: "subprocess.Popen[str]") -> None:
        self.root = root
        self._log = log
        self._first = first

    def run(
        self,
        command: Sequence[str],
        *,
        timeout_seconds: float,
        account: str = "root",
        folder: str = "/",
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a command to its end; its output goes to the row's log too. Its code is None if it took too long."""
        begun, before = time.monotonic(), self._log.stat().st_size
        with self._log.open("ab") as log:
            log.write(f"\n# {account}: {' '.join(command)}\n".encode())
            log.flush()
            before = log.tell()
            process = self.start(command, output=log, account=account, folder=folder, env=env)
            code = _wait(process, timeout_seconds)
        with self._log.open("rb") as log:
            log.seek(before)
            output = log.read().decode(errors="replace")
        return CommandResult(code=code, seconds=time.monotonic() - begun, output=output)

    def must(self, command: Sequence[str], *, timeout_seconds: float, account: str = "root", env: Mapping[str, str] | None = None) -> str:
        """Run a command that has to succeed, and give its output."""
        result = self.run(command, timeout_seconds=timeout_seconds, account=account, env=env)
        if result.code != 0:
            reason = f"took longer than {timeout_seconds:g} s" if result.code is None else f"failed: {result.last_line}"
            raise ChrootFailed(f"{' '.join(command[:3])} {reason}")
        return result.output

    def start(
        self, command: Sequence[str], *, output: BinaryIO, account: str, folder: str = "/", env: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start a command that ends with the system at the latest."""
        namespaces = Path(f"/proc/{self._first.pid}/ns")
        enter = ["nsenter", f"--mount={namespaces / 'mnt'}", f"--pid={namespaces / 'pid_for_children'}"]
        change = ["chroot", f"--userspec={account}:", str(self.root), "env", "-C", folder]
        # Not as arguments of env: every account of this machine could read those, and an index's URL may hold a password.
        variables = {"PATH": PATH, "LANG": "C.UTF-8", "TERM": "dumb", **(env or {})}
        return subprocess.Popen(
            [*enter, *change, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=variables,
            start_new_session=True,
        )

    def processes(self) -> dict[int, str]:
        """List what runs in it, but for the first process and the one that lists."""
        listed = self.run(["ps", "-eo", "pid=,args="], timeout_seconds=STOP_TIMEOUT_SECONDS).output
        lines = (line.split(maxsplit=1) for line in listed.splitlines())
        return {int(pid): arguments for pid, arguments in lines if pid != "1" and not arguments.startswith("ps -eo ")}


def _wait(process: "subprocess.Popen[bytes]", timeout_seconds: float) -> int | None:
    with suppress(subprocess.TimeoutExpired):
        return process.wait(timeout_seconds)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_SECONDS)
            break
    return None


@contextmanager
def started(root: Path, log: Path) -> Iterator[Chroot]:
    """Start a system; on leaving, all of its processes have ended and its mounts are gone."""
    command = [*NAMESPACES, "sh", "-c", FIRST_PROCESS, "sh", str(root)]
    with log.open("ab") as errors:
        first = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
    assert first.stdout is not None, "its output is a pipe"
    try:
        if first.stdout.readline() != "ready\n":
            raise ChrootFailed(f"no namespaces or mounts could be made; {log} says why")
        yield Chroot(root, log, first)
    finally:
        first.kill()
        first.wait()
        # Its first process holds the other end, and ends after all others.
        first.stdout.read()


def make_base(folder: Path, suite: str, mirror: str | None, log: Path) -> Path:
    """Make the system from which a suite's rows are copied, unless it is there."""
    base = folder / f"{suite}.base"
    # debootstrap removes this folder when it has succeeded.
    if base.exists() and not (base / "debootstrap").exists():
        return base
    partial = folder / f"{suite}.partial"
    remove(base)
    remove(partial)
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(partial), *([mirror] if mirror else [])]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*NAMESPACES, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = _wait(process, DEBOOTSTRAP_TIMEOUT_SECONDS)
        finally:
            process.kill()
    if code != 0:
        raise ChrootFailed(f"debootstrap of {suite} failed; {log} says why")
    partial.rename(base)
    return base


def copy_base(base: Path, root: Path) -> None:
    """Copy a base system."""
    remove(root)
    subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True)


def remove(root: Path) -> None:
    """Remove a system's files, unless something is still mounted in them."""
    mounts = re.findall(rf"^(?:\S+ ){{4}}({re.escape(str(root.resolve()))}/\S*)", Path("/proc/self/mountinfo").read_text(), re.MULTILINE)
    if mounts:
        raise ChrootFailed(f"{root} is not removed, because something is mounted in it: {', '.join(mounts)}")
    if root.exists():
        shutil.rmtree(root)
