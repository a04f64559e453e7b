"""Where a parcel is: worked out from all that was ever seen of it, never from what came last."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec

from shared.provider_values import ID_MAX_CHARACTERS, TEXT_MAX_CHARACTERS, check_moment, check_number, check_text

# So many times nobody sees one parcel.
SEQUENCE_MAX = 1_000_000
# Carriers use their numbers again, so what happened before a label was made is another parcel's. Not to the hour: a local time that is
# taken for UTC is up to 12 hours early (zones reach from -12 to +14), and a day without a time up to 24 hours more.
# Numbers are used again after months: EasyPost takes one for the same parcel's for three (docs.easypost.com/docs/trackers).
EARLY_MAX = timedelta(hours=36)


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
    TrackingStatus.OUT_FOR_DELIVERY: 4,
    TrackingStatus.AVAILABLE_FOR_PICKUP: 5,
    TrackingStatus.EXCEPTION: 6,
    TrackingStatus.DELIVERED: 7,
    TrackingStatus.RETURN_TO_SENDER: 8,
    TrackingStatus.CANCELLED: 9,
}
# Where the way of a parcel ends, as far as its carrier is concerned.
ENDS = frozenset({TrackingStatus.DELIVERED, TrackingStatus.RETURN_TO_SENDER})
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
    # In which order the carrier tells it among what it saw at that moment.
    sequence: int = 0
    estimated_delivery: datetime | None = None
    # Put in by an operator, who may say that a delivery or a return was none.
    correction: bool = False
    # The carrier gave no zone with the time: it was taken for UTC.
    zone_assumed: bool = False

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
        at = self.occurred_at.astimezone(UTC).isoformat()
        seen = (self.carrier, self.tracking_number, at, self.status.value, self.code, self.location)
        return hashlib.sha256("\x1f".join((*seen, str(self.correction))).encode()).hexdigest()


class Projection(msgspec.Struct, frozen=True, kw_only=True):
    """Where a parcel is, as far as anybody knows."""

    status: TrackingStatus = TrackingStatus.UNKNOWN
    detail: str = ""
    since: datetime | None = None
    delivered_at: datetime | None = None
    estimated_delivery: datetime | None = None
    alert: Alert | None = None


def of_parcel(events: Iterable[TrackingEvent], *, made_at: datetime, followed_at: datetime | None) -> list[TrackingEvent]:
    """Choose what was seen of one parcel among those that bore its number: from its label's making until the next such label's."""
    until = None if followed_at is None else followed_at - EARLY_MAX
    return [event for event in events if event.occurred_at >= made_at - EARLY_MAX and (until is None or event.occurred_at < until)]


def history(events: Iterable[TrackingEvent]) -> list[TrackingEvent]:
    """Bring what was seen into its order: by when it happened, then how far on, each thing once."""
    by_key: dict[str, TrackingEvent] = {}
    for event in events:
        known = by_key.get(event.key)
        if known is None or tells_more(event, known):
            by_key[event.key] = event
    return sorted(by_key.values(), key=lambda event: (event.occurred_at, RANK[event.status], event.sequence, event.key))


def tells_more(event: TrackingEvent, known: TrackingEvent) -> bool:
    """Say of one event in two wordings which is kept: always the same one, whichever came first."""
    return _words(event) > _words(known)


def project(events: Iterable[TrackingEvent]) -> Projection:
    """Work out where a parcel is; any order and any number of repeats of what was seen give the same.

    A delivery stays unless the parcel is sent back later or an operator corrects it. A return stays unless an operator corrects it: the
    scans and the delivery after it are of the way back to the sender. A cancellation stays in any case.
    """
    seen = Projection()
    for event in history(events):
        if seen.status is TrackingStatus.CANCELLED:
            moves = event.status in MOVING
            seen = msgspec.structs.replace(seen, alert=Alert.VOID_BUT_MOVING if moves else seen.alert)
            continue
        if event.estimated_delivery is not None and not _is_returned(seen, event):
            seen = msgspec.structs.replace(seen, estimated_delivery=event.estimated_delivery)
        if not _replaces(event, seen):
            continue
        delivered = event.occurred_at if event.status is TrackingStatus.DELIVERED else None
        seen = msgspec.structs.replace(
            seen, status=event.status, detail=event.detail or event.code, since=event.occurred_at, delivered_at=delivered
        )
        if event.status is TrackingStatus.RETURN_TO_SENDER:
            # What is estimated now is when the sender has it.
            seen = msgspec.structs.replace(seen, estimated_delivery=None)
    return seen


def _is_returned(seen: Projection, event: TrackingEvent) -> bool:
    return seen.status is TrackingStatus.RETURN_TO_SENDER and not event.correction


def _replaces(event: TrackingEvent, seen: Projection) -> bool:
    if event.status is TrackingStatus.UNKNOWN:
        return seen.since is None
    if _is_returned(seen, event):
        return False
    if seen.status is TrackingStatus.DELIVERED:
        return event.correction or event.status in (TrackingStatus.RETURN_TO_SENDER, TrackingStatus.CANCELLED)
    return True


def _words(event: TrackingEvent) -> tuple[bool, int, str, str]:
    estimated = "" if event.estimated_delivery is None else event.estimated_delivery.astimezone(UTC).isoformat()
    return (not event.zone_assumed, event.sequence, event.detail, estimated)
