"""What carriers tell by webhook: sights of parcels, and how labels stand."""

from services.fulfillment.domain.shipping.labels import MOVES, LabelStatus
from services.fulfillment.domain.shipping.tracking import TrackingEvent
from services.fulfillment.handlers import tracking, voiding
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.providers import Carrier, CarrierNews
from services.fulfillment.store import labels, parcels
from services.fulfillment.store.parcels import Parcel
from shared.contracts.events import NOT_KNOWN_YET, EventTaken
from shared.contracts.fulfillment.shipping import TakeEvent
from shared.database import connected
from shared.errors import Invalid, Refusal, Retry
from shared.messages import done
from shared.work import Work

# By whom the webhooks of a carrier are sent, where it is not its own name.
SENDERS = {"sandbox-carrier": "sandbox"}


class NotKnownYet(Refusal):
    """Nothing is known of what the carrier speaks of; it may be soon."""

    code = NOT_KNOWN_YET
    title = "This parcel or label is not known"
    status = 404
    retry = Retry.AFTER


class EventUnreadable(Invalid):
    """The adapter cannot read the event; a later release may be able to."""

    code = "event-unreadable"
    title = "The event cannot be read"
    retry = Retry.AFTER


async def take_event(work: Work, command: TakeEvent, context: Fulfillment) -> None:
    """Take in a carrier's event; again it changes nothing."""
    carrier = context.carrier(work.envelope, SENDERS.get(command.provider, command.provider))
    try:
        news = carrier.read_event(command.event_type, command.payload.encode())
    except ValueError as unfit:
        raise EventUnreadable(str(unfit), {"provider": command.provider, "event_type": command.event_type}) from unfit
    if news.label_status is not None:
        taken = await _label_stands(work, context, carrier, news)
    elif news.events:
        taken = await _seen(work, context, carrier, news)
    else:
        taken = EventTaken(result="ignored")
    batch = work.batch()
    batch.conclude(done(taken))
    await batch.commit()


async def _seen(work: Work, context: Fulfillment, carrier: Carrier, news: CarrierNews) -> EventTaken:
    by_number: dict[str, list[TrackingEvent]] = {}
    for event in news.events:
        by_number.setdefault(event.tracking_number, []).append(event)
    found: list[tuple[Parcel, list[TrackingEvent]]] = []
    async with connected(context.desk.pool) as db:
        for number, events in by_number.items():
            seen_at = min(event.occurred_at for event in events)
            parcel = await parcels.by_number(db, work.envelope, carrier.carrier, number, seen_at=seen_at)
            if parcel is None:
                raise NotKnownYet(f"No parcel of ours bears the number {number}.", {"tracking_number": number})
            found.append((parcel, events))
    new = [await tracking.take_in(work, context, parcel, events, source="webhook") for parcel, events in found]
    return EventTaken(result="applied" if any(new) else "unchanged", order_id=found[0][0].order_id)


async def _label_stands(work: Work, context: Fulfillment, carrier: Carrier, news: CarrierNews) -> EventTaken:
    status, name = news.label_status, news.provider_label_id
    assert status is not None, "it was looked at before"
    async with connected(context.desk.pool) as db:
        label = None if name is None else await labels.by_provider_id(db, work.envelope, carrier.name, name)
    if label is None or label.status == "buying":
        raise NotKnownYet(f"No label of ours is {name}.", {"provider_label_id": name})
    now = LabelStatus(label.status)
    if status is now or status not in MOVES[now]:
        return EventTaken(result="unchanged", order_id=label.order_id)
    await voiding.decided(work, context, label, status)
    return EventTaken(result="applied", order_id=label.order_id)
