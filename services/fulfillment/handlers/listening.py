"""What carriers tell by webhook: sights of parcels, and how labels stand."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar
from uuid import UUID

import msgspec

from services.fulfillment.domain.shipping.labels import MOVES, LabelStatus
from services.fulfillment.domain.shipping.tracking import TrackingEvent
from services.fulfillment.handlers import tracking, voiding
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.providers import Carrier, CarrierNews
from services.fulfillment.store import labels, parcels
from services.fulfillment.store.parcels import Parcel
from shared.contracts.events import NOT_KNOWN_YET, EventTaken
from shared.contracts.fulfillment.shipping import TakeEvent
from shared.database import Connection, connected
from shared.errors import Invalid, Refusal, Retry, Unavailable
from shared.ids import NOBODY
from shared.messages import done
from shared.provider_answers import OUTCOME_UNKNOWN
from shared.provider_values import UNFIT
from shared.work import Work

# By whom the webhooks of a carrier are sent, where it is not its own name.
SENDERS = {"sandbox-carrier": "sandbox"}

T = TypeVar("T")


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


class EventUnconfirmed(Invalid):
    """The carrier does not show what an event says: it may lag behind, or never have sent it."""

    code = "event-unconfirmed"
    title = "The carrier does not confirm this event"
    retry = Retry.AFTER


async def take_event(work: Work, command: TakeEvent, context: Fulfillment) -> None:
    """Take in a carrier's event; again it changes nothing.

    The service that hands it on faces the public, so its word changes nothing: news is read from the carrier.
    """
    carrier = context.carrier(work.envelope, SENDERS.get(command.provider, command.provider))
    news = _read(carrier, command)
    if work.envelope.store_id == NOBODY:
        owner = await _owner(work, context, carrier, news, told_at=command.received_at)
        work = work if owner is None else work.of_store(owner)
    if news.label_status is not None:
        taken = await _label_stands(work, context, carrier, news, told_at=command.received_at)
    elif news.events:
        taken = await _seen(work, context, carrier, news, told_at=command.received_at)
    else:
        taken = EventTaken(result="ignored")
    batch = work.batch()
    about = work.envelope.store_id if taken.order_id is not None else None
    batch.conclude(done(msgspec.structs.replace(taken, store_id=about)))
    await batch.commit()


async def _owner(work: Work, context: Fulfillment, carrier: Carrier, news: CarrierNews, *, told_at: datetime) -> UUID | None:
    """Find the store whose label or parcel an event of the installation's account is about."""
    environment = work.envelope.environment
    async with connected(context.desk.pool) as db:
        if news.label_status is not None:
            found = await labels.stores_by_provider_id(db, environment, carrier.name, news.provider_label_id)
        else:
            numbers = {event.tracking_number for event in news.events}
            # A history may begin with another parcel's that bore the number: the news is of the last.
            seen_at = max((event.occurred_at for event in news.events), default=told_at)
            named = await labels.stores_by_provider_id(db, environment, carrier.name, news.provider_label_id)
            found = named or await parcels.stores_by_number(db, environment, carrier.carrier, numbers, seen_at=seen_at)
            # Another account of the carrier may use the same numbers.
            found = [each for each in found if context.ships_by(each, environment, carrier)]
    return next(iter(found), None)


def _read(carrier: Carrier, command: TakeEvent) -> CarrierNews:
    try:
        return carrier.read_event(command.event_type, command.payload.encode())
    except UNFIT as unfit:
        raise EventUnreadable(f"{command.event_type} of {command.provider}: {unfit}") from unfit


async def _seen(work: Work, context: Fulfillment, carrier: Carrier, news: CarrierNews, *, told_at: datetime) -> EventTaken:
    by_number: dict[str, list[TrackingEvent]] = {}
    for event in news.events:
        by_number.setdefault(event.tracking_number, []).append(event)
    found: list[tuple[Parcel, list[TrackingEvent]]] = []
    async with connected(context.desk.pool) as db:
        for number, events in by_number.items():
            find = partial(parcels.by_number, db, work.envelope, carrier.carrier, number, provider_label_id=news.provider_label_id)
            bearing = await _found(db, work, carrier, find, f"No parcel of ours bears the number {number}.", told_at=told_at)
            found += [(parcel, events) for parcel in bearing or ()]
    if not found:
        return EventTaken(result="ignored", reason="No parcel of ours bears its number.")
    new = [
        await tracking.take_in(work, context, parcel, await _shown(carrier, parcel, events), source="webhook") for parcel, events in found
    ]
    about = next((parcel for (parcel, _), changed in zip(found, new, strict=True) if changed), found[0][0])
    return EventTaken(result="applied" if any(new) else "unchanged", order_id=about.order_id)


async def _shown(carrier: Carrier, parcel: Parcel, events: Sequence[TrackingEvent]) -> Sequence[TrackingEvent]:
    """Read what the carrier shows of a parcel, where an event says something new of it."""
    if not tracking.unseen(parcel, events):
        return ()
    shown = await _answer_of(carrier.track(parcel.tracking_number, provider_label_id=parcel.provider_label_id))
    if not tracking.unseen(parcel, shown):
        raise EventUnconfirmed(f"The carrier shows nothing new of {parcel.tracking_number}.")
    return shown


async def _answer_of(call: Awaitable[T]) -> T:
    try:
        return await call
    except OUTCOME_UNKNOWN as silent:
        raise Unavailable(f"the carrier did not answer: {type(silent).__name__}: {silent}") from silent


async def _found(
    db: Connection, work: Work, carrier: Carrier, find: Callable[[], Awaitable[T | None]], missing: str, *, told_at: datetime
) -> T | None:
    """Find what is meant; nothing when it is a stranger's. Raises NotKnownYet where that may change."""
    found = await find()
    if found:
        return found
    if await labels.any_being_bought(db, work.envelope, carrier.name, told_at=told_at):
        raise NotKnownYet(missing)
    return await find()  # It may have become known in between.


async def _label_stands(work: Work, context: Fulfillment, carrier: Carrier, news: CarrierNews, *, told_at: datetime) -> EventTaken:
    status, name = news.label_status, news.provider_label_id
    assert status is not None, "it was looked at before"
    assert name is not None, "adapters tell of labels by their names"
    missing = f"No label of ours is {name}."
    async with connected(context.desk.pool) as db:
        find = partial(labels.by_provider_id, db, work.envelope, carrier.name, name)
        label = await _found(db, work, carrier, find, missing, told_at=told_at)
    if label is None:
        return EventTaken(result="ignored", reason=missing)
    if label.status == "buying":
        raise NotKnownYet(missing)
    now = LabelStatus(label.status)
    if status is now or status not in MOVES[now]:
        return EventTaken(result="unchanged", order_id=label.order_id)
    books = context.label_books(label.store_id, label.environment, carrier.name)
    record = None if books is None else await _answer_of(books.get_label(name))
    if record is None or record.status is not status:
        raise EventUnconfirmed(f"The carrier does not show that the label {name} is {status.value}.")
    await voiding.decided(work, context, label, status)
    return EventTaken(result="applied", order_id=label.order_id)
