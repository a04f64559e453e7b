"""Both sides of labels and tax documents for the reconciler, and how a difference about a label heals."""

from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeVar
from uuid import UUID

import msgspec

from services.fulfillment.domain.books import label_side, tax_side
from services.fulfillment.domain.shipping.labels import MOVES, LabelStatus
from services.fulfillment.handlers import voiding
from services.fulfillment.handlers.context import Fulfillment, ProviderNotConfigured
from services.fulfillment.handlers.labels import read
from services.fulfillment.providers import LabelBooks, LabelRecord
from services.fulfillment.providers.tax_books import TaxBooks, TaxRecord
from services.fulfillment.store import filings, shipments
from services.fulfillment.store import labels as label_rows
from services.fulfillment.store.labels import Label
from shared import audit
from shared.contracts.books import Book, Books, Domain, Heal, Healed, Keys, ListBooks, ListOurs, ListTheirs, LookAt, Pair, Pairs, Side
from shared.database import connected
from shared.errors import Unavailable
from shared.http_client import recorded
from shared.ids import first_id_at
from shared.messages import Envelope, Environment, done
from shared.provider_answers import OUTCOME_UNKNOWN
from shared.work import Work

KEYS_PAGE_ROWS = 500

T = TypeVar("T")


async def list_books(envelope: Envelope, query: ListBooks, context: Fulfillment) -> Books:
    """Say whose labels and tax documents are kept at whom."""
    async with connected(context.desk.pool) as db:
        shipping, taxed = await shipments.stores(db), await filings.stores(db)
    labels = [
        Book(store_id=store_id, environment=environment, domain=Domain.SHIPPING, provider=name)
        for store_id, environment in shipping
        for name in context.carrier_names(store_id, Environment(environment))
        if context.label_books(store_id, Environment(environment), name) is not None
    ]
    taxes = [
        Book(store_id=store_id, environment=environment, domain=Domain.TAX, provider=name)
        for store_id, environment, name in taxed
        if context.tax_books(store_id, Environment(environment), name) is not None
    ]
    return Books(books=[*labels, *taxes])


def _label_books(envelope: Envelope, context: Fulfillment, name: str) -> LabelBooks:
    found = context.label_books(envelope.store_id, envelope.environment, name)
    if found is None:
        raise ProviderNotConfigured(f"No books of labels are kept at {name!r} in {envelope.environment.value}.", {"provider": name})
    return found


def _tax_books(envelope: Envelope, context: Fulfillment, name: str) -> TaxBooks:
    found = context.tax_books(envelope.store_id, envelope.environment, name)
    if found is None:
        raise ProviderNotConfigured(f"No books of tax are kept at {name!r} in {envelope.environment.value}.", {"provider": name})
    return found


async def list_theirs(envelope: Envelope, query: ListTheirs, context: Fulfillment) -> Pairs:
    """Read a page of a provider's books and what ours say of each thing on it."""
    if query.domain is Domain.TAX:
        taxes = _tax_books(envelope, context, query.provider)
        records = await _heard(envelope, context, taxes.list_records(since=query.since, until=query.until, cursor=query.cursor))
        pairs, elsewhere = await _taxes_beside(envelope, context, query.provider, records.records)
        return Pairs(pairs=pairs, next=records.next, elsewhere=elsewhere)
    books = _label_books(envelope, context, query.provider)
    page = await _heard(envelope, context, books.list_labels(since=query.since, until=query.until, cursor=query.cursor))
    pairs, elsewhere = await _labels_beside(envelope, context, query.provider, page.labels)
    return Pairs(pairs=pairs, next=page.next, elsewhere=elsewhere)


async def list_ours(envelope: Envelope, query: ListOurs, context: Fulfillment) -> Keys:
    """Read under which names a provider should know what we made in a time."""
    first, last = first_id_at(query.since), first_id_at(query.until)
    after = UUID(query.cursor) if query.cursor else UUID(int=0)
    between = filings.keys_between if query.domain is Domain.TAX else label_rows.keys_between
    async with connected(context.desk.pool) as db:
        page = await between(db, envelope, query.provider, first=first, last=last, after=after, limit=KEYS_PAGE_ROWS)
    return Keys(keys=[key for _, key in page], next=str(page[-1][0]) if len(page) == KEYS_PAGE_ROWS else None)


async def look_at(envelope: Envelope, query: LookAt, context: Fulfillment) -> Pairs:
    """Read single labels or documents on both sides as they are now."""
    if query.domain is Domain.TAX:
        taxes = _tax_books(envelope, context, query.provider)
        records = [await _heard(envelope, context, taxes.get_record(key)) for key in query.keys]
        pairs, elsewhere = await _taxes_beside(envelope, context, query.provider, [r for r in records if r], missing=query.keys)
    else:
        books = _label_books(envelope, context, query.provider)
        labels = [await _heard(envelope, context, books.get_label(key)) for key in query.keys]
        pairs, elsewhere = await _labels_beside(envelope, context, query.provider, [each for each in labels if each], missing=query.keys)
    return Pairs(pairs=pairs, elsewhere=elsewhere)


async def _heard(envelope: Envelope, context: Fulfillment, call: Awaitable[T]) -> T:
    """Await a provider's word and audit the calls; of its answers only the size is kept."""
    with recorded() as calls:
        try:
            return await call
        except OUTCOME_UNKNOWN as silent:
            raise Unavailable(f"{type(silent).__name__}: {silent}") from silent
        finally:
            brief = [msgspec.structs.replace(each, response={"fields": len(each.response)}) for each in calls]
            if brief:
                await context.desk.rows.write(audit.called(envelope, None, brief))


async def _labels_beside(
    envelope: Envelope, context: Fulfillment, carrier: str, theirs: Sequence[LabelRecord], *, missing: Iterable[str] = ()
) -> tuple[list[Pair], int]:
    said = {each.provider_label_id: each for each in theirs}
    keys = sorted(said.keys() | set(missing))
    async with connected(context.desk.pool) as db:
        kept = await label_rows.at_carrier(db, carrier, keys, [each.reference for each in theirs if each.reference is not None])
    by_key = {each.provider_label_id: each for each in kept}
    by_id = {each.id: each for each in kept}
    pairs, elsewhere = [], 0
    for key in keys:
        told = said.get(key)
        ours = by_key.get(key) or (None if told is None or told.reference is None else by_id.get(told.reference))
        if ours is not None and (ours.store_id, ours.environment) != (envelope.store_id, envelope.environment):
            elsewhere += 1
            continue
        pairs.append(Pair(key=key, ours=None if ours is None else _our_label(ours), theirs=None if told is None else _their_label(told)))
    return pairs, elsewhere


def _our_label(label: Label) -> Side:
    return label_side(
        key=label.provider_label_id or "",
        status=label.status,
        amount=label.amount,
        currency=label.currency,
        made_at=label.created_at,
        reference=label.id,
        order_id=label.order_id,
    )


def _their_label(record: LabelRecord) -> Side:
    return label_side(
        key=record.provider_label_id,
        status=record.status.value,
        amount=record.amount,
        currency=record.currency,
        made_at=record.made_at,
        reference=record.reference,
    )


async def _taxes_beside(
    envelope: Envelope, context: Fulfillment, provider: str, theirs: Sequence[TaxRecord], *, missing: Iterable[str] = ()
) -> tuple[list[Pair], int]:
    said = {each.key: each for each in theirs}
    keys = sorted(said.keys() | set(missing))
    async with connected(context.desk.pool) as db:
        kept = {str(each.id): each for each in await filings.by_ids(db, [i for i in map(_uuid, keys) if i is not None], provider)}
    pairs, elsewhere = [], 0
    for key in keys:
        told, ours = said.get(key), kept.get(key)
        if ours is not None and (ours.store_id, ours.environment) != (envelope.store_id, envelope.environment.value):
            elsewhere += 1
            continue
        pairs.append(
            Pair(
                key=key,
                ours=None
                if ours is None
                else tax_side(
                    key=key,
                    kind=ours.kind,
                    net_amount=ours.net_amount,
                    tax_amount=ours.tax_amount,
                    currency=ours.currency,
                    made_at=ours.created_at,
                    order_id=ours.order_id,
                    in_flight=ours.status == "pending",
                ),
                theirs=None
                if told is None
                else tax_side(
                    key=key,
                    kind=told.kind,
                    net_amount=told.net_amount,
                    tax_amount=told.tax_amount,
                    currency=told.currency,
                    made_at=told.made_at,
                    standing=told.standing,
                ),
            )
        )
    return pairs, elsewhere


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


async def heal(work: Work, command: Heal, context: Fulfillment) -> None:
    """Take in what a carrier's books say of a label; tax documents of ours stand as they were recorded."""
    result = "unknown" if command.domain is Domain.TAX else await _label_learns(work, command, context)
    batch = work.batch()
    batch.conclude(done(Healed(result=result)))
    await batch.commit()


async def _label_learns(work: Work, command: Heal, context: Fulfillment) -> str:
    books = _label_books(work.envelope, context, command.provider)
    record = await _heard(work.envelope, context, books.get_label(command.key))
    async with connected(context.desk.pool) as db:
        label = await label_rows.by_provider_id(db, work.envelope, command.provider, command.key)
    if record is None or label is None or label.status not in set(LabelStatus):
        return "unknown"
    now = LabelStatus(label.status)
    if now is LabelStatus.PURCHASED and record.status is not LabelStatus.PURCHASED:
        # Somebody asked for it at the carrier, so it was asked for.
        label, now = await _asked_there(work, context, label), LabelStatus.VOID_REQUESTED
    if record.status is now or record.status not in MOVES[now]:
        return "unchanged"
    await voiding.decided(work, context, label, record.status, reason="found by reconciling")
    return "applied"


async def _asked_there(work: Work, context: Fulfillment, label: Label) -> Label:
    batch = work.batch()
    batch.add(
        label_rows.stands(label, LabelStatus.VOID_REQUESTED.value, again_seconds=context.settings.lease_seconds),
        shipments.happened(
            work.envelope, label.shipment_id, label.order_id, event="void_requested", label_id=label.id, detail="at the carrier, without us"
        ),
    )
    await batch.commit()
    return await read(context, work.envelope, label.order_id, label.id)
