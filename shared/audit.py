"""Audits: of calls to providers, the same table in every schema whose service makes them, and of what staff did, in every schema."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from shared.contracts.actions import ActionPage, ActionView, ListActions
from shared.contracts.calls import PAGE_ROWS_MAX, CallPage, CallView, ListCalls
from shared.database import Connection, Pool, Record, Statement, connected, transaction
from shared.http_client import Call
from shared.ids import new_id
from shared.messages import Envelope
from shared.telemetry import public_part

MONTHS_AHEAD = 3
MONTHS_KEPT = 13
KEEP_EVERY_SECONDS = 3600.0
BACKGROUND = "background."


def called(envelope: Envelope, transaction_id: UUID | None, calls: Sequence[Call]) -> list[Statement]:
    """Write the audit of calls made, a statement for each: they are few, and a row is written for half of what arrays cost."""
    return [
        Statement(
            """
            INSERT INTO provider_call_audit (id, store_id, environment, provider, operation, url_path, request, response, status,
                                             latency_ms, attempt, classification, correlation_id, transaction_id)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
            """,
            (
                new_id(),
                envelope.store_id,
                envelope.environment.value,
                call.provider,
                call.operation,
                call.path,
                _json(call.request),
                _json(call.response),
                call.status,
                call.latency_ms,
                call.attempt,
                call.classification.value,
                envelope.correlation_id,
                transaction_id,
            ),
        )
        for call in calls
    ]


# How far a page looks for calls that fit before it says where to look on.
SEARCHED_ROWS_MAX = 20_000


async def list_calls(envelope: Envelope, query: ListCalls, context: Any) -> CallPage:
    """Read a page of a store's calls, the newest first; the handler of every service that makes any."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        rows = await db.fetch(
            """
            WITH searched AS (
              SELECT id, provider, operation, classification, status, correlation_id
                FROM provider_call_audit
               WHERE store_id = $1 AND environment = $2 AND ($3::uuid IS NULL OR id < $3)
               ORDER BY id DESC
               LIMIT $4
            ), chosen AS (
              SELECT id
                FROM searched
               WHERE ($5::text IS NULL OR provider = $5) AND ($6::text IS NULL OR operation = $6)
                 AND ($7::text IS NULL OR classification = $7) AND ($8::integer IS NULL OR status >= $8)
                 AND ($9::text IS NULL OR correlation_id = $9)
               ORDER BY id DESC
               LIMIT $10
            ), last AS (
              SELECT count(*) AS searched, (array_agg(id ORDER BY id))[1] AS id FROM searched
            )
            SELECT c.id, c.provider, c.operation, c.url_path AS path, c.request, c.response, c.status, c.latency_ms, c.attempt,
                   c.classification, c.correlation_id, c.transaction_id, c.called_at, last.searched, last.id AS last_id
              FROM last
              LEFT JOIN (provider_call_audit c JOIN chosen ON chosen.id = c.id) ON c.store_id = $1 AND c.environment = $2
             ORDER BY c.id DESC
            """,
            envelope.store_id,
            envelope.environment.value,
            query.before,
            SEARCHED_ROWS_MAX,
            query.provider,
            query.operation,
            query.classification,
            query.status_from,
            query.correlation_id,
            limit + 1,
        )
    found = [_call(row) for row in rows if row["id"] is not None]
    if len(found) > limit:
        return CallPage(calls=found[:limit], next=found[limit - 1].id)
    return CallPage(calls=found, next=rows[0]["last_id"] if rows[0]["searched"] == SEARCHED_ROWS_MAX else None)


def _call(row: Record) -> CallView:
    facts = {name: row[name] for name in CallView.__struct_fields__}
    return CallView(**{**facts, "request": msgspec.json.decode(facts["request"]), "response": msgspec.json.decode(facts["response"])})


async def list_actions(pool: Pool, envelope: Envelope, query: ListActions) -> ActionPage:
    """Read a page of what a store's staff had a service do, the newest first."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(pool) as db:
        rows = await db.fetch(
            """
            WITH searched AS (
              SELECT id, actor, action, subject
                FROM admin_audit
               WHERE store_id = $1 AND environment = $2 AND ($3::uuid IS NULL OR id < $3)
               ORDER BY id DESC
               LIMIT $4
            ), chosen AS (
              SELECT id
                FROM searched
               WHERE $5::text IS NULL OR position($5 IN actor || ' ' || action || ' ' || subject) > 0
               ORDER BY id DESC
               LIMIT $6
            ), last AS (
              SELECT count(*) AS searched, (array_agg(id ORDER BY id))[1] AS id FROM searched
            )
            SELECT a.*, last.searched, last.id AS last_id
              FROM last
              LEFT JOIN (admin_audit a JOIN chosen ON chosen.id = a.id) ON true
             ORDER BY a.id DESC
            """,
            envelope.store_id,
            envelope.environment.value,
            query.before,
            SEARCHED_ROWS_MAX,
            query.text,
            limit + 1,
        )
    found = [_action(row) for row in rows if row["id"] is not None]
    if len(found) > limit:
        return ActionPage(actions=found[:limit], next=found[limit - 1].id)
    return ActionPage(actions=found, next=rows[0]["last_id"] if rows[0]["searched"] == SEARCHED_ROWS_MAX else None)


def _action(row: Record) -> ActionView:
    facts = {name: row[name] for name in ActionView.__struct_fields__ if name != "service"}
    return ActionView(**{**facts, **{name: facts[name] and msgspec.json.decode(facts[name]) for name in ("before", "after")}})


STAFF = ("support:", "finance:", "admin:", "operator:")


def by_staff(envelope: Envelope, kind: str) -> bool:
    """Tell whether somebody of the staff asked for a command themselves; background work only follows from what they asked for."""
    return envelope.actor.startswith(STAFF) and not kind.startswith(BACKGROUND)


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
            None if before is None else _json(_public(msgspec.to_builtins(before))),
            None if after is None else _json(_public(msgspec.to_builtins(after))),
            reason,
            envelope.correlation_id,
        ),
    )


def _public(value: Any) -> Any:
    """Copy a row's value without the queries and credentials of the URLs in it, where tokens often are."""
    match value:
        case str():
            return public_part(value) if value.startswith(("http://", "https://")) else value
        case dict():
            return {name: _public(each) for name, each in value.items()}
        case list() | tuple():
            return [_public(each) for each in value]
    return value


async def insert_action(pool: Pool, envelope: Envelope, action: str, subject: str, *, after: Any = None) -> None:
    """Insert the row of an action that no handler's transaction writes; once for its envelope's id."""
    row = acted(envelope, action, subject, after=after)
    async with transaction(pool) as db:
        await db.execute(row.sql, *row.arguments)


def subject_of(command: Any) -> str:
    """Name what a command or query is about: its ids."""
    named = ((name, getattr(command, name)) for name in command.__struct_fields__ if name.endswith("_id"))
    return ", ".join(f"{name}={value}" for name, value in named if value is not None)


def refused(code: str) -> dict[str, str]:
    """Say in a row's `after` that nothing was changed, and why, by the problem's code."""
    return {"refused": code}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


async def keep_partitions(db: Connection) -> None:
    """Make the audit's coming months and drop the ones past retention."""
    await db.execute("SELECT keep_audit_partitions($1, $2)", MONTHS_AHEAD, MONTHS_KEPT)
