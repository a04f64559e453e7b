"""Both sides of our payments for the reconciler, and how a difference heals: as an observation like any other."""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar
from uuid import UUID

import msgspec

from services.payments.domain import intents
from services.payments.domain.books import our_side, references_in, their_side
from services.payments.domain.intents import Observation, Source
from services.payments.handlers.asking import Payments, keep_applied, listen, see, steps_to
from services.payments.providers import PaymentProvider, ProviderTransaction, TransactionUnreadable
from services.payments.store import books as rows
from services.payments.store import intents as intent_rows
from services.payments.store.books import Kept
from shared import audit, telemetry
from shared.contracts.books import (
    Book,
    Books,
    Domain,
    Heal,
    Healed,
    Keys,
    ListBooks,
    ListOurs,
    ListTheirs,
    LookAt,
    Pair,
    Pairs,
)
from shared.database import connected
from shared.errors import Unavailable
from shared.http_client import NoAnswer, NotSent, recorded
from shared.ids import first_id_at, new_id
from shared.messages import Envelope, Environment, done
from shared.provider_answers import IndeterminateResponse
from shared.work import Work

KEYS_PAGE_ROWS = 500

NOTHING: Mapping[str, str] = MappingProxyType({})

T = TypeVar("T")


async def list_books(envelope: Envelope, query: ListBooks, context: Payments) -> Books:
    """Say whose payments are kept at which provider."""
    async with connected(context.desk.pool) as db:
        owners = await rows.stores(db)
    return Books(
        books=[
            Book(store_id=store_id, environment=environment, domain=Domain.PAYMENTS, provider=name)
            for store_id, environment in owners
            for name in context.provider_names(store_id, Environment(environment))
        ]
    )


async def list_theirs(envelope: Envelope, query: ListTheirs, context: Payments) -> Pairs:
    """Read a page of a provider's books and what our ledger says of each payment on it."""
    provider = context.provider(envelope, query.provider)
    listing = provider.list_transactions(since=query.since, until=query.until, cursor=query.cursor)
    page = await _heard(envelope, context, listing)
    unreadable = {each.provider_payment_id: each.reason for each in page.unreadable}
    pairs, elsewhere = await _beside(envelope, context, provider, page.transactions, unreadable=unreadable)
    return Pairs(pairs=pairs, next=page.next, elsewhere=elsewhere)


async def list_ours(envelope: Envelope, query: ListOurs, context: Payments) -> Keys:
    """Read under which names a provider should know what we made in a time."""
    provider = context.provider(envelope, query.provider)
    first, last = first_id_at(query.since), first_id_at(query.until)
    after = UUID(query.cursor) if query.cursor else UUID(int=0)
    async with connected(context.desk.pool) as db:
        page = await rows.keys_between(db, envelope, provider.account, first=first, last=last, after=after, limit=KEYS_PAGE_ROWS)
    return Keys(keys=[key for _, key in page], next=str(page[-1][0]) if len(page) == KEYS_PAGE_ROWS else None)


async def look_at(envelope: Envelope, query: LookAt, context: Payments) -> Pairs:
    """Read single payments on both sides as they are now."""
    provider = context.provider(envelope, query.provider)
    found: list[ProviderTransaction] = []
    unreadable: dict[str, str] = {}
    for key in query.keys:
        try:
            read = await _heard(envelope, context, provider.get_transaction(key))
        except TransactionUnreadable as unfit:
            unreadable[key] = str(unfit)
        else:
            found += [] if read is None else [read]
    pairs, elsewhere = await _beside(envelope, context, provider, found, missing=query.keys, unreadable=unreadable)
    return Pairs(pairs=pairs, elsewhere=elsewhere)


async def _heard(envelope: Envelope, context: Payments, call: Awaitable[T]) -> T:
    """Await a provider's word and audit the call; of its answer only the size is kept, for a page holds everything."""
    with recorded() as calls:
        try:
            return await call
        except TransactionUnreadable:
            raise
        except (NotSent, NoAnswer, IndeterminateResponse) as silent:
            raise Unavailable(f"{type(silent).__name__}: {silent}") from silent
        finally:
            brief = [msgspec.structs.replace(each, response={"rows": len(each.response.get("data", (each.response,)))}) for each in calls]
            if brief:
                await context.desk.rows.write(audit.called(envelope, None, brief))


async def _beside(
    envelope: Envelope,
    context: Payments,
    provider: PaymentProvider,
    theirs: Sequence[ProviderTransaction],
    *,
    missing: Iterable[str] = (),
    unreadable: Mapping[str, str] = NOTHING,
) -> tuple[list[Pair], int]:
    """Put what our ledger says beside what a provider said; also of keys that it did not tell of."""
    keys = {each.provider_payment_id for each in theirs} | set(missing) | unreadable.keys()
    references = [r for each in theirs for r in references_in(each.observations)]
    async with connected(context.desk.pool) as db:
        kept = await rows.by_provider(db, provider.account, sorted(keys), references)
    by_key = {each.intent.provider_payment_id: each for each in kept}
    by_row = {row.id: each for each in kept for row in each.transactions}
    pairs, elsewhere, owner = [], 0, (envelope.store_id, envelope.environment.value)
    said = {each.provider_payment_id: each for each in theirs}
    for key in sorted(keys):
        told = said.get(key)
        ours = by_key.get(key) or _of_reference(by_row, () if told is None else told.observations)
        if ours is not None and (ours.store_id, ours.environment) != owner:
            elsewhere += 1
            continue
        pairs.append(
            Pair(
                key=key,
                ours=None if ours is None else our_side(ours.intent, ours.transactions),
                theirs=None if told is None else their_side(key, told.observations, made_at=told.created_at),
                unreadable=unreadable.get(key, ""),
            )
        )
    return pairs, elsewhere


def _of_reference(by_row: dict[UUID, Kept], observations: Sequence[Observation]) -> Kept | None:
    return next((by_row[r] for r in references_in(observations) if r in by_row), None)


async def heal(work: Work, command: Heal, context: Payments) -> None:
    """Read a payment from its provider's books and take in what they say."""
    provider = context.provider(work.envelope, command.provider)

    async def look() -> tuple[Observation, ...]:
        found = await provider.get_transaction(command.key)
        return () if found is None else found.observations

    heard = await listen(look)
    if heard.observations is None:
        raise Unavailable(f"the payment could not be read: {heard.trouble}")
    said = heard.observations
    batch = work.batch()
    if heard.calls:
        batch.add(*audit.called(work.envelope, None, heard.calls))
    intent_id = await _ours(work, context, provider, command.key, said)
    seen = None if intent_id is None else await see(context, work, intent_id)
    if seen is None or seen.intent.provider_payment_id not in (None, command.key):
        # Somebody else's, or a second payment under a reference of ours: no observation of the first.
        batch.conclude(done(Healed(result="unknown")))
        await batch.commit()
        return
    telemetry.bind({"order_id": str(seen.intent.order_id), "intent_id": str(seen.intent.id)})

    ids = [new_id() for _ in said]
    applied = intents.observe(seen.intent, seen.transactions, said, source=Source.RECONCILIATION, ids=ids)
    steps = steps_to(seen, said, source=Source.RECONCILIATION)
    intent = keep_applied(batch, work, seen, applied, source=Source.RECONCILIATION, why="reconciliation", steps=steps)
    batch.conclude(done(Healed(result="unchanged" if intent == seen.intent else "applied")))
    await batch.commit()
    context.wake_resolver()


async def _ours(work: Work, context: Payments, provider: PaymentProvider, key: str, said: Sequence[Observation]) -> UUID | None:
    async with connected(context.desk.pool) as db:
        for reference in [None, *references_in(said)]:
            found = await intent_rows.find_intent(db, provider_account=provider.account, provider_payment_id=key, reference=reference)
            if found is not None:
                intent_id, *owner = found
                return intent_id if owner == [work.envelope.store_id, work.envelope.environment.value] else None
    return None
