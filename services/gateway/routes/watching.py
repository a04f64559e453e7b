"""How everything is, what providers were asked, and where a request's time went."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath, QueryParameter

from services.gateway.domain import KeysView, KeyView
from services.gateway.handlers.auditing import actions_of
from services.gateway.handlers.calling import CallFilter, calls_of
from services.gateway.handlers.commands import RevokeKey
from services.gateway.handlers.observing import overview
from services.gateway.handlers.tracing import trace_of, traces_for
from services.gateway.routes.answers import (
    ADMIN,
    READ,
    carry_out,
    correlation_of,
    documented,
    gateway_of,
    lookout_of,
    principal_of,
)
from services.gateway.store import sessions
from shared import spans
from shared.contracts.actions import ActionPage, ListActions
from shared.contracts.calls import ASKED as CALLERS
from shared.contracts.calls import PAGE_ROWS_MAX, CallPage
from shared.contracts.traces import FoundTraces, Trace, Traces
from shared.contracts.vitals import Overview
from shared.errors import Invalid
from shared.received import HttpRequest

TRACES_LISTED_MAX = 200


@get(
    "/admin/overview",
    before_request=READ,
    tags=["Watching"],
    summary="Read how every service is",
    responses=documented(
        200, Overview, "Of the whole installation for operators; of the own store, in counts up to a page, for others.", keyed=False
    ),
)
async def get_overview(request: HttpRequest) -> Response[Any]:
    seen = await lookout_of(request).look()
    return Response(await overview(gateway_of(request), seen, principal_of(request), correlation_id=correlation_of(request)))


@get(
    "/admin/provider-calls",
    before_request=READ,
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
    page = await calls_of(
        gateway_of(request),
        principal_of(request),
        CallFilter(
            provider=provider, operation=operation, classification=classification, status_from=status_from, correlation_id=correlation_id
        ),
        service=service,
        before=before,
        limit=limit,
        correlation_id=correlation_of(request),
    )
    return Response(page)


@get(
    "/admin/traces",
    before_request=READ,
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
    before_request=READ,
    tags=["Watching"],
    summary="Read where the time of one request went, across services",
    responses=documented(200, Trace, "Services that could not be asked are named as missing.", 400, 422, keyed=False),
)
async def read_trace(request: HttpRequest, trace_id: FromPath[str]) -> Response[Any]:
    return Response(await trace_of(gateway_of(request), principal_of(request), trace_id, correlation_id=correlation_of(request)))


@get(
    "/admin/traces/for/{wanted:str}",
    before_request=READ,
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


@post(
    "/admin/api-keys/{key_id:uuid}/revoke",
    before_request=ADMIN,
    status_code=200,
    tags=["Watching"],
    summary="Let an API key open nothing any more",
    responses=documented(
        200,
        KeyView,
        "It is revoked; other gateway processes refuse it within a second. Checkout and customer tokens that were made with it are "
        "valid until they expire. One's own key is refused.",
    ),
)
async def revoke_key(request: HttpRequest, key_id: FromPath[UUID]) -> Response[Any]:
    return await carry_out(request, lambda _: RevokeKey(key_id=key_id))


@get(
    "/admin/audit",
    before_request=READ,
    tags=["Watching"],
    summary="List what staff did, the newest first",
    responses=documented(200, ActionPage, "A page; ask for the next one with before=next.", 400, 422, keyed=False),
)
async def list_actions(
    request: HttpRequest,
    text: Annotated[str | None, QueryParameter(name="text", max_length=200, required=False)] = None,
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = 50,
) -> Response[Any]:
    query = ListActions(text=text, before=before, limit=limit)
    return Response(await actions_of(gateway_of(request), principal_of(request), query, correlation_id=correlation_of(request)))


ROUTES = [revoke_key, list_actions, get_overview, list_calls, list_traces, read_trace, find_traces, list_keys]
