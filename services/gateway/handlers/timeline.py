"""An order's timeline: every service that knows a part of it is asked at once; one that is down is named and hides nothing."""

import heapq
from uuid import UUID

import msgspec

from services.gateway.domain import Principal
from services.gateway.handlers.gateway import Gateway
from services.gateway.handlers.parts import told
from shared.contracts.timeline import ASKED, Happenings, Timeline, TimelineEntry
from shared.errors import NotFound


async def timeline_of(gateway: Gateway, principal: Principal, order_id: UUID, *, correlation_id: str) -> Timeline:
    """Put together what happened to an order; raises NotFound when every service was asked and none knows it."""
    asked = {service: kind(order_id=order_id) for service, kind in ASKED.items()}
    by_service = await told(gateway, gateway.envelope_for(principal, correlation_id=correlation_id), asked, Happenings)
    missing = [service for service, said in by_service.items() if said is None]
    known = {service: said for service, said in by_service.items() if said is not None}
    if not missing and not any(said.known for said in known.values()):
        raise NotFound(f"There is no order {order_id}.")
    parts = [[_entry(service, said, n) for n in range(len(said.happenings))] for service, said in known.items()]
    return Timeline(
        order_id=order_id,
        entries=list(heapq.merge(*parts, key=lambda entry: entry.at)),
        missing=missing,
        incomplete=[service for service, said in known.items() if not said.complete],
    )


def _entry(service: str, said: Happenings, n: int) -> TimelineEntry:
    return TimelineEntry(service=service, **msgspec.structs.asdict(said.happenings[n]))
