"""Shipping: labels, their documents, and where parcels are."""

from datetime import datetime
from uuid import UUID

import msgspec

from shared.contracts.calls import TriedCall
from shared.contracts.customs import CustomsTerms, DeliveryConfirmation
from shared.messages import Event, Message, Query

PAGE_ROWS_MAX = 200


# Labels and tracking


class BuyLabel(Message, frozen=True, kw_only=True, tag="fulfillment.buy_label.v1"):
    """Buy the label of an order's shipment, or one for its way back."""

    order_id: UUID
    snapshot_id: UUID | None = None
    rate_id: UUID | None = None
    service: str | None = None
    document: str = "pdf"
    insured_amount: int | None = None
    is_return: bool = False
    customs: CustomsTerms | None = None
    delivery_confirmation: DeliveryConfirmation | None = None


class VoidLabel(Message, frozen=True, kw_only=True, tag="fulfillment.void_label.v1"):
    """Give a label back that will not be used."""

    order_id: UUID
    label_id: UUID


class GetDocument(Query, frozen=True, kw_only=True, tag="fulfillment.get_document.v1"):
    """Read a label's printed form."""

    order_id: UUID
    label_id: UUID
    package: int = 0


class DocumentView(msgspec.Struct, frozen=True, kw_only=True):
    """A label's printed form, in base64."""

    media_type: str
    content: bytes


class TrackingEventView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was seen of a parcel."""

    occurred_at: datetime
    status: str
    code: str
    detail: str
    location: str
    # The carrier gave the time without its zone, so it was taken for UTC.
    zone_assumed: bool = False


class TrackingView(msgspec.Struct, frozen=True, kw_only=True):
    """Where a parcel is, as far as anybody knows, and all that was seen of it."""

    carrier: str
    tracking_number: str
    status: str
    detail: str
    since: datetime | None
    delivered_at: datetime | None
    estimated_delivery: datetime | None
    alert: str | None
    events: list[TrackingEventView]


class LabelView(msgspec.Struct, frozen=True, kw_only=True):
    """A label that was bought, and how it stands."""

    id: UUID
    shipment_id: UUID
    status: str
    carrier: str
    service: str
    amount: int | None
    currency: str
    is_return: bool
    document: str
    tracking_numbers: list[str]
    reason: str
    created_at: datetime
    updated_at: datetime


class ShipmentView(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen to ship an order by, its labels, and where its parcels are."""

    id: UUID
    order_id: UUID
    # Nothing where the shop priced its shipping itself.
    snapshot_id: UUID | None
    status: str
    carrier: str
    service: str
    amount: int
    currency: str
    finalized_at: datetime | None
    tracking_status: str
    labels: list[LabelView]
    created_at: datetime


class LabelResult(msgspec.Struct, frozen=True, kw_only=True):
    """A label and the shipment it is of."""

    shipment: ShipmentView
    label: LabelView


class OrderTracking(msgspec.Struct, frozen=True, kw_only=True):
    """Where an order's parcels are."""

    order_id: UUID
    status: str
    parcels: list[TrackingView]


class GetTracking(Query, frozen=True, kw_only=True, tag="fulfillment.get_tracking.v1"):
    """Ask where an order's parcels are."""

    order_id: UUID


class ListShipments(Query, frozen=True, kw_only=True, tag="fulfillment.list_shipments.v1"):
    """Read a page of shipments, the newest first."""

    order_id: UUID | None = None
    status: str | None = None
    tracking_status: str | None = None
    before: UUID | None = None
    limit: int = PAGE_ROWS_MAX


class ListUnknownLabels(Query, frozen=True, kw_only=True, tag="fulfillment.list_unknown_labels.v1"):
    """Read a page of labels of which nobody knows whether they were bought, the oldest first, with what was tried."""

    after: UUID | None = None
    limit: int = PAGE_ROWS_MAX


class DecideLabel(Message, frozen=True, kw_only=True, tag="fulfillment.decide_label.v1"):
    """Say of a label that it was not bought, and how that is known."""

    label_id: UUID
    evidence: str


class UnknownLabelView(msgspec.Struct, frozen=True, kw_only=True):
    """A label of which nobody knows whether it was bought: since when, what was tried, and when it is looked for again."""

    label_id: UUID
    shipment_id: UUID
    order_id: UUID
    carrier: str
    service: str
    age_seconds: float
    looks: int
    next_look_at: datetime
    tried: list[TriedCall]
    created_at: datetime


class UnknownLabelPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of labels of which nobody knows whether they were bought; `next` is the cursor of the following one."""

    labels: list[UnknownLabelView]
    next: UUID | None = None


class ShipmentPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of shipments; `next` is the cursor of the following one."""

    shipments: list[ShipmentView]
    next: UUID | None = None


class TakeEvent(Message, frozen=True, kw_only=True, tag="background.fulfillment.take_event.v1"):
    """Take in a carrier's event, exactly as it was sent."""

    provider: str
    provider_account: str
    event_id: str
    event_type: str
    payload: str
    received_at: datetime


class TrackingChanged(Event, frozen=True, kw_only=True, tag="fulfillment.tracking_changed.v1"):
    """A parcel stands otherwise than before."""

    order_id: UUID
    shipment_id: UUID
    tracking: TrackingView


class LabelChanged(Event, frozen=True, kw_only=True, tag="fulfillment.label_changed.v1"):
    """A label was bought, or stands otherwise than before."""

    order_id: UUID
    label: LabelView
