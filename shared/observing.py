"""What every service tells of itself when it is asked: how it is, what it has of a trace, and what staff had it do."""

from typing import Any

from shared import audit, replicas, spans
from shared.contracts import actions, traces, vitals
from shared.contracts.actions import ActionPage, ListActions
from shared.contracts.traces import ListSpans, Spans
from shared.contracts.vitals import DescribeService, Vitals
from shared.database import Pool
from shared.messages import Envelope, Query
from shared.vitals import Pulse
from shared.worker import QueryHandler


def telling(service: str, pulse: Pulse, pool: Pool) -> dict[type[Query], QueryHandler[Any]]:
    """Make the handlers by which a service tells of itself; one that nobody asks has none."""

    async def describe_service(envelope: Envelope, query: DescribeService, _: Any) -> Vitals:
        return await replicas.service_vitals(pool, pulse)

    async def list_spans(envelope: Envelope, query: ListSpans, _: Any) -> Spans:
        return await spans.spans_of(pool, envelope, trace_id=query.trace_id, correlation_id=query.correlation_id)

    async def list_actions(envelope: Envelope, query: ListActions, _: Any) -> ActionPage:
        return await audit.list_actions(pool, envelope, query)

    if service not in vitals.ASKED:
        return {}
    return {vitals.ASKED[service]: describe_service, traces.ASKED[service]: list_spans, actions.ASKED[service]: list_actions}
