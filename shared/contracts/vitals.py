"""How a service is: what its processes have been doing lately, in sum and each."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from shared.messages import Message, Query


class DescribeService(Query, frozen=True, kw_only=True):
    """Ask how a service is."""


class PaymentsDescribeService(DescribeService, frozen=True, kw_only=True, tag="payments.describe_service.v1"):
    """Ask payments."""


class WebhooksDescribeService(DescribeService, frozen=True, kw_only=True, tag="webhooks.describe_service.v1"):
    """Ask webhooks."""


class FulfillmentDescribeService(DescribeService, frozen=True, kw_only=True, tag="fulfillment.describe_service.v1"):
    """Ask fulfillment."""


class ReconcilerDescribeService(DescribeService, frozen=True, kw_only=True, tag="reconciler.describe_service.v1"):
    """Ask the reconciler."""


ASKED: dict[str, type[DescribeService]] = {
    "payments": PaymentsDescribeService,
    "webhooks": WebhooksDescribeService,
    "fulfillment": FulfillmentDescribeService,
    "reconciler": ReconcilerDescribeService,
}


class ReplicaVitals(msgspec.Struct, frozen=True, kw_only=True):
    """How one process of a service is; rates and times are of the last minute."""

    name: Annotated[str, Meta(description="The name of its host, and a number that no other process has.")]
    started_at: datetime
    in_flight: int
    handled_per_second: float
    failed_per_second: float
    p95_seconds: float


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """How a service is: the sum over its replicas; rates and times are of the last minute."""

    # A new field needs a default: replicas of two releases read each other's figures.
    service: str
    up_seconds: Annotated[float, Meta(description="Of the replica that has run longest.")]
    in_flight: int
    handled_per_second: float
    failed_per_second: float
    p95_seconds: Annotated[float, Meta(description="The largest of the replicas' own: percentiles have no sum.")]
    # Of the whole installation, as far as this service is the one that knows.
    unknown_outcomes: int = 0
    drift_open: int = 0
    dead_letters: dict[str, int] = {}
    replicas: Annotated[
        list[ReplicaVitals],
        Meta(description="Every process that runs, the oldest first; one that was killed is listed for up to 6 seconds more."),
    ] = []


class ServiceView(msgspec.Struct, frozen=True, kw_only=True):
    """How a service is: whether it answers, what waits for it, and what it says of itself."""

    service: str
    up: bool
    dead_letters: int
    # For operators only. In its lanes, and parked and not yet taken in; nothing while the broker does not say.
    depth: int | None = None
    parked: int | None = None
    consumers: int | None = None
    vitals: Vitals | None = None
    # Its share of the last samples, the oldest first; nothing where it did not answer.
    samples: list["Sample"] = []


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """How a service was at some moment."""

    taken_at: datetime
    handled_per_second: float | None
    p95_seconds: float | None
    depth: int | None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """How everything is."""

    services: list[ServiceView]
    # Nothing while the service that counts them does not answer.
    unknown_outcomes: int | None
    drift_open: int | None
    # Events that nobody has subscribed to, as far as they are kept.
    unrouted: int | None


MESSAGES: tuple[type[Message], ...] = tuple(ASKED.values())
