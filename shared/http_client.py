"""Calling providers: one policy for time-outs, retries, traces, and for telling what may have happened."""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from itertools import count
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from opentelemetry.trace import SpanKind

from shared import telemetry
from shared.backoff import trying

CONNECT_TIMEOUT_SECONDS = 3.0
POOL_TIMEOUT_SECONDS = 5.0
# More than a process calls at the same time (the slots of two queues, and what its jobs look up): one store's silent calls must not
# leave another's without a connection.
CONNECTIONS_MAX = 256
# Shorter than servers usually wait, so that they seldom close what we are about to use.
KEEPALIVE_SECONDS = 4.0
NOT_SENT_ATTEMPTS_MAX = 3
RETRY_AFTER_MAX_SECONDS = 3600.0
AUDIT_TEXT_MAX_CHARACTERS = 200
# A page of a hundred payments with all that is asked for of each has a few hundred KiB.
ANSWER_MAX_BYTES = 16 * 1024 * 1024
AUDIT_LEVELS_MAX = 50
INTEGER_BITS_MAX = 63


# No connection, so nothing left.
NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class Classification(StrEnum):
    """What is certain about a call: nothing left us, nobody answered, or somebody did."""

    NOT_SENT = "not_sent"
    SENT_NO_ANSWER = "sent_no_answer"
    ANSWERED = "answered"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One outbound call as the audit keeps it: only allowed fields, never a secret."""

    provider: str
    operation: str
    method: str
    path: str
    request: dict[str, Any]
    response: dict[str, Any]
    status: int | None
    latency_ms: int
    attempt: int
    classification: Classification


class Answer(msgspec.Struct, frozen=True):
    """What the provider answered, whatever its status."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


class NotSent(Exception):
    """The request never left: the provider cannot have acted."""


class NoAnswer(Exception):
    """The request may have left and no answer came: the outcome is unknown."""


_calls: ContextVar[list[Call] | None] = ContextVar("tender_provider_calls", default=None)


@contextlib.contextmanager
def recorded() -> Iterator[list[Call]]:
    """Collect every call made inside, for the audit."""
    calls: list[Call] = []
    token = _calls.set(calls)
    try:
        yield calls
    finally:
        _calls.reset(token)


def allowed(value: Any, names: frozenset[str], levels: int = AUDIT_LEVELS_MAX) -> Any:
    """Keep only the named fields of a JSON value, at every depth; the rest is not even hinted at."""
    if levels == 0:
        return None
    if isinstance(value, dict):
        return {key: allowed(inner, names, levels - 1) for key, inner in value.items() if key in names}
    if isinstance(value, list):
        return [allowed(inner, names, levels - 1) for inner in value]
    if isinstance(value, str):
        return value[:AUDIT_TEXT_MAX_CHARACTERS].replace("\0", "")
    return f"a number over {INTEGER_BITS_MAX} bits" if isinstance(value, int) and value.bit_length() > INTEGER_BITS_MAX else value


# Shorter texts say nothing of anybody, and are found everywhere.
TELLING_CHARACTERS_MIN = 6


def told_back(value: Any, secrets: Collection[str]) -> Any:
    """Take out of a JSON value's texts what a provider told back of what was sent and may not be kept ("No such token: …")."""
    if isinstance(value, dict):
        return {key: told_back(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list):
        return [told_back(inner, secrets) for inner in value]
    if isinstance(value, str):
        for secret in filter(None, secrets):
            value = value.replace(secret, "[…]")
        return value.replace("\0", "")
    return value


def left_out(value: Any, names: frozenset[str]) -> set[str]:
    """List the texts of a JSON value that may not be kept: those that no allowed name leads to."""
    if isinstance(value, dict):
        return {text for key, inner in value.items() for text in left_out(inner, names if key in names else frozenset())}
    if isinstance(value, list):
        return {text for inner in value for text in left_out(inner, names)}
    return {value} if isinstance(value, str) and not names and len(value) >= TELLING_CHARACTERS_MIN else set()


def retry_after_seconds(headers: Mapping[str, str]) -> float:
    """Read how long a provider wants to be left alone: whole seconds or a date (RFC 9110 10.2.3), bounded; else nothing."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), RETRY_AFTER_MAX_SECONDS)
    with contextlib.suppress(OverflowError, ValueError, TypeError):
        wanted = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        return min(max(0.0, wanted), RETRY_AFTER_MAX_SECONDS)
    return 0.0


class ProviderClient:
    """A provider's HTTP API: JSON out of it, a limit of connections of its own, every call recorded.

    `fields` reads a request's body for the audit, where it is not JSON.
    """

    def __init__(
        self,
        *,
        service: str,
        provider: str,
        base_url: str,
        headers: Mapping[str, str],
        timeout_seconds: float,
        audited: frozenset[str],
        fields: Callable[[bytes], dict[str, Any]] | None = None,
    ) -> None:
        self._service = service
        self._provider = provider
        self._audited = audited
        self._fields = fields or _json
        self._base_url = base_url.rstrip("/")
        self._headers = dict(headers)
        self._timeout = aiohttp.ClientTimeout(
            total=CONNECT_TIMEOUT_SECONDS + timeout_seconds,
            connect=POOL_TIMEOUT_SECONDS,
            sock_connect=CONNECT_TIMEOUT_SECONDS,
            sock_read=timeout_seconds,
        )
        self._proxy = _proxy_for(base_url)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    async def call(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make one call; tries again only what provably never left; raises NotSent or NoAnswer."""
        attempts = count(1)
        return await trying(
            lambda: self._once(operation, method, path, body, dict(headers or {}), dict(query or {}), next(attempts)),
            NotSent,
            attempts_max=NOT_SENT_ATTEMPTS_MAX,
        )

    async def _once(
        self, operation: str, method: str, path: str, body: bytes, headers: dict[str, str], query: dict[str, str], attempt: int
    ) -> Answer:
        started = time.monotonic()
        classification, answer = Classification.NOT_SENT, None
        facts = {"http.request.method": method, "url.path": path, "tender.provider": self._provider}
        with telemetry.span(f"{self._provider} {operation}", kind=SpanKind.CLIENT, facts=facts):
            try:
                if parent := telemetry.traceparent():
                    headers["traceparent"] = parent
                answer = await self._exchange(method, path, body, headers, query)
                classification = Classification.ANSWERED
                return answer
            except NOT_SENT as silent:
                raise NotSent(f"{self._provider}: {type(silent).__name__}") from silent
            except (aiohttp.ClientError, TimeoutError, OSError) as silent:
                classification = Classification.SENT_NO_ANSWER
                raise NoAnswer(f"{self._provider}: {type(silent).__name__}") from silent
            finally:
                elapsed = time.monotonic() - started
                self._record(operation, method, path, body, answer, elapsed, attempt, classification)

    async def _exchange(self, method: str, path: str, body: bytes, headers: dict[str, str], query: dict[str, str]) -> Answer:
        session = self._opened()
        async with session.request(
            method, self._base_url + path, data=body, headers=headers, params=query, allow_redirects=False, proxy=self._proxy
        ) as response:
            raw = await _read(response)
            return Answer(response.status, _json(raw), {name.lower(): value for name, value in response.headers.items()})

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            # It belongs to the running loop, so it is opened with the first call.
            connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=KEEPALIVE_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=connector, headers=self._headers, timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    def _record(
        self,
        operation: str,
        method: str,
        path: str,
        body: bytes,
        answer: Answer | None,
        elapsed: float,
        attempt: int,
        classification: Classification,
    ) -> None:
        telemetry.provider_calls.labels(self._service, self._provider, operation, classification.value).observe(elapsed)
        calls = _calls.get()
        if calls is not None:
            sent = self._fields(body)
            calls.append(
                Call(
                    provider=self._provider,
                    operation=operation,
                    method=method,
                    path=path,
                    request=allowed(sent, self._audited),
                    response=told_back(allowed(answer.body if answer else {}, self._audited), left_out(sent, self._audited)),
                    status=answer.status if answer else None,
                    latency_ms=round(elapsed * 1000),
                    attempt=attempt,
                    classification=classification,
                )
            )


def _proxy_for(url: str) -> str | None:
    """Find the proxy that the environment names for a host (HTTPS_PROXY, NO_PROXY), as other programs do."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read a body; one without end is none, as if it had been cut off."""
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > ANSWER_MAX_BYTES:
            raise aiohttp.ClientPayloadError(f"the answer has more than {ANSWER_MAX_BYTES} bytes")
    return b"".join(pieces)


def _json(raw: bytes) -> dict[str, Any]:
    """Read an object; whatever else a body holds is nothing to anybody."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    return value if isinstance(value, dict) else {}
