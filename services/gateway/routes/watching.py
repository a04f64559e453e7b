"""How everything is, what providers were asked, and where a request's time went."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Response, get
from litestar.params import FromPath, QueryParameter

from services.gateway.domain import KeysView
from services.gateway.handlers.observing import overview
from services.gateway.handlers.tracing import trace_of, traces_for
from services.gateway.routes.answers import ADMIN, JSON_TYPE, HttpRequest, ask, correlation_of, documented, gateway_of, principal_of
from services.gateway.store import sessions
from shared import spans
from shared.contracts.calls import ASKED as CALLERS
from shared.contracts.calls import PAGE_ROWS_MAX, CallPage
from shared.contracts.traces import FoundTraces, Trace, Traces
from shared.contracts.vitals import Overview
from shared.errors import Invalid

TRACES_LISTED_MAX = 200


@get(
    "/admin/overview",
    before_request=ADMIN,
    tags=["Watching"],
    summary="Read how every service is",
    responses=documented(200, Overview, "Of the whole installation; a service that does not answer is shown as such.", keyed=False),
)
async def get_overview(request: HttpRequest) -> Response[Any]:
    return Response(await overview(gateway_of(request)))


@get(
    "/admin/provider-calls",
    before_request=ADMIN,
    tags=["Watching"],
    summary="List calls to providers, the newest first",
    responses=documented(
        200, CallPage, "A page; ask for the next one with before=next. Only what may be kept is shown.", 400, 422, keyed=False
    ),
)
async def list_calls(
    request: HttpRequest,
    service: Annotated[str | None, QueryParameter(name="service", max_length=50, required=False)] = None,
    provider: Annotated[str | None, QueryParameter(name="provider", max_length=60, required=False)] = None,
    operation: Annotated[str | None, QueryParameter(name="operation", max_length=60, required=False)] = None,
    classification: Annotated[str | None, QueryParameter(name="classification", max_length=40, pattern="^[a-z_]+$", required=False)] = None,
    status_from: Annotated[int | None, QueryParameter(name="status_from", ge=100, le=599, required=False)] = None,
    correlation_id: Annotated[str | None, QueryParameter(name="correlation_id", max_length=200, required=False)] = None,
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = 50,
) -> Response[Any]:
    if service is not None and service not in CALLERS:
        raise Invalid(f"The services that call providers are {', '.join(CALLERS)}.", {"field": "service"})
    queries = [
        kind(
            provider=provider,
            operation=operation,
            classification=classification,
            status_from=status_from,
            correlation_id=correlation_id,
            before=before,
            limit=limit,
        )
        for name, kind in CALLERS.items()
        if service in (None, name)
    ]
    pages = [msgspec.json.decode(body, type=CallPage) for body in await asyncio.gather(*(ask(request, query) for query in queries))]
    return Response(msgspec.json.encode(merged(pages, limit)), media_type=JSON_TYPE)


def merged(pages: Sequence[CallPage], limit: int) -> CallPage:
    """Make one page of several services' pages, the newest first."""
    # Whoever has more has told of everything down to its `next`; below the highest of these nothing is certain yet.
    floor = max((page.next for page in pages if page.next is not None), default=None)
    calls = sorted((call for page in pages for call in page.calls if floor is None or call.id >= floor), key=lambda c: c.id, reverse=True)
    if len(calls) > limit:
        return CallPage(calls=calls[:limit], next=calls[limit - 1].id)
    return CallPage(calls=calls, next=floor)


@get(
    "/admin/traces",
    before_request=ADMIN,
    tags=["Watching"],
    summary="List requests whose traces were kept, the newest first",
    responses=documented(200, Traces, "A page; ask for the next one with before=next.", 400, 422, keyed=False),
)
async def list_traces(
    request: HttpRequest,
    at_least_ms: Annotated[int, QueryParameter(name="at_least_ms", ge=0, le=3_600_000, required=False)] = 0,
    failed: Annotated[bool, QueryParameter(name="failed", required=False)] = False,
    before: Annotated[datetime | None, QueryParameter(name="before", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=TRACES_LISTED_MAX, required=False)] = 50,
) -> Response[Any]:
    gateway = gateway_of(request)
    envelope = gateway.envelope_for(principal_of(request), correlation_id=correlation_of(request))
    if before is not None and before.tzinfo is None:
        raise Invalid("Say the moment with its offset.", {"field": "before"})
    found = await spans.begun(gateway.pool, envelope, before=before, at_least_us=at_least_ms * 1000, failed=failed, limit=limit + 1)
    return Response(Traces(traces=found[:limit], next=found[limit - 1].started_at if len(found) > limit else None))


@get(
    "/admin/traces/{trace_id:str}",
    before_request=ADMIN,
    tags=["Watching"],
    summary="Read where the time of one request went, across services",
    responses=documented(200, Trace, "Services that could not be asked are named as missing.", 400, 422, keyed=False),
)
async def read_trace(request: HttpRequest, trace_id: FromPath[str]) -> Response[Any]:
    return Response(await trace_of(gateway_of(request), principal_of(request), trace_id, correlation_id=correlation_of(request)))


@get(
    "/admin/traces/for/{wanted:str}",
    before_request=ADMIN,
    tags=["Watching"],
    summary="Find the traces in which a correlation id was worked for",
    responses=documented(200, FoundTraces, "The newest first; none where it was not sampled or is older than a day.", keyed=False),
)
async def find_traces(request: HttpRequest, wanted: FromPath[str]) -> Response[Any]:
    return Response(await traces_for(gateway_of(request), principal_of(request), wanted, correlation_id=correlation_of(request)))


@get(
    "/admin/api-keys",
    before_request=ADMIN,
    tags=["Watching"],
    summary="List the API keys of this store and environment",
    responses=documented(200, KeysView, "The newest first; never a secret.", keyed=False),
)
async def list_keys(request: HttpRequest) -> Response[Any]:
    return Response(KeysView(keys=await sessions.keys_of(gateway_of(request).pool, principal_of(request))))


ROUTES = [get_overview, list_calls, list_traces, read_trace, find_traces, list_keys]
