"""Tracking: what was seen of a parcel is kept once and worked out anew, in whatever order it comes."""

import logging
from collections.abc import Sequence
from uuid import UUID

from services.fulfillment.domain.shipping.shipments import as_a_whole
from services.fulfillment.domain.shipping.tracking import ENDS, TrackingEvent, history, of_parcel, project, tells_more
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.store import labels, shipments
from services.fulfillment.store import parcels as rows
from services.fulfillment.store.parcels import Parcel
from shared import telemetry
from shared.backoff import trying
from shared.contracts.fulfillment.shipping import (
    PAGE_ROWS_MAX,
    GetTracking,
    ListShipments,
    OrderTracking,
    ShipmentPage,
    TrackingChanged,
)
from shared.database import CONTENDED_ATTEMPTS_MAX, connected
from shared.errors import Contended, Unavailable
from shared.ids import new_id
from shared.messages import Envelope
from shared.provider_answers import OUTCOME_UNKNOWN
from shared.schedule import alone
from shared.work import Batch, Work

logger = logging.getLogger(__name__)

# A look that came to nothing is repeated before the next one is due.
LOOK_SOONER_SECONDS = 300.0


async def take_in(work: Work, context: Fulfillment, parcel: Parcel, events: Sequence[TrackingEvent], *, source: str) -> bool:
    """Keep what was seen of a parcel and say where it is now; gives whether anything of it was new."""
    sights = iter((parcel,))

    async def once() -> bool:
        known = next(sights, None) or await _again(work.envelope, context, parcel)
        batch = work.batch()
        new = await add(batch, work.envelope, context, known, events, source=source)
        if new:
            await batch.commit()
        return new

    return await trying(once, Contended, attempts_max=CONTENDED_ATTEMPTS_MAX)


async def _again(envelope: Envelope, context: Fulfillment, parcel: Parcel) -> Parcel:
    async with connected(context.desk.pool) as db:
        found = await rows.of_order(db, envelope, parcel.order_id)
    return next(each for each in found if (each.label_id, each.position) == (parcel.label_id, parcel.position))


async def add(
    batch: Batch, envelope: Envelope, context: Fulfillment, parcel: Parcel, events: Sequence[TrackingEvent], *, source: str
) -> bool:
    """Have a batch keep what was seen and say where the parcel and its shipment are; gives whether anything was new."""
    new = [*unseen(parcel, events), *_reworded(parcel, events)]
    if not new:
        return False
    seen = [*parcel.events, *new]
    projection = project(seen)
    batch.add(rows.seen(parcel, new, source=source), rows.projected(parcel, projection))
    if projection != parcel.tracking:
        async with connected(context.desk.pool) as db:
            others = await rows.of_order(db, envelope, parcel.order_id)
        if not parcel.is_return:
            statuses = [
                projection.status if (p.label_id, p.position) == (parcel.label_id, parcel.position) else p.tracking.status
                for p in others
                if p.shipment_id == parcel.shipment_id and not p.is_return
            ]
            revision = next(p.shipment_revision for p in others if p.shipment_id == parcel.shipment_id)
            batch.add(shipments.whole_stands(parcel.shipment_id, as_a_whole(statuses).value, revision=revision))
        view = rows.view(parcel, projection, history(seen))
        batch.tell([TrackingChanged(order_id=parcel.order_id, shipment_id=parcel.shipment_id, tracking=view)])
        if projection.alert is not None and projection.alert is not parcel.tracking.alert:
            facts = {"order_id": str(parcel.order_id), "tracking_number": parcel.tracking_number, "alert": projection.alert.value}
            telemetry.say(logger, logging.WARNING, "a parcel needs a look", facts)
    return True


def unseen(parcel: Parcel, events: Sequence[TrackingEvent]) -> list[TrackingEvent]:
    """Choose what is new of a parcel; what was seen of another that bore its number is not."""
    known = {event.key for event in parcel.events}
    of_this = of_parcel(events, made_at=parcel.made_at, followed_at=parcel.followed_at)
    return [event for event in history(of_this) if event.key not in known]


def _reworded(parcel: Parcel, events: Sequence[TrackingEvent]) -> list[TrackingEvent]:
    known = {event.key: event for event in parcel.events}
    return [event for event in history(events) if event.key in known and tells_more(event, known[event.key])]


async def look_for_due(context: Fulfillment) -> None:
    """Ask the carriers for parcels of which no news came for a while; one that cannot be read holds up no other."""
    async with connected(context.desk.pool) as db:
        due = await rows.claim_due(db, again_seconds=context.settings.track_every_seconds)
    for label_id, position, carrier in due:
        facts = {"label_id": str(label_id), "position": str(position), "carrier": carrier}
        if not await alone("look for a parcel", _look_for(context, label_id, position), facts):
            telemetry.tracking_looks_failed.labels(carrier).inc()
            async with connected(context.desk.pool) as db:
                await rows.look_sooner(db, label_id, position, seconds=LOOK_SOONER_SECONDS)


async def _look_for(context: Fulfillment, label_id: UUID, position: int) -> None:
    async with connected(context.desk.pool) as db:
        parcel = await rows.get(db, label_id, position)
    events = await _events_of_carrier(context, parcel)
    await take_in(_work(context, parcel), context, parcel, events, source="poll")
    of_this = of_parcel(events, made_at=parcel.made_at, followed_at=parcel.followed_at)
    if parcel.tracking.status in ENDS or any(event.status in ENDS for event in of_this):
        async with connected(context.desk.pool) as db:
            await rows.looked_after_end(db, parcel)


async def _events_of_carrier(context: Fulfillment, parcel: Parcel) -> Sequence[TrackingEvent]:
    carrier = context.carrier_of_numbers(parcel.store_id, parcel.environment, parcel.carrier)
    if carrier is None or not carrier.capabilities.tracking:
        return []
    try:
        return await carrier.track(parcel.tracking_number, provider_label_id=parcel.provider_label_id)
    except OUTCOME_UNKNOWN as silent:
        raise Unavailable(f"{parcel.tracking_number}: {type(silent).__name__}: {silent}") from silent


def _work(context: Fulfillment, parcel: Parcel) -> Work:
    job_id = new_id()
    envelope = Envelope(
        id=job_id,
        store_id=parcel.store_id,
        environment=parcel.environment,
        source="fulfillment",
        actor="job:tracking",
        correlation_id=str(job_id),
    )
    return Work(context.desk, envelope, kind="job", digest=b"")


async def get_tracking(envelope: Envelope, query: GetTracking, context: Fulfillment) -> OrderTracking:
    """Say where an order's parcels are."""
    async with connected(context.desk.pool) as db:
        parcels = await rows.of_order(db, envelope, query.order_id)
    return OrderTracking(
        order_id=query.order_id,
        status=as_a_whole(parcel.tracking.status for parcel in parcels if not parcel.is_return).value,
        parcels=[rows.view(parcel, parcel.tracking, history(parcel.events)) for parcel in parcels],
    )


async def list_shipments(envelope: Envelope, query: ListShipments, context: Fulfillment) -> ShipmentPage:
    """Read a page of shipments, the newest first."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        found = await shipments.page(
            db,
            envelope,
            order_id=query.order_id,
            status=query.status,
            tracking_status=query.tracking_status,
            before=query.before,
            limit=limit + 1,
        )
        page = found[:limit]
        bought = await labels.of_shipments(db, [each.id for each in page])
    views = [shipments.view(each, [view for view in bought if view.shipment_id == each.id]) for each in page]
    return ShipmentPage(shipments=views, next=page[-1].id if len(found) > limit else None)
