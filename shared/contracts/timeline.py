"""What happened to an order, as each service knows it."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from shared.messages import Message, Query

# Of one service; an order has a few dozen.
HAPPENINGS_MAX = 1_000


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to an order: when, of which kind, in a few words, and what is known of it."""

    at: datetime
    # status, transaction, provider_call, quote, webhook, notice, shipment, tracking, tax, dead_letter, drift.
    kind: str
    title: str
    correlation_id: str
    actor: str = ""
    # What it is about, to look at it elsewhere.
    subject_id: str = ""
    facts: dict[str, Any] = {}


class ListHappenings(Query, frozen=True, kw_only=True):
    """Ask what happened to an order."""

    order_id: UUID


class PaymentsListHappenings(ListHappenings, frozen=True, kw_only=True, tag="payments.list_happenings.v1"):
    """Ask payments."""


class WebhooksListHappenings(ListHappenings, frozen=True, kw_only=True, tag="webhooks.list_happenings.v1"):
    """Ask webhooks."""


class FulfillmentListHappenings(ListHappenings, frozen=True, kw_only=True, tag="fulfillment.list_happenings.v1"):
    """Ask fulfillment."""


class ReconcilerListHappenings(ListHappenings, frozen=True, kw_only=True, tag="reconciler.list_happenings.v1"):
    """Ask the reconciler."""


ASKED: dict[str, type[ListHappenings]] = {
    "payments": PaymentsListHappenings,
    "webhooks": WebhooksListHappenings,
    "fulfillment": FulfillmentListHappenings,
    "reconciler": ReconcilerListHappenings,
}


class Happenings(msgspec.Struct, frozen=True, kw_only=True):
    """What a service knows, in order; whether the order is known to it at all, and whether that is everything."""

    happenings: list[Happening]
    known: bool
    complete: bool = True


class TimelineEntry(Happening, frozen=True, kw_only=True):
    """One thing that happened to an order, and which service says so."""

    service: str


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that happened to an order, across services, in order; services that could not be asked are named."""

    order_id: UUID
    entries: list[TimelineEntry]
    missing: list[str]
    # Services that know of more than they tell.
    incomplete: list[str]


MESSAGES: tuple[type[Message], ...] = tuple(ASKED.values())
