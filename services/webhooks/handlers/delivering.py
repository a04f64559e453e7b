"""Delivering to the merchant: what is due, what came of it, and when it is tried again."""

import logging
import random
from uuid import UUID

from services.webhooks.domain import delivery_again_seconds
from services.webhooks.handlers.context import Webhooks
from services.webhooks.handlers.posting import error_class
from services.webhooks.store import deliveries, merchants
from services.webhooks.store.deliveries import Due
from shared import telemetry
from shared.outbound import OutboundCallFailed

logger = logging.getLogger(__name__)

# Longer than a try takes with everything around it, so that nobody else makes it meanwhile.
LEASE_TIMEOUTS = 3
GONE = 410


async def deliver_due(context: Webhooks) -> None:
    """Set out with every delivery that is due, as far as there is room; whoever comes back makes room for more."""
    out = context.deliveries_out
    while out.room:
        due = await deliveries.take_due(
            context.desk.pool,
            limit=out.room,
            per_endpoint=out.per_endpoint_max,
            out=out.by_endpoint,
            lease_seconds=LEASE_TIMEOUTS * context.settings.delivery_timeout_seconds,
        )
        if not due:
            return
        for each in due:
            out.start(each.endpoint_id, _deliver(context, each))


async def _deliver(context: Webhooks, due: Due) -> None:
    facts = {"correlation_id": due.correlation_id, "event_id": str(due.event_id), "endpoint_id": str(due.endpoint_id)}
    with telemetry.bound(facts):
        await _try(context, due)


async def _try(context: Webhooks, due: Due) -> None:
    status: int | None = None
    try:
        status = await context.messenger.post(due)
        error, text = error_class(status), f"answered {status}"
    except OutboundCallFailed as failed:
        error, text = failed.failure.value, str(failed)
    if status is not None and 200 <= status < 300:
        telemetry.merchant_deliveries.labels("delivered").inc()
        await deliveries.delivered(context.desk.pool, due, status=status)
        return
    telemetry.merchant_deliveries.labels("failed").inc()
    telemetry.say(logger, logging.WARNING, "the merchant has not taken an event", {"try": due.attempt_count + 1, "error": text})
    pause = delivery_again_seconds(due.attempt_count, spread=random.random())
    await deliveries.undelivered(context.desk.pool, due, status=status, error=error, again_seconds=pause)
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
