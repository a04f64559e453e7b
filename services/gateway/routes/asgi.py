"""Around every request: its correlation id, its log line, its metric, its trace."""

import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import ExitStack
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
CONSOLE = "/console"
UNCOUNTED = ("/health/", "/metrics", CONSOLE)
EVENT_STREAM = b"text/event-stream"

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
        started, status, recorded = time.monotonic(), 500, False
        ours = correlation_id(scope["headers"])
        scope.setdefault("state", {})["correlation_id"] = ours

        def record() -> None:
            nonlocal recorded
            recorded = True
            elapsed_seconds = time.monotonic() - started
            _tell(scope, status, elapsed_seconds)
            # What is requested all the time says nothing of how quick we are.
            if not scope["path"].startswith(UNCOUNTED):
                self._pulse.handled(elapsed_seconds, "failed" if status >= 500 else "answered")

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-correlation-id", ours.encode())]
                if _stays_open(scope, message["headers"]):
                    # How long a live page is open says nothing of how quick we are: it is answered as soon as it begins.
                    in_hand.close()
                    record()
            await send(message)

        telemetry.mark({"correlation_id": ours})
        with telemetry.bound({"correlation_id": ours, **_path_facts(scope["path"])}), ExitStack() as in_hand:
            in_hand.enter_context(self._pulse)
            await self._app(scope, receive, answer)
            if not recorded:
                record()


def _stays_open(scope: Scope, answer_headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a page of the console goes on to be brought up to date; nothing that a request says decides it."""
    if not scope["path"].startswith(CONSOLE):
        return False
    return any(name.lower() == b"content-type" and value.startswith(EVENT_STREAM) for name, value in answer_headers)


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
