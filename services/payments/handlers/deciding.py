"""Outcomes that nobody learnt: shown by age with what was tried, and settled by an operator who has found out otherwise."""

from enum import StrEnum

from services.payments.domain.intents import Observation, Source, Transaction, TransactionStatus
from services.payments.handlers.asking import Heard, Payments, ask, conclude, see
from services.payments.handlers.resolving import look_up
from services.payments.store import intents as intent_rows
from services.payments.store import questions
from services.payments.store.questions import Question
from shared.contracts.payments import PAGE_ROWS_MAX, DecideOutcome, ListUnknown, UnknownPage
from shared.database import connected
from shared.errors import NotFound, Outcome, Refusal, Retry
from shared.messages import Envelope, done
from shared.work import Work


class Decision(StrEnum):
    """What an operator has found out."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"


class OutcomeKnown(Refusal):
    """The provider has said what became of the operation; there is nothing left to decide."""

    code = "outcome-known"
    title = "The outcome of this operation is known"
    outcome = Outcome.CONFLICT


class BeingLookedAt(Refusal):
    """The resolver is asking about it this very moment."""

    code = "operation-in-progress"
    title = "This operation is being looked at"
    retry = Retry.AFTER
    retry_after_seconds = 2


async def list_unknown(envelope: Envelope, query: ListUnknown, context: Payments) -> UnknownPage:
    """Read a page of operations whose outcome is not known, the oldest first."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        found = await questions.list_unknown(db, envelope, provider=query.provider, after=query.after, limit=limit + 1)
    return UnknownPage(operations=found[:limit], next=found[limit - 1].transaction_id if len(found) > limit else None)


async def decide_outcome(work: Work, command: DecideOutcome, context: Payments) -> None:
    """Settle an operation by an operator's word, unless the provider, asked once more, has one of its own."""
    async with connected(context.desk.pool) as db:
        known = await questions.decided_on(db, work.envelope, command.transaction_id)
    if known is None:
        raise NotFound(f"There is no operation {command.transaction_id}.")
    intent_id, still_open, raw = known
    if still_open:
        await _decide(work, context, command)
    elif raw.get("decision") != str(work.envelope.id):
        raise OutcomeKnown("It has ended.", {"transaction_id": str(command.transaction_id)})

    seen = await see(context, work, intent_id)
    batch = work.batch()
    batch.audit(
        "outcome.decide",
        str(command.transaction_id),
        before={"status": "unknown"},
        after={"status": command.outcome, "intent_status": seen.intent.status.value},
        reason=command.evidence,
    )
    batch.conclude(done(intent_rows.view(seen.intent)))
    await batch.commit()


async def _decide(work: Work, context: Payments, command: DecideOutcome) -> None:
    question = await questions.take_one(context.desk.pool, command.transaction_id, lease_seconds=context.settings.lease_seconds)
    if question is None:
        raise BeingLookedAt("Try again in a moment.", {"transaction_id": str(command.transaction_id)})
    own = Work(context.desk, question.envelope, kind=question.command_type, digest=question.command_digest)
    provider = context.provider(question.envelope, question.provider, account=question.provider_account)

    heard = await ask(context, question, lambda: look_up(provider, question))

    if heard.observations:
        await conclude(own, context, question, heard, source=Source.API)
        raise OutcomeKnown("The provider, asked once more, has told what became of it.", {"transaction_id": str(command.transaction_id)})
    seen = await see(context, own, question.intent_id)
    word = _word(work, command, question, amount=_amount(seen.transactions, question), currency=seen.intent.currency)
    await conclude(own, context, question, Heard(observations=(word,), calls=heard.calls), source=Source.API)


def _amount(transactions: tuple[Transaction, ...], question: Question) -> int:
    return next(row.amount for row in transactions if row.id == question.transaction_id)


def _word(work: Work, command: DecideOutcome, question: Question, *, amount: int, currency: str) -> Observation:
    """What the operator says, as an observation like any other, with who said it and on what evidence."""
    return Observation(
        operation=question.operation,
        status=TransactionStatus.SUCCEEDED if Decision(command.outcome) is Decision.SUCCEEDED else TransactionStatus.FAILED,
        amount=amount,
        currency=currency,
        provider_payment_id=command.provider_payment_id or question.provider_payment_id or "",
        provider_txn_id=None,
        reference=question.transaction_id,
        decline_code=None if command.outcome == Decision.SUCCEEDED else "decided_by_operator",
        raw={"decision": str(work.envelope.id), "decided_by": work.envelope.actor, "evidence": command.evidence},
    )
