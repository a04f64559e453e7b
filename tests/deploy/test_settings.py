"""The reference page of the settings is made from their declarations, and no environment variable is left out of it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import FieldInfo

from deploy import settings_reference
from deploy.setup import SERVICES
from deploy.state import ROOT
from shared.settings import EnvironmentSettings, SettingsRefused, has_file, load, meta_of, unit_of, variable_of

DOCS = ROOT / "deploy" / "docs"
PAGE = DOCS / "settings.md"
# It reads what the declarations name.
LOADER = ROOT / "shared" / "settings.py"
SOURCES = sorted(file for folder in ("shared", "services", "deploy") for file in (ROOT / folder).rglob("*.py") if file != LOADER)
SCRIPTS = (ROOT / "tender", ROOT / "deploy" / "compose.yaml")
# What every shell has, and the script's own.
NOT_SETTINGS = {"PATH", "PYTHONPATH"}
DECLARED: list[tuple[str, type[EnvironmentSettings], FieldInfo]] = [
    (f"{name}-{field.name}", kind, field)
    for name, kind in settings_reference.KINDS.items()
    for field in settings_reference.own_fields(kind)
]


def test_the_page_is_what_the_declarations_say() -> None:
    assert PAGE.read_text() == settings_reference.page() + "\n", "it differs; write it anew: ./tender settings > deploy/docs/settings.md"


@pytest.mark.parametrize(("kind", "field"), [each[1:] for each in DECLARED], ids=[each[0] for each in DECLARED])
def test_every_setting_says_what_it_does_and_in_which_unit(kind: type[EnvironmentSettings], field: FieldInfo) -> None:
    assert (meta_of(field).description or "").endswith(".")
    if isinstance(field.default, int | float) and not isinstance(field.default, bool):
        assert unit_of(field)


def test_every_variable_that_is_read_is_on_the_page() -> None:
    text = PAGE.read_text()
    read = {name for file in SOURCES for name in variables_of(file)} | {name for file in SCRIPTS for name in _of_script(file)}

    assert "TENDER_HOME" in read
    assert "SERVICES_PASSWORD" in read
    assert sorted(name for name in read - NOT_SETTINGS if f"`{name}`" not in text) == []


def test_every_variable_of_the_command_line_and_the_compose_file_is_read() -> None:
    python = {name for file in SOURCES for name in variables_of(file)} | set(_of_script(ROOT / "tender"))

    assert sorted({each.name for each in settings_reference.COMMAND_LINE} - python) == []
    assert {each.name for each in settings_reference.COMPOSE} == set(_of_script(ROOT / "deploy" / "compose.yaml"))


def test_the_readme_names_only_settings_that_there_are() -> None:
    section = (ROOT / "README.md").read_text().partition("\n## Settings\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", section))
    known = {variable_of(field) + end for _, kind, field in DECLARED for end in ("", "_FILE" if has_file(kind, field) else "")}

    assert "deploy/docs/settings.md" in section
    assert named
    assert sorted(named - known) == []


@pytest.mark.parametrize(
    "source",
    [
        "os.environ.get('NEW')",
        "environ['NEW']",
        "'NEW' in os.environ",
        "os.getenv('NEW', '')",
        "click.option('--new', envvar='NEW')",
        "os.environ.get(NEW)",
    ],
)
def test_a_variable_is_found_however_it_is_read(source: str, tmp_path: Path) -> None:
    file = tmp_path / "new.py"
    file.write_text(source)

    assert list(variables_of(file)) == ["NEW"]


@pytest.mark.parametrize(("kind", "field"), [each[1:] for each in DECLARED], ids=[each[0] for each in DECLARED])
def test_every_setting_can_be_set(kind: type[EnvironmentSettings], field: FieldInfo) -> None:
    default = "" if field.required else field.default
    text = str(getattr(default, "value", default)).lower() if isinstance(default, bool) else str(getattr(default, "value", default))

    try:
        load(kind, {variable_of(field): text or "sandbox"})
    except SettingsRefused as refused:
        # What is wrong may be that others are missing, or that this is no URL: not that nothing can be.
        wrong = [line for line in str(refused).splitlines() if line.startswith(f"{variable_of(field)}:")]
        assert text == "" or wrong == []


def variables_of(file: Path) -> Iterator[str]:
    """Every environment variable that a module reads; what names it, where that is not written out."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(attr="get", value=there), args=[key, *_]) if _is_environ(there):
                yield _named(key)
            case ast.Call(func=ast.Attribute(attr="getenv"), args=[key, *_]):
                yield _named(key)
            case ast.Subscript(value=there, slice=key) if _is_environ(there):
                yield _named(key)
            case ast.Compare(left=key, ops=[ast.In() | ast.NotIn()], comparators=[there]) if _is_environ(there):
                yield _named(key)
            case ast.keyword(arg="envvar", value=key):
                yield _named(key)


def _is_environ(node: ast.expr) -> bool:
    return ast.unparse(node) in ("os.environ", "environ")


def _named(key: ast.expr) -> str:
    return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else ast.unparse(key)


def _of_script(file: Path) -> list[str]:
    return re.findall(r"\$\{([A-Z_]+)", file.read_text())


def test_two_replicas_of_each_service_fit_a_stock_postgres() -> None:
    """postgresql.org/docs: max_connections is 100, of which superuser_reserved_connections keeps 3."""
    [connections] = [field.default for _, _, field in DECLARED if field.name == "database_connections"]

    assert 2 * len(SERVICES) * connections <= 100 - 3
    assert f"{connections} by default" in (DOCS / "connections.md").read_text()


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []
