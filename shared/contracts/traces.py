"""Traces as the services keep them for a day: which piece of work of a request took how long."""

from datetime import datetime
from typing import Any

import msgspec

from shared.messages import Message, Query

# Of one service; a payment has a few dozen.
SPANS_MAX = 2_000


class ListSpans(Query, frozen=True, kw_only=True):
    """Ask for the spans of a trace, or of the traces in which a correlation id was worked for."""

    trace_id: str = ""
    correlation_id: str = ""


class PaymentsListSpans(ListSpans, frozen=True, kw_only=True, tag="payments.list_spans.v1"):
    """Ask payments."""


class WebhooksListSpans(ListSpans, frozen=True, kw_only=True, tag="webhooks.list_spans.v1"):
    """Ask webhooks."""


class FulfillmentListSpans(ListSpans, frozen=True, kw_only=True, tag="fulfillment.list_spans.v1"):
    """Ask fulfillment."""


class ReconcilerListSpans(ListSpans, frozen=True, kw_only=True, tag="reconciler.list_spans.v1"):
    """Ask the reconciler."""


ASKED: dict[str, type[ListSpans]] = {
    "payments": PaymentsListSpans,
    "webhooks": WebhooksListSpans,
    "fulfillment": FulfillmentListSpans,
    "reconciler": ReconcilerListSpans,
}


class SpanView(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of work: below which other it was done, when it began and how long it took."""

    trace_id: str
    span_id: str
    # Empty where the trace begins.
    parent_id: str
    name: str
    kind: str
    started_at: datetime
    duration_us: int
    failed: bool
    attributes: dict[str, Any]


class Spans(msgspec.Struct, frozen=True, kw_only=True):
    """What one service has of a trace, the first begun first."""

    spans: list[SpanView]
    complete: bool = True


class TraceSpan(SpanView, frozen=True, kw_only=True):
    """One piece of work, which service did it, and how deep below the first it lies."""

    service: str
    depth: int


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """One request across the services; services that could not be asked are named."""

    trace_id: str
    started_at: datetime
    duration_us: int
    spans: list[TraceSpan]
    missing: list[str]
    incomplete: list[str]


class Traces(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of the last day whose traces were kept, the newest first: their first spans."""

    traces: list[SpanView]
    next: datetime | None = None


class FoundTraces(msgspec.Struct, frozen=True, kw_only=True):
    """The traces in which a correlation id was worked for, the newest first."""

    traces: list[Trace]
    missing: list[str]


MESSAGES: tuple[type[Message], ...] = tuple(ASKED.values())
