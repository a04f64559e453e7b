"""RabbitMQ as we use it: a publisher that knows what was confirmed, a consumer that comes back, a waiter for replies."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import aiormq
import msgspec
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity, DeliveryError, PublishError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from shared import telemetry, topology
from shared.backoff import reconnecting
from shared.errors import Unavailable
from shared.messages import BODY_MAX_BYTES, Envelope, Environment

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 5.0
HEARTBEAT_SECONDS = 10
CONFIRM_TIMEOUT_SECONDS = 5.0
PUBLISH_LIMIT_SECONDS = 15.0
CLOSE_TIMEOUT_SECONDS = 3.0
WATCH_INTERVAL_SECONDS = 5.0
GIVE_BACK_PAUSE_SECONDS = 2.0

LOST = (AMQPError, aiormq.AMQPError, OSError, TimeoutError, RuntimeError)


class Unroutable(Exception):
    """No queue is bound for this message: the topology is not what the sender believes."""


class TooLarge(Exception):
    """The body is over what the bus carries; it needs a claim check."""


class _Undelivered(Exception):
    """The broker did not confirm; the message may or may not have arrived."""


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """Something to publish: where to, the body, and the envelope's facts as headers."""

    exchange: str
    routing_key: str
    body: bytes
    headers: dict[str, Any]
    type: str = ""
    reply_to: str = ""
    correlation_id: str = ""
    persistent: bool = True
    mandatory: bool = True


class Received:
    """A message in hand: what it says, and the one answer the broker gets about it."""

    def __init__(self, message: AbstractIncomingMessage, queue: str) -> None:
        self._message = message
        self.queue = queue
        self.body = message.body
        self.headers: Mapping[str, Any] = message.headers
        self.type = message.type or ""
        self.routing_key = message.routing_key or ""
        self.correlation_id = message.correlation_id or ""
        self.reply_to = message.reply_to or ""
        self.persistent = message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT

    async def ack(self) -> None:
        """Tell the broker we are done; on a lost connection it will simply come again."""
        # An ack on a closed channel closes the whole connection, so look first.
        if not self._message.channel.is_closed:
            with suppress(*LOST):
                await self._message.ack()

    async def give_back(self) -> None:
        """Have the broker deliver it again."""
        if not self._message.channel.is_closed:
            with suppress(*LOST):
                await self._message.nack(requeue=True)

    async def reject(self) -> None:
        """Let the broker dead-letter it."""
        if not self._message.channel.is_closed:
            with suppress(*LOST):
                await self._message.reject(requeue=False)


def headers_of(envelope: Envelope) -> dict[str, Any]:
    """Write an envelope as AMQP headers."""
    facts = {
        "id": str(envelope.id),
        "store_id": str(envelope.store_id),
        "environment": envelope.environment.value,
        "source": envelope.source,
        "actor": envelope.actor,
        "correlation_id": envelope.correlation_id,
        "attempt": envelope.attempt,
    }
    if envelope.traceparent:
        facts["traceparent"] = envelope.traceparent
    if envelope.first_seen is not None:
        facts["first_seen"] = envelope.first_seen.isoformat()
    if envelope.deadline is not None:
        facts["deadline"] = envelope.deadline.isoformat()
    return facts


def envelope_of(received: Received) -> Envelope:
    """Read the envelope; a message without its facts raises ValueError or KeyError."""
    headers = received.headers
    return Envelope(
        id=UUID(str(headers["id"])),
        store_id=UUID(str(headers["store_id"])),
        environment=Environment(str(headers["environment"])),
        source=str(headers["source"]),
        actor=str(headers["actor"]),
        correlation_id=str(headers["correlation_id"]),
        traceparent=str(headers.get("traceparent", "")),
        reply_to=received.reply_to,
        attempt=int(headers.get("attempt", 0)),
        first_seen=_moment(headers.get("first_seen")),
        deadline=_moment(headers.get("deadline")),
    )


def _moment(text: Any) -> datetime | None:
    return None if text is None else datetime.fromisoformat(str(text))


class Publisher:
    """Publishes on a connection of its own, and returns only when the broker has confirmed."""

    def __init__(self, url: str, *, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._exchanges: dict[str, AbstractExchange] = {}
        self._opening = asyncio.Lock()
        self._closed = False

    async def __aenter__(self) -> "Publisher":
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        if self._connection is not None:
            await _close(self._connection)

    async def reopen(self) -> None:
        """Make sure that a channel is open; raises what the broker's absence raises."""
        if self._channel is None or self._channel.is_closed:
            await self._open()

    async def publish(self, letter: Letter) -> None:
        """Publish and wait for the confirm, again on a new channel if need be; raises Unavailable after the limit."""
        if len(letter.body) > BODY_MAX_BYTES:
            raise TooLarge(f"{letter.type}: {len(letter.body)} bytes, over {BODY_MAX_BYTES}")
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_Undelivered),
                wait=wait_random_exponential(multiplier=0.1, max=2),
                stop=stop_after_delay(PUBLISH_LIMIT_SECONDS),
                reraise=True,
            ):
                with attempt:
                    await self._once(letter)
        except _Undelivered as undelivered:
            raise Unavailable(f"broker: {undelivered}") from undelivered

    async def _once(self, letter: Letter) -> None:
        channel = self._channel
        try:
            if channel is None or channel.is_closed:
                channel = await self._open()
            exchange = await self._exchange(channel, letter.exchange)
            await exchange.publish(_message(letter), letter.routing_key, mandatory=letter.mandatory, timeout=CONFIRM_TIMEOUT_SECONDS)
        except PublishError as returned:
            raise Unroutable(f"{letter.exchange} has no queue for {letter.routing_key}") from returned
        except ChannelNotFoundEntity as missing:
            await self._drop(channel)
            raise Unroutable(f"there is no exchange {letter.exchange}") from missing
        except (DeliveryError, *LOST) as lost:
            await self._drop(channel)
            raise _Undelivered(f"{type(lost).__name__}: {lost}") from lost
        except asyncio.CancelledError as lost:
            # A frozen broker ends a pending publish with CancelledError; only our own cancellation may pass.
            if self._closed or _told_to_stop():
                raise
            await self._drop(channel)
            raise _Undelivered("the connection was lost") from lost

    async def _exchange(self, channel: AbstractChannel, name: str) -> AbstractExchange:
        exchange = self._exchanges.get(name)
        if exchange is None:
            exchange = channel.default_exchange if name == "" else await channel.get_exchange(name, ensure=False)
            self._exchanges[name] = exchange
        return exchange

    async def _open(self) -> AbstractChannel:
        async with self._opening:
            if self._channel is not None and not self._channel.is_closed:
                return self._channel
            if self._connection is None or self._connection.is_closed:
                self._connection = await aio_pika.connect(
                    self._url,
                    timeout=CONNECT_TIMEOUT_SECONDS,
                    client_properties={"connection_name": f"{self._name} publish"},
                    heartbeat=HEARTBEAT_SECONDS,
                )
            self._exchanges = {}
            self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            return self._channel

    async def _drop(self, channel: AbstractChannel | None) -> None:
        # A channel that saw a nack or a lost confirm may nack for ever (RabbitMQ 3.10.8 after a leader change).
        if channel is not None and channel is self._channel:
            self._channel = None
            connection = self._connection
            self._connection = None
            if connection is not None:
                await _close(connection)


def _message(letter: Letter) -> aio_pika.Message:
    mode = aio_pika.DeliveryMode.PERSISTENT if letter.persistent else aio_pika.DeliveryMode.NOT_PERSISTENT
    return aio_pika.Message(
        letter.body,
        headers=letter.headers,
        content_type="application/json",
        delivery_mode=mode,
        # Two publishes in flight with one message id would swap their results, so it is never ours.
        message_id=uuid4().hex,
        type=letter.type or None,
        reply_to=letter.reply_to or None,
        correlation_id=letter.correlation_id or None,
    )


async def _close(connection: AbstractConnection) -> None:
    try:
        await asyncio.wait_for(connection.close(), CLOSE_TIMEOUT_SECONDS)
    except LOST:
        return
    except asyncio.CancelledError:
        # The library cancels what waits on a lost connection; only our own cancellation may pass, and it must.
        if _told_to_stop():
            raise


def _told_to_stop() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


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
        self._tags: list[tuple[aio_pika.abc.AbstractQueue, str]] = []
        self._connection: AbstractConnection | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.trouble: str | None = "not connected yet"

    async def __aenter__(self) -> "Consumer":
        self._supervisor = asyncio.create_task(self._supervise())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            with suppress(asyncio.CancelledError):
                await self._supervisor
        if self._connection is not None:
            await _close(self._connection)

    async def drain(self, grace_seconds: float) -> None:
        """Take no more, finish what is in hand within the grace period; closing requeues the rest."""
        for queue, tag in self._tags:
            with suppress(*LOST):
                await queue.cancel(tag)
        if self._in_hand:
            _, late = await asyncio.wait(self._in_hand, timeout=grace_seconds)
            for task in late:
                task.cancel()

    async def _supervise(self) -> None:
        while True:
            try:
                await self._consume_until_lost()
            except LOST as lost:
                self.trouble = f"{type(lost).__name__}: {lost}"
            except asyncio.CancelledError:
                if _told_to_stop():
                    raise
                self.trouble = "the connection was lost"
            telemetry.say(logger, logging.WARNING, "consumer lost the broker", {"reason": self.trouble, "name": self._name})
            if self._connection is not None:
                await _close(self._connection)
            await asyncio.sleep(0.1)

    async def _consume_until_lost(self) -> None:
        async for attempt in reconnecting(*LOST):
            with attempt:
                self._connection = await aio_pika.connect(
                    self._url,
                    timeout=CONNECT_TIMEOUT_SECONDS,
                    client_properties={"connection_name": f"{self._name} consume"},
                    heartbeat=HEARTBEAT_SECONDS,
                )
        connection = self._connection
        assert connection is not None, "the loop above ends only with a connection"
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=self._prefetch)
        self._tags = []
        for name in self._queues:
            queue = await self._queue(channel, name)
            self._tags.append((queue, await queue.consume(self._receiver(name))))
        await self._watch(connection, channel)

    async def _queue(self, channel: AbstractChannel, name: str) -> aio_pika.abc.AbstractQueue:
        if self._own_queue:
            return await channel.declare_queue(name, exclusive=True, auto_delete=True)
        return await channel.declare_queue(name, passive=True)

    def _receiver(self, queue: str) -> Callable[[AbstractIncomingMessage], Awaitable[None]]:
        async def receive(message: AbstractIncomingMessage) -> None:
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

    async def _watch(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        looking = await connection.channel()
        absent = None if self._own_queue else await topology.missing(looking, self._also_needed)
        self.trouble = f"queue {absent} is missing" if absent else None
        while self.trouble is None:
            await asyncio.sleep(WATCH_INTERVAL_SECONDS if not channel.is_closed else 0)
            if channel.is_closed or connection.is_closed:
                raise ConnectionError("the connection was closed")
            for name in self._queues:
                found = await looking.declare_queue(name, passive=True)
                if not found.declaration_result.consumer_count:
                    raise ConnectionError(f"nobody consumes {name} although we should")
        raise ConnectionError(self.trouble)
