"""How a request came: by which proxies, and whether by HTTPS, to which browsers are then bound."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def behind_proxies(app: Any, trusted: str) -> Any:
    """Believe what these proxies (addresses and networks separated by commas) say of the client and its scheme; none by default."""
    networks = [each.strip() for each in trusted.split(",") if each.strip()]
    return ProxyHeadersMiddleware(app, trusted_hosts=networks) if networks else app


class StrictTransport:
    """An ASGI application whose answers over HTTPS bind browsers to HTTPS for so many seconds (RFC 6797)."""

    def __init__(self, app: Any, *, seconds: int) -> None:
        self._app = app
        self._header = (b"strict-transport-security", f"max-age={seconds}".encode()) if seconds else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        header = self._header
        # Over plain HTTP a browser must ignore it (RFC 6797 8.1).
        if header is None or scope.get("scheme") != "https":
            await self._app(scope, receive, send)
            return

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), header]
            await send(message)

        await self._app(scope, receive, answer)
