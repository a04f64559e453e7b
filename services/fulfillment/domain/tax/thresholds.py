"""From which sales on tax must be collected somewhere, and how near a seller is."""

from datetime import date, timedelta
from enum import StrEnum

import msgspec

NEAR_PERCENT = 80
REACHED_PERCENT = 100
PERCENT = 100
YEAR_DAYS = 365


class Period(StrEnum):
    """Which sales count."""

    CALENDAR_YEAR = "calendar_year"
    # This year's or the last one's, whichever are more (as in the EU, Directive 2006/112/EC, Article 59c).
    CURRENT_OR_PREVIOUS_YEAR = "current_or_previous_year"
    ROLLING_YEAR = "rolling_12_months"


class State(StrEnum):
    """How near sales are to a threshold."""

    BELOW = "below"
    NEAR = "near"
    REACHED = "reached"


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """From which amount or number of sales on tax must be collected: either, or both."""

    amount: int | None
    count: int | None
    both: bool = False


def spans(today: date, period: Period) -> list[tuple[date, date]]:
    """Give the spans of days of which the one with the most sales counts, the current one first."""
    year = (date(today.year, 1, 1), today)
    match period:
        case Period.CALENDAR_YEAR:
            return [year]
        case Period.CURRENT_OR_PREVIOUS_YEAR:
            return [year, (date(today.year - 1, 1, 1), date(today.year - 1, 12, 31))]
        case Period.ROLLING_YEAR:
            return [(today - timedelta(days=YEAR_DAYS - 1), today)]


def percent(threshold: Threshold, *, amount: int, count: int) -> int:
    """Say how near sales are, in whole percent, cut: the larger of the two, the smaller where both must be reached."""
    parts = [had * PERCENT // wanted for had, wanted in ((amount, threshold.amount), (count, threshold.count)) if wanted is not None]
    if not parts:
        return 0
    return min(parts) if threshold.both else max(parts)


def state(reached_percent: int) -> State:
    """Say how near that is."""
    if reached_percent >= REACHED_PERCENT:
        return State.REACHED
    return State.NEAR if reached_percent >= NEAR_PERCENT else State.BELOW
