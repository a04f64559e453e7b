"""Where the processor's time went: by process, read from the system's own accounts."""

import os
from pathlib import Path

from deploy.processes import Process

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
NANOSECONDS = 1_000_000_000
SERVERS = (("postgres", "postgres"), ("rabbitmq", "beam"))


def seconds_by_process(processes: dict[str, Process]) -> dict[str, float]:
    """Add up the seconds each of ours has used, and those of the servers we run."""
    used = {name: seconds_of(process.pid) for name, process in processes.items()}
    children = _children_of(os.getpid())
    for name, marker in SERVERS:
        used[name] = sum(seconds_of(pid) for pid in children if marker in _command(pid))
    return used


def seconds_of(pid: int) -> float:
    """Tell how many seconds of a processor a process has used: by the scheduler's clock where there is one, else in ticks."""
    try:
        return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / NANOSECONDS or _ticks(pid)
    except OSError:
        return _ticks(pid)


def _ticks(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def _children_of(parent: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found, grown = {parent}, True
    while grown:
        more = {pid for pid, above in parents.items() if above in found} - found
        found, grown = found | more, bool(more)
    return found - {parent}
