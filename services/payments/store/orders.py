"""Orders and their status history in SQL."""

from datetime import datetime
from uuid import UUID

import msgspec

from services.payments.domain.orders import OrderStatus, Priced
from services.payments.store.ledger import json_text
from shared.contracts.payments import OrderContent, OrderView, StatusChange, Totals
from shared.database import Connection, Record
from shared.ids import new_id
from shared.messages import Envelope


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
    """Read a page of a customer's orders, the newest first, after the one named."""
    rows = await db.fetch(
        """
        SELECT *
          FROM orders
         WHERE store_id = $1 AND environment = $2 AND customer_id = $3
           AND ($4::uuid IS NULL
                OR (created_at, id) < (SELECT created_at, id
                                         FROM orders
                                        WHERE store_id = $1 AND environment = $2 AND customer_id = $3 AND id = $4))
         ORDER BY created_at DESC, id DESC
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
        json_text(content),
        json_text(priced.totals),
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
