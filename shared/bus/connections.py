"""What connections have in common: how they are lost, and how they are closed."""

import asyncio

import aiormq
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPError

CONNECT_TIMEOUT_SECONDS = 5.0
ANSWER_TIMEOUT_SECONDS = 10.0
HEARTBEAT_SECONDS = 10
CLOSE_TIMEOUT_SECONDS = 3.0

LOST = (AMQPError, aiormq.AMQPError, OSError, TimeoutError, RuntimeError)


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
