"""What several services know a part of: each asked at once, waited for briefly, and named where it does not answer."""

import asyncio
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from services.gateway.handlers.gateway import Gateway, unwrap
from shared.errors import Problem, Unavailable
from shared.ids import new_id
from shared.messages import Envelope, Query

# What the gateway knows itself is shown beside what the services tell.
GATEWAY = "gateway"

T = TypeVar("T")


async def told(gateway: Gateway, envelope: Envelope, asked: Mapping[str, Query], kind: type[T]) -> dict[str, T | None]:
    """Ask services by their names on somebody's behalf; nothing comes back of one that does not answer, or refuses."""
    answers = await asyncio.gather(*(part(gateway, envelope, query, kind) for query in asked.values()))
    return dict(zip(asked, answers, strict=True))


async def part(gateway: Gateway, envelope: Envelope, query: Query, kind: type[T]) -> T | None:
    """Ask one service on somebody's behalf; nothing comes back when it does not answer, or refuses."""
    own = msgspec.structs.replace(envelope, id=new_id())
    try:
        answer = unwrap(await gateway.ask_as(own, query, timeout_seconds=gateway.settings.part_timeout_seconds))
    except (Unavailable, TimeoutError):
        return None
    return None if isinstance(answer, Problem) else msgspec.json.decode(answer, type=kind)
