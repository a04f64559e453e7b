"""Shipping rates in SQL: what was shown, by whom, and until when it holds."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from shared.contracts.fulfillment.pricing import PackageBody, ShippingRate
from shared.contracts.orders import OrderContent
from shared.database import Connection, Statement
from shared.messages import Envelope

KEPT_DAYS = 30
DELETE_ROWS_MAX = 1_000


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """A rate as its row holds it: what is shown of it, the carrier's own name for it, and for which packages."""

    shown: ShippingRate
    provider_rate_id: str
    packages: tuple[PackageBody, ...]
    priced_hash: str
    # What the carrier knew of customs and delivery when it named the price.
    terms_digest: str = ""


def quoted(envelope: Envelope, order_id: UUID, rates: Sequence[Rate], *, content: OrderContent | None = None) -> Statement:
    """Write rates that are about to be shown, with what the order said where no shipment says it."""
    return Statement(
        """
        INSERT INTO shipment_rates (id, store_id, environment, order_id, priced_hash, carrier, provider_rate_id, service, amount, currency,
                                    transit_days, packages, content, quoted_at, expires_at, terms_digest)
        SELECT id, $1, $2, $3, hash, carrier, rate, service, amount, currency, days, packages::jsonb, $15::jsonb, quoted_at,
               expires_at, terms
          FROM unnest($4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::text[], $11::integer[], $12::text[],
                      $13::timestamptz[], $14::timestamptz[], $16::text[])
               AS t (id, hash, carrier, rate, service, amount, currency, days, packages, quoted_at, expires_at, terms)
        """,
        (
            envelope.store_id,
            envelope.environment.value,
            order_id,
            [r.shown.id for r in rates],
            [r.priced_hash for r in rates],
            [r.shown.carrier for r in rates],
            [r.provider_rate_id for r in rates],
            [r.shown.service for r in rates],
            [r.shown.amount for r in rates],
            [r.shown.currency for r in rates],
            [r.shown.transit_days for r in rates],
            [msgspec.json.encode(r.packages).decode() for r in rates],
            [r.shown.quoted_at for r in rates],
            [r.shown.expires_at for r in rates],
            None if content is None else msgspec.json.encode(content).decode(),
            [r.terms_digest for r in rates],
        ),
    )


async def shown_with(db: Connection, envelope: Envelope, order_id: UUID, rate_id: UUID) -> list[Rate]:
    """Read a rate of an order with those that were shown beside it."""
    rows = await db.fetch(
        """
        SELECT r.*
          FROM shipment_rates asked
          JOIN shipment_rates r ON r.order_id = asked.order_id AND r.quoted_at = asked.quoted_at
                               AND (r.store_id, r.environment) IS NOT DISTINCT FROM (asked.store_id, asked.environment)
         WHERE asked.id = $4 AND (asked.store_id, asked.environment, asked.order_id) IS NOT DISTINCT FROM ($1, $2, $3)
         ORDER BY r.amount, r.carrier, r.service
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        rate_id,
    )
    return [
        Rate(
            shown=ShippingRate(
                id=row["id"],
                carrier=row["carrier"],
                service=row["service"],
                amount=row["amount"],
                currency=row["currency"],
                transit_days=row["transit_days"],
                quoted_at=row["quoted_at"],
                expires_at=row["expires_at"],
            ),
            provider_rate_id=row["provider_rate_id"],
            packages=msgspec.json.decode(row["packages"], type=tuple[PackageBody, ...]),
            priced_hash=row["priced_hash"],
            terms_digest=row["terms_digest"],
        )
        for row in rows
    ]


async def content_of(db: Connection, envelope: Envelope, order_id: UUID, rate_id: UUID) -> OrderContent | None:
    """Read what an order said when a rate was asked for apart from a quote."""
    row = await db.fetchrow(
        """
        SELECT content
          FROM shipment_rates
         WHERE id = $4 AND (store_id, environment, order_id) IS NOT DISTINCT FROM ($1, $2, $3)
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        rate_id,
    )
    return None if row is None or row["content"] is None else msgspec.json.decode(row["content"], type=OrderContent)


async def forget_old(db: Connection) -> None:
    """Delete a batch of rates that expired long ago and that no shipment was chosen by."""
    await db.execute(
        """
        DELETE FROM shipment_rates
         WHERE id = ANY(ARRAY(SELECT id
                                FROM shipment_rates r
                               WHERE quoted_at < now() - make_interval(days => $1) AND expires_at < now()
                                 AND NOT EXISTS (SELECT FROM shipments s WHERE s.rate_id = r.id)
                               ORDER BY quoted_at
                               LIMIT $2))
        """,
        KEPT_DAYS,
        DELETE_ROWS_MAX,
    )
