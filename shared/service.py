"""A service: what it is made of, how its parts start one after the other, and how they stop without losing anything."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Generic, TypeVar

import asyncpg
import msgspec

from shared import inbox, replicas, spans, telemetry, topology
from shared.bus import LOST, Consumer, Publisher
from shared.database import SILENT, Pool, open_pool
from shared.dependencies import Dependency, Misconfigured, reason_of, where_of
from shared.errors import Unavailable
from shared.health import Check
from shared.http_server import HttpServer
from shared.messages import Event, Message, Query
from shared.migrations import Owned, schema_trouble
from shared.observing import telling
from shared.outbox import Relay
from shared.putting_away import Discarded, MayHaveLeft, attending, nothing_else, nothing_leaves
from shared.schedule import Job
from shared.settings import BusSettings
from shared.stopping import stop
from shared.version import version
from shared.vitals import Pulse
from shared.work import Desk
from shared.worker import (
    GROUP_MAX,
    PREFETCHED_MAX,
    PREFETCHED_PER_SLOT,
    CommandHandler,
    FailureHandler,
    QueryHandler,
    RetrySchedules,
    Together,
    Worker,
)

logger = logging.getLogger(__name__)

MIGRATIONS_INTERVAL_SECONDS = 0.2
CLEANING_INTERVAL_SECONDS = 60.0

C = TypeVar("C")


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What a running service hands to its routes and its tests."""

    desk: Desk
    # Of the public port, empty where there is none, and of the private one with health and metrics.
    url: str
    monitoring_url: str


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
        http: Callable[[C], Any] | None = None,
        checks: Callable[[C], dict[str, Check]] = lambda _: {},
        only_shown: Collection[str] = (),
        schedules: RetrySchedules | None = None,
        failed: Mapping[type[Message], FailureHandler[C]] | None = None,
        may_have_left: MayHaveLeft = nothing_leaves,
        discarded: Discarded = nothing_else,
        stopping: Callable[[C], None] = lambda _: None,
        together: Mapping[type[Event], Together[C]] | None = None,
        looking: Collection[type[Message]] = (),
        failures_answered: Collection[type[Message]] = (),
    ) -> None:
        self.name = name
        self.settings = settings
        self.context: C
        self._owned = owned
        self._make_context = context
        self._handlers = handlers or {}
        self._queries = queries or {}
        self._jobs = jobs
        self._http = http
        self._checks = checks
        self._only_shown = only_shown
        self._schedules = schedules or RetrySchedules()
        self._failed = failed or {}
        self._may_have_left = may_have_left
        self._discarded = discarded
        self._stopping = stopping
        self._together = together or {}
        self._looking = looking
        self._failures_answered = failures_answered
        self._leaving = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Parts]:
        """Start everything in order, health first; on leaving, stop taking, finish what is in hand, close.

        Raises Misconfigured on what waiting cannot mend, and AddressInUse.
        """
        database = Dependency("database", where_of(self.settings.database_url))
        broker = Dependency("broker", where_of(self.settings.amqp_url))
        schema = Dependency("migrations", f"schema {self.name}")
        awaited = {"process": _starting, **{each.what: _as_check(each) for each in (database, broker, schema)}}
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(HttpServer(self.settings, self.name, awaited, public=self._http is not None))
            pool, publisher = await together(self._database(stack, database, schema), self._publisher(stack, broker))
            relay = await stack.enter_async_context(
                Relay(pool, publisher, service=self.name, head_start_seconds=self.settings.outbox_head_start_seconds)
            )
            pulse = Pulse(self.name)
            desk = Desk(pool=pool, publisher=publisher, relay=relay, pulse=pulse, pause_seconds=self.settings.write_pause_seconds)
            self.context = context = await stack.enter_async_context(self._make_context(desk))
            for job in [*self._jobs(context), *self._upkeep(pool)]:
                await stack.enter_async_context(job)
            consumer = await self._consumer(stack, desk, context)
            checks = self._all_checks(pool, publisher, consumer, context)
            await stack.enter_async_context(replicas.registered(pool, pulse))
            # What is in hand ends while everything else still works.
            stack.push_async_callback(http.stop)
            http.serve(None if self._http is None else self._http(context), checks, only_shown=self._only_shown)
            urls = {"url": http.url, "monitoring_url": http.monitoring_url}
            telemetry.say(logger, logging.INFO, "started", {**urls, "replica": pulse.replica, "version": version()})
            yield Parts(desk=desk, **urls)
            self._leaving = True
            telemetry.say(logger, logging.INFO, "stopping")
            await asyncio.gather(self._notice(), self._drained(consumer))
            self._stopping(context)

    async def _notice(self) -> None:
        # Of those alone to whom requests are sent by readiness.
        if self._http is not None:
            await asyncio.sleep(self.settings.shutdown_notice_seconds)

    async def _drained(self, consumer: Consumer | None) -> None:
        if consumer is not None:
            await consumer.drain(self.settings.shutdown_grace_seconds)

    async def _database(self, stack: AsyncExitStack, database: Dependency, schema: Dependency) -> Pool:
        async def opened() -> Pool:
            return await open_pool(
                self.settings.database_url,
                connections=self.settings.database_connections,
                cached_statements=self.settings.database_cached_statements if self.settings.database_cached_statements >= 0 else None,
            )

        pool = await database.connected(opened, *SILENT)
        stack.push_async_callback(_close_pool, pool)
        while trouble := await self._schema_trouble(pool):
            schema.failed(trouble)
            await asyncio.sleep(MIGRATIONS_INTERVAL_SECONDS)
            # Migrating sets what sessions of the role begin with.
            await pool.renew()
        schema.answered()
        return pool

    async def _schema_trouble(self, pool: Pool) -> str | None:
        try:
            return await schema_trouble(pool, self._owned)
        except Unavailable as silent:
            return str(silent)

    async def _publisher(self, stack: AsyncExitStack, broker: Dependency) -> Publisher:
        publisher = Publisher(self.settings.amqp_url, name=self.name)

        async def opened() -> Publisher:
            return await publisher.__aenter__()

        await broker.connected(opened, *LOST)
        stack.push_async_exit(publisher)
        return publisher

    async def _consumer(self, stack: AsyncExitStack, desk: Desk, context: C) -> Consumer | None:
        if not self._handlers and not self._queries:
            return None
        commands, queries = attending(self.name, desk, self._may_have_left, self._discarded)
        worker = Worker(
            service=self.name,
            desk=desk,
            context=context,
            handlers={**self._handlers, **commands},
            queries={**self._queries, **queries, **telling(self.name, desk.pulse, desk.pool)},
            handler_timeout_seconds=self.settings.handler_timeout_seconds,
            schedules=self._schedules,
            failed=self._failed,
            together=self._together,
            looking=self._looking,
            failures_answered=self._failures_answered,
            group_pause_seconds=self.settings.group_pause_seconds,
            # No more than that are ever in hand.
            group_max=min(GROUP_MAX, self.settings.prefetch),
            slots=self.settings.prefetch,
        )
        consumer = Consumer(
            self.settings.amqp_url,
            [topology.lane(self.name), topology.background_lane(self.name)],
            worker.handle,
            name=self.name,
            prefetch=min(self.settings.prefetch * PREFETCHED_PER_SLOT, PREFETCHED_MAX),
            also_needed=topology.names(self.name),
        )
        return await stack.enter_async_context(consumer)

    def _all_checks(self, pool: Pool, publisher: Publisher, consumer: Consumer | None, context: C) -> dict[str, Check]:
        async def database() -> str | None:
            try:
                return await self._schema_trouble(pool)
            except Misconfigured as wrong:
                return str(wrong)

        async def broker() -> str | None:
            # Opened again on the next publish, so a lost channel alone is no trouble; an unreachable broker is.
            try:
                await asyncio.wait_for(publisher.reopen(), BROKER_CHECK_TIMEOUT_SECONDS)
            except LOST as lost:
                return reason_of(lost)
            return consumer.trouble if consumer is not None else None

        async def process() -> str | None:
            return "stopping" if self._leaving else None

        return {"process": process, "database": database, "broker": broker, **self._checks(context)}

    def _upkeep(self, pool: Pool) -> list[Job]:
        async def clean() -> None:
            await inbox.forget_finished(pool)
            await replicas.purge_replicas(pool)
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


async def _starting() -> str | None:
    return "starting"


def _as_check(dependency: Dependency) -> Check:
    async def check() -> str | None:
        return dependency.trouble

    return check


A = TypeVar("A")
B = TypeVar("B")


async def together(first: Awaitable[A], second: Awaitable[B]) -> tuple[A, B]:
    """Wait for both; the first that fails ends the other and is raised."""
    tasks = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        return await asyncio.gather(*tasks)
    finally:
        await stop(*tasks)
