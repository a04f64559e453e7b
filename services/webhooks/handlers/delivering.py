"""Delivering to the merchant: what is due, what came of it, and when it is tried again."""

import asyncio
import logging
import random
from uuid import UUID

import aiohttp

from services.webhooks.domain import delivery_again_seconds
from services.webhooks.handlers.context import Webhooks
from services.webhooks.store import merchants
from services.webhooks.store.merchants import Due
from shared import telemetry

logger = logging.getLogger(__name__)

# Longer than a try takes, so that nobody else makes it meanwhile.
LEASE_SECONDS = 60.0
GONE = 410


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
