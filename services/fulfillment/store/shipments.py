"""Shipments in SQL: what was chosen to ship an order by."""

from datetime import datetime
from uuid import UUID

import msgspec

from shared.contracts.fulfillment.pricing import PackageBody, ShippingRate
from shared.contracts.orders import Address, OrderContent
from shared.database import Connection, Record, Statement
from shared.messages import Envelope


class Shipment(msgspec.Struct, frozen=True, kw_only=True):
    """A shipment as its row holds it."""

    id: UUID
    order_id: UUID
    snapshot_id: UUID
    status: str
    carrier: str
    service: str
    amount: int
    currency: str
    rate_id: UUID | None
    content: OrderContent
    ship_from: Address | None
    packages: tuple[PackageBody, ...]
    tracking_status: str
    finalized_at: datetime | None
    created_at: datetime


def drafted(
    envelope: Envelope,
    shipment_id: UUID,
    *,
    order_id: UUID,
    snapshot_id: UUID,
    rate: ShippingRate,
    content: OrderContent,
    ship_from: Address | None,
    packages: tuple[PackageBody, ...],
) -> Statement:
    """Write what a snapshot's customer chose."""
    return Statement(
        """
        INSERT INTO shipments (id, store_id, environment, order_id, snapshot_id, status, carrier, service, amount, currency, rate_id,
                               content, ship_from, packages)
        VALUES ($1, $2, $3, $4, $5, 'draft', $6, $7, $8, $9, $10, $11, $12, $13)
        """,
        (
            shipment_id,
            envelope.store_id,
            envelope.environment.value,
            order_id,
            snapshot_id,
            rate.carrier,
            rate.service,
            rate.amount,
            rate.currency,
            rate.id,
            msgspec.json.encode(content).decode(),
            None if ship_from is None else msgspec.json.encode(ship_from).decode(),
            msgspec.json.encode(packages).decode(),
        ),
    )


def shipment_of(row: Record) -> Shipment:
    """Read a shipment's row."""
    return Shipment(
        id=row["id"],
        order_id=row["order_id"],
        snapshot_id=row["snapshot_id"],
        status=row["status"],
        carrier=row["carrier"],
        service=row["service"],
        amount=row["amount"],
        currency=row["currency"],
        rate_id=row["rate_id"],
        content=msgspec.json.decode(row["content"], type=OrderContent),
        ship_from=None if row["ship_from"] is None else msgspec.json.decode(row["ship_from"], type=Address),
        packages=msgspec.json.decode(row["packages"], type=tuple[PackageBody, ...]),
        tracking_status=row["tracking_status"],
        finalized_at=row["finalized_at"],
        created_at=row["created_at"],
    )


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What of an order's shipments a label can be for."""

    shipments: tuple[Shipment, ...]
    paid_by: tuple[UUID, ...]


async def of_order(db: Connection, envelope: Envelope, order_id: UUID) -> Choice:
    """Read an order's shipments, the newest first, and by which snapshots it is paid."""
    rows = await db.fetch(
        "SELECT * FROM shipments WHERE store_id = $1 AND environment = $2 AND order_id = $3 ORDER BY id DESC",
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    paid = await db.fetch(
        """
        SELECT snapshot_id
          FROM order_payments
         WHERE store_id = $1 AND environment = $2 AND order_id = $3
           AND status IN ('authorized', 'partially_captured', 'captured', 'partially_refunded', 'refunded', 'conflicted')
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    return Choice(shipments=tuple(shipment_of(row) for row in rows), paid_by=tuple(row["snapshot_id"] for row in paid))
