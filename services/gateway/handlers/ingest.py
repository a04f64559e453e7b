"""The providers' way to the webhooks service through the gateway's host: bytes go on as they came, and so does the answer."""

from collections.abc import Iterable

import aiohttp

from shared.errors import Refusal, Unavailable

TIMEOUT_SECONDS = 15.0
CONNECTIONS_MAX = 64
# What belongs to a connection and not to a request (RFC 9110 7.6.1), and what is set anew.
NOT_FORWARDED = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"}
)
# When to come again (RFC 9110 10.2.3), which providers and Standard Webhooks' senders follow.
ACTED_ON = ("Retry-After",)


class NoWebhooks(Refusal):
    """This gateway forwards no webhooks."""

    code = "unknown-provider"
    title = "No webhooks are taken from this provider"
    status = 404


class Ingest:
    """Forwards to the webhooks service at one address; refuses where there is none."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def forward(
        self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> tuple[int, str, dict[str, str], bytes]:
        """Send a request on; gives the answer's status, media type, the headers that a provider acts on, and body."""
        if not self._url:
            raise NoWebhooks("No webhooks are taken here.")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
                connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        kept = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in headers if n.decode("latin-1").lower() not in NOT_FORWARDED]
        try:
            async with self._session.request(method, self._url + path, data=body, headers=kept, allow_redirects=False) as answer:
                acted_on = {name: answer.headers[name] for name in ACTED_ON if name in answer.headers}
                return answer.status, answer.content_type, acted_on, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as silent:
            raise Unavailable(f"webhooks: {type(silent).__name__}") from silent

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()
