"""What is read from the output of the demo and the suite, and how the table says it."""

import re

from tests.platforms.chroots import CommandResult
from tests.platforms.rows import ROWS
from tests.platforms.table import markdown
from tests.platforms.trials import RowResult, Verdict, suite_verdict

# As pytest 9 writes it, at its usual verbosity and with -q.
FAILING = """\
=========================== short test summary info ============================
FAILED tests/shared/test_money.py::test_sums[1.10 - EUR] - assert 1 == 2
ERROR tests/shared/test_vault.py::test_opens
============= 1 failed, 12 passed, 1 error in 75.21s (0:01:15) =================
"""
QUIET = "12 passed in 0.52s\n"


def _result(code: int | None, output: str) -> CommandResult:
    return CommandResult(code=code, seconds=80.4, output=output)


class TestSuite:
    def test_failures_are_counted_and_named(self) -> None:
        verdict = suite_verdict(_result(1, FAILING))

        assert verdict.text == "1 failed, 12 passed, 1 error, 80 s"
        assert verdict.failed_tests == ["tests/shared/test_money.py::test_sums[1.10 - EUR]", "tests/shared/test_vault.py::test_opens"]
        assert not verdict.passed

    def test_passes_without_decoration_are_counted(self) -> None:
        verdict = suite_verdict(_result(0, QUIET))

        assert (verdict.passed, verdict.text) == (True, "12 passed, 80 s")

    def test_failure_before_any_test_is_its_last_line(self) -> None:
        verdict = suite_verdict(_result(1, "types: FAILED (3.0 s)\ntender: types:\n\n"))

        assert (verdict.passed, verdict.text) == (False, "tender: types:")

    def test_too_long_is_a_failure_also_after_tests_passed(self) -> None:
        assert not suite_verdict(_result(None, QUIET)).passed


class TestTable:
    def test_shows_a_failure_in_one_line_of_as_many_cells(self) -> None:
        verdict = Verdict(passed=False, seconds=1.0, text="grep a | b failed")
        result = RowResult(name="sid/user/own", location="ordinary user", servers="own", log="", system="Debian sid", demo=verdict)

        heading, _, line, *_ = markdown([result]).splitlines()

        assert "**failed**: grep a \\| b failed" in line
        assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"\|", heading))
        assert not result.passed

    def test_every_row_has_a_name_of_its_own(self) -> None:
        assert len({row.name for row in ROWS}) == len(ROWS) == 18
