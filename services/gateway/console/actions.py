"""What staff did: who, what, to what, and why."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Response, get
from litestar.params import QueryParameter

from services.gateway.console.pages import PAGE_ROWS, Facts, page, signed_in
from services.gateway.handlers.auditing import actions_of
from services.gateway.routes.answers import correlation_of, gateway_of, principal_of
from shared.contracts.actions import ListActions
from shared.received import HttpRequest


@get("/audit", before_request=signed_in)
async def list_actions(
    request: HttpRequest,
    text: Annotated[str, QueryParameter(name="text", max_length=200, required=False)] = "",
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
) -> Response[Any]:
    async def load() -> Facts:
        query = ListActions(text=text.strip() or None, before=before, limit=PAGE_ROWS)
        return {"found": await actions_of(gateway_of(request), principal_of(request), query, correlation_id=correlation_of(request))}

    return await page(request, "actions.html", load)


ROUTES = [list_actions]
