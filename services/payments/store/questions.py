"""Open questions to providers in SQL: the exact call, the lease on it, and when to look again."""

import time
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from services.payments.domain.intents import Intent, Operation, Transaction
from services.payments.providers import Prepared
from services.payments.store.ledger import RowFacts, json_text
from shared.contracts.calls import TriedCall
from shared.contracts.payments import UnknownView
from shared.database import Connection, Pool, Record, Statement, connected
from shared.messages import Envelope, Environment
from shared.turns import due_in_turns

RESOLVE_ROWS_MAX = 50
# Of each operation that an operator is shown.
TRIED_CALLS_MAX = 20


class Asked(msgspec.Struct, frozen=True):
    """A question about to be written: how, and what the ledger will say of it."""

    question: "Question"
    statement: Statement
    row: Transaction
    facts: RowFacts


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """An open question to a provider: the row, the exact call, the lease, and whom the answer belongs to."""

    transaction_id: UUID
    intent_id: UUID
    order_id: UUID
    operation: Operation
    provider: str
    provider_account: str
    provider_payment_id: str | None
    # What the provider calls the operation, once it has shown it.
    provider_txn_id: str | None
    prepared: Prepared | None
    # The same as it lies in the row, wrapped for ourselves.
    request: bytes
    idempotency_key: str
    lease_token: int
    looks: int
    age_seconds: float
    awaiting_customer: bool
    intent_abandoned: bool
    envelope: Envelope
    command_type: str
    command_digest: bytes
    # By this process's monotonic clock: when our lease was taken or last renewed before asking.
    leased_at_seconds: float = msgspec.field(default_factory=time.monotonic)


def asked(
    envelope: Envelope,
    intent: Intent,
    transaction: Transaction,
    prepared: Prepared,
    *,
    request: bytes,
    idempotency_key: str,
    command_type: str,
    command_digest: bytes,
    lease_seconds: float,
    now: datetime,
) -> Asked:
    """Write a pending row with its exact call and our lease, before anything is sent."""
    statement = Statement(
        """
        INSERT INTO payment_transactions (id, payment_intent_id, store_id, environment, operation, idempotency_key, command_id, answers,
                                          command_type, command_digest, provider_idempotency_key, provider_account, amount, final,
                                          status, source, reason, request, actor, correlation_id, lease_expires_at, created_at, lines)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $11, $12, $13, 'pending', $14, $15, $16, $17, $18,
                now() + make_interval(secs => $19), $20, $21)
        """,
        (
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
            request,
            envelope.actor,
            envelope.correlation_id,
            lease_seconds,
            now,
            json_text(transaction.lines),
        ),
    )
    question = Question(
        transaction_id=transaction.id,
        intent_id=intent.id,
        order_id=intent.order_id,
        operation=transaction.operation,
        provider=intent.provider,
        provider_account=intent.provider_account,
        provider_payment_id=intent.provider_payment_id,
        provider_txn_id=None,
        prepared=prepared,
        request=request,
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
    row = msgspec.structs.replace(transaction, command_id=envelope.id, idempotency_key=idempotency_key)
    facts = RowFacts(
        id=transaction.id,
        answers=envelope.id,
        command_type=command_type,
        command_digest=command_digest.hex(),
        actor=envelope.actor,
        correlation_id=envelope.correlation_id,
        created_at=now,
        concluded_at=None,
    )
    return Asked(question, statement, row, facts)


def outbound_key(transaction_id: UUID) -> str:
    """Derive the key a provider sees from our row's id, so that every repeat bears the same one."""
    return f"tender-{transaction_id}"


async def renew(pool: Pool, question: Question, *, lease_seconds: float) -> bool:
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
            lease_seconds,
        )
    return result == "UPDATE 1"


_QUESTION = """
    t.id, t.payment_intent_id, i.order_id, t.operation, i.provider, t.provider_account, i.provider_payment_id, t.provider_txn_id, t.request,
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
        provider_txn_id=row["provider_txn_id"],
        prepared=None,
        request=row["request"],
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


def continued(
    intent: Intent, transaction: Transaction, *, answers: Envelope, command_type: str, command_digest: bytes, lease_seconds: float
) -> Statement:
    """Take up an authorization that waited for its customer, for the command that now goes on with it."""
    return Statement(
        """
        UPDATE payment_transactions t
           SET awaiting_customer = false, answers = $2, command_type = $3, command_digest = $4, actor = $5, correlation_id = $6,
               lease_token = t.lease_token + 1, lease_expires_at = now() + make_interval(secs => $7),
               -- The pause of waiting for a customer is over: after a crash the first look comes with the end of the lease.
               next_look_at = now()
         WHERE t.id = $1 AND t.payment_intent_id = $8 AND t.awaiting_customer AND t.status IN ('pending', 'unknown')
        RETURNING id
        """,
        (
            transaction.id,
            answers.id,
            command_type,
            command_digest,
            answers.actor,
            answers.correlation_id,
            lease_seconds,
            intent.id,
        ),
        must=True,
    )


async def question(pool: Pool, transaction_id: UUID) -> Question:
    """Read a row as the question it is or was."""
    async with connected(pool) as db:
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


_DUE = due_in_turns(
    "payment_transactions", "status IN ('pending', 'unknown') AND next_look_at <= now() AND lease_expires_at <= now()", limit="$2"
)


async def take_due(pool: Pool, *, lease_seconds: float) -> list[Question]:
    """Take the lease of open questions that are due and free, the stores in turns."""
    async with connected(pool) as db:
        rows = await db.fetch(
            f"""
            UPDATE payment_transactions t
               SET lease_token = t.lease_token + 1, looks = t.looks + 1,
                   lease_expires_at = now() + make_interval(secs => $1)
              FROM payment_intents i
             WHERE i.id = t.payment_intent_id
               AND t.id = ANY(ARRAY({_DUE}))
            RETURNING {_QUESTION}
            """,
            lease_seconds,
            RESOLVE_ROWS_MAX,
        )
    return [_question(row) for row in rows]


async def take_one(pool: Pool, transaction_id: UUID, *, lease_seconds: float) -> Question | None:
    """Take the lease of one open question, unless somebody works on it."""
    async with connected(pool) as db:
        row = await db.fetchrow(
            f"""
            UPDATE payment_transactions t
               SET lease_token = t.lease_token + 1, looks = t.looks + 1, lease_expires_at = now() + make_interval(secs => $2)
              FROM payment_intents i
             WHERE i.id = t.payment_intent_id AND t.id = $1 AND t.status IN ('pending', 'unknown') AND t.lease_expires_at <= now()
            RETURNING {_QUESTION}
            """,
            transaction_id,
            lease_seconds,
        )
    return None if row is None else _question(row)


def unknown(question: Question, *, look_again_seconds: float) -> Statement:
    """Say that the outcome is not known yet and when to look again; only the lease's holder may."""
    return Statement(
        """
        UPDATE payment_transactions
           -- A refund that its provider has stays pending: what it does not say today it will say another day.
           SET status = CASE WHEN awaiting_customer OR (operation = 'refund' AND provider_txn_id IS NOT NULL) THEN status
                             ELSE 'unknown' END,
               lease_expires_at = now(), next_look_at = now() + make_interval(secs => $3)
         WHERE id = $1 AND lease_token = $2 AND status IN ('pending', 'unknown')
        """,
        (question.transaction_id, question.lease_token, look_again_seconds),
    )


async def list_unknown(db: Connection, envelope: Envelope, *, provider: str | None, after: UUID | None, limit: int) -> list[UnknownView]:
    """Read a page of a store's operations whose outcome is not known, the oldest first, each with its latest calls."""
    rows = await db.fetch(
        """
        SELECT t.id AS transaction_id, t.payment_intent_id AS intent_id, i.order_id, i.provider, i.provider_payment_id, t.operation,
               t.amount, i.currency, extract(epoch FROM now() - t.created_at)::float8 AS age_seconds, t.looks, t.next_look_at, t.created_at,
               (SELECT coalesce(json_agg(c ORDER BY c.called_at), '[]')
                  FROM (SELECT operation, classification, status, called_at
                          FROM provider_call_audit
                         WHERE transaction_id = t.id
                         ORDER BY called_at DESC
                         LIMIT $5) AS c)::text AS tried
          FROM payment_transactions t
          JOIN payment_intents i ON i.id = t.payment_intent_id
         WHERE t.status = 'unknown' AND t.store_id = $1 AND t.environment = $2 AND ($3::uuid IS NULL OR t.id > $3)
           AND ($6::text IS NULL OR i.provider = $6)
         ORDER BY t.id
         LIMIT $4
        """,
        envelope.store_id,
        envelope.environment.value,
        after,
        limit,
        TRIED_CALLS_MAX,
        provider,
    )
    return [UnknownView(**{**dict(row), "tried": msgspec.json.decode(row["tried"], type=list[TriedCall])}) for row in rows]


async def decided_on(db: Connection, envelope: Envelope, transaction_id: UUID) -> tuple[UUID, bool, dict[str, Any]] | None:
    """Tell of a store's operation its intent, whether it is open, and what was heard of it."""
    row = await db.fetchrow(
        """
        SELECT payment_intent_id, status IN ('pending', 'unknown') AS open, raw_response_redacted
          FROM payment_transactions
         WHERE id = $1 AND store_id IS NOT DISTINCT FROM $2 AND environment IS NOT DISTINCT FROM $3
        """,
        transaction_id,
        envelope.store_id,
        envelope.environment.value,
    )
    return None if row is None else (row["payment_intent_id"], row["open"], msgspec.json.decode(row["raw_response_redacted"]))


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


def request_of(prepared: Prepared) -> str:
    """Write an exact call as a row holds it, before it is wrapped."""
    return msgspec.json.encode(prepared).decode()


def prepared_of(request: str) -> Prepared | None:
    """Read an exact call; nothing where a row is about no call of ours."""
    return msgspec.json.decode(request, type=Prepared | None)


async def may_have_left(db: Connection, envelope: Envelope) -> bool:
    """Tell whether a provider may have been called for a command: its row is written before the call."""
    found: bool = await db.fetchval(
        """
        SELECT EXISTS (SELECT FROM payment_transactions WHERE store_id = $1 AND environment = $2 AND command_id = $3)
            OR EXISTS (SELECT FROM payment_transactions WHERE status IN ('pending', 'unknown') AND answers = $3)
        """,
        envelope.store_id,
        envelope.environment.value,
        envelope.id,
    )
    return found
