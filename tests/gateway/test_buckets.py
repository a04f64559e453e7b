"""The limit of a caller's rate: what its bucket gives at once, what it gives again after a time, and not a moment sooner."""

import pytest

from services.gateway.domain import Bucket, TooManyRequests, draw

RATE, BURST = 2.0, 3


def _drawn(times: list[float]) -> list[bool]:
    """Draw at these moments, and say each time whether there was something left."""
    bucket: Bucket | None = None
    taken = []
    for now in times:
        try:
            bucket = draw(bucket, now_seconds=now, rate_per_second=RATE, burst=BURST)
            taken.append(True)
        except TooManyRequests:
            taken.append(False)
    return taken


@pytest.mark.parametrize(
    ("times", "taken"),
    [
        ([0, 0, 0, 0], [True, True, True, False]),
        ([0, 0, 0, 0.499], [True, True, True, False]),
        ([0, 0, 0, 0.5], [True, True, True, True]),
        ([0, 0, 0, 0.5, 0.5], [True, True, True, True, False]),
        ([0, 100, 100, 100, 100], [True, True, True, True, False]),
    ],
    ids=["a burst and no more", "just before one is back", "when one is back", "one and no more", "never more than a burst"],
)
def test_a_bucket_gives_its_burst_and_then_its_rate(times: list[float], taken: list[bool]) -> None:
    assert _drawn(times) == taken


@pytest.mark.parametrize(("now", "wait"), [(0.0, "Wait 1 s."), (0.25, "Wait 1 s.")])
def test_the_wait_is_given_in_whole_seconds(now: float, wait: str) -> None:
    with pytest.raises(TooManyRequests, match=wait):
        draw(Bucket(0.0, 0.0), now_seconds=now, rate_per_second=RATE, burst=BURST)
