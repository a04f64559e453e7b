"""Connections to a broker that has several nodes."""

from urllib.parse import urlsplit, urlunsplit

import pytest

from shared import topology
from shared.bus import Consumer, Letter, Publisher, Received
from shared.bus.connections import LOST, connect
from shared.dependencies import nodes_of, where_of
from shared.topology import TopologyRefused
from tests.world import Place, until

# Nothing listens on port 1.
DEAD = "127.0.0.1:1"


def with_nodes(url: str, *nodes: str) -> str:
    """Name more nodes besides the one that is there."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=",".join([parts.netloc, *nodes])))


def test_each_node_gets_the_login_and_the_vhost() -> None:
    assert nodes_of("amqps://me:a%40b@a:5671,[::1]:5671/shop?cafile=x") == [
        "amqps://me:a%40b@a:5671/shop?cafile=x",
        "amqps://me:a%40b@[::1]:5671/shop?cafile=x",
    ]
    assert where_of("amqps://me:secret@a:5671,b:5671/shop?cafile=x") == "a:5671,b:5671/shop"


async def test_any_node_that_answers_will_do(bare_place: Place) -> None:
    url = with_nodes(bare_place.amqp_url, DEAD, DEAD, DEAD)
    await topology.declare(url, ["probe"])
    arrived: list[bytes] = []

    async def take(received: Received) -> None:
        arrived.append(received.body)
        await received.ack()

    # Often enough that a dead node is tried first at least once.
    for number in range(10):
        async with Publisher(url, name="tests") as publisher:
            letter = Letter(exchange=topology.COMMANDS, routing_key="probe.do.v1", body=b"%d" % number, headers={})
            await publisher.publish(letter)
    async with Consumer(url, [topology.lane("probe")], take, name="tests", prefetch=1) as consumer:
        await until(lambda: _as_many(arrived, 10))
        await consumer.drain(1.0)


async def test_no_node_that_answers_is_said(bare_place: Place) -> None:
    url = urlunsplit(urlsplit(bare_place.amqp_url)._replace(netloc=f"me:secret@{DEAD},{DEAD}"))

    with pytest.raises(TopologyRefused, match="the broker cannot be reached") as refused:
        await topology.declare(url, ["probe"])
    with pytest.raises(LOST):
        await connect(url, name="tests")
    assert "secret" not in str(refused.value)


async def _as_many(arrived: list[bytes], count: int) -> bool:
    return len(arrived) == count
