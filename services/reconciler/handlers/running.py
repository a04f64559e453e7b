"""A run: the provider's books page by page beside ours, then what of ours it did not list; every page is one commit."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from uuid import uuid5

import msgspec

from services.reconciler.domain.comparing import Difference, compare
from services.reconciler.domain.runs import Phase, Status, window_after
from services.reconciler.handlers.context import OWNERS, Owner, Reconciler, envelope_of
from services.reconciler.store import drift as drift_rows
from services.reconciler.store import runs as rows
from services.reconciler.store.drift import Found
from services.reconciler.store.runs import Run
from shared import telemetry
from shared.backoff import step
from shared.contracts.books import Heal, Keys, Pair, Pairs
from shared.database import Statement, connected
from shared.errors import Contended, Refusal, Unavailable
from shared.leases import lease_kept
from shared.messages import Envelope

logger = logging.getLogger(__name__)

LOOKS_AT_ONCE_MAX = 20
AGAIN_SECONDS = (1.0, 5.0, 30.0, 120.0, 600.0)


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What a page came to: what was compared, and where the run goes on."""

    after: Run
    compared: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    elsewhere: int = 0
    found: tuple[Found, ...] = ()
    window_done: bool = False


async def run_due(context: Reconciler) -> None:
    """Go on with every run that is due and that nobody works on."""
    limit, lease = context.settings.runs_at_once_max, context.settings.lease_seconds
    due = await rows.take_due(context.desk.pool, lease_seconds=lease, limit=limit)
    await asyncio.gather(*(_go_on(context, run) for run in due))
    if len(due) == limit:
        context.wake_runs()


async def _go_on(context: Reconciler, run: Run) -> None:
    """Go on with a run until it is done, cannot go on now, or is somebody else's."""
    facts = {"correlation_id": run.correlation_id, "run_id": str(run.id), "domain": run.domain.value, "provider": run.provider}
    with telemetry.bound(facts), telemetry.span("reconcile", facts=facts):
        try:
            seconds = context.settings.lease_seconds
            async with lease_kept(lambda: rows.renew(context.desk.pool, run, lease_seconds=seconds), lease_seconds=seconds):
                while run.status is not Status.COMPLETED:
                    run = await _turn_page(context, run)
        except asyncio.CancelledError:
            await rows.release(context.desk.pool, run)
            raise
        except Contended:
            telemetry.say(logger, logging.WARNING, "a run was taken over", {})
        except (Unavailable, Refusal) as stopped:
            reason = stopped.detail if isinstance(stopped, Refusal) else str(stopped)
            telemetry.say(logger, logging.WARNING, "a run waits", {"reason": reason})
            await rows.put_off(context.desk.pool, run, error=reason, again_seconds=step(AGAIN_SECONDS, run.attempts - 1))
        else:
            telemetry.say(logger, logging.INFO, "a run is complete", {})


async def _turn_page(context: Reconciler, run: Run) -> Run:
    """Read a page, look again at what differs, and write down what came of it and where the run is now."""
    owner, envelope = OWNERS[run.domain], _envelope(run)
    page = await (_theirs if run.phase is Phase.THEIRS else _ours)(context, run, owner, envelope)
    await _write(context, run, page)
    return page.after


async def _theirs(context: Reconciler, run: Run, owner: Owner, envelope: Envelope) -> Page:
    await context.pace(run.environment, run.provider)
    query = owner.list_theirs(
        domain=run.domain, provider=run.provider, since=run.position, until=window_after(run.position, run.until), cursor=run.cursor
    )
    listed = await context.ask(envelope, query, Pairs)
    keys = tuple(pair.key for pair in listed.pairs)
    found = await _differences(context, run, owner, envelope, listed.pairs)
    after = msgspec.structs.replace(run, cursor=listed.next, phase=Phase.OURS if listed.next is None else Phase.THEIRS)
    return Page(after=after, compared=keys, listed=keys, elsewhere=listed.elsewhere, found=found)


async def _ours(context: Reconciler, run: Run, owner: Owner, envelope: Envelope) -> Page:
    ends = window_after(run.position, run.until)
    query = owner.list_ours(domain=run.domain, provider=run.provider, since=run.position, until=ends, cursor=run.cursor)
    kept = await context.ask(envelope, query, Keys)
    async with connected(context.desk.pool) as db:
        unlisted = await rows.unseen(db, run, kept.keys)
    looked = await _look(context, run, owner, envelope, unlisted)
    found = await _differences(context, run, owner, envelope, looked)
    done = kept.next is None
    after = msgspec.structs.replace(run, cursor=kept.next) if not done else _next_window(run, ends)
    return Page(after=after, compared=tuple(pair.key for pair in looked), found=found, window_done=done)


def _next_window(run: Run, ends: datetime) -> Run:
    status = Status.COMPLETED if ends >= run.until else Status.RUNNING
    return msgspec.structs.replace(run, position=ends, phase=Phase.THEIRS, cursor=None, status=status)


async def _look(context: Reconciler, run: Run, owner: Owner, envelope: Envelope, keys: Sequence[str]) -> list[Pair]:
    """Read single things on both sides as they are now."""
    pairs: list[Pair] = []
    for first in range(0, len(keys), LOOKS_AT_ONCE_MAX):
        some = tuple(keys[first : first + LOOKS_AT_ONCE_MAX])
        await context.pace(run.environment, run.provider, calls=len(some))
        query = owner.look_at(domain=run.domain, provider=run.provider, keys=some)
        pairs += (await context.ask(envelope, query, Pairs)).pairs
    return pairs


async def _differences(context: Reconciler, run: Run, owner: Owner, envelope: Envelope, pairs: Sequence[Pair]) -> tuple[Found, ...]:
    """Tell what differs and stays so: each suspect is read anew, and what only had to be learnt is learnt first."""
    suspects = {pair.key: compare(pair) for pair in pairs}
    suspects = {key: differences for key, differences in suspects.items() if differences}
    for key, differences in suspects.items():
        if any(difference.heals for difference in differences):
            await context.pace(run.environment, run.provider)
            await _heal(context, envelope, owner.heal(domain=run.domain, provider=run.provider, key=key))
    again = {pair.key: pair for pair in await _look(context, run, owner, envelope, list(suspects))}
    found: list[Found] = []
    for key, before in suspects.items():
        pair = again.get(key)
        now = [] if pair is None else compare(pair)
        order_id = None if pair is None or pair.ours is None else pair.ours.order_id
        found += [Found(difference, order_id, False) for difference in now]
        found += [Found(difference, order_id, True) for difference in _healed(before, now)]
    return tuple(found)


async def _heal(context: Reconciler, envelope: Envelope, command: Heal) -> None:
    try:
        await context.heal(envelope, command)
    except Refusal as refused:
        # It stays a difference, and holds up no other.
        facts = {"key": command.key, "code": refused.problem().code, "reason": refused.detail}
        telemetry.say(logger, logging.WARNING, "a difference cannot be healed", facts)


def _healed(before: Sequence[Difference], now: Sequence[Difference]) -> list[Difference]:
    """What healed because our books learnt of it; what went by itself between two reads was none."""
    still = {(each.type, each.entry) for each in now}
    return [each for each in before if each.heals and (each.type, each.entry) not in still]


async def _write(context: Reconciler, run: Run, page: Page) -> None:
    met = [found for found in page.found if not found.healed]
    healed = [found for found in page.found if found.healed]
    statements: list[Statement] = [
        rows.moved_on(
            run,
            page.after,
            compared=len(page.compared),
            elsewhere=page.elsewhere,
            found=len(page.found),
            healed=len(healed),
            lease_seconds=context.settings.lease_seconds,
        )
    ]
    if page.listed:
        statements.append(rows.saw(run, page.listed))
    if page.window_done:
        statements.append(rows.forgot(run))
    if page.compared:
        statements.append(drift_rows.gone(run, page.compared, met))
    if met:
        statements.append(drift_rows.met(run, met))
    if healed:
        statements.append(drift_rows.healed(run, healed))
    await context.desk.rows.write(statements)
    for found in page.found:
        facts = {"type": found.difference.type.value, "key": found.difference.key, "entry": found.difference.entry, "healed": found.healed}
        telemetry.say(logger, logging.INFO if found.healed else logging.WARNING, "books differ", facts)


def _envelope(run: Run) -> Envelope:
    """For whom a page is asked; its id names the step, so that a page that is read again heals nothing twice."""
    step_name = f"{run.position.isoformat()} {run.phase.value} {run.cursor or ''}"
    return envelope_of(
        message_id=uuid5(run.id, step_name),
        store_id=run.store_id,
        environment=run.environment,
        actor=run.actor,
        correlation_id=run.correlation_id,
    )


async def measure(context: Reconciler) -> None:
    """Show how much lies open."""
    async with connected(context.desk.pool) as db:
        counts = await drift_rows.open_counts(db)
    telemetry.drift_open.clear()
    for domain, kind, count, _ in counts:
        telemetry.drift_open.labels(domain, kind).set(count)
    telemetry.oldest_drift_seconds.set(max((oldest for *_, oldest in counts), default=0.0))
