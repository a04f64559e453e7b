"""Rations: how often something that anybody can cause is done, however often they cause it."""

import time
from collections import deque


class Ration:
    """Allows something `count_max` times within any `seconds`."""

    def __init__(self, count_max: int, *, seconds: float) -> None:
        self._seconds = seconds
        self._taken: deque[float] = deque(maxlen=count_max)

    def allows(self) -> bool:
        """Count once more; false, and not counted, when it is once too often."""
        now_seconds = time.monotonic()
        if len(self._taken) == self._taken.maxlen and now_seconds - self._taken[0] < self._seconds:
            return False
        self._taken.append(now_seconds)
        return True
