"""Tax in SQL: what was quoted for a snapshot, what is recorded for good, and what reversed it."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec

from services.fulfillment.domain.tax.engine import Row
from services.fulfillment.domain.tax.exports import FEE
from services.fulfillment.domain.tax.kept import Payment
from services.fulfillment.domain.tax.rules import percent_text
from services.fulfillment.providers.tax_books import TaxParties
from services.fulfillment.store import registrations
from services.fulfillment.store.filings import to_file
from shared.contracts.fulfillment.tax import TaxDocumentView, TaxRowView
from shared.database import Connection, Record, Statement
from shared.messages import Envelope

SHIPPING, ROUNDING = "shipping", "rounding"
# What follows the goods among an order's lines, in this order, where it is there; each is named by its tax code.
EXTRAS = (SHIPPING, FEE, ROUNDING)
KEPT_DAYS = 30
DELETE_ROWS_MAX = 1_000


class LineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an export says of a line besides its tax."""

    # As the customer pays it, tax and all.
    gross: int
    quantity: int = 1
    tax_code: str = ""


class TaxQuote(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a quoted tax, so that finalizing it asks nobody."""

    currency: str
    provider: str
    tax_date: date
    ship_from: str
    ship_to: str
    ship_to_region: str
    # The goods come first, by their position; then a charge for shipping, fees, and what rounds the total.
    goods: int
    lines: tuple[LineFacts, ...]
    rows: tuple[Row, ...]
    evidence: dict[str, Any]
    # What a provider that keeps books is told once it is finalized.
    parties: TaxParties | None = None
    # The EU's threshold counts it.
    distance_sale: bool = False
    # By line, home's tax that the buyer does not pay of a price that held it; empty where there is none.
    removed_taxes: tuple[int, ...] = ()


class Quoted(msgspec.Struct, frozen=True, kw_only=True):
    """A quoted tax as its row holds it."""

    order_id: UUID
    tax_hash: str
    quote: TaxQuote
    expired: bool
    # What it becomes once it is paid, where finalizing was asked for before.
    document_id: UUID | None = None


def quoted(
    envelope: Envelope, order_id: UUID, snapshot_id: UUID, quote: TaxQuote, *, priced_hash: str, tax_hash: str, expires_at: datetime
) -> Statement:
    """Keep a quoted tax until it is finalized; what is worked out for the same snapshot again takes its place."""
    return Statement(
        """
        INSERT INTO tax_quotes (store_id, environment, snapshot_id, order_id, priced_hash, tax_hash, quote, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (store_id, environment, snapshot_id) DO UPDATE
           SET priced_hash = EXCLUDED.priced_hash, tax_hash = EXCLUDED.tax_hash, quote = EXCLUDED.quote, expires_at = EXCLUDED.expires_at
        """,
        (
            envelope.store_id,
            envelope.environment.value,
            snapshot_id,
            order_id,
            priced_hash,
            tax_hash,
            msgspec.json.encode(quote).decode(),
            expires_at,
        ),
    )


def wanted(envelope: Envelope, snapshot_id: UUID, document_id: UUID) -> Statement:
    """Have a quote recorded as soon as it is paid."""
    return Statement(
        "UPDATE tax_quotes SET document_id = $4 WHERE store_id = $1 AND environment = $2 AND snapshot_id = $3 RETURNING snapshot_id",
        (envelope.store_id, envelope.environment.value, snapshot_id, document_id),
        must=True,
    )


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A sale, or what corrects it, about to be recorded."""

    id: UUID
    kind: str
    order_id: UUID
    snapshot_id: UUID
    tax_hash: str
    quote: TaxQuote
    document_date: date
    rows: Sequence[Row]
    # By line, as the customer paid it or got it back; what is past the goods is shipping, fees and rounding.
    line_amounts: Mapping[int, int]
    reverses: UUID | None = None
    reference: str | None = None


def recorded(envelope: Envelope, document: Document, *, at_provider: bool) -> list[Statement]:
    """Write a document with its lines; must be the first of its kind for its order or reference. Its provider may record it too."""
    quote, rows = document.quote, document.rows
    amounts = {str(n) if n < quote.goods else quote.lines[n].tax_code: amount for n, amount in document.line_amounts.items()}
    filing = [to_file(envelope, document.id, quote.provider, quote.parties)] if at_provider else []
    return [
        *filing,
        _counted(envelope, document),
        Statement(
            """
            INSERT INTO tax_documents (id, store_id, environment, kind, order_id, snapshot_id, tax_hash, provider, currency, tax_date,
                                       document_date, ship_from, ship_to, ship_to_region, tax_amount, line_amounts, evidence, reverses,
                                       reference, correlation_id, distance_sale)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
            ON CONFLICT DO NOTHING
            RETURNING id
            """,
            (
                document.id,
                envelope.store_id,
                envelope.environment.value,
                document.kind,
                document.order_id,
                document.snapshot_id,
                document.tax_hash,
                quote.provider,
                quote.currency,
                quote.tax_date,
                document.document_date,
                quote.ship_from,
                quote.ship_to,
                quote.ship_to_region,
                sum(row.amount for row in rows),
                msgspec.json.encode(amounts).decode(),
                msgspec.json.encode(quote.evidence).decode(),
                document.reverses,
                document.reference,
                envelope.correlation_id,
                quote.distance_sale,
            ),
            must=True,
        ),
        Statement(
            """
            INSERT INTO order_tax_lines (document_id, position, store_id, environment, order_id, document_date, line, tax_code, quantity,
                                         country, region, level, jurisdiction, rate_percent, taxable_amount, untaxed_amount, amount,
                                         included, reason, rule_version)
            SELECT $1, position, $2, $3, $4, $5, line, code, quantity, country, region, level, name, rate, taxable, untaxed, amount,
                   included, reason, version
              FROM unnest($6::integer[], $7::integer[], $8::text[], $9::integer[], $10::text[], $11::text[], $12::text[], $13::text[],
                          $14::numeric[], $15::bigint[], $16::bigint[], $17::bigint[], $18::boolean[], $19::text[], $20::text[])
                   AS t (position, line, code, quantity, country, region, level, name, rate, taxable, untaxed, amount, included, reason,
                         version)
            """,
            (
                document.id,
                envelope.store_id,
                envelope.environment.value,
                document.order_id,
                document.document_date,
                list(range(len(rows))),
                [row.line if row.line < quote.goods else None for row in rows],
                [quote.lines[row.line].tax_code for row in rows],
                [quote.lines[row.line].quantity for row in rows],
                [row.country for row in rows],
                [row.region for row in rows],
                [row.level.value for row in rows],
                [row.name for row in rows],
                [row.rate_percent for row in rows],
                [row.taxable_amount for row in rows],
                [row.untaxed_amount for row in rows],
                [row.amount for row in rows],
                [row.included for row in rows],
                [row.reason.value for row in rows],
                [row.rule_version for row in rows],
            ),
        ),
    ]


def _counted(envelope: Envelope, document: Document) -> Statement:
    """Count a document towards thresholds, on the day on which its tax arose; what goes back is taken off that day's sales."""
    quote, paid = document.quote, sum(document.line_amounts.values())
    return registrations.sold(
        envelope.store_id,
        envelope.environment.value,
        kind=document.kind,
        distance_sale=quote.distance_sale,
        country=quote.ship_to,
        region=quote.ship_to_region,
        currency=quote.currency,
        day=quote.tax_date,
        amount=(-paid if document.kind == "reversal" else paid) - sum(row.amount for row in document.rows),
    )


def view(document: Document, *, recorded: bool = True) -> TaxDocumentView:
    """Show a document that is about to be recorded as it will be read, or one that is not yet."""
    quote = document.quote
    return TaxDocumentView(
        id=document.id,
        kind=document.kind,
        order_id=document.order_id,
        snapshot_id=document.snapshot_id,
        tax_hash=document.tax_hash,
        currency=quote.currency,
        provider=quote.provider,
        tax_date=quote.tax_date,
        document_date=document.document_date,
        tax_amount=sum(row.amount for row in document.rows),
        lines=[
            TaxRowView(
                line=row.line if row.line < quote.goods else None,
                country=row.country,
                region=row.region,
                level=row.level.value,
                jurisdiction=row.name,
                rate_percent=percent_text(row.rate_percent),
                taxable_amount=row.taxable_amount,
                untaxed_amount=row.untaxed_amount,
                amount=row.amount,
                included=row.included,
                reason=row.reason.value,
                rule_version=row.rule_version,
                tax_code=quote.lines[row.line].tax_code,
            )
            for row in document.rows
        ],
        evidence=quote.evidence,
        reverses=document.reverses,
        recorded=recorded,
    )


def forget_quote(envelope: Envelope, snapshot_id: UUID) -> Statement:
    """Forget a quote that is finalized."""
    return Statement(
        "DELETE FROM tax_quotes WHERE store_id = $1 AND environment = $2 AND snapshot_id = $3",
        (envelope.store_id, envelope.environment.value, snapshot_id),
    )


async def nets(db: Connection, envelope: Envelope, order_id: UUID, priced_hash: str) -> dict[int, int]:
    """Read what the buyer pays of each of an order's items without tax, from its recorded sale or from a quote of what was priced so."""
    row = await db.fetchrow(
        """
        SELECT d.line_amounts,
               (SELECT coalesce(json_agg(json_build_object('line', l.line, 'amount', l.amount)), '[]')
                  FROM order_tax_lines l
                 WHERE l.document_id = d.id AND l.line IS NOT NULL) AS rows
          FROM tax_documents d
         WHERE d.order_id = $3 AND (d.store_id, d.environment) IS NOT DISTINCT FROM ($1, $2) AND d.kind = 'sale'
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    if row is not None:
        found = {int(n): amount for n, amount in msgspec.json.decode(row["line_amounts"]).items() if n.isdecimal()}
        for each in msgspec.json.decode(row["rows"]):
            found[each["line"]] -= each["amount"]
        return found
    said = await db.fetchval(
        """
        SELECT quote
          FROM tax_quotes
         WHERE order_id = $3 AND (store_id, environment, priced_hash) IS NOT DISTINCT FROM ($1, $2, $4)
         ORDER BY created_at DESC
         LIMIT 1
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        priced_hash,
    )
    if said is None:
        return {}
    quote = msgspec.json.decode(said, type=TaxQuote)
    found = {n: quote.lines[n].gross for n in range(quote.goods)}
    for each in quote.rows:
        if each.line in found:
            found[each.line] -= each.amount
    return found


async def documents(db: Connection, envelope: Envelope, order_id: UUID) -> list[TaxDocumentView]:
    """Read what is recorded of an order's tax, the sale first."""
    rows = await db.fetch(
        """
        SELECT *
          FROM tax_documents
         WHERE order_id = $3 AND (store_id, environment) IS NOT DISTINCT FROM ($1, $2)
         ORDER BY kind <> 'sale', id
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    lines = await db.fetch(
        "SELECT * FROM order_tax_lines WHERE document_id = ANY($1) ORDER BY document_id, position", [r["id"] for r in rows]
    )
    return [_document(row, [line for line in lines if line["document_id"] == row["id"]]) for row in rows]


def _document(row: Record, lines: Sequence[Record]) -> TaxDocumentView:
    return TaxDocumentView(
        id=row["id"],
        kind=row["kind"],
        order_id=row["order_id"],
        snapshot_id=row["snapshot_id"],
        tax_hash=row["tax_hash"],
        currency=row["currency"],
        provider=row["provider"],
        tax_date=row["tax_date"],
        document_date=row["document_date"],
        tax_amount=row["tax_amount"],
        lines=[
            TaxRowView(
                line=line["line"],
                country=line["country"],
                region=line["region"],
                level=line["level"],
                jurisdiction=line["jurisdiction"],
                rate_percent=percent_text(line["rate_percent"]),
                taxable_amount=line["taxable_amount"],
                untaxed_amount=line["untaxed_amount"],
                amount=line["amount"],
                included=line["included"],
                reason=line["reason"],
                rule_version=line["rule_version"],
                tax_code=line["tax_code"],
            )
            for line in lines
        ],
        evidence=msgspec.json.decode(row["evidence"]),
        reverses=row["reverses"],
    )


async def forget_old(db: Connection) -> None:
    """Delete a batch of quotes that expired long ago and that no order is paid by."""
    await db.execute(
        """
        DELETE FROM tax_quotes
         WHERE ctid = ANY(ARRAY(SELECT q.ctid
                                  FROM tax_quotes q
                                 WHERE created_at < now() - make_interval(days => $1) AND expires_at < now()
                                   AND NOT EXISTS (SELECT FROM order_payments p
                                                    WHERE p.store_id = q.store_id AND p.environment = q.environment
                                                      AND p.order_id = q.order_id AND p.snapshot_id = q.snapshot_id)
                                 ORDER BY created_at
                                 LIMIT $2))
        """,
        KEPT_DAYS,
        DELETE_ROWS_MAX,
    )


class Reversible(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded sale, and what of each of its lines is reversed and was not reinstated."""

    id: UUID
    order_id: UUID
    snapshot_id: UUID
    tax_hash: str
    quote: TaxQuote
    line_amounts: dict[int, int]
    reversed_amounts: dict[int, int]
    # Its provider records it too.
    at_provider: bool = False


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an order when its payment changes or a snapshot of it is finalized."""

    revision: int
    today: date
    payments: tuple[Payment, ...]
    sale: Reversible | None
    # Of the snapshot that it is about, unless its tax is recorded.
    quoted: Quoted | None


async def known(db: Connection, envelope: Envelope, order_id: UUID, snapshot_id: UUID) -> Known:
    """Read an order's payments, its recorded sale, and what was quoted for a snapshot."""
    row = await db.fetchrow(
        """
        SELECT (now() AT TIME ZONE 'UTC')::date AS today, coalesce(k.revision, 0) AS revision, d.*,
               q.order_id AS quoted_order_id, q.tax_hash AS quoted_hash, q.quote, q.expires_at <= now() AS expired, q.document_id,
               (SELECT coalesce(json_agg(p), '[]')
                  FROM (SELECT intent_id, snapshot_id, version, status, captured_amount, returned
                          FROM order_payments
                         WHERE order_id = $3 AND (store_id, environment) IS NOT DISTINCT FROM ($1, $2)) AS p) AS payments,
               EXISTS (SELECT FROM tax_filings f WHERE f.document_id = d.id) AS at_provider,
               (SELECT coalesce(json_agg(r), '[]')
                  FROM (SELECT kind, line_amounts FROM tax_documents WHERE reverses = d.id AND kind <> 'sale') AS r) AS corrections,
               (SELECT coalesce(json_agg(l ORDER BY l.position), '[]')
                  FROM (SELECT position, line, country, region, level, jurisdiction AS name, rate_percent::text, taxable_amount,
                               untaxed_amount, amount, included, reason, rule_version, quantity, tax_code
                          FROM order_tax_lines
                         WHERE document_id = d.id) AS l) AS lines
          FROM (SELECT 1) AS always
          LEFT JOIN orders_known k ON k.store_id = $1 AND k.environment = $2 AND k.order_id = $3
          LEFT JOIN tax_documents d ON d.store_id = $1 AND d.environment = $2 AND d.order_id = $3 AND d.kind = 'sale'
          LEFT JOIN tax_quotes q ON q.store_id = $1 AND q.environment = $2 AND q.snapshot_id = $4
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        snapshot_id,
    )
    assert row is not None, "the row is always there"
    quoted = None
    if row["quote"] is not None:
        quoted = Quoted(
            order_id=row["quoted_order_id"],
            tax_hash=row["quoted_hash"],
            quote=msgspec.json.decode(row["quote"], type=TaxQuote),
            expired=row["expired"],
            document_id=row["document_id"],
        )
    return Known(
        revision=row["revision"],
        today=row["today"],
        payments=msgspec.json.decode(row["payments"], type=tuple[Payment, ...]),
        sale=None if row["id"] is None else _reversible(row),
        quoted=quoted,
    )


class _Corrected(msgspec.Struct, frozen=True):
    kind: str
    line_amounts: dict[str, int]


def _reversible(row: Record) -> Reversible:
    amounts = msgspec.json.decode(row["line_amounts"], type=dict[str, int])
    extras = [name for name in EXTRAS if name in amounts]
    goods = len(amounts) - len(extras)
    line_amounts = _numbered(amounts, goods, extras)
    before = dict.fromkeys(line_amounts, 0)
    for each in msgspec.json.decode(row["corrections"], type=list[_Corrected]):
        for line, amount in _numbered(each.line_amounts, goods, extras).items():
            before[line] += amount if each.kind == "reversal" else -amount
    said = msgspec.json.decode(row["lines"])
    facts = {goods + n: LineFacts(gross=0, tax_code=name) for n, name in enumerate(extras)}
    for each in said:
        code, quantity = each.pop("tax_code"), each.pop("quantity")
        if each["line"] is None:
            each["line"] = goods + extras.index(FEE if code == FEE else SHIPPING)
        else:
            facts[each["line"]] = LineFacts(gross=0, quantity=quantity, tax_code=code)
    return Reversible(
        id=row["id"],
        order_id=row["order_id"],
        snapshot_id=row["snapshot_id"],
        tax_hash=row["tax_hash"],
        quote=TaxQuote(
            currency=row["currency"],
            provider=row["provider"],
            tax_date=row["tax_date"],
            ship_from=row["ship_from"],
            ship_to=row["ship_to"],
            ship_to_region=row["ship_to_region"],
            goods=goods,
            lines=tuple(facts.get(n, LineFacts(gross=0)) for n in range(len(amounts))),
            rows=msgspec.convert(said, tuple[Row, ...], strict=False),
            evidence={},
            distance_sale=row["distance_sale"],
        ),
        line_amounts=line_amounts,
        reversed_amounts=before,
        at_provider=row["at_provider"],
    )


def _numbered(amounts: Mapping[str, int], goods: int, extras: Sequence[str]) -> dict[int, int]:
    return {goods + extras.index(line) if line in extras else int(line): amount for line, amount in amounts.items()}
