"""A consumer that comes back after every loss."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import ChannelAccessRefused

from shared import telemetry, topology
from shared.backoff import RECONNECT_WAIT_MAX_SECONDS, reconnecting
from shared.bus.connections import ANSWER_TIMEOUT_SECONDS, LOST, close, connect, told_to_stop
from shared.bus.letters import Received
from shared.dependencies import Dependency, reason_of, where_of
from shared.errors import Unavailable
from shared.stopping import stop

logger = logging.getLogger(__name__)

WATCH_INTERVAL_SECONDS = 5.0
GIVE_BACK_PAUSE_SECONDS = 2.0
# After a loss, and doubled for as long as the broker does not let us consume.
RECONNECT_PAUSE_SECONDS = 0.1
# How long a handler that was cancelled at the end of the grace period may take to end.
CANCEL_TIMEOUT_SECONDS = 1.0

R = TypeVar("R")
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
        reply_exchange: str | None = None,
    ) -> None:
        self._url = url
        self._queues = queues
        self._handle = handle
        self._name = name
        self._prefetch = prefetch
        self._also_needed = also_needed
        self._reply_exchange = reply_exchange
        self._in_hand: set[asyncio.Task[None]] = set()
        self._tags: list[tuple[AbstractChannel, str]] = []
        self._connection: AbstractConnection | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[Any] | None = None
        self._draining = False
        # How many connections it has consumed on so far.
        self._consumed = 0
        self._broker = Dependency("broker", where_of(url), user=name)

    @property
    def trouble(self) -> str | None:
        """What keeps messages from arriving, if anything."""
        return self._broker.trouble

    async def __aenter__(self) -> "Consumer":
        self._supervisor = asyncio.create_task(self._supervise())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._supervisor is not None:
            await stop(self._supervisor)
        if self._connection is not None:
            await close(self._connection)

    async def drain(self, grace_seconds: float) -> None:
        """Take nothing more, finish what is in hand within the grace period; closing requeues the rest. Nothing connects again."""
        self._draining = True
        if self._supervisor is not None:
            await stop(self._supervisor)
        if self._asking is not None:
            # To cancel a question to the broker would close its channel, or the connection.
            await self._answered(self._asking)
        answered = all(await asyncio.gather(*(self._asked(channel.basic_cancel(tag)) for channel, tag in self._tags)))
        if self._in_hand:
            _, late = await asyncio.wait(self._in_hand, timeout=grace_seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=CANCEL_TIMEOUT_SECONDS)
        if answered and self._tags:
            # Closing drops what is not written yet; once this is answered, the broker has read every acknowledgement before it.
            await self._asked(self._tags[0][0].basic_qos(prefetch_count=self._prefetch))

    async def _asked(self, asking: Coroutine[Any, Any, Any]) -> bool:
        return await self._answered(_noted(asyncio.create_task(asking)))

    async def _answered(self, asking: "asyncio.Task[Any]") -> bool:
        """Wait until the broker has answered, or cannot any more; the library lets some questions wait on a connection that is lost."""
        lost = {self._connection.closing} if self._connection is not None else set()
        await asyncio.wait({asking, *lost}, timeout=ANSWER_TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return asking.done()

    async def _supervise(self) -> None:
        pause_seconds = RECONNECT_PAUSE_SECONDS
        while True:
            consumed_before = self._consumed
            try:
                await self._consume_until_lost()
            except LOST as lost:
                self._broker.failed(reason_of(lost))
            except asyncio.CancelledError:
                if told_to_stop():
                    raise
                self._broker.failed("the connection was lost")
            except Exception as bug:
                # The library's own, on a connection that broke in the middle of a frame: whatever it is, we come back.
                logger.error("a consumer failed", exc_info=bug)
                self._broker.failed(reason_of(bug))
            if self._connection is not None:
                await close(self._connection)
            pause_seconds = (
                RECONNECT_PAUSE_SECONDS if self._consumed > consumed_before else min(2 * pause_seconds, RECONNECT_WAIT_MAX_SECONDS)
            )
            await asyncio.sleep(pause_seconds)

    async def _consume_until_lost(self) -> None:
        async for attempt in reconnecting(*LOST):
            with attempt:
                connection = await self._connected()
        channel = await self._uninterrupted(self._consume(connection))
        self._consumed += 1
        self._broker.answered()
        await self._watch(connection, channel)

    async def _uninterrupted(self, asking: Coroutine[Any, Any, R]) -> R:
        self._asking = task = _noted(asyncio.create_task(asking))
        return await asyncio.shield(task)

    async def _consume(self, connection: AbstractConnection) -> Channel:
        # A broker that is going down or coming up may take a connection and never answer on it.
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            channel = cast(Channel, await connection.channel())
            await channel.basic_qos(prefetch_count=self._prefetch)
            self._tags = []
            for name in self._queues:
                if self._reply_exchange:
                    await channel.queue_declare(name, exclusive=True, auto_delete=True)
                    await channel.queue_bind(name, self._reply_exchange, routing_key=name)
                consuming = await channel.basic_consume(name, self._receiver(name), no_ack=self._reply_exchange is not None)
                self._tags.append((channel, consuming.consumer_tag or ""))
            absent = None if self._reply_exchange else await topology.missing(connection, self._also_needed)
        if absent is not None:
            raise ConnectionError(f"queue {absent} is missing")
        return channel

    async def _connected(self) -> AbstractConnection:
        try:
            self._connection = await connect(self._url, name=f"{self._name} consume")
        except LOST as lost:
            self._broker.failed(reason_of(lost))
            raise
        return self._connection

    def _receiver(self, queue: str) -> Callable[[DeliveredMessage], Coroutine[Any, Any, None]]:
        async def receive(message: DeliveredMessage) -> None:
            if self._draining:
                # It was on its way when consuming was cancelled; given back now it could come again at once, closing requeues it.
                return
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

    async def _watch(self, connection: AbstractConnection, channel: Channel) -> None:
        may_look = True
        while True:
            await asyncio.sleep(WATCH_INTERVAL_SECONDS if not channel.is_closed else 0)
            if channel.is_closed or connection.is_closed:
                raise ConnectionError("the connection was closed")
            for name, (_, tag) in zip(self._queues, self._tags, strict=True):
                # The library forgets a consumer that the broker has cancelled.
                if tag not in channel.consumers:
                    raise ConnectionError(f"the broker cancelled the consumer of {name}")
            may_look = may_look and await self._uninterrupted(self._all_consumed(connection))

    async def _all_consumed(self, connection: AbstractConnection) -> bool:
        """Make sure the broker knows our consumers too; returns False when it does not let us look. Raises ConnectionError."""
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            looking = await connection.channel()
            for name in self._queues:
                try:
                    found = await looking.queue_declare(name, passive=True)
                except ChannelAccessRefused:
                    return False
                if not found.consumer_count:
                    raise ConnectionError(f"{name} has no consumer although this process should be one")
            await looking.close()
        return True


def _noted(task: "asyncio.Task[R]") -> "asyncio.Task[R]":
    """Have a task's failure taken note of, for when nothing waits for it any longer."""
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
