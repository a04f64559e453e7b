"""Writing at once: waking whoever reads costs more than the bytes do, so what is written in one turn of the loop is sent in one piece."""

import asyncio
from typing import Any


class Gathering:
    """A transport like the one it is made of, which gathers what is written until the turn of the loop ends."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send bytes with the others of this turn."""
        if not self._parts:
            self._loop.call_soon(self._send)
        self._parts.append(data)

    def write_eof(self) -> None:
        """Send what is left, and that nothing will follow."""
        self._send()
        self._transport.write_eof()

    def close(self) -> None:
        """Send what is left, and close."""
        self._send()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _send(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))
