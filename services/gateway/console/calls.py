"""Calls to providers: what was sent and answered, as far as it may be kept."""

import asyncio
from typing import Annotated, Any
from uuid import UUID

from litestar import Response, get
from litestar.params import QueryParameter

from services.gateway.console.pages import PAGE_ROWS, Facts, asked_for, page, signed_in
from services.gateway.routes.answers import HttpRequest
from services.gateway.routes.watching import merged
from shared.contracts.calls import ASKED, CallPage

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
        queries = [
            kind(
                provider=provider or None,
                operation=operation or None,
                classification=classification or None,
                status_from=400 if refused else None,
                correlation_id=correlation_id or None,
                before=before,
                limit=PAGE_ROWS,
            )
            for kind in ASKED.values()
        ]
        pages = await asyncio.gather(*(asked_for(request, query, CallPage) for query in queries))
        missing = [service for service, told in zip(ASKED, pages, strict=True) if told is None]
        return {"found": merged([told for told in pages if told is not None], PAGE_ROWS), "missing": missing}

    return await page(request, "calls.html", load)


ROUTES = [list_calls]
