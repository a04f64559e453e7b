"""What operators do with dead letters: send them once more as they are or changed, put them away, one or many."""

import asyncio
import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import msgspec

from services.reconciler.domain.letters import difference, edited
from services.reconciler.handlers.context import Reconciler
from services.reconciler.store import letters as rows
from services.reconciler.store import redrives as redrive_rows
from services.reconciler.store.letters import UNREADABLE, Kept, Scope, scope_of
from services.reconciler.store.redrives import Redrive
from shared import telemetry, topology
from shared.contracts import books, credentials, fulfillment, payments, reconciler, settlements, webhooks
from shared.contracts.dead_letters import (
    ATTENDED,
    CHOSEN_MAX,
    RATE_MAX_PER_SECOND,
    Action,
    DiscardLetter,
    EditLetter,
    Filter,
    LetterStatus,
    LetterView,
    MessageFate,
    RedriveView,
    RetryLetter,
    StartRedrive,
    StopRedrive,
)
from shared.database import connected
from shared.errors import Contended, Invalid, NotFound, Refusal, Unavailable
from shared.ids import new_id
from shared.messages import BODY_MAX_BYTES, Envelope, Message, done, type_of
from shared.outbox import TYPE_HEADER, Parcel, promises
from shared.work import Work

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.2
BATCH_MAX = 200
AGAIN_SECONDS = 10.0
OPERATOR = "operator:"
# What the way to the dead letters has left on a message, and what counts its tries.
SHED_PREFIXES = ("x-", "dead_")
SHED = frozenset({"attempt", "first_seen", "deadline", "redriven"})
KNOWN: dict[str, type[Message]] = {
    type_of(kind): kind
    for kind in (
        *(*payments.MESSAGES, *webhooks.MESSAGES, *fulfillment.MESSAGES, *books.MESSAGES),
        *(*reconciler.MESSAGES, *credentials.MESSAGES, *settlements.MESSAGES),
    )
}


class LetterSettled(Refusal):
    """A dead letter does not wait any more."""

    code = "letter-settled"
    title = "This dead letter has been dealt with already"


class NotEditable(Refusal):
    """A letter that says neither whose it is nor what it is cannot be replaced by another."""

    code = "letter-unreadable"
    title = "This dead letter cannot be edited"
    status = 422


class RedriveEnded(Refusal):
    """A redrive does not run any more."""

    code = "redrive-ended"
    title = "This redrive has ended"


async def retry(work: Work, command: RetryLetter, context: Reconciler) -> None:
    """Send a letter once more with its own id, so that whatever of it happened does not happen twice."""
    kept = await _waiting(work, context, command.letter_id)

    batch = work.batch()
    batch.add(rows.retried([kept.view.id], actor=work.envelope.actor, reason=command.reason))
    batch.post(_once_more(kept))
    batch.audit("dead_letter.retry", str(kept.view.id), before=_said(kept), after={"status": "retried"}, reason=command.reason)
    batch.conclude(done(_settled(work, kept, LetterStatus.RETRIED, command.reason)))
    await batch.commit()


async def discard(work: Work, command: DiscardLetter, context: Reconciler) -> None:
    """Put a letter away for ever: its service answers it as discarded from now on."""
    kept = await _waiting(work, context, command.letter_id)
    await _put_away(context, work.envelope, kept)

    batch = work.batch()
    batch.add(rows.discarded([kept.view.id], actor=work.envelope.actor, reason=command.reason))
    batch.audit("dead_letter.discard", str(kept.view.id), before=_said(kept), after={"status": "discarded"}, reason=command.reason)
    batch.conclude(done(_settled(work, kept, LetterStatus.DISCARDED, command.reason)))
    await batch.commit()


async def edit(work: Work, command: EditLetter, context: Reconciler) -> None:
    """Put a letter away and send another in its place, unless a provider may have been called for it."""
    kept = await _waiting(work, context, command.letter_id)
    body = _fitting(kept, command.body)
    replacement = uuid5(work.envelope.id, "replacement")
    await _put_away(context, work.envelope, kept, replaced_by=replacement)

    changes = difference(kept.body, body)
    batch = work.batch()
    batch.add(rows.replaced(kept.view.id, by=replacement, difference=changes, actor=work.envelope.actor, reason=command.reason))
    batch.post(_instead(kept, replacement, body))
    batch.audit(
        "dead_letter.edit",
        str(kept.view.id),
        before=_said(kept),
        after={"status": "replaced", "replaced_by": replacement, "difference": changes},
        reason=command.reason,
    )
    batch.conclude(done(_settled(work, kept, LetterStatus.REPLACED, command.reason, replaced_by=replacement)))
    await batch.commit()


def scopes_of(envelope: Envelope) -> list[Scope]:
    """Tell which letters somebody may see: their store's, and, for an operator, those that do not say whose they are."""
    own = scope_of(envelope)
    return [own, UNREADABLE] if envelope.actor.startswith(OPERATOR) else [own]


async def _waiting(work: Work, context: Reconciler, letter_id: UUID) -> Kept:
    async with connected(context.desk.pool) as db:
        kept = await rows.one(db, scopes_of(work.envelope), letter_id)
    if kept is None:
        raise NotFound(f"There is no dead letter {letter_id}.")
    if kept.view.status is not LetterStatus.WAITING:
        raise LetterSettled(
            f"It was {kept.view.status.value} by {kept.view.settled_by}.",
            {"dead_letter_status": kept.view.status.value, "settled_by": kept.view.settled_by},
        )
    return kept


async def _put_away(context: Reconciler, envelope: Envelope, kept: Kept, *, replaced_by: UUID | None = None) -> None:
    """Have the letter's service answer it for ever; one without an id is known to no service."""
    if kept.view.message_id is None:
        return
    command = ATTENDED[kept.view.service].put_away(
        message_id=kept.view.message_id,
        source=kept.source,
        message_type=kept.view.message_type,
        digest=kept.digest.hex(),
        replaced_by=replaced_by,
    )
    await context.tell(envelope, command, MessageFate, about=str(kept.view.id))


def _fitting(kept: Kept, said: dict[str, Any]) -> bytes:
    kind = KNOWN.get(kept.view.message_type)
    if kept.view.message_id is None or kind is None:
        raise NotEditable("It has no id, or its type is not known to anybody; discard it with a reason.", {})
    body = edited(kept.body, said)
    if len(body) > BODY_MAX_BYTES:
        raise Invalid(f"The body is larger than {BODY_MAX_BYTES} bytes.", {"field": "body"})
    try:
        msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as unfit:
        raise Invalid(f"This is no {kept.view.message_type}: {unfit}", {"field": "body"}) from unfit
    if not difference(kept.body, body):
        raise Invalid("The edited body is the same as the one that failed; retry it instead.", {"field": "body"})
    return body


def _once_more(kept: Kept) -> Parcel:
    return _parcel(kept, {}, kept.body)


def _instead(kept: Kept, replacement: UUID, body: bytes) -> Parcel:
    return _parcel(kept, {"id": str(replacement)}, body)


def _parcel(kept: Kept, changed: dict[str, object], body: bytes) -> Parcel:
    carried = {name: value for name, value in kept.headers.items() if name not in SHED and not name.startswith(SHED_PREFIXES)}
    return Parcel(
        id=new_id(),
        exchange=topology.back_exchange(kept.view.service),
        routing_key=kept.queue,
        headers={**carried, **changed, "redriven": True, TYPE_HEADER: kept.view.message_type},
        body=body,
    )


def _said(kept: Kept) -> dict[str, Any]:
    return {"status": kept.view.status.value, "message_id": kept.view.message_id, "type": kept.view.message_type}


def _settled(work: Work, kept: Kept, status: LetterStatus, reason: str, *, replaced_by: UUID | None = None) -> LetterView:
    return msgspec.structs.replace(
        kept.view,
        status=status,
        settled_at=datetime.now(UTC),
        settled_by=work.envelope.actor,
        settled_reason=reason,
        retries=kept.view.retries + (1 if status is LetterStatus.RETRIED else 0),
        replaced_by=replaced_by,
    )


# Many at once


async def start_redrive(work: Work, command: StartRedrive, context: Reconciler) -> None:
    """Begin to retry or discard many letters; it goes on by itself, at its rate, until it is done or stopped."""
    chosen, scope = _chosen(command), scope_of(work.envelope)
    async with connected(context.desk.pool) as db:
        letters = await rows.count(db, scope, chosen, command.ids)
    view = RedriveView(
        id=work.envelope.id,
        action=command.action,
        status="dry_run" if command.dry_run else "running",
        rate_per_second=command.rate_per_second,
        letters=letters,
        done=0,
        skipped=0,
        last_error=None,
        actor=work.envelope.actor,
        reason=command.reason,
        created_at=datetime.now(UTC),
        finished_at=None,
    )

    batch = work.batch()
    if not command.dry_run:
        batch.add(redrive_rows.started(work.envelope, command, chosen, letters=letters))
    batch.audit(f"dead_letters.{command.action.value}", str(work.envelope.id), after=command, reason=command.reason)
    batch.conclude(done(view))
    await batch.commit()
    context.wake_redrives()


def _chosen(command: StartRedrive) -> Filter:
    if (command.ids is None) == (command.chosen is None):
        raise Invalid("Say which letters are meant: either by their ids or by a filter.", {"field": "ids"})
    if command.ids is not None and not 0 < len(command.ids) <= CHOSEN_MAX:
        raise Invalid(f"Between 1 and {CHOSEN_MAX} ids can be named; a filter takes any number.", {"field": "ids"})
    if command.chosen == Filter():
        raise Invalid("A filter that says nothing means all there are; name a service, a type or a group.", {"field": "filter"})
    if not 0 < command.rate_per_second <= RATE_MAX_PER_SECOND:
        raise Invalid(f"The rate is between 0 and {RATE_MAX_PER_SECOND:g} a second.", {"field": "rate_per_second"})
    if command.action is Action.DISCARD and not command.dry_run and not command.reason.strip():
        raise Invalid("Say why they are put away.", {"field": "reason"})
    return command.chosen or Filter()


async def stop_redrive(work: Work, command: StopRedrive, context: Reconciler) -> None:
    """Stop a redrive where it is; what was sent is sent."""
    async with connected(context.desk.pool) as db:
        found = await redrive_rows.one(db, work.envelope, command.redrive_id)
    if found is None:
        raise NotFound(f"There is no redrive {command.redrive_id}.")
    if found.status != "running":
        raise RedriveEnded(f"It is {found.status}.", {"redrive_status": found.status})

    batch = work.batch()
    batch.add(redrive_rows.stopped(work.envelope, found.id))
    batch.audit("redrive.stop", str(found.id), before={"done": found.done}, after={"status": "stopped"}, reason=command.reason)
    batch.conclude(done(msgspec.structs.replace(found, status="stopped", finished_at=datetime.now(UTC))))
    await batch.commit()


async def redrive_due(context: Reconciler) -> None:
    """Go on with every redrive that is due and that nobody works on."""
    limit, lease = context.settings.runs_at_once_max, context.settings.lease_seconds
    due = await redrive_rows.take_due(context.desk.pool, lease_seconds=lease, limit=limit)
    await asyncio.gather(*(_go_on(context, redrive) for redrive in due))
    if due:
        context.wake_redrives()


async def _go_on(context: Reconciler, redrive: Redrive) -> None:
    tick_seconds = max(TICK_SECONDS, 1 / redrive.rate_per_second)
    limit = min(BATCH_MAX, max(1, math.floor(redrive.rate_per_second * tick_seconds)))
    facts = {"correlation_id": redrive.correlation_id, "redrive_id": str(redrive.id), "action": redrive.action.value}
    with telemetry.bound(facts):
        try:
            while (after := await _batch(context, redrive, limit)) is not None:
                redrive = after
                await asyncio.sleep(tick_seconds)
            await redrive_rows.complete(context.desk.pool, redrive)
            telemetry.say(logger, logging.INFO, "a redrive is complete", {})
        except asyncio.CancelledError:
            await redrive_rows.put_off(context.desk.pool, redrive, error=None, again_seconds=0)
            raise
        except Contended:
            telemetry.say(logger, logging.INFO, "a redrive was stopped or taken over", {})
        except Unavailable as silent:
            telemetry.say(logger, logging.WARNING, "a redrive waits", {"reason": str(silent)})
            await redrive_rows.put_off(context.desk.pool, redrive, error=str(silent), again_seconds=AGAIN_SECONDS)


async def _batch(context: Reconciler, redrive: Redrive, limit: int) -> Redrive | None:
    """Do the next few letters; nothing when there are no more."""
    async with connected(context.desk.pool) as db:
        kept = await rows.next_of(db, redrive.scope, redrive.chosen, redrive.ids, after=redrive.position, until=redrive.until, limit=limit)
    if not kept:
        return None
    refusals: Sequence[str | None] = [None] * len(kept)
    if redrive.action is Action.DISCARD:
        refusals = await asyncio.gather(*(_refused(context, redrive, each) for each in kept))
    fine = [each for each, refusal in zip(kept, refusals, strict=True) if refusal is None]

    position, parcels = kept[-1].view.id, []
    statements = [
        redrive_rows.moved_on(
            redrive,
            position=position,
            done=len(fine),
            skipped=len(kept) - len(fine),
            error=next((refusal for refusal in refusals if refusal is not None), None),
            lease_seconds=context.settings.lease_seconds,
        )
    ]
    if fine:
        settle = rows.retried if redrive.action is Action.RETRY else rows.discarded
        settled = settle([each.view.id for each in fine], actor=redrive.actor, reason=redrive.reason)
        # One that somebody else has just settled is no reason to undo the others.
        statements.append(msgspec.structs.replace(settled, must=False))
    if fine and redrive.action is Action.RETRY:
        parcels = [_once_more(each) for each in fine]
        statements.append(promises(parcels, head_start_seconds=context.desk.relay.head_start_seconds))
    await context.desk.rows.write(statements)
    context.desk.relay.send_soon(parcels)
    return msgspec.structs.replace(redrive, position=position)


async def _refused(context: Reconciler, redrive: Redrive, kept: Kept) -> str | None:
    try:
        await _put_away(context, redrive.envelope, kept)
    except Refusal as refusal:
        return f"{kept.view.id}: {refusal.detail}"
    return None
