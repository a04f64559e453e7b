"""Payment intents in SQL: seen as of one moment, written only if they are still so, found by jobs."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from services.payments.domain.intents import Intent, IntentStatus, Operation, Transaction
from services.payments.domain.orders import OrderStatus, OrderSums
from services.payments.store import ledger, settlements
from services.payments.store.ledger import RowFacts, json_text
from shared.contracts.payments import IntentLedger, IntentView
from shared.database import Connection, FetchRow, Statement
from shared.messages import Envelope

# How long a provider's no to a release of ours is left alone before it is asked again.
GIVE_BACK_PAUSE_SECONDS = 3600.0
# The clocks of two services' databases.
CLOCKS_DIFFER_SECONDS = 60.0


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """An intent as it stood at one moment, with its ledger and its order's standing; what is decided on it insists on that."""

    intent: Intent
    transactions: tuple[Transaction, ...]
    order_status: OrderStatus
    order_revision: int
    others: tuple[Intent, ...]
    order_total: int
    cancelled: bool
    now: datetime
    rows: str
    # A row just written, and by this process's monotonic clock when `now` was.
    just_asked: RowFacts | None = None
    read_at_seconds: float = msgspec.field(default_factory=time.monotonic)

    def facts(self, transaction_id: UUID) -> RowFacts:
        """Read what a row holds besides what the rules look at."""
        if self.just_asked is not None and self.just_asked.id == transaction_id:
            return self.just_asked
        return next(row for row in ledger.facts_decoder.decode(self.rows) if row.id == transaction_id)

    def after_asking(self, intent: Intent, row: Transaction, facts: RowFacts) -> "Seen":
        """Tell what will be there once a question of ours is written, if nobody else writes."""
        return msgspec.structs.replace(self, intent=intent, transactions=(*self.transactions, row), just_asked=facts)

    def at_present(self) -> "Seen":
        """Bring the database's clock up to now by what our own has counted since."""
        present = time.monotonic()
        passed = timedelta(seconds=present - self.read_at_seconds)
        return msgspec.structs.replace(self, now=self.now + passed, read_at_seconds=present)


intents_decoder = msgspec.json.Decoder(list[Intent])
# Every intent of an order as a JSON array, the oldest first.
INTENTS_AS_JSON = """
    (SELECT coalesce(json_agg(i ORDER BY i.id), '[]')
       FROM payment_intents i
      WHERE (i.store_id, i.environment, i.order_id) = (o.store_id, o.environment, o.id))::text
"""


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
        requested_amount=intent.requested_amount,
        overpaid_amount=intent.overpaid_amount,
        superseded=intent.superseded,
        attention=intent.attention,
        next_action=intent.next_action,
        authorization_expires_at=intent.authorization_expires_at,
        version=intent.version,
        created_at=intent.created_at,
        updated_at=intent.updated_at,
        provider_payment_id=intent.provider_payment_id,
    )


async def whole_ledger(db: Connection, envelope: Envelope, order_id: UUID) -> list[IntentLedger]:
    """Read every intent of an order with every row of its ledger, the oldest first."""
    found = await db.fetchval(
        f"SELECT {INTENTS_AS_JSON} FROM (SELECT $1::uuid, $2::text, $3::uuid) AS o (store_id, environment, id)",
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    intents = intents_decoder.decode(found)
    rows = await db.fetch(
        "SELECT * FROM payment_transactions WHERE payment_intent_id = ANY($1::uuid[]) ORDER BY id", [i.id for i in intents]
    )
    settled = await settlements.of_intents(db, [i.id for i in intents])
    return [
        IntentLedger(
            intent=view(intent),
            settlements=settled.get(intent.id, []),
            transactions=[ledger.view(row, intent.currency) for row in rows if row["payment_intent_id"] == intent.id],
        )
        for intent in intents
    ]


async def overpaid_amount(db: Connection, envelope: Envelope, order_id: UUID) -> int:
    """Add up what an order's payments took and it does not owe."""
    amount: int = await db.fetchval(
        """
        SELECT coalesce(sum(overpaid_amount), 0)::bigint
          FROM payment_intents
         WHERE store_id = $1 AND environment = $2 AND order_id = $3
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    return amount


async def see_intent(read: FetchRow, envelope: Envelope, intent_id: UUID, *, order_id: UUID | None = None) -> Seen | None:
    """Read an intent with its ledger and its order's standing, as of one moment."""
    row = await read(
        f"""
        SELECT asked.store_id, asked.environment, asked.order_id,
               o.status, o.total, (o.content->>'cancelled')::boolean AS cancelled, o.revision, now() AS now,
               {INTENTS_AS_JSON} AS intents, {ledger.ROWS_AS_JSON} AS rows
          FROM payment_intents asked
          JOIN orders o ON o.store_id = asked.store_id AND o.environment = asked.environment AND o.id = asked.order_id
         WHERE asked.id = $1
        """,
        intent_id,
    )
    # Compared here: in the statement they would offer the planner the index of a whole store's intents.
    owner = (envelope.store_id, envelope.environment.value)
    if row is None or (row["store_id"], row["environment"]) != owner or order_id not in (None, row["order_id"]):
        return None
    intents = intents_decoder.decode(row["intents"])
    return Seen(
        intent=next(intent for intent in intents if intent.id == intent_id),
        transactions=ledger.rows_decoder.decode(row["rows"]),
        order_status=OrderStatus(row["status"]),
        order_revision=row["revision"],
        others=tuple(i for i in intents if i.id != intent_id),
        order_total=row["total"],
        cancelled=bool(row["cancelled"]),
        now=row["now"],
        rows=row["rows"],
    )


def sums(intents: Sequence[Intent], *, total: int, cancelled: bool) -> OrderSums:
    """Add up what the intents of one order hold, took and gave back, but for those that the order went on without."""
    count = [i for i in intents if not (i.superseded or i.abandoned)]
    return OrderSums(
        # What was quoted and paid counts, which may hold shipping and tax that the order itself does not state.
        total=max((i.requested_amount for i in count if i.captured_amount), default=total),
        cancelled=cancelled,
        pending=any(i.status in (IntentStatus.PROCESSING, IntentStatus.REQUIRES_ACTION) for i in count),
        held=sum(i.held for i in count),
        captured=sum(i.captured_amount for i in count),
        free=any(i.free for i in count),
        returned=sum(i.returned for i in count),
    )


async def find_intent(
    db: Connection, *, provider_account: str, provider_payment_id: str, reference: UUID | None
) -> tuple[UUID, UUID, str] | None:
    """Find the intent a provider speaks of: its id, store and environment."""
    row = await db.fetchrow(
        """
        SELECT id, store_id, environment
          FROM payment_intents
         WHERE provider_account = $1 AND provider_payment_id = $2
         UNION ALL
        SELECT i.id, i.store_id, i.environment
          FROM payment_transactions t
          JOIN payment_intents i ON i.id = t.payment_intent_id
         WHERE t.id = $3 AND i.provider_account = $1
         LIMIT 1
        """,
        provider_account,
        provider_payment_id,
        reference,
    )
    return None if row is None else (row["id"], row["store_id"], row["environment"])


async def may_become_known(db: Connection, *, provider_account: str, reference: UUID | None, told_at: datetime) -> bool:
    """Tell whether a payment that is not known as its provider calls it may be ours all the same.

    Our row is written before its provider is asked, so it is there for a reference of ours; without one it may be any of which the
    provider's name is still to be learnt, and which was there when the provider spoke.
    """
    found: bool = await db.fetchval(
        """
        SELECT CASE WHEN $2::uuid IS NOT NULL THEN EXISTS (SELECT FROM payment_transactions WHERE id = $2)
                    ELSE EXISTS (SELECT
                                   FROM payment_transactions t
                                   JOIN payment_intents i ON i.id = t.payment_intent_id
                                  WHERE t.status IN ('pending', 'unknown') AND t.operation = 'authorize'
                                    AND t.created_at <= $3::timestamptz + make_interval(secs => $4)
                                    AND i.provider_account = $1 AND i.provider_payment_id IS NULL)
               END
        """,
        provider_account,
        reference,
        told_at,
        CLOCKS_DIFFER_SECONDS,
    )
    return found


def new_intent(envelope: Envelope, intent: Intent) -> Statement:
    """Write a new intent; a second active one for the order violates a unique index."""
    return Statement(
        """
        INSERT INTO payment_intents (id, store_id, environment, order_id, snapshot_id, provider, provider_account, status, currency,
                                     requested_amount, capture_wanted, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)
        """,
        (
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
            intent.capture_wanted,
            intent.created_at,
        ),
    )


def reserved(intent: Intent, transaction: Transaction) -> tuple[Intent, Statement]:
    """Reserve an amount for a capture or refund of ours, only if it is still there and the intent is as it was seen."""
    capture = transaction.amount if transaction.operation is Operation.CAPTURE else 0
    refund = transaction.amount if transaction.operation is Operation.REFUND else 0
    after = msgspec.structs.replace(
        intent,
        capture_reserved=intent.capture_reserved + capture,
        refund_reserved=intent.refund_reserved + refund,
        version=intent.version + 1,
    )
    return after, Statement(
        """
        UPDATE payment_intents
           SET capture_reserved = capture_reserved + $3, refund_reserved = refund_reserved + $4, version = version + 1, updated_at = now()
         WHERE id = $1 AND version = $2
           AND ($3::bigint = 0 OR authorized_amount - captured_amount - voided_amount - capture_reserved >= $3)
           AND ($4::bigint = 0 OR captured_amount - refunded_amount - charged_back_amount - refund_reserved >= $4)
        RETURNING id
        """,
        (intent.id, intent.version, capture, refund),
        must=True,
    )


def changed(before: Intent, after: Intent) -> Statement:
    """Write an intent's new amounts, status and facts, only if it is as it was seen; `after` is what it will be."""
    return Statement(
        """
        UPDATE payment_intents
           SET provider_payment_id = $3, status = $4, authorized_amount = $5, captured_amount = $6, refunded_amount = $7,
               voided_amount = $8, charged_back_amount = $9, capture_reserved = $10, refund_reserved = $11, attention = $12,
               next_action = $13, authorization_expires_at = $14, abandoned = $15, holds_order = $16,
               version = $17, updated_at = $18, overpaid_amount = $19, accepted = $20, superseded = $21, capture_wanted = $22
         WHERE id = $1 AND version = $2
        RETURNING id
        """,
        (
            after.id,
            before.version,
            after.provider_payment_id,
            after.status.value,
            after.authorized_amount,
            after.captured_amount,
            after.refunded_amount,
            after.voided_amount,
            after.charged_back_amount,
            after.capture_reserved,
            after.refund_reserved,
            after.attention,
            None if after.next_action is None else json_text(after.next_action),
            after.authorization_expires_at,
            after.abandoned,
            after.holds_order,
            after.version,
            after.updated_at,
            after.overpaid_amount,
            json_text(after.accepted),
            after.superseded,
            after.capture_wanted,
        ),
        must=True,
    )


def superseded(envelope: Envelope, order_id: UUID, *, but: UUID | None = None) -> Statement:
    """Say of an order's payments that it goes on without them; what they may still take is not owed."""
    return Statement(
        """
        UPDATE payment_intents
           SET superseded = true, version = version + 1, updated_at = now()
         WHERE store_id = $1 AND environment = $2 AND order_id = $3 AND id IS DISTINCT FROM $4 AND NOT superseded
           AND requested_amount > 0
        """,
        (envelope.store_id, envelope.environment.value, order_id, but),
    )


async def fits_its_order(db: Connection, intent_id: UUID) -> bool:
    """Tell whether an order is still what a payment of it was quoted for."""
    return bool(
        await db.fetchval(
            """
            SELECT s.priced_hash = o.priced_hash
              FROM payment_intents i
              JOIN order_checkout_snapshots s ON s.id = i.snapshot_id
              JOIN orders o ON (o.store_id, o.environment, o.id) = (i.store_id, i.environment, i.order_id)
             WHERE i.id = $1
            """,
            intent_id,
        )
    )


def unchanged(seen: Intent) -> Statement:
    """Insist that an intent is as it was seen, where something is written that was decided on it and does not change it."""
    return Statement("SELECT id FROM payment_intents WHERE id = $1 AND version = $2 FOR NO KEY UPDATE", (seen.id, seen.version), must=True)


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


async def to_capture(db: Connection, *, limit: int) -> list[tuple[UUID, UUID, str]]:
    """List submitted payments whose customer has acted and that nobody has gone on with."""
    rows = await db.fetch(
        """
        SELECT id, store_id, environment
          FROM payment_intents i
         WHERE capture_wanted AND status = 'authorized' AND NOT superseded
           AND NOT EXISTS (SELECT FROM payment_transactions t
                            WHERE t.payment_intent_id = i.id AND (t.operation = 'capture' OR t.status IN ('pending', 'unknown')))
         ORDER BY random()  -- Those that cannot be captured for long must not be all that is tried.
         LIMIT $1
        """,
        limit,
    )
    return [(row["id"], row["store_id"], row["environment"]) for row in rows]


async def to_give_back(db: Connection, *, limit: int) -> list[tuple[UUID, UUID, str]]:
    """List holds past their expiry and abandoned payments that succeeded late: what must be released or refunded."""
    rows = await db.fetch(
        """
        SELECT id, store_id, environment
          FROM (SELECT id, store_id, environment
                  FROM payment_intents
                 WHERE status IN ('authorized', 'partially_captured', 'partially_refunded')
                   AND authorized_amount > captured_amount + voided_amount
                   AND authorization_expires_at <= now()
                 UNION
                SELECT id, store_id, environment
                  FROM payment_intents
                 WHERE abandoned AND (authorized_amount > captured_amount + voided_amount
                                      OR (captured_amount > refunded_amount + charged_back_amount
                                          AND captured_amount > refunded_amount + charged_back_amount + refund_reserved))) AS due
         WHERE NOT EXISTS (SELECT FROM payment_transactions t
                            WHERE t.payment_intent_id = due.id
                              AND ((t.status IN ('pending', 'unknown') AND NOT (t.operation = 'refund' AND t.provider_txn_id IS NOT NULL))
                                   OR (t.source = 'job' AND t.status IN ('failed', 'declined')
                                       AND t.created_at > now() - make_interval(secs => $2))))
         LIMIT $1
        """,
        limit,
        GIVE_BACK_PAUSE_SECONDS,
    )
    return [(row["id"], row["store_id"], row["environment"]) for row in rows]
