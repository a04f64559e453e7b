"""Telling the merchant: what happened becomes an event with a number of its order, and a delivery for each address."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from services.webhooks.handlers.context import Webhooks
from services.webhooks.store import merchants
from services.webhooks.store.merchants import Ground, Telling
from shared.contracts.payments import IntentChanged
from shared.contracts.webhooks import PAGE_ROWS_MAX, CatchUp, MerchantEvent, MerchantEvents
from shared.database import connected
from shared.errors import NotFound
from shared.inbox import all_finished
from shared.messages import Envelope, done, encode_reply
from shared.work import Work


async def tell_of_payment(work: Work, event: IntentChanged, context: Webhooks) -> None:
    """Tell what became of a payment; what is older than was told before is left away."""
    [ground] = await merchants.grounds(context.desk.pool, [_asked(work, event)])
    batch = work.batch()
    news = _is_news(event, ground)
    if news:
        batch.add(*merchants.told([_telling(work, event, ground)]))
    batch.conclude(done({"told": news}))
    await batch.commit()
    if ground.endpoints:
        context.wake_deliveries()


async def tell_of_payments(works: Sequence[Work], events: Sequence[IntentChanged], context: Webhooks) -> list[bool]:
    """Tell what became of payments of different orders, with one read and one write."""
    grounds = await merchants.grounds(context.desk.pool, [_asked(work, event) for work, event in zip(works, events, strict=True)])
    news = [_is_news(event, ground) for event, ground in zip(events, grounds, strict=True)]
    told = [(work, _telling(work, event, ground)) for work, event, ground, new in zip(works, events, grounds, news, strict=True) if new]
    if told:
        finished = all_finished([(work.envelope, work.digest) for work, _ in told], works[0].kind, encode_reply(done({"told": True})))
        await context.desk.groups.write([*merchants.told([telling for _, telling in told]), finished])
    if any(telling.endpoint_ids for _, telling in told):
        context.wake_deliveries()
    return news


def _asked(work: Work, event: IntentChanged) -> tuple[Envelope, UUID, UUID, str]:
    return work.envelope, event.intent.order_id, event.intent.id, _kind_of(event)


def _is_news(event: IntentChanged, ground: Ground) -> bool:
    # That a refund failed is told once, however late: no later event says it.
    return event.intent.version > ground.version or bool(event.failed_refunds)


def _kind_of(event: IntentChanged) -> str:
    # The status of a payment does not say that a refund of it came to nothing.
    return "payment.refund_failed" if event.failed_refunds else f"payment.{event.intent.status}"


def _telling(work: Work, event: IntentChanged, ground: Ground) -> Telling:
    intent = event.intent
    data: dict[str, Any] = {"payment": intent, "order_status": event.order_status}
    if event.failed_refunds:
        data["failed_refunds"] = event.failed_refunds
    told = MerchantEvent(
        id=work.envelope.id,
        type=_kind_of(event),
        order_id=intent.order_id,
        sequence=ground.last + 1,
        created_at=ground.now,
        data=msgspec.Raw(msgspec.json.encode(data)),
    )
    return Telling(envelope=work.envelope, event=told, subject_id=intent.id, version=intent.version, endpoint_ids=ground.endpoints)


async def catch_up(envelope: Envelope, query: CatchUp, context: Webhooks) -> MerchantEvents:
    """Read what happened after an event, the oldest first."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        if query.after is not None and not await merchants.known(db, envelope, query.after):
            raise NotFound(f"There is no event {query.after}, or no longer.")
        found = await merchants.after(db, envelope, query.after, limit=limit)
    return MerchantEvents(events=found, next=found[-1].id if len(found) == limit else None)
