"""How this process is doing: what it has handled in the last minute, how long that took, and what it has in hand."""

import secrets
import socket
import time
from collections import deque
from datetime import UTC, datetime
from itertools import islice

from shared import telemetry
from shared.contracts.vitals import ReplicaVitals, Vitals

WINDOW_SECONDS = 60.0
# More than this in a minute, and the window is shorter.
HANDLED_MAX = 20_000
# p95 is taken of at most so many, evenly spread: every replica writes its figures down all the time, and sorting all of them would hold up
# what it has in hand for ten milliseconds.
SORTED_MAX = 1_000
INSTANCE_BYTES = 4
FAILED = frozenset({"retried", "parked", "rejected", "failed"})


class Pulse:
    """Counts what is handled."""

    def __init__(self, service: str) -> None:
        self._service = service
        # Two processes of a service have different names, also on one host or where every process has the number 1.
        self.replica = f"{socket.gethostname()}-{secrets.token_hex(INSTANCE_BYTES)}"
        self._started_at = datetime.now(UTC)
        self._since_seconds = time.monotonic()
        self._in_flight = 0
        self._handled: deque[tuple[float, float]] = deque(maxlen=HANDLED_MAX)
        self._failed: deque[float] = deque(maxlen=HANDLED_MAX)

    def __enter__(self) -> None:
        """Have something in hand."""
        self._in_flight += 1

    def __exit__(self, *_: object) -> None:
        self._in_flight -= 1

    def handled(self, elapsed_seconds: float, result: str) -> None:
        """Remember that something is done, how long it took and what came of it."""
        now = time.monotonic()
        self._handled.append((now, elapsed_seconds))
        if result in FAILED:
            self._failed.append(now)

    def vitals(self) -> Vitals:
        """Say how the last minute of this process was."""
        now = time.monotonic()
        while self._handled and self._handled[0][0] < now - WINDOW_SECONDS:
            self._handled.popleft()
        count = len(self._handled)
        since = self._handled[0][0] if count == HANDLED_MAX else max(now - WINDOW_SECONDS, self._since_seconds)
        while self._failed and self._failed[0] < since:
            self._failed.popleft()
        seconds = max(1.0, now - since)
        took = sorted(elapsed for _, elapsed in islice(self._handled, 0, None, 1 + count // SORTED_MAX))
        replica = ReplicaVitals(
            name=self.replica,
            started_at=self._started_at,
            in_flight=self._in_flight,
            handled_per_second=count / seconds,
            failed_per_second=len(self._failed) / seconds,
            p95_seconds=took[min(len(took) - 1, int(len(took) * 0.95))] if took else 0.0,
        )
        return Vitals(
            service=self._service,
            up_seconds=now - self._since_seconds,
            in_flight=replica.in_flight,
            handled_per_second=replica.handled_per_second,
            failed_per_second=replica.failed_per_second,
            p95_seconds=replica.p95_seconds,
            unknown_outcomes=int(sum(telemetry.gauge(telemetry.unknown_outcomes).values())),
            drift_open=int(sum(telemetry.gauge(telemetry.drift_open).values())),
            dead_letters={service: int(count) for (service,), count in telemetry.gauge(telemetry.letters_waiting).items()},
            replicas=[replica],
        )
