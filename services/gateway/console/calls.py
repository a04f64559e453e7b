"""Calls to providers: what was sent and answered, as far as it may be kept."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Response, get
from litestar.params import QueryParameter

from services.gateway.console.pages import PAGE_ROWS, Facts, page, signed_in
from services.gateway.handlers.calling import CallFilter, calls_of
from services.gateway.routes.answers import correlation_of, gateway_of, principal_of
from shared.received import HttpRequest

Narrow = Annotated[str, QueryParameter(max_length=200, required=False)]


@get("/provider-calls", before_request=signed_in)
async def list_calls(
    request: HttpRequest,
    provider: Narrow = "",
    operation: Narrow = "",
    classification: Narrow = "",
    correlation_id: Narrow = "",
    refused: Annotated[bool, QueryParameter(name="refused", required=False)] = False,
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
) -> Response[Any]:
    async def load() -> Facts:
        wanted = CallFilter(
            provider=provider or None,
            operation=operation or None,
            classification=classification or None,
            status_from=400 if refused else None,
            correlation_id=correlation_id or None,
        )
        gateway, principal = gateway_of(request), principal_of(request)
        found = await calls_of(gateway, principal, wanted, before=before, limit=PAGE_ROWS, correlation_id=correlation_of(request))
        return {"found": found}

    return await page(request, "calls.html", load)


ROUTES = [list_calls]
