"""The worker: takes a message, looks in the inbox, calls the handler, and never loses or blocks on what fails."""

import asyncio
import logging
import math
import time
import traceback
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
from opentelemetry.trace import SpanKind

from shared import audit, inbox, telemetry, topology
from shared.backoff import trying
from shared.bus import Letter, Publisher, Received, TooLarge, Unroutable, envelope_of, headers_of
from shared.database import CONTENDED_ATTEMPTS_MAX, GroupCommit, Statement
from shared.errors import UNAVAILABLE, Contended, Problem, Refusal, Retry, Unavailable
from shared.fair_slots import FairSlots
from shared.inbox import CameBefore, Inbox, State, digest_of
from shared.messages import Envelope, Event, Message, Query, Refused, done, encode_reply, type_of
from shared.work import Desk, Work

logger = logging.getLogger(__name__)

TRACEBACK_MAX_BYTES = 4096
REASON_MAX_CHARACTERS = 500
GROUP_MAX = 32
# Messages of one store handled at the same time, and as a share of them how many more of others: fewer would cost one store throughput.
SLOTS = 64
OTHERS_SHARE = 1 / 3
# How many a process has from the broker for each slot: only of what it has can it choose by store. One store's never fill all of it.
PREFETCHED_PER_SLOT = 8
WAITING_SPARE = 2
# AMQP 0-9-1: a prefetch count is a short.
PREFETCHED_MAX = 65_535
# The broker's own counters must not travel on: 4.x ignores them and cycle detection may drop the copy.
STRIPPED_PREFIXES = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")

# What every log line about a payment must bear, where the message says it.
BOUND_FIELDS = ("order_id", "intent_id")

# Two machines' clocks differ; only a question nobody can wait for any more is dropped.
DEADLINE_GRACE = timedelta(seconds=30)

C = TypeVar("C")
CommandHandler = Callable[[Work, Any, C], Awaitable[None]]
QueryHandler = Callable[[Envelope, Any, C], Awaitable[Any]]
# Told of every failed try of a command: its message, why, and whether it was the last.
FailureHandler = Callable[[Envelope, Any, C, BaseException, bool], Awaitable[None]]


# Takes events together, all or nothing; says of each whether it was taken.
TogetherHandler = Callable[[Sequence[Work], Sequence[Any], C], Awaitable[Sequence[bool]]]


class Together(msgspec.Struct, Generic[C], frozen=True, kw_only=True):
    """How events of a kind are taken many at a time: nobody waits for them, and in one write they cost a third.

    Two about the same thing (`about`) go one after the other, as they came. Whatever is not taken so is handled alone, as if there were no
    groups.
    """

    handler: TogetherHandler[C]
    about: Callable[[Any], Hashable]


class _Arrived(msgspec.Struct, frozen=True):
    """An event that may be taken with others."""

    received: Received
    envelope: Envelope
    digest: bytes


class RetrySchedules(msgspec.Struct, frozen=True, kw_only=True):
    """Through which tiers a message goes before it is parked, by why it failed."""

    silent: tuple[str, ...] = ("1s", "1s", "30s", "30s", "10m", "10m", "10m", "10m")
    bug: tuple[str, ...] = ("1s", "30s")

    def tier(self, failure: BaseException, attempt: int) -> str | None:
        """Name the next tier, or nothing when it was the last try."""
        schedule = self.silent if isinstance(failure, Unavailable) else self.bug
        return schedule[attempt] if attempt < len(schedule) else None


class Worker(Generic[C]):
    """Handles the messages of one service; give it what to call for which message."""

    def __init__(
        self,
        *,
        service: str,
        desk: Desk,
        context: C,
        handlers: Mapping[type[Message], CommandHandler[C]],
        queries: Mapping[type[Query], QueryHandler[C]],
        handler_timeout_seconds: float,
        schedules: RetrySchedules,
        failed: Mapping[type[Message], FailureHandler[C]] | None = None,
        together: Mapping[type[Event], Together[C]] | None = None,
        group_pause_seconds: float = 0.0,
        group_max: int = GROUP_MAX,
        looking: Collection[type[Message]] = (),
        failures_answered: Collection[type[Message]] = (),
        slots: int = SLOTS,
    ) -> None:
        self._service = service
        self._desk = desk
        self._context = context
        self._inbox = Inbox(desk.pool)
        self._publisher: Publisher = desk.publisher
        self._timeout_seconds = handler_timeout_seconds
        self._pulse = desk.pulse
        self._schedules = schedules
        self._commands = {type_of(kind): (msgspec.json.Decoder(kind), handler) for kind, handler in handlers.items()}
        self._failed = {type_of(kind): handler for kind, handler in (failed or {}).items()}
        self._queries = {type_of(kind): (msgspec.json.Decoder(kind), handler) for kind, handler in queries.items()}
        # Their handlers read by `Work.reading`, which looks in the inbox with what it reads.
        self._looking = {type_of(kind) for kind in looking}
        # Their senders keep them and try again by a schedule of their own: a failure is answered, and neither retried nor parked here.
        self._failures_answered = {type_of(kind) for kind in failures_answered}
        # By queue: work in the background has slots of its own.
        self._slots: defaultdict[str, FairSlots] = defaultdict(
            lambda: FairSlots(
                slots + math.ceil(slots * OTHERS_SHARE), per_store_max=slots, waiting_max=slots * (PREFETCHED_PER_SLOT - WAITING_SPARE)
            )
        )
        self._groups: dict[str, GroupCommit[_Arrived, bool]] = {
            type_of(kind): GroupCommit(partial(self._together, how), items_max=group_max, pause_seconds=group_pause_seconds)
            for kind, how in (together or {}).items()
        }

    async def handle(self, received: Received) -> None:
        """Carry out one message and acknowledge it."""
        started = time.monotonic()
        try:
            _check_sender(received)
            envelope = envelope_of(received)
        except (KeyError, ValueError, Poison) as broken:
            await self._park(received, None, broken)
            return
        facts = {"correlation_id": envelope.correlation_id, "operation_id": str(envelope.id)}
        whose = {"store_id": str(envelope.store_id), "environment": envelope.environment.value}
        with (
            self._pulse,
            telemetry.bound(facts),
            telemetry.span(f"{received.type} process", kind=SpanKind.CONSUMER, parent=envelope.traceparent, facts={**facts, **whose}),
        ):
            result = await self._handled(received, envelope)
        elapsed_seconds = time.monotonic() - started
        self._pulse.handled(elapsed_seconds, result)
        telemetry.messages_handled.labels(self._service, received.type, result).observe(elapsed_seconds)

    async def _handled(self, received: Received, envelope: Envelope) -> str:
        if received.type in self._queries:
            return await self._answer(received, envelope)
        try:
            return await self._carry_out(received, envelope)
        except Unavailable:
            raise
        except Exception as failure:
            # Even the way to the retry tiers failed (one is missing, say): the broker's own dead-lettering is the net.
            logger.error("a message cannot be handled or sent on", exc_info=failure, extra={"tender": {"type": received.type}})
            await received.reject()
            return "rejected"

    async def _carry_out(self, received: Received, envelope: Envelope) -> str:
        digest = digest_of(received.type, received.body)
        group = self._groups.get(received.type)
        if group is not None and not envelope.attempt and await group.submit(_Arrived(received, envelope, digest)):
            await received.ack()
            return "done"
        try:
            async with self._slots[received.queue].holding(envelope.store_id, refusable=bool(received.reply_to)):
                seen = await trying(lambda: self._once(received, envelope, digest), Contended, attempts_max=CONTENDED_ATTEMPTS_MAX)
            if seen is not None:
                return await self._answer_again(received, envelope, seen)
            result = "done"
        except Refusal as refusal:
            await self._refuse(received, envelope, digest, refusal.problem())
            result = "refused"
        except Exception as failure:
            return await self._try_later(received, envelope, digest, failure)
        await received.ack()
        return result

    async def _once(self, received: Received, envelope: Envelope, digest: bytes) -> "inbox.Seen | None":
        """Carry a command out, or tell how it ended before, which may have been a moment ago by another copy of it."""
        looks_itself = received.type in self._looking and not envelope.redriven
        try:
            if not looks_itself:
                await self._look(envelope, digest)
            await self._call(received, envelope, digest, looked=not looks_itself)
        except CameBefore as before:
            if before.seen.digest != digest:
                raise DifferentContent(f"{envelope.id} came before with other content") from before
            return before.seen
        return None

    async def _look(self, envelope: Envelope, digest: bytes) -> None:
        seen = await self._inbox.seen(envelope)
        if seen is None:
            return
        once_more = seen.state is State.PARKED and envelope.redriven
        if seen.digest != digest or (seen.state is not State.OPEN and not once_more):
            raise CameBefore(seen)

    async def _call(self, received: Received, envelope: Envelope, digest: bytes, *, looked: bool) -> None:
        decoder, handler = self._known(received.type)
        try:
            command = decoder.decode(received.body)
        except msgspec.DecodeError as broken:
            raise Poison(f"{received.type} cannot be read: {broken}") from broken
        telemetry.bind({name: str(getattr(command, name)) for name in BOUND_FIELDS if hasattr(command, name)})
        work = Work(
            self._desk,
            envelope,
            kind=received.type,
            digest=digest,
            subject=audit.subject_of(command),
            follows=isinstance(command, Event),
            looked=looked,
        )
        async with asyncio.timeout(self._timeout_seconds):
            await handler(work, command, self._context)

    async def _together(self, how: Together[C], arrived: list[_Arrived]) -> list[bool]:
        """Take events together; those that are not for a group, and all of one that fails, are left to be handled alone."""
        taken: set[UUID] = set()
        try:
            waiting = await self._unseen(arrived)
            while waiting:
                turn = {how.about(event): (work, event) for work, event in reversed(waiting)}
                took = await self._taken(how, list(turn.values()))
                taken |= took
                # What came after one that was left is left too: it must not be taken before it.
                going_on = {about for about, (work, _) in turn.items() if work.envelope.id in took}
                waiting = [(w, event) for w, event in waiting if how.about(event) in going_on and w.envelope.id not in took]
        except Exception as failure:
            facts = {"type": arrived[0].received.type, "events": len(arrived), "reason": f"{type(failure).__name__}: {failure}"}
            telemetry.say(logger, logging.INFO, "a group is taken apart", facts)
        return [each.envelope.id in taken for each in arrived]

    async def _unseen(self, arrived: Sequence[_Arrived]) -> list[tuple[Work, Any]]:
        """Read those that did not come before, each once, in the order in which they came."""
        seen = await self._inbox.each_seen([each.envelope for each in arrived])
        found: dict[UUID, tuple[Work, Any]] = {}
        for each, before in zip(arrived, seen, strict=True):
            if before is None and each.envelope.id not in found:
                decoder, _ = self._known(each.received.type)
                work = Work(self._desk, each.envelope, kind=each.received.type, digest=each.digest, follows=True)
                found[each.envelope.id] = (work, decoder.decode(each.received.body))
        return list(found.values())

    async def _taken(self, how: Together[C], turn: Sequence[tuple[Work, Any]]) -> set[UUID]:
        works, events = [work for work, _ in turn], [event for _, event in turn]
        async with asyncio.timeout(self._timeout_seconds):
            taken = await how.handler(works, events, self._context)
        return {work.envelope.id for work, is_taken in zip(works, taken, strict=True) if is_taken}

    def _known(self, kind: str) -> tuple[msgspec.json.Decoder[Any], CommandHandler[C]]:
        try:
            return self._commands[kind]
        except KeyError:
            raise Poison(f"{self._service} does not know messages of type {kind!r}") from None

    async def _answer_again(self, received: Received, envelope: Envelope, seen: "inbox.Seen") -> str:
        if seen.reply is not None:
            self._desk.reply_soon(received.reply_to, envelope, self._desk.unsealed(envelope, seen.reply))
        elif received.type in self._failures_answered:
            # Parked by a release that did not answer its failures yet.
            problem = msgspec.structs.replace(_FAILED, detail=f"It lies in the dead letters of {self._service}.")
            self._desk.reply_soon(received.reply_to, envelope, encode_reply(Refused(problem)))
        await received.ack()
        return "repeated"

    async def _refuse(self, received: Received, envelope: Envelope, digest: bytes, problem: Problem) -> None:
        kind, reply = received.type, Refused(problem)
        work = Work(self._desk, envelope, kind=kind, digest=digest)
        if problem.definitive and kind not in self._failures_answered:
            batch = work.batch()
            if audit.by_staff(envelope, kind):
                batch.add(*self._tried(received, envelope, problem))
            batch.conclude_for(envelope, kind=kind, digest=digest, reply=reply)
            await batch.commit()
        else:
            self._desk.reply_soon(envelope.reply_to, envelope, encode_reply(reply))
        telemetry.say(logger, logging.INFO, "refused", {"type": kind, "code": problem.code, "detail": problem.detail})

    def _tried(self, received: Received, envelope: Envelope, problem: Problem) -> list[Statement]:
        """Make the audit's row of a refused command of staff; an event only follows from a command, and has none."""
        decoder, _ = self._known(received.type)
        command = decoder.decode(received.body)
        if isinstance(command, Event):
            return []
        return [audit.acted(envelope, received.type, audit.subject_of(command), after=audit.refused(problem.code))]

    async def _try_later(self, received: Received, envelope: Envelope, digest: bytes, failure: Exception) -> str:
        if received.type in self._failures_answered:
            return await self._answer_failure(received, envelope, failure)
        poison = isinstance(failure, (Poison, DifferentContent))
        tier = None if poison else self._schedules.tier(failure, envelope.attempt)
        level = logging.WARNING if isinstance(failure, Unavailable) else logging.ERROR
        logger.log(
            level,
            "a message failed",
            exc_info=failure,
            extra={"tender": {"type": received.type, "attempt": envelope.attempt, "tier": tier}},
        )
        if not isinstance(failure, DifferentContent):
            # The header counts too; a database that is away must not stop the retry.
            with suppress(Unavailable):
                await inbox.failed(self._desk.pool, envelope, received.type, digest, error=repr(failure), parked=tier is None)
                await self._tell_failed(received, envelope, failure, last=tier is None)
        if tier is None:
            await self._park(received, envelope, failure)
            return "parked"
        again = msgspec.structs.replace(envelope, attempt=envelope.attempt + 1, first_seen=envelope.first_seen or datetime.now(UTC))
        await self._publisher.publish(self._copy(received, topology.retry_exchange(self._service, tier), received.queue, headers_of(again)))
        telemetry.messages_retried.labels(self._service, tier).inc()
        await received.ack()
        return "retried"

    async def _answer_failure(self, received: Received, envelope: Envelope, failure: Exception) -> str:
        silent = isinstance(failure, Unavailable)
        level = logging.WARNING if silent else logging.ERROR
        logger.log(level, "a message failed", exc_info=failure, extra={"tender": {"type": received.type, "attempt": envelope.attempt}})
        reason = f"{type(failure).__name__}: {failure}"[:REASON_MAX_CHARACTERS]
        problem = msgspec.structs.replace(_NOT_NOW if silent else _FAILED, detail=str(failure) if silent else reason)
        self._desk.reply_soon(received.reply_to, envelope, encode_reply(Refused(problem)))
        await received.ack()
        return "silent" if silent else "failed"

    async def _tell_failed(self, received: Received, envelope: Envelope, failure: Exception, *, last: bool) -> None:
        handler = self._failed.get(received.type)
        if handler is not None:
            with suppress(msgspec.DecodeError):
                decoder, _ = self._commands[received.type]
                await handler(envelope, decoder.decode(received.body), self._context, failure, last)

    async def _park(self, received: Received, envelope: Envelope | None, failure: BaseException) -> None:
        kept = {key: value for key, value in received.headers.items() if not key.startswith(STRIPPED_PREFIXES)}
        headers = kept if envelope is None else {**kept, **headers_of(envelope)}
        headers |= {
            "dead_reason": f"{type(failure).__name__}: {failure}"[:REASON_MAX_CHARACTERS],
            "dead_attempts": 1 if envelope is None else envelope.attempt + 1,
            "dead_traceback": "".join(traceback.format_exception(failure)).encode()[-TRACEBACK_MAX_BYTES:].decode(errors="replace"),
            "dead_at": datetime.now(UTC).isoformat(),
            "dead_queue": received.queue,
        }
        try:
            await self._publisher.publish(self._copy(received, topology.parking_exchange(self._service), self._service, headers))
        except (Unavailable, Unroutable, TooLarge):
            await received.reject()
        else:
            await received.ack()
        telemetry.messages_dead.labels(self._service, received.type).inc()

    def _copy(self, received: Received, exchange: str, routing_key: str, headers: dict[str, Any]) -> Letter:
        return Letter(
            exchange=exchange,
            routing_key=routing_key,
            body=received.body,
            headers=headers,
            type=received.type,
            reply_to=received.reply_to,
            correlation_id=received.correlation_id,
        )

    async def _answer(self, received: Received, envelope: Envelope) -> str:
        reply: bytes
        decoder, handler = self._queries[received.type]
        try:
            if envelope.deadline is not None and envelope.deadline + DEADLINE_GRACE < datetime.now(UTC):
                await received.ack()
                return "too late"
            async with asyncio.timeout(self._timeout_seconds):
                reply = encode_reply(done(await handler(envelope, decoder.decode(received.body), self._context)))
            result = "done"
        except Refusal as refusal:
            reply, result = encode_reply(Refused(refusal.problem())), "refused"
        except Unavailable as silent:
            telemetry.say(logger, logging.WARNING, "a query cannot be answered", {"type": received.type, "reason": str(silent)})
            reply, result = encode_reply(Refused(_NOT_NOW)), "silent"
        except Exception as failure:
            logger.error("a query failed", exc_info=failure)
            reply, result = encode_reply(Refused(_NOT_NOW)), "failed"
        self._desk.reply_soon(received.reply_to, envelope, reply)
        await received.ack()
        return result


class Poison(Exception):
    """This message can never be handled as it is; trying again is useless."""


def _check_sender(received: Received) -> None:
    """Insist on the type that the broker let the sender send, and on a reply to a service that may send it.

    The broker checks routing keys alone. What comes back from a delay or from the dead letters has the queue's name for one.
    """
    kind = received.type
    if received.routing_key not in (kind, received.queue):
        # A dead letter that is retried must not become what it pretends to be.
        received.type, received.reply_to = received.routing_key, ""
        raise Poison(f"it was sent as {received.routing_key} and says that it is {kind}")
    if received.reply_to and not topology.may_send(topology.requester_of(received.reply_to), kind):
        reply_to, received.reply_to = received.reply_to, ""
        raise Poison(f"its reply would go to {topology.requester_of(reply_to)}, which sends no {kind}")


class DifferentContent(Exception):
    """The same id came before with other content; refused and parked for somebody to look."""


_NOT_NOW = Problem(
    code=UNAVAILABLE,
    title="This cannot be answered right now",
    status=503,
    detail="A service needed for the answer is not available; nothing was changed.",
    retry=Retry.AFTER,
    retry_after_seconds=1,
)

_FAILED = Problem(
    code="failed",
    title="The message could not be handled",
    status=503,
    detail="",
    retry=Retry.AFTER,
)
