"""Webhook events: the address that providers post to, and for operators what came, what became of it, and once more."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from services.gateway.routes.answers import PROBLEM_TYPE, READ, RETRY, ProblemDocument, carry_out, documented, gateway_of, open_to_all, show
from shared.contracts.webhooks import (
    PAGE_ROWS_MAX,
    EventDetail,
    EventPage,
    GetEvent,
    ListEvents,
    Replay,
    ReplayMany,
    ReplaysView,
    ReplayView,
)
from shared.errors import SAFE_HEADERS, Invalid
from shared.received import HttpRequest

BODY_MAX_BYTES = 1024 * 1024
FORWARDED = {
    200: "Kept; it is worked on from here.",
    400: "The request cannot be read.",
    401: "The signature is not valid, or no such account takes webhooks here.",
    404: "This gateway takes no webhooks.",
    405: "This provider asks for nothing; it posts.",
    413: "The body is too large.",
    503: "It cannot be kept right now; send it again.",
}

PRINTABLE = "^[!-~]+$"
Filter = Annotated[str, Meta(min_length=1, max_length=200, pattern=PRINTABLE)]
# With its offset, or nobody knows which moment is meant.
Moment = Annotated[datetime, Meta(tz=True)]


class RangeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events to process again: those received from `since` on and before `until`, narrowed by the rest."""

    since: Moment
    until: Moment
    provider: Filter | None = None
    event_type: Filter | None = None
    status: Filter | None = None


def _forwarded() -> dict[int, ResponseSpec]:
    return {
        status: ResponseSpec(
            str if status == 200 else ProblemDocument,
            description=text,
            media_type="text/plain" if status == 200 else PROBLEM_TYPE,
            generate_examples=False,
        )
        for status, text in FORWARDED.items()
    }


@post(
    "/webhooks/{provider:str}",
    status_code=200,
    before_request=open_to_all,
    security=[{}],
    request_max_body_size=BODY_MAX_BYTES,
    tags=["Webhooks"],
    summary="Where a provider posts its webhooks, signed as it signs",
    responses=_forwarded(),
)
async def take(request: HttpRequest, provider: FromPath[str]) -> Response[bytes]:
    return await _forward(request)


@post(
    "/webhooks/{provider:str}/{store_id:uuid}",
    status_code=200,
    before_request=open_to_all,
    security=[{}],
    request_max_body_size=BODY_MAX_BYTES,
    tags=["Webhooks"],
    summary="The same, for one of several stores",
    responses=_forwarded(),
)
async def take_for_store(request: HttpRequest, provider: FromPath[str], store_id: FromPath[UUID]) -> Response[bytes]:
    return await _forward(request)


@get(
    "/webhooks/{provider:str}",
    before_request=open_to_all,
    security=[{}],
    tags=["Webhooks"],
    summary="Where Braintree asks whether the address is ours",
    responses=_forwarded(),
)
async def register(request: HttpRequest, provider: FromPath[str]) -> Response[bytes]:
    return await _forward(request)


@get(
    "/webhooks/{provider:str}/{store_id:uuid}",
    before_request=open_to_all,
    security=[{}],
    tags=["Webhooks"],
    summary="The same, for one of several stores",
    responses=_forwarded(),
)
async def register_for_store(request: HttpRequest, provider: FromPath[str], store_id: FromPath[UUID]) -> Response[bytes]:
    return await _forward(request)


async def _forward(request: HttpRequest) -> Response[bytes]:
    path = request.scope["raw_path"].decode("ascii")
    if request.method == "GET":
        path += f"?{request.scope['query_string'].decode('ascii', 'replace')}"
    ingest = gateway_of(request).ingest
    status, kind, headers, body = await ingest.forward(request.method, path, request.scope["headers"], await request.body())
    return Response(body, status_code=status, media_type=kind, headers={**headers, **(SAFE_HEADERS if status >= 400 else {})})


@get(
    "/admin/webhooks/events",
    before_request=READ,
    tags=["Webhooks"],
    summary="List webhook events, the newest first",
    responses=documented(200, EventPage, "A page; ask for the next one with before=next.", 400, 422, keyed=False),
)
async def list_events(
    request: HttpRequest,
    provider: Annotated[str | None, QueryParameter(name="provider", max_length=200, pattern=PRINTABLE, required=False)] = None,
    event_type: Annotated[str | None, QueryParameter(name="event_type", max_length=200, pattern=PRINTABLE, required=False)] = None,
    status: Annotated[str | None, QueryParameter(name="status", max_length=200, pattern=PRINTABLE, required=False)] = None,
    order_id: Annotated[UUID | None, QueryParameter(name="order_id", required=False)] = None,
    since: Annotated[datetime | None, QueryParameter(name="since", required=False)] = None,
    until: Annotated[datetime | None, QueryParameter(name="until", required=False)] = None,
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = PAGE_ROWS_MAX,
) -> Response[Any]:
    query = ListEvents(
        provider=provider,
        event_type=event_type,
        status=status,
        order_id=order_id,
        since=_moment(since, "since"),
        until=_moment(until, "until"),
        before=before,
        limit=limit,
    )
    return await show(request, query)


def _moment(given: datetime | None, name: str) -> datetime | None:
    if given is not None and given.tzinfo is None:
        raise Invalid(f"{name} needs its offset, as in 2026-01-31T12:00:00Z.", {"field": name})
    return given


@get(
    "/admin/webhooks/events/{event_id:uuid}",
    before_request=READ,
    tags=["Webhooks"],
    summary="Read a webhook event with its payload and every attempt",
    responses=documented(200, EventDetail, "The event.", keyed=False),
)
async def read_event(request: HttpRequest, event_id: FromPath[UUID]) -> Response[Any]:
    return await show(request, GetEvent(event_id=event_id))


@post(
    "/admin/webhooks/events/{event_id:uuid}/replay",
    before_request=RETRY,
    tags=["Webhooks"],
    summary="Process a webhook event again",
    responses=documented(201, ReplayView, "It is being processed by a new command, which names the first."),
)
async def replay(request: HttpRequest, event_id: FromPath[UUID]) -> Response[Any]:
    return await carry_out(request, lambda _: Replay(event_id=event_id))


@post(
    "/admin/webhooks/events/replay",
    before_request=RETRY,
    tags=["Webhooks"],
    summary="Process a range of webhook events again",
    responses=documented(201, ReplaysView, "So many are being processed again, the oldest first."),
)
async def replay_many(request: HttpRequest, data: JSONBody[RangeBody]) -> Response[Any]:
    wanted = ReplayMany(**msgspec.structs.asdict(data))
    return await carry_out(request, lambda _: wanted, data=data)


ROUTES = [take, take_for_store, register, register_for_store, list_events, read_event, replay, replay_many]
