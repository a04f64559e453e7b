"""What providers post to the gateway's host goes to the webhooks service, and its answer goes back."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.gateway.handlers.ingest import Ingest


@pytest.mark.parametrize("again", [{"Retry-After": "5"}, {}])
async def test_when_to_come_again_goes_back_too(again: dict[str, str]) -> None:
    """RFC 9110 10.2.3; a provider that is answered 503 comes again no sooner."""

    async def busy(_: web.Request) -> web.Response:
        return web.Response(status=503, text="{}", content_type="application/problem+json", headers={"X-Inside": "yes", **again})

    app = web.Application()
    app.router.add_post("/api/v1/webhooks/stripe", busy)
    async with TestServer(app) as server:
        ingest = Ingest(str(server.make_url("")))
        answer = await ingest.forward("POST", "/api/v1/webhooks/stripe", [], b"{}")
        await ingest.close()

    assert answer == (503, "application/problem+json", again, b"{}")
