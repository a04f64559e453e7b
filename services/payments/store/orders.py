"""Orders and their status history in SQL."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from services.payments.domain.intents import Intent
from services.payments.domain.orders import DECLINES_WITHIN_SECONDS, OrderStatus, Priced
from services.payments.store.intents import INTENTS_AS_JSON, intents_decoder
from services.payments.store.ledger import json_text
from shared.contracts.orders import OrderContent
from shared.contracts.payments import OrderView, StatusChange, Totals
from shared.database import Connection, FetchRow, Record, Statement
from shared.ids import new_id
from shared.messages import Envelope


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An order as its row holds it."""

    id: UUID
    version: int
    revision: int
    status: OrderStatus
    currency: str
    total: int
    content: OrderContent
    totals: Totals
    priced_hash: bytes
    created_at: datetime
    updated_at: datetime


def order_of(row: Record) -> Order:
    """Read an order's row."""
    return Order(
        id=row["id"],
        version=row["version"],
        revision=row["revision"],
        status=OrderStatus(row["status"]),
        currency=row["currency"],
        total=row["total"],
        content=msgspec.json.decode(row["content"], type=OrderContent),
        totals=msgspec.json.decode(row["totals"], type=Totals),
        priced_hash=row["priced_hash"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def view(order: Order, *, overpaid_amount: int = 0) -> OrderView:
    """Show an order."""
    return OrderView(
        id=order.id,
        version=order.version,
        status=order.status.value,
        overpaid_amount=overpaid_amount,
        content=order.content,
        totals=order.totals,
        created_at=order.created_at,
        updated_at=order.updated_at,
    )


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an order about to be written: itself, if it is there, and its payments."""

    order: Order | None
    payments: list[Intent]
    now: datetime


async def before_writing(db: Connection, envelope: Envelope, order_id: UUID) -> Before:
    """Read what a change of an order has to know."""
    row = await db.fetchrow(
        f"""
        SELECT now() AS now, o.*, {INTENTS_AS_JSON} AS intents
          FROM (SELECT $1::uuid, $2::text, $3::uuid) AS asked (store_id, environment, order_id)
          LEFT JOIN orders o ON o.store_id = asked.store_id AND o.environment = asked.environment AND o.id = asked.order_id
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    assert row is not None, "what was asked for is one row"
    order = None if row["id"] is None else order_of(row)
    return Before(order=order, payments=intents_decoder.decode(row["intents"]), now=row["now"])


class Payable(msgspec.Struct, frozen=True, kw_only=True):
    """What an authorization is decided on: the order's standing, the snapshot's, and the payments there are."""

    id: UUID
    status: OrderStatus
    revision: int
    priced_hash: bytes
    cancelled: bool
    total: int
    snapshot: "SnapshotFacts | None"
    intents: list[Intent]
    asked_before: bool
    # Payments declined lately, with the caller's own token or key, and of the store's environment.
    declined_of_caller: int
    declined_of_store: int
    now: datetime


class SnapshotFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot as an authorization needs it, and whether the database's clock says that it expired."""

    id: UUID
    priced_hash: bytes
    currency: str
    total: int
    provider: str
    expired: bool


async def payable(read: FetchRow, envelope: Envelope, order_id: UUID, snapshot_id: UUID, *, declines_max: int) -> Payable | None:
    """Read what an authorization is decided on, as of one moment; declined payments are counted up to `declines_max`."""
    row = await read(
        f"""
        SELECT o.id, o.status, o.revision, o.priced_hash, (o.content->>'cancelled')::boolean AS cancelled, o.total AS order_total,
               now() AS now,
               s.id AS snapshot_id, s.priced_hash AS snapshot_hash, s.currency, s.total, s.provider, s.expires_at <= now() AS expired,
               {INTENTS_AS_JSON} AS intents,
               EXISTS (SELECT FROM payment_transactions WHERE store_id = $1 AND environment = $2 AND command_id = $5) AS asked_before,
               d.of_caller, d.of_store
          FROM orders o
         CROSS JOIN (SELECT count(*) FILTER (WHERE actor = $6) AS of_caller, count(*) AS of_store
                       FROM (SELECT actor
                               FROM payment_transactions
                              WHERE store_id = $1 AND environment = $2 AND operation = 'authorize' AND status = 'declined'
                                AND concluded_at > now() - make_interval(secs => $7)
                              ORDER BY concluded_at DESC
                              LIMIT $8) lately) d
          LEFT JOIN order_checkout_snapshots s ON s.id = $4 AND s.store_id = $1 AND s.environment = $2 AND s.order_id = $3
         WHERE o.store_id = $1 AND o.environment = $2 AND o.id = $3
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        snapshot_id,
        envelope.id,
        envelope.actor,
        DECLINES_WITHIN_SECONDS,
        declines_max,
    )
    if row is None:
        return None
    snapshot = None
    if row["snapshot_id"] is not None:
        snapshot = SnapshotFacts(
            id=row["snapshot_id"],
            priced_hash=row["snapshot_hash"],
            currency=row["currency"],
            total=row["total"],
            provider=row["provider"],
            expired=row["expired"],
        )
    return Payable(
        id=row["id"],
        status=OrderStatus(row["status"]),
        revision=row["revision"],
        priced_hash=row["priced_hash"],
        cancelled=bool(row["cancelled"]),
        total=row["order_total"],
        snapshot=snapshot,
        intents=intents_decoder.decode(row["intents"]),
        asked_before=row["asked_before"],
        declined_of_caller=row["of_caller"],
        declined_of_store=row["of_store"],
        now=row["now"],
    )


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
    return None if row is None else order_of(row)


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
    return [order_of(row) for row in rows]


def new_order(envelope: Envelope, order: Order, customer_id: UUID | None) -> Statement:
    """Write an order that is not there yet."""
    return Statement(
        """
        INSERT INTO orders (store_id, environment, id, version, status, currency, total, customer_id, content, totals, priced_hash,
                            created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)
        ON CONFLICT (store_id, environment, id) DO NOTHING
        RETURNING id
        """,
        (*_columns(envelope, order, customer_id), order.created_at),
        must=True,
    )


def changed_order(envelope: Envelope, before: Order, order: Order, customer_id: UUID | None) -> Statement:
    """Write what an order says now, only if it is as it was seen."""
    return Statement(
        """
        UPDATE orders
           SET version = $4, status = $5, currency = $6, total = $7, customer_id = $8, content = $9, totals = $10, priced_hash = $11,
               updated_at = $12, revision = revision + 1
         WHERE store_id = $1 AND environment = $2 AND id = $3 AND revision = $13
        RETURNING id
        """,
        (*_columns(envelope, order, customer_id), order.updated_at, before.revision),
        must=True,
    )


def _columns(envelope: Envelope, order: Order, customer_id: UUID | None) -> tuple[Any, ...]:
    return (
        envelope.store_id,
        envelope.environment.value,
        order.id,
        order.version,
        order.status.value,
        order.currency,
        order.total,
        customer_id,
        json_text(order.content),
        json_text(order.totals),
        order.priced_hash,
    )


def items_of(envelope: Envelope, order_id: UUID, content: OrderContent, priced: Priced) -> list[Statement]:
    """Write an order's items in the place of those that are there."""
    return [
        Statement(
            "DELETE FROM order_items WHERE store_id = $1 AND environment = $2 AND order_id = $3 AND line >= $4",
            (envelope.store_id, envelope.environment.value, order_id, len(priced.lines)),
        ),
        Statement(
            """
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
            (
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
            ),
        ),
    ]


def stands(envelope: Envelope, order_id: UUID, *, revision: int, status: OrderStatus) -> Statement:
    """Set where an order stands after one of its payments moved, only if it is as it was seen."""
    return Statement(
        """
        UPDATE orders SET status = $5, updated_at = now(), revision = revision + 1
         WHERE store_id = $1 AND environment = $2 AND id = $3 AND revision = $4
        RETURNING id
        """,
        (envelope.store_id, envelope.environment.value, order_id, revision, status.value),
        must=True,
    )


def status_changed(
    envelope: Envelope, order_id: UUID, *, before: OrderStatus | None, after: OrderStatus, reason: str, source: str
) -> Statement:
    """Write into the history why an order's status changed."""
    return Statement(
        """
        INSERT INTO order_status_history (id, store_id, environment, order_id, from_status, to_status, reason, source, actor,
                                          correlation_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        (
            new_id(),
            envelope.store_id,
            envelope.environment.value,
            order_id,
            None if before is None else before.value,
            after.value,
            reason,
            source,
            envelope.actor,
            envelope.correlation_id,
        ),
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
