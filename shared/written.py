"""HTTP answers whose bytes are there already."""

from typing import Any

from litestar import Request, Response
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send


class Written(Response[bytes]):
    """An answer that goes out as it is, with its length and its media type: nothing to encode, no cookies, nothing afterwards."""

    def to_asgi_response(
        self,
        app: Any,
        request: Request[Any, Any, Any],
        *,
        headers: dict[str, str] | None = None,
        status_code: int | None = None,
        **_: Any,
    ) -> ASGIResponse:
        """Hand it to the framework; its own status and headers come before the route's."""
        lines = {**headers, **self.headers} if headers else self.headers
        return _Lines(self.status_code or status_code or 200, str(self.media_type), lines, self.content)


class _Lines(ASGIResponse):
    """Status, headers and body as the server takes them."""

    __slots__ = ("_lines",)

    def __init__(self, status: int, media_type: str, headers: dict[str, str], body: bytes) -> None:
        # Not the framework's: what it would work out is known.
        self.status_code, self.body = status, body
        self._lines = [
            (b"content-type", media_type.encode()),
            (b"content-length", b"%d" % len(body)),
            *[(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self._lines})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})
