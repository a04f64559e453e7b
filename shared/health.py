"""Liveness, readiness and metrics, the same in every service."""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import MediaType, Response, get
from litestar.handlers import HTTPRouteHandler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Check = Callable[[], Awaitable[str | None]]


def health_routes(checks: dict[str, Check]) -> list[HTTPRouteHandler]:
    """Make the three routes; a check answers nothing when all is well, else what is wrong."""

    @get("/health/live", include_in_schema=False, sync_to_thread=False)
    def live() -> dict[str, str]:
        return {"status": "alive"}

    @get("/health/ready", include_in_schema=False)
    async def ready() -> Response[dict[str, Any]]:
        found = {name: await check() for name, check in checks.items()}
        well = not any(found.values())
        state = {name: trouble or "ok" for name, trouble in found.items()}
        return Response({"status": "ready" if well else "not ready", "checks": state}, status_code=200 if well else 503)

    @get("/metrics", include_in_schema=False, media_type=MediaType.TEXT, sync_to_thread=False)
    def metrics() -> Response[bytes]:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return [live, ready, metrics]
