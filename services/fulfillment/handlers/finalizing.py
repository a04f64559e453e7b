"""Recording tax for good: once a snapshot is paid, and corrected as money goes back or comes; nothing recorded ever changes."""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from services.fulfillment.domain.tax.kept import Payment, not_kept_of, payment_of
from services.fulfillment.domain.tax.reversal import corrections
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.handlers.counting import warn
from services.fulfillment.store import order_payments, taxes
from services.fulfillment.store.taxes import Document, Known, Quoted, Reversible
from shared.contracts.fulfillment.tax import FinalizeTax, GetTax, TaxDocumentView, TaxView
from shared.contracts.payments import IntentChanged
from shared.database import Statement, connected
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
    """Record a snapshot's tax once it is paid; again it is the same document."""
    envelope = work.envelope
    async with connected(context.desk.pool) as db:
        known = await taxes.known(db, envelope, command.order_id, command.snapshot_id)
        recorded = None if known.sale is None else (await taxes.documents(db, envelope, command.order_id))[0]
    batch = work.batch()
    if recorded is not None:
        _check_same(command, recorded)
        batch.conclude(done(recorded))
        await batch.commit()
        return
    quoted = _checked(command, known)

    sale = _sale(quoted, command.snapshot_id, known.today)
    paid = any(each.pays for each in known.payments if each.snapshot_id == command.snapshot_id)
    batch.add(order_payments.moved_on(envelope, command.order_id, revision=known.revision))
    if paid:
        batch.add(*_recorded(envelope, sale), *_followed(envelope, _as_reversible(sale), known.payments, sale.document_date, "recorded"))
    else:
        batch.add(taxes.wanted(envelope, command.snapshot_id, sale.id))
    batch.conclude(done(taxes.view(sale, recorded=paid)))
    await batch.commit()
    if paid:
        await warn(work, context)


def _checked(command: FinalizeTax, known: Known) -> Quoted:
    quoted = known.quoted
    if quoted is None or quoted.order_id != command.order_id:
        raise NoTaxQuoted(f"No tax was worked out for the snapshot {command.snapshot_id} of the order {command.order_id}.")
    _check_hash(command, quoted.tax_hash)
    paid_by = [each.snapshot_id for each in known.payments if each.holds]
    if command.snapshot_id in paid_by:
        return quoted
    if paid_by:
        raise TaxMismatch(
            "The order is paid by another snapshot; finalize that one.",
            {"snapshot_id": str(command.snapshot_id), "paid_by": [str(each) for each in paid_by]},
        )
    if quoted.expired:
        raise TaxQuoteExpired("Nobody paid this snapshot while it held; quote the order again.", {"snapshot_id": str(command.snapshot_id)})
    return quoted


def _check_same(command: FinalizeTax, recorded: TaxDocumentView) -> None:
    if recorded.snapshot_id != command.snapshot_id:
        raise TaxFinalized(
            "Another snapshot of the order was finalized.", {"snapshot_id": str(recorded.snapshot_id), "document_id": str(recorded.id)}
        )
    _check_hash(command, recorded.tax_hash)


def _check_hash(command: FinalizeTax, tax_hash: str) -> None:
    if command.tax_hash is not None and command.tax_hash != tax_hash:
        raise TaxMismatch("The tax that was quoted is another one.", {"sent": command.tax_hash, "quoted": tax_hash})


def _sale(quoted: Quoted, snapshot_id: UUID, today: date) -> Document:
    return Document(
        id=quoted.document_id or new_id(),
        kind="sale",
        order_id=quoted.order_id,
        snapshot_id=snapshot_id,
        tax_hash=quoted.tax_hash,
        quote=quoted.quote,
        document_date=today,
        rows=quoted.quote.rows,
        line_amounts={n: line.gross for n, line in enumerate(quoted.quote.lines)},
    )


def _as_reversible(sale: Document) -> Reversible:
    return Reversible(
        id=sale.id,
        order_id=sale.order_id,
        snapshot_id=sale.snapshot_id,
        tax_hash=sale.tax_hash,
        quote=sale.quote,
        line_amounts=dict(sale.line_amounts),
        reversed_amounts=dict.fromkeys(sale.line_amounts, 0),
        at_provider=sale.quote.parties is not None,
    )


def _recorded(envelope: Envelope, sale: Document) -> list[Statement]:
    return [
        *taxes.recorded(envelope, sale, at_provider=sale.quote.parties is not None),
        taxes.forget_quote(envelope, sale.snapshot_id),
    ]


def _followed(envelope: Envelope, sale: Reversible, payments: Sequence[Payment], today: date, reference: str) -> list[Statement]:
    """Correct a recorded sale so that what is left of it is what is kept of its price."""
    quote = sale.quote
    unnamed = [n for n in range(quote.goods, len(quote.lines)) if quote.lines[n].tax_code != taxes.ROUNDING]
    after = not_kept_of(sale.line_amounts, [each for each in payments if each.snapshot_id == sale.snapshot_id], unnamed=unnamed)
    found = corrections(quote.rows, sold=sale.line_amounts, before=sale.reversed_amounts, after=after)
    statements: list[Statement] = []
    for kind, correction in zip(("reversal", "reinstatement"), found, strict=True):
        if correction is not None:
            document = Document(
                id=new_id(),
                kind=kind,
                order_id=sale.order_id,
                snapshot_id=sale.snapshot_id,
                tax_hash=sale.tax_hash,
                quote=sale.quote,
                document_date=today,
                rows=correction.rows,
                line_amounts=correction.line_amounts,
                reverses=sale.id,
                reference=f"{sale.id}:{reference}",
            )
            statements += taxes.recorded(envelope, document, at_provider=sale.at_provider)
    return statements


async def payment_changed(work: Work, event: IntentChanged, context: Fulfillment) -> None:
    """Take in news of a payment: a sale that waited for it is recorded, and recorded tax follows what is kept of the money."""
    envelope, intent = work.envelope, event.intent
    async with connected(context.desk.pool) as db:
        known = await taxes.known(db, envelope, intent.order_id, intent.snapshot_id)
    now = payment_of(intent, event.returned)
    others = [each for each in known.payments if each.intent_id != intent.id]
    news = all(each.version < now.version for each in known.payments if each.intent_id == intent.id)
    batch = work.batch()
    counted = False
    if news:
        batch.add(*order_payments.paid([(envelope, intent.order_id, now, known.revision)]))
        sale = known.sale
        if sale is None and now.pays and known.quoted is not None and known.quoted.document_id is not None:
            document, counted = _sale(known.quoted, intent.snapshot_id, known.today), True
            batch.add(*_recorded(envelope, document))
            sale = _as_reversible(document)
        if sale is not None and sale.snapshot_id == intent.snapshot_id:
            batch.add(*_followed(envelope, sale, [*others, now], known.today, f"{intent.id}:{intent.version}"))
    batch.conclude(done({"order_id": intent.order_id}))
    await batch.commit()
    if counted:
        await warn(work, context)


async def payments_changed(works: Sequence[Work], events: Sequence[IntentChanged], context: Fulfillment) -> list[bool]:
    """Take in how payments of different orders stand, with one read and one write; not where tax is recorded or waits."""
    envelopes = [work.envelope for work in works]
    async with connected(context.desk.pool) as db:
        standings = await order_payments.standings(
            db, [(envelope, event.intent) for envelope, event in zip(envelopes, events, strict=True)]
        )
    news = [each.version < event.intent.version and not each.recorded for event, each in zip(events, standings, strict=True)]
    chosen = [each for each, is_news in zip(zip(works, events, standings, strict=True), news, strict=True) if is_news]
    if chosen:
        finished = all_finished([(work.envelope, work.digest) for work, _, _ in chosen], works[0].kind, encode_reply(done({})))
        paid = order_payments.paid(
            [
                (work.envelope, event.intent.order_id, payment_of(event.intent, event.returned), standing.revision)
                for work, event, standing in chosen
            ]
        )
        await context.desk.groups.write([*paid, finished])
    return news


async def get_tax(envelope: Envelope, query: GetTax, context: Fulfillment) -> TaxView:
    """Read what is recorded of an order's tax."""
    async with connected(context.desk.pool) as db:
        return TaxView(order_id=query.order_id, documents=await taxes.documents(db, envelope, query.order_id))
