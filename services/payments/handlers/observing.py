"""What happens at the provider without us: a webhook, a poll or a finding becomes an observation like any other."""

from services.payments.domain import intents
from services.payments.domain.intents import Observation, Operation, Source, TransactionStatus
from services.payments.handlers.asking import Payments, keep_applied, see
from services.payments.store import intents as intent_rows
from shared import telemetry
from shared.contracts.payments import Observe
from shared.database import connected
from shared.errors import NotFound, Unavailable
from shared.ids import new_id
from shared.messages import done
from shared.work import Work


async def observe(work: Work, command: Observe, context: Payments) -> None:
    """Take in what a provider says of a payment; a payment not known yet is waited for."""
    async with connected(context.desk.pool) as db:
        found = await intent_rows.find_intent(
            db,
            provider_account=command.provider_account,
            provider_payment_id=command.provider_payment_id,
            reference=command.reference,
        )
    if found is None:
        raise Unavailable(f"no payment is known as {command.provider_payment_id} yet")
    intent_id, store_id, environment = found
    if (store_id, environment) != (work.envelope.store_id, work.envelope.environment.value):
        raise NotFound("This payment belongs to another store or environment.")
    seen = await see(context, work, intent_id)
    telemetry.bind({"order_id": str(seen.intent.order_id), "intent_id": str(intent_id)})
    source = Source(command.origin)
    applied = intents.observe(seen.intent, seen.transactions, [_observation(command)], source=source, ids=[new_id()])
    batch = work.batch()
    intent = keep_applied(batch, work, seen, applied, source=source, why=command.operation)
    batch.conclude(done(intent_rows.view(intent)))
    await batch.commit()
    context.wake_resolver()


def _observation(command: Observe) -> Observation:
    return Observation(
        operation=Operation(command.operation),
        status=TransactionStatus(command.status),
        amount=command.amount,
        currency=command.currency,
        provider_payment_id=command.provider_payment_id,
        provider_txn_id=command.provider_txn_id,
        reference=command.reference,
        reason=command.reason,
    )
