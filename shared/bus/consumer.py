"""A consumer that comes back after every loss."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage

from shared import telemetry, topology
from shared.backoff import reconnecting
from shared.bus.connections import ANSWER_TIMEOUT_SECONDS, LOST, close, connect, told_to_stop
from shared.bus.letters import Received
from shared.errors import Unavailable
from shared.stopping import stop

logger = logging.getLogger(__name__)

WATCH_INTERVAL_SECONDS = 5.0
GIVE_BACK_PAUSE_SECONDS = 2.0

Handler = Callable[[Received], Awaitable[None]]


class Consumer:
    """Consumes queues on a connection of its own, and again after every loss, until it is drained."""

    def __init__(
        self,
        url: str,
        queues: Sequence[str],
        handle: Handler,
        *,
        name: str,
        prefetch: int,
        also_needed: Sequence[str] = (),
        own_queue: bool = False,
    ) -> None:
        self._url = url
        self._queues = queues
        self._handle = handle
        self._name = name
        self._prefetch = prefetch
        self._also_needed = also_needed
        self._own_queue = own_queue
        self._in_hand: set[asyncio.Task[None]] = set()
        self._tags: list[tuple[AbstractChannel, str]] = []
        self._connection: AbstractConnection | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.trouble: str | None = "not connected yet"

    async def __aenter__(self) -> "Consumer":
        self._supervisor = asyncio.create_task(self._supervise())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._supervisor is not None:
            await stop(self._supervisor)
        if self._connection is not None:
            await close(self._connection)

    async def drain(self, grace_seconds: float) -> None:
        """Take no more, finish what is in hand within the grace period; closing requeues the rest."""
        for channel, tag in self._tags:
            with suppress(*LOST):
                await channel.basic_cancel(tag)
        if self._in_hand:
            _, late = await asyncio.wait(self._in_hand, timeout=grace_seconds)
            for task in late:
                task.cancel()
        for channel, _ in self._tags[:1]:
            with suppress(*LOST):
                # Closing drops what is not written yet; once this is answered, the broker has read every acknowledgement before it.
                await channel.basic_qos(prefetch_count=self._prefetch, timeout=ANSWER_TIMEOUT_SECONDS)

    async def _supervise(self) -> None:
        while True:
            try:
                await self._consume_until_lost()
            except LOST as lost:
                self.trouble = f"{type(lost).__name__}: {lost}"
            except asyncio.CancelledError:
                if told_to_stop():
                    raise
                self.trouble = "the connection was lost"
            except Exception as bug:
                # The library's own, on a connection that broke in the middle of a frame: whatever it is, we come back.
                logger.error("a consumer failed", exc_info=bug)
                self.trouble = f"{type(bug).__name__}: {bug}"
            telemetry.say(logger, logging.WARNING, "consumer lost the broker", {"reason": self.trouble, "name": self._name})
            if self._connection is not None:
                await close(self._connection)
            await asyncio.sleep(0.1)

    async def _consume_until_lost(self) -> None:
        async for attempt in reconnecting(*LOST):
            with attempt:
                self._connection = await connect(self._url, name=f"{self._name} consume")
        connection = self._connection
        assert connection is not None, "the loop above ends only with a connection"
        # A broker that is going down or coming up may take a connection and never answer on it.
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            channel = await connection.channel()
            await channel.basic_qos(prefetch_count=self._prefetch)
            self._tags = []
            for name in self._queues:
                if self._own_queue:
                    await channel.queue_declare(name, exclusive=True, auto_delete=True)
                    await channel.queue_bind(name, topology.REPLIES, routing_key=name)
                consuming = await channel.basic_consume(name, self._receiver(name), no_ack=self._own_queue)
                self._tags.append((channel, consuming.consumer_tag or ""))
            looking = await connection.channel()
            absent = None if self._own_queue else await topology.missing(looking, self._also_needed)
        self.trouble = f"queue {absent} is missing" if absent else None
        await self._watch(connection, channel, looking)

    def _receiver(self, queue: str) -> Callable[[DeliveredMessage], Coroutine[Any, Any, None]]:
        async def receive(message: DeliveredMessage) -> None:
            # A task of ours, so that a lost connection does not cancel a handler at some await.
            task = asyncio.create_task(self._guarded(Received(message, queue)))
            self._in_hand.add(task)
            task.add_done_callback(self._in_hand.discard)

        return receive

    async def _guarded(self, received: Received) -> None:
        try:
            await self._handle(received)
        except Unavailable as silent:
            # Neither done nor sent on: it comes again, after a pause, so that an outage does not use its deliveries up.
            telemetry.say(logger, logging.WARNING, "a message is given back", {"reason": str(silent), "queue": received.queue})
            await asyncio.sleep(GIVE_BACK_PAUSE_SECONDS)
            await received.give_back()

    async def _watch(self, connection: AbstractConnection, channel: AbstractChannel, looking: AbstractChannel) -> None:
        while self.trouble is None:
            await asyncio.sleep(WATCH_INTERVAL_SECONDS if not channel.is_closed else 0)
            if channel.is_closed or connection.is_closed:
                raise ConnectionError("the connection was closed")
            for name in self._queues:
                async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                    found = await looking.queue_declare(name, passive=True)
                if not found.consumer_count:
                    raise ConnectionError(f"nobody consumes {name} although we should")
        raise ConnectionError(self.trouble)
