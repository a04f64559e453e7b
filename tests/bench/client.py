"""A load client that costs little: HTTP/1.1 over asyncio streams, one connection per client, closed loop."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import msgspec


class Sample(msgspec.Struct, frozen=True):
    """One request as the client saw it."""

    status: int
    seconds: float


class Connection:
    """A kept-alive connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Make one request."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-length: {len(body)}\r\n{lines}\r\n".encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        at = head.lower().index(b"content-length:") + 15
        length = int(head[at : head.index(b"\r\n", at)])
        return status, await reader.readexactly(length)

    def close(self) -> None:
        """Close it."""
        if self._streams is not None:
            self._streams[1].close()


Work = Callable[[Connection, int], Awaitable[tuple[int, bytes]]]


async def closed_loop(url: str, work: Work, *, clients: int, count: int) -> list[Sample]:
    """Have so many clients do the numbered pieces of work, each as soon as its last one is answered."""
    numbers, samples = iter(range(count)), list[Sample]()

    async def client() -> None:
        connection = Connection(url)
        for number in numbers:
            started = time.perf_counter()
            status, _ = await work(connection, number)
            samples.append(Sample(status, time.perf_counter() - started))
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return samples


async def open_loop(url: str, work: Work, *, per_second: float, count: int) -> list[Sample]:
    """Begin the numbered pieces of work at a fixed rate, however long earlier ones take; times count from when each was due."""
    free, samples, started = list[Connection](), list[Sample](), time.perf_counter()

    async def once(number: int, due: float) -> None:
        connection = free.pop() if free else Connection(url)
        status, _ = await work(connection, number)
        samples.append(Sample(status, time.perf_counter() - due))
        free.append(connection)

    tasks = []
    for number in range(count):
        due = started + number / per_second
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(once(number, due)))
    await asyncio.gather(*tasks)
    for connection in free:
        connection.close()
    return samples
