"""Crash points: every await of a request or message that leaves the process, counted; the process kills itself at one.

Nobody picks the points: whatever talks to Postgres, RabbitMQ or a provider goes through the few calls wrapped here.
"""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiormq.channel import Channel

from services.webhooks.handlers.posting import Messenger
from shared import bus, database, http_client, telemetry

WHERE = "CRASH_POINTS_FILE"
WHOSE = "CRASH_CORRELATION_ID"
WHEN = "CRASH_AT"


class Points:
    """The points of one process that belong to one correlation id."""

    def __init__(self, file: Path, correlation_id: str, at: int) -> None:
        self._file = file
        self._correlation_id = correlation_id
        self._at = at
        self._passed = 0

    def passing(self, name: str) -> None:
        """Write down that a point is reached, and die there if it is the chosen one."""
        if telemetry.bound_facts().get("correlation_id") != self._correlation_id:
            return
        self._passed += 1
        with self._file.open("a") as file:
            file.write(f"{name}\n")
        if self._passed == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def arm(environment: Mapping[str, str]) -> None:
    """Wrap what leaves the process, if the environment asks for it."""
    if WHOSE not in environment:
        return
    points = Points(Path(environment[WHERE]), environment[WHOSE], int(environment[WHEN]))

    class Counted(database._StatelessConnection):
        """A connection whose statements are points."""

        async def execute(self, query: str, *arguments: Any, **how: Any) -> Any:
            if not arguments:
                points.passing(f"before {_shortly(query)}")
            result = await super().execute(query, *arguments, **how)
            if not arguments:
                points.passing(f"after {_shortly(query)}")
            return result

        async def _execute(self, query: str, *arguments: Any, **how: Any) -> Any:
            points.passing(f"before {_shortly(query)}")
            result = await super()._execute(query, *arguments, **how)  # type: ignore[misc]
            if not self.is_in_transaction() and not query.lstrip().startswith("SELECT"):
                points.passing(f"after {_shortly(query)}")  # It has committed itself.
            return result

        async def _executemany(self, query: str, arguments: Any, *more: Any, **how: Any) -> Any:
            points.passing(f"before several of {_shortly(query)}")
            result = await super()._executemany(query, arguments, *more, **how)  # type: ignore[misc]
            points.passing(f"after several of {_shortly(query)}")
            return result

    database._StatelessConnection = Counted  # type: ignore[misc]
    _wrap(Channel, "basic_publish", points, lambda *_, exchange, **__: f"publish to {_exchange_name(exchange)}")
    _wrap(bus.Received, "ack", points, lambda *_, **__: "ack")
    _wrap(Messenger, "post", points, lambda *_, **__: "post to the merchant")
    _wrap(http_client.ProviderClient, "_exchange", points, lambda _, method, path, *__, **___: f"provider {method} {_shape(path)}")


def _wrap(owner: Any, name: str, points: Points, describe: Callable[..., str]) -> None:
    original = getattr(owner, name)

    async def wrapped(self: Any, *arguments: Any, **how: Any) -> Any:
        what = describe(self, *arguments, **how)
        points.passing(f"before {what}")
        result = await original(self, *arguments, **how)
        points.passing(f"after {what}")
        return result

    setattr(owner, name, wrapped)


def _exchange_name(exchange: str) -> str:
    return "the reply queue" if exchange.endswith(".replies") else exchange


def _shape(path: str) -> str:
    return "/".join("…" if part.startswith(("pay_", "pi_", "lbl_", "SBX")) else part for part in path.split("/"))


def _shortly(query: str) -> str:
    return " ".join(query.split())[:60]
