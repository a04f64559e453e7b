"""What happened to an order, read out of a service's tables by one statement that gives every kind of it in the same columns."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from shared.contracts.timeline import HAPPENINGS_MAX, Happening, Happenings, ListHappenings
from shared.database import Pool, connected
from shared.messages import Envelope


async def read(pool: Pool, sql: str, envelope: Envelope, query: ListHappenings) -> Happenings:
    """Read an order's happenings, the first ones first; the statement's $1 to $4 are store, environment, order and limit."""
    async with connected(pool) as db:
        rows = await db.fetch(sql, envelope.store_id, envelope.environment.value, query.order_id, HAPPENINGS_MAX + 1)
    found = [Happening(**{**dict(row), "facts": _said(row["facts"])}) for row in rows]
    return Happenings(happenings=found[:HAPPENINGS_MAX], known=bool(found), complete=len(found) <= HAPPENINGS_MAX)


def answering(sql: str) -> Callable[[Envelope, ListHappenings, Any], Awaitable[Happenings]]:
    """Make the handler of a service that tells what happened by this statement."""

    async def list_happenings(envelope: Envelope, query: ListHappenings, context: Any) -> Happenings:
        return await read(context.desk.pool, sql, envelope, query)

    return list_happenings


def _said(facts: str) -> dict[str, Any]:
    known: dict[str, Any] = msgspec.json.decode(facts)
    return {name: value for name, value in known.items() if value is not None}
