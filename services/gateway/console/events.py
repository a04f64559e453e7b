"""Webhook events: what came, what became of it, exactly what was sent, and once more."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, QueryParameter

from services.gateway.console.pages import PAGE_ROWS, RETRY, Facts, Flash, act, ask, form_of, page, read, signed_in
from services.gateway.routes.webhooks import RangeBody
from shared.contracts.webhooks import EventDetail, EventPage, GetEvent, ListEvents, Replay, ReplayMany, ReplaysView
from shared.received import HttpRequest

HERE = "/console/events"
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


@post("/events/{event_id:uuid}/replay", before_request=RETRY)
async def replay(request: HttpRequest, event_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    done = "It is being processed once more; what of it has happened does not happen twice."
    return await act(request, form, Replay(event_id=event_id), done=done, back=f"/console/events/{event_id}")


@post("/events/replay", before_request=RETRY)
async def replay_many(request: HttpRequest) -> Response[Any]:
    form = await form_of(request)
    times = {name: f"{form.get(name, '')}:00Z" for name in ("since", "until") if form.get(name)}
    body = read(form, RangeBody, **times)
    return await act(request, form, ReplayMany(**msgspec.structs.asdict(body)), done=_replayed, back=HERE)


def _replayed(answer: bytes) -> Flash:
    said = msgspec.json.decode(answer, type=ReplaysView)
    return Flash(
        good=True, text=f"{said.count} events are being processed once more{'; there are more in that time' if said.more else ''}."
    )


ROUTES = [list_events, show_event, replay, replay_many]
