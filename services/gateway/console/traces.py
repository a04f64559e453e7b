"""Traces: requests of the last day, and where the time of one went."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Response, get
from litestar.params import FromPath, QueryParameter

from services.gateway.console.pages import PAGE_ROWS, Facts, page, signed_in
from services.gateway.handlers.tracing import trace_of, traces_for
from services.gateway.routes.answers import correlation_of, gateway_of, principal_of
from shared import spans
from shared.contracts.traces import Trace, TraceSpan
from shared.received import HttpRequest

# Of a drawn trace, in the units of its picture.
WIDTH, BAR_MIN = 1000.0, 2.0


@get("/traces", before_request=signed_in)
async def list_traces(
    request: HttpRequest,
    correlation_id: Annotated[str, QueryParameter(name="correlation_id", max_length=200, required=False)] = "",
    at_least_ms: Annotated[int | None, QueryParameter(name="at_least_ms", ge=0, le=3_600_000, required=False)] = None,
    failed: Annotated[bool, QueryParameter(name="failed", required=False)] = False,
    before: Annotated[datetime | None, QueryParameter(name="before", required=False)] = None,
) -> Response[Any]:
    gateway, principal = gateway_of(request), principal_of(request)

    async def load() -> Facts:
        if correlation_id.strip():
            told = await traces_for(gateway, principal, correlation_id.strip(), correlation_id=correlation_of(request))
            return {"traces": [each.spans[0] for each in told.traces], "next": None, "missing": told.missing}
        envelope = gateway.envelope_for(principal, correlation_id=correlation_of(request))
        least_us = (at_least_ms or 0) * 1000
        begun = await spans.begun(gateway.pool, envelope, before=before, at_least_us=least_us, failed=failed, limit=PAGE_ROWS + 1)
        following = begun[PAGE_ROWS - 1].started_at if len(begun) > PAGE_ROWS else None
        return {"traces": begun[:PAGE_ROWS], "next": following, "missing": []}

    return await page(request, "traces.html", load)


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """A span as it is drawn: from where and how far."""

    span: TraceSpan
    x: float
    width: float
    offset_seconds: float


def bars(trace: Trace) -> list[Bar]:
    """Lay a trace out along its time."""
    whole_us = max(1, trace.duration_us)
    return [
        Bar(
            span=span,
            x=min(WIDTH - BAR_MIN, (offset := (span.started_at - trace.started_at).total_seconds()) * 1e6 / whole_us * WIDTH),
            width=max(BAR_MIN, span.duration_us / whole_us * WIDTH),
            offset_seconds=offset,
        )
        for span in trace.spans
    ]


@get("/traces/{trace_id:str}", before_request=signed_in)
async def show_trace(request: HttpRequest, trace_id: FromPath[str]) -> Response[Any]:
    async def load() -> Facts:
        trace = await trace_of(gateway_of(request), principal_of(request), trace_id, correlation_id=correlation_of(request))
        return {"trace": trace, "bars": bars(trace), "width": int(WIDTH)}

    return await page(request, "trace.html", load)


ROUTES = [list_traces, show_trace]
