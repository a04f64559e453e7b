"""The audit: what staff did, put together of what every service wrote down, and what signing in leaves in it."""

import asyncio

import msgspec

from services.gateway.domain import Principal, key_parts
from services.gateway.handlers.gateway import Gateway
from services.gateway.handlers.paging import together
from services.gateway.handlers.parts import GATEWAY, told
from services.gateway.store import sessions
from shared import audit
from shared.contracts.actions import ASKED, ActionPage, ListActions
from shared.ids import NOBODY, new_id
from shared.messages import Envelope, Environment

SIGN_IN_FAILED = "console.sign_in_failed"
ANONYMOUS = "anonymous"


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


async def sign_in_failed(gateway: Gateway, credential: str, reason: str, *, address: str, correlation_id: str) -> None:
    """Write down that signing in failed, for the store of the key that was tried, as far as there is one; never what was typed.

    So many rows a minute are written and no more, for anybody can cause them.
    """
    if not gateway.failed_sign_ins.allows():
        return
    parts = key_parts(credential)
    owner = None if parts is None else await sessions.owner_of(gateway.pool, parts.id)
    store_id, environment = owner or (NOBODY, Environment.PRODUCTION)
    envelope = Envelope(
        id=new_id(), store_id=store_id, environment=environment, source=GATEWAY, actor=ANONYMOUS, correlation_id=correlation_id
    )
    subject = "" if parts is None or owner is None else f"key_id={parts.id}"
    await audit.insert_action(gateway.pool, envelope, SIGN_IN_FAILED, subject, after={"reason": reason, "address": address})
