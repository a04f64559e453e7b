"""Processes that may not be root, where there are no user namespaces: they read what root's own folders keep from them."""

import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from deploy import processes
from deploy.processes import Failed, readable
from deploy.servers.postgres import BINARIES, LIBRARIES, PACKAGE, site


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Root without user namespaces, as in a container; returns the folder of temporary files."""
    monkeypatch.setattr(processes, "_namespaces_allowed", lambda: False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """Postgres's files in a folder that only its owner may enter."""
    home = tmp_path / "root"
    home.mkdir(mode=0o700)
    for part in (PACKAGE, LIBRARIES):
        shutil.copytree(site() / part, home / part)
    return home


class TestFilesInAClosedFolder:
    def test_are_copied_to_where_everybody_may_read_and_run_them(self, temporary: Path, closed: Path) -> None:
        place = readable(closed, PACKAGE, LIBRARIES)

        modes = [each.stat().st_mode for each in (place, *place.rglob("*"))]
        assert place.parent == temporary
        assert all(mode & stat.S_IROTH for mode in modes)
        assert all(mode & stat.S_IXOTH for mode in modes if mode & stat.S_IXUSR)
        # initdb needs a library beside the package.
        for program in ("initdb", "postgres"):
            assert subprocess.run([place / BINARIES / program, "--version"], check=False).returncode == 0

    def test_are_copied_once(self, temporary: Path, closed: Path) -> None:
        places = {readable(closed, PACKAGE, LIBRARIES) for _ in range(2)}

        assert {*temporary.iterdir()} == places
        assert len(places) == 1

    def test_are_not_run_from_another_users_copy(self, temporary: Path, closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        readable(closed, PACKAGE, LIBRARIES)
        monkeypatch.setattr(os, "getuid", lambda: 12_345)

        with pytest.raises(Failed, match="belongs to another user"):
            readable(closed, PACKAGE, LIBRARIES)


def test_files_that_everybody_may_read_are_used_where_they_are(temporary: Path) -> None:
    assert readable(Path("/"), "usr", "lib") == Path("/")
    assert list(temporary.iterdir()) == []
