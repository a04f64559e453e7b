"""Audits: of calls to providers, the same table in every schema whose service makes them, and of what staff did, in every schema."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from shared.database import Connection, Statement
from shared.http_client import Call
from shared.ids import new_id
from shared.messages import Envelope

MONTHS_AHEAD = 3
MONTHS_KEPT = 13
KEEP_EVERY_SECONDS = 3600.0


def called(envelope: Envelope, transaction_id: UUID | None, calls: Sequence[Call]) -> Statement:
    """Write the audit of calls made."""
    return Statement(
        """
        INSERT INTO provider_call_audit (id, store_id, environment, provider, operation, url_path, request, response, status, latency_ms,
                                         attempt, classification, correlation_id, transaction_id)
        SELECT id, $2, $3, provider, operation, path, request::jsonb, response::jsonb, status, latency, attempt, classification, $4, $5
          FROM unnest($1::uuid[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::integer[], $12::integer[],
                      $13::integer[], $14::text[])
               AS t (id, provider, operation, path, request, response, status, latency, attempt, classification)
        """,
        (
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
        ),
    )


STAFF = ("admin:", "operator:")


def acted(envelope: Envelope, action: str, subject: str, *, before: Any = None, after: Any = None, reason: str = "") -> Statement:
    """Write down what somebody did to what, and how it was before and after; never a secret. A command leaves one row."""
    return Statement(
        """
        INSERT INTO admin_audit (id, store_id, environment, actor, action, subject, before, after, reason, correlation_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ON CONFLICT (id) DO NOTHING
        """,
        (
            envelope.id,
            envelope.store_id,
            envelope.environment.value,
            envelope.actor,
            action,
            subject,
            None if before is None else _json(before),
            None if after is None else _json(after),
            reason,
            envelope.correlation_id,
        ),
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


async def keep_partitions(db: Connection) -> None:
    """Make the audit's coming months and drop the ones past retention."""
    await db.execute("SELECT keep_audit_partitions($1, $2)", MONTHS_AHEAD, MONTHS_KEPT)
