"""HTTP_PROXY: providers are called through it; merchants' endpoints and PayPal's certificate are not.

A proxy would look merchants' names up itself, in a network that may be ours, which the check of their addresses is there to exclude.
"""

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from services.webhooks.app import fetch
from services.webhooks.handlers.posting import Messenger
from services.webhooks.store.deliveries import Due
from shared.errors import Unavailable
from shared.http_client import ProviderClient
from shared.ids import new_id
from shared.outbound import OutboundCallFailed, OutboundFailure, OutboundUrl

TIMEOUT_SECONDS = 5.0
# No resolver knows it (RFC 6761 6.2): only a proxy can be asked for it.
UNKNOWN = "http://unknown.test"


class Proxy:
    """An HTTP proxy that answers everything itself: what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def take(self, request: web.BaseRequest) -> web.Response:
        self.asked.append(f"{request.method} {request.raw_path}")
        return web.json_response({})


@contextlib.asynccontextmanager
async def served(proxy: Proxy) -> AsyncIterator[str]:
    """Serve it; gives its URL."""
    runner = web.ServerRunner(web.Server(proxy.take))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    proxy = Proxy()
    async with served(proxy) as url:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield proxy


async def _called(base_url: str) -> int:
    client = ProviderClient(
        service="payments", provider="stripe", base_url=base_url, headers={}, timeout_seconds=TIMEOUT_SECONDS, audited=frozenset()
    )
    try:
        return (await client.call("read", "GET", "/v1/account")).status
    finally:
        await client.close()


async def test_providers_are_called_through_it(proxy: Proxy) -> None:
    assert await _called(UNKNOWN) == 200
    assert proxy.asked == [f"GET {UNKNOWN}/v1/account"]


async def test_a_provider_that_no_proxy_names_is_called_directly(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    provider = Proxy()
    async with served(provider) as url:
        assert await _called(url) == 200

    assert (proxy.asked, provider.asked) == ([], ["GET /v1/account"])


def _resolve_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(host: str, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is unknown")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


@pytest.mark.parametrize("allow_private", [False, True])
async def test_merchants_are_not(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, allow_private: bool) -> None:
    _resolve_nothing(monkeypatch)
    messenger = Messenger(allow_private=allow_private, timeout_seconds=TIMEOUT_SECONDS)
    due = Due(
        id=new_id(),
        endpoint_id=new_id(),
        event_id=new_id(),
        attempt_count=0,
        url="https://hooks.example.com/",
        secrets=["whsec_dGVzdHMtb2YtcHJveGllcw=="],
        body=b"{}",
        correlation_id="tests",
    )

    with pytest.raises(OutboundCallFailed) as refused:
        await messenger.post(due)

    await messenger.close()
    assert (proxy.asked, refused.value.failure) == ([], OutboundFailure.DNS_FAILED)


async def test_the_certificate_of_paypal_is_not(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    _resolve_nothing(monkeypatch)
    with pytest.raises(Unavailable, match="dns_failed"):
        await fetch(OutboundUrl.parse("https://api.paypal.com/certificate"))

    assert proxy.asked == []
