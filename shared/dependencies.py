"""The servers a process depends on: waiting for them aloud, and giving up at once on what waiting cannot mend."""

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared import telemetry
from shared.backoff import reconnecting
from shared.errors import Clear
from shared.server_urls import parts_of
from shared.stopping import stop

logger = logging.getLogger(__name__)

# How long a server may be silent before the log says so the first time, and how often it is said again.
FIRST_WARNING_SECONDS = 1.0
WARNING_INTERVAL_SECONDS = 30.0

R = TypeVar("R")


class Misconfigured(Clear):
    """An address, a credential, a certificate or a right is wrong; waiting does not mend it, and the text says which it is."""


class Throttle:
    """Decides when to warn of something that lasts: the first time, and then every so often."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._last_at: float | None = None

    def due(self) -> bool:
        """Whether to warn now."""
        now = time.monotonic()
        if self._last_at is not None and now - self._last_at < self._interval_seconds:
            return False
        self._last_at = now
        return True

    def over(self) -> bool:
        """Have the next warning at once; tells whether there was one."""
        warned, self._last_at = self._last_at is not None, None
        return warned


class Dependency:
    """One server that this process needs: whether it answers, and a warning in the log for as long as it does not."""

    def __init__(self, what: str, where: str, *, user: str = "") -> None:
        self.what = what
        self.where = where
        self.trouble: str | None = "not connected yet"
        self._facts = {"where": where, **({"for": user} if user else {})}
        self._warning = Throttle(WARNING_INTERVAL_SECONDS)

    def failed(self, reason: str) -> None:
        """Take note of a failed attempt; warns the first time, and then every `WARNING_INTERVAL_SECONDS`."""
        self.trouble = reason
        if self._warning.due():
            telemetry.say(logger, logging.WARNING, f"waiting for the {self.what}", {**self._facts, "reason": reason})

    def answered(self) -> None:
        """Take note that it answers; says so when a warning went before."""
        self.trouble = None
        if self._warning.over():
            telemetry.say(logger, logging.INFO, f"no longer waiting for the {self.what}", self._facts)

    async def connected(self, connect: Callable[[], Awaitable[R]], *errors: type[BaseException]) -> R:
        """Try to connect until it works. Raises Misconfigured on what waiting cannot mend; these errors mean that waiting may."""
        warning = asyncio.create_task(self._warn())
        try:
            async for attempt in reconnecting(*errors):
                with attempt:
                    made = await self._attempt(connect, *errors)
                    self.answered()
                    return made
        finally:
            await stop(warning)
        raise AssertionError("attempts go on until one returns")

    async def _attempt(self, connect: Callable[[], Awaitable[R]], *errors: type[BaseException]) -> R:
        try:
            return await connect()
        except Misconfigured as wrong:
            raise Misconfigured(f"the {self.what} at {self.where}: {wrong}") from wrong
        except errors as failure:
            self.failed(reason_of(failure))
            raise

    async def _warn(self) -> None:
        # A server that takes the connection and is silent fails no attempt for seconds.
        await asyncio.sleep(FIRST_WARNING_SECONDS)
        while True:
            self.failed(self.trouble or "no answer")
            await asyncio.sleep(WARNING_INTERVAL_SECONDS)


def reason_of(failure: BaseException) -> str:
    """Say what went wrong in one line, with the error's name where its text alone would not tell."""
    text = " ".join(str(failure).split())
    return f"{type(failure).__name__}: {text}" if text else type(failure).__name__


def where_of(url: str) -> str:
    """Say which servers a URL names, and what in them, without who logs in."""
    parts = parts_of(url)
    return ",".join(parts.hosts) + parts.rest.partition("?")[0]


def nodes_of(url: str) -> list[str]:
    """List one URL for each node that a URL names, `amqp://user:password@a:5672,b:5672/vhost`; all nodes are of one cluster."""
    parts = parts_of(url)
    return [f"{parts.scheme}://{parts.login}{host}{parts.rest}" for host in parts.hosts]


def certificate_trouble(failure: BaseException) -> str | None:
    """Say what is wrong with our certificates or theirs when that is why a connection failed."""
    cause: BaseException | None = failure
    seen: set[int] = set()
    # Libraries make circles of causes.
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, (ssl.SSLEOFError, ssl.SSLSyscallError, ssl.SSLZeroReturnError)):
            return f"TLS: {reason_of(cause)}"
        cause = cause.__cause__ or cause.__context__
    return None
