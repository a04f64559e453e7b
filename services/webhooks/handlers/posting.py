"""Posting to merchants: signed, without redirects, and never into our own network."""

import ipaddress
import socket
import time
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from services.webhooks.providers.standard import sign
from services.webhooks.store.deliveries import Due


class Forbidden(OSError):
    """An address lies in a private network, ours perhaps."""


def check_address(host: str) -> None:
    """Refuse an IP address that is not a public one."""
    address = ipaddress.ip_address(host)
    inside = getattr(address, "ipv4_mapped", None) or address
    if not inside.is_global or inside.is_multicast:
        raise Forbidden(f"{host} is not a public address")


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


class Messenger:
    """Posts events to merchants' addresses."""

    def __init__(self, *, allow_private: bool, timeout_seconds: float) -> None:
        self._allow_private = allow_private
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def post(self, due: Due) -> int:
        """Post one event; gives the status, raises OSError, TimeoutError or ClientError when there is none."""
        if not self._allow_private:
            _check_literal(urlsplit(due.url).hostname or "")
        if self._session is None:
            resolver = None if self._allow_private else PublicResolver()
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_seconds), connector=aiohttp.TCPConnector(resolver=resolver)
            )
        # A redirect could lead into our own network, and a moved address is the merchant's to change.
        async with self._session.post(due.url, data=due.body, headers=_signed(due), allow_redirects=False) as answer:
            return answer.status

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()


def _check_literal(host: str) -> None:
    # A literal address is never resolved.
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    check_address(host)


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
