"""Tax in SQL: what was quoted for a snapshot, what is recorded for good, and what reversed it."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec

from services.fulfillment.domain.tax.engine import Row
from services.fulfillment.domain.tax.rules import percent_text
from services.fulfillment.providers.tax_books import TaxParties
from services.fulfillment.store import registrations
from services.fulfillment.store.filings import to_file
from shared.contracts.fulfillment.tax import TaxDocumentView, TaxRowView
from shared.database import Connection, Record, Statement
from shared.messages import Envelope

SHIPPING = "shipping"
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
    # The goods come first, by their position; a charge for shipping is the last line.
    goods: int
    lines: tuple[LineFacts, ...]
    rows: tuple[Row, ...]
    evidence: dict[str, Any]
    # What a provider that keeps books is told once it is finalized.
    parties: TaxParties | None = None
    # The EU's threshold counts it.
    distance_sale: bool = False


class Quoted(msgspec.Struct, frozen=True, kw_only=True):
    """A quoted tax as its row holds it."""

    order_id: UUID
    tax_hash: str
    quote: TaxQuote
    expired: bool


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


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What finalizing looks at: the quote, the sale that is recorded already, and by which snapshots the order is paid."""

    quoted: Quoted | None
    sale_id: UUID | None
    sale_snapshot_id: UUID | None
    paid_by: tuple[UUID, ...]
    # How much was given back already of what the snapshot's payments took.
    refunded_amount: int
    revision: int
    today: date


async def ground(db: Connection, envelope: Envelope, order_id: UUID, snapshot_id: UUID) -> Ground:
    """Read what finalizing looks at."""
    row = await db.fetchrow(
        """
        SELECT (now() AT TIME ZONE 'UTC')::date AS today, q.order_id, q.tax_hash, q.quote,
               q.expires_at <= now() AS expired, d.id AS sale_id,
               d.snapshot_id AS sale_snapshot_id,
               ARRAY(SELECT p.snapshot_id
                       FROM order_payments p
                      WHERE p.order_id = $3 AND (p.store_id, p.environment) IS NOT DISTINCT FROM ($1, $2)
                        AND p.status NOT IN ('declined', 'expired', 'abandoned', 'voided', 'processing', 'requires_action')) AS paid_by,
               (SELECT coalesce(sum(p.refunded_amount), 0)::bigint
                  FROM order_payments p
                 WHERE p.order_id = $3 AND (p.store_id, p.environment) IS NOT DISTINCT FROM ($1, $2) AND p.snapshot_id = $4) AS refunded,
               coalesce((SELECT revision FROM orders_known k WHERE k.store_id = $1 AND k.environment = $2 AND k.order_id = $3), 0)
                   AS revision
          FROM (SELECT 1) AS always
          LEFT JOIN tax_quotes q ON q.store_id = $1 AND q.environment = $2 AND q.snapshot_id = $4
          LEFT JOIN tax_documents d ON d.store_id = $1 AND d.environment = $2 AND d.order_id = $3 AND d.kind = 'sale'
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        snapshot_id,
    )
    assert row is not None, "the row is always there"
    found = None
    if row["quote"] is not None:
        quote = msgspec.json.decode(row["quote"], type=TaxQuote)
        found = Quoted(order_id=row["order_id"], tax_hash=row["tax_hash"], quote=quote, expired=row["expired"])
    return Ground(
        quoted=found,
        sale_id=row["sale_id"],
        sale_snapshot_id=row["sale_snapshot_id"],
        paid_by=tuple(row["paid_by"]),
        refunded_amount=row["refunded"],
        revision=row["revision"],
        today=row["today"],
    )


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A sale or a reversal about to be recorded."""

    id: UUID
    kind: str
    order_id: UUID
    snapshot_id: UUID
    tax_hash: str
    quote: TaxQuote
    document_date: date
    rows: Sequence[Row]
    # By line, as the customer paid it or got it back; what is past the goods is shipping.
    line_amounts: Mapping[int, int]
    reverses: UUID | None = None
    reference: str | None = None


def recorded(envelope: Envelope, document: Document, *, at_provider: bool) -> list[Statement]:
    """Write a document with its lines; must be the first of its kind for its order or reference. Its provider may record it too."""
    quote, rows = document.quote, document.rows
    amounts = {str(n) if n < quote.goods else SHIPPING: amount for n, amount in document.line_amounts.items()}
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


def view(document: Document) -> TaxDocumentView:
    """Show a document that is about to be recorded as it will be read."""
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
    )


def forget_quote(envelope: Envelope, snapshot_id: UUID) -> Statement:
    """Forget a quote that is finalized."""
    return Statement(
        "DELETE FROM tax_quotes WHERE store_id = $1 AND environment = $2 AND snapshot_id = $3",
        (envelope.store_id, envelope.environment.value, snapshot_id),
    )


async def documents(db: Connection, envelope: Envelope, order_id: UUID) -> list[TaxDocumentView]:
    """Read what is recorded of an order's tax, the sale first."""
    rows = await db.fetch(
        "SELECT * FROM tax_documents WHERE order_id = $3 AND (store_id, environment) IS NOT DISTINCT FROM ($1, $2) ORDER BY kind DESC, id",
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


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """How a payment stands, as far as we were told."""

    intent_id: UUID
    snapshot_id: UUID
    version: int
    refunded_amount: int


class Reversible(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded sale, and what of each of its lines was reversed before."""

    id: UUID
    snapshot_id: UUID
    tax_hash: str
    quote: TaxQuote
    line_amounts: dict[int, int]
    reversed_amounts: dict[int, int]
    # Its provider records it too.
    at_provider: bool = False


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an order when its payment changes."""

    revision: int
    today: date
    payments: tuple[Payment, ...]
    sale: Reversible | None


async def known(db: Connection, envelope: Envelope, order_id: UUID) -> Known:
    """Read an order's payments and its recorded sale."""
    row = await db.fetchrow(
        """
        SELECT (now() AT TIME ZONE 'UTC')::date AS today, coalesce(k.revision, 0) AS revision, d.*,
               (SELECT coalesce(json_agg(p), '[]')
                  FROM (SELECT intent_id, snapshot_id, version, refunded_amount
                          FROM order_payments
                         WHERE order_id = $3 AND (store_id, environment) IS NOT DISTINCT FROM ($1, $2)) AS p) AS payments,
               EXISTS (SELECT FROM tax_filings f WHERE f.document_id = d.id) AS at_provider,
               (SELECT coalesce(json_agg(r.line_amounts), '[]')
                  FROM tax_documents r
                 WHERE r.reverses = d.id AND r.kind = 'reversal') AS reversals,
               (SELECT coalesce(json_agg(l ORDER BY l.position), '[]')
                  FROM (SELECT position, line, country, region, level, jurisdiction AS name, rate_percent::text, taxable_amount,
                               untaxed_amount, amount, included, reason, rule_version, quantity, tax_code
                          FROM order_tax_lines
                         WHERE document_id = d.id) AS l) AS lines
          FROM (SELECT 1) AS always
          LEFT JOIN orders_known k ON k.store_id = $1 AND k.environment = $2 AND k.order_id = $3
          LEFT JOIN tax_documents d ON d.store_id = $1 AND d.environment = $2 AND d.order_id = $3 AND d.kind = 'sale'
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    assert row is not None, "the row is always there"
    payments = msgspec.json.decode(row["payments"], type=tuple[Payment, ...])
    return Known(revision=row["revision"], today=row["today"], payments=payments, sale=None if row["id"] is None else _reversible(row))


def _reversible(row: Record) -> Reversible:
    amounts = msgspec.json.decode(row["line_amounts"], type=dict[str, int])
    goods = len(amounts) - (SHIPPING in amounts)
    before: dict[int, int] = {}
    for each in msgspec.json.decode(row["reversals"], type=list[dict[str, int]]):
        for line, amount in _numbered(each, goods).items():
            before[line] = before.get(line, 0) + amount
    said = msgspec.json.decode(row["lines"])
    facts: dict[int, LineFacts] = {}
    for each in said:
        each["line"] = goods if each["line"] is None else each["line"]
        facts[each["line"]] = LineFacts(gross=0, quantity=each.pop("quantity"), tax_code=each.pop("tax_code"))
    return Reversible(
        id=row["id"],
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
            lines=tuple(facts[n] for n in sorted(facts)),
            rows=msgspec.convert(said, tuple[Row, ...], strict=False),
            evidence={},
            distance_sale=row["distance_sale"],
        ),
        line_amounts=_numbered(amounts, goods),
        reversed_amounts=before,
        at_provider=row["at_provider"],
    )


def _numbered(amounts: Mapping[str, int], goods: int) -> dict[int, int]:
    return {goods if line == SHIPPING else int(line): amount for line, amount in amounts.items()}
