"""What staff did, put together of what every service wrote down."""

import asyncio

import msgspec

from services.gateway.domain import Principal
from services.gateway.handlers.gateway import Gateway
from services.gateway.handlers.paging import together
from services.gateway.handlers.parts import GATEWAY, told
from shared import audit
from shared.contracts.actions import ASKED, ActionPage, ListActions


async def actions_of(gateway: Gateway, principal: Principal, query: ListActions, *, correlation_id: str) -> ActionPage:
    """Read a page of what a store's staff did, the newest first; services that do not answer are named."""
    envelope = gateway.envelope_for(principal, correlation_id=correlation_id)
    own = audit.list_actions(gateway.pool, envelope, query)
    asked = {service: kind(text=query.text, before=query.before, limit=query.limit) for service, kind in ASKED.items()}
    here, others = await asyncio.gather(own, told(gateway, envelope, asked, ActionPage))
    known = {GATEWAY: here, **{service: page for service, page in others.items() if page is not None}}
    pages = [([msgspec.structs.replace(a, service=service) for a in page.actions], page.next) for service, page in known.items()]
    actions, following = together(pages, query.limit)
    return ActionPage(actions=actions, next=following, missing=[service for service in others if service not in known])
