"""The script that finds or makes the Python environment: it makes it again when the Python it was made with is gone."""

import os
import subprocess
from pathlib import Path

import pytest

from deploy.state import ROOT

# Stands for each Python: it makes environments that hold itself, installs nothing, and says what it is asked to run.
PYTHON = """#!/bin/sh
case "$*" in
    -V) echo "Python {version}" ;;
    "-m venv "*) mkdir -p "$3/bin" "$3/lib/python{series}" && cp "$0" "$3/bin/python" ;;
    "-m deploy "*) echo "Python {version} runs $3" ;;
esac
"""
LOCK_DIGEST = subprocess.run("cksum <requirements.lock", shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which there is only Python 3.14."""
    folder = tmp_path / "bin"
    folder.mkdir()
    _write(folder / "python3.14", PYTHON.format(version="3.14.2", series="3.14"))
    _write(folder / "uv", "#!/bin/sh\n")
    for name in ("cat", "cksum", "cp", "dirname", "mkdir", "rm", "sh"):
        (folder / name).symlink_to(f"/usr/bin/{name}")
    return str(folder)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


def _made_with(home: Path, *, series: str, python: str | None) -> Path:
    """Make an environment of a series whose Python is another version now, or gone; returns a file in it."""
    file = home / "venv" / "lib" / f"python{series}" / "kept"
    _write(file, "")
    (home / "venv" / "bin").mkdir()
    (home / "venv" / "lock-digest").write_text(LOCK_DIGEST)
    if python is None:
        (home / "venv" / "bin" / "python").symlink_to("/nowhere/python3.11")
    else:
        _write(home / "venv" / "bin" / "python", PYTHON.format(version=python, series=series))
    return file


def _tender(home: Path, path: str) -> str:
    env = {**os.environ, "TENDER_HOME": str(home), "PATH": path}
    return subprocess.run([ROOT / "tender", "status"], env=env, capture_output=True, text=True, check=True).stdout


def test_is_made_where_there_is_none(tmp_path: Path, path: str) -> None:
    assert _tender(tmp_path / "home", path) == "Python 3.14.2 runs status\n"


@pytest.mark.parametrize("python", [None, "3.14.2"], ids=["gone", "replaced"])
def test_is_made_again_when_its_python_is(tmp_path: Path, path: str, python: str | None) -> None:
    file = _made_with(tmp_path / "home", series="3.11", python=python)

    assert _tender(tmp_path / "home", path) == "Python 3.14.2 runs status\n"
    assert not file.exists()


def test_is_used_as_it_is_when_its_python_is_the_same(tmp_path: Path, path: str) -> None:
    file = _made_with(tmp_path / "home", series="3.11", python="3.11.9")

    assert _tender(tmp_path / "home", path) == "Python 3.11.9 runs status\n"
    assert file.exists()
