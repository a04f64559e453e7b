"""The settings of the reconciler."""

from shared.settings import BusSettings


class Settings(BusSettings, frozen=True, kw_only=True):
    """Read from the environment; see README for what each means."""

    # A JSON list of what is compared when: domain, cron (five fields, UTC), look_back_hours.
    reconcile_schedules: str = (
        '[{"domain":"payments","cron":"17 3 * * *"},{"domain":"shipping","cron":"37 3 * * *"},{"domain":"tax","cron":"57 3 * * *"}]'
    )
    # How many pages or single looks a second each provider is asked for at most.
    asks_per_second: float = 5.0
    # How long an owner of books may take for a page, which takes its provider a call or a few.
    ask_timeout_seconds: float = 60.0
    heal_timeout_seconds: float = 30.0
    # Runs that go on beside each other.
    runs_at_once_max: int = 4
    lease_seconds: float = 30.0
    leader_lease_seconds: float = 15.0
    schedule_every_seconds: float = 5.0
    run_every_seconds: float = 1.0
    # How long a service may take to say what has become of a message of its own, when a dead letter is shown.
    fate_timeout_seconds: float = 2.0
    # How long dead letters are kept that somebody has dealt with: no longer than services know their messages.
    letters_kept_days: int = 40
