"""A browser for the tests of the console: one that is there, or one that this machine can get."""

import os
import shutil
import subprocess
from collections.abc import Callable

from deploy.processes import Failed

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL_TIMEOUT_SECONDS = 300
LOCK_TIMEOUT_SECONDS = 120
NOT_THERE = (
    "The tests of the console need Chromium, and there is none.\n"
    "  Debian, Ubuntu:  apt-get install chromium\n"
    "  others:          install Chromium or Chrome\n"
    "  elsewhere:       TENDER_CHROMIUM=/path/to/it\n"
)


def chromium(say: Callable[[str], None]) -> str:
    """Find Chromium, or install Debian's where we are root; returns its path. Raises Failed, saying what to do."""
    given = os.environ.get("TENDER_CHROMIUM")
    if given:
        return given
    found = _there()
    if found:
        return found
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Failed(NOT_THERE)
    say("Chromium: installing Debian's, for the tests of the console ...")
    said = _apt("install", "-y", "--no-install-recommends", "chromium")
    if not _there():
        _apt("update")
        said = _apt("install", "-y", "--no-install-recommends", "chromium")
    found = _there()
    if found is None:
        raise Failed(f"{NOT_THERE}(apt-get said: {said[-300:]})")
    return found


def _there() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def _apt(*arguments: str) -> str:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Another installation that is under way is waited for.
    command = ["apt-get", "-q", "-o", f"DPkg::Lock::Timeout={LOCK_TIMEOUT_SECONDS}", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_SECONDS, check=False)
    return (done.stdout + done.stderr).strip()
