"""Webhook events: what came, what became of it, exactly what was sent, and once more."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath, QueryParameter

from services.gateway.console.pages import PAGE_ROWS, Facts, act, ask, form_of, page, signed_in
from services.gateway.routes.answers import HttpRequest
from shared.contracts.webhooks import EventDetail, EventPage, GetEvent, ListEvents, Replay

Narrow = Annotated[str, QueryParameter(max_length=200, required=False)]


@get("/events", before_request=signed_in)
async def list_events(
    request: HttpRequest,
    provider: Narrow = "",
    event_type: Narrow = "",
    status: Narrow = "",
    order_id: Annotated[UUID | None, QueryParameter(name="order_id", required=False)] = None,
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
) -> Response[Any]:
    async def load() -> Facts:
        query = ListEvents(
            provider=provider or None,
            event_type=event_type or None,
            status=status or None,
            order_id=order_id,
            before=before,
            limit=PAGE_ROWS,
        )
        return {"found": await ask(request, query, EventPage)}

    return await page(request, "events.html", load)


@get("/events/{event_id:uuid}", before_request=signed_in)
async def show_event(request: HttpRequest, event_id: FromPath[UUID]) -> Response[Any]:
    async def load() -> Facts:
        return {"detail": await ask(request, GetEvent(event_id=event_id), EventDetail)}

    return await page(request, "event.html", load)


@post("/events/{event_id:uuid}/replay", before_request=signed_in)
async def replay(request: HttpRequest, event_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    done = "It is being processed once more; what of it has happened does not happen twice."
    return await act(request, form, Replay(event_id=event_id), done=done, back=f"/console/events/{event_id}")


ROUTES = [list_events, show_event, replay]
