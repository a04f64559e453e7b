"""Around every request: its correlation id, its log line, its metric, its trace."""

import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any

from prometheus_client import Histogram

from shared import telemetry
from shared.received import correlation_id
from shared.vitals import Pulse

logger = logging.getLogger(__name__)

ORDER_AND_INTENT = re.compile(r"/orders/([0-9a-f-]{36})(?:/payments/([0-9a-f-]{36}))?")
# Methods, routes and statuses together are a few hundred.
SERIES_MAX = 1_000
QUIET = ("/health/", "/metrics", "/console/static/")
UNCOUNTED = ("/health/", "/metrics", "/console")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Watched:
    """An ASGI application whose requests are correlated, logged and measured."""

    def __init__(self, app: Any, pulse: Pulse) -> None:
        self._app = app
        self._pulse = pulse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _stays_open(scope):
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500
        ours = correlation_id(scope["headers"])
        scope.setdefault("state", {})["correlation_id"] = ours

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-correlation-id", ours.encode())]
            await send(message)

        telemetry.mark({"correlation_id": ours})
        with telemetry.bound({"correlation_id": ours, **_path_facts(scope["path"])}), self._pulse:
            await self._app(scope, receive, answer)
            elapsed_seconds = time.monotonic() - started
            _tell(scope, status, elapsed_seconds)
        # What is asked all the time, or stays open, says nothing of how quick we are.
        if not scope["path"].startswith(UNCOUNTED):
            self._pulse.handled(elapsed_seconds, "failed" if status >= 500 else "answered")


def _stays_open(scope: Scope) -> bool:
    # A page that is told of changes: how long somebody looks at it says nothing of how quick we are.
    return (b"accept", b"text/event-stream") in scope["headers"]


def _tell(scope: Scope, status: int, elapsed_seconds: float) -> None:
    route = str(scope.get("path_template") or "none")
    _series(scope["method"], route, str(status)).observe(elapsed_seconds)
    if not scope["path"].startswith(QUIET):
        facts = {"method": scope["method"], "path": scope["path"], "status": status, "elapsed_ms": round(elapsed_seconds * 1000, 1)}
        telemetry.say(logger, logging.INFO, "answered", facts)


@lru_cache(maxsize=SERIES_MAX)
def _series(method: str, route: str, status: str) -> Histogram:
    return telemetry.http_requests.labels("gateway", method, route, status)


def _path_facts(path: str) -> dict[str, str]:
    found = ORDER_AND_INTENT.search(path)
    if found is None:
        return {}
    order_id, intent_id = found.groups()
    return {"order_id": order_id, **({"intent_id": intent_id} if intent_id else {})}
