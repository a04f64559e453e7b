"""The settings of the reconciler."""

from typing import Annotated

from services.reconciler.domain.runs import schedules_of
from shared.settings import BusSettings, SettingsRefused, about


def _unreadable(schedules: str) -> str | None:
    try:
        schedules_of(schedules)
    except SettingsRefused as refused:
        return str(refused)
    return None


class Settings(BusSettings, frozen=True, kw_only=True):
    """Read from the environment."""

    reconcile_schedules: Annotated[
        str,
        about(
            "What is compared when: a list of `domain`, `cron` (five fields, UTC) and `look_back_hours`.", form="JSON", check=_unreadable
        ),
    ] = '[{"domain":"payments","cron":"17 3 * * *"},{"domain":"shipping","cron":"37 3 * * *"},{"domain":"tax","cron":"57 3 * * *"}]'
    asks_per_second: Annotated[
        float, about("Pages and single objects that each provider is asked for at most.", unit="calls a second", gt=0)
    ] = 5.0
    ask_timeout_seconds: Annotated[
        float, about("How long a service may take for a page of its books, which costs its provider a call or a few.", gt=0)
    ] = 60.0
    heal_timeout_seconds: Annotated[float, about("How long a service may take to mend one difference.", gt=0)] = 30.0
    runs_at_once_max: Annotated[int, about("Runs that one process carries out at the same time.", unit="runs", ge=1)] = 4
    lease_seconds: Annotated[float, about("How long a crashed run waits before another process goes on with it.", gt=0)] = 30.0
    leader_lease_seconds: Annotated[
        float, about("How long the process that fires the schedules may be silent before another does.", gt=0)
    ] = 15.0
    schedule_every_seconds: Annotated[float, about("How often schedules are looked at.", gt=0)] = 5.0
    run_every_seconds: Annotated[float, about("How often runs and redrives that are due are looked for.", gt=0)] = 1.0
    fate_timeout_seconds: Annotated[
        float, about("How long a service may take to say what became of its message, when a dead letter is shown.", gt=0)
    ] = 2.0
    letters_kept_days: Annotated[
        int, about("How long dead letters are kept that are dealt with; services know their messages 45 days.", ge=1)
    ] = 40
