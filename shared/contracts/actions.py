"""What staff did, as each service wrote it down."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from shared.messages import Message, Query

PAGE_ROWS_MAX = 200


class ListActions(Query, frozen=True, kw_only=True):
    """Read a page of what staff did, the newest first; an empty page with a `next` says that the search goes on there."""

    # Of whoever did it, what was done, or what it was about; a part of it.
    text: str | None = None
    before: UUID | None = None
    limit: int = 50


class PaymentsListActions(ListActions, frozen=True, kw_only=True, tag="payments.list_actions.v1"):
    """Ask payments."""


class WebhooksListActions(ListActions, frozen=True, kw_only=True, tag="webhooks.list_actions.v1"):
    """Ask webhooks."""


class FulfillmentListActions(ListActions, frozen=True, kw_only=True, tag="fulfillment.list_actions.v1"):
    """Ask fulfillment."""


class ReconcilerListActions(ListActions, frozen=True, kw_only=True, tag="reconciler.list_actions.v1"):
    """Ask the reconciler."""


ASKED: dict[str, type[ListActions]] = {
    "payments": PaymentsListActions,
    "webhooks": WebhooksListActions,
    "fulfillment": FulfillmentListActions,
    "reconciler": ReconcilerListActions,
}


class ActionView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that staff did: who, what, to what, why, and how it was before and after; never a secret."""

    id: UUID
    actor: str
    action: str
    subject: str
    before: Any
    after: Any
    reason: str
    correlation_id: str
    happened_at: datetime
    # Empty in what one service tells of itself.
    service: str = ""


class ActionPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of what staff did; `next` is the cursor of the following one."""

    actions: list[ActionView]
    next: UUID | None = None
    # Services that could not be asked.
    missing: list[str] = []


MESSAGES: tuple[type[Message], ...] = tuple(ASKED.values())
