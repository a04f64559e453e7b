"""What webhooks takes, answers and shows."""

from datetime import datetime
from uuid import UUID

import msgspec

from shared.messages import Message, Query

PAGE_ROWS_MAX = 100
REPLAYS_MAX = 10_000


class Process(Message, frozen=True, kw_only=True, tag="background.webhooks.process.v1"):
    """Hand a kept event to whom it concerns; a replay does so again, whatever became of it."""

    event_id: UUID
    # The command that first worked on it, where this one repeats its work.
    replays: UUID | None = None


class Replay(Message, frozen=True, kw_only=True, tag="webhooks.replay.v1"):
    """Have one event processed again."""

    event_id: UUID


class ReplayMany(Message, frozen=True, kw_only=True, tag="webhooks.replay_many.v1"):
    """Have every event of a range processed again, the oldest first."""

    since: datetime
    until: datetime
    provider: str | None = None
    event_type: str | None = None
    status: str | None = None


class ListEvents(Query, frozen=True, kw_only=True, tag="webhooks.list_events.v1"):
    """Read a page of events, the newest first, after the one named."""

    provider: str | None = None
    event_type: str | None = None
    status: str | None = None
    order_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None
    limit: int = PAGE_ROWS_MAX


class GetEvent(Query, frozen=True, kw_only=True, tag="webhooks.get_event.v1"):
    """Read an event with its payload and every attempt."""

    event_id: UUID


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it stands."""

    id: UUID
    provider: str
    account: str
    provider_event_id: str
    event_type: str
    status: str
    signature_valid: bool
    attempt_count: int
    last_error: str | None
    order_id: UUID | None
    happened_at: datetime | None
    received_at: datetime
    processed_at: datetime | None
    next_attempt_at: datetime | None


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One try at an event; a replay's command names the first one."""

    command_id: UUID
    replays: UUID | None
    actor: str
    outcome: str
    error: str | None
    at: datetime


class EventDetail(msgspec.Struct, frozen=True, kw_only=True):
    """An event with what was sent, exactly, and what was done about it."""

    event: EventView
    # Nothing once its retention has passed.
    payload: str | None
    headers: dict[str, str]
    attempts: list[AttemptView]


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of events; `next` is the last one's id when there are more."""

    events: list[EventView]
    next: UUID | None


class ReplayView(msgspec.Struct, frozen=True, kw_only=True):
    """A replay that is under way."""

    event_id: UUID
    command_id: UUID
    replays: UUID


class ReplaysView(msgspec.Struct, frozen=True, kw_only=True):
    """How many events are being processed again, and whether the range holds more than one call takes."""

    count: int
    more: bool


MESSAGES: tuple[type[Message], ...] = (Process, Replay, ReplayMany, ListEvents, GetEvent)
