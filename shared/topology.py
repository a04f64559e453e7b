"""The broker's shape, declared in one place; services only look whether it is there."""

import re
from collections.abc import Sequence

import aio_pika
import msgspec
from aio_pika.abc import AbstractChannel, AbstractConnection, ExchangeType
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity
from aiormq.abc import AbstractConnection as Connection
from aiormq.abc import FieldTable
from aiormq.exceptions import ChannelAccessRefused

from shared.dependencies import nodes_of, reason_of
from shared.errors import Clear

COMMANDS = "tender.commands"
EVENTS = "tender.events"
UNROUTED = "tender.unrouted"
DEAD = "tender.dead"
UNROUTED_QUEUE = "tender.unrouted.v1"

# The services that take messages; the gateway only sends them.
CONSUMERS = ("payments", "webhooks", "fulfillment", "reconciler")
# Whose events a service is told of, besides the commands to it.
SUBSCRIPTIONS = {"webhooks": ("payments.#",), "fulfillment": ("payments.#",)}
VERSION = "v1"
# The first ones came back by the default exchange, which leads into every queue there is; what is still in them does so.
TIER_VERSION = "v2"
TIER_VERSION_BEFORE = "v1"
LANE_LENGTH_MAX = 1_000_000
LANE_DELIVERIES_MAX = 20
# -1 drops messages on RabbitMQ 3.10 and no limit means 20 on 4.x, so "for ever" is a large number.
FOREVER_DELIVERIES = 1_000_000
UNROUTED_LENGTH_MAX = 100_000
TIERS_MILLISECONDS = {"1s": 1_000, "30s": 30_000, "10m": 600_000}
CONNECT_TIMEOUT_SECONDS = 5.0
UNREACHABLE = (AMQPError, OSError, TimeoutError)


class TopologyRefused(Clear):
    """The broker cannot be reached or holds something declared otherwise; the text says which."""


def lane(service: str) -> str:
    """Name the queue of API commands and queries of a service."""
    return f"{service}.in.{VERSION}"


def background_lane(service: str) -> str:
    """Name the queue of a service's background work."""
    return f"{service}.background.{VERSION}"


def dead_queue(service: str) -> str:
    """Name the queue in which a service's dead letters lie."""
    return f"{service}.dead.{VERSION}"


def retry_exchange(service: str, tier: str) -> str:
    """Name the exchange that sends a message round through a delay."""
    return f"{service}.retry.{tier}"


def parking_exchange(service: str) -> str:
    """Name the exchange by which a service puts away what it cannot handle."""
    return f"{service}.parked"


def back_exchange(service: str) -> str:
    """Name the exchange that brings a message back to the lane of this service that its routing key names, and to no other's."""
    return f"{service}.back"


def reply_queue(service: str, instance: str) -> str:
    """Name the queue in which one process of a service awaits its replies."""
    return f"{service}{REPLY_MARK}{instance}"


def reply_exchange(service: str) -> str:
    """Name the exchange by which a service gets its replies; only those it asks can write to it."""
    return f"{service}.replies"


def requester_of(reply_to: str) -> str:
    """Name the service whose reply queue this is."""
    return reply_to.partition(REPLY_MARK)[0]


class Permissions(msgspec.Struct, frozen=True, kw_only=True):
    """What a service's broker user may do, as regular expressions over names, and over routing keys of the two topic exchanges."""

    configure: str
    write: str
    read: str
    commands: str
    events: str


# Between a service's name and its process in the name of a reply queue.
REPLY_MARK = ".reply."
NOTHING = "^$"
# Whom each service may tell and ask what; whoever faces the public can move no money.
TOLD = {
    "gateway": r"^(payments|webhooks|fulfillment|reconciler)\..*$",
    "payments": r"^fulfillment\.(price|quote_rates)\.v\d+$",
    "webhooks": r"^background\.(webhooks\.process|payments\.take_event|fulfillment\.take_event)\.v\d+$",
    "fulfillment": NOTHING,
    "reconciler": (
        r"^(background\.(payments|fulfillment)\.(list_theirs|list_ours|look_at|heal)|background\.payments\.take_settlements|"
        r"background\.(payments|webhooks|fulfillment|reconciler)\.(put_away|describe_message)|(payments|fulfillment)\.list_books)\.v\d+$"
    ),
}
# Whom each service awaits replies from. Not by the default exchange (RabbitMQ's direct reply-to needs it), which leads into every queue.
REPLIERS = {
    "gateway": CONSUMERS,
    "payments": ("fulfillment",),
    "webhooks": ("payments", "fulfillment"),
    "fulfillment": (),
    "reconciler": CONSUMERS,
}


def may_send(service: str, kind: str) -> bool:
    """Tell whether a service's broker user may send a command or query of this type."""
    return re.search(TOLD.get(service, NOTHING), kind) is not None


ATTENDING = "reconciler"
# Sees how full every queue is, and can neither send, take nor bind anything.
OBSERVER = "observer"


def observer_permissions() -> Permissions:
    """Say what the user may do by whom the gateway sees how full the queues are.

    RabbitMQ from 4.2.7 and 4.3.1 on lets those look at a queue who may configure, write or read it. Write is the least: on a queue it
    allows to bind it, which takes the right to read an exchange too, and this user has none. The gateway's own user could bind a lane to
    the replies' exchange, and so put into it what its topics forbid.
    """
    queues = rf"^(.*\.(in|background|dead)\.{VERSION}|{re.escape(UNROUTED_QUEUE)})$"
    return Permissions(configure=NOTHING, write=queues, read=NOTHING, commands=NOTHING, events=NOTHING)


def permissions_of(service: str) -> Permissions:
    """Say the least that a service needs at the broker."""
    own = re.escape(service)
    tiers = "|".join(TIERS_MILLISECONDS)
    # Only to look whether they are there: RabbitMQ from 4.2.7 and 4.3.1 on shows a queue to those alone who have a right on it.
    looked_at = rf"{own}\.dead\.{VERSION}|{own}\.retry\.({tiers})\.{TIER_VERSION}"
    # Whoever looks after the dead letters takes them all, and may bring each back to where it came from.
    letters_read, letters_written = (r"|.*\.dead\.v1", r"|.*\.back") if service == ATTENDING else ("", "")
    # To bind a queue takes the right to write to it and to read the exchange: both are a service's own.
    reply_queues = rf"{own}{re.escape(REPLY_MARK)}.*" if REPLIERS[service] else ""
    replies_read = rf"|{reply_queues}|{re.escape(reply_exchange(service))}" if reply_queues else ""
    replies_written = "".join(
        [
            f"|{reply_queues}" if reply_queues else "",
            *(f"|{re.escape(reply_exchange(s))}" for s, asked in REPLIERS.items() if service in asked),
        ]
    )
    return Permissions(
        configure=f"^{reply_queues}$",
        write=rf"^(tender\.(commands|events)|{own}\.(parked|retry\.({tiers}))|{looked_at}{replies_written}{letters_written})$",
        read=rf"^({own}\.(in|background)\.{VERSION}{replies_read}{letters_read})$",
        commands=TOLD[service],
        events=rf"^{own}\..*$",
    )


def names(service: str) -> list[str]:
    """List every queue a service cannot work without."""
    return [lane(service), background_lane(service), dead_queue(service), *(_tier_queue(service, t) for t in TIERS_MILLISECONDS)]


async def declare(url: str, services: Sequence[str]) -> None:
    """Declare everything for these services; doing it again changes nothing."""
    connection = await _administrator(url)
    async with connection:
        channel = await connection.channel()
        try:
            await _declare_shared(channel)
            for service in services:
                await _declare_service(channel, service)
        except AMQPError as different:
            raise TopologyRefused(f"the broker holds something declared otherwise: {different}") from different


async def _administrator(url: str) -> AbstractConnection:
    *others, last = nodes_of(url)
    for node in others:
        try:
            return await aio_pika.connect(node, timeout=CONNECT_TIMEOUT_SECONDS)
        except UNREACHABLE:
            continue
    try:
        return await aio_pika.connect(last, timeout=CONNECT_TIMEOUT_SECONDS)
    except UNREACHABLE as silent:
        raise TopologyRefused(f"the broker cannot be reached: {reason_of(silent)}") from silent


async def missing(connection: Connection, queues: Sequence[str]) -> str | None:
    """Name the first queue that is not there, as far as the broker lets us look."""
    channel = await connection.channel()
    for queue in queues:
        try:
            await channel.queue_declare(queue, passive=True)
        except ChannelNotFoundEntity:
            return queue
        except ChannelAccessRefused:
            # RabbitMQ 4.2.6 and 4.3.0 let only those look who may configure (rabbitmq-server pull request 16085); before, everybody
            # could, and since 4.2.7 and 4.3.1 those who may do anything with the queue (16272), as our users may with theirs.
            return None
    await channel.close()
    return None


def _tier_queue(service: str, tier: str, version: str = TIER_VERSION) -> str:
    return f"{service}.retry.{tier}.{version}"


async def _declare_shared(channel: AbstractChannel) -> None:
    await channel.declare_exchange(COMMANDS, ExchangeType.TOPIC, durable=True)
    await channel.declare_exchange(EVENTS, ExchangeType.TOPIC, durable=True, arguments={"alternate-exchange": UNROUTED})
    unrouted = await channel.declare_exchange(UNROUTED, ExchangeType.FANOUT, durable=True)
    await channel.declare_exchange(DEAD, ExchangeType.DIRECT, durable=True)
    for service, asked in REPLIERS.items():
        if asked:
            await channel.declare_exchange(reply_exchange(service), ExchangeType.DIRECT, durable=True)
    # Kept for looking at, not for ever: nothing waits for an event that nobody subscribed to.
    kept = await channel.declare_queue(
        UNROUTED_QUEUE, durable=True, arguments={"x-queue-type": "quorum", "x-max-length": UNROUTED_LENGTH_MAX}
    )
    await kept.bind(unrouted)


async def _declare_service(channel: AbstractChannel, service: str) -> None:
    dead = await channel.declare_queue(
        dead_queue(service), durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": FOREVER_DELIVERIES}
    )
    # By the first the broker brings what crashed its consumer, by the second the service what it cannot handle.
    await dead.bind(DEAD, routing_key=service)
    await dead.bind(await channel.declare_exchange(parking_exchange(service), ExchangeType.FANOUT, durable=True))
    lanes: FieldTable = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": DEAD,
        "x-dead-letter-routing-key": service,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": LANE_DELIVERIES_MAX,
        "x-max-length": LANE_LENGTH_MAX,
    }
    inward = await channel.declare_queue(lane(service), durable=True, arguments=lanes)
    await inward.bind(COMMANDS, routing_key=f"{service}.#")
    background = await channel.declare_queue(background_lane(service), durable=True, arguments=lanes)
    await background.bind(COMMANDS, routing_key=f"background.{service}.#")
    for events in SUBSCRIPTIONS.get(service, ()):
        await background.bind(EVENTS, routing_key=events)
    back = await channel.declare_exchange(back_exchange(service), ExchangeType.DIRECT, durable=True)
    for own in (inward, background):
        await own.bind(back, routing_key=own.name)
    for tier, milliseconds in TIERS_MILLISECONDS.items():
        exchange = await channel.declare_exchange(retry_exchange(service, tier), ExchangeType.FANOUT, durable=True)
        queue = await channel.declare_queue(
            _tier_queue(service, tier),
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-message-ttl": milliseconds,
                "x-dead-letter-exchange": back.name,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )
        await queue.bind(exchange)
        before = await channel.get_queue(_tier_queue(service, tier, TIER_VERSION_BEFORE), ensure=False)
        await before.unbind(exchange)
