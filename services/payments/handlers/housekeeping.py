"""Jobs of payments: holds that lapse, checkouts left behind, money that came too late, audit partitions."""

import asyncio
import logging
from uuid import UUID

import msgspec

from services.payments.domain import guards, intents
from services.payments.domain.intents import Applied, Intent, Observation, Operation, Reason, Source, Transaction, TransactionStatus
from services.payments.handlers import waiting_payments
from services.payments.handlers.asking import JOB, Payments, asker, call, conclude, keep_applied, listen, remember, see
from services.payments.handlers.resolving import CONFIRM
from services.payments.providers import PaymentProvider, RefundRequest, Request, VoidRequest
from services.payments.store import intents as intent_rows
from services.payments.store.questions import Question
from shared import audit, telemetry
from shared.database import connected
from shared.ids import new_id
from shared.messages import Envelope, Environment
from shared.schedule import alone
from shared.work import Work

logger = logging.getLogger(__name__)

ROWS_MAX = 50


async def abandon_old(context: Payments) -> None:
    """Free orders whose payment has waited past the age limit; what succeeds late is given back."""
    async with connected(context.desk.pool) as db:
        old = await intent_rows.abandon_old(db, after_seconds=context.settings.abandon_after_seconds, limit=ROWS_MAX)
    for intent_id, store_id, environment in old:
        abandoning = _abandon(context, _work(context, store_id, environment), intent_id)
        await alone("abandon a payment", abandoning, {"intent_id": str(intent_id)})
    if old:
        context.wake_resolver()


async def give_back(context: Payments) -> None:
    """Release lapsed holds, and void or refund what succeeded after it was abandoned."""
    async with connected(context.desk.pool) as db:
        due = await intent_rows.to_give_back(db, limit=ROWS_MAX)
    giving = (alone("give money back", _give_back(context, *each), {"intent_id": str(each[0])}) for each in due)
    await asyncio.gather(*giving)


async def capture_submitted(context: Payments) -> None:
    """Go on to the capture of submitted payments whose customers have acted, whoever told of it."""
    async with connected(context.desk.pool) as db:
        due = await intent_rows.to_capture(db, limit=ROWS_MAX)
    capturing = (alone("capture a submitted payment", _capture_submitted(context, *each), {"intent_id": str(each[0])}) for each in due)
    await asyncio.gather(*capturing)


async def keep_audit_partitions(context: Payments) -> None:
    """Make the audit's months ahead and drop those past retention."""
    async with connected(context.desk.pool) as db:
        await audit.keep_partitions(db)


def _work(context: Payments, store_id: UUID, environment: str) -> Work:
    job_id = new_id()
    envelope = Envelope(
        id=job_id,
        store_id=store_id,
        environment=Environment(environment),
        source="payments",
        actor="job",
        correlation_id=f"job-{job_id}",
    )
    return Work(context.desk, envelope, kind=JOB, digest=b"")


async def _capture_submitted(context: Payments, intent_id: UUID, store_id: UUID, environment: str) -> None:
    work = _work(context, store_id, environment)
    seen = await see(context, work, intent_id)
    facts = seen.facts(next(t.id for t in seen.transactions if t.operation is Operation.AUTHORIZE))
    if facts.command_type == CONFIRM:
        # Whoever confirmed it, and died or is slow, waits for the capture.
        work = Work(context.desk, asker(work, facts), kind=facts.command_type, digest=facts.digest)
    with telemetry.bound({"intent_id": str(intent_id), "correlation_id": work.envelope.correlation_id}):
        await waiting_payments.capture_submitted(work, context, intent_id)


async def _abandon(context: Payments, work: Work, intent_id: UUID) -> None:
    seen = await see(context, work, intent_id)
    after = intents.fold(msgspec.structs.replace(seen.intent, abandoned=True), seen.transactions)
    applied = Applied(intent=after, transactions=seen.transactions, changed=(), added=())
    batch = work.batch()
    keep_applied(batch, work, seen, applied, source=Source.JOB, why="abandoned")
    await batch.commit()
    with telemetry.bound(
        {"order_id": str(seen.intent.order_id), "intent_id": str(intent_id), "correlation_id": work.envelope.correlation_id}
    ):
        telemetry.say(logger, logging.WARNING, "abandoned a payment", {"was": seen.intent.status.value})


async def _give_back(context: Payments, intent_id: UUID, store_id: UUID, environment: str) -> None:
    work = _work(context, store_id, environment)
    with telemetry.bound({"intent_id": str(intent_id), "correlation_id": work.envelope.correlation_id}):
        await _look_first(work, context, intent_id)
        question = await _remember(work, context, intent_id)
        if question is None:
            return

        heard = await call(work, context, question)

        await conclude(work, context, question, heard, source=Source.JOB)


async def _look_first(work: Work, context: Payments, intent_id: UUID) -> None:
    """The provider may have let the hold lapse by itself; that is a fact to take in, not a void to ask for."""
    intent = (await see(context, work, intent_id)).intent
    telemetry.bind({"order_id": str(intent.order_id)})
    provider = context.provider(work.envelope, intent.provider, account=intent.provider_account)
    payment_id = intent.provider_payment_id
    assert payment_id is not None, "a payment that holds money is known to its provider"
    heard = await listen(lambda: _look(provider, payment_id))
    if not heard.observations:
        return
    seen = await see(context, work, intent_id)
    ids = [new_id() for _ in heard.observations]
    applied = intents.observe(seen.intent, seen.transactions, heard.observations, source=Source.JOB, ids=ids)
    batch = work.batch()
    batch.add(*audit.called(work.envelope, None, heard.calls))
    keep_applied(batch, work, seen, applied, source=Source.JOB, why="looked up")
    await batch.commit()


async def _remember(work: Work, context: Payments, intent_id: UUID) -> Question | None:
    seen = await see(context, work, intent_id)
    guards.check_nothing_open(seen.transactions)
    planned = _plan(seen.intent)
    if planned is None:
        return None
    row, request = planned
    return await remember(work, context, seen, row, request, idempotency_key=f"job:{row.id}")


def _plan(intent: Intent) -> tuple[Transaction, Request] | None:
    payment_id = intent.provider_payment_id
    assert payment_id is not None, "a payment that holds money is known to its provider"
    reason = Reason.ABANDONED if intent.abandoned else Reason.EXPIRED
    if intent.held > 0:
        row = _row(Operation.VOID, intent.held, reason)
        return row, VoidRequest(reference=row.id, provider_payment_id=payment_id)
    if intent.abandoned and intent.refundable > 0:
        row = _row(Operation.REFUND, intent.refundable, reason)
        return row, RefundRequest(
            reference=row.id, provider_payment_id=payment_id, amount=row.amount, currency=intent.currency, reason=reason.value
        )
    return None


def _row(operation: Operation, amount: int, reason: Reason) -> Transaction:
    return Transaction(
        id=new_id(), operation=operation, amount=amount, status=TransactionStatus.PENDING, source=Source.JOB, reason=reason.value
    )


async def _look(provider: PaymentProvider, provider_payment_id: str) -> tuple[Observation, ...]:
    found = await provider.get_transaction(provider_payment_id)
    return () if found is None else found.observations
