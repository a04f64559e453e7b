"""Which version of Tender this is."""

import tomllib
from functools import cache
from pathlib import Path


@cache
def version() -> str:
    """Read the version from pyproject.toml, which every clone and every image has."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    return str(project["project"]["version"])
