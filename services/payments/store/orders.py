"""Orders, snapshots and status history in SQL."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from services.payments.domain.orders import OrderStatus, Priced
from shared.contracts.payments import OrderContent, OrderView, SnapshotView, StatusChange, Totals
from shared.database import Connection, Record
from shared.ids import new_id
from shared.messages import Envelope

DEFAULT_REPORTING_CURRENCY = "EUR"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An order as its row holds it."""

    id: UUID
    version: int
    status: OrderStatus
    currency: str
    total: int
    content: OrderContent
    totals: Totals
    priced_hash: bytes
    created_at: datetime
    updated_at: datetime


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot as its row holds it, and whether the database's clock says that it expired."""

    id: UUID
    order_id: UUID
    order_version: int
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


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _order(row: Record) -> Order:
    return Order(
        id=row["id"],
        version=row["version"],
        status=OrderStatus(row["status"]),
        currency=row["currency"],
        total=row["total"],
        content=msgspec.json.decode(row["content"], type=OrderContent),
        totals=msgspec.json.decode(row["totals"], type=Totals),
        priced_hash=row["priced_hash"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def view(order: Order) -> OrderView:
    """Show an order."""
    return OrderView(
        id=order.id,
        version=order.version,
        status=order.status.value,
        content=order.content,
        totals=order.totals,
        created_at=order.created_at,
        updated_at=order.updated_at,
    )


async def lock_order(db: Connection, envelope: Envelope, order_id: UUID) -> Order | None:
    """Read an order and keep others from changing it until the transaction ends."""
    row = await db.fetchrow(
        """
        SELECT *
          FROM orders
         WHERE store_id = $1 AND environment = $2 AND id = $3
           FOR UPDATE
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    return None if row is None else _order(row)


async def get_order(db: Connection, envelope: Envelope, order_id: UUID, *, customer_id: UUID | None = None) -> Order | None:
    """Read an order, optionally only if it belongs to this customer."""
    row = await db.fetchrow(
        """
        SELECT *
          FROM orders
         WHERE store_id = $1 AND environment = $2 AND id = $3
           AND ($4::uuid IS NULL OR customer_id = $4)
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        customer_id,
    )
    return None if row is None else _order(row)


async def list_orders(db: Connection, envelope: Envelope, customer_id: UUID, *, before: UUID | None, limit: int) -> list[Order]:
    """Read a page of a customer's orders by id, the newest first."""
    rows = await db.fetch(
        """
        SELECT *
          FROM orders
         WHERE store_id = $1 AND environment = $2 AND customer_id = $3
           AND ($4::uuid IS NULL OR id < $4)
         ORDER BY id DESC
         LIMIT $5
        """,
        envelope.store_id,
        envelope.environment.value,
        customer_id,
        before,
        limit,
    )
    return [_order(row) for row in rows]


async def keep_order(
    db: Connection, envelope: Envelope, order_id: UUID, content: OrderContent, priced: Priced, *, status: OrderStatus, version: int
) -> Order | None:
    """Write an order with its items; the version is the new one. Nothing when somebody else wrote this version first."""
    row = await db.fetchrow(
        """
        INSERT INTO orders (store_id, environment, id, version, status, currency, total, customer_id, content, totals, priced_hash)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        ON CONFLICT (store_id, environment, id) DO UPDATE
           SET version = EXCLUDED.version, status = EXCLUDED.status, currency = EXCLUDED.currency, total = EXCLUDED.total,
               customer_id = EXCLUDED.customer_id, content = EXCLUDED.content, totals = EXCLUDED.totals,
               priced_hash = EXCLUDED.priced_hash, updated_at = now()
         WHERE orders.version = EXCLUDED.version - 1
        RETURNING *
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        version,
        status.value,
        content.currency,
        priced.totals.total,
        content.customer_id,
        _json(content),
        _json(priced.totals),
        priced.hash,
    )
    if row is None:
        return None
    await db.execute(
        """
        WITH gone AS (
            DELETE FROM order_items WHERE store_id = $1 AND environment = $2 AND order_id = $3 AND line >= cardinality($4::uuid[])
        )
        INSERT INTO order_items (store_id, environment, order_id, line, product_variant_id, name, quantity, unit_price, discount,
                                 tax_code, tax_behavior)
        SELECT $1, $2, $3, position - 1, variant, name, quantity, unit_price, discount, tax_code, tax_behavior
          FROM unnest($4::uuid[], $5::text[], $6::integer[], $7::bigint[], $8::bigint[], $9::text[], $10::text[])
               WITH ORDINALITY AS t (variant, name, quantity, unit_price, discount, tax_code, tax_behavior, position)
        ON CONFLICT (store_id, environment, order_id, line) DO UPDATE
           SET product_variant_id = EXCLUDED.product_variant_id, name = EXCLUDED.name, quantity = EXCLUDED.quantity,
               unit_price = EXCLUDED.unit_price, discount = EXCLUDED.discount, tax_code = EXCLUDED.tax_code,
               tax_behavior = EXCLUDED.tax_behavior
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        [line.product_variant_id for line in priced.lines],
        [line.name for line in priced.lines],
        [line.quantity for line in priced.lines],
        [line.unit_price for line in priced.lines],
        [line.discount for line in priced.lines],
        [item.tax_code for item in content.items],
        [item.tax_behavior.value for item in content.items],
    )
    return _order(row)


async def has_active_intent(db: Connection, envelope: Envelope, order_id: UUID) -> bool:
    """Tell whether a payment holds the order."""
    return bool(
        await db.fetchval(
            "SELECT EXISTS (SELECT FROM payment_intents WHERE store_id = $1 AND environment = $2 AND order_id = $3 AND holds_order)",
            envelope.store_id,
            envelope.environment.value,
            order_id,
        )
    )


async def change_status(
    db: Connection, envelope: Envelope, order_id: UUID, *, before: OrderStatus | None, after: OrderStatus, reason: str, source: str
) -> None:
    """Set an order's status and write why, in the same statement."""
    await db.execute(
        """
        WITH changed AS (
            UPDATE orders SET status = $4, updated_at = now() WHERE store_id = $1 AND environment = $2 AND id = $3
        )
        INSERT INTO order_status_history (id, store_id, environment, order_id, from_status, to_status, reason, source, actor,
                                          correlation_id)
        VALUES ($5, $1, $2, $3, $6, $4, $7, $8, $9, $10)
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        after.value,
        new_id(),
        None if before is None else before.value,
        reason,
        source,
        envelope.actor,
        envelope.correlation_id,
    )


async def history(db: Connection, envelope: Envelope, order_id: UUID) -> list[StatusChange]:
    """Read every change of an order's status, in order."""
    rows = await db.fetch(
        """
        SELECT from_status, to_status, reason, source, actor, correlation_id, changed_at
          FROM order_status_history
         WHERE store_id = $1 AND environment = $2 AND order_id = $3
         ORDER BY id
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    return [StatusChange(**dict(row)) for row in rows]


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
        _json(snapshot),
        _json(order.content),
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
        SELECT id, order_id, order_version, priced_hash, currency, total, provider, priced, expires_at <= now() AS expired
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
        order_version=row["order_version"],
        priced_hash=row["priced_hash"],
        currency=row["currency"],
        total=row["total"],
        provider=row["provider"],
        priced=msgspec.json.decode(row["priced"], type=OrderContent),
        expired=row["expired"],
    )
