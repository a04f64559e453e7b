"""Debian's own Postgres and RabbitMQ in a system, started as their own users on private ports."""

import base64
import json
import random
import secrets
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from urllib.request import Request, urlopen

from tests.platforms.chroots import Chroot, ChrootFailed

PACKAGES = ("postgresql", "rabbitmq-server")
START_TIMEOUT_SECONDS = 120
HTTP_TIMEOUT_SECONDS = 2
POLL_SECONDS = 0.2
# Below the range from which systems take the ports of outgoing connections.
PORTS = range(15_000, 32_000)
NAME = "tender"


@dataclass(frozen=True, kw_only=True)
class SystemServers:
    """Where Debian's servers are reached, and their versions."""

    env: dict[str, str]
    postgres: str
    rabbitmq: str


def start_servers(chroot: Chroot) -> SystemServers:
    """Start the installed servers; they end with the system."""
    password = secrets.token_hex(16)
    database_url, postgres = _start_postgres(chroot, password)
    amqp_url, management_url, rabbitmq = _start_rabbitmq(chroot, password)
    env = {"DATABASE_URL": database_url, "AMQP_URL": amqp_url, "RABBITMQ_MANAGEMENT_URL": management_url}
    return SystemServers(env=env, postgres=postgres, rabbitmq=rabbitmq)


def _start_postgres(chroot: Chroot, password: str) -> tuple[str, str]:
    port = _free_port()
    cluster = min((chroot.root / "etc/postgresql").glob("*/main")).parent.name
    for command in (
        ["pg_conftool", cluster, "main", "set", "port", str(port)],
        ["pg_ctlcluster", cluster, "main", "start"],
        ["psql", "-qp", str(port), "-c", f"CREATE ROLE {NAME} SUPERUSER LOGIN PASSWORD '{password}'"],
        ["createdb", "-p", str(port), "-O", NAME, NAME],
    ):
        chroot.must(command, account="postgres", timeout_seconds=START_TIMEOUT_SECONDS)
    shown = chroot.must(["psql", "-p", str(port), "-Atc", "SHOW server_version"], account="postgres", timeout_seconds=START_TIMEOUT_SECONDS)
    return f"postgresql://{NAME}:{password}@127.0.0.1:{port}/{NAME}", shown.split()[0]


def _start_rabbitmq(chroot: Chroot, password: str) -> tuple[str, str, str]:
    amqp, management, distribution, epmd = (_free_port() for _ in range(4))
    settings = chroot.root / "etc/rabbitmq"
    (settings / "enabled_plugins").write_text("[rabbitmq_management].\n")
    (settings / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{amqp}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n"
        f"default_user = {NAME}\ndefault_pass = {password}\ndisk_free_limit.absolute = 50MB\n"
    )
    env = {
        "HOME": "/var/lib/rabbitmq",
        "RABBITMQ_NODENAME": f"{NAME}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    with (chroot.root / "var/log/rabbitmq-server.log").open("wb") as output:
        process = chroot.start(["/usr/lib/rabbitmq/bin/rabbitmq-server"], output=output, account="rabbitmq", env=env)
    version = _rabbitmq_version(process, f"http://127.0.0.1:{management}/api/overview", password)
    return f"amqp://{NAME}:{password}@127.0.0.1:{amqp}/", f"http://{NAME}:{password}@127.0.0.1:{management}", version


def _rabbitmq_version(process: "subprocess.Popen[bytes]", url: str, password: str) -> str:
    token = base64.b64encode(f"{NAME}:{password}".encode()).decode()
    request = Request(url, headers={"Authorization": f"Basic {token}"})
    ends = time.monotonic() + START_TIMEOUT_SECONDS
    while process.poll() is None and time.monotonic() < ends:
        with suppress(OSError), urlopen(request, timeout=HTTP_TIMEOUT_SECONDS) as response:
            return str(json.load(response)["rabbitmq_version"])
        time.sleep(POLL_SECONDS)
    raise ChrootFailed("rabbitmq-server did not start; var/log/rabbitmq-server.log in the system says why (--keep keeps it)")


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
