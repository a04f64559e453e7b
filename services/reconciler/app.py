"""The reconciler: which message, which function, and the jobs that compare."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from services.reconciler.domain.runs import schedules_of
from services.reconciler.handlers import answering, collecting, letters, redriving, running, scheduling, settling
from services.reconciler.handlers.context import Reconciler
from services.reconciler.settings import Settings
from services.reconciler.store import happenings as happening_rows
from shared import happenings, topology
from shared.bus import Consumer
from shared.contracts import dead_letters, timeline
from shared.contracts import reconciler as messages
from shared.contracts.settlements import ImportSettlements
from shared.errors import Unavailable
from shared.health import Check
from shared.messages import Message, Query
from shared.migrations import Owned
from shared.replies import Replies
from shared.schedule import Job
from shared.service import Service
from shared.work import Desk
from shared.worker import CommandHandler, QueryHandler

OWNED = Owned(name="reconciler", files=Path(__file__).parent / "schema")
MEASURE_EVERY_SECONDS = 15.0
FORGET_EVERY_SECONDS = 60.0

COMMANDS: dict[type[Message], CommandHandler[Reconciler]] = {
    messages.StartRun: answering.start_run,
    messages.ResolveDrift: answering.resolve_drift,
    ImportSettlements: settling.import_settlements,
    dead_letters.RetryLetter: redriving.retry,
    dead_letters.EditLetter: redriving.edit,
    dead_letters.DiscardLetter: redriving.discard,
    dead_letters.StartRedrive: redriving.start_redrive,
    dead_letters.StopRedrive: redriving.stop_redrive,
}
QUERIES: dict[type[Query], QueryHandler[Reconciler]] = {
    messages.ListRuns: answering.list_runs,
    messages.GetRun: answering.get_run,
    messages.ListDrift: answering.list_drift,
    timeline.ReconcilerListHappenings: happenings.answering(happening_rows.SQL),
    dead_letters.ListLetters: letters.list_letters,
    dead_letters.GroupLetters: letters.group_letters,
    dead_letters.GetLetter: letters.get_letter,
    dead_letters.ListRedrives: letters.list_redrives,
    dead_letters.GetRedrive: letters.get_redrive,
}


def build(settings: Settings) -> Service[Reconciler]:
    """Put the reconciler together."""
    return Service(
        name=OWNED.name,
        settings=settings,
        owned=OWNED,
        context=lambda desk: _context(desk, settings),
        handlers=COMMANDS,
        queries=QUERIES,
        jobs=partial(_jobs, settings),
        checks=_checks,
    )


@asynccontextmanager
async def _context(desk: Desk, settings: Settings) -> AsyncIterator[Reconciler]:
    async with Replies(settings.amqp_url, desk.publisher, name=OWNED.name) as replies:
        context = Reconciler(desk=desk, settings=settings, replies=replies)
        queues = [topology.dead_queue(service) for service in topology.CONSUMERS]
        collector = Consumer(
            settings.amqp_url,
            queues,
            partial(collecting.take_in, context=context),
            name=f"{OWNED.name} letters",
            prefetch=settings.prefetch,
        )
        try:
            context.collector_trouble = lambda: collector.trouble
            async with collector:
                yield context
                await collector.drain(settings.shutdown_grace_seconds)
        finally:
            with suppress(Unavailable, TimeoutError):
                await scheduling.resign(context)


def _jobs(settings: Settings, context: Reconciler) -> Sequence[Job]:
    runs = Job("runs", lambda: running.run_due(context), every_seconds=settings.run_every_seconds)
    redrives = Job("redrives", lambda: redriving.redrive_due(context), every_seconds=settings.run_every_seconds)
    context.wake_runs, context.wake_redrives = runs.wake, redrives.wake
    schedules = schedules_of(settings.reconcile_schedules)
    return [
        runs,
        Job("schedules", lambda: scheduling.fire_due(context, schedules), every_seconds=settings.schedule_every_seconds),
        redrives,
        Job("old dead letters", lambda: collecting.forget_old(context), every_seconds=FORGET_EVERY_SECONDS),
        Job("measuring dead letters", lambda: collecting.measure(context), every_seconds=MEASURE_EVERY_SECONDS),
        Job("measuring", lambda: running.measure(context), every_seconds=MEASURE_EVERY_SECONDS),
    ]


def _checks(context: Reconciler) -> dict[str, Check]:
    async def replies() -> str | None:
        return context.replies.trouble

    async def letters_taken() -> str | None:
        return context.collector_trouble()

    return {"replies": replies, "dead letters": letters_taken}
