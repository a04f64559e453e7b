"""Liveness, readiness and metrics, the same in every service."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from litestar import Litestar, MediaType, Response, get
from litestar.handlers import HTTPRouteHandler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

# A check that takes longer is what is wrong; probes wait a second or a few.
CHECK_TIMEOUT_SECONDS = 2.0

Check = Callable[[], Awaitable[str | None]]


def health_app(checks: dict[str, Check], *, only_shown: Collection[str] = ()) -> Litestar:
    """Make an application of the three routes; a check answers nothing when all is well, else what is wrong.

    What the checks in `only_shown` find is shown, and does not keep requests away.
    """
    return Litestar(_routes(checks, only_shown), openapi_config=None, logging_config=None)


def _routes(checks: dict[str, Check], only_shown: Collection[str]) -> list[HTTPRouteHandler]:
    under_way: dict[str, asyncio.Task[str | None]] = {}

    async def trouble_of(name: str, check: Check) -> str | None:
        # One at a time, and not cancelled by its time-out, which would break what it uses: the next probe finds its answer.
        task = under_way.get(name)
        if task is None or task.done():
            task = under_way[name] = asyncio.ensure_future(check())
        done, _ = await asyncio.wait({task}, timeout=CHECK_TIMEOUT_SECONDS)
        if not done:
            return f"no answer in {CHECK_TIMEOUT_SECONDS:g} s"
        if task.cancelled():
            return "the connection was lost"  # The broker's library cancels what waits on one.
        failure = task.exception()
        return task.result() if failure is None else f"{type(failure).__name__}: {failure}"

    @get("/health/live", include_in_schema=False, sync_to_thread=False)
    def live() -> dict[str, str]:
        return {"status": "alive"}

    @get("/health/ready", include_in_schema=False)
    async def ready() -> Response[dict[str, Any]]:
        found = dict(zip(checks, await asyncio.gather(*(trouble_of(name, check) for name, check in checks.items())), strict=True))
        well = not any(trouble for name, trouble in found.items() if name not in only_shown)
        state = {name: trouble or "ok" for name, trouble in found.items()}
        return Response({"status": "ready" if well else "not ready", "checks": state}, status_code=200 if well else 503)

    @get("/metrics", include_in_schema=False, media_type=MediaType.TEXT, sync_to_thread=False)
    def metrics() -> Response[bytes]:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return [live, ready, metrics]
