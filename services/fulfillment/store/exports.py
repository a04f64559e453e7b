"""Exports in SQL: a period read in one order for ever, and what came of it."""

from datetime import date
from uuid import UUID

import msgspec

from services.fulfillment.domain.tax.exports import Item, OssRow, StateRow
from services.fulfillment.domain.territories import EU_GOODS
from shared.contracts.fulfillment.tax import ExportView
from shared.database import Connection, Record
from shared.messages import Envelope

# A document bears the day on which its writing began; after so long none of that day is still to come.
SETTLED_AFTER_SECONDS = 600
EXPORTS_SHOWN_MAX = 200


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where a piece ended."""

    document_date: date
    document_id: UUID
    position: int


async def closed(db: Connection, last_day: date) -> bool:
    """Tell whether nothing more can be recorded in a period."""
    found: bool = await db.fetchval(
        "SELECT (now() AT TIME ZONE 'UTC') >= ($1::date + 1) + make_interval(secs => $2)", last_day, SETTLED_AFTER_SECONDS
    )
    return found


async def items(
    db: Connection, envelope: Envelope, *, first: date, last: date, after: Cursor | None, limit: int
) -> list[tuple[Item, Cursor]]:
    """Read recorded taxes of a period, in their order."""
    start = after or Cursor(first, UUID(int=0), -1)
    rows = await db.fetch(
        """
        SELECT l.document_id, l.position, d.kind, l.order_id, l.document_date, d.tax_date, l.line, l.tax_code, l.quantity, d.currency,
               d.ship_from, d.ship_to, d.ship_to_region, l.level, l.country, l.region, l.jurisdiction, l.rate_percent, l.reason, l.included,
               l.taxable_amount, l.untaxed_amount, l.amount, l.rule_version, d.provider
          FROM (SELECT *
                  FROM order_tax_lines
                 WHERE store_id = $1 AND environment = $2 AND document_date <= $3
                   AND (document_date, document_id, position) > ($4, $5, $6)
                 ORDER BY document_date, document_id, position
                 LIMIT $7) AS l
          JOIN tax_documents d ON d.id = l.document_id
         ORDER BY l.document_date, l.document_id, l.position
        """,
        envelope.store_id,
        envelope.environment.value,
        last,
        start.document_date,
        start.document_id,
        start.position,
        limit,
    )
    return [
        (
            Item(
                document_id=str(row["document_id"]),
                order_id=str(row["order_id"]),
                **{name: row[name] for name in Item.__struct_fields__ if name not in ("document_id", "order_id")},
            ),
            Cursor(row["document_date"], row["document_id"], row["position"]),
        )
        for row in rows
    ]


async def oss(db: Connection, envelope: Envelope, *, first: date, last: date) -> list[OssRow]:
    """Add up a period's sales to consumers from one member state to another."""
    rows = await db.fetch(
        """
        SELECT d.ship_from, d.ship_to, l.reason, l.rate_percent, d.currency, extract(year FROM d.tax_date)::integer AS tax_year,
               extract(quarter FROM d.tax_date)::integer AS tax_quarter, sum(l.taxable_amount)::bigint AS taxable_amount,
               sum(l.amount)::bigint AS amount
          FROM order_tax_lines l
          JOIN tax_documents d ON d.id = l.document_id
         WHERE l.store_id = $1 AND l.environment = $2 AND l.document_date BETWEEN $3 AND $4
           AND d.ship_from = ANY($5) AND d.ship_to = ANY($5) AND d.ship_from <> d.ship_to
           AND (l.country = d.ship_to OR (d.ship_to = 'XI' AND l.country = 'GB'))
           AND l.reason IN ('standard_rated', 'reduced_rated', 'zero_rated')
         GROUP BY 1, 2, 3, 4, 5, 6, 7
        """,
        envelope.store_id,
        envelope.environment.value,
        first,
        last,
        sorted(EU_GOODS),
    )
    return [OssRow(**dict(row)) for row in rows]


async def us_states(db: Connection, envelope: Envelope, *, first: date, last: date) -> list[StateRow]:
    """Add up a period's sales under the jurisdictions of US states."""
    rows = await db.fetch(
        """
        SELECT l.region, l.level, l.jurisdiction, l.rate_percent, d.currency,
               sum(l.taxable_amount)::bigint AS taxable_amount,
               coalesce(sum(l.taxable_amount) FILTER (WHERE l.line IS NULL), 0)::bigint AS shipping_taxable_amount,
               coalesce(sum(l.untaxed_amount) FILTER (WHERE l.reason = 'customer_exempt'), 0)::bigint AS exempt_customer_amount,
               coalesce(sum(l.untaxed_amount) FILTER (WHERE l.reason = 'product_exempt'), 0)::bigint AS exempt_product_amount,
               coalesce(sum(l.untaxed_amount) FILTER (WHERE l.reason = 'not_collecting'), 0)::bigint AS not_collected_amount,
               coalesce(sum(l.untaxed_amount) FILTER (WHERE l.reason NOT IN ('customer_exempt', 'product_exempt', 'not_collecting')), 0)
                   ::bigint AS other_untaxed_amount,
               sum(l.amount)::bigint AS amount
          FROM order_tax_lines l
          JOIN tax_documents d ON d.id = l.document_id
         WHERE l.store_id = $1 AND l.environment = $2 AND l.document_date BETWEEN $3 AND $4 AND l.country = 'US'
         GROUP BY 1, 2, 3, 4, 5
        """,
        envelope.store_id,
        envelope.environment.value,
        first,
        last,
    )
    return [StateRow(**dict(row)) for row in rows]


async def keep(
    db: Connection, envelope: Envelope, *, first: date, last: date, format: str, rows: int, sha256: str, is_closed: bool
) -> ExportView | None:
    """Keep what an export came to; nothing when a closed one is there that came to something else."""
    row = await db.fetchrow(
        """
        INSERT INTO tax_exports (store_id, environment, first_day, last_day, format, row_count, sha256, closed)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (store_id, environment, first_day, last_day, format) DO UPDATE
           SET row_count = EXCLUDED.row_count, sha256 = EXCLUDED.sha256, closed = EXCLUDED.closed,
               exported_at = CASE WHEN tax_exports.closed THEN tax_exports.exported_at ELSE now() END
         WHERE NOT tax_exports.closed OR tax_exports.sha256 = EXCLUDED.sha256
        RETURNING *
        """,
        envelope.store_id,
        envelope.environment.value,
        first,
        last,
        format,
        rows,
        sha256,
        is_closed,
    )
    return None if row is None else _view(row)


async def made(db: Connection, envelope: Envelope) -> list[ExportView]:
    """Read which exports were made, the latest first."""
    rows = await db.fetch(
        "SELECT * FROM tax_exports WHERE store_id = $1 AND environment = $2 ORDER BY exported_at DESC LIMIT $3",
        envelope.store_id,
        envelope.environment.value,
        EXPORTS_SHOWN_MAX,
    )
    return [_view(row) for row in rows]


def _view(row: Record) -> ExportView:
    return ExportView(
        first_day=row["first_day"],
        last_day=row["last_day"],
        format=row["format"],
        rows=row["row_count"],
        sha256=row["sha256"],
        closed=row["closed"],
        exported_at=row["exported_at"],
    )
