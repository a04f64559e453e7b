"""Looking at events, and having them processed again."""

import msgspec

from services.webhooks.handlers.context import Webhooks
from services.webhooks.store import events as store
from shared.contracts.webhooks import (
    PAGE_ROWS_MAX,
    REPLAYS_MAX,
    EventDetail,
    EventPage,
    GetEvent,
    ListEvents,
    Process,
    Replay,
    ReplayMany,
    ReplaysView,
    ReplayView,
)
from shared.database import connected
from shared.errors import Invalid, NotFound
from shared.ids import new_id
from shared.messages import Envelope, done
from shared.work import Work


async def replay(work: Work, command: Replay, context: Webhooks) -> None:
    """Have an event processed again, by a new command that names the first."""
    async with connected(context.desk.pool) as db:
        event = await store.kept(db, work.envelope, command.event_id)
    if event is None:
        raise NotFound(f"There is no event {command.event_id}.")
    again = _again(work.envelope)
    batch = work.batch()
    batch.send(Process(event_id=event.id, replays=event.id), again)
    batch.conclude(done(ReplayView(event_id=event.id, command_id=again.id, replays=event.id)))
    await batch.commit()


async def replay_many(work: Work, command: ReplayMany, context: Webhooks) -> None:
    """Have the events of a range processed again, the oldest first, as many as one call takes."""
    if command.since >= command.until:
        raise Invalid("The range is empty: since is not before until.", {"field": "until"})
    async with connected(context.desk.pool) as db:
        found = await store.in_range(db, work.envelope, command)
    batch = work.batch()
    for event_id in found[:REPLAYS_MAX]:
        batch.send(Process(event_id=event_id, replays=event_id), _again(work.envelope))
    batch.conclude(done(ReplaysView(count=min(len(found), REPLAYS_MAX), more=len(found) > REPLAYS_MAX)))
    await batch.commit()


def _again(envelope: Envelope) -> Envelope:
    return msgspec.structs.replace(envelope, id=new_id(), source="webhooks", reply_to="", attempt=0, first_seen=None)


async def list_events(envelope: Envelope, query: ListEvents, context: Webhooks) -> EventPage:
    """Read a page of events, the newest first."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        found = await store.page(db, envelope, query, limit=limit + 1)
    shown = found[:limit]
    return EventPage(events=shown, next=shown[-1].id if len(found) > limit else None)


async def get_event(envelope: Envelope, query: GetEvent, context: Webhooks) -> EventDetail:
    """Read an event with its payload and every attempt."""
    async with connected(context.desk.pool) as db:
        found = await store.detail(db, envelope, query.event_id)
    if found is None:
        raise NotFound(f"There is no event {query.event_id}.")
    return found
