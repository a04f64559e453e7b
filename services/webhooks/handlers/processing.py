"""Handing on: whoever owns the adapter says what an event means, and what came of it is written down."""

import msgspec

from services.webhooks.domain import READERS, SETTLED, UNREADABLE_TYPE, Status, wait_seconds
from services.webhooks.handlers.context import Webhooks
from services.webhooks.store import events as store
from services.webhooks.store import merchants
from services.webhooks.store.events import Kept
from shared import telemetry
from shared.contracts import payments
from shared.contracts.events import NOT_KNOWN_YET, EventTaken
from shared.contracts.fulfillment import shipping
from shared.contracts.webhooks import Process
from shared.database import connected
from shared.errors import UNAVAILABLE, NotFound, Problem, Unavailable
from shared.ids import new_id
from shared.messages import Done, Envelope, Environment, Refused, Reply, done, encode, type_of
from shared.work import Work

TAKEN_BY: dict[str, type[payments.TakeEvent] | type[shipping.TakeEvent]] = {
    "payments": payments.TakeEvent,
    "fulfillment": shipping.TakeEvent,
}
MONTHS_AHEAD = 3
PAYLOAD_MONTHS_KEPT = 6


class Unreadable(Exception):
    """Whoever should read an event cannot; tried again a little, then a dead letter that can be replayed."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a try."""

    status: Status
    error: str | None = None
    taken: EventTaken | None = None


async def process(work: Work, command: Process, context: Webhooks) -> None:
    """Hand an event to whom it concerns; one that was processed before is left alone unless this is a replay."""
    async with connected(context.desk.pool) as db:
        event = await store.kept(db, work.envelope, command.event_id)
    if event is None:
        raise NotFound(f"There is no event {command.event_id}.")
    if event.status in SETTLED and command.replays is None:
        batch = work.batch()
        batch.conclude(done(Result(status=event.status)))
        await batch.commit()
        return

    result = await _hand_on(work, context, event)

    batch = work.batch()
    batch.add(
        store.attempted(work.envelope, event.id, replays=command.replays, outcome=result.status.value, error=result.error),
        store.stands(
            event.id,
            result.status,
            error=result.error,
            store_id=None if result.taken is None else result.taken.store_id,
            order_id=None if result.taken is None else result.taken.order_id,
            look_again_seconds=wait_seconds(event.attempt_count),
        ),
    )
    batch.conclude(done(result))
    await batch.commit()
    telemetry.webhooks_processed.labels(event.provider, result.status.value).inc()


async def _hand_on(work: Work, context: Webhooks, event: Kept) -> Result:
    if READERS.get(event.provider) is None:
        return Result(status=Status.IGNORED, error=f"Nobody reads the events of {event.provider} yet.")
    if event.body is None:
        return Result(status=Status.IGNORED, error="Its payload is past its retention.")
    if event.event_type == UNREADABLE_TYPE:
        raise Unreadable("event-unreadable: its body is no JSON object, or one that cannot be read")
    taken = TAKEN_BY[READERS[event.provider]](
        provider=event.provider,
        provider_account=event.account,
        event_id=event.provider_event_id,
        event_type=event.event_type,
        payload=event.body.decode(errors="replace"),
        received_at=event.received_at,
    )
    match await _asked(work, context, taken):
        case Done(body=body):
            answer = msgspec.json.decode(body, type=EventTaken)
            ignored = answer.result == "ignored"
            return Result(status=Status.IGNORED if ignored else Status.PROCESSED, error=answer.reason or None, taken=answer)
        case Refused(problem=Problem(code=code, detail=detail)) if code == NOT_KNOWN_YET:
            return Result(status=Status.WAITING, error=detail)
        case Refused(problem=Problem(code=code, detail=detail)) if code == UNAVAILABLE:
            raise Unavailable(f"{READERS[event.provider]}: {detail}")
        case Refused(problem=problem):
            raise Unreadable(f"{problem.code}: {problem.detail}")


async def _asked(work: Work, context: Webhooks, taken: payments.TakeEvent | shipping.TakeEvent) -> Reply:
    # The same id on every try of this command: payments answers a repeat from its inbox.
    future = context.replies.expect(work.envelope.id)
    envelope = msgspec.structs.replace(work.envelope, attempt=0, first_seen=None, reply_to="")
    await context.replies.send(envelope, type_of(type(taken)), encode(taken))
    return await context.replies.wait(future, timeout_seconds=context.settings.ask_timeout_seconds)


async def process_failed(envelope: Envelope, command: Process, context: Webhooks, failure: BaseException, last: bool) -> None:
    """Write down a failed try, so that the event shows its count and its error at every moment."""
    status = Status.DEAD if last else Status.FAILING
    error = f"{type(failure).__name__}: {failure}"
    await context.desk.rows.write(
        [
            store.attempted(envelope, command.event_id, replays=command.replays, outcome=status.value, error=error),
            store.stands(command.event_id, status, error=error),
        ]
    )


async def match_waiting(context: Webhooks) -> None:
    """Have what waits for something to become known looked at again."""
    await store.give_up_matching(context.desk.pool)
    async with connected(context.desk.pool) as db:
        due = await store.due(db)
    for each in due:
        envelope = Envelope(
            id=new_id(),
            store_id=each.store_id,
            environment=Environment(each.environment),
            source="webhooks",
            actor=f"webhook:{each.provider}",
            correlation_id=str(each.id),
        )
        batch = Work(context.desk, envelope, kind=type_of(Process), digest=b"").batch()
        batch.send(Process(event_id=each.id), envelope)
        await batch.commit()


async def measure(context: Webhooks) -> None:
    """Tell the metrics how many events wait, since when, and how many were given up."""
    backlog = await store.backlog(context.desk.pool)
    telemetry.webhooks_pending.set(backlog.pending)
    telemetry.webhooks_oldest_pending_seconds.set(backlog.oldest_pending_seconds)
    telemetry.webhooks_dead.set(backlog.dead)


async def clean(context: Webhooks) -> None:
    """Make the coming months' partitions and drop what is past retention."""
    await store.keep_payload_partitions(context.desk.pool, months_ahead=MONTHS_AHEAD, months_kept=PAYLOAD_MONTHS_KEPT)
    await store.forget_old(context.desk.pool)
    await merchants.forget_old(context.desk.pool)
