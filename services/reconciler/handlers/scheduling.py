"""Schedules: one leader fires what is due, each time once a book, and what nobody could fire is caught up."""

import asyncio
import logging

from services.reconciler.domain.runs import Schedule, covered, last_due
from services.reconciler.handlers.context import OWNERS, Reconciler, envelope_of
from services.reconciler.store import runs as rows
from shared import telemetry
from shared.contracts.books import Book, Books
from shared.database import connected
from shared.errors import Contended
from shared.ids import NOBODY, new_id
from shared.messages import Environment

logger = logging.getLogger(__name__)

ROLE = "schedules"


async def fire_due(context: Reconciler, schedules: list[Schedule]) -> None:
    """Fire what is due, if it is us who lead."""
    token = await rows.lead(context.desk.pool, ROLE, context.holder, lease_seconds=context.settings.leader_lease_seconds)
    if token is None:
        return
    async with connected(context.desk.pool) as db:
        now, fired = await rows.fired(db)
    for schedule in schedules:
        fired_at = fired.get(schedule.name)
        due = last_due(schedule, now=now, fired_at=fired_at)
        if due is None:
            continue
        since, until = covered(schedule, due=due, fired_at=fired_at)
        books = await _books(context, schedule)
        try:
            begun = rows.fire(schedule, books, role=ROLE, token=token, due=due, since=since, until=until)
            await context.desk.rows.write(begun)
        except Contended:
            telemetry.say(logger, logging.WARNING, "somebody else leads by now", {"schedule": schedule.name})
            return
        telemetry.say(logger, logging.INFO, "fired a schedule", {"schedule": schedule.name, "due": due.isoformat(), "runs": len(books)})
        context.wake_runs()


async def _books(context: Reconciler, schedule: Schedule) -> list[Book]:
    """Ask which books of a domain there are, whosever they are."""
    owner = OWNERS[schedule.domain]
    envelope = envelope_of(
        message_id=new_id(), store_id=NOBODY, environment=Environment.PRODUCTION, actor="schedule", correlation_id=str(new_id())
    )
    found = await context.ask(envelope, owner.list_books(), Books)
    return [book for book in found.books if book.domain is schedule.domain]


async def resign(context: Reconciler) -> None:
    """Let another copy of the service lead at once."""
    await asyncio.wait_for(rows.resign(context.desk.pool, ROLE, context.holder), RESIGN_TIMEOUT_SECONDS)


RESIGN_TIMEOUT_SECONDS = 2.0
