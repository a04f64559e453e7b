"""The command line: python3 -m tests.platforms, as root, with the standard library alone."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

from tests.platforms import host
from tests.platforms.rows import ROWS, PlatformRow
from tests.platforms.table import markdown
from tests.platforms.trials import RowResult, TrialPlan, try_row

NEEDED = ("debootstrap", "git", "unshare", "nsenter", "setpriv", "chroot", "cp")
REPOSITORY = Path(__file__).parent.parent.parent
FAILED_EXIT = 1
USAGE_EXIT = 2
INTERRUPTED_EXIT = 130


def main() -> int:
    """Try the chosen rows and print the table; 1 when anything failed."""
    options = _arguments()
    rows = [row for row in ROWS if not options.only or any(fnmatch(row.name, pattern) for pattern in options.only)]
    if options.list:
        sys.stdout.write("".join(f"{row.name}\n" for row in rows))
        return 0
    complaint = _complaint(rows)
    if complaint:
        _say(complaint)
        return USAGE_EXIT
    # A polite end cleans up like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results: list[RowResult] = []
    code = 0
    try:
        plan = _plan(options)
        for row in rows:
            results.append(try_row(row, plan, _say))
    except KeyboardInterrupt:
        _say("Stopped; everything that was started has ended.")
        code = INTERRUPTED_EXIT
    sys.stdout.write(f"\n{markdown(results)}")
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    return code or (0 if all(result.passed for result in results) else FAILED_EXIT)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m tests.platforms", description="Try Tender on Debian systems made with debootstrap.")
    parser.add_argument("--list", action="store_true", help="print the rows' names and end")
    parser.add_argument(
        "--only", action="append", metavar="PATTERN", help="rows to try, such as 'trixie/*' or '*/user/own'; may be repeated"
    )
    parser.add_argument("--do", choices=("demo", "suite", "both"), default="both", help="what to run in each (default: %(default)s)")
    parser.add_argument(
        "--commit", default="HEAD", metavar="REF", help="what to clone (default: %(default)s); only what is committed counts"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/tmp/tender-platforms"), help="where systems and logs lie (default: %(default)s)"
    )
    parser.add_argument("--mirror", metavar="URL", help="the Debian mirror (default: the one in this machine's apt sources)")
    parser.add_argument("--no-chromium", dest="chromium", action="store_false", help="do not install Chromium for the suite")
    parser.add_argument("--keep", action="store_true", help="keep the rows' systems, stopped")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results into this file too")
    parser.add_argument("pytest_arguments", nargs="*", metavar="-- PYTEST ARGUMENTS", help="for ./tender test; none runs the whole suite")
    return parser.parse_args()


def _complaint(rows: Sequence[PlatformRow]) -> str:
    missing = [each for each in NEEDED if shutil.which(each) is None]
    if not rows:
        return "No row has such a name; --list prints them."
    if os.geteuid() != 0:
        return "This needs root, for debootstrap and chroot."
    return f"Missing on this machine: {', '.join(missing)}." if missing else ""


def _plan(options: argparse.Namespace) -> TrialPlan:
    command = ["git", "-C", str(REPOSITORY), "rev-parse", "--verify", f"{options.commit}^{{commit}}"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False)
    if commit.returncode != 0:
        raise SystemExit(f"There is no commit {options.commit}.")
    return TrialPlan(
        folder=options.folder.resolve(),
        repository=REPOSITORY,
        commit=commit.stdout.strip(),
        mirror=options.mirror or host.mirror(),
        demo=options.do in ("demo", "both"),
        suite=options.do in ("suite", "both"),
        pytest_arguments=options.pytest_arguments,
        chromium=options.chromium,
        keep=options.keep,
    )


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
