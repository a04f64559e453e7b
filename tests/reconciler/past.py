"""A past in both books: finished payments loaded into ours, and the same written into the sandbox's."""

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from deploy.sandbox.books import Books, Operation, Payment
from deploy.seed import seed


async def a_past(database_url: str, books: Books, *, store_id: UUID, payments: int) -> list[str]:
    """Load so many captured payments that both sides agree on; gives what the provider calls them."""
    await seed(database_url, store_id=store_id, orders=payments)
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            """
            SELECT i.id, i.order_id, i.provider_payment_id, i.currency, i.requested_amount,
                   (SELECT json_agg(t ORDER BY t.id)
                      FROM (SELECT id, operation, amount, provider_txn_id
                              FROM payments.payment_transactions
                             WHERE payment_intent_id = i.id) AS t)::text AS transactions
              FROM payments.payment_intents i
             WHERE i.store_id = $1
             ORDER BY i.id
            """,
            store_id,
        )
    finally:
        await connection.close()
    for row in rows:
        books.keep(_payment(row))
    return [row["provider_payment_id"] for row in rows]


def _payment(row: Any) -> Payment:
    # Made when its id was: a UUIDv7 begins with its time.
    made = datetime.fromtimestamp((row["id"].int >> 80) / 1000).astimezone().isoformat()
    transactions = msgspec.json.decode(row["transactions"])
    return Payment(
        id=row["provider_payment_id"],
        reference=next(t["id"] for t in transactions if t["operation"] == "authorize"),
        order_id=str(row["order_id"]),
        amount=row["requested_amount"],
        currency=row["currency"],
        payment_method="tok_success",
        created_at=made,
        authorization_expires_at=None,
        operations=[
            Operation(
                id=t["provider_txn_id"], kind=t["operation"], amount=t["amount"], status="succeeded", created_at=made, reference=t["id"]
            )
            for t in transactions
        ],
    )
