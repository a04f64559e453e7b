"""Connections to a broker that has several nodes."""

import asyncio
from urllib.parse import urlsplit, urlunsplit

import pytest

from shared import topology
from shared.bus import Consumer, Letter, Publisher, Received, depths, publisher
from shared.bus.connections import LOST, close, connect
from shared.dependencies import nodes_of, where_of
from shared.errors import Unavailable
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


async def test_what_a_closing_proxy_took_is_not_confirmed(bare_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a connection and closes it before a frame is read, as a proxy does whose broker is away."""
    monkeypatch.setattr(publisher, "PUBLISH_LIMIT_SECONDS", 0.5)

    async def close_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with (
        Publisher(bare_place.amqp_url, name="tests") as publishing,
        await asyncio.start_server(close_at_once, "127.0.0.1", 0) as proxy,
    ):
        address = f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        publishing._url = urlunsplit(urlsplit(bare_place.amqp_url)._replace(netloc=f"me:secret@{address}"))
        for _ in range(5):
            if publishing._connection is not None:
                await close(publishing._connection)
            with pytest.raises(Unavailable):
                await publishing.publish(Letter(exchange="amq.fanout", routing_key="x", body=b"{}", headers={}, mandatory=False))


async def test_no_node_that_answers_is_said(bare_place: Place) -> None:
    url = urlunsplit(urlsplit(bare_place.amqp_url)._replace(netloc=f"me:secret@{DEAD},{DEAD}"))

    with pytest.raises(TopologyRefused, match="the broker cannot be reached") as refused:
        await topology.declare(url, ["probe"])
    with pytest.raises(LOST):
        await connect(url, name="tests")
    assert "secret" not in str(refused.value)


async def _as_many(arrived: list[bytes], count: int) -> bool:
    return len(arrived) == count


async def test_a_connection_that_ends_without_a_reason_is_a_lost_one(bare_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiormq ends what waits on it with a bare Exception then (`FutureStore.reject_all`); under load that was a 500 for a kept command."""
    monkeypatch.setattr(publisher, "CONFIRM_TIMEOUT_SECONDS", 0.5)
    url, queue = bare_place.amqp_url, topology.lane("probe")
    await topology.declare(url, ["probe"])
    letter = Letter(exchange=topology.COMMANDS, routing_key="probe.do.v1", body=b"{}", headers={})

    async with Publisher(url, name="tests") as publishing:
        for _ in range(5):
            waiting = asyncio.gather(*(publishing.publish(letter) for _ in range(50)))
            await asyncio.sleep(0)
            assert publishing._connection is not None
            await publishing._connection.close(None)
            await waiting

        assert (await depths(url, [queue]))[queue].messages >= 250
