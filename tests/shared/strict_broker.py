"""A broker as strict as RabbitMQ 4.2.6 and 4.3.0, which no Debian release has: a proxy before the real one that applies their rule.

Since rabbitmq-server pull request 16085 a passive `queue.declare` needs the right to configure the queue, and is refused before the broker
looks whether it exists; 4.2.7 and 4.3.1 took that back (16272).
"""

import asyncio
import contextlib
import re
import struct
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

METHOD_FRAME, FRAME_END = 1, b"\xce"
PROTOCOL_HEADER_BYTES = 8
CHANNEL_CLOSE, CHANNEL_CLOSE_OK, QUEUE_DECLARE = (20, 40), (20, 41), (50, 10)
ACCESS_REFUSED = 403
PASSIVE_BIT = 1


class StrictBroker:
    """The proxy, and which queues it has refused to show."""

    def __init__(self, url: str, configure: str) -> None:
        self._upstream = urlsplit(url)
        self._configure = re.compile(configure)
        self.refused: list[str] = []
        self.url = ""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Stand between one client and the broker."""
        from_broker, to_broker = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        # Of channels that are being closed: what the client is told once the broker has let go of the number.
        closing: dict[int, bytes] = {}
        pumps = [
            asyncio.create_task(self._from_client(reader, to_broker, closing)),
            asyncio.create_task(self._from_broker(from_broker, writer, closing)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        for each in (writer, to_broker):
            each.close()

    async def _from_client(self, reader: asyncio.StreamReader, broker: asyncio.StreamWriter, closing: dict[int, bytes]) -> None:
        told: set[int] = set()
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            broker.write(await reader.readexactly(PROTOCOL_HEADER_BYTES))
            while True:
                frame, channel, method = await _frame(reader)
                if method == CHANNEL_CLOSE_OK and channel in told:
                    told.discard(channel)
                elif method == QUEUE_DECLARE and (queue := self._not_shown(frame)):
                    text = f"ACCESS_REFUSED - configure access to queue '{queue}' in vhost '/' refused for user"
                    closing[channel] = _close(channel, ACCESS_REFUSED, text, QUEUE_DECLARE)
                    told.add(channel)
                    broker.write(_close(channel, 200, "", (0, 0)))
                else:
                    broker.write(frame)

    async def _from_broker(self, broker: asyncio.StreamReader, client: asyncio.StreamWriter, closing: dict[int, bytes]) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                frame, channel, method = await _frame(broker)
                if channel not in closing:
                    client.write(frame)
                elif method == CHANNEL_CLOSE_OK:
                    client.write(closing.pop(channel))

    def _not_shown(self, frame: bytes) -> str:
        # 7 bytes of frame header, class, method, a reserved short, the queue's name, and a byte of flags.
        length = frame[13]
        queue, flags = frame[14 : 14 + length].decode(), frame[14 + length]
        if not flags & PASSIVE_BIT or self._configure.search(queue):
            return ""
        self.refused.append(queue)
        return queue


async def _frame(reader: asyncio.StreamReader) -> tuple[bytes, int, tuple[int, int] | None]:
    head = await reader.readexactly(7)
    kind, channel, size = struct.unpack(">BHI", head)
    rest = await reader.readexactly(size + 1)
    method = struct.unpack(">HH", rest[:4]) if kind == METHOD_FRAME else None
    return head + rest, channel, method


def _close(channel: int, code: int, text: str, cause: tuple[int, int]) -> bytes:
    payload = struct.pack(">HHHB", *CHANNEL_CLOSE, code, len(text)) + text.encode() + struct.pack(">HH", *cause)
    return struct.pack(">BHI", METHOD_FRAME, channel, len(payload)) + payload + FRAME_END


@contextlib.asynccontextmanager
async def a_strict_broker(url: str, *, configure: str) -> AsyncIterator[StrictBroker]:
    """Put the proxy before a broker, for a user who may configure what this expression matches."""
    strict = StrictBroker(url, configure)
    server = await asyncio.start_server(strict.take, "127.0.0.1", 0)
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    strict.url = urlunsplit(urlsplit(url)._replace(netloc=f"{user}{at}127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    yield strict
    server.close()
