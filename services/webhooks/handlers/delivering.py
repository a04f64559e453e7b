"""Delivering to the merchant: what is due, what came of it, and when it is tried again."""

import logging
import random
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from services.webhooks.domain import (
    DELIVERIES_OUT_PER_ENDPOINT_MAX,
    DELIVERIES_OUT_PER_STORE_MAX,
    DELIVERIES_OUT_PER_STORE_TIMING_OUT_MAX,
    delivery_again_seconds,
    retry_after_seconds,
)
from services.webhooks.handlers.context import Webhooks
from services.webhooks.handlers.posting import error_class
from services.webhooks.handlers.signing_secrets import SecretOwner, SigningSecretClosed
from services.webhooks.store import deliveries, merchants
from services.webhooks.store.deliveries import Due, Failure, Share
from shared import telemetry
from shared.outbound import OutboundCallFailed, OutboundFailure

logger = logging.getLogger(__name__)

# Longer than a try takes with everything around it, so that nobody else makes it meanwhile.
LEASE_TIMEOUTS = 3
GONE = 410
# What merchants read of a delivery that could not be signed.
SECRET_CLOSED = "signing_secret_unavailable"
SHARE = Share(
    per_endpoint=DELIVERIES_OUT_PER_ENDPOINT_MAX,
    per_store=DELIVERIES_OUT_PER_STORE_MAX,
    per_store_timing_out=DELIVERIES_OUT_PER_STORE_TIMING_OUT_MAX,
)


async def deliver_due(context: Webhooks) -> None:
    """Set out with every delivery that is due, as far as there is room; whoever comes back makes room for more."""
    out = context.deliveries_out
    while out.room:
        due = await deliveries.claim_due(
            context.desk.pool,
            limit=out.room,
            share=SHARE,
            out=out.by_endpoint,
            lease_seconds=LEASE_TIMEOUTS * context.settings.delivery_timeout_seconds,
        )
        if not due:
            return
        for each in due:
            out.start(_deliver(context, each), endpoint_id=each.endpoint_id, endpoint_max=each.endpoint_max, store_id=each.store_id)


async def _deliver(context: Webhooks, due: Due) -> None:
    facts = {"correlation_id": due.correlation_id, "event_id": str(due.event_id), "endpoint_id": str(due.endpoint_id)}
    with telemetry.bound(facts):
        await _try(context, due)


async def _try(context: Webhooks, due: Due) -> None:
    status: int | None = None
    wait_seconds: float | None = None
    timed_out = False
    try:
        answer = await context.messenger.post(_opened(context, due))
        status, wait_seconds = answer.status, retry_after_seconds(answer.retry_after, now=datetime.now(UTC))
        error, text = error_class(status), f"answered {status}"
    except OutboundCallFailed as failed:
        error, text = failed.failure.value, str(failed)
        timed_out = failed.failure is OutboundFailure.TIMED_OUT
    except SigningSecretClosed as closed:
        error, text = SECRET_CLOSED, str(closed)
    if status is not None and 200 <= status < 300:
        held = await deliveries.mark_delivered(context.desk.pool, due, status=status)
        _count("delivered", held=held)
        return
    telemetry.say(logger, logging.WARNING, "the merchant has not taken an event", {"try": due.attempt_count + 1, "error": text})
    pause = delivery_again_seconds(due.attempt_count, spread=random.random())
    failure = Failure(status=status, error=error, timed_out=timed_out, retry_after_seconds=wait_seconds)
    again_seconds = None if pause is None else max(pause, wait_seconds or 0.0)
    held = await deliveries.mark_undelivered(context.desk.pool, due, failure, again_seconds=again_seconds)
    _count("failed", held=held)
    if held and status == GONE:
        await _disable(context, due.endpoint_id, "it answered 410 Gone")


def _opened(context: Webhooks, due: Due) -> Due:
    owner = SecretOwner(store_id=due.store_id, environment=due.environment, endpoint_id=due.endpoint_id)
    return msgspec.structs.replace(due, secrets=[context.signing_secrets.open(each, owner) for each in due.secrets])


def _count(result: str, *, held: bool) -> None:
    telemetry.merchant_deliveries.labels(result if held else "superseded").inc()
    if not held:
        telemetry.say(logger, logging.WARNING, "another sender makes this delivery; its result is not written", {"result": result})


async def disable_failing(context: Webhooks) -> None:
    """Stop telling addresses that have taken nothing for days."""
    for endpoint_id in await merchants.failing_long(context.desk.pool, after_seconds=context.settings.disable_after_seconds):
        await _disable(context, endpoint_id, "it has taken nothing for too long")


async def _disable(context: Webhooks, endpoint_id: UUID, why: str) -> None:
    if await merchants.disable(context.desk.pool, endpoint_id, why=why):
        telemetry.merchant_endpoints_disabled.inc()
        telemetry.say(logger, logging.ERROR, "a merchant's endpoint is disabled", {"endpoint_id": str(endpoint_id), "reason": why})
