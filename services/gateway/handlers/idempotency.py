"""The idempotency store: one key, one operation, one answer; whoever asks again joins or is told what was said."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Coroutine, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec

from services.gateway import store
from services.gateway.domain import KeyReused
from services.gateway.handlers.commands import SUCCESS_STATUS
from services.gateway.settings import Settings
from services.gateway.store import Claim, Finished, Kept
from shared import telemetry
from shared.database import GroupCommit, Pool
from shared.errors import Unavailable, problem_body
from shared.messages import Done, Refused, Reply
from shared.stopping import stop
from shared.vault import BrokenSeal, Chest

logger = logging.getLogger(__name__)

CHEST = "tender/answers/1"
# No JSON begins like that.
LOCKED = b"\x01"
WATCH_FIRST_SECONDS = 0.05
# Nobody waits for these answers to be kept, so more of them are kept at once.
KEEP_PAUSE_SECONDS = 0.02
KEEP_STOP_TIMEOUT_SECONDS = 5.0
WATCH_MAX_SECONDS = 0.5
# Nearly all answers are there by then; only whoever waits longer is looked after, so that a place is not kept for nobody.
UNWATCHED_SECONDS = 1.0

FIRST, JOINED, REPLAYED = (telemetry.idempotency_answers.labels(how) for how in ("first", "joined", "replayed"))


class Interim(msgspec.Struct, frozen=True):
    """What can be said so far: an answer that is not kept, because whoever asks again with the same key gets to hear how it went on."""

    body: bytes


async def _never() -> None:
    await asyncio.Event().wait()


async def _first(task: "asyncio.Task[Answer]", gone: Callable[[], Coroutine[Any, Any, None]], *, timeout_seconds: float) -> None:
    """Wait for an answer, as long as there is somebody who wants it."""
    if timeout_seconds <= 0:
        return
    leaving: asyncio.Task[Any] = asyncio.create_task(gone())
    await asyncio.wait({task, leaving}, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    await stop(leaving)


# Carries an operation out; nothing means that its outcome is not known yet.
Driver = Callable[[Kept], Awaitable[Reply | Interim | None]]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What goes out: the stored answer, a passing refusal, or (without a body) "still at it"."""

    operation_id: UUID
    command_type: str
    status: int = 202
    body: bytes | None = None
    replayed: bool = False
    retry_after_seconds: int | None = None
    definitive: bool = False

    @property
    def pending(self) -> bool:
        """Whether the outcome is still to come."""
        return self.body is None


class IdempotencyStore:
    """Executes keyed requests exactly once, across crashes and gateways."""

    def __init__(
        self,
        pool: Pool,
        drivers: Mapping[str, Driver],
        resend: Callable[[Kept], Awaitable[None]],
        settings: Settings,
        *,
        told_again: Container[str],
    ) -> None:
        self._pool = pool
        self._drivers = drivers
        # Commands whose services keep what they answered and say it again: their answers need not be kept here before they go out.
        self._told_again = told_again
        self._resend = resend
        self._settings = settings
        self._claims: GroupCommit[Claim, Kept] = GroupCommit(lambda claims: store.claim(pool, claims))
        self._finishes: GroupCommit[Finished, None] = GroupCommit(lambda finished: store.complete(pool, finished))
        self._later: GroupCommit[Finished, None] = GroupCommit(
            lambda finished: store.complete(pool, finished), pause_seconds=KEEP_PAUSE_SECONDS
        )
        self._looks: GroupCommit[UUID, Kept | None] = GroupCommit(lambda ids: store.look(pool, ids))
        secrets = [secret for secret in (settings.token_secret, settings.token_secret_before) if secret]
        # Answers hold what is personal: addresses, say. The newest locks, all open.
        self._chests = [Chest(secret, purpose=CHEST) for secret in secrets]
        self._running: dict[UUID, asyncio.Task[Answer]] = {}
        self._keeping: dict[UUID, asyncio.Task[None]] = {}

    async def execute(self, request: Claim, *, wait_seconds: float, gone: Callable[[], Coroutine[Any, Any, None]] = _never) -> Answer:
        """Carry a request out once and answer it, or say that it is still being carried out when the wait ends or whoever asks is gone."""
        kept = await self._claims.submit(request)
        if kept.request_hash != request.request_hash:
            raise KeyReused("Take a new key for another request.", {"operation_id": str(kept.operation_id)})
        if not (kept.completed or kept.claimed_now or kept.operation_id in self._running):
            # What was found in progress may have been answered since.
            kept = await self.look(kept.operation_id) or kept
        if kept.completed:
            REPLAYED.inc()
            return self._stored(kept)
        (FIRST if kept.claimed_now else JOINED).inc()
        task = await self._task_of(kept)
        if task is None:
            watching = asyncio.create_task(self._watch(kept, wait_seconds))
            await _first(watching, gone, timeout_seconds=wait_seconds)
            if watching.done():
                return watching.result()
            await stop(watching)
            return Answer(operation_id=kept.operation_id, command_type=kept.command_type)
        await asyncio.wait({task}, timeout=min(wait_seconds, UNWATCHED_SECONDS))
        if not task.done():
            await _first(task, gone, timeout_seconds=wait_seconds - UNWATCHED_SECONDS)
        return task.result() if task.done() else Answer(operation_id=kept.operation_id, command_type=kept.command_type)

    async def sweep(self) -> None:
        """Drive on what a crash or a lost reply has left unfinished."""
        for kept in await store.take_forgotten(self._pool, after_seconds=self._settings.redrive_after_seconds):
            if kept.operation_id in self._running:
                await self._resend(kept)
            else:
                telemetry.say(logger, logging.INFO, "driving on a forgotten operation", {"operation_id": str(kept.operation_id)})
                self._drive(kept)

    async def stop(self) -> None:
        """Let go of what is running; the rows hold everything, another gateway or a restart goes on."""
        await stop(*self._running.values())
        if self._keeping:
            await asyncio.wait(self._keeping.values(), timeout=KEEP_STOP_TIMEOUT_SECONDS)

    async def look(self, operation_id: UUID) -> Kept | None:
        """Read an operation; one whose answer went out shows it, unless it could not be kept."""
        keeping = self._keeping.get(operation_id)
        if keeping is not None:
            await asyncio.wait({keeping})
        return await self._looks.submit(operation_id)

    async def _task_of(self, kept: Kept) -> "asyncio.Task[Answer] | None":
        running = self._running.get(kept.operation_id)
        if running is not None:
            return running
        mine = kept.claimed_now or await store.take_up(self._pool, kept.operation_id, stale_seconds=self._settings.redrive_after_seconds)
        # Another request of this process may have taken it up while we asked.
        return self._running.get(kept.operation_id) or (self._drive(kept) if mine else None)

    def _drive(self, kept: Kept) -> "asyncio.Task[Answer]":
        task = asyncio.create_task(self._to_answer(kept))
        self._running[kept.operation_id] = task
        task.add_done_callback(lambda _: self._running.pop(kept.operation_id, None))
        return task

    async def _to_answer(self, kept: Kept) -> Answer:
        pending = Answer(operation_id=kept.operation_id, command_type=kept.command_type)
        try:
            reply = await self._drivers[kept.command_type](kept)
            return pending if reply is None else await self._keep(kept, reply)
        except Unavailable as silent:
            # Claimed is claimed: the row stays, and the sweeper goes on.
            telemetry.say(logger, logging.WARNING, "an operation waits", {"operation_id": str(kept.operation_id), "reason": str(silent)})
            return pending

    async def _keep(self, kept: Kept, reply: Reply | Interim) -> Answer:
        match reply:
            case Interim(body=body):
                await store.rest(self._pool, kept.operation_id)
                return _answer(kept, Finished(kept.operation_id, SUCCESS_STATUS[kept.command_type], body), definitive=False)
            case Done(body=body):
                finished = Finished(kept.operation_id, SUCCESS_STATUS[kept.command_type], bytes(body))
            case Refused(problem=problem):
                raw = msgspec.json.encode(problem_body(problem, kept.correlation_id))
                finished = Finished(kept.operation_id, problem.status, raw)
                if not problem.definitive:
                    await store.rest(self._pool, kept.operation_id)
                    return _answer(kept, finished, definitive=False, retry_after_seconds=problem.retry_after_seconds)
        locked = msgspec.structs.replace(finished, body=LOCKED + self._chests[0].lock(finished.body, about=kept.operation_id.bytes))
        if kept.command_type in self._told_again:
            self._keep_soon(locked)
        else:
            await self._finishes.submit(locked)
        return _answer(kept, finished, definitive=True)

    def _keep_soon(self, finished: Finished) -> None:
        task = asyncio.create_task(self._kept(finished))
        self._keeping[finished.operation_id] = task
        task.add_done_callback(lambda _: self._keeping.pop(finished.operation_id, None))

    async def _kept(self, finished: Finished) -> None:
        try:
            await self._later.submit(finished)
        except Unavailable as silent:
            # Its row is in progress as before, so the sweeper asks again, and the service says the same again.
            facts = {"operation_id": str(finished.operation_id), "reason": str(silent)}
            telemetry.say(logger, logging.WARNING, "an answer is not kept yet", facts)

    async def _watch(self, kept: Kept, wait_seconds: float) -> Answer:
        """Another gateway is at it: watch the row until it is answered or the wait ends."""
        loop = asyncio.get_running_loop()
        ends, pause = loop.time() + wait_seconds, WATCH_FIRST_SECONDS
        while loop.time() < ends:
            await asyncio.sleep(min(pause, max(0.0, ends - loop.time())))
            pause = min(pause * 2, WATCH_MAX_SECONDS)
            now = await self._looks.submit(kept.operation_id)
            if now is not None and now.completed:
                return msgspec.structs.replace(self._stored(now), replayed=False)
        return Answer(operation_id=kept.operation_id, command_type=kept.command_type)

    def _stored(self, kept: Kept) -> Answer:
        body = self.body_of(kept)
        assert kept.response_code is not None, "a completed key holds its answer's status"
        assert body is not None, "a completed key holds its answer's body"
        return Answer(
            operation_id=kept.operation_id,
            command_type=kept.command_type,
            status=kept.response_code,
            body=body,
            replayed=True,
            definitive=True,
        )

    def body_of(self, kept: Kept) -> bytes | None:
        """Open the answer that is kept with an operation, if it has one; raises BrokenSeal when its secret is gone."""
        if kept.response_body is None or not kept.response_body.startswith(LOCKED):
            return kept.response_body  # None yet, or kept before answers were locked.
        locked = kept.response_body.removeprefix(LOCKED)
        for chest in self._chests[:-1]:
            with suppress(BrokenSeal):
                return chest.unlock(locked, about=kept.operation_id.bytes)
        return self._chests[-1].unlock(locked, about=kept.operation_id.bytes)


def _answer(kept: Kept, finished: Finished, *, definitive: bool, retry_after_seconds: int | None = None) -> Answer:
    return Answer(
        operation_id=kept.operation_id,
        command_type=kept.command_type,
        status=finished.code,
        body=finished.body,
        definitive=definitive,
        retry_after_seconds=retry_after_seconds,
    )
