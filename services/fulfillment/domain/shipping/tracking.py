"""Where a parcel is: worked out from all that was ever seen of it, never from what came last."""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

import msgspec

from shared.provider_values import ID_MAX_CHARACTERS, TEXT_MAX_CHARACTERS, check_moment, check_number, check_text

# So many times nobody sees one parcel.
SEQUENCE_MAX = 1_000_000


class TrackingStatus(StrEnum):
    """How a parcel stands with its carrier."""

    UNKNOWN = "unknown"
    PRE_TRANSIT = "pre_transit"
    PICKED_UP = "picked_up"
    IN_TRANSIT = "in_transit"
    OUT_FOR_DELIVERY = "out_for_delivery"
    AVAILABLE_FOR_PICKUP = "available_for_pickup"
    EXCEPTION = "exception"
    DELIVERED = "delivered"
    RETURN_TO_SENDER = "return_to_sender"
    CANCELLED = "cancelled"


# Of two things seen at the same moment the one further on counts.
RANK = {
    TrackingStatus.UNKNOWN: 0,
    TrackingStatus.PRE_TRANSIT: 1,
    TrackingStatus.PICKED_UP: 2,
    TrackingStatus.IN_TRANSIT: 3,
    TrackingStatus.AVAILABLE_FOR_PICKUP: 4,
    TrackingStatus.OUT_FOR_DELIVERY: 4,
    TrackingStatus.EXCEPTION: 5,
    TrackingStatus.DELIVERED: 6,
    TrackingStatus.RETURN_TO_SENDER: 6,
    TrackingStatus.CANCELLED: 7,
}
MOVING = frozenset(RANK) - {TrackingStatus.UNKNOWN, TrackingStatus.PRE_TRANSIT, TrackingStatus.CANCELLED}


class Alert(StrEnum):
    """What somebody should look at."""

    # Its label was voided, and it travels all the same: no refund for it.
    VOID_BUT_MOVING = "void_but_moving"


class TrackingEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was seen of a parcel."""

    carrier: str
    tracking_number: str
    occurred_at: datetime
    status: TrackingStatus
    # The carrier's own word for it, and for people.
    code: str = ""
    detail: str = ""
    location: str = ""
    # Where it stands in the carrier's history, if the carrier says so.
    sequence: int = 0
    estimated_delivery: datetime | None = None
    # Put in by an operator, who may say that a delivery was none.
    correction: bool = False

    def __post_init__(self) -> None:
        """Refuse what could not be kept, whoever brings it: a webhook or an answer."""
        check_text("tracking_number", self.tracking_number, characters_min=1, characters_max=ID_MAX_CHARACTERS)
        for name, text in (("code", self.code), ("detail", self.detail), ("location", self.location)):
            check_text(name, text, characters_max=TEXT_MAX_CHARACTERS)
        check_number("sequence", self.sequence, least=0, most=SEQUENCE_MAX)
        check_moment("occurred_at", self.occurred_at)
        check_moment("estimated_delivery", self.estimated_delivery)

    @property
    def key(self) -> str:
        """Name what was seen, so that the same sight is one event however often and in whichever words it is told."""
        seen = (self.carrier, self.tracking_number, self.occurred_at.isoformat(), self.status.value, self.code, self.location)
        return hashlib.sha256("\x1f".join((*seen, str(self.correction))).encode()).hexdigest()


class Projection(msgspec.Struct, frozen=True, kw_only=True):
    """Where a parcel is, as far as anybody knows."""

    status: TrackingStatus = TrackingStatus.UNKNOWN
    detail: str = ""
    since: datetime | None = None
    delivered_at: datetime | None = None
    estimated_delivery: datetime | None = None
    alert: Alert | None = None


def history(events: Iterable[TrackingEvent]) -> list[TrackingEvent]:
    """Bring what was seen into its order: by when it happened, then how far on, each thing once."""
    by_key: dict[str, TrackingEvent] = {}
    for event in events:
        known = by_key.get(event.key)
        # Told twice in other words: the same of them, whichever came first.
        if known is None or _words(event) > _words(known):
            by_key[event.key] = event
    return sorted(by_key.values(), key=lambda event: (event.occurred_at, RANK[event.status], event.sequence, event.key))


def project(events: Iterable[TrackingEvent]) -> Projection:
    """Work out where a parcel is; any order and any number of repeats of what was seen give the same.

    A delivery stands, unless the parcel is sent back later or an operator corrects it; a cancellation stands in any case.
    """
    seen = Projection()
    for event in history(events):
        if seen.status is TrackingStatus.CANCELLED:
            moves = event.status in MOVING
            seen = msgspec.structs.replace(seen, alert=Alert.VOID_BUT_MOVING if moves else seen.alert)
            continue
        if event.estimated_delivery is not None:
            seen = msgspec.structs.replace(seen, estimated_delivery=event.estimated_delivery)
        if _stands(seen, event):
            continue
        delivered = event.occurred_at if event.status is TrackingStatus.DELIVERED else None
        seen = msgspec.structs.replace(
            seen, status=event.status, detail=event.detail or event.code, since=event.occurred_at, delivered_at=delivered
        )
    return seen


def _stands(seen: Projection, event: TrackingEvent) -> bool:
    if event.status is TrackingStatus.UNKNOWN:
        return seen.since is not None
    if seen.status is not TrackingStatus.DELIVERED:
        return False
    later = seen.since is not None and event.occurred_at > seen.since
    replaces = event.correction or event.status in (TrackingStatus.RETURN_TO_SENDER, TrackingStatus.CANCELLED)
    return not (later and replaces)


def _words(event: TrackingEvent) -> tuple[int, str, str]:
    return (event.sequence, event.detail, "" if event.estimated_delivery is None else event.estimated_delivery.isoformat())
