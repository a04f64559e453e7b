"""Intents, the ledger and its leases in SQL."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from services.payments.domain.intents import Intent, IntentStatus, Operation, Source, Transaction, TransactionStatus
from services.payments.domain.orders import OrderStatus, OrderSums
from services.payments.providers import Prepared
from shared.contracts.payments import IntentLedger, IntentView, NextAction, TransactionView
from shared.database import Connection, Pool, Record, connected
from shared.http_client import Call
from shared.ids import new_id
from shared.messages import Envelope, Environment

# Short, and renewed while the call is out, so that a crash costs seconds.
LEASE_SECONDS = 5.0
RESOLVE_ROWS_MAX = 50
# How long a provider's no to a release of ours is left alone before it is asked again.
GIVE_BACK_PAUSE_SECONDS = 3600.0


class Locked(msgspec.Struct, frozen=True, kw_only=True):
    """An intent under its row lock, with its ledger and its order's standing."""

    intent: Intent
    transactions: tuple[Transaction, ...]
    order_status: OrderStatus
    order_total: int
    order_cancelled: bool
    others: OrderSums


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """An open question to a provider: the row, the exact call, the lease, and whom the answer belongs to."""

    transaction_id: UUID
    intent_id: UUID
    order_id: UUID
    operation: Operation
    provider: str
    provider_account: str
    provider_payment_id: str | None
    prepared: Prepared | None
    idempotency_key: str
    lease_token: int
    looks: int
    age_seconds: float
    awaiting_customer: bool
    intent_abandoned: bool
    envelope: Envelope
    command_type: str
    command_digest: bytes


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _intent(row: Record) -> Intent:
    action = row["next_action"]
    return Intent(
        id=row["id"],
        order_id=row["order_id"],
        snapshot_id=row["snapshot_id"],
        provider=row["provider"],
        provider_account=row["provider_account"],
        provider_payment_id=row["provider_payment_id"],
        currency=row["currency"],
        requested_amount=row["requested_amount"],
        status=IntentStatus(row["status"]),
        authorized_amount=row["authorized_amount"],
        captured_amount=row["captured_amount"],
        refunded_amount=row["refunded_amount"],
        voided_amount=row["voided_amount"],
        charged_back_amount=row["charged_back_amount"],
        capture_reserved=row["capture_reserved"],
        refund_reserved=row["refund_reserved"],
        attention=row["attention"],
        next_action=None if action is None else msgspec.json.decode(action, type=NextAction),
        authorization_expires_at=row["authorization_expires_at"],
        abandoned=row["abandoned"],
        holds_order=row["holds_order"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _transaction(row: Record) -> Transaction:
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
        raw=msgspec.json.decode(row["raw_response_redacted"]),
    )


def view(intent: Intent) -> IntentView:
    """Show an intent."""
    return IntentView(
        id=intent.id,
        order_id=intent.order_id,
        snapshot_id=intent.snapshot_id,
        provider=intent.provider,
        status=intent.status.value,
        currency=intent.currency,
        authorized_amount=intent.authorized_amount,
        captured_amount=intent.captured_amount,
        refunded_amount=intent.refunded_amount,
        voided_amount=intent.voided_amount,
        charged_back_amount=intent.charged_back_amount,
        capture_reserved=intent.capture_reserved,
        refund_reserved=intent.refund_reserved,
        attention=intent.attention,
        next_action=intent.next_action,
        authorization_expires_at=intent.authorization_expires_at,
        version=intent.version,
        created_at=intent.created_at,
        updated_at=intent.updated_at,
    )


def _transaction_view(row: Record, currency: str) -> TransactionView:
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


# Reading


async def transaction_view(db: Connection, transaction_id: UUID, currency: str) -> TransactionView:
    """Show one row of the ledger."""
    row = await db.fetchrow("SELECT * FROM payment_transactions WHERE id = $1", transaction_id)
    assert row is not None, "ledger rows are never deleted"
    return _transaction_view(row, currency)


async def ledger(db: Connection, envelope: Envelope, order_id: UUID) -> list[IntentLedger]:
    """Read every intent of an order with every row of its ledger, the oldest first."""
    intents = await db.fetch(
        "SELECT * FROM payment_intents WHERE store_id = $1 AND environment = $2 AND order_id = $3 ORDER BY id",
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    rows = await db.fetch(
        "SELECT * FROM payment_transactions WHERE payment_intent_id = ANY($1::uuid[]) ORDER BY id", [row["id"] for row in intents]
    )
    return [
        IntentLedger(
            intent=view(_intent(intent)),
            transactions=[_transaction_view(row, intent["currency"]) for row in rows if row["payment_intent_id"] == intent["id"]],
        )
        for intent in intents
    ]


async def lock_intent(db: Connection, envelope: Envelope, intent_id: UUID, *, order_id: UUID | None = None) -> Locked | None:
    """Read an intent with its ledger and keep others from changing it until the transaction ends."""
    # The order first, as authorize does, so that two transactions never wait for each other.
    order = await db.fetchrow(
        """
        SELECT id, status, total, (content->>'cancelled')::boolean AS cancelled
          FROM orders
         WHERE store_id = $2 AND environment = $3
           AND id = (SELECT order_id
                       FROM payment_intents
                      WHERE id = $1 AND store_id = $2 AND environment = $3 AND ($4::uuid IS NULL OR order_id = $4))
           FOR UPDATE
        """,
        intent_id,
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    if order is None:
        return None
    rows = await db.fetch(
        "SELECT * FROM payment_intents WHERE store_id = $1 AND environment = $2 AND order_id = $3 FOR UPDATE",
        envelope.store_id,
        envelope.environment.value,
        order["id"],
    )
    intents = [_intent(row) for row in rows]
    transactions = await db.fetch("SELECT * FROM payment_transactions WHERE payment_intent_id = $1 ORDER BY id", intent_id)
    cancelled = bool(order["cancelled"])
    return Locked(
        intent=next(intent for intent in intents if intent.id == intent_id),
        transactions=tuple(_transaction(row) for row in transactions),
        order_status=OrderStatus(order["status"]),
        order_total=order["total"],
        order_cancelled=cancelled,
        others=sums([i for i in intents if i.id != intent_id], total=order["total"], cancelled=cancelled),
    )


def sums(intents: Sequence[Intent], *, total: int, cancelled: bool) -> OrderSums:
    """Add up what the intents of one order hold, took and gave back."""
    return OrderSums(
        total=total,
        cancelled=cancelled,
        pending=any(i.status in (IntentStatus.PROCESSING, IntentStatus.REQUIRES_ACTION) for i in intents),
        held=sum(i.held for i in intents),
        captured=sum(i.captured_amount for i in intents),
        returned=sum(i.refunded_amount + i.charged_back_amount for i in intents),
    )


async def intents_of(db: Connection, envelope: Envelope, order_id: UUID) -> list[Intent]:
    """Read every intent of an order."""
    rows = await db.fetch(
        "SELECT * FROM payment_intents WHERE store_id = $1 AND environment = $2 AND order_id = $3 ORDER BY id",
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    return [_intent(row) for row in rows]


async def get_intent(db: Connection, envelope: Envelope, intent_id: UUID) -> Intent:
    """Read an intent without holding it."""
    row = await db.fetchrow(
        "SELECT * FROM payment_intents WHERE id = $1 AND store_id = $2 AND environment = $3",
        intent_id,
        envelope.store_id,
        envelope.environment.value,
    )
    assert row is not None, "intents are never deleted"
    return _intent(row)


async def find_intent(
    db: Connection, *, provider_account: str, provider_payment_id: str, reference: UUID | None
) -> tuple[UUID, UUID, str] | None:
    """Find the intent a provider speaks of: its id, store and environment."""
    row = await db.fetchrow(
        """
        SELECT i.id, i.store_id, i.environment
          FROM payment_intents i
         WHERE i.provider_account = $1
           AND (i.provider_payment_id = $2
                OR i.id = (SELECT t.payment_intent_id FROM payment_transactions t WHERE t.id = $3))
         LIMIT 1
        """,
        provider_account,
        provider_payment_id,
        reference,
    )
    return None if row is None else (row["id"], row["store_id"], row["environment"])


# Remembering the question


async def keep_new_intent(db: Connection, envelope: Envelope, intent: Intent) -> None:
    """Write a new intent; a second active one for the order violates a unique index."""
    await db.execute(
        """
        INSERT INTO payment_intents (id, store_id, environment, order_id, snapshot_id, provider, provider_account, status, currency,
                                     requested_amount)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        intent.id,
        envelope.store_id,
        envelope.environment.value,
        intent.order_id,
        intent.snapshot_id,
        intent.provider,
        intent.provider_account,
        intent.status.value,
        intent.currency,
        intent.requested_amount,
    )


async def keep_question(
    db: Connection,
    envelope: Envelope,
    intent: Intent,
    transaction: Transaction,
    prepared: Prepared,
    *,
    idempotency_key: str,
    command_type: str,
    command_digest: bytes,
) -> Question:
    """Write a pending row with its exact call and our lease, before anything is sent."""
    await db.execute(
        """
        INSERT INTO payment_transactions (id, payment_intent_id, store_id, environment, operation, idempotency_key, command_id, answers,
                                          command_type, command_digest, provider_idempotency_key, provider_account, amount, final,
                                          status, source, reason, request, actor, correlation_id, lease_expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $11, $12, $13, 'pending', $14, $15, $16, $17, $18,
                now() + make_interval(secs => $19))
        """,
        transaction.id,
        intent.id,
        envelope.store_id,
        envelope.environment.value,
        transaction.operation.value,
        idempotency_key,
        envelope.id,
        command_type,
        command_digest,
        outbound_key(transaction.id),
        intent.provider_account,
        transaction.amount,
        transaction.final,
        transaction.source.value,
        transaction.reason,
        msgspec.json.encode(prepared),
        envelope.actor,
        envelope.correlation_id,
        LEASE_SECONDS,
    )
    return Question(
        transaction_id=transaction.id,
        intent_id=intent.id,
        order_id=intent.order_id,
        operation=transaction.operation,
        provider=intent.provider,
        provider_account=intent.provider_account,
        provider_payment_id=intent.provider_payment_id,
        prepared=prepared,
        idempotency_key=outbound_key(transaction.id),
        lease_token=1,
        looks=0,
        age_seconds=0,
        awaiting_customer=False,
        intent_abandoned=False,
        envelope=envelope,
        command_type=command_type,
        command_digest=command_digest,
    )


def outbound_key(transaction_id: UUID) -> str:
    """Derive the key a provider sees from our row's id, so that every repeat bears the same one."""
    return f"tender-{transaction_id}"


async def reserve(db: Connection, intent: Intent, transaction: Transaction) -> bool:
    """Reserve an amount for a capture or refund of ours, only if it is still there."""
    capture = transaction.amount if transaction.operation is Operation.CAPTURE else 0
    refund = transaction.amount if transaction.operation is Operation.REFUND else 0
    result = await db.execute(
        """
        UPDATE payment_intents
           SET capture_reserved = capture_reserved + $2, refund_reserved = refund_reserved + $3, version = version + 1, updated_at = now()
         WHERE id = $1
           AND ($2 = 0 OR authorized_amount - captured_amount - voided_amount - capture_reserved >= $2)
           AND ($3 = 0 OR captured_amount - refunded_amount - charged_back_amount - refund_reserved >= $3)
        """,
        intent.id,
        capture,
        refund,
    )
    return result == "UPDATE 1"


# Leases


async def renew(pool: Pool, question: Question) -> bool:
    """Keep our lease while the call is out; false when somebody else has taken it."""
    async with connected(pool) as db:
        result = await db.execute(
            """
            UPDATE payment_transactions
               SET lease_expires_at = now() + make_interval(secs => $3)
             WHERE id = $1 AND lease_token = $2
            """,
            question.transaction_id,
            question.lease_token,
            LEASE_SECONDS,
        )
    return result == "UPDATE 1"


_QUESTION = """
    t.id, t.payment_intent_id, i.order_id, t.operation, i.provider, t.provider_account, i.provider_payment_id, t.request,
    t.provider_idempotency_key, t.lease_token, t.looks, extract(epoch FROM now() - t.created_at)::float8 AS age_seconds,
    t.awaiting_customer, i.abandoned, t.answers, t.store_id, t.environment, t.actor, t.correlation_id, t.command_type, t.command_digest
"""


def _question(row: Record) -> Question:
    return Question(
        transaction_id=row["id"],
        intent_id=row["payment_intent_id"],
        order_id=row["order_id"],
        operation=Operation(row["operation"]),
        provider=row["provider"],
        provider_account=row["provider_account"],
        provider_payment_id=row["provider_payment_id"],
        prepared=msgspec.json.decode(row["request"], type=Prepared | None),
        idempotency_key=row["provider_idempotency_key"],
        lease_token=row["lease_token"],
        looks=row["looks"],
        age_seconds=row["age_seconds"],
        awaiting_customer=row["awaiting_customer"],
        intent_abandoned=row["abandoned"],
        envelope=Envelope(
            id=row["answers"],
            store_id=row["store_id"],
            environment=Environment(row["environment"]),
            source="gateway",
            actor=row["actor"],
            correlation_id=row["correlation_id"],
        ),
        command_type=row["command_type"],
        command_digest=row["command_digest"],
    )


async def continue_question(
    db: Connection, transaction_id: UUID, *, answers: Envelope, command_type: str, command_digest: bytes
) -> Question:
    """Take up an authorization that waited for its customer, for the command that now goes on with it."""
    row = await db.fetchrow(
        f"""
        UPDATE payment_transactions t
           SET awaiting_customer = false, answers = $2, command_type = $3, command_digest = $4, actor = $5, correlation_id = $6,
               lease_token = t.lease_token + 1, lease_expires_at = now() + make_interval(secs => $7)
          FROM payment_intents i
         WHERE i.id = t.payment_intent_id AND t.id = $1 AND t.awaiting_customer AND t.status IN ('pending', 'unknown')
        RETURNING {_QUESTION}
        """,
        transaction_id,
        answers.id,
        command_type,
        command_digest,
        answers.actor,
        answers.correlation_id,
        LEASE_SECONDS,
    )
    assert row is not None, "the row is locked with its intent and was seen waiting"
    return _question(row)


async def asked_before(db: Connection, envelope: Envelope) -> bool:
    """Tell whether a command already has its row in the ledger."""
    return bool(
        await db.fetchval(
            "SELECT EXISTS (SELECT FROM payment_transactions WHERE store_id = $1 AND environment = $2 AND command_id = $3)",
            envelope.store_id,
            envelope.environment.value,
            envelope.id,
        )
    )


async def is_answered_by(db: Connection, transaction_id: UUID, envelope: Envelope) -> bool:
    """Tell whether a row's conclusion will answer this command."""
    return bool(await db.fetchval("SELECT answers = $2 FROM payment_transactions WHERE id = $1", transaction_id, envelope.id))


async def question(db: Connection, transaction_id: UUID) -> Question:
    """Read a row as the question it is or was."""
    row = await db.fetchrow(
        f"""
        SELECT {_QUESTION}
          FROM payment_transactions t
          JOIN payment_intents i ON i.id = t.payment_intent_id
         WHERE t.id = $1
        """,
        transaction_id,
    )
    assert row is not None, "ledger rows are never deleted"
    return _question(row)


async def take_due(pool: Pool) -> list[Question]:
    """Take the lease of every open question that is due and that nobody works on."""
    async with connected(pool) as db:
        rows = await db.fetch(
            f"""
            UPDATE payment_transactions t
               SET lease_token = t.lease_token + 1, looks = t.looks + 1,
                   lease_expires_at = now() + make_interval(secs => $1)
              FROM payment_intents i
             WHERE i.id = t.payment_intent_id
               AND t.id = ANY(ARRAY(SELECT id
                                      FROM payment_transactions
                                     WHERE status IN ('pending', 'unknown') AND next_look_at <= now() AND lease_expires_at <= now()
                                     ORDER BY next_look_at
                                     LIMIT $2
                                       FOR UPDATE SKIP LOCKED))
            RETURNING {_QUESTION}
            """,
            LEASE_SECONDS,
            RESOLVE_ROWS_MAX,
        )
    return [_question(row) for row in rows]


async def take_one(db: Connection, transaction_id: UUID) -> Question | None:
    """Take the lease of one open question, unless somebody works on it."""
    row = await db.fetchrow(
        f"""
        UPDATE payment_transactions t
           SET lease_token = t.lease_token + 1, looks = t.looks + 1, lease_expires_at = now() + make_interval(secs => $2)
          FROM payment_intents i
         WHERE i.id = t.payment_intent_id AND t.id = $1 AND t.status IN ('pending', 'unknown') AND t.lease_expires_at <= now()
        RETURNING {_QUESTION}
        """,
        transaction_id,
        LEASE_SECONDS,
    )
    return None if row is None else _question(row)


async def mark_unknown(db: Connection, question: Question, *, look_again_seconds: float) -> bool:
    """Say that the outcome is not known yet and when to look again; only the lease's holder may."""
    result = await db.execute(
        """
        UPDATE payment_transactions
           SET status = CASE WHEN awaiting_customer THEN status ELSE 'unknown' END,
               lease_expires_at = now(), next_look_at = now() + make_interval(secs => $3)
         WHERE id = $1 AND lease_token = $2 AND status IN ('pending', 'unknown')
        """,
        question.transaction_id,
        question.lease_token,
        look_again_seconds,
    )
    return result == "UPDATE 1"


async def set_next_look(db: Connection, transaction_id: UUID, *, seconds: float) -> None:
    """Say when an open row that nobody works on is to be looked at."""
    await db.execute(
        "UPDATE payment_transactions SET next_look_at = now() + make_interval(secs => $2), lease_expires_at = now() WHERE id = $1",
        transaction_id,
        seconds,
    )


# Remembering the answer


async def keep_intent(db: Connection, intent: Intent) -> Intent:
    """Write an intent's new amounts, status and facts; returns it with its new version."""
    row = await db.fetchrow(
        """
        UPDATE payment_intents
           SET provider_payment_id = $2, status = $3, authorized_amount = $4, captured_amount = $5, refunded_amount = $6,
               voided_amount = $7, charged_back_amount = $8, capture_reserved = $9, refund_reserved = $10, attention = $11,
               next_action = $12, authorization_expires_at = $13, abandoned = $14, holds_order = $15,
               version = version + 1, updated_at = now()
         WHERE id = $1
        RETURNING *
        """,
        intent.id,
        intent.provider_payment_id,
        intent.status.value,
        intent.authorized_amount,
        intent.captured_amount,
        intent.refunded_amount,
        intent.voided_amount,
        intent.charged_back_amount,
        intent.capture_reserved,
        intent.refund_reserved,
        intent.attention,
        None if intent.next_action is None else _json(intent.next_action),
        intent.authorization_expires_at,
        intent.abandoned,
        intent.holds_order,
    )
    assert row is not None, "the intent is locked by this transaction"
    return _intent(row)


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
        [_json(t.raw) for t in changed],
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
            _json(transaction.raw),
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
        [_json(c.request) for c in calls],
        [_json(c.response) for c in calls],
        [c.status for c in calls],
        [c.latency_ms for c in calls],
        [c.attempt for c in calls],
        [c.classification.value for c in calls],
    )


# Jobs


async def abandon_old(db: Connection, *, after_seconds: float, limit: int) -> list[tuple[UUID, UUID, str]]:
    """List payments whose customer or provider has been silent past the age limit."""
    rows = await db.fetch(
        """
        SELECT id, store_id, environment
          FROM payment_intents
         WHERE status IN ('processing', 'requires_action') AND created_at < now() - make_interval(secs => $1)
         ORDER BY created_at
         LIMIT $2
        """,
        after_seconds,
        limit,
    )
    return [(row["id"], row["store_id"], row["environment"]) for row in rows]


async def to_give_back(db: Connection, *, limit: int) -> list[tuple[UUID, UUID, str]]:
    """List holds past their expiry and abandoned payments that succeeded late: what must be released or refunded."""
    rows = await db.fetch(
        """
        SELECT id, store_id, environment
          FROM payment_intents
         WHERE ((status IN ('authorized', 'partially_captured') AND authorization_expires_at <= now())
                OR (abandoned AND (authorized_amount > captured_amount + voided_amount
                                   OR captured_amount > refunded_amount + charged_back_amount)))
           AND NOT EXISTS (SELECT FROM payment_transactions t
                            WHERE t.payment_intent_id = payment_intents.id
                              AND (t.status IN ('pending', 'unknown')
                                   OR (t.source = 'job' AND t.status IN ('failed', 'declined')
                                       AND t.created_at > now() - make_interval(secs => $2))))
         LIMIT $1
        """,
        limit,
        GIVE_BACK_PAUSE_SECONDS,
    )
    return [(row["id"], row["store_id"], row["environment"]) for row in rows]


async def unknown_outcomes(db: Connection) -> tuple[int, float]:
    """Count the transactions whose outcome is not known, and the age of the oldest in seconds."""
    row = await db.fetchrow(
        """
        SELECT count(*) AS count, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS oldest
          FROM payment_transactions
         WHERE status = 'unknown'
        """
    )
    assert row is not None, "an aggregate without groups has one row"
    return int(row["count"]), float(row["oldest"])


async def keep_audit_partitions(db: Connection, *, months_ahead: int, months_kept: int) -> None:
    """Make the audit's coming months and drop the ones past retention."""
    await db.execute("SELECT keep_audit_partitions($1, $2)", months_ahead, months_kept)
