"""What was paid out for payments, in SQL."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from shared.contracts.settlements import LineMatched, ListUnsettled, SettlementLine, SettlementView, UnsettledView
from shared.database import Connection, Statement
from shared.ids import first_id_at, new_id
from shared.messages import Envelope


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A line that was taken in before: which row it settles, and of which payment."""

    line_key: str
    transaction_id: UUID | None
    payment_intent_id: UUID
    gross: int


async def known(db: Connection, envelope: Envelope, account: str, keys: Sequence[str], intents: Sequence[UUID]) -> list[Known]:
    """Read what is settled already: of these lines, and of these payments."""
    rows = await db.fetch(
        """
        SELECT line_key, transaction_id, payment_intent_id, gross
          FROM payment_settlements
         WHERE store_id = $1 AND environment = $2 AND provider_account = $3 AND line_key = ANY($4::text[])
         UNION
        SELECT line_key, transaction_id, payment_intent_id, gross FROM payment_settlements WHERE payment_intent_id = ANY($5::uuid[])
        """,
        envelope.store_id,
        envelope.environment.value,
        account,
        list(keys),
        list(intents),
    )
    return [Known(**dict(row)) for row in rows]


def taken(envelope: Envelope, account: str, file_sha256: str, lines: Sequence[tuple[SettlementLine, LineMatched, UUID]]) -> Statement:
    """Write lines with the rows and payments that they settle; a line that another copy has written stays as it is."""
    said = [line for line, _, _ in lines]
    return Statement(
        """
        INSERT INTO payment_settlements (id, store_id, environment, provider_account, line_key, category, payment_intent_id, transaction_id,
                                         gross, fee, net, currency, payout, settled_at, file_sha256)
        SELECT id, $1, $2, $3, key, category, intent, transaction, gross, fee, net, currency, payout, at, $4
          FROM unnest($5::uuid[], $6::text[], $7::text[], $8::uuid[], $9::uuid[], $10::bigint[], $11::bigint[], $12::bigint[],
                      $13::text[], $14::text[], $15::timestamptz[])
               AS t (id, key, category, intent, transaction, gross, fee, net, currency, payout, at)
        ON CONFLICT (store_id, environment, provider_account, line_key) DO NOTHING
        """,
        (
            envelope.store_id,
            envelope.environment.value,
            account,
            file_sha256,
            [new_id() for _ in lines],
            [line.key for line in said],
            [line.category for line in said],
            [intent_id for _, _, intent_id in lines],
            [matched.transaction_id if matched.result == "matched" else None for _, matched, _ in lines],
            [line.gross for line in said],
            [line.fee for line in said],
            [line.net for line in said],
            [line.currency for line in said],
            [line.payout for line in said],
            [line.settled_at for line in said],
        ),
    )


async def of_intents(db: Connection, intents: Sequence[UUID]) -> dict[UUID, list[SettlementView]]:
    """Read what was paid out for some payments."""
    rows = await db.fetch(
        """
        SELECT payment_intent_id, transaction_id, category, gross, fee, net, currency, payout, settled_at
          FROM payment_settlements
         WHERE payment_intent_id = ANY($1::uuid[])
         ORDER BY id
        """,
        list(intents),
    )
    found: dict[UUID, list[SettlementView]] = {}
    for row in rows:
        facts = dict(row)
        found.setdefault(facts.pop("payment_intent_id"), []).append(SettlementView(**facts))
    return found


async def unsettled(db: Connection, envelope: Envelope, account: str, query: ListUnsettled, *, limit: int) -> list[UnsettledView]:
    """Read captures and refunds of a time that no line settles, the oldest first; ids begin with their time (UUIDv7)."""
    rows = await db.fetch(
        """
        SELECT t.id AS transaction_id, i.order_id, t.operation, coalesce(t.processed_amount, t.amount) AS amount, i.currency,
               i.provider_payment_id, t.created_at
          FROM payment_transactions t
          JOIN payment_intents i ON i.id = t.payment_intent_id
         WHERE t.id >= $4 AND t.id < $5 AND ($6::uuid IS NULL OR t.id > $6)
           AND t.operation IN ('capture', 'refund') AND t.status = 'succeeded' AND t.provider_account = $3
           AND t.store_id IS NOT DISTINCT FROM $1 AND t.environment IS NOT DISTINCT FROM $2
           AND NOT EXISTS (SELECT FROM payment_settlements s WHERE s.payment_intent_id = t.payment_intent_id AND s.transaction_id = t.id)
         ORDER BY t.id
         LIMIT $7
        """,
        envelope.store_id,
        envelope.environment.value,
        account,
        first_id_at(query.since),
        first_id_at(query.until),
        query.after,
        limit,
    )
    return [UnsettledView(**dict(row)) for row in rows]
