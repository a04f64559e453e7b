"""Delivering to the merchant: signed, tried for three days, and never into our own network."""

import asyncio
import ipaddress
import logging
import random
import socket
import time
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from services.webhooks.domain import delivery_again_seconds
from services.webhooks.handlers.context import Webhooks
from services.webhooks.providers.standard import sign
from services.webhooks.store import merchants
from services.webhooks.store.merchants import Due
from shared import telemetry

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
# Longer than a try takes, so that nobody else makes it meanwhile.
LEASE_SECONDS = 60.0
GONE = 410


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

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._session: aiohttp.ClientSession | None = None

    async def post(self, due: Due) -> int:
        """Post one event; gives the status, raises OSError, TimeoutError or ClientError when there is none."""
        if not self._allow_private:
            _check_literal(urlsplit(due.url).hostname or "")
        if self._session is None:
            resolver = None if self._allow_private else PublicResolver()
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS), connector=aiohttp.TCPConnector(resolver=resolver)
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


async def deliver_due(context: Webhooks) -> None:
    """Make every delivery that is due, those that become due meanwhile too."""
    while due := await merchants.take_due(context.desk.pool, lease_seconds=LEASE_SECONDS):
        await asyncio.gather(*(_deliver(context, each) for each in due))


async def _deliver(context: Webhooks, due: Due) -> None:
    status: int | None = None
    try:
        status = await context.messenger.post(due)
        error = f"answered {status}"
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as failed:
        error = f"{type(failed).__name__}: {failed}"
    if status is not None and 200 <= status < 300:
        telemetry.merchant_deliveries.labels("delivered").inc()
        await merchants.delivered(context.desk.pool, due, status=status)
        return
    telemetry.merchant_deliveries.labels("failed").inc()
    pause = delivery_again_seconds(due.attempt_count, spread=random.random())
    await merchants.undelivered(context.desk.pool, due, status=status, error=error, again_seconds=pause)
    if status == GONE:
        await _disable(context, due.endpoint_id, "it answered 410 Gone")


async def disable_failing(context: Webhooks) -> None:
    """Stop telling addresses that have taken nothing for days."""
    for endpoint_id in await merchants.failing_long(context.desk.pool, after_seconds=context.settings.disable_after_seconds):
        await _disable(context, endpoint_id, "it has taken nothing for too long")


async def _disable(context: Webhooks, endpoint_id: UUID, why: str) -> None:
    if await merchants.disable(context.desk.pool, endpoint_id, why=why):
        telemetry.merchant_endpoints_disabled.inc()
        telemetry.say(logger, logging.ERROR, "a merchant's endpoint is disabled", {"endpoint_id": str(endpoint_id), "reason": why})
