"""What connections have in common: how they are made, how they are lost, and how they are closed.

The bus speaks to the broker through aiormq; aio-pika, which is made of it, takes a tenth of a service's time for what is not used.
"""

import asyncio
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiormq
from aiormq.abc import AbstractConnection

CONNECT_TIMEOUT_SECONDS = 5.0
ANSWER_TIMEOUT_SECONDS = 10.0
HEARTBEAT_SECONDS = 10
CLOSE_TIMEOUT_SECONDS = 3.0

LOST = (aiormq.AMQPError, OSError, TimeoutError, RuntimeError)


async def connect(url: str, *, name: str) -> AbstractConnection:
    """Open a connection that the broker shows by this name; raises what is in LOST."""
    address = urlsplit(url)
    query = {**dict(parse_qsl(address.query)), "heartbeat": HEARTBEAT_SECONDS}
    async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
        return await aiormq.connect(address._replace(query=urlencode(query)).geturl(), client_properties={"connection_name": name})


async def close(connection: AbstractConnection) -> None:
    """Close a connection, however little is left of it."""
    try:
        await asyncio.wait_for(connection.close(), CLOSE_TIMEOUT_SECONDS)
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
