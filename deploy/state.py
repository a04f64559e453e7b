"""What a started instance leaves for later commands: who runs it, where it listens, which key opens it."""

import contextlib
import os
import random
import secrets
import socket
from pathlib import Path
from typing import TypeVar

import msgspec

ROOT = Path(__file__).parent.parent
FILE_MODE = 0o600
# Written as hexadecimal: no character that ends a word when it is copied, or begins an option.
SECRET_BYTES = 32
PROBE_TIMEOUT_SECONDS = 1.0
# Below where systems take the ports of outgoing connections from: one of those, even the probe of a port that nobody
# listens on yet, could get the very port and keep the server from it.
PORTS = range(15_000, 32_000)
_given_out: set[int] = set()


class ServersState(msgspec.Struct, frozen=True, kw_only=True):
    """Servers that we started and that may still be running."""

    owner_pid: int
    database_url: str | None = None
    database_port: int = 0
    amqp_url: str | None = None
    amqp_port: int = 0
    management_url: str | None = None


class StackState(msgspec.Struct, frozen=True, kw_only=True):
    """A running system: the process that owns it and how to reach it."""

    pid: int
    started: float
    gateway_url: str
    sandbox_url: str
    # The processes with a public port, and where each process says whether it is ready.
    urls: dict[str, str]
    probes: dict[str, str]
    api_key: str
    checkout_key: str
    database_url: str
    amqp_url: str
    # Where Stripe is, and whether its webhooks arrive here.
    stripe_url: str = ""
    stripe_tells: bool = False
    operator_key: str = ""


class Instance:
    """A named set of servers and services, with a folder of its own."""

    def __init__(self, home: Path, name: str) -> None:
        self.name = name
        self.folder = home / name
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def logs(self) -> Path:
        """Where its logs lie."""
        return self.folder / "logs"

    def secret(self, name: str) -> str:
        """Read a random secret of this instance, made the first time."""
        file = self.folder / f"{name}.secret"
        if not file.exists():
            _write(file, secrets.token_hex(SECRET_BYTES).encode())
        return file.read_text()

    def servers(self) -> ServersState | None:
        """Tell which servers we started and still own somewhere."""
        state = _read(self.folder / "servers.json", ServersState)
        return state if state is not None and alive(state.owner_pid) else None

    def keep_servers(self, **facts: object) -> None:
        """Write down what was started; told piece by piece."""
        known = self.servers() or ServersState(owner_pid=os.getpid())
        _write(self.folder / "servers.json", msgspec.json.encode(msgspec.structs.replace(known, owner_pid=os.getpid(), **facts)))

    def forget_servers(self) -> None:
        """Say that our servers are gone."""
        (self.folder / "servers.json").unlink(missing_ok=True)

    def stack(self) -> StackState | None:
        """Tell which system of this instance is running."""
        state = _read(self.folder / "stack.json", StackState)
        return state if state is not None and alive(state.pid) else None

    def keep_stack(self, state: StackState) -> None:
        """Write down what is running."""
        _write(self.folder / "stack.json", msgspec.json.encode(state))

    def forget_stack(self) -> None:
        """Say that nothing runs."""
        (self.folder / "stack.json").unlink(missing_ok=True)


def alive(pid: int) -> bool:
    """Tell whether a process of ours is still there."""
    try:
        return b"deploy" in Path(f"/proc/{pid}/cmdline").read_bytes() or b"pytest" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def free_port() -> int:
    """Find a port of the loopback address that nobody uses, and that was not given out before."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                if port not in _given_out:
                    _given_out.add(port)
                    return port


def listening(port: int) -> bool:
    """Tell whether somebody listens on a port of the loopback address."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PROBE_TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True


def _write(file: Path, content: bytes) -> None:
    partial = file.with_suffix(".partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "wb") as stream:
        stream.write(content)
    partial.replace(file)


T = TypeVar("T")


def _read(file: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None
