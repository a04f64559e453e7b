"""A request's trace: every service tells its part, and what belongs below what is put together here."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta

import msgspec

from services.gateway.domain import Principal
from services.gateway.handlers.gateway import Gateway
from services.gateway.handlers.parts import GATEWAY, told
from shared import spans
from shared.contracts.traces import ASKED, FoundTraces, Spans, SpanView, Trace, TraceSpan
from shared.errors import NotFound


async def trace_of(gateway: Gateway, principal: Principal, trace_id: str, *, correlation_id: str) -> Trace:
    """Put a trace together; raises NotFound when every service was asked and none has anything of it."""
    parts, missing = await _ask_all(gateway, principal, trace_id=trace_id, wanted="", correlation_id=correlation_id)
    found = _traces(parts, missing)
    if not found:
        raise NotFound(f"There is no trace {trace_id}; traces are kept for a day, of a part of the requests.")
    return found[0]


async def traces_for(gateway: Gateway, principal: Principal, wanted: str, *, correlation_id: str) -> FoundTraces:
    """Find the traces in which a correlation id was worked for, the newest first."""
    parts, missing = await _ask_all(gateway, principal, trace_id="", wanted=wanted, correlation_id=correlation_id)
    return FoundTraces(traces=_traces(parts, missing), missing=missing)


async def _ask_all(
    gateway: Gateway, principal: Principal, *, trace_id: str, wanted: str, correlation_id: str
) -> tuple[dict[str, Spans], list[str]]:
    envelope = gateway.envelope_for(principal, correlation_id=correlation_id)
    own = spans.spans_of(gateway.pool, envelope, trace_id=trace_id, correlation_id=wanted)
    asked = {service: kind(trace_id=trace_id, correlation_id=wanted) for service, kind in ASKED.items()}
    here, others = await asyncio.gather(own, told(gateway, envelope, asked, Spans))
    known = {service: said for service, said in others.items() if said is not None}
    return {GATEWAY: here, **known}, [service for service in others if service not in known]


def _traces(known: Mapping[str, Spans], missing: list[str]) -> list[Trace]:
    parts: dict[str, list[tuple[str, SpanView]]] = defaultdict(list)
    for service, said in known.items():
        for span in said.spans:
            parts[span.trace_id].append((service, span))
    incomplete = [service for service, said in known.items() if not said.complete]
    found = [_trace(trace_id, part, missing, incomplete) for trace_id, part in parts.items()]
    return sorted(found, key=lambda trace: trace.started_at, reverse=True)


def _trace(trace_id: str, part: list[tuple[str, SpanView]], missing: list[str], incomplete: list[str]) -> Trace:
    known = {span.span_id for _, span in part}
    below: dict[str, list[tuple[str, SpanView]]] = defaultdict(list)
    for service, span in sorted(part, key=lambda each: each[1].started_at):
        # What its service did not tell of, or did not keep, leaves what was below it at the top.
        below[span.parent_id if span.parent_id in known else ""].append((service, span))
    ordered: list[TraceSpan] = []
    waiting = [(0, each) for each in reversed(below.pop("", []))]
    while waiting:
        depth, (service, span) = waiting.pop()
        ordered.append(TraceSpan(service=service, depth=depth, **msgspec.structs.asdict(span)))
        waiting += [(depth + 1, each) for each in reversed(below.pop(span.span_id, []))]
    started_at = min(span.started_at for span in ordered)
    ended_at = max(span.started_at + timedelta(microseconds=span.duration_us) for span in ordered)
    return Trace(
        trace_id=trace_id,
        started_at=started_at,
        duration_us=round((ended_at - started_at).total_seconds() * 1e6),
        spans=ordered,
        missing=missing,
        incomplete=incomplete,
    )
