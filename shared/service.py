"""A service: what it is made of, how its parts start one after the other, and how they stop without losing anything."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Generic, TypeVar, cast

import asyncpg
import msgspec
import uvicorn
from litestar import Litestar
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared import inbox, spans, telemetry, topology
from shared.backoff import reconnecting
from shared.bus import LOST, Consumer, Publisher
from shared.database import SILENT, Pool, open_pool
from shared.errors import Unavailable
from shared.gathering import Gathering
from shared.health import Check, health_routes
from shared.messages import Event, Message, Query
from shared.migrations import Owned, up_to_date
from shared.observing import telling
from shared.outbox import Relay
from shared.putting_away import MayHaveLeft, attending, nothing_leaves
from shared.schedule import Job
from shared.settings import BusSettings
from shared.version import version
from shared.vitals import Pulse
from shared.work import Desk
from shared.worker import GROUP_MAX, CommandHandler, FailureHandler, QueryHandler, RetrySchedules, Together, Worker

logger = logging.getLogger(__name__)

MIGRATIONS_INTERVAL_SECONDS = 0.2
CLEANING_INTERVAL_SECONDS = 60.0
# Longer than clients and load balancers (60 s by default: nginx, AWS) keep a connection they do not use: who closes first breaks
# a request that is on its way just then.
KEEP_ALIVE_SECONDS = 75

C = TypeVar("C")


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What a running service hands to its routes and its tests."""

    desk: Desk
    url: str


class Service(Generic[C]):
    """The composition of one service; `running()` starts it."""

    def __init__(
        self,
        *,
        name: str,
        settings: BusSettings,
        owned: Owned,
        context: Callable[[Desk], AbstractAsyncContextManager[C]],
        handlers: Mapping[type[Message], CommandHandler[C]] | None = None,
        queries: Mapping[type[Query], QueryHandler[C]] | None = None,
        jobs: Callable[[C], Sequence[Job]] = lambda _: (),
        http: Callable[[C, dict[str, Check]], Any] | None = None,
        checks: Callable[[C], dict[str, Check]] = lambda _: {},
        schedules: RetrySchedules | None = None,
        failed: Mapping[type[Message], FailureHandler[C]] | None = None,
        may_have_left: MayHaveLeft = nothing_leaves,
        stopping: Callable[[C], None] = lambda _: None,
        together: Mapping[type[Event], Together[C]] | None = None,
        looking: Collection[type[Message]] = (),
    ) -> None:
        self.name = name
        self.settings = settings
        self.context: C
        self._owned = owned
        self._make_context = context
        self._handlers = handlers or {}
        self._queries = queries or {}
        self._jobs = jobs
        self._http = http or (lambda _, checks: Litestar(health_routes(checks), openapi_config=None, logging_config=None))
        self._checks = checks
        self._schedules = schedules or RetrySchedules()
        self._failed = failed or {}
        self._may_have_left = may_have_left
        self._stopping = stopping
        self._together = together or {}
        self._looking = looking

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Parts]:
        """Start everything in order; on leaving, stop taking, finish what is in hand, close."""
        async with AsyncExitStack() as stack:
            pool = await self._database(stack)
            publisher = await self._publisher(stack)
            relay = await stack.enter_async_context(
                Relay(pool, publisher, service=self.name, head_start_seconds=self.settings.outbox_head_start_seconds)
            )
            desk = Desk(pool=pool, publisher=publisher, relay=relay, pause_seconds=self.settings.write_pause_seconds)
            self.context = context = await stack.enter_async_context(self._make_context(desk))
            for job in [*self._jobs(context), *self._upkeep(pool)]:
                await stack.enter_async_context(job)
            consumer = await self._consumer(stack, desk, context)
            checks = self._all_checks(pool, publisher, consumer, context)
            url = await stack.enter_async_context(_serving(self._http(context, checks), self.settings, self.name))
            telemetry.say(logger, logging.INFO, "started", {"url": url, "version": version()})
            yield Parts(desk=desk, url=url)
            self._stopping(context)
            if consumer is not None:
                await consumer.drain(self.settings.shutdown_grace_seconds)

    async def _database(self, stack: AsyncExitStack) -> Pool:
        pool: Pool | None = None
        async for attempt in reconnecting(*SILENT):
            with attempt:
                pool = await open_pool(
                    self.settings.database_url,
                    connections=self.settings.database_connections,
                    cached_statements=self.settings.database_cached_statements,
                )
        assert pool is not None, "the loop above ends only with a pool"
        stack.push_async_callback(_close_pool, pool)
        while not await up_to_date(pool, self._owned):
            telemetry.say(logger, logging.INFO, "waiting for migrations")
            await asyncio.sleep(MIGRATIONS_INTERVAL_SECONDS)
        return pool

    async def _publisher(self, stack: AsyncExitStack) -> Publisher:
        publisher = Publisher(self.settings.amqp_url, name=self.name)
        async for attempt in reconnecting(*LOST):
            with attempt:
                await stack.enter_async_context(publisher)
        return publisher

    async def _consumer(self, stack: AsyncExitStack, desk: Desk, context: C) -> Consumer | None:
        if not self._handlers and not self._queries:
            return None
        commands, queries = attending(self.name, desk, self._may_have_left)
        pulse = Pulse(self.name)
        worker = Worker(
            service=self.name,
            desk=desk,
            context=context,
            handlers={**self._handlers, **commands},
            queries={**self._queries, **queries, **telling(self.name, pulse, desk.pool)},
            pulse=pulse,
            handler_timeout_seconds=self.settings.handler_timeout_seconds,
            schedules=self._schedules,
            failed=self._failed,
            together=self._together,
            looking=self._looking,
            group_pause_seconds=self.settings.group_pause_seconds,
            # No more than that are ever in hand.
            group_max=min(GROUP_MAX, self.settings.prefetch),
        )
        consumer = Consumer(
            self.settings.amqp_url,
            [topology.lane(self.name), topology.background_lane(self.name)],
            worker.handle,
            name=self.name,
            prefetch=self.settings.prefetch,
            also_needed=topology.names(self.name),
        )
        return await stack.enter_async_context(consumer)

    def _all_checks(self, pool: Pool, publisher: Publisher, consumer: Consumer | None, context: C) -> dict[str, Check]:
        async def database() -> str | None:
            try:
                return None if await up_to_date(pool, self._owned) else "migrations are missing"
            except Unavailable as silent:
                return str(silent)

        async def broker() -> str | None:
            # Opened again on the next publish, so a lost channel alone is no trouble; an unreachable broker is.
            try:
                await asyncio.wait_for(publisher.reopen(), BROKER_CHECK_TIMEOUT_SECONDS)
            except LOST as lost:
                return f"{type(lost).__name__}: {lost}"
            return consumer.trouble if consumer is not None else None

        return {"database": database, "broker": broker, **self._checks(context)}

    def _upkeep(self, pool: Pool) -> list[Job]:
        async def clean() -> None:
            await inbox.forget_finished(pool)
            await spans.forget(pool, hours=self.settings.traces_kept_hours)

        async def write_spans() -> None:
            await spans.flush(pool)

        jobs = [Job("cleaning", clean, every_seconds=CLEANING_INTERVAL_SECONDS)]
        return [*jobs, Job("spans", write_spans, every_seconds=spans.FLUSH_EVERY_SECONDS)] if telemetry.keeping() else jobs


BROKER_CHECK_TIMEOUT_SECONDS = 5.0
POOL_CLOSE_TIMEOUT_SECONDS = 5.0


async def _close_pool(pool: Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), POOL_CLOSE_TIMEOUT_SECONDS)
    except (TimeoutError, asyncpg.InterfaceError, OSError):
        pool.terminate()


class Server(uvicorn.Server):
    """Uvicorn that leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


class GatheringHttp(HttpToolsProtocol):
    """HTTP whose answers are one write, head and body."""

    def connection_made(self, transport: Any) -> None:
        """Take a connection."""
        super().connection_made(cast(asyncio.Transport, Gathering(transport)))


@asynccontextmanager
async def _serving(app: Any, settings: BusSettings, name: str) -> AsyncIterator[str]:
    """Serve HTTP with httptools until left; an address in use is refused with a clear error."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.http_host, settings.http_port))
    except OSError as busy:
        listener.close()
        raise AddressInUse(f"{name}: {settings.http_host}:{settings.http_port} cannot be bound: {busy.strerror}") from busy
    config = uvicorn.Config(
        app,
        http=GatheringHttp,
        loop="none",
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=round(settings.shutdown_grace_seconds),
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    try:
        yield f"http://{settings.http_host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


class AddressInUse(Exception):
    """Another program listens where this service should; the text says where."""
