"""Rules worth saying twice, each with its reason."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from shared.contracts.credentials import KINDS
from shared.errors import OWN_MEMBERS

ROOT = Path(__file__).parent.parent.parent
SOURCES = [p for folder in ("services", "shared", "deploy") for p in (ROOT / folder).rglob("*.py")]
LOCKS = sorted(ROOT.glob("requirements*.lock"))
LOCKED = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
DISTRIBUTIONS = packages_distributions()
CATCHING = (
    *("shared/worker.py", "shared/schedule.py", "shared/database.py", "shared/outbox.py", "shared/leases.py"),
    # Of the library's own.
    *("shared/bus/consumer.py", "shared/bus/connections.py"),
)
SQL_WORDS = re.compile(r"^\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH)\b", re.MULTILINE)
FORBIDDEN_NAMES = ("utils", "helpers", "manager", "base", "common", "core")


def _named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _imported_at_start(tree: ast.Module) -> set[str]:
    return {name for node in tree.body for name in _names(node)}


def _imported(tree: ast.Module) -> set[str]:
    return {name for node in ast.walk(tree) for name in _names(node)}


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    return [node.module.partition(".")[0]] if isinstance(node, ast.ImportFrom) and node.module else []


def _name(requirement: str) -> set[str]:
    return {re.split("[^a-z0-9-]", requirement)[0]}


def _is_locked(module: str) -> bool:
    """Tell whether a module is Python's, our own, or of a package in the run-time lock."""
    packages = {re.sub(r"[-_.]+", "-", name).lower() for name in DISTRIBUTIONS.get(module, [])}
    return module in sys.stdlib_module_names or module in ("shared", "services", "deploy") or bool(packages & LOCKED)


@pytest.mark.parametrize("path", SOURCES, ids=_named)
class TestSource:
    def test_is_not_named_after_nothing(self, path: Path) -> None:
        """A file called utils is a thing not yet understood."""
        assert path.stem not in FORBIDDEN_NAMES

    def test_begins_with_what_it_is(self, path: Path) -> None:
        """A reader opens many files; the first line says whether this is the one."""
        assert ast.get_docstring(ast.parse(path.read_text()))

    def test_catches_everything_only_where_loops_and_messages_end(self, path: Path) -> None:
        """A swallowed bug is money lost without a trace."""
        caught = "except Exception" in path.read_text()
        assert not caught or _named(path) in CATCHING

    def test_compares_no_parameter_with_a_bare_number(self, path: Path) -> None:
        """Postgres takes `$1 = 0` for a comparison of 32 bits, whatever else `$1` is used for; amounts have 64."""
        assert not re.search(r"\$\d+ *(=|<>|!=|<|>|<=|>=) *\d", path.read_text())

    def test_knows_no_float_money(self, path: Path) -> None:
        """A float cannot hold ten cents."""
        assert not re.search(r"\b\w*(amount|price|total)\w*: float", path.read_text())

    def test_keeps_sql_in_the_store(self, path: Path) -> None:
        """Every statement of a service stands in one place, where its indexes can be checked."""
        name = _named(path)
        if name.startswith("services/") and "/store" not in name:
            texts = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            assert not [t for t in texts if SQL_WORDS.search(t)]


# The sources that open HTTP sessions: for addresses that somebody else chose, for providers', and for the webhooks service; both of
# these are settings.
OPENING = frozenset({"shared/outbound.py", "shared/http_client.py", "services/gateway/handlers/ingest.py"})
ADDRESS_WORDS = ("url", "host", "address", "endpoint", "server")


def test_addresses_are_called_through_one_module() -> None:
    """A second way out would know nothing of which addresses may be called (issue 20, H4 and M5)."""
    opening = re.compile(r"ClientSession\(|httpx|urlopen|open_connection|create_connection|http\.client|TCPConnector\(")
    found = {_named(path) for path in SOURCES if not _named(path).startswith("deploy/") and opening.search(path.read_text())}

    assert {each for each in found if not each.startswith("shared/bus/")} == OPENING


def test_no_credential_says_where_a_provider_is() -> None:
    """A provider's address is the operator's to set; the one address in a credential is compared with, and never called (Square's)."""
    addresses = {
        (use.value, provider, field)
        for (use, provider), kind in KINDS.items()
        for field in (*kind.needed, *kind.optional)
        if any(word in field for word in ADDRESS_WORDS)
    }

    assert {(use, field) for use, _, field in addresses} == {("webhooks", "url")}


REFUSING = re.compile(r"^(class \w+\((Refusal|Invalid|NotFound|\w*Refused)\))", re.MULTILINE)
REFUSALS = frozenset(
    name.partition("(")[0].removeprefix("class ") for path in SOURCES for name, _ in REFUSING.findall(path.read_text())
) | {"Refusal", "Invalid", "NotFound", "Problem"}


def _facts_named(tree: ast.AST) -> set[str]:
    """Read the names of facts, as they stand in calls of refusals."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and _called(n) in REFUSALS]
    given: list[ast.AST] = [each for call in calls for each in (*call.args, *(keyword.value for keyword in call.keywords))]
    dicts = [n for each in given for n in ast.walk(each) if isinstance(n, ast.Dict)]
    return {key.value for found in dicts for key in found.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""


@pytest.mark.parametrize("path", SOURCES, ids=_named)
def test_no_fact_of_a_problem_hides_behind_its_own_member(path: Path) -> None:
    """F16: the payment's status was overwritten by HTTP's; RFC 9457, section 3.2 has extensions beside the members of 3.1."""
    assert _facts_named(ast.parse(path.read_text())) & OWN_MEMBERS == set()


def test_the_refusals_are_known() -> None:
    """A search that finds none proves nothing."""
    assert {"WrongState", "OrderLocked", "LabelFinal", "AlreadySettled", "TaxRefused"} <= REFUSALS


class TestServices:
    def test_all_look_alike(self) -> None:
        """Who knows one service knows them all."""
        allowed = {
            "__init__",
            "__main__",
            "app",
            "settings",
            "domain",
            "handlers",
            "store",
            "providers",
            "schema",
            "routes",
            "console",
            "__pycache__",
        }
        for service in (ROOT / "services").iterdir():
            if service.is_dir() and service.name != "__pycache__":
                assert {p.stem for p in service.iterdir()} <= allowed, service

    def test_every_message_names_its_service_and_version(self) -> None:
        """The tag is type, routing key and version at once."""
        from shared.contracts.payments import MESSAGES
        from shared.messages import type_of

        assert [t for t in map(type_of, MESSAGES) if not re.fullmatch(r"(background\.)?payments\.[a-z_]+\.v\d+", t)] == []


class TestProject:
    @pytest.mark.parametrize("lock", LOCKS, ids=_named)
    def test_no_lock_names_a_package_index(self, lock: Path) -> None:
        """A lock must work wherever packages come from."""
        assert "--index-url" not in lock.read_text()
        assert "://" not in lock.read_text()

    @pytest.mark.parametrize("lock", LOCKS, ids=_named)
    def test_every_package_is_pinned_with_hashes(self, lock: Path) -> None:
        """Nobody installs another file than the one that was tested."""
        entries = re.split(r"^(?=\S)", lock.read_text(), flags=re.MULTILINE)[1:]

        assert entries
        assert [entry for entry in entries if not re.match(r"[a-z0-9-]+==\S+ .*\\\n +--hash=sha256:[0-9a-f]{64}", entry)] == []

    def test_the_locks_hold_what_the_project_names_each_package_once(self) -> None:
        """`.ci/lock` is to be run after every change of the dependencies."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        named = {
            "requirements.lock": project["project"]["dependencies"],
            "requirements-servers.lock": project["dependency-groups"]["servers"],
            "requirements-dev.lock": project["dependency-groups"]["dev"],
        }
        locked = {lock.name: set(re.findall(r"^([a-z0-9-]+)==", lock.read_text(), re.MULTILINE)) for lock in LOCKS}
        shared = {name for one in locked for other in locked if one != other for name in locked[one] & locked[other]}

        # A package that running needs too is in the lock of running alone.
        assert [each for lock, names in named.items() for each in names if not _name(each) & (locked[lock] | LOCKED)] == []
        assert shared == set()

    def test_what_runs_imports_only_what_an_image_holds(self) -> None:
        """An image has the run-time lock alone; what a service or a job imports beyond it fails only there."""
        at_start, when_used = (
            {(_named(path), module) for path in SOURCES for module in modules(ast.parse(path.read_text())) if not _is_locked(module)}
            for modules in (_imported_at_start, _imported)
        )

        assert at_start == set()
        assert when_used == {("deploy/cli/checking.py", "tests"), ("deploy/servers/docker.py", "testcontainers")}

    def test_migrations_use_nothing_that_only_one_postgres_has(self) -> None:
        """Users run 15 to 18."""
        for file in ROOT.rglob("schema/*.sql"):
            assert "uuidv7(" not in file.read_text()
