"""Dead letters are taken in from every service's queue; the broker lets one go only once it is kept."""

import logging
from datetime import UTC, datetime

from services.reconciler.domain import letters
from services.reconciler.handlers.context import Reconciler
from services.reconciler.store import letters as rows
from shared import telemetry, topology
from shared.bus import Received
from shared.database import connected

logger = logging.getLogger(__name__)

SERVICE_OF = {topology.dead_queue(service): service for service in topology.CONSUMERS}


async def take_in(received: Received, context: Reconciler) -> None:
    """Keep a dead letter, whatever it holds."""
    service = SERVICE_OF[received.queue]
    letter = letters.read(service, kind=received.type, body=received.body, headers=received.headers, now=datetime.now(UTC))

    await rows.keep(context.desk.pool, letter)

    await received.ack()
    facts = {"service": service, "type": letter.message_type, "message_id": str(letter.message_id), "reason": letter.reason[:200]}
    with telemetry.bound({"correlation_id": letter.correlation_id, "order_id": str(letter.order_id or "")}):
        telemetry.say(logger, logging.WARNING, "a dead letter waits for somebody", facts)


async def measure(context: Reconciler) -> None:
    """Show how many wait."""
    async with connected(context.desk.pool) as db:
        counts = await rows.waiting(db)
    telemetry.letters_waiting.clear()
    for service in topology.CONSUMERS:
        telemetry.letters_waiting.labels(service).set(0)
    for service, count, _ in counts:
        telemetry.letters_waiting.labels(service).set(count)
    telemetry.oldest_letter_seconds.set(max((oldest for *_, oldest in counts), default=0.0))


async def forget_old(context: Reconciler) -> None:
    """Delete what was settled longer ago than anybody asks about it."""
    await rows.forget_settled(context.desk.pool, kept_days=context.settings.letters_kept_days)
