"""Child processes that never outlive us: started with their own log, told to stop, and gone also after kill -9."""

import ctypes
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from deploy.state import Instance
from shared.errors import Clear

# Longer than a service may take by its own limits (53 s).
STOP_TIMEOUT_SECONDS = 60.0
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.02
LOG_TAIL_LINES = 12

_libc = ctypes.CDLL(None, use_errno=True)


class Failed(Clear):
    """Something could not be started or found; the text is for the person at the terminal."""


class Process:
    """One child process of ours."""

    def __init__(self, name: str, popen: "subprocess.Popen[bytes]", log: Path, stop_signal: int) -> None:
        self.name = name
        self.pid = popen.pid
        self.log = log
        self._popen = popen
        self._stop_signal = stop_signal

    @property
    def running(self) -> bool:
        """Whether it is still there."""
        return self._popen.poll() is None

    def stop(self) -> None:
        """Tell it to stop, wait, and only then use force."""
        if self.running:
            self._popen.send_signal(self._stop_signal)
            try:
                self._popen.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def send_group(self, number: int) -> None:
        """Send it and everything it started a signal."""
        os.killpg(self.pid, number)

    def wait(self, timeout_seconds: float) -> int:
        """Wait for its end and tell its exit code."""
        return self._popen.wait(timeout_seconds)

    def tail(self) -> str:
        """Read the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


def start(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    never_root: bool = False,
    stop_signal: int = signal.SIGTERM,
) -> Process:
    """Start a child that gets a signal when we die."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if never_root and os.geteuid() == 0:
        _namespaces_allowed()

    def prepare() -> None:
        os.setpgrp()
        if never_root and os.geteuid() == 0:
            _leave_root()
        # After the change of ids, which would clear it.
        _libc.prctl(PR_SET_PDEATHSIG, stop_signal, 0, 0, 0)

    with log.open("ab") as output:
        try:
            popen = subprocess.Popen(
                list(command), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=dict(env), preexec_fn=prepare
            )
        except (OSError, subprocess.SubprocessError) as wrong:
            raise Failed(f"{name} could not be started: {wrong}") from wrong
    return Process(name, popen, log, stop_signal)


def run(command: Sequence[str], *, env: Mapping[str, str], what: str, never_root: bool = False) -> None:
    """Run a command to its end; its output is shown only when it fails."""

    def prepare() -> None:
        if never_root and os.geteuid() == 0:
            _leave_root()

    done = subprocess.run(list(command), capture_output=True, text=True, env=dict(env), preexec_fn=prepare, check=False)
    if done.returncode != 0:
        raise Failed(f"{what} failed: {(done.stderr or done.stdout).strip()[-1500:]}")


NOBODY = 65534


@cache
def _namespaces_allowed() -> bool:
    child = os.fork()
    if child == 0:
        os._exit(0 if _libc.unshare(CLONE_NEWUSER) == 0 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _leave_root() -> None:
    # Postgres refuses root. In a user namespace of its own the same files belong to an ordinary user.
    if _namespaces_allowed():
        uid, gid = os.getuid(), os.getgid()
        _libc.unshare(CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"1000 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"1000 {gid} 1")
    else:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def private_folder(instance: Instance) -> Path:
    """Find a folder for the files of a process that may not be root."""
    if os.geteuid() != 0 or _namespaces_allowed():
        return instance.folder
    # As nobody it cannot look into root's folders, so it gets one where everybody may pass.
    folder = Path(tempfile.gettempdir()) / f"tender-{hashlib.sha256(str(instance.folder).encode()).hexdigest()[:16]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    give_away(folder)
    return folder


def readable(folder: Path, *parts: str) -> Path:
    """Find where a process that may not be root can read parts of a folder: there, or in a copy where root's folders keep it out."""
    whole = folder / parts[0]
    if os.geteuid() != 0 or _namespaces_allowed() or all(each.stat().st_mode & stat.S_IXOTH for each in (whole, *whole.parents)):
        return folder
    # Another version of the files is another copy.
    digest = hashlib.sha256(f"{whole} {whole.stat().st_mtime_ns}".encode()).hexdigest()[:16]
    copy = Path(tempfile.gettempdir()) / f"tender-copy-{digest}"
    if not copy.exists():
        _copy(folder, parts, to=copy)
    if copy.lstat().st_uid != os.getuid():
        raise Failed(f"{copy} belongs to another user, so nothing in it is run; remove it.")
    return copy


def _copy(folder: Path, parts: Sequence[str], *, to: Path) -> None:
    partial = Path(tempfile.mkdtemp(prefix="tender-partial-"))
    for part in parts:
        shutil.copytree(folder / part, partial / part, symlinks=True)
    for each in (partial, *partial.rglob("*")):
        if not each.is_symlink():
            each.chmod(each.stat().st_mode | (0o055 if each.stat().st_mode & stat.S_IXUSR else 0o044))
    try:
        partial.rename(to)
    except OSError:  # Another process was faster.
        shutil.rmtree(partial)


def give_away(path: Path) -> None:
    """Let a file belong to the user a process becomes that may not be root."""
    if os.geteuid() == 0 and not _namespaces_allowed():
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def wait_until(condition: Callable[[], bool], *, process: Process, timeout_seconds: float, what: str) -> None:
    """Wait for a condition while a process lives; tell the end of its log when it does not come."""
    ends = time.monotonic() + timeout_seconds
    while not condition():
        if not process.running:
            raise Failed(f"{process.name} ended while {what} was awaited. The end of {process.log}:\n{process.tail()}")
        if time.monotonic() > ends:
            raise Failed(f"{what} took longer than {timeout_seconds:.0f} s. The end of {process.log}:\n{process.tail()}")
        time.sleep(POLL_SECONDS)
