"""What operators ask and decide: runs, differences, and how those are settled."""

from datetime import UTC, datetime
from enum import StrEnum

from services.reconciler.domain.comparing import compare
from services.reconciler.domain.runs import Status
from services.reconciler.handlers.context import OWNERS, Reconciler
from services.reconciler.store import drift as drift_rows
from services.reconciler.store import runs as rows
from shared.contracts.books import Books, Pairs
from shared.contracts.reconciler import (
    PAGE_ROWS_MAX,
    DriftPage,
    DriftView,
    GetRun,
    ListDrift,
    ListRuns,
    ResolveDrift,
    RunPage,
    RunView,
    StartRun,
)
from shared.database import connected
from shared.errors import Invalid, NotFound, Refusal
from shared.messages import Envelope, done
from shared.work import Work


class Action(StrEnum):
    """How an operator settles a difference."""

    ACCEPTED = "accepted"
    PROVIDER_IS_RIGHT = "provider_is_right"


class AlreadySettled(Refusal):
    """A difference was settled before."""

    code = "drift-settled"
    title = "This difference is settled already"


class StillDiffers(Refusal):
    """Taking in the provider's word did not make the books agree."""

    code = "still-differs"
    title = "Our books cannot take the provider's word for this"


async def start_run(work: Work, command: StartRun, context: Reconciler) -> None:
    """Begin a run; it goes on by itself."""
    if command.since >= command.until:
        raise Invalid("since must be before until.", {"field": "since"})
    if command.until > datetime.now(UTC):
        raise Invalid("until lies in the future, and what has not happened cannot be compared.", {"field": "until"})
    owner = OWNERS[command.domain]
    books = (await context.ask(work.envelope, owner.list_books(), Books)).books
    where = (command.domain, work.envelope.environment.value)
    providers = sorted({book.provider for book in books if (book.domain, book.environment) == where})
    if command.provider not in providers:
        raise Invalid(
            f"No books of {command.domain.value} are kept at {command.provider!r} here.", {"field": "provider", "providers": providers}
        )

    run_id = work.envelope.id
    batch = work.batch()
    batch.add(rows.started(work.envelope, run_id, command))
    batch.audit("reconciliation.start", str(run_id), after=command)
    batch.conclude(done(_queued(work, command)))
    await batch.commit()
    context.wake_runs()


def _queued(work: Work, command: StartRun) -> RunView:
    return RunView(
        id=work.envelope.id,
        domain=command.domain,
        provider=command.provider,
        since=command.since,
        until=command.until,
        status=Status.QUEUED.value,
        position=command.since,
        compared=0,
        elsewhere=0,
        drift_found=0,
        drift_healed=0,
        attempts=0,
        last_error=None,
        actor=work.envelope.actor,
        schedule=None,
        source="books",
        created_at=datetime.now(UTC),
        started_at=None,
        finished_at=None,
    )


async def resolve_drift(work: Work, command: ResolveDrift, context: Reconciler) -> None:
    """Settle a difference by an operator's word, with their reason."""
    async with connected(context.desk.pool) as db:
        item = await drift_rows.one(db, work.envelope, command.drift_id)
    if item is None:
        raise NotFound(f"There is no difference {command.drift_id}.")
    if item.status != "open":
        raise AlreadySettled(
            f"It was {item.resolution} at {item.settled_at}.", {"drift_status": item.status, "resolution": item.resolution}
        )

    if Action(command.action) is Action.PROVIDER_IS_RIGHT:
        await _take_their_word(work, context, item)

    batch = work.batch()
    batch.add(drift_rows.resolved(work.envelope, item.id, resolution=command.action, reason=command.reason))
    batch.audit(
        "drift.resolve",
        str(item.id),
        before={"status": item.status, "type": item.type, "key": item.key, "entry": item.entry},
        after={"status": "resolved", "resolution": command.action},
        reason=command.reason,
    )
    batch.conclude(done(_settled(work, item, command)))
    await batch.commit()


async def _take_their_word(work: Work, context: Reconciler, item: DriftView) -> None:
    owner = OWNERS[item.domain]
    await context.heal(work.envelope, owner.heal(domain=item.domain, provider=item.provider, key=item.key))
    looked = await context.ask(work.envelope, owner.look_at(domain=item.domain, provider=item.provider, keys=(item.key,)), Pairs)
    left = [difference for pair in looked.pairs for difference in compare(pair)]
    if any((difference.type.value, difference.entry) == (item.type, item.entry) for difference in left):
        raise StillDiffers(
            "What the provider says of this can only be put right by hand, there or here; accept it with a reason when that is done.",
            {"drift_type": item.type, "key": item.key, "entry": item.entry},
        )


def _settled(work: Work, item: DriftView, command: ResolveDrift) -> DriftView:
    facts = {name: getattr(item, name) for name in item.__struct_fields__}
    settled = {"status": "resolved", "resolution": command.action, "reason": command.reason, "actor": work.envelope.actor}
    return DriftView(**{**facts, **settled, "settled_at": datetime.now(UTC)})


async def list_runs(envelope: Envelope, query: ListRuns, context: Reconciler) -> RunPage:
    """Read a page of runs, the newest first."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        found = await rows.page(db, envelope, query, limit=limit + 1)
    return RunPage(runs=found[:limit], next=found[limit - 1].id if len(found) > limit else None)


async def get_run(envelope: Envelope, query: GetRun, context: Reconciler) -> RunView:
    """Read a run."""
    async with connected(context.desk.pool) as db:
        found = await rows.one(db, envelope, query.run_id)
    if found is None:
        raise NotFound(f"There is no run {query.run_id}.")
    return found


async def list_drift(envelope: Envelope, query: ListDrift, context: Reconciler) -> DriftPage:
    """Read a page of differences, the newest first."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        found = await drift_rows.page(db, envelope, query, limit=limit + 1)
    return DriftPage(items=found[:limit], next=found[limit - 1].id if len(found) > limit else None)
