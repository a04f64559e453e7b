"""Payment intents in SQL: read under their lock, written with what was learnt, found by jobs."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from services.payments.domain.intents import Intent, IntentStatus, Operation, Transaction
from services.payments.domain.orders import OrderStatus, OrderSums
from services.payments.store import ledger
from services.payments.store.ledger import json_text, transaction_of
from shared.contracts.payments import IntentLedger, IntentView, NextAction
from shared.database import Connection, Record
from shared.messages import Envelope

# How long a provider's no to a release of ours is left alone before it is asked again.
GIVE_BACK_PAUSE_SECONDS = 3600.0


class Locked(msgspec.Struct, frozen=True, kw_only=True):
    """An intent under its row lock, with its ledger and its order's standing."""

    intent: Intent
    transactions: tuple[Transaction, ...]
    order_status: OrderStatus
    others: OrderSums


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


async def whole_ledger(db: Connection, envelope: Envelope, order_id: UUID) -> list[IntentLedger]:
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
            transactions=[ledger.view(row, intent["currency"]) for row in rows if row["payment_intent_id"] == intent["id"]],
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
        transactions=tuple(transaction_of(row) for row in transactions),
        order_status=OrderStatus(order["status"]),
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
        None if intent.next_action is None else json_text(intent.next_action),
        intent.authorization_expires_at,
        intent.abandoned,
        intent.holds_order,
    )
    assert row is not None, "the intent is locked by this transaction"
    return _intent(row)


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
