"""What is written in one turn of the loop is one piece, and nothing of it is lost by closing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from shared.gathering import Gathering


class _Pieces(asyncio.BufferedProtocol):
    """Remembers what every write brought."""

    def __init__(self) -> None:
        self._buffer = bytearray(65_536)
        self.got: list[bytes] = []
        self.ended = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.got.append(bytes(self._buffer[:nbytes]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)


async def test_two_writes_of_one_turn_are_one_piece() -> None:
    async def write(transport: Gathering) -> None:
        transport.write(b"head")
        transport.write(b"body")
        await asyncio.sleep(0)
        transport.close()

    assert await _received(write) == [b"headbody"]


async def test_what_was_written_before_closing_arrives() -> None:
    async def write(transport: Gathering) -> None:
        transport.write(b"last words")
        transport.close()

    assert await _received(write) == [b"last words"]


async def test_writing_after_closing_does_no_harm() -> None:
    async def write(transport: Gathering) -> None:
        transport.write(b"before")
        transport.close()
        transport.write(b"after")
        await asyncio.sleep(0)
        assert transport.is_closing()

    assert await _received(write) == [b"before"]


async def _received(write: Callable[[Gathering], Awaitable[None]]) -> list[bytes]:
    loop = asyncio.get_running_loop()
    pieces: list[_Pieces] = []

    def accept() -> _Pieces:
        pieces.append(_Pieces())
        return pieces[0]

    server: Any = await loop.create_server(accept, "127.0.0.1", 0)
    async with server:
        transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
        await write(Gathering(transport))
        while not pieces:
            await asyncio.sleep(0)
        await pieces[0].ended
    return pieces[0].got
