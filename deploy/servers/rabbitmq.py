"""A RabbitMQ of our own: the installed scripts or downloaded packages, with ports, folders and an epmd of its own."""

import os
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import msgspec

from deploy.processes import Failed, Process, run, start, wait_until
from deploy.state import Instance, free_port, listening

START_TIMEOUT_SECONDS = 90.0
DOWNLOAD_TIMEOUT_SECONDS = 300
HTTP_TIMEOUT_SECONDS = 2
USER = "tender"
LOCAL_URL = "amqp://guest:guest@127.0.0.1:5672/"
LOCAL_VHOST = "tender"
DEBIAN_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

# What rabbitmq-server needs of Erlang on Debian and Ubuntu; the rest of its dependencies is on every such system.
PACKAGES = (
    "rabbitmq-server",
    "erlang-base",
    "erlang-asn1",
    "erlang-crypto",
    "erlang-eldap",
    "erlang-ftp",
    "erlang-inets",
    "erlang-mnesia",
    "erlang-os-mon",
    "erlang-parsetools",
    "erlang-public-key",
    "erlang-runtime-tools",
    "erlang-snmp",
    "erlang-ssl",
    "erlang-syntax-tools",
    "erlang-tftp",
    "erlang-tools",
    "erlang-xmerl",
)
NOT_THERE = (
    "RabbitMQ is missing and could not be had. Do one of these:\n"
    "  Debian, Ubuntu:  apt-get install rabbitmq-server\n"
    "  Fedora:          dnf install rabbitmq-server\n"
    "  macOS:           brew install rabbitmq\n"
    "  anywhere:        start Docker and use --docker, or set AMQP_URL to a broker of yours"
)


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """Where a broker's start script and its Erlang are."""

    server: Path
    erlang: Path | None


def installed() -> Installation | None:
    """Find an installed broker; the script itself, because the one on Debian's PATH changes user first."""
    if DEBIAN_SERVER.exists() and shutil.which("erl"):
        return Installation(server=DEBIAN_SERVER, erlang=None)
    found = shutil.which("rabbitmq-server")
    if found is None or shutil.which("erl") is None:
        return None
    return Installation(server=Path(found).resolve(), erlang=None)


def downloaded(instance: Instance, say: Callable[[str], None]) -> Installation:
    """Unpack the distribution's packages into a folder of ours; no root is needed."""
    folder = instance.folder.parent / "broker"
    server = folder / "usr/lib/rabbitmq/bin/rabbitmq-server"
    if not (folder / "complete").exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            raise Failed(NOT_THERE)
        _unpack(folder, say)
    return Installation(server=server, erlang=folder / "usr/lib/erlang")


def _unpack(folder: Path, say: Callable[[str], None]) -> None:
    archives = folder / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    say("  downloading RabbitMQ and Erlang (about 20 MB) ...")
    command = ["apt-get", "download", *PACKAGES]
    done = subprocess.run(command, cwd=archives, capture_output=True, text=True, check=False, timeout=DOWNLOAD_TIMEOUT_SECONDS)
    if done.returncode != 0:
        raise Failed(f"{NOT_THERE}\n(apt-get download said: {(done.stderr or done.stdout).strip()[-300:]}; 'apt-get update' may help)")
    for archive in sorted(archives.glob("*.deb")):
        run(["dpkg", "-x", str(archive), str(folder)], env=os.environ, what=f"unpacking {archive.name}")
    erlang = folder / "usr/lib/erlang"
    script = erlang / "bin/erl"
    # The script names the place where the package would be installed.
    script.write_text(re.sub(r"^(\s*)ROOTDIR=.*$", rf"\1ROOTDIR={erlang}", script.read_text(), flags=re.MULTILINE))
    (folder / "complete").touch()


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """The ports a broker listens on, all of the loopback address."""

    amqp: int
    management: int
    distribution: int
    epmd: int


def local(say: Callable[[str], None]) -> str:
    """Give the URL of the broker on port 5672, in a vhost of ours if its control tool lets us make one."""
    tool = shutil.which("rabbitmqctl")
    for command in (["add_vhost", LOCAL_VHOST], ["set_permissions", "-p", LOCAL_VHOST, "guest", ".*", ".*", ".*"]):
        done = tool is not None and subprocess.run([tool, "-q", *command], capture_output=True, text=True, check=False)
        if not done or (done.returncode != 0 and "already exists" not in done.stderr + done.stdout):
            say("  its control tool did not let us make a vhost, so its default one is used")
            return LOCAL_URL
    return LOCAL_URL + LOCAL_VHOST


class Private:
    """A broker of our own that can be stopped and started again on its data."""

    def __init__(
        self,
        instance: Instance,
        installation: Installation,
        *,
        ports: Ports | None = None,
        beside: "Private | None" = None,
        configuration: str = "",
    ) -> None:
        self._instance = instance
        self._installation = installation
        self._ports = ports or free_ports()
        self._beside = beside
        # Lines of rabbitmq.conf besides our own.
        self._configuration = configuration
        self._password = instance.secret("rabbitmq")
        self._cookie = instance.secret("erlang-cookie")
        self.node = f"tender-{instance.name}@localhost"
        if beside is not None:
            # Nodes of one cluster know each other by one port mapper and one cookie.
            self._ports = msgspec.structs.replace(self._ports, epmd=beside._ports.epmd)
            self._password, self._cookie = beside._password, beside._cookie
        self._epmd: Process | None = None
        self.process: Process | None = None
        self.amqp_port = self._ports.amqp
        self.amqp_url = f"amqp://{USER}:{self._password}@127.0.0.1:{self._ports.amqp}/"
        self.management_url = f"http://{USER}:{self._password}@127.0.0.1:{self._ports.management}"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        folder = self._instance.folder / "rabbitmq"
        folder.mkdir(exist_ok=True)
        env, logs = self._environment(folder), self._instance.logs
        cookie = folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(self._cookie)
            cookie.chmod(0o400)
        if self._beside is None:
            epmd = [_epmd(self._installation), "-port", str(self._ports.epmd), "-address", "127.0.0.1"]
            self._epmd = start("epmd", epmd, log=logs / "epmd.log", env=env)
        self.process = start("rabbitmq", [str(self._installation.server)], log=logs / "rabbitmq.log", env=env)
        what = "RabbitMQ"
        wait_until(lambda: _ready(self._ports, self._password), process=self.process, timeout_seconds=START_TIMEOUT_SECONDS, what=what)

    def stop(self) -> None:
        """Stop it; the data stays."""
        for process in (self.process, self._epmd):
            if process is not None:
                process.stop()

    def join(self) -> None:
        """Become a node of the cluster of the broker this one was made beside."""
        assert self._beside is not None, "there is nothing to join"
        for command in (("stop_app",), ("reset",), ("join_cluster", self._beside.node), ("start_app",)):
            self.control(*command)

    def control(self, *arguments: str) -> None:
        """Run the broker's control tool against it."""
        tool = self._installation.server.with_name("rabbitmqctl")
        run([str(tool), "-q", *arguments], env=self._environment(self._instance.folder / "rabbitmq"), what=f"rabbitmqctl {arguments[0]}")

    def _environment(self, folder: Path) -> dict[str, str]:
        return _environment(self._instance, folder, self._installation, self._ports, self._password, self._configuration)


@contextmanager
def private(instance: Instance, installation: Installation) -> Iterator[tuple[str, str]]:
    """Run a broker while inside; gives its AMQP and management URLs. The data stays for the next time."""
    broker = Private(instance, installation)
    try:
        broker.start()
        instance.keep_servers(amqp_url=broker.amqp_url, amqp_port=broker.amqp_port, management_url=broker.management_url)
        yield broker.amqp_url, broker.management_url
    finally:
        broker.stop()


def free_ports() -> Ports:
    """Find ports that nobody uses."""
    return Ports(amqp=free_port(), management=free_port(), distribution=free_port(), epmd=free_port())


def _environment(
    instance: Instance, folder: Path, installation: Installation, ports: Ports, password: str, configuration: str
) -> dict[str, str]:
    conf, plugins = folder / "rabbitmq.conf", folder / "enabled_plugins"
    conf.write_text(
        f"listeners.tcp.1 = 127.0.0.1:{ports.amqp}\n"
        f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {ports.management}\n"
        f"default_user = {USER}\ndefault_pass = {password}\n"
        "disk_free_limit.absolute = 50MB\nlog.console = true\nlog.console.level = warning\nlog.file = false\n"
        f"{configuration}\n"
    )
    conf.chmod(0o600)
    plugins.write_text("[rabbitmq_management].\n")
    path = os.environ.get("PATH", "/usr/bin:/bin")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))}
    return {
        **kept,
        "PATH": f"{installation.erlang / 'bin'}:{path}" if installation.erlang else path,
        "HOME": str(folder),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RUNNING_UNDER_SYSTEMD": "true",
        "RABBITMQ_NODENAME": f"tender-{instance.name}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(ports.amqp),
        "RABBITMQ_DIST_PORT": str(ports.distribution),
        "RABBITMQ_CONFIG_FILE": str(conf),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
        "RABBITMQ_SCHEMA_DIR": str(folder / "schema"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_PORT": str(ports.epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }


def _epmd(installation: Installation) -> str:
    if installation.erlang is not None:
        return str(next(installation.erlang.glob("erts-*/bin/epmd")))
    found = shutil.which("epmd") or next((str(p) for p in Path("/usr/lib/erlang").glob("erts-*/bin/epmd")), None)
    if found is None:
        raise Failed("epmd, a part of Erlang, was not found.")
    return found


def _ready(ports: Ports, password: str) -> bool:
    # The management API may answer before the broker itself listens.
    if not listening(ports.amqp):
        return False
    token = b64encode(f"{USER}:{password}".encode()).decode()
    request = Request(f"http://127.0.0.1:{ports.management}/api/vhosts", headers={"Authorization": f"Basic {token}"})
    try:
        with urlopen(request, timeout=HTTP_TIMEOUT_SECONDS) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False
