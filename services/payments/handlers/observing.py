"""What happens at the provider without us: a webhook, a poll or a finding becomes an observation like any other."""

from collections.abc import Sequence
from uuid import UUID

from services.payments.domain import intents
from services.payments.domain.intents import Observation, Operation, Source, TransactionStatus
from services.payments.handlers.asking import Heard, Payments, keep_applied, listen, see, steps_to
from services.payments.providers import Ambiguous, Observed, PaymentProvider, Unreadable
from services.payments.store import intents as intent_rows
from shared import audit, telemetry
from shared.contracts.events import NOT_KNOWN_YET, EventTaken
from shared.contracts.payments import Observe, TakeEvent
from shared.database import connected
from shared.errors import Invalid, NotFound, Retry, Unavailable
from shared.http_client import Call, NoAnswer, NotSent, recorded
from shared.ids import new_id
from shared.messages import done
from shared.work import Work


class PaymentNotKnown(NotFound):
    """An event is about a payment that is not known, perhaps not yet."""

    code = NOT_KNOWN_YET
    title = "This payment is not known yet"
    retry = Retry.AFTER


class EventUnreadable(Invalid):
    """An event cannot be read; a later release may be able to."""

    code = "event-unreadable"
    title = "This event cannot be read"
    retry = Retry.AFTER


async def take_event(work: Work, command: TakeEvent, context: Payments) -> None:
    """Take in a provider's event: what it says is one more observation, whenever and however often it comes."""
    provider = context.provider(work.envelope, command.provider, account=command.provider_account)
    try:
        observed = provider.observe(command.event_type, command.payload.encode())
    except Unreadable as unfit:
        raise EventUnreadable(f"{command.event_type} of {command.provider}: {unfit}") from unfit
    if observed is None:
        await _ignore(work, ())
        return
    # Who is meant is known before anything is asked: an event of ours that says enough costs the provider no call.
    intent_id = await _intent_of(work, context, command.provider_account, observed.provider_payment_id, observed.reference)
    if intent_id is None:
        if observed.strangers:
            await _ignore(work, ())
            return
        if observed.reference is None and (calls := await _strangers(provider, observed.provider_payment_id)) is not None:
            await _ignore(work, calls)
            return
        raise PaymentNotKnown(f"No payment is known as {observed.provider_payment_id} yet.")
    heard = await _said(provider, observed)
    seen = await see(context, work, intent_id)
    telemetry.bind({"order_id": str(seen.intent.order_id), "intent_id": str(intent_id)})
    said = heard.observations or ()
    ids = [new_id() for _ in said]
    applied = intents.observe(seen.intent, seen.transactions, said, source=Source.WEBHOOK, ids=ids)
    batch = work.batch()
    if heard.calls:
        batch.add(*audit.called(work.envelope, None, heard.calls))
    steps = steps_to(seen, said, source=Source.WEBHOOK)
    last = said[-1].operation.value if said else command.event_type
    intent = keep_applied(batch, work, seen, applied, source=Source.WEBHOOK, why=last, steps=steps)
    result = "unchanged" if intent == seen.intent else "applied"
    batch.conclude(done(EventTaken(result=result, order_id=intent.order_id, intent_id=intent.id)))
    await batch.commit()
    context.wake_resolver()


async def _ignore(work: Work, calls: Sequence[Call]) -> None:
    batch = work.batch()
    if calls:
        batch.add(*audit.called(work.envelope, None, calls))
    batch.conclude(done(EventTaken(result="ignored")))
    await batch.commit()


async def _strangers(provider: PaymentProvider, provider_payment_id: str) -> Sequence[Call] | None:
    """Ask whether a payment is somebody else's, who uses the account too; gives the calls that say so."""
    with recorded() as calls:
        try:
            return calls if await provider.is_strangers(provider_payment_id) else None
        except (NotSent, NoAnswer, Ambiguous):
            return None


async def _said(provider: PaymentProvider, observed: Observed) -> Heard:
    """What an event says; what it only hints at is read from the provider's books."""
    if observed.observations is not None:
        return Heard(observations=observed.observations, calls=())

    async def look() -> tuple[Observation, ...]:
        found = await provider.get_transaction(observed.provider_payment_id)
        if found is None:
            # The payment is ours, so an intermediary may have answered, or the provider's books lag behind.
            raise Ambiguous(f"the provider does not know the payment {observed.provider_payment_id}")
        return found.observations

    heard = await listen(look)
    if heard.observations is None:
        raise Unavailable(f"the payment could not be read: {heard.trouble}")
    return heard


async def _intent_of(work: Work, context: Payments, account: str, provider_payment_id: str, reference: UUID | None) -> UUID | None:
    async with connected(context.desk.pool) as db:
        found = await intent_rows.find_intent(db, provider_account=account, provider_payment_id=provider_payment_id, reference=reference)
    if found is None:
        return None
    intent_id, store_id, environment = found
    if (store_id, environment) != (work.envelope.store_id, work.envelope.environment.value):
        raise NotFound("This payment belongs to another store or environment.")
    return intent_id


async def observe(work: Work, command: Observe, context: Payments) -> None:
    """Take in what a provider says of a payment; a payment not known yet is waited for."""
    intent_id = await _intent_of(work, context, command.provider_account, command.provider_payment_id, command.reference)
    if intent_id is None:
        raise Unavailable(f"no payment is known as {command.provider_payment_id} yet")
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
