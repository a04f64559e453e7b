"""A publisher that knows what was confirmed."""

import asyncio
from typing import cast

from aiormq import spec
from aiormq.abc import AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import ChannelNotFoundEntity, DeliveryError, PublishError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from shared.bus.connections import ANSWER_TIMEOUT_SECONDS, LOST, close, connect, connect_first, losses_named, told_to_stop
from shared.bus.letters import PERSISTENT, TRANSIENT, Letter, TooLarge, Unroutable
from shared.errors import Unavailable
from shared.ids import new_id_text
from shared.messages import BODY_MAX_BYTES

CONFIRM_TIMEOUT_SECONDS = 5.0
PUBLISH_LIMIT_SECONDS = 15.0


class _Undelivered(Exception):
    """The broker did not confirm; the message may or may not have arrived."""


class Publisher:
    """Publishes on a connection of its own, and returns only when the broker has confirmed."""

    def __init__(self, url: str, *, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: AbstractConnection | None = None
        self._channel: Channel | None = None
        self._unconfirmed: Channel | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def __aenter__(self) -> "Publisher":
        self._connection = await connect_first(self._url, name=f"{self._name} publish")
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        if self._connection is not None:
            await close(self._connection)

    @property
    def trouble(self) -> str | None:
        """What keeps letters from going out, as far as is known without asking the broker; `reopen` may mend it."""
        both = self._channel, self._unconfirmed
        return "the connection was lost" if any(channel is None or channel.is_closed for channel in both) else None

    async def reopen(self) -> None:
        """Make sure that a channel is open; raises what the broker's absence raises."""
        if self.trouble is not None:
            await self._open()

    async def publish(self, letter: Letter) -> None:
        """Publish and wait for the confirm, again on a new channel if need be; raises Unavailable after the limit."""
        if len(letter.body) > BODY_MAX_BYTES:
            raise TooLarge(f"{letter.type}: {len(letter.body)} bytes, over {BODY_MAX_BYTES}")
        try:
            await self._once(letter)
        except _Undelivered:
            await self._again(letter)

    async def tell(self, letter: Letter) -> None:
        """Publish without waiting for anything: for what is asked again when it is lost, such as a reply."""
        try:
            await self.reopen()
            channel = self._unconfirmed
            assert channel is not None, "both channels are opened together"
            with losses_named():
                await channel.basic_publish(
                    letter.body, exchange=letter.exchange, routing_key=letter.routing_key, properties=_properties(letter), wait=False
                )
        except LOST as lost:
            raise Unavailable(f"broker: {lost}") from lost

    async def _again(self, letter: Letter) -> None:
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_Undelivered),
                wait=wait_random_exponential(multiplier=0.1, max=2),
                stop=stop_after_delay(PUBLISH_LIMIT_SECONDS),
                reraise=True,
            ):
                with attempt:
                    await self._once(letter)
                    return
        except _Undelivered as undelivered:
            raise Unavailable(f"broker: {undelivered}") from undelivered
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, letter: Letter) -> None:
        channel = self._channel
        try:
            if channel is None or channel.is_closed:
                channel = await self._open()
            # The confirm is waited for, not that the socket has taken it: many travel at once.
            with losses_named():
                await channel.basic_publish(
                    letter.body,
                    exchange=letter.exchange,
                    routing_key=letter.routing_key,
                    properties=_properties(letter),
                    mandatory=letter.mandatory,
                    timeout=CONFIRM_TIMEOUT_SECONDS,
                    wait=False,
                )
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
            if self._closed or told_to_stop():
                raise
            await self._drop(channel)
            raise _Undelivered("the connection was lost") from lost

    async def _open(self) -> Channel:
        async with self._opening:
            both = self._channel, self._unconfirmed
            if self._channel is not None and all(channel is not None and not channel.is_closed for channel in both):
                return self._channel
            if self._connection is None or self._connection.is_closed:
                self._connection = await connect(self._url, name=f"{self._name} publish")
            try:
                with losses_named():
                    async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                        self._unconfirmed = cast(Channel, await self._connection.channel(publisher_confirms=False))
                        self._channel = cast(Channel, await self._connection.channel(publisher_confirms=True, on_return_raises=True))
            except LOST:
                # Open and mute, or gone without the library's having noticed: the next try gets another connection.
                useless, self._connection = self._connection, None
                await close(useless)
                raise
            return self._channel

    async def _drop(self, channel: Channel | None) -> None:
        # A channel that saw a nack or a lost confirm may nack for ever (RabbitMQ 3.10.8 after a leader change).
        if channel is not None and channel is self._channel:
            self._channel = None
            connection = self._connection
            self._connection = None
            if connection is not None:
                await close(connection)


def _properties(letter: Letter) -> spec.Basic.Properties:
    return spec.Basic.Properties(
        # Two publishes in flight with one message id would swap their results, so it is never ours.
        message_id=new_id_text(),
        headers=letter.headers,
        content_type="application/json",
        delivery_mode=PERSISTENT if letter.persistent else TRANSIENT,
        message_type=letter.type or None,
        reply_to=letter.reply_to or None,
        correlation_id=letter.correlation_id or None,
    )
