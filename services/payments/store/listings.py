"""What staff look through, in SQL: orders, and payments that need somebody."""

from uuid import UUID

from services.payments.domain.intents import Intent
from services.payments.store.intents import intents_decoder
from shared.contracts.payments import OrderSummary
from shared.database import Connection, each_there
from shared.messages import Envelope

# How far a page looks for orders that fit before it says where to look on.
SEARCHED_ROWS_MAX = 20_000

_SUMMARY = """
    SELECT o.id, o.status, o.currency, o.total, o.customer_id, o.created_at, o.updated_at, i.provider, i.status AS payment_status,
           i.attention, coalesce(i.payments, 0)::integer AS payments, coalesce(i.overpaid_amount, 0)::bigint AS overpaid_amount
      FROM orders o
      LEFT JOIN LATERAL (SELECT provider, status, count(*) OVER () AS payments, string_agg(attention, '; ') OVER () AS attention,
                                sum(overpaid_amount) OVER () AS overpaid_amount
                           FROM payment_intents
                          WHERE store_id = o.store_id AND environment = o.environment AND order_id = o.id
                          ORDER BY id DESC
                          LIMIT 1) AS i ON true
     WHERE o.store_id = $1 AND o.environment = $2 AND o.id = ANY($3::uuid[])
     ORDER BY o.created_at DESC, o.id DESC
"""


async def page(
    db: Connection, envelope: Envelope, *, status: str | None, before: UUID | None, limit: int
) -> tuple[list[OrderSummary], UUID | None]:
    """Read a page of orders, the newest first, and where to go on."""
    rows = await db.fetch(
        """
        SELECT id, status
          FROM orders
         WHERE store_id = $1 AND environment = $2
           -- The index of this list serves nothing else.
           AND created_at > '-infinity'
           AND ($3::uuid IS NULL
                OR (created_at, id) < (SELECT created_at, id FROM orders WHERE store_id = $1 AND environment = $2 AND id = $3))
         ORDER BY created_at DESC, id DESC
         LIMIT $4
        """,
        envelope.store_id,
        envelope.environment.value,
        before,
        limit + 1 if status is None else SEARCHED_ROWS_MAX,
    )
    fitting = [row["id"] for row in rows if status is None or row["status"] == status]
    if len(fitting) > limit:
        return await summaries(db, envelope, fitting[:limit]), fitting[limit - 1]
    return await summaries(db, envelope, fitting), rows[-1]["id"] if len(rows) == SEARCHED_ROWS_MAX else None


async def summaries(db: Connection, envelope: Envelope, ids: list[UUID]) -> list[OrderSummary]:
    """Read these orders with their latest payments, the newest first."""
    rows = await db.fetch(_SUMMARY, envelope.store_id, envelope.environment.value, ids)
    return [OrderSummary(**dict(row)) for row in rows]


async def found_by_id(db: Connection, envelope: Envelope, wanted: UUID, *, limit: int) -> list[UUID]:
    """Find the orders that an id is about: their own, their customer's, a payment's, a transaction's."""
    rows = await db.fetch(
        """
        (SELECT id FROM orders WHERE store_id = $1 AND environment = $2 AND id = $3)
         UNION
        (SELECT id FROM orders WHERE store_id = $1 AND environment = $2 AND customer_id = $3 ORDER BY created_at DESC, id DESC LIMIT $4)
         UNION
        (SELECT order_id FROM payment_intents WHERE store_id = $1 AND environment = $2 AND id = $3)
         UNION
        (SELECT i.order_id
           FROM payment_transactions t
           JOIN payment_intents i ON i.id = t.payment_intent_id
          WHERE t.store_id = $1 AND t.environment = $2 AND t.id = $3)
        """,
        envelope.store_id,
        envelope.environment.value,
        wanted,
        limit,
    )
    return [row["id"] for row in rows]


async def found_by_name(db: Connection, envelope: Envelope, wanted: str) -> list[UUID]:
    """Find the orders of what a provider calls a payment or a transaction."""
    accounts = [row["provider_account"] for row in await each_there(db, "payment_intents", "provider_account")]
    rows = await db.fetch(
        """
        SELECT order_id
          FROM payment_intents
         WHERE provider_account = ANY($3::text[]) AND provider_payment_id = $4 AND store_id = $1 AND environment = $2
         UNION
        SELECT i.order_id
          FROM payment_transactions t
          JOIN payment_intents i ON i.id = t.payment_intent_id
         WHERE t.provider_account = ANY($3::text[]) AND t.provider_txn_id = $4 AND t.store_id = $1 AND t.environment = $2
        """,
        envelope.store_id,
        envelope.environment.value,
        accounts,
        wanted,
    )
    return [row["order_id"] for row in rows]


# As the index of payments that need attention says it.
_NEEDS_ATTENTION = "(attention IS NOT NULL OR status = 'conflicted')"


async def in_conflict(db: Connection, envelope: Envelope, *, provider: str | None, limit: int) -> list[Intent]:
    """Read payments that wait for an operator, the oldest first."""
    return await _needing_attention(db, envelope, "(status = 'conflicted' OR overpaid_amount = 0)", provider=provider, limit=limit)


async def overpaid(db: Connection, envelope: Envelope, *, provider: str | None, limit: int) -> list[Intent]:
    """Read payments that took what their order does not owe and of which no refund is under way, the oldest first."""
    return await _needing_attention(db, envelope, "overpaid_amount > refund_reserved", provider=provider, limit=limit)


async def _needing_attention(db: Connection, envelope: Envelope, which: str, *, provider: str | None, limit: int) -> list[Intent]:
    found = await db.fetchval(
        f"""
        SELECT coalesce(json_agg(i ORDER BY i.id), '[]')::text
          FROM (SELECT *
                  FROM payment_intents
                 WHERE store_id = $1 AND environment = $2 AND {_NEEDS_ATTENTION} AND {which}
                   AND ($4::text IS NULL OR provider = $4)
                 ORDER BY id
                 LIMIT $3) AS i
        """,
        envelope.store_id,
        envelope.environment.value,
        limit,
        provider,
    )
    return intents_decoder.decode(found)


async def expiring(db: Connection, envelope: Envelope, *, provider: str | None, within_hours: float, limit: int) -> list[Intent]:
    """Read payments whose hold ends soon with money left to capture, the soonest first."""
    found = await db.fetchval(
        """
        SELECT coalesce(json_agg(i ORDER BY i.authorization_expires_at), '[]')::text
          FROM (SELECT *
                  FROM payment_intents
                 WHERE status IN ('authorized', 'partially_captured', 'partially_refunded')
                   AND authorization_expires_at < now() + make_interval(secs => $3 * 3600)
                   AND store_id = $1 AND environment = $2 AND authorized_amount > captured_amount + voided_amount
                   AND ($5::text IS NULL OR provider = $5)
                 ORDER BY authorization_expires_at
                 LIMIT $4) AS i
        """,
        envelope.store_id,
        envelope.environment.value,
        within_hours,
        limit,
        provider,
    )
    return intents_decoder.decode(found)
