"""The ledger's rows in SQL, and the audit of the calls behind them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from services.payments.domain.intents import Intent, Operation, Source, Transaction, TransactionStatus
from shared.contracts.payments import TransactionView
from shared.database import Connection, Record
from shared.http_client import Call
from shared.ids import new_id
from shared.messages import Envelope


def json_text(value: Any) -> str:
    """Write a value as JSON for a jsonb column."""
    return msgspec.json.encode(value).decode()


def transaction_of(row: Record) -> Transaction:
    """Read a row as the rules see it."""
    return Transaction(
        id=row["id"],
        operation=Operation(row["operation"]),
        amount=row["amount"],
        status=TransactionStatus(row["status"]),
        processed_amount=row["processed_amount"],
        final=row["final"],
        contradicted=row["contradicted"],
        awaiting_customer=row["awaiting_customer"],
        provider_txn_id=row["provider_txn_id"],
        reason=row["reason"],
        decline_code=row["decline_code"],
        source=Source(row["source"]),
        command_id=row["command_id"],
        idempotency_key=row["idempotency_key"],
        raw=msgspec.json.decode(row["raw_response_redacted"]),
    )


def view(row: Record, currency: str) -> TransactionView:
    """Show a row."""
    return TransactionView(
        id=row["id"],
        operation=row["operation"],
        status=row["status"],
        amount=row["amount"],
        processed_amount=row["processed_amount"],
        currency=currency,
        final=row["final"],
        source=row["source"],
        reason=row["reason"],
        provider_txn_id=row["provider_txn_id"],
        decline_code=row["decline_code"],
        raw_response_redacted=msgspec.json.decode(row["raw_response_redacted"]),
        correlation_id=row["correlation_id"],
        created_at=row["created_at"],
        concluded_at=row["concluded_at"],
    )


async def transaction_view(db: Connection, transaction_id: UUID, currency: str) -> TransactionView:
    """Show one row of the ledger."""
    row = await db.fetchrow("SELECT * FROM payment_transactions WHERE id = $1", transaction_id)
    assert row is not None, "ledger rows are never deleted"
    return view(row, currency)


async def keep_changed(db: Connection, changed: Sequence[Transaction]) -> None:
    """Write what was learnt about rows that are there."""
    if not changed:
        return
    await db.execute(
        """
        UPDATE payment_transactions t
           SET status = n.status, processed_amount = n.processed_amount, provider_txn_id = n.provider_txn_id,
               contradicted = n.contradicted, awaiting_customer = n.awaiting_customer, decline_code = n.decline_code,
               reason = n.reason, raw_response_redacted = n.raw::jsonb,
               concluded_at = CASE WHEN n.status IN ('pending', 'unknown') THEN NULL ELSE coalesce(t.concluded_at, now()) END,
               -- A row still open belongs to whoever holds its lease.
               lease_expires_at = CASE WHEN n.status IN ('pending', 'unknown') THEN t.lease_expires_at ELSE now() END
          FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::boolean[], $6::boolean[], $7::text[], $8::text[], $9::text[])
               AS n (id, status, processed_amount, provider_txn_id, contradicted, awaiting_customer, decline_code, reason, raw)
         WHERE t.id = n.id AND t.id = ANY($1::uuid[])
        """,
        [t.id for t in changed],
        [t.status.value for t in changed],
        [t.processed_amount for t in changed],
        [t.provider_txn_id for t in changed],
        [t.contradicted for t in changed],
        [t.awaiting_customer for t in changed],
        [t.decline_code for t in changed],
        [t.reason for t in changed],
        [json_text(t.raw) for t in changed],
    )


async def keep_added(db: Connection, envelope: Envelope, intent: Intent, added: Sequence[Transaction]) -> None:
    """Write rows for what happened at the provider without us."""
    for transaction in added:
        await db.execute(
            """
            INSERT INTO payment_transactions (id, payment_intent_id, store_id, environment, operation, idempotency_key, command_id, answers,
                                              command_type, command_digest, provider_idempotency_key, provider_account, provider_txn_id,
                                              amount, processed_amount, final, status, contradicted, source, reason, decline_code,
                                              raw_response_redacted, request, actor, correlation_id, concluded_at)
            VALUES ($1, $2, $3, $4, $5, $6, $1, $1, 'observed', '', $6, $7, $8, $9, $10, false, $11, $12, $13, $14, $15, $16, 'null',
                    $17, $18,
                    CASE WHEN $11 IN ('pending', 'unknown') THEN NULL ELSE now() END)
            """,
            transaction.id,
            intent.id,
            envelope.store_id,
            envelope.environment.value,
            transaction.operation.value,
            f"observed:{transaction.provider_txn_id or transaction.id}",
            intent.provider_account,
            transaction.provider_txn_id,
            transaction.amount,
            transaction.processed_amount,
            transaction.status.value,
            transaction.contradicted,
            transaction.source.value,
            transaction.reason,
            transaction.decline_code,
            json_text(transaction.raw),
            envelope.actor,
            envelope.correlation_id,
        )


async def keep_calls(db: Connection, envelope: Envelope, transaction_id: UUID | None, calls: Sequence[Call]) -> None:
    """Write the audit of calls made."""
    if not calls:
        return
    await db.execute(
        """
        INSERT INTO provider_call_audit (id, store_id, environment, provider, operation, url_path, request, response, status, latency_ms,
                                         attempt, classification, correlation_id, transaction_id)
        SELECT id, $2, $3, provider, operation, path, request::jsonb, response::jsonb, status, latency, attempt, classification, $4, $5
          FROM unnest($1::uuid[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::integer[], $12::integer[],
                      $13::integer[], $14::text[])
               AS t (id, provider, operation, path, request, response, status, latency, attempt, classification)
        """,
        [new_id() for _ in calls],
        envelope.store_id,
        envelope.environment.value,
        envelope.correlation_id,
        transaction_id,
        [c.provider for c in calls],
        [c.operation for c in calls],
        [c.path for c in calls],
        [json_text(c.request) for c in calls],
        [json_text(c.response) for c in calls],
        [c.status for c in calls],
        [c.latency_ms for c in calls],
        [c.attempt for c in calls],
        [c.classification.value for c in calls],
    )


async def keep_audit_partitions(db: Connection, *, months_ahead: int, months_kept: int) -> None:
    """Make the audit's coming months and drop the ones past retention."""
    await db.execute("SELECT keep_audit_partitions($1, $2)", months_ahead, months_kept)
