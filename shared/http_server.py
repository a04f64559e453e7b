"""The HTTP server of a service: it listens and tells its health from the first moment, and serves the rest once it has started."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import uvicorn

from shared.errors import Clear, Problem, Retry, problem_body
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
    detail="This service is starting; /health/ready says what it waits for.",
    retry=Retry.AFTER,
    retry_after_seconds=1,
)


class AddressInUse(Clear):
    """The address cannot be listened on; the text says which and why."""


class HttpServer:
    """Serves health at once, and a service's own routes from `serve` on; closes on leaving."""

    def __init__(self, settings: BusSettings, name: str, awaited: dict[str, Check]) -> None:
        self._settings = settings
        self._name = name
        self._health = health_app(awaited)
        self._app: Any = self._starting
        self.url = ""

    async def __aenter__(self) -> "HttpServer":
        listeners = _listeners(self._settings.http_host, self._settings.http_port, self._name)
        host, port = self._settings.http_host, listeners[0].getsockname()[1]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        limits = HttpLimits(
            connections_max=self._settings.http_connections_max,
            connections_per_address_max=self._settings.http_connections_per_address_max,
        )
        config = uvicorn.Config(
            self._answer,
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
            timeout_graceful_shutdown=round(self._settings.shutdown_grace_seconds),
        )
        self._server = Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=listeners))
        self._watching = asyncio.create_task(limits.watch())
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(STARTED_POLL_SECONDS)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def serve(self, app: Any) -> None:
        """Let the service's own application answer from now on."""
        self._app = app

    async def stop(self) -> None:
        """Listen no more, and finish the requests in hand within the grace period."""
        self._server.should_exit = True
        await self._serving
        self._watching.cancel()
        await asyncio.wait({self._watching})

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)

    async def _starting(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith(("/health/", "/metrics")):
            await self._health(scope, receive, send)
            return
        body = msgspec.json.encode(problem_body(STARTING, ""))
        headers = {"content-type": "application/problem+json", "content-length": len(body), "retry-after": STARTING.retry_after_seconds}
        encoded = [(name.encode(), str(value).encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": STARTING.status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})


class Server(uvicorn.Server):
    """Uvicorn that leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


def _listeners(host: str, port: int, name: str) -> list[socket.socket]:
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
        raise AddressInUse(f"{name}: {host}:{port} (HTTP_HOST, HTTP_PORT) cannot be listened on: {why}") from busy
    if not listeners:
        raise AddressInUse(f"{name}: {host}:{port} (HTTP_HOST, HTTP_PORT) cannot be listened on: no such address on this machine")
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
