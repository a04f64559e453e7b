"""Tests that cannot fail are found by their shape: each rule with examples that it must find and examples that it must not."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
FILES = sorted(TESTS.rglob("test_*.py"))

Test = ast.FunctionDef | ast.AsyncFunctionDef
Rule = Callable[[Test], list[int]]


def each_test_of(source: str) -> Iterator[Test]:
    """Every test of a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Test) and node.name.startswith("test_"):
            yield node


def looks_at_nothing(test: Test) -> list[int]:
    """A test that neither asserts nor calls a function of the tests that does passes whatever happens, short of a crash."""
    return [] if _asserts(test, ASSERTING) else [test.lineno]


def _asserts(function: ast.AST, asserting: frozenset[str]) -> bool:
    nodes = list(ast.walk(function))
    if any(isinstance(node, ast.Assert | ast.Raise) for node in nodes):
        return True
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    # What is given to a call may be called by it, as by `asyncio.to_thread`.
    given = {argument.id for call in calls for argument in call.args if isinstance(argument, ast.Name)}
    return any(_called(call) in asserting for call in calls) or "run_state_machine_as_test" in given


def _asserting() -> frozenset[str]:
    """Names of what asserts: of pytest, Playwright, Hypothesis, and every function of the tests that comes to an assertion."""
    found = frozenset({"raises", "fail", "expect", "run_state_machine_as_test"})
    trees = [ast.parse(path.read_text()) for path in TESTS.rglob("*.py")]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, Test) and not node.name.startswith("test_")]
    while more := {each.name for each in functions if each.name not in found and _asserts(each, found)}:
        found |= more
    return found


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""


def takes_a_subset_of_nothing(test: Test) -> list[int]:
    """`{... for each in answer} <= {...}` holds for no answer at all: compare with ==, or say that there is one."""
    subsets = [node for node in ast.walk(test) if isinstance(node, ast.Assert) and _is_subset(node.test)]
    return [node.lineno for node in subsets if not _counted(test, node.test)]


def _is_subset(test: ast.expr) -> bool:
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.left, ast.SetComp)
        and isinstance(test.ops[0], ast.LtE)
        and not _of_constants(test.left)
    )


def _of_constants(made: ast.SetComp) -> bool:
    """Whether it is made of a constant or an enumeration of ours, which is not empty."""
    return any(isinstance(node, ast.Name) and node.id[0].isupper() for node in ast.walk(made.generators[0].iter))


def _counted(test: Test, subset: ast.expr) -> bool:
    """Whether another assertion looks at what the set is made of."""
    assert isinstance(subset, ast.Compare)
    assert isinstance(subset.left, ast.SetComp)
    source = subset.left.generators[0].iter
    names = {node.id for node in ast.walk(source) if isinstance(node, ast.Name)}
    others = [node.test for node in ast.walk(test) if isinstance(node, ast.Assert) and node.test is not subset]
    return any(isinstance(node, ast.Name) and node.id in names for other in others for node in ast.walk(other))


def repeats_without_end(test: Test) -> list[int]:
    """A loop that asks until the answer changes hangs where it never does: `tests.world.until` has a limit."""
    loops = [node for node in ast.walk(test) if isinstance(node, ast.While) and not isinstance(node.test, ast.Constant)]
    return [loop.lineno for loop in loops if _awaits(loop) and not _is_limited(loop)]


def _awaits(loop: ast.While) -> bool:
    return any(isinstance(node, ast.Await) for node in ast.walk(loop))


def _is_limited(loop: ast.While) -> bool:
    """Whether the loop asserts, breaks, raises, counts, or looks at a clock."""
    ends = (ast.Assert, ast.Break, ast.Raise, ast.Return, ast.AugAssign)
    names = {_called(node) for node in ast.walk(loop) if isinstance(node, ast.Call)}
    return bool(names & {"time", "monotonic"}) or any(isinstance(node, ends) for node in ast.walk(loop))


ASSERTING = _asserting()

RULES: list[Rule] = [looks_at_nothing, takes_a_subset_of_nothing, repeats_without_end]

# What is left, each with its reason; it only shrinks.
ALLOWED = {
    "payments/test_order_rules.py::test_that_was_quoted_is_fine": "the rule gives nothing and raises when it refuses",
    "shared/test_outbound.py::test_a_servers_address_is_public": "the rule gives nothing and raises when it refuses",
    "architecture/test_rules.py::test_all_look_alike": "a service without files would be found by every other test",
    "journeys/test_shipping.py::test_raced_one_label_is_bought": "one is bought, and there are as many refusals as others asked",
    "payments/test_shopper.py::test_an_approval_beside_another_card_leaves_one_hold": "both are right; what is held is compared",
}


def _id(value: object) -> str:
    return value.__name__ if callable(value) and hasattr(value, "__name__") else ""


def test_no_test_is_hollow() -> None:
    """A test that cannot fail for its name hides a broken promise; equal, so that the list of what is left only shrinks."""
    found = {
        f"{path.relative_to(TESTS)}::{test.name}"
        for path in FILES
        for test in each_test_of(path.read_text())
        for rule in RULES
        if rule(test)
    }

    assert found == set(ALLOWED)


FOUND = [
    (looks_at_nothing, "async def test_a():\n    await declare()\n    await declare()"),
    (looks_at_nothing, "async def test_a(world):\n    answer = await world.looked_up_only()\n    until = answer"),
    (takes_a_subset_of_nothing, "def test_a():\n    assert {e['p'] for e in events()} <= {'x'}"),
    (takes_a_subset_of_nothing, "def test_a():\n    found = events()\n    assert {e['p'] for e in found} <= {'x'}"),
    (repeats_without_end, "async def test_a():\n    b = await c()\n    while b.status == 409:\n        b = await c()\n    assert b"),
]
NOT_FOUND = [
    (looks_at_nothing, "def test_a():\n    assert declare() == 1"),
    (looks_at_nothing, "def test_a():\n    with pytest.raises(ValueError):\n        declare()"),
    (looks_at_nothing, "async def test_a():\n    await until(lambda: there())"),
    (takes_a_subset_of_nothing, "def test_a():\n    assert {e['p'] for e in events()} == {'x'}"),
    (takes_a_subset_of_nothing, "def test_a():\n    found = events()\n    assert found\n    assert {e['p'] for e in found} <= {'x'}"),
    (repeats_without_end, "async def test_a():\n    while not (b := await c()):\n        assert loop.time() < ends"),
    (repeats_without_end, "def test_a():\n    while n < 9:\n        n += 1"),
]


@pytest.mark.parametrize(("rule", "source"), FOUND, ids=_id)
def test_finds_a_test_that_cannot_fail(rule: Rule, source: str) -> None:
    """A rule that finds nothing proves nothing."""
    assert [bool(rule(each)) for each in each_test_of(source)] == [True]


@pytest.mark.parametrize(("rule", "source"), NOT_FOUND, ids=_id)
def test_leaves_a_test_that_can_fail(rule: Rule, source: str) -> None:
    """A rule that finds too much is soon switched off."""
    assert [rule(each) for each in each_test_of(source)] == [[]]
