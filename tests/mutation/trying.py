"""Mistakes made one at a time in a copy of the repository, with the tests that reach them run there."""

import ast
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from tests.mutation.places import Mutation
from tests.mutation.reach import Reach

# A mistake may make a test wait for what never comes; it was noticed then, too.
TIMEOUT_SECONDS = 150.0
ALL_PASSED, SOME_FAILED = 0, 1
OUTPUT_MAX_CHARACTERS = 2_000


class Verdict(StrEnum):
    """What became of a mistake."""

    KILLED = "killed"
    SURVIVED = "survived"
    # No test runs its line.
    UNREACHED = "unreached"
    EQUIVALENT = "equivalent"


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A mistake, its verdict, and the test that noticed it, or those that did not."""

    mutation: Mutation
    verdict: Verdict
    tests: list[str]
    by: str = ""


def parses(mutation: Mutation, source: bytes) -> bool:
    """Tell whether the mistake is one that Python can read."""
    try:
        ast.parse(mutation.applied_to(source))
    except SyntaxError:
        return False
    return True


def try_all(
    root: Path, mutations: Sequence[Mutation], reach: Reach, env: Mapping[str, str], *, workers: int, say: Callable[[Tried], None]
) -> list[Tried]:
    """Try mistakes, several at a time, each in its own copy of what is committed and changed here."""
    todo: queue.SimpleQueue[Mutation] = queue.SimpleQueue()
    for mutation in mutations:
        todo.put(mutation)
    found: list[Tried] = []
    turn = threading.Lock()

    def work() -> None:
        with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
            copy = Path(folder)
            copied_to(root, copy)
            while True:
                try:
                    mutation = todo.get_nowait()
                except queue.Empty:
                    return
                tried = _try(copy, mutation, reach, env)
                with turn:
                    found.append(tried)
                    say(tried)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found, key=lambda each: (each.mutation.path, each.mutation.start))


def copied_to(root: Path, folder: Path) -> None:
    """Copy every file that git knows or would add."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True, check=True
    ).stdout
    subprocess.run(
        ["cp", "--parents", "-t", str(folder), *(n for n in names.decode().split("\0") if n and (root / n).exists())], cwd=root, check=True
    )


def _try(copy: Path, mutation: Mutation, reach: Reach, env: Mapping[str, str]) -> Tried:
    path = copy / mutation.path
    source = path.read_bytes()
    last = mutation.line + mutation.before.count("\n")
    tests = reach.chosen(reach.of(mutation.path, mutation.line, last))
    if not tests:
        return Tried(mutation=mutation, verdict=Verdict.UNREACHED, tests=[])
    path.write_bytes(mutation.applied_to(source))
    try:
        by = _noticed(copy, tests, env)
    finally:
        path.write_bytes(source)
    return Tried(mutation=mutation, verdict=Verdict.SURVIVED if by is None else Verdict.KILLED, tests=tests, by=by or "")


def _noticed(copy: Path, tests: Sequence[str], env: Mapping[str, str]) -> str | None:
    """Run tests until one fails; says which, or how the run ended otherwise."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-n", "0", "--no-header", "--tb=no", *tests]
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            env={**os.environ, **env, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"nothing came of it within {TIMEOUT_SECONDS:g} s"
    if done.returncode == ALL_PASSED:
        return None
    failed = next((line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
    return failed or f"pytest ended with {done.returncode}: {done.stdout[-OUTPUT_MAX_CHARACTERS:]}"
