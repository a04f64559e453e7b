"""What webhooks takes, answers and shows."""

from datetime import datetime
from uuid import UUID

import msgspec

from shared.messages import Message, Query, SecretQuery

PAGE_ROWS_MAX = 100
REPLAYS_MAX = 10_000
# So many events one call has delivered to an endpoint that has missed them.
RECOVERED_MAX = 10_000


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


# Told to the merchant


class PutEndpoint(Message, frozen=True, kw_only=True, tag="webhooks.put_endpoint.v1"):
    """Make an address that is told of events, or change it; no event types means all of them."""

    endpoint_id: UUID
    url: str
    event_types: tuple[str, ...] = ()
    enabled: bool = True
    # Whether it has to be there already.
    change: bool = False


class DeleteEndpoint(Message, frozen=True, kw_only=True, tag="webhooks.delete_endpoint.v1"):
    """Forget an address and its deliveries."""

    endpoint_id: UUID


class RotateSecret(Message, frozen=True, kw_only=True, tag="webhooks.rotate_secret.v1"):
    """Sign with a new secret besides the present one, which goes with the next rotation."""

    endpoint_id: UUID


class Redeliver(Message, frozen=True, kw_only=True, tag="webhooks.redeliver.v1"):
    """Deliver an event to an address again, whatever became of it."""

    delivery_id: UUID


class RecoverDeliveries(Message, frozen=True, kw_only=True, tag="webhooks.recover_deliveries.v1"):
    """Deliver to an endpoint every event since a moment that it has not got, the oldest first."""

    endpoint_id: UUID
    since: datetime


class ListEndpoints(Query, frozen=True, kw_only=True, tag="webhooks.list_endpoints.v1"):
    """Read every address of a store."""


class GetSecrets(SecretQuery, frozen=True, kw_only=True, tag="webhooks.get_secrets.v1"):
    """Read with which secrets deliveries to an address are signed."""

    endpoint_id: UUID


class ListDeliveries(Query, frozen=True, kw_only=True, tag="webhooks.list_deliveries.v1"):
    """Read a page of deliveries, the newest first, after the one named."""

    endpoint_id: UUID | None = None
    event_id: UUID | None = None
    status: str | None = None
    before: UUID | None = None
    limit: int = PAGE_ROWS_MAX


class CatchUp(Query, frozen=True, kw_only=True, tag="webhooks.catch_up.v1"):
    """Read what happened after the event named, or from the beginning, the oldest first."""

    after: UUID | None = None
    limit: int = PAGE_ROWS_MAX


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """An address that is told of events; its secrets are shown apart."""

    id: UUID
    url: str
    event_types: list[str]
    enabled: bool
    disabled_why: str | None
    failing_since: datetime | None
    created_at: datetime
    updated_at: datetime


class EndpointsView(msgspec.Struct, frozen=True, kw_only=True):
    """Every address of a store."""

    endpoints: list[EndpointView]


class SecretsView(msgspec.Struct, frozen=True, kw_only=True):
    """The secrets that deliveries are signed with, the newest first."""

    secrets: list[str]


class DeletedView(msgspec.Struct, frozen=True, kw_only=True):
    """What is gone."""

    deleted: UUID


class RecoveryView(msgspec.Struct, frozen=True, kw_only=True):
    """How many events are being delivered, and whether there are more than one call covers; the same call goes on."""

    count: int
    more: bool


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """How the telling of one event to one address stands."""

    id: UUID
    endpoint_id: UUID
    event_id: UUID
    event_type: str
    status: str
    attempt_count: int
    last_status: int | None
    last_error: str | None
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    created_at: datetime


class DeliveryPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of deliveries; `next` is the last one's id when there are more."""

    deliveries: list[DeliveryView]
    next: UUID | None


class MerchantEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, as it is delivered; sequence counts an order's events from 1 without a gap."""

    id: UUID
    type: str
    order_id: UUID
    sequence: int
    created_at: datetime
    data: msgspec.Raw


class MerchantEvents(msgspec.Struct, frozen=True, kw_only=True):
    """What happened, the oldest first; `next` is the last one's id when there may be more."""

    events: list[MerchantEvent]
    next: UUID | None


MESSAGES: tuple[type[Message], ...] = (
    Process,
    Replay,
    ReplayMany,
    ListEvents,
    GetEvent,
    PutEndpoint,
    DeleteEndpoint,
    RotateSecret,
    Redeliver,
    RecoverDeliveries,
    ListEndpoints,
    GetSecrets,
    ListDeliveries,
    CatchUp,
)
