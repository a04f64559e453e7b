"""The ledger's rows in SQL."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from services.payments.domain.intents import Intent, Transaction
from shared.contracts.payments import TransactionView
from shared.database import Record, Statement
from shared.messages import Envelope
from shared.refund_shares import RefundLine


def json_text(value: Any) -> str:
    """Write a value as JSON for a jsonb column."""
    return msgspec.json.encode(value).decode()


class RowFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a row of the ledger holds besides what the rules look at: whom it answers, and when it was written."""

    id: UUID
    answers: UUID
    command_type: str
    # As Postgres writes bytes in JSON.
    command_digest: str
    actor: str
    correlation_id: str
    created_at: datetime
    concluded_at: datetime | None

    @property
    def digest(self) -> bytes:
        """The command's digest as bytes."""
        return bytes.fromhex(self.command_digest.removeprefix("\\x"))


# Rows as the rules see them and the facts besides, as one JSON array, the oldest first; $1 is the intent.
ROWS_AS_JSON = """
    (SELECT coalesce(json_agg(t ORDER BY t.id), '[]')
       FROM (SELECT id, operation, amount, status, processed_amount, final, contradicted, awaiting_customer, provider_txn_id, reason,
                    decline_code, source, command_id, idempotency_key, lines, raw_response_redacted AS raw,
                    answers <> command_id AND NOT awaiting_customer AS confirming,
                    answers, command_type, command_digest, actor, correlation_id, created_at, concluded_at
               FROM payment_transactions
              WHERE payment_intent_id = $1) AS t)::text
"""
rows_decoder = msgspec.json.Decoder(tuple[Transaction, ...])
facts_decoder = msgspec.json.Decoder(list[RowFacts])


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
        lines=msgspec.json.decode(row["lines"], type=list[RefundLine]),
    )


def view_of(transaction: Transaction, facts: RowFacts, currency: str, *, now: datetime) -> TransactionView:
    """Show a row as it will be once what was learnt now is written."""
    return TransactionView(
        id=transaction.id,
        operation=transaction.operation.value,
        status=transaction.status.value,
        amount=transaction.amount,
        processed_amount=transaction.processed_amount,
        currency=currency,
        final=transaction.final,
        source=transaction.source.value,
        reason=transaction.reason,
        provider_txn_id=transaction.provider_txn_id,
        decline_code=transaction.decline_code,
        raw_response_redacted=transaction.raw,
        correlation_id=facts.correlation_id,
        created_at=facts.created_at,
        concluded_at=None if transaction.open else facts.concluded_at or now,
        lines=list(transaction.lines),
    )


def facts_of(envelope: Envelope, transaction: Transaction, *, now: datetime) -> RowFacts:
    """Tell what a row that is added for what happened holds besides what the rules look at."""
    return RowFacts(
        id=transaction.id,
        answers=transaction.id,
        command_type="observed",
        command_digest="",
        actor=envelope.actor,
        correlation_id=envelope.correlation_id,
        created_at=now,
        concluded_at=now,
    )


def changed(row: Transaction, *, now: datetime, next_look_seconds: float | None) -> Statement:
    """Write what was learnt about a row that is there, and in how many seconds it is to be looked at if it is still open."""
    return Statement(
        """
        UPDATE payment_transactions
           SET status = CASE WHEN status = 'unknown' AND $2 = 'pending' AND NOT (operation = 'refund' AND $4::text IS NOT NULL) THEN status
                             ELSE $2 END,
               processed_amount = $3, provider_txn_id = $4, contradicted = $5, awaiting_customer = $6, decline_code = $7, reason = $8,
               raw_response_redacted = $9,
               concluded_at = CASE WHEN $2 IN ('pending', 'unknown') THEN NULL WHEN status = $2 THEN concluded_at ELSE $10 END,
               next_look_at = coalesce(now() + make_interval(secs => $11), next_look_at),
               -- A row still open belongs to whoever holds its lease, unless it is they who let it go.
               lease_expires_at = CASE WHEN $2 IN ('pending', 'unknown') AND $11::float8 IS NULL THEN lease_expires_at ELSE now() END
         WHERE id = $1
        """,
        (
            row.id,
            row.status.value,
            row.processed_amount,
            row.provider_txn_id,
            row.contradicted,
            row.awaiting_customer,
            row.decline_code,
            row.reason,
            json_text(row.raw),
            now,
            next_look_seconds,
        ),
    )


def added(envelope: Envelope, intent: Intent, transaction: Transaction) -> Statement:
    """Write a row for what happened at the provider without us."""
    return Statement(
        """
        INSERT INTO payment_transactions (id, payment_intent_id, store_id, environment, operation, idempotency_key, command_id, answers,
                                          command_type, command_digest, provider_idempotency_key, provider_account, provider_txn_id,
                                          amount, processed_amount, final, status, contradicted, source, reason, decline_code,
                                          raw_response_redacted, request, actor, correlation_id, concluded_at)
        VALUES ($1, $2, $3, $4, $5, $6, $1, $1, 'observed', '', $6, $7, $8, $9, $10, false, $11, $12, $13, $14, $15, $16, 'null',
                $17, $18,
                CASE WHEN $11 IN ('pending', 'unknown') THEN NULL ELSE now() END)
        """,
        (
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
        ),
    )
