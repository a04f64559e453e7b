"""The mutation run: a map of which tests reach which lines, a sample of mistakes, and a list of what became of each."""

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from tests.mutation import reach as reaching
from tests.mutation.places import Mutation, mutations_of, source_files
from tests.mutation.trying import Tried, Verdict, parses, try_all

UNDER = ("services", "shared")
# Tests that read the code instead of running it notice any change of its text.
NOT_MAPPED = ("tests/architecture", "tests/bench", "tests/platforms", "tests/mutation", "tests/faults/test_hostile.py")
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
BEFORE_MAX_CHARACTERS = 70
MISSED = frozenset({Verdict.SURVIVED, Verdict.UNREACHED})


def draw_map(root: Path, folder: Path, env: Mapping[str, str]) -> None:
    """Run the suite once under coverage, with each test as a context; takes about twice as long as the suite."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "coverage").unlink(missing_ok=True)
    options = [f"--cov={each}" for each in UNDER]
    left_out = [f"--ignore={each}" for each in NOT_MAPPED]
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "tests", "-q", "-n", "4", "--dist", "loadfile", "-p", "no:cacheprovider"),
            *(*options, "--cov-context=test", "--cov-report=", f"--junitxml={folder / 'durations.xml'}", *left_out),
        ],
        cwd=root,
        env={**os.environ, **env, "COVERAGE_FILE": str(folder / "coverage")},
        check=False,
    )


def sample(root: Path, under: Sequence[str], *, size: int | None, seed: int) -> list[Mutation]:
    """Draw mistakes at random from some files, or take all of them; the same seed draws the same ones."""
    every = [each for path in source_files(root, under or UNDER) for each in mutations_of(root, path)]
    random.Random(seed).shuffle(every)
    chosen: list[Mutation] = []
    for each in every:
        if size is not None and len(chosen) == size:
            break
        if parses(each, (root / each.path).read_bytes()):
            chosen.append(each)
    return chosen


def run(
    root: Path, folder: Path, mutations: Sequence[Mutation], env: Mapping[str, str], *, workers: int, say: Callable[[str], None]
) -> list[Tried]:
    """Try mistakes and say what became of each; needs the map."""
    reach = reaching.read(root, folder / "coverage", folder / "durations.xml")
    equivalent = known_equivalent()
    left = [each for each in mutations if each.key not in equivalent]
    tried = try_all(root, left, reach, env, workers=workers, say=lambda each: say(line_of(each)))
    same = [
        Tried(mutation=each, verdict=Verdict.EQUIVALENT, tests=[], by=equivalent[each.key]) for each in mutations if each.key in equivalent
    ]
    return [*tried, *same]


def known_equivalent() -> dict[str, str]:
    """Read which mistakes change nothing, and why."""
    lines = (line for line in EQUIVALENT.read_text().splitlines() if line and not line.startswith("#"))
    return {key: why.strip() for key, _, why in (line.partition(" ") for line in lines)}


def line_of(tried: Tried) -> str:
    """Write a mistake and its verdict in one line."""
    one = tried.mutation
    before, after = (" ".join(text.split())[:BEFORE_MAX_CHARACTERS] for text in (one.before, one.after))
    return f"{tried.verdict.value:9} {one.key} {one.path}:{one.line} {one.kind}: {before} -> {after}"


def summary(tried: Sequence[Tried]) -> str:
    """Write how many were noticed, in all and by kind, and then every one that was not."""
    counted = [each for each in tried if each.verdict is not Verdict.EQUIVALENT]
    killed = sum(each.verdict is Verdict.KILLED for each in counted)
    kinds = Counter(each.mutation.kind for each in counted)
    noticed = Counter(each.mutation.kind for each in counted if each.verdict is Verdict.KILLED)
    lines = [f"{killed} of {len(counted)} noticed ({len(tried) - len(counted)} change nothing)"]
    lines += [f"  {noticed[kind]:4} of {count:4}  {kind}" for kind, count in sorted(kinds.items())]
    missed = [each for each in counted if each.verdict in MISSED]
    return "\n".join([*lines, "", *map(line_of, missed)])


def saved(tried: Sequence[Tried], path: Path) -> None:
    """Write everything that is known of a run as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(list(tried))))
