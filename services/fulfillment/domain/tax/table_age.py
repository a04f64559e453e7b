"""How old a table of rates may be before it says so."""

from collections.abc import Iterable
from datetime import date

# Rates change at the turn of a year, or at that of a half: one that nothing was compared with for a year has missed both.
RULES_CHECKED_MAX_DAYS = 365


def oldest_check(checked: Iterable[date | None], today: date) -> date | None:
    """Tell when the oldest of some rules was last compared with its source, if that is too long ago; a rule that says nothing is never."""
    oldest = min((each for each in checked if each is not None), default=None)
    return oldest if oldest is not None and (today - oldest).days > RULES_CHECKED_MAX_DAYS else None


def said_of(oldest: date) -> str:
    """Say that a table is old."""
    return f"Tax rates were last compared with their sources on {oldest}, more than {RULES_CHECKED_MAX_DAYS} days ago; check them."
