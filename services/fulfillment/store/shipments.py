"""Shipments in SQL: what was chosen to ship an order by."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from shared.contracts.fulfillment.pricing import PackageBody, ShippingRate
from shared.contracts.fulfillment.shipping import LabelView, ShipmentView
from shared.contracts.orders import Address, OrderContent
from shared.database import Connection, Record, Statement, each_there
from shared.ids import new_id
from shared.messages import Envelope


class Shipment(msgspec.Struct, frozen=True, kw_only=True):
    """A shipment as its row holds it."""

    id: UUID
    order_id: UUID
    snapshot_id: UUID | None
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

    @property
    def finalized(self) -> bool:
        """Whether a label was asked for."""
        return self.finalized_at is not None


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
    """Write what a snapshot's customer chose; what is worked out for the same snapshot again takes its place."""
    return Statement(
        """
        INSERT INTO shipments (id, store_id, environment, order_id, snapshot_id, status, carrier, service, amount, currency, rate_id,
                               content, ship_from, packages)
        VALUES ($1, $2, $3, $4, $5, 'draft', $6, $7, $8, $9, $10, $11, $12, $13)
        ON CONFLICT (store_id, environment, snapshot_id) DO UPDATE
           SET carrier = EXCLUDED.carrier, service = EXCLUDED.service, amount = EXCLUDED.amount, currency = EXCLUDED.currency,
               rate_id = EXCLUDED.rate_id, content = EXCLUDED.content, ship_from = EXCLUDED.ship_from, packages = EXCLUDED.packages
         WHERE shipments.status = 'draft'
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
        "SELECT * FROM shipments WHERE order_id = $3 AND (store_id, environment) IS NOT DISTINCT FROM ($1, $2) ORDER BY id DESC",
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    paid = await db.fetch(
        """
        SELECT snapshot_id
          FROM order_payments
         WHERE order_id = $3 AND (store_id, environment) IS NOT DISTINCT FROM ($1, $2)
           AND status IN ('authorized', 'partially_captured', 'captured', 'partially_refunded', 'refunded', 'conflicted')
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    return Choice(shipments=tuple(shipment_of(row) for row in rows), paid_by=tuple(row["snapshot_id"] for row in paid))


def finalized(shipment: Shipment, rate: ShippingRate) -> Statement:
    """Finalize a draft with the rate its label is bought by; must be the one who does."""
    return Statement(
        """
        UPDATE shipments
           SET status = 'finalized', finalized_at = now(), carrier = $2, service = $3, rate_id = $4
         WHERE id = $1 AND status = 'draft'
        RETURNING id
        """,
        (shipment.id, rate.carrier, rate.service, rate.id),
        must=True,
    )


def happened(envelope: Envelope, shipment_id: UUID, order_id: UUID, *, event: str, label_id: UUID | None, detail: str = "") -> Statement:
    """Write down what we or the carrier did."""
    return Statement(
        """
        INSERT INTO shipment_events (id, store_id, environment, order_id, shipment_id, label_id, event, detail, actor, correlation_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        (
            new_id(),
            envelope.store_id,
            envelope.environment.value,
            order_id,
            shipment_id,
            label_id,
            event,
            detail,
            envelope.actor,
            envelope.correlation_id,
        ),
    )


def whole_stands(shipment_id: UUID, tracking_status: str, *, revision: int) -> Statement:
    """Say where a shipment is as a whole; must know where all its parcels are."""
    return Statement(
        """
        UPDATE shipments
           SET tracking_status = $2, tracking_revision = tracking_revision + 1
         WHERE id = $1 AND tracking_revision = $3
        RETURNING id
        """,
        (shipment_id, tracking_status, revision),
        must=True,
    )


def made_final(envelope: Envelope, shipment: Shipment) -> Statement:
    """Write a shipment that no quote chose, final at once; must be the order's only one."""
    return Statement(
        """
        INSERT INTO shipments (id, store_id, environment, order_id, status, carrier, service, amount, currency, rate_id, content, ship_from,
                               packages, finalized_at)
        VALUES ($1, $2, $3, $4, 'finalized', $5, $6, $7, $8, $9, $10, $11, $12, now())
        ON CONFLICT DO NOTHING
        RETURNING id
        """,
        (
            shipment.id,
            envelope.store_id,
            envelope.environment.value,
            shipment.order_id,
            shipment.carrier,
            shipment.service,
            shipment.amount,
            shipment.currency,
            shipment.rate_id,
            msgspec.json.encode(shipment.content).decode(),
            None if shipment.ship_from is None else msgspec.json.encode(shipment.ship_from).decode(),
            msgspec.json.encode(shipment.packages).decode(),
        ),
        must=True,
    )


async def page(
    db: Connection,
    envelope: Envelope,
    *,
    order_id: UUID | None,
    status: str | None,
    tracking_status: str | None,
    before: UUID | None,
    limit: int,
) -> list[Shipment]:
    """Read a page of shipments, the newest first."""
    theirs = "(store_id, environment) IS NOT DISTINCT FROM ($1, $2) AND order_id = $3"
    rows = await db.fetch(
        f"""
        SELECT *
          FROM shipments
         WHERE {theirs if order_id is not None else "store_id = $1 AND environment = $2 AND $3::uuid IS NULL"}
           AND ($4::text IS NULL OR status = $4) AND ($5::text IS NULL OR tracking_status = $5) AND ($6::uuid IS NULL OR id < $6)
         ORDER BY id DESC
         LIMIT $7
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        status,
        tracking_status,
        before,
        limit,
    )
    return [shipment_of(row) for row in rows]


async def stores(db: Connection) -> list[tuple[UUID, str]]:
    """List whose shipments there are, without reading them all: each store is found behind the one before."""
    rows = await each_there(db, "shipments", "store_id", "environment")
    return [(row["store_id"], row["environment"]) for row in rows]


def view(shipment: Shipment, labels: Sequence[LabelView]) -> ShipmentView:
    """Show a shipment with its labels."""
    return ShipmentView(
        id=shipment.id,
        order_id=shipment.order_id,
        snapshot_id=shipment.snapshot_id,
        status=shipment.status,
        carrier=shipment.carrier,
        service=shipment.service,
        amount=shipment.amount,
        currency=shipment.currency,
        finalized_at=shipment.finalized_at,
        tracking_status=shipment.tracking_status,
        labels=list(labels),
        created_at=shipment.created_at,
    )
