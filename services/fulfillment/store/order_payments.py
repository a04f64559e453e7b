"""Payments of orders in SQL, as far as tax was told of them, and the revision by which each order's news go one after the other."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from services.fulfillment.domain.tax.kept import Payment
from shared.contracts.payments import IntentView
from shared.database import Connection, Statement
from shared.messages import Envelope


def moved_on(envelope: Envelope, order_id: UUID, *, revision: int) -> Statement:
    """Move an order's revision on; must be the one that was read."""
    return Statement(
        """
        INSERT INTO orders_known (store_id, environment, order_id, revision)
        VALUES ($1, $2, $3, 1)
        ON CONFLICT (store_id, environment, order_id) DO UPDATE
           SET revision = orders_known.revision + 1
         WHERE orders_known.revision = $4
        RETURNING revision
        """,
        (envelope.store_id, envelope.environment.value, order_id, revision),
        must=True,
    )


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a payment that changes where no tax may be recorded yet."""

    revision: int
    version: int
    # Or to be recorded, as soon as it is paid.
    recorded: bool


async def standings(db: Connection, payments: Sequence[tuple[Envelope, IntentView]]) -> list[Standing]:
    """Read of many payments what is known of each and of its order."""
    rows = await db.fetch(
        """
        SELECT coalesce((SELECT revision
                           FROM orders_known k
                          WHERE (k.store_id, k.environment, k.order_id) = (asked.store_id, asked.environment, asked.order_id)), 0)
                   AS revision,
               coalesce((SELECT version
                           FROM order_payments p
                          WHERE (p.store_id, p.environment, p.intent_id) = (asked.store_id, asked.environment, asked.intent_id)), 0)
                   AS version,
               EXISTS (SELECT
                         FROM tax_documents d
                        WHERE (d.store_id, d.environment, d.order_id) = (asked.store_id, asked.environment, asked.order_id))
               OR EXISTS (SELECT
                            FROM tax_quotes q
                           WHERE (q.store_id, q.environment, q.snapshot_id) = (asked.store_id, asked.environment, asked.snapshot_id)
                             AND q.document_id IS NOT NULL) AS recorded
          FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::uuid[])
               WITH ORDINALITY AS asked (store_id, environment, order_id, intent_id, snapshot_id, position)
         ORDER BY asked.position
        """,
        [envelope.store_id for envelope, _ in payments],
        [envelope.environment.value for envelope, _ in payments],
        [intent.order_id for _, intent in payments],
        [intent.id for _, intent in payments],
        [intent.snapshot_id for _, intent in payments],
    )
    return [Standing(**dict(row)) for row in rows]


def paid(payments: Sequence[tuple[Envelope, UUID, Payment, int]]) -> list[Statement]:
    """Keep how payments of different orders stand and move their orders' revisions on, which must be those given.

    An older version than known changes nothing.
    """
    # Sorted, so that two groups never wait for each other.
    kept = sorted(payments, key=lambda each: (each[0].store_id, each[0].environment, each[1]))
    stores, environments = [envelope.store_id for envelope, *_ in kept], [envelope.environment.value for envelope, *_ in kept]
    standing, orders = [payment for *_, payment, _ in kept], [order_id for _, order_id, *_ in kept]
    return [
        Statement(
            """
            INSERT INTO orders_known AS k (store_id, environment, order_id, revision)
            SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::integer[])
            ON CONFLICT (store_id, environment, order_id) DO UPDATE
               SET revision = EXCLUDED.revision
             WHERE k.revision = EXCLUDED.revision - 1
            RETURNING revision
            """,
            (stores, environments, orders, [revision + 1 for *_, revision in kept]),
            must=True,
            rows="cardinality($3)",
        ),
        Statement(
            """
            INSERT INTO order_payments (store_id, environment, order_id, intent_id, snapshot_id, version, status, captured_amount,
                                        refunded_amount, returned)
            SELECT *
              FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::uuid[], $6::integer[], $7::text[], $8::bigint[], $9::bigint[],
                          $10::jsonb[])
            ON CONFLICT (store_id, environment, intent_id) DO UPDATE
               SET version = EXCLUDED.version, status = EXCLUDED.status, captured_amount = EXCLUDED.captured_amount,
                   refunded_amount = EXCLUDED.refunded_amount, returned = EXCLUDED.returned
             WHERE order_payments.version < EXCLUDED.version
            """,
            (
                stores,
                environments,
                orders,
                [payment.intent_id for payment in standing],
                [payment.snapshot_id for payment in standing],
                [payment.version for payment in standing],
                [payment.status for payment in standing],
                [payment.captured_amount for payment in standing],
                [sum(part.amount for part in payment.returned) for payment in standing],
                [msgspec.json.encode(payment.returned).decode() for payment in standing],
            ),
        ),
    ]
