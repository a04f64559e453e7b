"""What stands between payments and a provider: it lets requests through or keeps them, and then answers what it likes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import msgspec

HEAD_END = b"\r\n\r\n"


class Reply(msgspec.Struct, frozen=True):
    """An answer of the intermediary's own."""

    status: int
    body: bytes
    content_type: str = "text/html"


class Intermediary:
    """Answers requests itself; where it knows a provider, it has that carry them out first, and passes on what it does not replace."""

    def __init__(self, upstream: str = "") -> None:
        self._upstream = upstream
        # The answer to every request, or, with a provider, to the next one that changes something.
        self.reply: Reply | None = None
        self.replaced = 0
        self.url = ""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        async with httpx.AsyncClient() as http:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    reply = await self._answer(reader, http)
                    writer.write(_written(reply))
                    await writer.drain()
                    if reply.status < 200:
                        break  # An interim answer is none, and no other follows.
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, http: httpx.AsyncClient) -> Reply:
        line, *lines = (await reader.readuntil(HEAD_END)).decode().strip().split("\r\n")
        method, path, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if not self._upstream:
            assert self.reply is not None, "without a provider it has to know what to answer"
            return self.reply
        passed = {name: value for name, value in headers.items() if name not in ("host", "content-length", "accept-encoding")}
        found = await http.request(method, self._upstream + path, content=body, headers=passed)
        if method == "POST" and self.reply is not None:
            reply, self.reply, self.replaced = self.reply, None, self.replaced + 1
            return reply
        return Reply(found.status_code, found.content, found.headers.get("content-type", ""))


def _written(reply: Reply) -> bytes:
    # These have no body (RFC 9110 6.4.1), and the interim ones are no answer, so that the connection just ends.
    bare = reply.status < 200 or reply.status in (204, 304)
    body = b"" if bare else reply.body
    head = f"HTTP/1.1 {reply.status} X\r\ncontent-type: {reply.content_type}\r\n"
    return (head + ("" if bare else f"content-length: {len(body)}\r\n") + "\r\n").encode() + body


@contextlib.asynccontextmanager
async def an_intermediary(upstream: str = "") -> AsyncIterator[Intermediary]:
    """Put it there."""
    made = Intermediary(upstream)
    server = await asyncio.start_server(made.take, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()
