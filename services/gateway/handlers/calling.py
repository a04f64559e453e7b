"""Calls to providers, put together of what every service that makes some wrote down."""

from uuid import UUID

import msgspec

from services.gateway.domain import Principal
from services.gateway.handlers.gateway import Gateway
from services.gateway.handlers.paging import together
from services.gateway.handlers.parts import told
from shared.contracts.calls import ASKED, CallPage


class CallFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls are wanted: all that fit everything that is said."""

    provider: str | None = None
    operation: str | None = None
    classification: str | None = None
    status_from: int | None = None
    correlation_id: str | None = None


async def calls_of(
    gateway: Gateway,
    principal: Principal,
    wanted: CallFilter,
    *,
    service: str | None = None,
    before: UUID | None,
    limit: int,
    correlation_id: str,
) -> CallPage:
    """Read a page of calls, the newest first, of one service or all; services that do not answer are named."""
    asked = {
        name: kind(before=before, limit=limit, **msgspec.structs.asdict(wanted)) for name, kind in ASKED.items() if service in (None, name)
    }
    pages = await told(gateway, gateway.envelope_for(principal, correlation_id=correlation_id), asked, CallPage)
    calls, following = together([(page.calls, page.next) for page in pages.values() if page is not None], limit)
    return CallPage(calls=calls, next=following, missing=[name for name, page in pages.items() if page is None])
