"""Rules worth saying twice, each with its reason."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCES = [p for folder in ("services", "shared", "deploy") for p in (ROOT / folder).rglob("*.py")]
SQL_WORDS = re.compile(r"^\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH)\b", re.MULTILINE)
FORBIDDEN_NAMES = ("utils", "helpers", "manager", "base", "common", "core")


def _named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=_named)
class TestSource:
    def test_is_not_named_after_nothing(self, path: Path) -> None:
        """A file called utils is a thing not yet understood."""
        assert path.stem not in FORBIDDEN_NAMES

    def test_begins_with_what_it_is(self, path: Path) -> None:
        """A reader opens many files; the first line says whether this is the one."""
        assert ast.get_docstring(ast.parse(path.read_text()))

    def test_catches_everything_only_where_messages_jobs_and_groups_end(self, path: Path) -> None:
        """A swallowed bug is money lost without a trace."""
        caught = "except Exception" in path.read_text()
        assert not caught or _named(path) in ("shared/worker.py", "shared/schedule.py", "shared/database.py", "shared/bus/consumer.py")

    def test_knows_no_float_money(self, path: Path) -> None:
        """A float cannot hold ten cents."""
        assert not re.search(r"\b\w*(amount|price|total)\w*: float", path.read_text())

    def test_keeps_sql_in_the_store(self, path: Path) -> None:
        """Every statement of a service stands in one place, where its indexes can be checked."""
        name = _named(path)
        if name.startswith("services/") and "/store" not in name:
            texts = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            assert not [t for t in texts if SQL_WORDS.search(t)]


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
    def test_no_file_names_a_package_index(self) -> None:
        """The lock must work wherever packages come from."""
        lock = (ROOT / "requirements.lock").read_text()
        assert "--index-url" not in lock
        assert "://" not in lock

    def test_migrations_use_nothing_that_only_one_postgres_has(self) -> None:
        """Users run 15 to 18."""
        for file in ROOT.rglob("schema/*.sql"):
            assert "uuidv7(" not in file.read_text()
