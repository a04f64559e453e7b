"""Price snapshots in SQL, and what a store decided about them."""

from datetime import datetime
from uuid import UUID

import msgspec

from services.payments.store.ledger import json_text
from services.payments.store.orders import Order
from shared.contracts.payments import OrderContent, SnapshotView
from shared.database import Connection
from shared.messages import Envelope

DEFAULT_REPORTING_CURRENCY = "EUR"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot as its row holds it, and whether the database's clock says that it expired."""

    id: UUID
    order_id: UUID
    priced_hash: bytes
    currency: str
    total: int
    provider: str
    priced: OrderContent
    expired: bool


class StorePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a store decided about its quotes."""

    quote_lifetime_seconds: int
    reporting_currency: str


async def store_policy(db: Connection, envelope: Envelope, *, default_lifetime_seconds: int) -> StorePolicy:
    """Read what a store decided, or the defaults."""
    row = await db.fetchrow(
        "SELECT quote_lifetime_seconds, reporting_currency FROM stores WHERE store_id = $1 AND environment = $2",
        envelope.store_id,
        envelope.environment.value,
    )
    if row is None:
        return StorePolicy(quote_lifetime_seconds=default_lifetime_seconds, reporting_currency=DEFAULT_REPORTING_CURRENCY)
    return StorePolicy(quote_lifetime_seconds=row["quote_lifetime_seconds"], reporting_currency=row["reporting_currency"])


async def fx_reference(db: Connection, currency: str, reporting_currency: str) -> dict[str, str] | None:
    """Read the newest rate an amount would be reported at; none is needed within one currency, none may be known."""
    row = await db.fetchrow(
        """
        SELECT rate, source, rate_date
          FROM fx_reference_rates
         WHERE base = $1 AND quote = $2 AND rate_date <= current_date
         ORDER BY rate_date DESC
         LIMIT 1
        """,
        currency,
        reporting_currency,
    )
    if row is None or currency == reporting_currency:
        return None
    return {
        "base": currency,
        "quote": reporting_currency,
        "rate": str(row["rate"]),
        "source": row["source"],
        "date": row["rate_date"].isoformat(),
    }


async def clock(db: Connection) -> datetime:
    """Read the database's clock, which decides what has expired."""
    now = await db.fetchval("SELECT now()")
    assert isinstance(now, datetime), "now() is a moment"
    return now


async def keep_snapshot(db: Connection, envelope: Envelope, snapshot: SnapshotView, *, order: Order, provider: str) -> None:
    """Write a snapshot with its items."""
    await db.execute(
        """
        WITH kept AS (
            INSERT INTO order_checkout_snapshots (id, store_id, environment, order_id, order_version, priced_hash, currency, total,
                                                  provider, content, priced, created_at, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
        )
        INSERT INTO order_checkout_snapshot_items (snapshot_id, line, product_variant_id, name, quantity, unit_price, discount, amount)
        SELECT $1, line, variant, name, quantity, unit_price, discount, amount
          FROM unnest($14::integer[], $15::uuid[], $16::text[], $17::integer[], $18::bigint[], $19::bigint[], $20::bigint[])
               AS t (line, variant, name, quantity, unit_price, discount, amount)
        """,
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
        [line.line for line in snapshot.lines],
        [line.product_variant_id for line in snapshot.lines],
        [line.name for line in snapshot.lines],
        [line.quantity for line in snapshot.lines],
        [line.unit_price for line in snapshot.lines],
        [line.discount for line in snapshot.lines],
        [line.amount for line in snapshot.lines],
    )


async def get_snapshot(db: Connection, envelope: Envelope, order_id: UUID, snapshot_id: UUID) -> Snapshot | None:
    """Read a snapshot of an order."""
    row = await db.fetchrow(
        """
        SELECT id, order_id, priced_hash, currency, total, provider, priced, expires_at <= now() AS expired
          FROM order_checkout_snapshots
         WHERE id = $4 AND store_id = $1 AND environment = $2 AND order_id = $3
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        snapshot_id,
    )
    if row is None:
        return None
    return Snapshot(
        id=row["id"],
        order_id=row["order_id"],
        priced_hash=row["priced_hash"],
        currency=row["currency"],
        total=row["total"],
        provider=row["provider"],
        priced=msgspec.json.decode(row["priced"], type=OrderContent),
        expired=row["expired"],
    )
