"""The Python packages that only some commands need: installed from their locks when they are, as far as the index has them."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from deploy.processes import Failed
from deploy.state import ROOT

# Postgres and containers on this machine.
SERVERS = ROOT / "requirements-servers.lock"
# What the tests and checks need on top of both.
DEVELOPMENT = ROOT / "requirements-dev.lock"

INSTALL_TIMEOUT_SECONDS = 1200
# So many packages fail one after the other from the first on only where there is no index at all.
FAILED_MAX = 3
REASON_CHARACTERS = 200
ENTRY = re.compile(r"^(?P<name>[a-z0-9-]+)==[^\n]*(?:\n[ ]+[^\n]*)*", re.MULTILINE)
NEEDED_BY = re.compile(r"^ +# (?:via|  ) ?([a-z0-9-]+)", re.MULTILINE)


class _Installed(msgspec.Struct, frozen=True):
    """What was installed of a lock, and what could not be, by its name and why."""

    lock: int
    missing: dict[str, str]


def install(lock: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Install a lock unless that is done; returns which of its packages cannot be had here, and why. Those are tried again each time."""
    if sys.prefix == sys.base_prefix:
        return {}  # The system's Python, which is not ours to change: what is there is used as it is.
    if not lock.exists():
        raise Failed(f"{lock.name} is missing: this is not a clone of the repository, and a container's image runs the services only.")
    text, file = lock.read_text(), Path(sys.prefix) / f"{lock.name}.json"
    entries, digest, done = _entries(text), zlib.crc32(text.encode()), _read(file)
    if done is not None and done.lock == digest:
        if not done.missing:
            return {}
        missing = {name: why for name in done.missing if (why := _trouble(entries[name]))}
    else:
        say(f"Installing the packages of {lock.name} ...")
        missing = _one_by_one(entries) if _trouble(text) else {}
    file.write_bytes(msgspec.json.encode(_Installed(digest, missing)))
    importlib.invalidate_caches()
    return missing


def unusable(text: str, missing: Mapping[str, str]) -> dict[str, str]:
    """Tell which packages of a lock are of no use where some are missing, and why: those, and all that need them."""
    entries = _entries(text)
    found: dict[str, str] = {}
    more = dict(missing)
    while more:
        found |= more
        more = {
            name: f"it needs {needed}"
            for needed in found.keys() & entries.keys()
            for name in NEEDED_BY.findall(entries[needed])
            if name in entries and name not in found
        }
    return found


def _entries(text: str) -> dict[str, str]:
    return {entry["name"]: entry[0] for entry in ENTRY.finditer(text)}


def _one_by_one(entries: Mapping[str, str]) -> dict[str, str]:
    missing: dict[str, str] = {}
    for number, (name, entry) in enumerate(entries.items(), start=1):
        why = _trouble(entry)
        if why:
            missing[name] = why
        if len(missing) == number == FAILED_MAX:
            raise Failed(f"Packages cannot be installed (is there a package index?): {why}")
    return missing


def _trouble(requirements: str) -> str:
    """Install hashed requirements; returns what was wrong, if anything."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        options = ["--no-deps", "--require-hashes", "-r", file.name]
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *options]
        # uv is ten times as fast; where it cannot be had or cannot reach the index, pip can.
        uv = shutil.which("uv", path=f"{Path(sys.prefix) / 'bin'}:{os.environ.get('PATH', '')}")
        if uv and _run([uv, "pip", "install", "-q", "--python", sys.executable, *options]).returncode == 0:
            return ""
        done = _run(pip)
        return "" if done.returncode == 0 else _reason(done.stderr)


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "UV_SYSTEM_CERTS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=INSTALL_TIMEOUT_SECONDS, check=False)


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip says nothing"])[-1][:REASON_CHARACTERS]


def _read(file: Path) -> _Installed | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Installed)
    except (OSError, msgspec.DecodeError):
        return None
