"""Recording tax for good: once a snapshot, and reversed as money goes back; nothing recorded ever changes."""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from services.fulfillment.domain.tax.reversal import reversed_rows, shares_of_refund
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.handlers.counting import warn
from services.fulfillment.store import order_payments, taxes
from services.fulfillment.store.taxes import Document, Quoted, Reversible
from shared.contracts.fulfillment.tax import FinalizeTax, GetTax, TaxDocumentView, TaxView
from shared.contracts.payments import IntentChanged
from shared.database import connected
from shared.errors import NotFound, Outcome, Refusal
from shared.ids import new_id
from shared.inbox import all_finished
from shared.messages import Envelope, done, encode_reply
from shared.work import Work


class TaxMismatch(Refusal):
    """What is to be finalized is not what was quoted, or not what was paid."""

    code = "tax-mismatch"
    title = "The tax does not belong to this snapshot"
    outcome = Outcome.CONFLICT


class TaxFinalized(Refusal):
    """The order's tax is recorded by another snapshot."""

    code = "tax-already-finalized"
    title = "The order's tax is recorded already"
    outcome = Outcome.CONFLICT


class TaxQuoteExpired(Refusal):
    """The snapshot was never paid, and its price no longer holds."""

    code = "tax-quote-expired"
    title = "The quoted tax has expired"
    outcome = Outcome.CONFLICT


class NoTaxQuoted(NotFound):
    """No tax was worked out for this snapshot: it does not exist, or the shop stated the tax itself."""

    code = "no-tax-quoted"
    title = "No tax was worked out for this snapshot"


async def finalize_tax(work: Work, command: FinalizeTax, context: Fulfillment) -> None:
    """Record a snapshot's tax; again it is the same document."""
    envelope = work.envelope
    async with connected(context.desk.pool) as db:
        ground = await taxes.ground(db, envelope, command.order_id, command.snapshot_id)
        recorded = None if ground.sale_id is None else (await taxes.documents(db, envelope, command.order_id))[0]
    if recorded is not None:
        _check_same(command, recorded)
        batch = work.batch()
        batch.conclude(done(recorded))
        await batch.commit()
        return
    quoted = ground.quoted
    if quoted is None or quoted.order_id != command.order_id:
        raise NoTaxQuoted(f"No tax was worked out for the snapshot {command.snapshot_id} of the order {command.order_id}.")
    _check_hash(command, quoted.tax_hash)
    if ground.paid_by and command.snapshot_id not in ground.paid_by:
        paid = [str(each) for each in ground.paid_by]
        raise TaxMismatch(
            "The order is paid by another snapshot; finalize that one.", {"snapshot_id": str(command.snapshot_id), "paid_by": paid}
        )

    if quoted.expired and command.snapshot_id not in ground.paid_by:
        raise TaxQuoteExpired("Nobody paid this snapshot while it held; quote the order again.", {"snapshot_id": str(command.snapshot_id)})

    sale = _sale(command, quoted, new_id(), ground.today)
    batch = work.batch()
    at_provider = quoted.quote.parties is not None
    batch.add(
        *taxes.recorded(envelope, sale, at_provider=at_provider),
        order_payments.moved_on(envelope, command.order_id, revision=ground.revision),
    )
    batch.add(taxes.forget_quote(envelope, command.snapshot_id))
    if ground.refunded_amount:
        reversible = Reversible(
            id=sale.id,
            snapshot_id=sale.snapshot_id,
            tax_hash=sale.tax_hash,
            quote=sale.quote,
            line_amounts=dict(sale.line_amounts),
            reversed_amounts={},
            at_provider=at_provider,
        )
        reversal = _reversal(reversible, ground.refunded_amount, today=ground.today, order_id=command.order_id)
        batch.add(*taxes.recorded(envelope, reversal, at_provider=at_provider))
    batch.conclude(done(taxes.view(sale)))
    await batch.commit()
    await warn(work, context)


def _check_same(command: FinalizeTax, recorded: TaxDocumentView) -> None:
    if recorded.snapshot_id != command.snapshot_id:
        raise TaxFinalized(
            "Another snapshot of the order was finalized.", {"snapshot_id": str(recorded.snapshot_id), "document_id": str(recorded.id)}
        )
    _check_hash(command, recorded.tax_hash)


def _check_hash(command: FinalizeTax, tax_hash: str) -> None:
    if command.tax_hash is not None and command.tax_hash != tax_hash:
        raise TaxMismatch("The tax that was quoted is another one.", {"sent": command.tax_hash, "quoted": tax_hash})


def _sale(command: FinalizeTax, quoted: Quoted, document_id: UUID, today: date) -> Document:
    return Document(
        id=document_id,
        kind="sale",
        order_id=command.order_id,
        snapshot_id=command.snapshot_id,
        tax_hash=quoted.tax_hash,
        quote=quoted.quote,
        document_date=today,
        rows=quoted.quote.rows,
        line_amounts={n: line.gross for n, line in enumerate(quoted.quote.lines)},
    )


async def payment_changed(work: Work, event: IntentChanged, context: Fulfillment) -> None:
    """Take in how a payment stands: which snapshot paid, and what goes back is reversed of the recorded tax."""
    envelope, intent = work.envelope, event.intent
    async with connected(context.desk.pool) as db:
        known = await taxes.known(db, envelope, intent.order_id)
    before = next((each for each in known.payments if each.intent_id == intent.id), None)
    batch = work.batch()
    if before is None or before.version < intent.version:
        batch.add(*order_payments.paid([(envelope, intent, known.revision)]))
        sale = known.sale
        if sale is not None and sale.snapshot_id == intent.snapshot_id:
            others = sum(p.refunded_amount for p in known.payments if p.snapshot_id == sale.snapshot_id and p.intent_id != intent.id)
            back = others + order_payments.refunded_of_sale(intent) - sum(sale.reversed_amounts.values())
            if back > 0:
                now = _reversal(sale, back, today=known.today, order_id=intent.order_id)
                if now.line_amounts:
                    batch.add(*taxes.recorded(envelope, now, at_provider=sale.at_provider))
    batch.conclude(done({"order_id": intent.order_id}))
    await batch.commit()


async def payments_changed(works: Sequence[Work], events: Sequence[IntentChanged], context: Fulfillment) -> list[bool]:
    """Take in how payments of different orders stand, with one read and one write; not where tax is recorded, which may be reversed."""
    envelopes = [work.envelope for work in works]
    async with connected(context.desk.pool) as db:
        standings = await order_payments.standings(
            db, [(envelope, event.intent) for envelope, event in zip(envelopes, events, strict=True)]
        )
    news = [each.version < event.intent.version and not each.recorded for event, each in zip(events, standings, strict=True)]
    chosen = [each for each, is_news in zip(zip(works, events, standings, strict=True), news, strict=True) if is_news]
    if chosen:
        finished = all_finished([(work.envelope, work.digest) for work, _, _ in chosen], works[0].kind, encode_reply(done({})))
        paid = order_payments.paid([(work.envelope, event.intent, standing.revision) for work, event, standing in chosen])
        await context.desk.groups.write([*paid, finished])
    return news


def _reversal(sale: Reversible, amount: int, *, today: date, order_id: UUID) -> Document:
    """Reverse so much of a sale, of each line its share."""
    shares = shares_of_refund(sale.line_amounts, sale.reversed_amounts, amount)
    rows = reversed_rows(sale.quote.rows, sold=sale.line_amounts, before=sale.reversed_amounts, now=shares)
    in_all = sum(sale.reversed_amounts.values()) + sum(shares.values())
    return Document(
        id=new_id(),
        kind="reversal",
        order_id=order_id,
        snapshot_id=sale.snapshot_id,
        tax_hash=sale.tax_hash,
        quote=sale.quote,
        document_date=today,
        rows=rows,
        line_amounts=shares,
        reverses=sale.id,
        reference=f"{sale.id}:{in_all}",
    )


async def get_tax(envelope: Envelope, query: GetTax, context: Fulfillment) -> TaxView:
    """Read what is recorded of an order's tax."""
    async with connected(context.desk.pool) as db:
        return TaxView(order_id=query.order_id, documents=await taxes.documents(db, envelope, query.order_id))
