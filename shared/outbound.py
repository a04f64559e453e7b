"""The one way out to addresses that somebody else chose: merchants' endpoints, label documents, certificates, return addresses.

An address is parsed once, by the client that connects, and used in that form. What it names is checked before connecting, every IP address
at the moment of connecting, and the peer's once more before a request is written. Redirects are not followed, no proxy is used (it would
resolve names in its own network), cookies are not stored, and answers are bounded. The one who chose the address may be shown an
`OutboundFailure`; the text of an error is for the operator's log.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Self

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType, Connection
from aiohttp.tracing import Trace
from yarl import URL

URL_MAX_CHARACTERS = 2_000
HOST_MAX_CHARACTERS = 253
# Where public HTTPS servers listen; any other port is more often something that is not meant for us.
PORTS = frozenset({443, 8443})
# Name look-ups that run at once; one that is slow holds up nothing but its own call.
LOOKUPS_MAX = 64

# iana.org/assignments/iana-ipv4-special-registry, all of it, and multicast (iana.org/assignments/multicast-addresses).
SPECIAL_IPV4 = tuple(
    IPv4Network(each)
    for each in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",  # AS112, RFC 7535.
        "192.52.193.0/24",  # AMT relays, RFC 7450.
        "192.88.99.0/24",  # 6to4 relays, deprecated by RFC 7526.
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112, RFC 7534.
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# All that IANA has opened for global unicast (iana.org/assignments/ipv6-unicast-address-assignments). Outside are local addresses, and
# those that lead to another address than the one checked: IPv4-mapped and IPv4-compatible ones, NAT64 (64:ff9b::/96, 64:ff9b:1::/48).
GLOBAL_IPV6 = IPv6Network("2000::/3")
# iana.org/assignments/iana-ipv6-special-registry, what of it lies within.
SPECIAL_IPV6 = tuple(
    IPv6Network(each)
    for each in (
        "2001::/23",  # Protocols: Teredo, benchmarks, ORCHID.
        "2001:db8::/32",
        "2002::/16",  # 6to4, which leads to the IPv4 address within it.
        "2620:4f:8000::/48",  # AS112, RFC 7534.
        "3fff::/20",
    )
)
# Names that no public server has: iana.org/assignments/special-use-domain-names, ICANN's .internal (2024), and what is never delegated
# because private networks use it (ICANN, name collision, 2018).
SPECIAL_NAMES = frozenset(
    {*("alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion", "test"), *("corp", "home", "lan", "mail")}
)
# Underscores are in names that DNS and certificates know, though not in host names by RFC 1123.
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# Python also reads +443, 4_43 and digits of other scripts as a port.
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+)(:[0-9]{0,5})?")
# What getaddrinfo and browsers read as an IPv4 address, as in 127.1, 0x7f.1 and 2130706433 (url.spec.whatwg.org, "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class OutboundUrlInvalid(ValueError):
    """An address may not be used; the text says why and may be shown to the one who chose it."""


class AddressNotAllowed(OSError):
    """An IP address is not public."""


class OutboundFailure(StrEnum):
    """Why a call failed, as far as the one who chose its address may know: never whether something in our networks listens."""

    NOT_ALLOWED = "not_allowed"
    # The name has no public address.
    DNS_FAILED = "dns_failed"
    # Refused, reset, closed, or no HTTP.
    CONNECTION_FAILED = "connection_failed"
    TLS_FAILED = "tls_failed"
    TIMED_OUT = "timed_out"
    ANSWER_TOO_LARGE = "answer_too_large"


class OutboundAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The head of an answer: its status, and the Retry-After header as it came."""

    status: int
    retry_after: str | None


class OutboundCallFailed(Exception):
    """A call failed; the text is for the operator alone."""

    def __init__(self, failure: OutboundFailure, text: str) -> None:
        super().__init__(text)
        self.failure = failure


class OutboundUrl(msgspec.Struct, frozen=True):
    """An address that somebody else chose, as the client connects to it; `allow_private` only where an operator's setting says so."""

    url: URL
    allow_private: bool = False

    @classmethod
    def parse(cls, text: str, *, allow_private: bool = False, hosts: Collection[str] | None = None, trusted: str = "") -> Self:
        """Read an address to connect to, of one of these hosts where they are given; raises OutboundUrlInvalid.

        What has the origin (scheme, host and port) of `trusted`, which an operator set, may be http and private, as with `allow_private`.
        """
        url = _parsed(text).with_fragment(None)
        if allow_private or (trusted and url.origin() == URL(trusted).origin()):
            return cls(url, allow_private=True)
        _check_public(url)
        if hosts is not None and url.raw_host not in hosts:
            raise OutboundUrlInvalid("the host is not one of those allowed")
        return cls(url)

    def __str__(self) -> str:
        """Write it as it is to be stored."""
        return str(self.url)


def check_return_url(text: str) -> None:
    """Raise OutboundUrlInvalid for what no browser should be sent to; we connect to none, so it may be private, and is not rewritten."""
    _parsed(text)
    if not _authority(text).isascii():
        raise OutboundUrlInvalid("the host must be in ASCII (xn--…)")


def _parsed(text: str) -> URL:
    if len(text) > URL_MAX_CHARACTERS:
        raise OutboundUrlInvalid(f"it has more than {URL_MAX_CHARACTERS} characters")
    # Readers differ over these: some drop them, some end the host there.
    if not text.isprintable() or " " in text or "\\" in text:
        raise OutboundUrlInvalid("it has a space, a control character or a backslash")
    try:
        url = URL(text)
    except ValueError:
        raise OutboundUrlInvalid("it cannot be read as a URL") from None
    if url.scheme not in ("http", "https"):
        raise OutboundUrlInvalid("it must be an http or https URL")
    authority = _authority(text)
    if "@" in authority:
        raise OutboundUrlInvalid("it must not name a user or password")
    if not _HOST_AND_PORT.fullmatch(authority) or url.port == 0:
        raise OutboundUrlInvalid("the host or port is not written as host:port")
    _check_host(url.raw_host or "", in_brackets=authority.startswith("["))
    return url


def _authority(text: str) -> str:
    return re.split(r"[/?#]", text.partition("://")[2])[0]


def _check_host(host: str, *, in_brackets: bool) -> None:
    if in_brackets:
        # No zone (fe80::1%lo), and no form for the future (RFC 3986 3.2.2), which the parser reads as a name.
        if "%" in host or not isinstance(_literal(host), IPv6Address):
            raise OutboundUrlInvalid("the host in brackets must be an IPv6 address")
        return
    labels = host.split(".")
    if len(host) > HOST_MAX_CHARACTERS or not all(_LABEL.fullmatch(each) for each in labels):
        raise OutboundUrlInvalid("the host must be a name in letters, digits, hyphens and dots between them, or an IP address")
    if _NUMBER.fullmatch(labels[-1]) and _literal(host) is None:
        raise OutboundUrlInvalid("an IPv4 address must be written as four decimal numbers")


def _check_public(url: URL) -> None:
    if url.scheme != "https":
        raise OutboundUrlInvalid("it must be an https URL")
    if url.port not in PORTS:
        raise OutboundUrlInvalid(f"the port must be one of {', '.join(map(str, sorted(PORTS)))}")
    host = url.raw_host or ""
    literal = _literal(host)
    if literal is not None and not is_public(literal):
        raise OutboundUrlInvalid("the IP address is not public")
    if literal is None and ("." not in host or host.rpartition(".")[2] in SPECIAL_NAMES):
        raise OutboundUrlInvalid("the host is not a public name")


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address is one of a public server, by IANA's registries and not by Python's, which differ between patch releases."""
    if isinstance(address, IPv6Address):
        return address.scope_id is None and address in GLOBAL_IPV6 and not any(address in network for network in SPECIAL_IPV6)
    return not any(address in network for network in SPECIAL_IPV4)


def check_address(host: str) -> None:
    """Raise AddressNotAllowed for what is not a public IP address."""
    literal = _literal(host)
    if literal is None or not is_public(literal):
        raise AddressNotAllowed(f"{host} is not a public address")


class OutboundClient:
    """Calls addresses that somebody else chose; one client for each kind of them, closed by its owner."""

    def __init__(self, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._resolver = PublicResolver()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        """Use it for a few calls."""
        return self

    async def __aexit__(self, *failed: object) -> None:
        """Close its connections."""
        await self.close()

    async def post(self, url: OutboundUrl, *, body: bytes, headers: Mapping[str, str]) -> OutboundAnswer:
        """Post a body; gives the answer, whose body is not read, and raises OutboundCallFailed."""
        try:
            async with self._session(url).post(url.url, data=body, headers=headers, allow_redirects=False) as answer:
                return OutboundAnswer(status=answer.status, retry_after=answer.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as failed:
            raise _call_failed(failed) from failed

    async def get(self, url: OutboundUrl, *, bytes_max: int) -> tuple[int, bytes]:
        """Read an answer's status and body; raises OutboundCallFailed, also for a body of more than so many bytes."""
        try:
            async with self._session(url).get(url.url, allow_redirects=False) as answer:
                return answer.status, await _read(answer.content, bytes_max)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as failed:
            raise _call_failed(failed) from failed

    async def close(self) -> None:
        """Close its connections."""
        for session in self._sessions.values():
            await session.close()
        await self._resolver.close()

    def _session(self, url: OutboundUrl) -> aiohttp.ClientSession:
        # It belongs to the running loop, so it is opened with the first call.
        if url.allow_private not in self._sessions:
            self._sessions[url.allow_private] = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_seconds),
                connector=aiohttp.TCPConnector() if url.allow_private else PublicConnector(self._resolver),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._sessions[url.allow_private]


class PublicConnector(aiohttp.TCPConnector):
    """Connects to public addresses alone, however a host is written and whatever its name resolves to."""

    def __init__(self, resolver: AbstractResolver) -> None:
        super().__init__(resolver=resolver, socket_factory=public_socket)

    async def connect(self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        """Connect, or use a connection again, and check who the peer is before anything is written to it."""
        connection = await super().connect(req, traces, timeout)
        try:
            peer = connection.transport and connection.transport.get_extra_info("peername")
            check_address(peer[0] if peer else "a peer without an address")
        except AddressNotAllowed:
            connection.close()
            raise
        return connection


def public_socket(info: AddrInfoType) -> socket.socket:
    """Open a socket for an address that is about to be connected to, literal or resolved; raises AddressNotAllowed."""
    family, kind, protocol, _, address = info
    check_address(str(address[0]))
    if len(address) == 4 and address[3]:
        raise AddressNotAllowed("an address with a zone is not public")
    return socket.socket(family=family, type=kind, proto=protocol)


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses alone, in threads of its own: the loop's are few, and others need them."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS_MAX, "outbound-dns")

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Resolve a name; refuses the whole of it when one of its addresses is not public."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        )
        if not found:
            raise OSError(f"{host} has no address")
        for *_, address in found:
            check_address(str(address[0]))
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found_family, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Let its threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _AnswerTooLarge(ValueError):
    pass


async def _read(content: aiohttp.StreamReader, bytes_max: int) -> bytes:
    pieces, size = [], 0
    async for piece in content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > bytes_max:
            raise _AnswerTooLarge(f"the answer has more than {bytes_max} bytes")
    return b"".join(pieces)


def _call_failed(failed: BaseException) -> OutboundCallFailed:
    return OutboundCallFailed(_failure_of(failed), f"{type(failed).__name__}: {failed}")


def _failure_of(failed: BaseException) -> OutboundFailure:
    match failed:
        case _AnswerTooLarge():
            return OutboundFailure.ANSWER_TOO_LARGE
        case TimeoutError():
            return OutboundFailure.TIMED_OUT
        # Whether a name is unknown or leads inside is one class, so that it says nothing of names within our networks.
        case aiohttp.ClientConnectorDNSError():
            return OutboundFailure.DNS_FAILED
        case aiohttp.ClientSSLError() | aiohttp.ClientConnectorCertificateError():
            return OutboundFailure.TLS_FAILED
        case aiohttp.InvalidURL() | AddressNotAllowed():
            return OutboundFailure.NOT_ALLOWED
    return _failure_of(failed.__cause__) if isinstance(failed.__cause__, AddressNotAllowed) else OutboundFailure.CONNECTION_FAILED
