"""A server that answers every request with the same, also with what servers' libraries would not send."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec

HEAD_END = b"\r\n\r\n"
HTML = b"<html><head><title>Blocked</title></head><body>Your request was blocked.</body></html>"


class Reply(msgspec.Struct, frozen=True):
    """An answer; one that is cut ends in the middle of its body."""

    status: int
    body: bytes
    cut: bool = False


class Scripted:
    """Answers with its reply."""

    def __init__(self) -> None:
        self.reply = Reply(500, b"")
        self.url = ""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            whole = True
            while whole:
                head = (await reader.readuntil(HEAD_END)).decode().lower()
                _, _, length = head.partition("content-length:")
                await reader.readexactly(int(length.split("\r\n")[0] or 0))
                written, whole = _written(self.reply)
                writer.write(written)
                await writer.drain()
        writer.close()


def _written(reply: Reply) -> tuple[bytes, bool]:
    """Write an answer, and say whether another can follow it."""
    # These have no body (RFC 9110 6.4.1), and the interim ones are no answers, so that the connection just ends.
    if reply.status < 200 or reply.status in (204, 304):
        return f"HTTP/1.1 {reply.status} X\r\n\r\n".encode(), reply.status >= 200
    body = reply.body[: len(reply.body) // 2] if reply.cut else reply.body
    return f"HTTP/1.1 {reply.status} X\r\ncontent-length: {len(reply.body)}\r\n\r\n".encode() + body, not reply.cut


@contextlib.asynccontextmanager
async def a_scripted_server() -> AsyncIterator[Scripted]:
    """Run it."""
    made = Scripted()
    server = await asyncio.start_server(made.take, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()
