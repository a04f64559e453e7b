"""Telling the merchant: what happened becomes an event with a number of its order, and a delivery for each address."""

import msgspec

from services.webhooks.handlers.context import Webhooks
from services.webhooks.store import merchants
from shared.contracts.payments import IntentChanged
from shared.contracts.webhooks import PAGE_ROWS_MAX, CatchUp, MerchantEvent, MerchantEvents
from shared.database import connected
from shared.errors import NotFound
from shared.messages import Envelope, done
from shared.work import Work


async def tell_of_payment(work: Work, event: IntentChanged, context: Webhooks) -> None:
    """Tell what became of a payment; what is older than was told before is left away."""
    intent = event.intent
    kind = f"payment.{intent.status}"
    ground = await merchants.ground(context.desk.rows, work.envelope, order_id=intent.order_id, subject_id=intent.id, kind=kind)
    batch = work.batch()
    if intent.version > ground.version:
        told = MerchantEvent(
            id=work.envelope.id,
            type=kind,
            order_id=intent.order_id,
            sequence=ground.last + 1,
            created_at=ground.now,
            data=msgspec.Raw(msgspec.json.encode({"payment": intent, "order_status": event.order_status})),
        )
        batch.add(*merchants.told(work.envelope, told, subject_id=intent.id, version=intent.version, endpoint_ids=ground.endpoints))
    batch.conclude(done({"told": intent.version > ground.version}))
    await batch.commit()
    if ground.endpoints:
        context.wake_deliveries()


async def catch_up(envelope: Envelope, query: CatchUp, context: Webhooks) -> MerchantEvents:
    """Read what happened after an event, the oldest first."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        if query.after is not None and not await merchants.known(db, envelope, query.after):
            raise NotFound(f"There is no event {query.after}, or no longer.")
        found = await merchants.after(db, envelope, query.after, limit=limit)
    return MerchantEvents(events=found, next=found[-1].id if len(found) == limit else None)
