"""The resolver: goes on with questions whose answer never came; looks first, repeats only inside the replay window."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from services.payments.domain.intents import Observation, Operation, Source, TransactionStatus
from services.payments.handlers.asking import LOOKS_SECONDS, Heard, Payments, ask, conclude, confirming
from services.payments.providers import PaymentProvider
from services.payments.store import questions
from services.payments.store.questions import Question
from shared import telemetry
from shared.backoff import step
from shared.contracts.payments import Confirm
from shared.database import connected
from shared.messages import type_of
from shared.schedule import alone
from shared.work import Work

logger = logging.getLogger(__name__)

CONFIRM = type_of(Confirm)
NOT_EXECUTED = "not_executed"


async def resolve_due(context: Payments) -> None:
    """Go on with every open question that is due and that nobody works on."""
    due = await questions.take_due(context.desk.pool, lease_seconds=context.settings.lease_seconds)
    await asyncio.gather(*(_resolve_alone(context, question) for question in due))
    async with connected(context.desk.pool) as db:
        count, oldest_seconds = await questions.unknown_outcomes(db)
    telemetry.unknown_outcomes.labels("payments").set(count)
    telemetry.oldest_unknown_seconds.labels("payments").set(oldest_seconds)


async def _resolve_alone(context: Payments, question: Question) -> None:
    if not await alone("resolve a payment", resolve(context, question), {"transaction_id": str(question.transaction_id)}):
        # Looked at again like any that nobody answered, not at every round.
        await context.desk.rows.write([questions.unknown(question, look_again_seconds=step(LOOKS_SECONDS, question.looks))])


async def resolve(context: Payments, question: Question) -> None:
    """Find out what became of one question, under its lease, and conclude under the command it belongs to."""
    work = Work(context.desk, question.envelope, kind=question.command_type, digest=question.command_digest)
    facts = {
        "correlation_id": question.envelope.correlation_id,
        "operation_id": str(question.envelope.id),
        "order_id": str(question.order_id),
        "intent_id": str(question.intent_id),
    }
    with telemetry.bound(facts), telemetry.span("resolve", facts=facts):
        provider = context.provider(question.envelope, question.provider, account=question.provider_account)

        heard = await ask(context, question, lambda: look_up(provider, question))
        if heard.observations == ():
            heard = await _absent(context, provider, question, heard)
        elif _confirmation_unheard(question, heard):
            # Saying it again cannot hold the money twice, however late it is.
            heard = await _repeat(context, question, heard, confirming(provider, question))

        await conclude(work, context, question, heard, source=Source.API if question.command_type != "job" else Source.JOB)


def _confirmation_unheard(question: Question, heard: Heard) -> bool:
    """Tell whether a confirmation is out and the provider still waits for the customer as if it had never come."""
    confirmed = question.command_type == CONFIRM and question.operation is Operation.AUTHORIZE
    out = confirmed and not question.awaiting_customer and not question.intent_abandoned
    return out and any(o.next_action is not None and o.status is TransactionStatus.PENDING for o in heard.observations or ())


async def look_up(provider: PaymentProvider, question: Question) -> tuple[Observation, ...]:
    """Ask what the provider's books show of a question, by our reference or by what the provider calls it."""
    found = await provider.find_by_reference(
        question.transaction_id,
        operation=question.operation,
        provider_payment_id=question.provider_payment_id,
        provider_txn_id=question.provider_txn_id,
    )
    return () if found is None else found.observations


async def _absent(context: Payments, provider: PaymentProvider, question: Question, looked: Heard) -> Heard:
    """The provider knows nothing of it: repeat the same bytes while that is safe, else wait for proof."""
    question = context.with_call(question)
    inside_window = question.age_seconds < provider.capabilities.replay_window_seconds
    if question.prepared is not None and inside_window and not question.intent_abandoned and not question.awaiting_customer:
        prepared = question.prepared
        return await _repeat(
            context,
            question,
            looked,
            lambda: provider.send(prepared, idempotency_key=question.idempotency_key, reference=question.transaction_id),
        )
    proof_after = provider.capabilities.absence_is_proof_after_seconds
    if question.provider_txn_id is not None:
        return Heard(observations=None, calls=looked.calls, trouble="the provider has shown it before, so that its absence proves nothing")
    if proof_after is not None and question.age_seconds >= proof_after and not question.awaiting_customer:
        return Heard(observations=(_never_executed(question),), calls=looked.calls)
    return Heard(observations=None, calls=looked.calls, trouble="the provider does not know it, which is no proof yet")


async def _repeat(context: Payments, question: Question, looked: Heard, call: Callable[[], Awaitable[tuple[Observation, ...]]]) -> Heard:
    if not await questions.renew(context.desk.pool, question, lease_seconds=context.settings.lease_seconds):
        return Heard(observations=None, calls=looked.calls, trouble="somebody else has taken the lease")
    repeated = await ask(context, msgspec.structs.replace(question, leased_at_seconds=time.monotonic()), call)
    return msgspec.structs.replace(repeated, calls=(*looked.calls, *repeated.calls))


def _never_executed(question: Question) -> Observation:
    return Observation(
        operation=Operation(question.operation),
        status=TransactionStatus.FAILED,
        amount=0,
        currency="",
        provider_payment_id="",
        provider_txn_id=None,
        reference=question.transaction_id,
        decline_code=NOT_EXECUTED,
        inferred=True,
        raw={"evidence": "not found by reference", "age_seconds": round(question.age_seconds), "looks": question.looks},
    )
