"""The Postgres that is installed on this system, run privately, and the system in front of it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import click
import uvloop

from deploy import broker_users, setup
from deploy.processes import Failed, Process, private_folder, run, start, wait_until
from deploy.servers import rabbitmq
from deploy.state import Instance, free_port
from shared import telemetry
from shared.errors import Clear
from tests.world import PASSWORD, Place, World, a_world

START_TIMEOUT_SECONDS = 60.0
ADDRESS = "127.0.0.1"
OWNER = "tender"
DATABASE = "tender"


def binaries() -> Path:
    """Find the installed Postgres of the highest version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda file: int(file.parent.parent.name))
    server = found[-1] if found else Path(shutil.which("postgres") or "/nowhere/postgres")
    if not server.exists():
        raise Failed("No Postgres is installed; on Debian: apt-get install postgresql")
    return server.parent


class Postgres:
    """A server of our own from the installed programs."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        settings: Mapping[str, str] | None = None,
        access: str = f"host all all {ADDRESS}/32 scram-sha-256",
    ) -> None:
        self._instance = Instance(folder, name)
        self._folder = private_folder(self._instance)
        self._data = self._folder / "data"
        self._settings = settings or {}
        # What pg_hba.conf lets in, and how it has to prove itself.
        self._access = access
        self._binaries = binaries()
        self._password = PASSWORD
        self._env = {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {"LC_ALL": "C.UTF-8"}
        self.port = free_port()
        self.process: Process | None = None

    def url(self, query: str = "", *, host: str = ADDRESS, database: str = DATABASE) -> str:
        """Tell where it is, as its owner."""
        return f"postgresql://{OWNER}:{self._password}@{host}:{self.port}/{database}{query and f'?{query}'}"

    def initialise(self) -> None:
        """Make an empty server."""
        file = self._folder / "owner-password"
        file.write_text(self._password)
        self._run(
            "initdb", "-D", str(self._data), "-U", OWNER, "--auth=scram-sha-256", f"--pwfile={file}", "--locale=C.UTF-8", "-E", "UTF8"
        )
        (self._data / "pg_hba.conf").write_text(f"{self._access}\nhost replication all {ADDRESS}/32 scram-sha-256\n")

    def copy(self, primary: "Postgres") -> None:
        """Become a standby of another."""
        self._run(
            *("pg_basebackup", "-D", str(self._data), "-R", "-X", "stream", "-c", "fast"),
            *("-d", f"host={ADDRESS} port={primary.port} user={OWNER} password={self._password} application_name=standby"),
        )

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        settings = {"listen_addresses": ADDRESS, "unix_socket_directories": "", "max_connections": "100", **self._settings}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port), *options]
        self.process = start(
            "postgres", command, log=self._instance.logs / "postgres.log", env=self._env, never_root=True, stop_signal=signal.SIGINT
        )
        wait_until(self._ready, process=self.process, timeout_seconds=START_TIMEOUT_SECONDS, what="Postgres")

    def promote(self) -> None:
        """Make a standby the primary."""
        self._run("pg_ctl", "promote", "-D", str(self._data), "-w")

    def stop(self) -> None:
        """Stop it."""
        if self.process is not None:
            self.process.stop()

    def _ready(self) -> bool:
        command = [str(self._binaries / "pg_isready"), "-q", "-h", ADDRESS, "-p", str(self.port)]
        return subprocess.run(command, env=self._env, check=False, capture_output=True).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        run([str(self._binaries / program), *arguments], env=self._env, what=program, never_root=True)


@contextlib.asynccontextmanager
async def a_shop(folder: Path, *, owner_url: str, services_url: str, changes: Mapping[str, Any] | None = None) -> AsyncIterator[World]:
    """Run all five services with a broker of their own; the owner's database is made and migrated, the services connect elsewhere."""
    installation = rabbitmq.installed() or rabbitmq.downloaded(Instance(folder, "servers"), lambda _: None)
    broker = rabbitmq.Private(Instance(folder, "broker"), installation)
    try:
        broker.start()
        await setup.create_database(setup.with_database(owner_url, "postgres"), DATABASE)
        await setup.prepare(owner_url, broker.amqp_url, password=PASSWORD)
        await broker_users.make(broker.management_url, password=PASSWORD)
        await broker_users.grant(broker.management_url, "/")
        place = Place(database_url=services_url, amqp_url=broker.amqp_url, management_url=broker.management_url, vhost="/")
        same = changes or {}
        async with a_world(place, payments=same, gateway=same, webhooks=same, fulfillment=same, reconciler=same) as world:
            yield world
    finally:
        broker.stop()


async def pay(world: World) -> None:
    """Authorize and capture a payment."""
    captured = await (await world.a_payment()).capture()
    if captured.status != 201:
        raise Failed(f"a capture was answered {captured}")


def say(what: str, seen: str) -> None:
    """Show a line of what was seen."""
    click.echo(f"{what:<44} {seen}")


def main(script: Callable[[Path], Coroutine[Any, Any, None]]) -> None:
    """Run a script in a folder of its own; a known reason why it failed is one line."""
    # What the services say of servers that are away is meant, and would hide what is shown.
    telemetry.log_to_stderr("platforms", "CRITICAL")
    with tempfile.TemporaryDirectory() as folder:
        try:
            uvloop.run(script(Path(folder)))
        except Clear as failed:
            sys.exit(str(failed))
