"""Where a store collects tax, whom it does not tax, and how much it sold where, in SQL."""

from datetime import date, datetime
from uuid import UUID

import msgspec

from shared.contracts.fulfillment.tax import ExemptionBody, ExemptionView, NexusBody
from shared.database import Connection, Statement
from shared.messages import Envelope


class Nexus(msgspec.Struct, frozen=True, kw_only=True):
    """A registration or a watch as its row holds it."""

    id: UUID
    nexus: NexusBody
    warned: str
    created_at: datetime


async def nexus_of(db: Connection, store_id: UUID, environment: str) -> list[Nexus]:
    """Read a store's registrations and watches."""
    rows = await db.fetch(
        """
        SELECT id, config, warned, created_at
          FROM tax_nexus_configs
         WHERE store_id = $1 AND environment = $2 AND removed_at IS NULL
         ORDER BY id
        """,
        store_id,
        environment,
    )
    return [
        Nexus(id=r["id"], nexus=msgspec.json.decode(r["config"], type=NexusBody), warned=r["warned"], created_at=r["created_at"])
        for r in rows
    ]


def nexus_kept(envelope: Envelope, nexus_id: UUID, nexus: NexusBody) -> Statement:
    """Write a registration or a watch."""
    return Statement(
        """
        INSERT INTO tax_nexus_configs (id, store_id, environment, config)
        VALUES ($1, $2, $3, $4)
        ON CONFLICT (id) DO UPDATE
           SET config = EXCLUDED.config, warned = ''
         WHERE (tax_nexus_configs.store_id, tax_nexus_configs.environment) = (EXCLUDED.store_id, EXCLUDED.environment)
        RETURNING id
        """,
        (nexus_id, envelope.store_id, envelope.environment.value, msgspec.json.encode(nexus).decode()),
        must=True,
    )


def nexus_removed(envelope: Envelope, nexus_id: UUID) -> Statement:
    """Take a registration or a watch back."""
    return Statement(
        """
        UPDATE tax_nexus_configs
           SET removed_at = now()
         WHERE id = $1 AND store_id = $2 AND environment = $3 AND removed_at IS NULL
        RETURNING id
        """,
        (nexus_id, envelope.store_id, envelope.environment.value),
    )


def warned(nexus_id: UUID, *, before: str, state: str) -> Statement:
    """Remember what was said about a threshold; must be the one who says it."""
    return Statement(
        "UPDATE tax_nexus_configs SET warned = $3 WHERE id = $1 AND warned = $2 RETURNING id", (nexus_id, before, state), must=True
    )


async def exemptions_of(db: Connection, store_id: UUID, environment: str, customer_id: UUID) -> list[ExemptionBody]:
    """Read a customer's certificates."""
    rows = await db.fetch(
        "SELECT exemption FROM tax_exemptions WHERE store_id = $1 AND environment = $2 AND customer_id = $3 AND removed_at IS NULL",
        store_id,
        environment,
        customer_id,
    )
    return [msgspec.json.decode(row["exemption"], type=ExemptionBody) for row in rows]


async def exemptions_page(
    db: Connection, envelope: Envelope, *, customer_id: UUID | None, after: UUID | None, limit: int
) -> list[ExemptionView]:
    """Read a page of certificates."""
    rows = await db.fetch(
        """
        SELECT id, exemption, created_at
          FROM tax_exemptions
         WHERE store_id = $1 AND environment = $2 AND removed_at IS NULL
           AND ($3::uuid IS NULL OR customer_id = $3) AND ($4::uuid IS NULL OR id > $4)
         ORDER BY id
         LIMIT $5
        """,
        envelope.store_id,
        envelope.environment.value,
        customer_id,
        after,
        limit,
    )
    return [
        ExemptionView(id=r["id"], exemption=msgspec.json.decode(r["exemption"], type=ExemptionBody), created_at=r["created_at"])
        for r in rows
    ]


async def exemption(db: Connection, envelope: Envelope, exemption_id: UUID) -> ExemptionView | None:
    """Read a certificate in use."""
    row = await db.fetchrow(
        """
        SELECT id, exemption, created_at
          FROM tax_exemptions
         WHERE id = $3 AND store_id = $1 AND environment = $2 AND removed_at IS NULL
        """,
        envelope.store_id,
        envelope.environment.value,
        exemption_id,
    )
    if row is None:
        return None
    return ExemptionView(id=row["id"], exemption=msgspec.json.decode(row["exemption"], type=ExemptionBody), created_at=row["created_at"])


def exemption_kept(envelope: Envelope, exemption_id: UUID, body: ExemptionBody) -> Statement:
    """Write a certificate."""
    return Statement(
        """
        INSERT INTO tax_exemptions (id, store_id, environment, customer_id, exemption)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (id) DO UPDATE
           SET customer_id = EXCLUDED.customer_id, exemption = EXCLUDED.exemption
         WHERE (tax_exemptions.store_id, tax_exemptions.environment) = (EXCLUDED.store_id, EXCLUDED.environment)
        RETURNING id
        """,
        (exemption_id, envelope.store_id, envelope.environment.value, body.customer_id, msgspec.json.encode(body).decode()),
        must=True,
    )


def exemption_removed(envelope: Envelope, exemption_id: UUID) -> Statement:
    """Take a certificate out of use."""
    return Statement(
        """
        UPDATE tax_exemptions
           SET removed_at = now()
         WHERE id = $1 AND store_id = $2 AND environment = $3 AND removed_at IS NULL
        """,
        (exemption_id, envelope.store_id, envelope.environment.value),
    )


def sold(
    store_id: UUID,
    environment: str,
    *,
    kind: str,
    distance_sale: bool,
    country: str,
    region: str,
    currency: str,
    day: date,
    amount: int,
) -> Statement:
    """Count a sale towards thresholds, or what goes back of one, which has a row of its own."""
    return Statement(
        """
        INSERT INTO tax_sales_totals (store_id, environment, kind, distance_sale, country, region, currency, day, amount, count)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1)
        ON CONFLICT (store_id, environment, country, region, currency, day, kind, distance_sale) DO UPDATE
           SET amount = tax_sales_totals.amount + EXCLUDED.amount, count = tax_sales_totals.count + 1
        """,
        (store_id, environment, kind, distance_sale, country, region, currency, day, amount),
    )


class Sold(msgspec.Struct, frozen=True, kw_only=True):
    """What was sold somewhere in a time."""

    amount: int
    count: int


async def sold_between(
    db: Connection, store_id: UUID, environment: str, *, country: str, region: str, currency: str | None, first: date, last: date
) -> Sold:
    """Add up sales to a country, or to one region of it; without a currency only their number means anything.

    What states look at is what was sold, whatever came back of it. Sales to Northern Ireland, which returns name XI, are the UK's.
    """
    row = await db.fetchrow(
        """
        SELECT coalesce(sum(amount) FILTER (WHERE currency = $5), 0)::bigint AS amount, coalesce(sum(count), 0)::bigint AS count
          FROM tax_sales_totals
         WHERE store_id = $1 AND environment = $2 AND (country = $3 OR (country = 'XI' AND $3 = 'GB'))
           AND ($4 = '' OR region = $4) AND day BETWEEN $6 AND $7 AND kind = 'sale'
        """,
        store_id,
        environment,
        country,
        region,
        currency,
        first,
        last,
    )
    assert row is not None, "a sum is always one row"
    return Sold(amount=row["amount"], count=row["count"])


async def distance_sold_between(db: Connection, store_id: UUID, environment: str, *, currency: str | None, first: date, last: date) -> Sold:
    """Add up distance sales within the EU, less what went back of them."""
    row = await db.fetchrow(
        """
        SELECT coalesce(sum(amount) FILTER (WHERE currency = $3), 0)::bigint AS amount,
               coalesce(sum(count) FILTER (WHERE kind = 'sale'), 0)::bigint AS count
          FROM tax_sales_totals
         WHERE store_id = $1 AND environment = $2 AND distance_sale AND day BETWEEN $4 AND $5
        """,
        store_id,
        environment,
        currency,
        first,
        last,
    )
    assert row is not None, "a sum is always one row"
    return Sold(amount=row["amount"], count=row["count"])
