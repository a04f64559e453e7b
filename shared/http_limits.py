"""What a client may take of an HTTP server: how large a request's head, how long for its head and body, and how many connections.

uvicorn's fast protocol has none of these limits, its slow one that of the head alone; both leave time to a proxy, which not everybody has.
"""

import asyncio
import logging
import resource
from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv6Address, IPv6Network
from typing import Any, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared import telemetry
from shared.errors import SAFE_HEADERS, Problem, Retry, problem_body
from shared.gathering import Gathering
from shared.reason_phrases import REASON_PHRASES

# RFC 9110 (section 4.1) asks for at least 8000 bytes of URI; nginx takes 32 KiB of head, in four pieces.
URL_MAX_BYTES = 16 * 1024
HEAD_MAX_BYTES = 32 * 1024
# From a connection's or a request's first moment to its head's end, and from there to its body's end.
HEAD_TIMEOUT_SECONDS = 10.0
BODY_TIMEOUT_SECONDS = 20.0
TIMEOUT_CHECK_SECONDS = 0.5
# What is left of the descriptors that the process may open: for the database, the broker, providers and files.
DESCRIPTORS_KEPT = 200
IPV6_SITE_BITS = 64

MALFORMED = Problem(code="malformed-request", title="This is not HTTP", status=400, detail="The request cannot be read as HTTP/1.1.")
NO_HOST = Problem(
    code="malformed-request", title="One Host header is needed", status=400, detail="A request of HTTP/1.1 bears exactly one Host header."
)
LONG_URL = Problem(
    code="uri-too-long", title="The address is too long", status=414, detail=f"The request's address may have {URL_MAX_BYTES} bytes."
)
LARGE_HEAD = Problem(
    code="head-too-large",
    title="The head is too large",
    status=431,
    detail=f"A request's head, trailers and chunk extensions may have {HEAD_MAX_BYTES} bytes.",
)
SLOW_REQUEST = Problem(
    code="request-timeout",
    title="The request took too long",
    status=408,
    detail=f"A request's head may take {HEAD_TIMEOUT_SECONDS:g} s, and its body {BODY_TIMEOUT_SECONDS:g} s.",
    retry=Retry.AFTER,
    retry_after_seconds=1,
)
CROWDED = Problem(
    code="too-many-connections",
    title="Too many connections",
    status=503,
    detail="As many connections are open as this server takes, in all or from one address.",
    retry=Retry.AFTER,
    retry_after_seconds=1,
)

# What clients get wrong is counted; a line each would let anybody fill the log.
logging.getLogger("uvicorn.error").addFilter(lambda record: record.levelno != logging.WARNING)


class HttpLimits:
    """The connections that one server has, in all and by address, and how many it takes of each."""

    def __init__(self, *, connections_max: int, connections_per_address_max: int) -> None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.connections_max = connections_max
        if descriptors != resource.RLIM_INFINITY:
            self.connections_max = max(1, min(connections_max, descriptors - DESCRIPTORS_KEPT))
        self.connections_per_address_max = connections_per_address_max
        self._open: set[LimitedHttp] = set()
        self._by_address: Counter[str] = Counter()

    def protocol(self, **given: Any) -> "LimitedHttp":
        """Make the protocol of a new connection."""
        return LimitedHttp(self, **given)

    def take(self, connection: "LimitedHttp", address: str) -> bool:
        """Count a new connection in; false if it is one too many."""
        if len(self._open) >= self.connections_max or self._by_address[address] >= self.connections_per_address_max:
            return False
        self._open.add(connection)
        self._by_address[address] += 1
        return True

    def leave(self, connection: "LimitedHttp", address: str) -> None:
        """Count a connection out."""
        if connection in self._open:
            self._open.discard(connection)
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    async def watch(self) -> None:
        """End the connections whose requests take too long, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TIMEOUT_CHECK_SECONDS)
            now = loop.time()
            for connection in tuple(self._open):
                connection.end_if_late(now)


class LimitedHttp(HttpToolsProtocol):
    """HTTP within limits, whose answers are one write, head and body."""

    def __init__(self, limits: HttpLimits, **given: Any) -> None:
        super().__init__(**given)
        self._limits = limits
        self._address = ""
        self.url = b""
        self._refusal = MALFORMED
        # Since when a request is under way that is not here whole, and whether its head is.
        self._unfinished_since: float | None = None
        self._in_body = False
        # Bytes of this request's head, trailers and chunk extensions: what the parser has told of, and what it has not yet.
        self._head_bytes = 0
        self._untold_bytes = 0
        self._told = False
        self._whole = False

    def connection_made(self, transport: Any) -> None:
        """Take a connection, or refuse it as one too many."""
        super().connection_made(cast(asyncio.Transport, Gathering(transport)))
        self._address = site_of(self.client[0]) if self.client else ""
        self._unfinished_since = self.loop.time()
        if not self._limits.take(self, self._address):
            self._refuse(CROWDED)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let a connection go."""
        self._limits.leave(self, self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, as far as the limits allow."""
        if self.transport.is_closing():
            return
        self._told = self._whole = False
        super().data_received(data)
        if self._whole:
            self._unfinished_since = None
            return
        if self._unfinished_since is None:
            self._unfinished_since = self.loop.time()
        self._untold_bytes = 0 if self._told else self._untold_bytes + len(data)
        if self._untold_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
            self._refuse(LARGE_HEAD)

    def end_if_late(self, now: float) -> None:
        """End the connection if its request takes too long; not while we are the ones who do not read."""
        if self._unfinished_since is None or self.flow.read_paused or self.transport.is_closing():
            return
        if now - self._unfinished_since > (BODY_TIMEOUT_SECONDS if self._in_body else HEAD_TIMEOUT_SECONDS):
            self._refuse(SLOW_REQUEST)

    # What the parser tells of. What is raised here ends its reading, and uvicorn then asks for the answer to a bad request.

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._told, self._whole, self._in_body, self._head_bytes = True, False, False, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the address."""
        super().on_url(url)
        self._told = True
        if len(self.url) > URL_MAX_BYTES:
            self._stop_reading(LONG_URL)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        self._told = True
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_MAX_BYTES:
            self._stop_reading(LARGE_HEAD)
        if self._in_body:
            return  # Nothing here reads trailers, and among the headers they would be taken for some (RFC 9110, section 6.5.1).
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer a request."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() != "1.0"):
            self._stop_reading(NO_HOST)  # RFC 9112, section 3.2.
        self._told = self._in_body = True
        self._unfinished_since = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._told = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._told = self._whole = True
        super().on_message_complete()

    def _stop_reading(self, problem: Problem) -> None:
        self._refusal = problem
        raise ValueError(problem.code)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not to be read on, and close."""
        self._refuse(self._refusal)

    def _refuse(self, problem: Problem) -> None:
        telemetry.http_refused.labels(problem.code).inc()
        begun = cast("RequestResponseCycle | None", self.cycle)
        # Whoever said nothing is told nothing, and where an earlier request's answer is owed there is no place for another.
        silent = begun is None and not self.url and self._head_bytes == self._untold_bytes == 0 and problem is SLOW_REQUEST
        # Neither has whoever was answered and goes on sending the body.
        answered = begun is not None and begun.response_complete and self._in_body
        owed = begun is not None and not begun.response_complete and (begun.response_started or not begun.more_body or bool(self.pipeline))
        if not (silent or answered or owed):
            self.transport.write(_answer(problem))
        if begun is not None:
            begun.response_complete = begun.disconnected = True
            begun.message_event.set()
        self.transport.close()


def _answer(problem: Problem) -> bytes:
    body = msgspec.json.encode(problem_body(problem, ""))
    lines: Iterable[str] = (
        f"HTTP/1.1 {problem.status} {REASON_PHRASES[problem.status]}",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        "connection: close",
        *(f"{name.lower()}: {value}" for name, value in SAFE_HEADERS.items()),
        *([] if problem.retry_after_seconds is None else [f"retry-after: {problem.retry_after_seconds}"]),
    )
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def site_of(address: str) -> str:
    """Name whoever an address belongs to: whole networks of IPv6 are one client's."""
    if ":" not in address:
        return address
    parsed = IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped or IPv6Network((parsed, IPV6_SITE_BITS), strict=False))
