"""What travels: letters to publish, messages in hand, and the envelope's facts as headers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from aiormq.abc import DeliveredMessage

from shared.bus.connections import losses_ignored
from shared.messages import Envelope, Environment

# AMQP 0-9-1, basic.properties: what the broker writes down, and what it may forget.
TRANSIENT, PERSISTENT = 1, 2


class Unroutable(Exception):
    """No queue is bound for this message: the topology is not what the sender believes."""


class TooLarge(Exception):
    """The body is over what the bus carries; it needs a claim check."""


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

    def __init__(self, message: DeliveredMessage, queue: str) -> None:
        properties = message.header.properties
        self._channel = message.channel
        self._delivery_tag = message.delivery_tag or 0
        self.queue = queue
        self.body = message.body
        self.headers: Mapping[str, Any] = properties.headers or {}
        self.type = properties.message_type or ""
        self.routing_key = message.routing_key or ""
        self.correlation_id = properties.correlation_id or ""
        self.reply_to = properties.reply_to or ""
        self.persistent = properties.delivery_mode == PERSISTENT

    async def ack(self) -> None:
        """Tell the broker we are done; on a lost connection it will simply come again."""
        # An ack on a closed channel closes the whole connection, so look first.
        if not self._channel.is_closed:
            with losses_ignored():
                await self._channel.basic_ack(self._delivery_tag, wait=False)

    async def give_back(self) -> None:
        """Have the broker deliver it again."""
        if not self._channel.is_closed:
            with losses_ignored():
                await self._channel.basic_nack(self._delivery_tag, requeue=True, wait=False)

    async def reject(self) -> None:
        """Let the broker dead-letter it."""
        if not self._channel.is_closed:
            with losses_ignored():
                await self._channel.basic_reject(self._delivery_tag, requeue=False, wait=False)


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
    if envelope.redriven:
        facts["redriven"] = True
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
        redriven=bool(headers.get("redriven", False)),
    )


def _moment(text: Any) -> datetime | None:
    return None if text is None else datetime.fromisoformat(str(text))
