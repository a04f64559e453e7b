"""Payments that wait for their customer: ended when the order is paid otherwise, captured at once when they were submitted."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

import msgspec

from services.payments.domain import guards, intents
from services.payments.domain.intents import Intent, IntentStatus, Observation, Operation, Reason, Source, Transaction, TransactionStatus
from services.payments.handlers.asking import JOB, Heard, Payments, call, conclude, keep_applied, listen, remember, see
from services.payments.handlers.resolving import resolve
from services.payments.providers import CaptureRequest, VoidRequest
from services.payments.store import questions
from services.payments.store.intents import Seen
from services.payments.store.questions import Question
from shared import audit, telemetry
from shared.backoff import trying
from shared.database import CONTENDED_ATTEMPTS_MAX
from shared.errors import Contended
from shared.ids import new_id
from shared.provider_answers import IndeterminateResponse
from shared.work import Work

logger = logging.getLogger(__name__)

R = TypeVar("R")

# The key of the one capture that a submitted payment goes on to, so that it is the only one whoever brings it about.
SUBMITTED = "submitted"


# Ending one


async def end_waiting(work: Work, context: Payments, intent_id: UUID) -> Intent | None:
    """End a payment that waits for its customer at its provider, and tell how it ended, which may be with money held.

    Raises a passing refusal while that is not certain, so that nothing else is begun beside it; gives nothing where another copy
    of this work's command is at it.
    """
    ending = _Ending(work, context, intent_id)
    try:
        return await ending.ended()
    except _AtItAlready:
        return None


class _AtItAlready(Exception):
    """Another copy of the command has asked the provider, and goes on when it has answered."""


class _Ending:
    """The end of one payment, for the command that is to begin another."""

    def __init__(self, work: Work, context: Payments, intent_id: UUID) -> None:
        # Nobody waits for the answer to a question about the old payment; who asked stands in its row.
        self._work = Work(context.desk, msgspec.structs.replace(work.envelope, id=new_id(), reply_to=""), kind=JOB, digest=b"")
        self._context = context
        self._intent_id = intent_id
        self._key = f"replaced:{work.envelope.id}:"

    async def ended(self) -> Intent:
        seen = await self._settled()
        if _waits(seen):
            seen = await self._looked_up()
        if _waits(seen):
            question = await _insisting(self._void)
            if question is not None:
                heard = await call(self._work, self._context, question)
                await conclude(self._work, self._context, question, heard, source=Source.API)
            seen = await self._settled()
        if _waits(seen):
            # The provider would not: it may have been approved a moment ago.
            seen = await self._looked_up()
        facts = {"intent_id": str(self._intent_id)}
        if _waits(seen):
            raise guards.OutcomeUnknown("The payment that waits for its customer could not be ended.", facts)
        said = {**facts, "intent_status": seen.intent.status.value}
        telemetry.say(logger, logging.INFO, "ended a payment that waited for its customer", said)
        return seen.intent

    async def _settled(self) -> Seen:
        """Read the payment when none of its operations is under way; an outcome that is not known is looked for at once."""
        seen = await self._see()
        unknown = next((t for t in seen.transactions if t.status is TransactionStatus.UNKNOWN and not t.awaiting_customer), None)
        if unknown is not None:
            due = await questions.take_one(self._context.desk.pool, unknown.id, lease_seconds=self._context.settings.lease_seconds)
            if due is not None:
                await resolve(self._context, due)
                seen = await self._see()
        self._check_nothing_open(seen)
        return seen

    def _check_nothing_open(self, seen: Seen) -> None:
        if any(t.status is TransactionStatus.PENDING and t.idempotency_key.startswith(self._key) for t in seen.transactions):
            raise _AtItAlready
        guards.check_nothing_open(seen.transactions)

    async def _looked_up(self) -> Seen:
        """Take in how the payment stands at its provider."""
        seen = await self._see()
        provider = self._context.provider(self._work.envelope, seen.intent.provider, account=seen.intent.provider_account)
        payment_id = _known(seen.intent)

        async def look() -> tuple[Observation, ...]:
            found = await provider.get_transaction(payment_id)
            if found is None:
                raise IndeterminateResponse(f"the provider does not know the payment {payment_id}")
            return found.observations

        heard = await listen(look)
        await _insisting(lambda: self._take_in(heard))
        if heard.observations is None:
            facts = {"intent_id": str(self._intent_id)}
            raise guards.OutcomeUnknown("What became of the payment that waits for its customer is not known.", facts)
        return await self._see()

    async def _take_in(self, heard: Heard) -> None:
        seen, said = await self._see(), heard.observations or ()
        applied = intents.observe(seen.intent, seen.transactions, said, source=Source.API, ids=[new_id() for _ in said])
        authorization = next(t for t in seen.transactions if t.operation is Operation.AUTHORIZE)
        batch = self._work.batch()
        batch.add(*audit.called(self._work.envelope, authorization.id, heard.calls))
        keep_applied(batch, self._work, seen, applied, source=Source.API, why="looked up")
        await batch.commit()

    async def _void(self) -> Question | None:
        seen = await self._see()
        self._check_nothing_open(seen)
        if not _waits(seen):
            return None
        row = Transaction(id=new_id(), operation=Operation.VOID, amount=0, status=TransactionStatus.PENDING, reason=Reason.REPLACED.value)
        request = VoidRequest(reference=row.id, provider_payment_id=_known(seen.intent))
        return await remember(self._work, self._context, seen, row, request, idempotency_key=f"{self._key}{row.id}")

    async def _see(self) -> Seen:
        return await see(self._context, self._work, self._intent_id)


def _waits(seen: Seen) -> bool:
    return seen.intent.status is IntentStatus.REQUIRES_ACTION


# Going on with one


async def capture_submitted(work: Work, context: Payments, intent_id: UUID) -> bool:
    """Take a submitted payment whose customer has acted, and answer this work with it; false when somebody else is at it or was."""
    question = await _insisting(lambda: _capture(work, context, intent_id))
    if question is None:
        return False
    await conclude(work, context, question, await call(work, context, question), source=Source.API)
    return True


async def _capture(work: Work, context: Payments, intent_id: UUID) -> Question | None:
    seen = await see(context, work, intent_id)
    intent = seen.intent
    if not intent.to_be_captured or any(t.open or t.operation is Operation.CAPTURE for t in seen.transactions):
        return None
    row = Transaction(id=new_id(), operation=Operation.CAPTURE, amount=intent.capturable, status=TransactionStatus.PENDING)
    request = CaptureRequest(reference=row.id, provider_payment_id=_known(intent), amount=row.amount, currency=intent.currency, final=False)
    return await remember(work, context, seen, row, request, idempotency_key=SUBMITTED)


# What both need


async def _insisting(act: Callable[[], Awaitable[R]]) -> R:
    """Do something again on what is there by now when somebody else was faster."""
    return await trying(act, Contended, attempts_max=CONTENDED_ATTEMPTS_MAX)


def _known(intent: Intent) -> str:
    assert intent.provider_payment_id is not None, "a payment that waited for its customer is known to its provider"
    return intent.provider_payment_id
