"""SECURITY.md has every finding of the report once, and names only tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "SECURITY.md").read_text()
FINDINGS = [f"{letter}{number}" for letter, count in (("H", 6), ("M", 17), ("L", 15)) for number in range(1, count + 1)]
ROWS = re.findall(r"^\| ([HML]\d+) [^|]+\| ([^|]+) \| ([^|]*)\|$", PAGE, re.MULTILINE)


def test_every_finding_has_a_row_with_its_state() -> None:
    assert [name for name, _, _ in ROWS] == FINDINGS
    assert {state for _, state, _ in ROWS} <= {"mended", "in part", "open", "stays"}
    assert [name for name, state, reason in ROWS if state in ("mended", "stays") and not reason.strip()] == []


def test_every_test_that_it_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)

    assert named
    assert [path for path, _ in named if not (ROOT / path).exists()] == []
    assert [name for path, name in named if name and not re.search(rf"(def|class) {name}\b", (ROOT / path).read_text())] == []


def test_every_link_leads_somewhere() -> None:
    assert [link for link in re.findall(r"\]\(([^)#:]+)\)", PAGE) if not (ROOT / link).exists()] == []
