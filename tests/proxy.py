"""A TCP proxy in front of the broker that can disconnect one of a service's connections, chosen by its connection name."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from deploy.state import free_port

CHUNK_BYTES = 64 * 1024


class Proxy:
    """Forwards bytes to the broker and back, and disconnects the connections of one name."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self.port = free_port()
        self.url = parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{self.port}").geturl()
        self._name: bytes | None = None
        self._sent: dict[asyncio.StreamWriter, bytes] = {}

    async def disconnect(self, name: bytes) -> None:
        """Close the connections of this name, and refuse new ones."""
        self._name = name
        lost = [writer for writer, sent in self._sent.items() if name in sent]
        assert lost, f"no connection has the name {name!r}"
        for writer in lost:
            writer.close()
            await writer.wait_closed()

    def allow_all(self) -> None:
        """Let every connection through."""
        self._name = None

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either side closes it."""
        upstream_reader, upstream = await asyncio.open_connection(self._host, self._port)
        self._sent[writer] = b""

        async def send() -> None:
            while chunk := await reader.read(CHUNK_BYTES):
                # AMQP: the client's properties, with the connection's name, are in its second frame.
                self._sent[writer] = (self._sent[writer] + chunk)[:CHUNK_BYTES]
                if self._name is not None and self._name in self._sent[writer]:
                    return
                upstream.write(chunk)

        async def receive() -> None:
            while chunk := await upstream_reader.read(CHUNK_BYTES):
                writer.write(chunk)

        directions = [asyncio.create_task(send()), asyncio.create_task(receive())]
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)
        del self._sent[writer]
        for end in (writer, upstream):
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()


@contextlib.asynccontextmanager
async def a_proxy(url: str) -> AsyncIterator[Proxy]:
    """Run a proxy in front of a broker."""
    proxy = Proxy(url)
    server = await asyncio.start_server(proxy.forward, "127.0.0.1", proxy.port)
    try:
        yield proxy
    finally:
        server.close()
        await server.wait_closed()
