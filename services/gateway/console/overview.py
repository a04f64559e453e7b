"""The first page: how everything is."""

from typing import Any

from litestar import Response, get

from services.gateway.console.pages import Facts, asked_for, page, signed_in
from services.gateway.handlers.observing import overview
from services.gateway.routes.answers import correlation_of, gateway_of, lookout_of, principal_of
from shared.contracts.payments import AttentionView, ListAttention
from shared.received import HttpRequest


@get("/", before_request=signed_in)
async def show_overview(request: HttpRequest) -> Response[Any]:
    async def load() -> Facts:
        return {
            "overview": await overview(
                gateway_of(request), await lookout_of(request).look(), principal_of(request), correlation_id=correlation_of(request)
            ),
            "attention": await asked_for(request, ListAttention(), AttentionView),
        }

    return await page(request, "overview.html", load)


ROUTES = [show_overview]
