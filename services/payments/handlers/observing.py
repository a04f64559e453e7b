"""What happens at the provider without us: a webhook, a poll or a finding becomes an observation like any other."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

from services.payments.domain import intents
from services.payments.domain.intents import Observation, Operation, Source, Transaction, TransactionStatus
from services.payments.handlers.asking import Heard, Payments, keep_applied, listen, see, steps_to
from services.payments.providers import Observed, PaymentProvider, ProviderTransaction, Unreadable
from services.payments.store import intents as intent_rows
from services.payments.store.intents import Seen
from shared import audit, telemetry
from shared.contracts.events import NOT_KNOWN_YET, EventTaken
from shared.contracts.payments import Observe, TakeEvent
from shared.database import connected
from shared.errors import Invalid, NotFound, Retry, Unavailable
from shared.http_client import Call, NoAnswer, NotSent, recorded
from shared.ids import new_id
from shared.messages import done
from shared.provider_answers import IndeterminateResponse
from shared.provider_values import UNFIT
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


class EventUnconfirmed(Invalid):
    """An event says what the provider's books do not show: they may lag behind, or the provider never sent it."""

    code = "event-unconfirmed"
    title = "The provider does not confirm this event"
    retry = Retry.AFTER


async def take_event(work: Work, command: TakeEvent, context: Payments) -> None:
    """Take in a provider's event: what it says is one more observation, whenever and however often it comes.

    The service that hands it on faces the public, so nothing is booked on its word: news is read from the provider's books.
    """
    provider = context.provider(work.envelope, command.provider, account=command.provider_account)
    observed = _read(provider, command)
    if observed is None:
        await _ignore(work)
        return
    # Who is meant is known before anything is asked: a stranger's event need not be readable.
    meant, calls = await _meant(work, context, provider, command, observed)
    if meant is None:
        await _ignore(work, f"{observed.provider_payment_id} is no payment of ours.", calls)
        return
    intent_id, store_id = meant
    # Whichever store the provider's account is registered for, the event is about a payment of this store.
    work = work.of_store(store_id)
    if observed.unreadable:
        raise EventUnreadable(f"{command.event_type} of {command.provider}: {observed.unreadable}")
    seen = await see(context, work, intent_id)
    telemetry.bind({"order_id": str(seen.intent.order_id), "intent_id": str(intent_id)})
    if observed.observations is not None and not _changes(seen, observed.observations):
        heard = Heard(observations=observed.observations, calls=())
    else:
        heard = await _read_books(provider, observed, seen)
        seen = await see(context, work, intent_id)
        await _insist_on_confirmation(work, observed, seen, heard)
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
    batch.conclude(done(EventTaken(result=result, store_id=store_id, order_id=intent.order_id, intent_id=intent.id)))
    await batch.commit()
    context.wake_resolver()


def _read(provider: PaymentProvider, command: TakeEvent) -> Observed | None:
    try:
        return provider.observe(command.event_type, command.payload.encode())
    except (Unreadable, *UNFIT) as unfit:
        raise EventUnreadable(f"{command.event_type} of {command.provider}: {unfit}") from unfit


async def _ignore(work: Work, reason: str = "", calls: Sequence[Call] = ()) -> None:
    batch = work.batch()
    if calls:
        batch.add(*audit.called(work.envelope, None, calls))
    batch.conclude(done(EventTaken(result="ignored", reason=reason)))
    await batch.commit()


async def _meant(
    work: Work, context: Payments, provider: PaymentProvider, command: TakeEvent, observed: Observed
) -> tuple[tuple[UUID, UUID] | None, Sequence[Call]]:
    """Find the payment that is meant, and its store; nothing when it is a stranger's, with the calls that were made to learn so.

    Raises PaymentNotKnown where it may become known.
    """
    account, payment_id, reference = command.provider_account, observed.provider_payment_id, observed.reference
    calls: Sequence[Call] = ()
    async with connected(context.desk.pool) as db:
        find = partial(intent_rows.find_intent, provider_account=account, provider_payment_id=payment_id, reference=reference)
        may_become_known = partial(intent_rows.may_become_known, provider_account=account, reference=reference)
        found = await find(db)
        waited_for = found is None and not observed.strangers and await may_become_known(db, told_at=command.received_at)
    if waited_for:
        # Without a reference the provider's books may tell that it is a stranger's.
        told = await _strangers(provider, payment_id) if reference is None else None
        if told is None:
            raise PaymentNotKnown(f"No payment is known as {payment_id} yet.")
        calls = told
    elif found is None:
        async with connected(context.desk.pool) as db:
            found = await find(db)  # It may have become known in between.
    if found is None:
        return None, calls
    intent_id, store_id, environment = found
    return (intent_id, store_id) if environment == work.envelope.environment.value else None, calls


async def _strangers(provider: PaymentProvider, provider_payment_id: str) -> Sequence[Call] | None:
    """Ask whether a payment is somebody else's, who uses the account too; gives the calls that say so."""
    with recorded() as calls:
        try:
            return calls if await provider.is_strangers(provider_payment_id) else None
        except (NotSent, NoAnswer, IndeterminateResponse):
            return None


def _changes(seen: Seen, said: Sequence[Observation]) -> bool:
    applied = intents.observe(seen.intent, seen.transactions, said, source=Source.WEBHOOK, ids=[new_id() for _ in said])
    return bool(applied.changed or applied.added) or applied.intent != seen.intent


async def _read_books(provider: PaymentProvider, observed: Observed, seen: Seen) -> Heard:
    """Read the payment from the provider's books; raises Unavailable when they do not answer, EventUnconfirmed for another payment."""

    async def look() -> tuple[Observation, ...]:
        found = await provider.get_transaction(observed.provider_payment_id)
        if found is None:
            # The payment is ours, so an intermediary may have answered, or the provider's books lag behind.
            raise IndeterminateResponse(f"the provider does not know the payment {observed.provider_payment_id}")
        if not _is_of(seen, found):
            raise EventUnconfirmed(f"{observed.provider_payment_id} is another payment in the provider's books.")
        return found.observations

    heard = await listen(look)
    if heard.observations is None:
        raise Unavailable(f"the payment could not be read: {heard.trouble}")
    return heard


def _is_of(seen: Seen, found: ProviderTransaction) -> bool:
    """Tell whether a payment of the provider's books is this one of ours, by its name, or by our reference until that is known."""
    known = seen.intent.provider_payment_id
    if known is not None:
        return found.provider_payment_id == known
    return any(row.id == found.reference for row in seen.transactions)


async def _insist_on_confirmation(work: Work, observed: Observed, seen: Seen, heard: Heard) -> None:
    """Refuse an event of which the books show less than it says."""
    shown, said = heard.observations or (), observed.observations or ()
    booked = intents.observe(seen.intent, seen.transactions, shown, source=Source.WEBHOOK, ids=[new_id() for _ in shown])
    after = intents.observe(booked.intent, booked.transactions, said, source=Source.WEBHOOK, ids=[new_id() for _ in said])
    if _moved(booked.transactions) == _moved(after.transactions):
        return
    batch = work.batch()
    batch.add(*audit.called(work.envelope, None, heard.calls))
    await batch.commit()
    raise EventUnconfirmed(f"The provider's books show less of {observed.provider_payment_id} than the event says.")


def _moved(rows: Sequence[Transaction]) -> dict[UUID, tuple[TransactionStatus, int, bool]]:
    return {row.id: (row.status, row.moved, row.contradicted) for row in rows}


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
    try:
        observation = _observation(command)
    except ValueError as unfit:
        raise EventUnreadable(str(unfit)) from unfit
    intent_id = await _intent_of(work, context, command.provider_account, command.provider_payment_id, command.reference)
    if intent_id is None:
        raise Unavailable(f"no payment is known as {command.provider_payment_id} yet")
    seen = await see(context, work, intent_id)
    telemetry.bind({"order_id": str(seen.intent.order_id), "intent_id": str(intent_id)})
    source = Source(command.origin)
    applied = intents.observe(seen.intent, seen.transactions, [observation], source=source, ids=[new_id()])
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
