"""When a run is due, which stretch of time it covers, and in which steps it goes."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec
from cronsim import CronSim, CronSimError

from shared.contracts.books import Domain
from shared.settings import SettingsRefused

# What is younger may still be on its way to either side.
SETTLING = timedelta(minutes=5)
# So far ahead a run reads before it writes down that a stretch is done; a provider's cursors live no longer than that takes.
WINDOW = timedelta(hours=24)
# How long after its time a schedule that nobody could fire is still caught up.
CAUGHT_UP_AFTER = timedelta(days=7)


class Status(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"


class Phase(StrEnum):
    """Whose books are being read in the present window."""

    THEIRS = "theirs"
    OURS = "ours"


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When which books are compared, and how far back."""

    domain: Domain
    # Five fields, in UTC.
    cron: str
    look_back_hours: int = 48

    @property
    def name(self) -> str:
        """What tells it from others."""
        return f"{self.domain.value} {self.cron}"


def schedules_of(text: str) -> list[Schedule]:
    """Read schedules from a JSON list; raises SettingsRefused."""
    try:
        found = msgspec.json.decode(text, type=list[Schedule])
        for schedule in found:
            CronSim(schedule.cron, datetime.now(UTC))
    except (msgspec.DecodeError, CronSimError) as wrong:
        raise SettingsRefused(f"must be a JSON list of schedules: {wrong}") from None
    return found


def last_due(schedule: Schedule, *, now: datetime, fired_at: datetime | None) -> datetime | None:
    """Tell the last time at which a schedule should have fired and has not; earlier misses are covered by it."""
    since = max(fired_at or now - CAUGHT_UP_AFTER, now - CAUGHT_UP_AFTER)
    before = CronSim(schedule.cron, now + timedelta(seconds=1), reverse=True)
    due = next(before, None)
    return due if due is not None and since < due <= now else None


def covered(schedule: Schedule, *, due: datetime, fired_at: datetime | None) -> tuple[datetime, datetime]:
    """Tell which time a scheduled run covers: what it looks back on, and everything since the run before."""
    until = due - SETTLING
    since = until - timedelta(hours=schedule.look_back_hours)
    if fired_at is not None:
        since = min(since, fired_at - SETTLING)
    return since, until


def window_after(position: datetime, until: datetime) -> datetime:
    """Tell where the window ends that begins at a position."""
    return min(position + WINDOW, until)
