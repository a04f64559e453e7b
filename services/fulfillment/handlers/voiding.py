"""Giving labels back: asked for once, and what the carrier decides later is taken in later."""

from collections.abc import Sequence

from services.fulfillment.domain.shipping.labels import LabelFinal, LabelStatus, moved
from services.fulfillment.domain.shipping.tracking import TrackingEvent, TrackingStatus
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.handlers.labels import audited, read
from services.fulfillment.handlers.tracking import take_in
from services.fulfillment.providers import (
    CarrierRefused,
)
from services.fulfillment.store import labels as rows
from services.fulfillment.store import parcels as parcel_rows
from services.fulfillment.store import shipments
from services.fulfillment.store.labels import Label
from shared.backoff import step
from shared.contracts.fulfillment.shipping import (
    LabelChanged,
    LabelView,
    VoidLabel,
)
from shared.database import connected
from shared.http_client import Call, recorded
from shared.messages import Envelope, done
from shared.provider_answers import OUTCOME_UNKNOWN
from shared.work import Work

# A void that the carrier has not decided is asked about so often; some take days.
VOID_LOOKS_SECONDS = (1.0, 10.0, 60.0, 600.0, 3600.0)


async def void_label(work: Work, command: VoidLabel, context: Fulfillment) -> None:
    """Give a label back; what the carrier decides later is told later."""
    label = await read(context, work.envelope, command.order_id, command.label_id)
    if label.status in ("buying", "failed"):
        raise LabelFinal(f"A label that is {label.status} cannot be given back.", {"label_status": label.status})
    status = LabelStatus(label.status)
    if status not in (LabelStatus.VOID_REQUESTED, LabelStatus.REFUNDED):
        moved(status, LabelStatus.VOID_REQUESTED)
        batch = work.batch()
        batch.add(
            rows.stands(label, LabelStatus.VOID_REQUESTED.value, again_seconds=context.settings.lease_seconds),
            shipments.happened(work.envelope, label.shipment_id, label.order_id, event="void_requested", label_id=label.id),
        )
        await batch.commit()
        label = await read(context, work.envelope, command.order_id, command.label_id)
        label = await ask_void(work, context, label)
    shown = await shown_with_numbers(context, work.envelope, label)
    batch = work.batch()
    batch.conclude(done(shown))
    await batch.commit()


async def ask_void(work: Work, context: Fulfillment, label: Label) -> Label:
    """Ask the carrier to take a label back, as often as it takes; gives the label as it stands then."""
    carrier = context.carrier(label.envelope(), label.carrier)
    assert label.provider_label_id is not None, "only what was bought is given back"
    with recorded() as calls:
        try:
            status = await carrier.void(label.provider_label_id, reference=label.id)
            if status is LabelStatus.PURCHASED:
                status = LabelStatus.VOID_REQUESTED
        except OUTCOME_UNKNOWN:
            batch = work.batch()
            batch.add(rows.looked(label, again_seconds=step(VOID_LOOKS_SECONDS, label.looks)), *audited(label, calls))
            await batch.commit()
            context.wake_resolver()
            return label
        except CarrierRefused as refused:
            return await decided(work, context, label, LabelStatus.REJECTED, calls, reason=f"{refused.code}: {refused.detail}")
    return await decided(work, context, label, status, calls)


async def decided(
    work: Work, context: Fulfillment, label: Label, status: LabelStatus, calls: Sequence[Call] = (), *, reason: str = ""
) -> Label:
    """Remember what the carrier says to a void; a label that is taken back is on no parcel that should move."""
    if status.value == label.status:
        batch = work.batch()
        batch.add(rows.looked(label, again_seconds=step(VOID_LOOKS_SECONDS, label.looks)), *audited(label, calls))
        await batch.commit()
        return label
    moved(LabelStatus(label.status), status)
    if status is LabelStatus.REFUNDED:
        # First, and at a time that stays the same: whoever dies before the label says so does it again, and it counts once.
        await _cancel_parcels(work, context, label)
    now = rows.after(label, status, None, reason=reason)
    batch = work.batch()
    batch.add(
        rows.stands(label, status.value, reason=reason),
        shipments.happened(
            work.envelope, label.shipment_id, label.order_id, event=f"label_{status.value}", label_id=label.id, detail=reason
        ),
        *audited(label, calls),
    )
    batch.tell([LabelChanged(order_id=label.order_id, label=await shown_with_numbers(context, label.envelope(), now))])
    await batch.commit()
    return now


async def _cancel_parcels(work: Work, context: Fulfillment, label: Label) -> None:
    async with connected(context.desk.pool) as db:
        parcels = await parcel_rows.of_order(db, label.envelope(), label.order_id)
    for parcel in parcels:
        if parcel.label_id == label.id:
            cancelled = TrackingEvent(
                carrier=parcel.carrier,
                tracking_number=parcel.tracking_number,
                occurred_at=label.updated_at,
                status=TrackingStatus.CANCELLED,
                code="label_voided",
                detail="The label was given back",
            )
            await take_in(work, context, parcel, [cancelled], source="label")


async def shown_with_numbers(context: Fulfillment, envelope: Envelope, label: Label) -> LabelView:
    """Show a label with its parcels' numbers."""
    async with connected(context.desk.pool) as db:
        parcels = await parcel_rows.of_order(db, envelope, label.order_id)
    return rows.view(label, [parcel.tracking_number for parcel in parcels if parcel.label_id == label.id])
