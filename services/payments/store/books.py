"""Our books as the reconciler compares them: intents with their ledgers, found by what a provider calls them or by time."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from services.payments.domain.intents import Intent, Transaction
from services.payments.store import ledger
from services.payments.store.intents import intents_decoder
from shared.database import Connection, each_there
from shared.messages import Envelope


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A payment of ours with its whole ledger, and whose it is."""

    store_id: UUID
    environment: str
    intent: Intent
    transactions: tuple[Transaction, ...]


async def by_provider(db: Connection, account: str, keys: Sequence[str], references: Sequence[UUID]) -> list[Kept]:
    """Find the payments that a provider's account knows under these keys, or that bear these references, whosever they are."""
    rows = await db.fetch(
        """
        WITH found AS (
          SELECT id FROM payment_intents WHERE provider_account = $1 AND provider_payment_id = ANY($2::text[])
           UNION
          SELECT t.payment_intent_id FROM payment_transactions t WHERE t.id = ANY($3::uuid[]) AND t.provider_account = $1)
        SELECT i.store_id, i.environment, json_build_array(row_to_json(i))::text AS intent,
               (SELECT coalesce(json_agg(t ORDER BY t.id), '[]')
                  FROM (SELECT id, operation, amount, status, processed_amount, final, contradicted, awaiting_customer, provider_txn_id,
                               reason, decline_code, source, command_id, idempotency_key
                          FROM payment_transactions
                         WHERE payment_intent_id = i.id) AS t)::text AS rows
          FROM found
          JOIN payment_intents i ON i.id = found.id
        """,
        account,
        list(keys),
        list(references),
    )
    return [
        Kept(
            store_id=row["store_id"],
            environment=row["environment"],
            intent=intents_decoder.decode(row["intent"])[0],
            transactions=ledger.rows_decoder.decode(row["rows"]),
        )
        for row in rows
    ]


async def keys_between(
    db: Connection, envelope: Envelope, account: str, *, first: UUID, last: UUID, after: UUID, limit: int
) -> list[tuple[UUID, str]]:
    """Read what a provider should know of what was made between two ids, which begin with their time (UUIDv7)."""
    rows = await db.fetch(
        """
        SELECT id, provider_payment_id
          FROM payment_intents
         WHERE id >= $1 AND id < $2 AND id > $3
           -- Not offered as an index of a whole store.
           AND store_id IS NOT DISTINCT FROM $4 AND environment IS NOT DISTINCT FROM $5 AND provider_account IS NOT DISTINCT FROM $6
           AND provider_payment_id IS NOT NULL AND authorized_amount > 0
         ORDER BY id
         LIMIT $7
        """,
        first,
        last,
        after,
        envelope.store_id,
        envelope.environment.value,
        account,
        limit,
    )
    return [(row["id"], row["provider_payment_id"]) for row in rows]


async def stores(db: Connection) -> list[tuple[UUID, str]]:
    """List whose payments there are, without reading them all: each store is found behind the one before."""
    rows = await each_there(db, "payment_intents", "store_id", "environment")
    return [(row["store_id"], row["environment"]) for row in rows]
