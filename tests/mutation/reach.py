"""Which tests reach a line, from one run of the suite under coverage, and which of them to run for a mistake there."""

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import msgspec
from coverage.numbits import numbits_to_nums

# What one mistake may cost at most, by the durations that were measured; opening a module (its system, its database) counts too.
BUDGET_SECONDS = 25.0
MODULE_SECONDS = 3.0


class Reach(msgspec.Struct, frozen=True):
    """What the map knows: the tests that ran each line of each file, how long each test takes, and how many lines it runs."""

    lines: dict[str, dict[int, list[str]]]
    seconds: dict[str, float]
    breadth: dict[str, int]

    def of(self, path: str, first: int, last: int) -> list[str]:
        """Name the tests that run any of some lines of a file."""
        known = self.lines.get(path, {})
        return sorted({test for line in range(first, last + 1) for test in known.get(line, ())})

    def chosen(self, tests: Sequence[str]) -> list[str]:
        """Choose the tests to run for a mistake that they reach: those that look at little else first, as far as the time goes."""
        picked: list[str] = []
        modules: set[str] = set()
        left = BUDGET_SECONDS
        for test in sorted(tests, key=lambda each: (self.breadth.get(each, 0) * (1 + self.seconds.get(each, 0.0)), each)):
            module = test.partition("::")[0]
            cost = self.seconds.get(test, 0.1) + (0 if module in modules else MODULE_SECONDS)
            if picked and cost > left:
                continue
            picked.append(test)
            modules.add(module)
            left -= cost
        return picked


def read(root: Path, coverage: Path, durations: Path) -> Reach:
    """Read what a run of the suite left: coverage's database with a context for each test, and the durations as JUnit's XML."""
    lines: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    breadth: dict[str, int] = defaultdict(int)
    with sqlite3.connect(f"file:{coverage}?mode=ro", uri=True) as db:
        rows = db.execute(
            "SELECT f.path, c.context, b.numbits FROM line_bits b JOIN file f ON f.id = b.file_id JOIN context c ON c.id = b.context_id"
        )
        for path, context, numbits in rows:
            test, _, phase = context.partition("|")
            if not phase:
                continue
            numbers = numbits_to_nums(numbits)
            breadth[test] += len(numbers)
            known = lines[Path(path).relative_to(root).as_posix()]
            for number in numbers:
                if test not in known[number]:
                    known[number].append(test)
    cases = ElementTree.parse(durations).iter("testcase")
    seconds = {_node(case.attrib["classname"], case.attrib["name"]): float(case.attrib["time"]) for case in cases}
    return Reach(lines={path: dict(known) for path, known in lines.items()}, seconds=seconds, breadth=dict(breadth))


def _node(classname: str, name: str) -> str:
    """Name a test of JUnit's XML as pytest does."""
    parts = classname.split(".")
    classes = [part for part in parts if part[:1].isupper()]
    module = "/".join(parts[: len(parts) - len(classes)]) + ".py"
    return "::".join((module, *classes, name))
