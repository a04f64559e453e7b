"""Running one service as a process: settings from the environment, signals, and an exit code that tells the truth."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import uvloop

from shared import telemetry
from shared.errors import Clear
from shared.service import Service
from shared.settings import BusSettings, load
from shared.stopping import stop

S = TypeVar("S", bound=BusSettings)


def run(build: Callable[[S], Service[Any]], settings_kind: type[S]) -> None:
    """Run a service until SIGTERM or SIGINT; what waiting cannot mend ends it with one line."""
    try:
        settings = load(settings_kind, os.environ)
        uvloop.run(_until_told(build(settings)))
    except Clear as refused:
        sys.exit(str(refused))


async def _until_told(service: Service[Any]) -> None:
    settings = service.settings
    telemetry.log_to_stderr(service.name, settings.log_level)
    telemetry.trace_to(
        settings.otel_exporter_otlp_endpoint,
        service=service.name,
        ratio=settings.trace_sample_ratio,
        kept=settings.traces_kept_hours > 0,
    )
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    started = asyncio.Event()
    serving = asyncio.create_task(_serve(service, started, told))
    stopping = asyncio.create_task(told.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not started.is_set():
        # Still starting, perhaps waiting for a server that is away: nothing is in hand yet.
        await stop(serving)
    stopping.cancel()
    with suppress(asyncio.CancelledError):
        await serving
    telemetry.stop_tracing()


async def _serve(service: Service[Any], started: asyncio.Event, told: asyncio.Event) -> None:
    async with service.running():
        started.set()
        _leave_alone_what_stays()
        await told.wait()


def _leave_alone_what_stays() -> None:
    # Modules, routes and their schemas live as long as the process: looking them through for garbage would stop everything
    # for a twentieth of a second or more, every other second under load.
    gc.collect()
    gc.freeze()
