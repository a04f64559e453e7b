"""Facts that do not fit, accepted by an operator: from then on a payment's status and what may be done follow from them again."""

import msgspec

from services.payments.domain import intents
from services.payments.domain.intents import Applied, Intent, Source
from services.payments.handlers.asking import Payments, keep_applied
from services.payments.store import intents as intent_rows
from shared.contracts.payments import AcceptFacts
from shared.database import connected
from shared.errors import NotFound, Outcome, Refusal
from shared.messages import done
from shared.work import Work


class PaymentChanged(Refusal):
    """Something has happened to the payment since it was looked at."""

    code = "stale-version"
    title = "The payment has changed since you read it"
    status = 412


class NothingToAccept(Refusal):
    """Nothing about the payment needs an operator's word."""

    code = "nothing-to-accept"
    title = "Nothing about this payment needs accepting"
    outcome = Outcome.CONFLICT


async def accept_facts(work: Work, command: AcceptFacts, context: Payments) -> None:
    """Take a payment's facts as they are, with who said so and why; where nothing else does, it then pays its order."""
    async with connected(context.desk.pool) as db:
        seen = await intent_rows.see_intent(db.fetchrow, work.envelope, command.intent_id, order_id=command.order_id)
        fits = await intent_rows.fits_its_order(db, command.intent_id)
    if seen is None:
        raise NotFound(f"Order {command.order_id} has no payment {command.intent_id}.")
    intent = seen.intent
    if command.version != intent.version:
        facts = {"expected": command.version, "current": intent.version, "attention": intent.attention}
        raise PaymentChanged(f"The payment is at version {intent.version}; look at it again.", facts)
    # Money that went back already pays nothing, and would lock its order for good.
    there = intent.held > 0 or intent.captured_amount > intent.returned
    pays = fits and there and not any(other.holds_order for other in seen.others)
    accepted = intents.accept(_for_its_order(intent) if pays else intent, seen.transactions)
    if intent.attention is None:
        raise NothingToAccept("Nothing about it contradicts.")

    batch = work.batch()
    if pays and seen.others:
        batch.add(intent_rows.superseded(work.envelope, intent.order_id, but=intent.id))
    applied = Applied(intent=accepted, transactions=seen.transactions, changed=(), added=())
    after = keep_applied(batch, work, seen, applied, source=Source.API, why="accepted")
    batch.audit(
        "payment.accept",
        str(intent.id),
        before={"status": intent.status.value, "attention": intent.attention},
        after={"status": after.status.value, "attention": after.attention},
        reason=command.reason,
    )
    batch.conclude(done(intent_rows.view(after)))
    await batch.commit()
    context.wake_resolver()


def _for_its_order(intent: Intent) -> Intent:
    return msgspec.structs.replace(intent, superseded=False, holds_order=True)
