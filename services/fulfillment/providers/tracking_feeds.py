"""Carriers' histories of parcels, read entry by entry: one that cannot be read costs itself alone, and is logged and counted."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from services.fulfillment.domain.shipping.tracking import TrackingEvent
from shared import telemetry
from shared.provider_values import TEXT_MAX_CHARACTERS, UNFIT, check_moment, why

logger = logging.getLogger(__name__)

PLACE_PARTS = ("city", "state", "country")


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A time in UTC, and whether the carrier left its zone out."""

    at: datetime
    zone_assumed: bool


def moment_of(value: object) -> Moment:
    """Read a carrier's time; without a zone it is UTC, as both aggregators document. Raises ValueError.

    EasyPost: a time without enough of a place "defaults to UTC" (docs.easypost.com/docs/trackers). Shippo: `status_date` is "displayed in
    UTC" (its OpenAPI description, TrackingStatus).
    """
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.50} is no time")
    written = datetime.fromisoformat(value.strip().removesuffix(" UTC"))
    zoned = written.replace(tzinfo=UTC) if written.tzinfo is None else written
    check_moment("time", zoned)
    return Moment(at=zoned.astimezone(UTC), zone_assumed=written.tzinfo is None and not value.strip().endswith(" UTC"))


def number_of(value: object) -> str:
    """Read whose history it is; raises ValueError where it names no parcel."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r:.50} is no tracking number")
    return value


def label_of(value: object) -> str | None:
    """Read which label's history it is, by the carrier's name for it; nothing where the carrier names none."""
    return value if isinstance(value, str) and value else None


def estimate_of(value: object, *, carrier: str, number: str) -> datetime | None:
    """Read when a parcel is expected; nothing where the carrier says nothing that can be read, which costs no event."""
    if not value:
        return None
    try:
        return moment_of(value).at
    except UNFIT as unfit:
        _left_out(carrier, number, [unfit])
        return None


def events_of(entries: object, read: Callable[[Mapping[str, Any]], TrackingEvent], *, carrier: str, number: str) -> list[TrackingEvent]:
    """Read a history, whichever entry comes first."""
    events: list[TrackingEvent] = []
    unread: list[Exception] = [] if entries is None or isinstance(entries, list) else [ValueError("the history is no list")]
    for entry in entries if isinstance(entries, list) else []:
        try:
            if not isinstance(entry, Mapping):
                raise ValueError(f"{entry!r:.50} is no entry")
            events.append(read(entry))
        except UNFIT as unfit:
            unread.append(unfit)
    if unread:
        _left_out(carrier, number, unread)
    return list(_in_sequence(events))


def _in_sequence(events: list[TrackingEvent]) -> Iterable[TrackingEvent]:
    """Number the events of each moment, which is the same wherever else the history is cut or filled in."""
    newest_first = bool(events) and events[0].occurred_at > events[-1].occurred_at
    counts: dict[datetime, int] = {}
    for event in reversed(events) if newest_first else events:
        sequence = counts.get(event.occurred_at, 0)
        counts[event.occurred_at] = sequence + 1
        yield msgspec.structs.replace(event, sequence=sequence)


def text_in(value: object) -> str:
    """Take a text as far as it can be kept, so that a long one does not cost the event."""
    return "" if value is None else str(value).replace("\0", "").encode(errors="replace").decode()[:TEXT_MAX_CHARACTERS]


def place_in(value: object) -> str:
    """Write a place in one line."""
    parts = value if isinstance(value, Mapping) else {}
    return text_in(", ".join(str(parts[part]) for part in PLACE_PARTS if parts.get(part)))


def _left_out(carrier: str, number: str, unread: Sequence[Exception]) -> None:
    telemetry.tracking_entries_left_out.labels(carrier).inc(len(unread))
    facts = {"carrier": carrier, "tracking_number": number, "left_out": len(unread), "reason": why(unread[0])}
    telemetry.say(logger, logging.WARNING, "a parcel's history cannot be read in part", facts)
