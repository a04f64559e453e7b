"""Calls to providers, as whoever looks into an outcome sees them."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from shared.messages import Message, Query

PAGE_ROWS_MAX = 200


class TriedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call to the provider about an operation, and what came of it."""

    operation: str
    classification: str
    status: int | None
    called_at: datetime


class ListCalls(Query, frozen=True, kw_only=True):
    """Read a page of calls to providers, the newest first; an empty page with a `next` says that the search goes on there."""

    provider: str | None = None
    operation: str | None = None
    # not_sent, sent_no_answer, answered.
    classification: str | None = None
    # Of the answer, from this on: 400 finds what was refused.
    status_from: int | None = None
    correlation_id: str | None = None
    before: UUID | None = None
    limit: int = 50


class PaymentsListCalls(ListCalls, frozen=True, kw_only=True, tag="payments.list_calls.v1"):
    """Ask payments."""


class FulfillmentListCalls(ListCalls, frozen=True, kw_only=True, tag="fulfillment.list_calls.v1"):
    """Ask fulfillment."""


ASKED: dict[str, type[ListCalls]] = {"payments": PaymentsListCalls, "fulfillment": FulfillmentListCalls}


class CallView(msgspec.Struct, frozen=True, kw_only=True):
    """A call to a provider: what was sent and answered, as far as it may be kept."""

    id: UUID
    provider: str
    operation: str
    path: str
    request: Any
    response: Any
    status: int | None
    latency_ms: int
    attempt: int
    classification: str
    correlation_id: str
    transaction_id: UUID | None
    called_at: datetime


class CallPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of calls; `next` is the cursor of the following one."""

    calls: list[CallView]
    next: UUID | None = None
    # Services that could not be asked.
    missing: list[str] = []


MESSAGES: tuple[type[Message], ...] = tuple(ASKED.values())
