"""What a message is: a frozen struct whose tag is type, routing key and version at once, and its envelope."""

from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from shared.errors import Problem

# Most messages have a few KiB. The largest carries a provider's event: at most 1 MiB, and three times that as text where it is not UTF-8.
BODY_MAX_BYTES = 4 * 1024 * 1024


class Environment(StrEnum):
    """Which world a row or message belongs to; the API key decides."""

    SANDBOX = "sandbox"
    PRODUCTION = "production"


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=True):
    """Something said over the bus; a subclass names its tag."""


class Query(Message, frozen=True, kw_only=True):
    """A question: transient, answered at once or not at all."""


class SecretQuery(Query, frozen=True, kw_only=True):
    """A query whose answer holds a secret; the gateway writes each one to the audit before it asks."""


class Event(Message, frozen=True, kw_only=True):
    """Something that happened, told after the commit that made it true."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The facts around a body: who asks, for whom, and how often it was tried."""

    id: UUID
    store_id: UUID
    environment: Environment
    source: str
    actor: str
    correlation_id: str
    traceparent: str = ""
    reply_to: str = ""
    attempt: int = 0
    first_seen: datetime | None = None
    deadline: datetime | None = None
    # Sent once more by an operator, after it was parked.
    redriven: bool = False


class Done(msgspec.Struct, frozen=True, tag_field="kind", tag="done"):
    """The reply to a message that was carried out."""

    body: msgspec.Raw


class Refused(msgspec.Struct, frozen=True, tag_field="kind", tag="refused"):
    """The reply to a message that a rule refused."""

    problem: Problem


Reply = Done | Refused

M = TypeVar("M", bound=Message)
_encoder = msgspec.json.Encoder()
_reply_decoder = msgspec.json.Decoder(Done | Refused)


def type_of(kind: type[Message]) -> str:
    """Tell a message's type, which is also its routing key."""
    tag = kind.__struct_config__.tag
    assert isinstance(tag, str), "every message names its tag"
    return tag


def encode(body: Any) -> bytes:
    """Write a struct as JSON, so that an operator can read a dead letter."""
    return _encoder.encode(body)


def done(body: Any) -> Done:
    """Wrap a view as the reply of a message carried out."""
    return Done(msgspec.Raw(_encoder.encode(body)))


def encode_reply(reply: Reply) -> bytes:
    """Write a reply as JSON."""
    return _encoder.encode(reply)


def decode_reply(raw: bytes) -> Reply:
    """Read a reply from JSON."""
    reply: Reply = _reply_decoder.decode(raw)
    return reply
