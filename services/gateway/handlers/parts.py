"""What several services know a part of: each asked at once, waited for briefly, and named where it does not answer."""

import asyncio
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from services.gateway.domain import Principal
from services.gateway.handlers.gateway import Gateway, unwrap
from shared.errors import Problem, Unavailable
from shared.messages import Query

T = TypeVar("T")


async def told(
    gateway: Gateway, principal: Principal, asked: Mapping[str, Query], kind: type[T], *, correlation_id: str
) -> dict[str, T | None]:
    """Ask services by their names; nothing comes back of one that does not answer, or refuses."""
    answers = await asyncio.gather(*(_ask(gateway, principal, query, kind, correlation_id) for query in asked.values()))
    return dict(zip(asked, answers, strict=True))


async def _ask(gateway: Gateway, principal: Principal, query: Query, kind: type[T], correlation_id: str) -> T | None:
    limit_seconds = gateway.settings.part_timeout_seconds
    try:
        answer = unwrap(await gateway.ask(principal, query, correlation_id=correlation_id, timeout_seconds=limit_seconds))
    except (Unavailable, TimeoutError):
        return None
    return None if isinstance(answer, Problem) else msgspec.json.decode(answer, type=kind)
