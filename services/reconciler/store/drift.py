"""Differences in SQL: one row as long as a difference lasts, whoever meets it again."""

import hashlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from services.reconciler.domain.comparing import Difference
from services.reconciler.store.runs import Run
from shared.contracts.books import Domain
from shared.contracts.reconciler import DriftView, ListDrift
from shared.database import Connection, Record, Statement
from shared.ids import new_id
from shared.messages import Envelope

_SHOWN = (
    "id, domain, provider, type, key, entry, ours, theirs, order_id, status, first_run_id, last_run_id, first_seen_at, last_seen_at,"
    " settled_at, resolution, reason, actor"
)


class Found(msgspec.Struct, frozen=True):
    """A difference with whose order it is about, and whether it was there only until our books learnt of it."""

    difference: Difference
    order_id: UUID | None
    healed: bool


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _evidence(difference: Difference) -> bytes:
    return hashlib.sha256(msgspec.json.encode([difference.ours, difference.theirs])).digest()


def met(run: Run, found: Sequence[Found]) -> Statement:
    """Write differences down; those known already are met again."""
    return Statement(
        """
        INSERT INTO drift_items (id, store_id, environment, domain, provider, type, key, entry, ours, theirs, evidence_hash, order_id,
                                 first_run_id, last_run_id)
        SELECT t.id, $1, $2, $3, $4, t.type, t.key, t.entry, t.ours::jsonb, t.theirs::jsonb, t.evidence, t.order_id, $5, $5
          FROM unnest($6::uuid[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::bytea[], $13::uuid[])
               AS t (id, type, key, entry, ours, theirs, evidence, order_id)
        ON CONFLICT (store_id, environment, domain, provider, key, entry, type, evidence_hash) WHERE status <> 'healed' DO UPDATE
           SET last_run_id = EXCLUDED.last_run_id, last_seen_at = now()
        """,
        (
            run.store_id,
            run.environment.value,
            run.domain.value,
            run.provider,
            run.id,
            [new_id() for _ in found],
            [f.difference.type.value for f in found],
            [f.difference.key for f in found],
            [f.difference.entry for f in found],
            [_json(f.difference.ours) for f in found],
            [_json(f.difference.theirs) for f in found],
            [_evidence(f.difference) for f in found],
            [f.order_id for f in found],
        ),
    )


def healed(run: Run, found: Sequence[Found]) -> Statement:
    """Write down differences that our books have just learnt of: they are seen and gone in one."""
    return Statement(
        """
        INSERT INTO drift_items (id, store_id, environment, domain, provider, type, key, entry, ours, theirs, evidence_hash, order_id,
                                 first_run_id, last_run_id, status, settled_at, resolution, actor)
        SELECT t.id, $1, $2, $3, $4, t.type, t.key, t.entry, t.ours::jsonb, t.theirs::jsonb, t.evidence, t.order_id, $5, $5,
               'healed', now(), 'observed', 'reconciler'
          FROM unnest($6::uuid[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::bytea[], $13::uuid[])
               AS t (id, type, key, entry, ours, theirs, evidence, order_id)
         -- One that lay open until now is settled where it lies.
         WHERE NOT EXISTS (SELECT FROM drift_items d
                            WHERE (d.store_id, d.environment, d.domain, d.provider) = ($1, $2, $3, $4) AND d.status <> 'healed'
                              AND (d.key, d.entry, d.type, d.evidence_hash) = (t.key, t.entry, t.type, t.evidence))
        """,
        met(run, found).arguments,
    )


def gone(run: Run, keys: Sequence[str], still: Sequence[Found]) -> Statement:
    """Settle the open differences of things that were compared and do not differ like that any more; keys come as compared."""
    return Statement(
        """
        UPDATE drift_items d
           SET status = 'healed', settled_at = now(), resolution = 'agrees', actor = 'reconciler', last_run_id = $5
         WHERE d.store_id = $1 AND d.environment = $2 AND d.domain = $3 AND d.provider = $4 AND d.status = 'open'
           AND d.key = ANY($6::text[])
           AND NOT EXISTS (SELECT FROM unnest($7::text[], $8::text[], $9::text[], $10::bytea[]) AS s (key, entry, type, evidence)
                            WHERE (s.key, s.entry, s.type, s.evidence) = (d.key, d.entry, d.type, d.evidence_hash))
        """,
        (
            run.store_id,
            run.environment.value,
            run.domain.value,
            run.provider,
            run.id,
            list(keys),
            [f.difference.key for f in still],
            [f.difference.entry for f in still],
            [f.difference.type.value for f in still],
            [_evidence(f.difference) for f in still],
        ),
    )


def resolved(envelope: Envelope, drift_id: UUID, *, resolution: str, reason: str) -> Statement:
    """Settle a difference by an operator's word, unless it was settled meanwhile."""
    return Statement(
        """
        UPDATE drift_items
           SET status = 'resolved', settled_at = now(), resolution = $2, reason = $3, actor = $4
         WHERE id = $1 AND status = 'open'
        RETURNING id
        """,
        (drift_id, resolution, reason, envelope.actor),
        must=True,
    )


def _view(row: Record) -> DriftView:
    facts = dict(row)
    for side in ("ours", "theirs"):
        facts[side] = None if facts[side] is None else msgspec.json.decode(facts[side])
    return DriftView(**{**facts, "domain": Domain(facts["domain"])})


async def page(db: Connection, envelope: Envelope, query: ListDrift, *, limit: int) -> list[DriftView]:
    """Read a page of a store's differences, the newest first."""
    rows = await db.fetch(
        f"""
        SELECT {_SHOWN}
          FROM drift_items
         WHERE store_id = $1 AND environment = $2 AND ($3::text IS NULL OR status = $3) AND ($4::text IS NULL OR domain = $4)
           AND ($5::text IS NULL OR type = $5) AND ($6::uuid IS NULL OR $6 IN (first_run_id, last_run_id)) AND ($7::uuid IS NULL OR id < $7)
         ORDER BY id DESC
         LIMIT $8
        """,
        envelope.store_id,
        envelope.environment.value,
        query.status,
        None if query.domain is None else query.domain.value,
        query.drift_type,
        query.run_id,
        query.before,
        limit,
    )
    return [_view(row) for row in rows]


async def one(db: Connection, envelope: Envelope, drift_id: UUID) -> DriftView | None:
    """Read a difference of a store's."""
    row = await db.fetchrow(
        f"SELECT {_SHOWN} FROM drift_items WHERE id = $1 AND store_id IS NOT DISTINCT FROM $2 AND environment IS NOT DISTINCT FROM $3",
        drift_id,
        envelope.store_id,
        envelope.environment.value,
    )
    return None if row is None else _view(row)


async def open_counts(db: Connection) -> list[tuple[str, str, int, float]]:
    """Count open differences by domain and type, with the age of the oldest in seconds."""
    rows = await db.fetch(
        """
        SELECT domain, type, count(*) AS count, extract(epoch FROM now() - min(first_seen_at))::float8 AS oldest
          FROM drift_items
         WHERE status = 'open'
         GROUP BY domain, type
        """
    )
    return [(row["domain"], row["type"], row["count"], row["oldest"]) for row in rows]
