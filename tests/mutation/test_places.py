"""The operators find the kinds of mistakes that went unnoticed once; each is named by its number in that report."""

from pathlib import Path

import pytest

from tests.mutation.places import Mutation, mutations_of
from tests.mutation.trying import parses


def found_in(tmp_path: Path, source: str) -> list[Mutation]:
    path = tmp_path / "code.py"
    path.write_text(source)
    found = mutations_of(tmp_path, path)
    assert all(parses(each, path.read_bytes()) for each in found)
    return found


@pytest.mark.parametrize(
    ("source", "before", "after"),
    [
        pytest.param("async def f():\n    await rows.delete(x)\n    await bus.publish(x)\n",
                     "await rows.delete(x)\n    await bus.publish(x)", "await bus.publish(x)\n    await rows.delete(x)", id="m05"),
        pytest.param("def must(row) -> bool:\n    return row.any\n", "row.any", "True", id="m06"),
        pytest.param("async def f():\n    await lease.renew()\n", "await lease.renew()", "pass", id="m08"),
        pytest.param('f("UPDATE t SET a = 1 WHERE id = $1 AND version = $2")', "version = $2", "(version = $2 OR true)", id="m14"),
        pytest.param('f("SELECT a FROM t WHERE id = $3 AND (store_id, environment) = ($1, $2)")', "(store_id, environment) = ($1, $2)",
                     "(store_id = $1 AND (environment = $2 OR true))", id="m17"),
        pytest.param("def f():\n    if ran_out:\n        raise Late\n", "ran_out", "False", id="m22"),
        pytest.param("def valid(self, day):\n    return self.to is None or day <= self.to\n", " <= ", " < ", id="m40"),
        pytest.param("e = Environment(autoescape=True)", "True", "False", id="m49"),
        pytest.param("kept = {k: v for k, v in facts.items() if k in KEPT}", "k in KEPT", "True", id="m50"),
        pytest.param("x = vault.seal(text, context=context)", "context", "type(context)()", id="m59"),
        pytest.param('f(f"DELETE FROM inbox WHERE at < now() - {AGE} LIMIT $1")', " < ", " <= ", id="m65"),
        pytest.param("async def f():\n    batch.audit('letter.discard', x)\n", "batch.audit('letter.discard', x)", "pass", id="m71"),
        pytest.param("key = stored(hashed(secret))", "hashed(secret)", "secret", id="m90"),
        pytest.param("@get('/x', before_request=ADMIN)\ndef f(): ...\n", "ADMIN", "None", id="a role"),
    ],
)  # fmt: skip
def test_kinds_that_went_unnoticed_are_made(tmp_path: Path, source: str, before: str, after: str) -> None:
    assert (before, after) in {(each.before, each.after) for each in found_in(tmp_path, source)}


def test_a_condition_ends_where_the_next_begins(tmp_path: Path) -> None:
    source = '''f("""
        SELECT a FROM t WHERE (a, b) = ($1, $2) AND at BETWEEN $3 AND $4
           AND id IN (SELECT c FROM d WHERE e = f) ORDER BY a LIMIT 5
    """)'''

    conditions = [each.before for each in found_in(tmp_path, source) if each.after == f"({each.before} OR true)"]

    assert conditions == ["(a, b) = ($1, $2)", "at BETWEEN $3 AND $4", "id IN (SELECT c FROM d WHERE e = f)", "e = f"]


def test_what_is_only_logged_is_left_alone(tmp_path: Path) -> None:
    assert found_in(tmp_path, "def f() -> None:\n    logger.info('x')\n    telemetry.say(logger, 1, 'x')\n") == []


def test_a_mistake_keeps_its_name_when_lines_above_change(tmp_path: Path) -> None:
    source = "def f(a):\n    if a < 1:\n        return 2\n"

    before, after = found_in(tmp_path, source), found_in(tmp_path, f"import os\n\n\n{source}")

    assert [each.key for each in before] == [each.key for each in after]
    assert len({each.key for each in before}) == len(before)
