"""The gateway: what it is made of."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from services.gateway import store
from services.gateway.console import ROUTES as CONSOLE
from services.gateway.handlers import observing
from services.gateway.handlers.gateway import Gateway
from services.gateway.routes import api
from services.gateway.routes.asgi import Watched
from services.gateway.routes.transport import StrictTransport, behind_proxies
from services.gateway.settings import Settings
from services.gateway.store import sessions
from shared import telemetry
from shared.health import Check
from shared.migrations import Owned
from shared.received import header
from shared.replies import Replies
from shared.schedule import Job
from shared.service import Service
from shared.work import Desk

OWNED = Owned(name="gateway", files=Path(__file__).parent / "schema")
FORGET_EVERY_SECONDS = 60.0


def build(settings: Settings) -> Service[Gateway]:
    """Put the gateway together."""
    return Service(
        name=OWNED.name,
        settings=settings,
        owned=OWNED,
        context=lambda desk: _context(desk, settings),
        jobs=partial(_jobs, settings),
        http=_http,
        checks=_checks,
        stopping=lambda gateway: gateway.closing.set(),
    )


@asynccontextmanager
async def _context(desk: Desk, settings: Settings) -> AsyncIterator[Gateway]:
    async with Replies(settings.amqp_url, desk.publisher, name=OWNED.name) as replies:
        gateway = Gateway(desk=desk, settings=settings, replies=replies)
        try:
            yield gateway
        finally:
            await gateway.idempotency.stop()
            await gateway.ingest.close()


def _jobs(settings: Settings, gateway: Gateway) -> Sequence[Job]:
    async def forget() -> None:
        await store.forget_expired(gateway.pool)
        await sessions.forget_expired(gateway.pool)

    async def sample() -> None:
        await observing.sample(gateway)

    return [
        Job("unfinished operations", gateway.idempotency.sweep, every_seconds=settings.sweep_every_seconds),
        Job("expired keys", forget, every_seconds=FORGET_EVERY_SECONDS),
        Job("samples", sample, every_seconds=settings.sample_every_seconds),
    ]


def _http(gateway: Gateway) -> Any:
    settings = gateway.settings

    async def is_known(headers: telemetry.Headers) -> bool:
        return await gateway.is_authentic(header(headers, b"authorization"))

    served = telemetry.traced(Watched(api(gateway, CONSOLE), gateway.pulse), is_known)
    return behind_proxies(StrictTransport(served, seconds=settings.hsts_seconds), settings.trusted_proxies)


def _checks(gateway: Gateway) -> dict[str, Check]:
    async def replies() -> str | None:
        return gateway.replies.trouble

    return {"replies": replies}
