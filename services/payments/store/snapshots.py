"""Price snapshots in SQL, and what a store decided about them."""

from datetime import datetime
from uuid import UUID

import msgspec

from services.payments.store.ledger import json_text
from services.payments.store.orders import Order, order_of
from shared.contracts.orders import OrderContent, TaxBehavior, TaxLine
from shared.contracts.payments import SnapshotLine, SnapshotView, Totals
from shared.database import Connection, Statement
from shared.messages import Envelope

DEFAULT_REPORTING_CURRENCY = "EUR"


class StorePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a store decided about its quotes."""

    quote_lifetime_seconds: int
    reporting_currency: str


class QuoteGround(msgspec.Struct, frozen=True, kw_only=True):
    """What a quote is made on: the order, what its store decided, the rate it would be reported at, and the time."""

    order: Order
    policy: StorePolicy
    fx_reference: dict[str, str] | None
    fx_age_days: int | None
    now: datetime


async def quote_ground(db: Connection, envelope: Envelope, order_id: UUID, *, default_lifetime_seconds: int) -> QuoteGround | None:
    """Read what a quote is made on; no rate is needed within one currency, and none may be known."""
    row = await db.fetchrow(
        """
        SELECT o.*, now() AS now, coalesce(s.quote_lifetime_seconds, $4) AS quote_lifetime_seconds,
               coalesce(s.reporting_currency, $5) AS reporting_currency, r.rate, r.source AS rate_source, r.rate_date,
               (now() AT TIME ZONE 'UTC')::date - r.rate_date AS rate_age
          FROM orders o
          LEFT JOIN stores s ON s.store_id = o.store_id AND s.environment = o.environment
          LEFT JOIN LATERAL (SELECT rate, source, rate_date
                               FROM fx_reference_rates
                              WHERE base = o.currency AND quote = coalesce(s.reporting_currency, $5) AND rate_date <= current_date
                              ORDER BY rate_date DESC
                              LIMIT 1) AS r ON true
         WHERE o.store_id = $1 AND o.environment = $2 AND o.id = $3
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        default_lifetime_seconds,
        DEFAULT_REPORTING_CURRENCY,
    )
    if row is None:
        return None
    policy = StorePolicy(quote_lifetime_seconds=row["quote_lifetime_seconds"], reporting_currency=row["reporting_currency"])
    reference = None
    if row["rate"] is not None and row["currency"] != policy.reporting_currency:
        reference = {
            "base": row["currency"],
            "quote": policy.reporting_currency,
            "rate": str(row["rate"]),
            "source": row["rate_source"],
            "date": row["rate_date"].isoformat(),
        }
    return QuoteGround(order=order_of(row), policy=policy, fx_reference=reference, fx_age_days=row["rate_age"], now=row["now"])


def new_snapshot(envelope: Envelope, snapshot: SnapshotView, *, order: Order, provider: str) -> list[Statement]:
    """Write a snapshot with its items."""
    return [
        Statement(
            """
            INSERT INTO order_checkout_snapshots (id, store_id, environment, order_id, order_version, priced_hash, currency, total,
                                                  provider, content, priced, created_at, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
            """,
            (
                snapshot.snapshot_id,
                envelope.store_id,
                envelope.environment.value,
                order.id,
                order.version,
                order.priced_hash,
                snapshot.currency,
                snapshot.totals.total,
                provider,
                json_text(snapshot),
                json_text(order.content),
                snapshot.created_at,
                snapshot.expires_at,
            ),
        ),
        Statement(
            """
            INSERT INTO order_checkout_snapshot_items (snapshot_id, line, product_variant_id, name, quantity, unit_price, discount, amount)
            SELECT $1, line, variant, name, quantity, unit_price, discount, amount
              FROM unnest($2::integer[], $3::uuid[], $4::text[], $5::integer[], $6::bigint[], $7::bigint[], $8::bigint[])
                   AS t (line, variant, name, quantity, unit_price, discount, amount)
            """,
            (
                snapshot.snapshot_id,
                [line.line for line in snapshot.lines],
                [line.product_variant_id for line in snapshot.lines],
                [line.name for line in snapshot.lines],
                [line.quantity for line in snapshot.lines],
                [line.unit_price for line in snapshot.lines],
                [line.discount for line in snapshot.lines],
                [line.amount for line in snapshot.lines],
            ),
        ),
    ]


class _Priced(msgspec.Struct, frozen=True):
    """What of a snapshot its lines cost."""

    lines: list[SnapshotLine]
    tax_lines: list[TaxLine]
    totals: Totals


async def line_prices(db: Connection, intent_id: UUID) -> dict[int | None, int]:
    """Read what each line of what a payment paid cost, its tax in it; what is for no line is shipping's."""
    found = await db.fetchval(
        """
        SELECT s.content::text
          FROM payment_intents i
          JOIN order_checkout_snapshots s ON s.id = i.snapshot_id
         WHERE i.id = $1
        """,
        intent_id,
    )
    if found is None:
        return {}
    said = msgspec.json.decode(found, type=_Priced)
    prices: dict[int | None, int] = {line.line: line.amount for line in said.lines}
    prices[None] = said.totals.shipping - (said.totals.tax_removed - sum(line.tax_removed for line in said.lines))
    for tax in said.tax_lines:
        if tax.behavior is TaxBehavior.EXCLUSIVE:
            prices[tax.line] = prices.get(tax.line, 0) + tax.amount
    return prices


async def what_differs(db: Connection, envelope: Envelope, order_id: UUID, snapshot_id: UUID) -> tuple[OrderContent, OrderContent]:
    """Read what a snapshot priced and what its order says now."""
    row = await db.fetchrow(
        """
        SELECT s.priced, o.content
          FROM order_checkout_snapshots s
          JOIN orders o ON o.store_id = s.store_id AND o.environment = s.environment AND o.id = s.order_id
         WHERE s.id = $4 AND s.store_id = $1 AND s.environment = $2 AND s.order_id = $3
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        snapshot_id,
    )
    assert row is not None, "snapshots and orders are never deleted"
    return msgspec.json.decode(row["priced"], type=OrderContent), msgspec.json.decode(row["content"], type=OrderContent)
