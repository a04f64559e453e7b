"""How full queues are, as the broker says to whoever asks whether they exist."""

import asyncio
from collections.abc import Sequence

import msgspec
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity

from shared.bus.connections import ANSWER_TIMEOUT_SECONDS, LOST, close, connect, losses_named
from shared.errors import Unavailable


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages wait in a queue, and how many processes take them."""

    messages: int
    consumers: int


async def depths(url: str, queues: Sequence[str]) -> dict[str, Depth]:
    """Tell how full these queues are; one that does not exist, or that this user may not see, is left out. Raises Unavailable."""
    found: dict[str, Depth] = {}
    try:
        with losses_named():
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                connection = await connect(url, name="depths")
                try:
                    for name in queues:
                        channel = await connection.channel()
                        try:
                            declared = await channel.queue_declare(name, passive=True)
                        except (ChannelNotFoundEntity, ChannelAccessRefused):
                            continue  # The channel is closed by it.
                        await channel.close()
                        found[name] = Depth(messages=declared.message_count or 0, consumers=declared.consumer_count or 0)
                finally:
                    await close(connection)
    except LOST as lost:
        raise Unavailable(f"broker: {lost}") from lost
    return found
