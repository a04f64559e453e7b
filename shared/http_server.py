"""The HTTP servers of a service: health on a private port from the first moment, its own routes on a public one once it has started."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Collection, Iterator
from typing import Any

import msgspec
import uvicorn

from shared.errors import SAFE_HEADERS, Clear, Problem, Retry, problem_body
from shared.health import Check, health_app
from shared.http_limits import HttpLimits
from shared.settings import BusSettings

# Longer than clients and load balancers (60 s by default: nginx, AWS) keep a connection they do not use: who closes first breaks
# a request that is on its way just then.
KEEP_ALIVE_SECONDS = 75
BACKLOG_CONNECTIONS = 2048
STARTED_POLL_SECONDS = 0.005
STARTING = Problem(
    code="service-starting",
    title="Service starting",
    status=503,
    detail="This service is starting; its log and /health/ready on its monitoring port say what it waits for.",
    retry=Retry.AFTER,
    retry_after_seconds=1,
)


LIVE = "/health/live"
# Of orchestrators and of Prometheus, which keep one or two each.
MONITORING_CONNECTIONS_MAX = 100


class AddressInUse(Clear):
    """The address cannot be listened on; the text says which and why."""


class HttpServer:
    """A service's ports: a private one with health and metrics, at once, and a public one for its own routes, from `serve` on.

    The public one answers `/health/live` and nothing else of these, for a load balancer that can probe no other port.
    """

    def __init__(self, settings: BusSettings, name: str, awaited: dict[str, Check], *, public: bool = True) -> None:
        self._monitoring_app: Any = health_app(awaited)
        self._app: Any = _starting
        grace_seconds = settings.shutdown_grace_seconds
        few = HttpLimits(connections_max=MONITORING_CONNECTIONS_MAX, connections_per_address_max=MONITORING_CONNECTIONS_MAX)
        limits = HttpLimits(
            connections_max=settings.http_connections_max, connections_per_address_max=settings.http_connections_per_address_max
        )
        where = (settings.monitoring_host, settings.monitoring_port)
        self._monitoring = _Port(name, "MONITORING", *where, self._answer_monitoring, few, grace_seconds)
        self._public = _Port(name, "HTTP", settings.http_host, settings.http_port, self._answer, limits, grace_seconds) if public else None

    @property
    def url(self) -> str:
        """Where the service's own routes are served; empty where it has none."""
        return "" if self._public is None else self._public.url

    @property
    def monitoring_url(self) -> str:
        """Where health and metrics are served."""
        return self._monitoring.url

    async def __aenter__(self) -> "HttpServer":
        # All addresses are taken before anything is served: one that is not free ends the service.
        ports = [port for port in (self._monitoring, self._public) if port is not None]
        for port in ports:
            port.listen()
        for port in ports:
            await port.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self._monitoring.stop()

    def serve(self, app: Any | None, checks: dict[str, Check], *, only_shown: Collection[str] = ()) -> None:
        """Answer by the service's own application and checks from now on; `only_shown` as in health_app."""
        self._monitoring_app = health_app(checks, only_shown=only_shown)
        if app is not None:
            self._app = app

    async def stop(self) -> None:
        """Serve the public no more, and finish its requests in hand within the grace period."""
        if self._public is not None:
            await self._public.stop()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == LIVE:
            await _answer_json(send, 200, "application/json", b'{"status":"alive"}')
            return
        await self._app(scope, receive, send)

    async def _answer_monitoring(self, scope: Any, receive: Any, send: Any) -> None:
        await self._monitoring_app(scope, receive, send)


async def _starting(scope: Any, receive: Any, send: Any) -> None:
    body = msgspec.json.encode(problem_body(STARTING, ""))
    await _answer_json(send, STARTING.status, "application/problem+json", body, **{"retry-after": STARTING.retry_after_seconds})


async def _answer_json(send: Any, status: int, kind: str, body: bytes, **more: object) -> None:
    headers = {"content-type": kind, "content-length": len(body), **SAFE_HEADERS, **more}
    encoded = [(name.lower().encode(), str(value).encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


class _Port:
    """One address that a service listens on."""

    def __init__(self, name: str, variables: str, host: str, port: int, app: Any, limits: HttpLimits, grace_seconds: float) -> None:
        self._name, self._variables, self._host, self._port = name, variables, host, port
        self._limits = limits
        self._listeners: list[socket.socket] = []
        self.url = ""
        config = uvicorn.Config(
            app,
            interface="asgi3",
            http=limits.protocol,  # type: ignore[arg-type]
            loop="none",
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=round(grace_seconds),
        )
        self._server = Server(config)

    def listen(self) -> None:
        """Bind the address; raises AddressInUse."""
        self._listeners = _listeners(self._host, self._port, f"{self._name}: {self._host}:{self._port}", self._variables)
        port = self._listeners[0].getsockname()[1]
        self.url = f"http://[{self._host}]:{port}" if ":" in self._host else f"http://{self._host}:{port}"

    async def start(self) -> None:
        """Serve."""
        self._serving = asyncio.create_task(self._server.serve(sockets=self._listeners))
        self._watching = asyncio.create_task(self._limits.watch())
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(STARTED_POLL_SECONDS)

    async def stop(self) -> None:
        """Listen no more, and finish the requests in hand within the grace period."""
        self._server.should_exit = True
        await self._serving
        self._watching.cancel()
        await asyncio.wait({self._watching})


class Server(uvicorn.Server):
    """Uvicorn that leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


def _listeners(host: str, port: int, what: str, variables: str) -> list[socket.socket]:
    """Listen on every address of the host, of both families; `::` takes IPv4 too. Raises AddressInUse."""
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
            # With no port given the first one's is everybody's.
            bound = listeners[0].getsockname()[1] if listeners else port
            listener = _listener(family, kind, protocol, (address[0], bound, *address[2:]))
            if listener is not None:
                listeners.append(listener)
    except (OSError, UnicodeError) as busy:
        for each in listeners:
            each.close()
        why = getattr(busy, "strerror", None) or busy
        raise AddressInUse(f"{what} ({variables}_HOST, {variables}_PORT) cannot be listened on: {why}") from busy
    if not listeners:
        raise AddressInUse(f"{what} ({variables}_HOST, {variables}_PORT) cannot be listened on: no such address on this machine")
    return listeners


def _listener(family: int, kind: int, protocol: int, address: Any) -> socket.socket | None:
    try:
        listener = socket.socket(family, kind, protocol)
    except OSError as unknown:
        if unknown.errno == errno.EAFNOSUPPORT:
            return None
        raise
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address[0] == "::" else 1)
        listener.bind(address)
    except OSError as refused:
        listener.close()
        # A name may have an address of a family that this machine does not have.
        if refused.errno == errno.EADDRNOTAVAIL:
            return None
        raise
    return listener
