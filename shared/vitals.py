"""How this process is doing: what it has handled in the last minute, how long that took, and what it has in hand."""

import secrets
import socket
import time
from collections import deque
from datetime import UTC, datetime

from shared import telemetry
from shared.contracts.vitals import ReplicaVitals, Vitals

WINDOW_SECONDS = 60.0
# More than this in a minute, and the window is shorter.
HANDLED_MAX = 20_000
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
        self._handled: deque[tuple[float, float, bool]] = deque(maxlen=HANDLED_MAX)

    def __enter__(self) -> None:
        """Have something in hand."""
        self._in_flight += 1

    def __exit__(self, *_: object) -> None:
        self._in_flight -= 1

    def handled(self, elapsed_seconds: float, result: str) -> None:
        """Remember that something is done, how long it took and what came of it."""
        self._handled.append((time.monotonic(), elapsed_seconds, result in FAILED))

    def vitals(self) -> Vitals:
        """Say how the last minute of this process was."""
        now = time.monotonic()
        while self._handled and self._handled[0][0] < now - WINDOW_SECONDS:
            self._handled.popleft()
        took = sorted(elapsed for _, elapsed, _ in self._handled)
        full = len(self._handled) == HANDLED_MAX
        seconds = max(1.0, now - self._handled[0][0] if full else min(WINDOW_SECONDS, now - self._since_seconds))
        replica = ReplicaVitals(
            name=self.replica,
            started_at=self._started_at,
            in_flight=self._in_flight,
            handled_per_second=len(took) / seconds,
            failed_per_second=sum(failed for *_, failed in self._handled) / seconds,
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
