"""What connections have in common: how they are made, how they are lost, and how they are closed.

The bus speaks to the broker through aiormq; aio-pika, which is made of it, takes a tenth of a service's time for what is not used.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiormq
from aiormq.abc import AbstractConnection
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError, AuthenticationError, InvalidFrameError, ProbableAuthenticationError

from shared.dependencies import Misconfigured, certificate_trouble, nodes_of, reason_of
from shared.gathering import Gathering

CONNECT_TIMEOUT_SECONDS = 5.0
ANSWER_TIMEOUT_SECONDS = 10.0
HEARTBEAT_SECONDS = 10
CLOSE_TIMEOUT_SECONDS = 3.0

LOST = (aiormq.AMQPError, OSError, TimeoutError, RuntimeError)


# The loop holds tasks weakly.
_closing: set["asyncio.Task[None]"] = set()


async def connect(url: str, *, name: str) -> AbstractConnection:
    """Open a connection to one of the nodes, which the broker shows by this name; raises what is in LOST."""
    nodes = nodes_of(url)
    random.shuffle(nodes)
    for node in nodes[:-1]:
        try:
            return await _connect(node, name)
        except LOST:
            continue
    return await _connect(nodes[-1], name)


async def connect_first(url: str, *, name: str) -> AbstractConnection:
    """Open a connection when a process starts: what waiting cannot mend raises Misconfigured, all else what is in LOST."""
    try:
        return await connect(url, name=name)
    except LOST as failure:
        if (wrong := _lasting_trouble(failure)) is not None:
            raise Misconfigured(wrong) from failure
        raise


def _lasting_trouble(failure: BaseException) -> str | None:
    if isinstance(failure, (ProbableAuthenticationError, AuthenticationError)):
        return f"the login was refused ({failure})"
    return certificate_trouble(failure)


async def _connect(url: str, name: str) -> AbstractConnection:
    address = urlsplit(url)
    query = {**dict(parse_qsl(address.query)), "heartbeat": HEARTBEAT_SECONDS}
    opening = aiormq.connect(
        address._replace(query=urlencode(query)).geturl(), client_properties={"connection_name": name}, transport_factory=_Gathered()
    )
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            return await opening
    except (asyncio.CancelledError, TimeoutError):
        # In the moment in which it was made, perhaps, and then it would stay open.
        closing = asyncio.create_task(close(opening.connection))
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)
        raise
    except InvalidFrameError as unexpected:
        if "Connection.Close" not in str(unexpected):
            raise
        # The library does not show what the broker says when it opens no virtual host.
        vhost = address.path.removeprefix("/") or "/"
        raise AMQPConnectionError(f"the virtual host {vhost} does not exist, is down, or is closed to this user") from unexpected
    except LOST:
        raise
    except Exception as other:
        # The library lets its own escape (StopAsyncIteration), where a connection is taken and closed at once: by a proxy whose broker
        # is away, say. In a loop of attempts that would pass for the loop's end.
        raise AMQPConnectionError(f"the connection was closed at once ({reason_of(other)})") from other


class _Gathered(TransportFactory):
    """Opens sockets on which the frames of one turn of the loop, an answer and an event say, are one write."""

    async def create(self, url: Any, **how: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = await how["ssl_context_provider"].get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(lambda: protocol, url.host, url.port, ssl=context)
        except OSError as away:
            raise AMQPConnectionError(*away.args) from away
        return reader, asyncio.StreamWriter(cast(asyncio.WriteTransport, Gathering(transport)), protocol, reader, loop)


async def close(connection: AbstractConnection) -> None:
    """Close a connection, however little is left of it."""
    with losses_ignored():
        await asyncio.wait_for(connection.close(), CLOSE_TIMEOUT_SECONDS)


@contextmanager
def losses_named() -> Iterator[None]:
    """Raise what is in LOST also where the library ends all that waits on a connection with a bare Exception, for want of a reason."""
    try:
        yield
    except Exception as ended:
        if type(ended) is not Exception:
            raise
        raise AMQPConnectionError("the connection was closed without a reason") from ended


@contextmanager
def losses_ignored() -> Iterator[None]:
    """Go on when the connection is lost inside, for what has no use on another one."""
    try:
        with losses_named():
            yield
    except LOST:
        return
    except asyncio.CancelledError:
        # The library cancels what waits on a lost connection; only our own cancellation may pass, and it must.
        if told_to_stop():
            raise


def told_to_stop() -> bool:
    """Tell whether it is our own task that is being cancelled, and not what the library waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
