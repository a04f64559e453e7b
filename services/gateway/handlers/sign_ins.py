"""A throttle of failed sign-ins: by address, and of all addresses together."""

import time
from collections.abc import Callable

from services.gateway.domain import SIGN_INS_WITHIN_SECONDS, Bucket, TooManyRequests, TooManySignIns, draw
from services.gateway.settings import Settings
from shared.http_limits import site_of

# Forgetting all at once forgives a minute's attempts, no more.
ADDRESSES_MAX = 10_000
ALL = ""


class SignIns:
    """Counts failed sign-ins of this process; an address that has signed in is not held up by what others do."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._max = {False: settings.sign_ins_per_address_per_minute_max, True: settings.sign_ins_per_minute_max}
        self._buckets: dict[str, Bucket] = {}
        self._known: dict[str, None] = {}

    def attempt(self, address: str) -> None:
        """Count an attempt as failed until it has succeeded; raises TooManySignIns before the key is looked at."""
        site = _site(address)
        if len(self._buckets) >= ADDRESSES_MAX:
            self._buckets.clear()
        self._draw(site)
        if site not in self._known:
            self._draw(ALL)

    def succeeded(self, address: str) -> None:
        """Count an attempt no longer, and remember its address."""
        site = _site(address)
        for name in {site, ALL} if site not in self._known else {site}:
            bucket = self._buckets.get(name)
            if bucket is not None:
                self._buckets[name] = Bucket(min(bucket.tokens + 1, float(self._max[name == ALL])), bucket.at_seconds)
        if len(self._known) >= ADDRESSES_MAX:
            self._known.clear()
        self._known[site] = None

    def _draw(self, name: str) -> None:
        allowed = self._max[name == ALL]
        now_seconds, before = self._clock(), self._buckets.get(name)
        try:
            self._buckets[name] = draw(before, now_seconds=now_seconds, rate_per_second=allowed / SIGN_INS_WITHIN_SECONDS, burst=allowed)
        except TooManyRequests as refused:
            whose = "in all" if name == ALL else "from this address"
            raise TooManySignIns(f"Too many sign-ins failed {whose} within a minute; wait, then sign in.") from refused


def _site(address: str) -> str:
    try:
        return site_of(address) or "unknown"
    except ValueError:
        return "unknown"
