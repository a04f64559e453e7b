"""Posting to merchants: signed, without redirects, and never into our own network."""

import socket
import time

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from services.webhooks.handlers.public_addresses import check_address, check_literal
from services.webhooks.providers.standard import sign
from services.webhooks.store.deliveries import Due


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses alone, at the very moment of connecting, so that no later answer can lead elsewhere."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Resolve a name; refuses the whole of it when one of its addresses is private."""
        found = await self._resolver.resolve(host, port, family)
        for each in found:
            check_address(each["host"])
        return found

    async def close(self) -> None:
        """Nothing is held."""
        await self._resolver.close()


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What a merchant's endpoint answered: the status, and the Retry-After header as it came."""

    status: int
    retry_after: str | None


class Messenger:
    """Posts events to merchants' addresses."""

    def __init__(self, *, allow_private: bool, timeout_seconds: float) -> None:
        self._allow_private = allow_private
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def post(self, due: Due) -> Answered:
        """Post one event; gives what was answered, raises OSError, TimeoutError or ClientError when there is none."""
        # The client's own reading of the address: another reader could see another host in it.
        url = URL(due.url)
        if not self._allow_private:
            check_literal(url.host or "")
        if self._session is None:
            resolver = None if self._allow_private else PublicResolver()
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_seconds), connector=aiohttp.TCPConnector(resolver=resolver)
            )
        # A redirect could lead into our own network, and a moved address is the merchant's to change.
        async with self._session.post(url, data=due.body, headers=_signed(due), allow_redirects=False) as answer:
            return Answered(status=answer.status, retry_after=answer.headers.get("Retry-After"))

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()


def _signed(due: Due) -> dict[str, str]:
    event_id, timestamp = str(due.event_id), str(int(time.time()))
    signatures = [sign(secret, event_id=event_id, timestamp=timestamp, body=due.body) for secret in due.secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": "Tender-Webhooks/1",
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signatures),
    }
