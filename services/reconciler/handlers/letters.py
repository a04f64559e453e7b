"""What operators ask about dead letters: lists, groups, one with its history and what its service says, and redrives."""

from services.reconciler.domain.letters import shown
from services.reconciler.handlers.context import Reconciler
from services.reconciler.handlers.redriving import OPERATOR, scopes_of
from services.reconciler.store import letters as rows
from services.reconciler.store import redrives as redrive_rows
from services.reconciler.store.letters import UNREADABLE, Kept, Scope, scope_of
from shared.contracts.dead_letters import (
    ATTENDED,
    PAGE_ROWS_MAX,
    GetLetter,
    GetRedrive,
    GroupLetters,
    Groups,
    LetterDetail,
    LetterPage,
    ListLetters,
    ListRedrives,
    MessageFate,
    RedrivePage,
    RedriveView,
)
from shared.database import connected
from shared.errors import NotFound, Refusal, Unavailable
from shared.messages import Envelope


class OperatorsOnly(Refusal):
    """Letters that do not say whose they are belong to no store."""

    code = "forbidden"
    title = "This needs an operator's key"
    status = 403


async def list_letters(envelope: Envelope, query: ListLetters, context: Reconciler) -> LetterPage:
    """Read a page of letters, the newest first."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        found = await rows.page(
            db, _scope(envelope, unreadable=query.unreadable), query.chosen, status=query.status, before=query.before, limit=limit + 1
        )
    return LetterPage(letters=found[:limit], next=found[limit - 1].id if len(found) > limit else None)


async def group_letters(envelope: Envelope, query: GroupLetters, context: Reconciler) -> Groups:
    """Count letters by what went wrong, the largest group first."""
    async with connected(context.desk.pool) as db:
        return Groups(groups=await rows.groups(db, _scope(envelope, unreadable=query.unreadable), query.status))


def _scope(envelope: Envelope, *, unreadable: bool) -> Scope:
    if not unreadable:
        return scope_of(envelope)
    if not envelope.actor.startswith(OPERATOR):
        raise OperatorsOnly("Letters that do not say whose they are are shown to operators only.")
    return UNREADABLE


async def get_letter(envelope: Envelope, query: GetLetter, context: Reconciler) -> LetterDetail:
    """Read a letter with everything that is known of it."""
    async with connected(context.desk.pool) as db:
        kept = await rows.one(db, scopes_of(envelope), query.letter_id)
        if kept is None:
            raise NotFound(f"There is no dead letter {query.letter_id}.")
        history = await rows.history(db, query.letter_id)
    body, text = shown(kept.body)
    return LetterDetail(
        letter=kept.view,
        queue=kept.queue,
        source=kept.source,
        body=body,
        body_text=text,
        headers=kept.headers,
        history=history,
        difference=kept.difference,
        fate=await _fate(context, envelope, kept),
    )


async def _fate(context: Reconciler, envelope: Envelope, kept: Kept) -> MessageFate | None:
    if kept.view.message_id is None:
        return None
    query = ATTENDED[kept.view.service].describe(message_id=kept.view.message_id, source=kept.source)
    try:
        return await context.ask(envelope, query, MessageFate, timeout_seconds=context.settings.fate_timeout_seconds)
    except Unavailable:
        return None  # Its service is down, which may be why the letter lies here.


async def list_redrives(envelope: Envelope, query: ListRedrives, context: Reconciler) -> RedrivePage:
    """Read the latest redrives."""
    async with connected(context.desk.pool) as db:
        return RedrivePage(redrives=await redrive_rows.latest(db, envelope, limit=min(query.limit, PAGE_ROWS_MAX)))


async def get_redrive(envelope: Envelope, query: GetRedrive, context: Reconciler) -> RedriveView:
    """Read a redrive."""
    async with connected(context.desk.pool) as db:
        found = await redrive_rows.one(db, envelope, query.redrive_id)
    if found is None:
        raise NotFound(f"There is no redrive {query.redrive_id}.")
    return found
