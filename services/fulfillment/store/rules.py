"""Tax rules in SQL."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from services.fulfillment.domain.tax.rules import Rule
from shared.contracts.fulfillment.tax import RuleBody, RuleView
from shared.database import Connection, Record, Statement
from shared.messages import Envelope

COLUMNS = tuple(Rule.__struct_fields__)
PERCENTS = ("rate_percent", "combined_max_percent")
LISTED = ", ".join(COLUMNS)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A rule as its row holds it."""

    id: UUID
    rule: Rule
    created_at: datetime


def _rule(row: Record) -> Rule:
    said = {name: row[name] for name in COLUMNS}
    for name in PERCENTS:
        said[name] = None if row[name] is None else Decimal(row[name]).normalize() + 0
    return msgspec.convert(said, Rule, strict=False)


def _kept(row: Record) -> Kept:
    return Kept(id=row["id"], rule=_rule(row), created_at=row["created_at"])


def view(kept: Kept) -> RuleView:
    """Show a rule."""
    said = msgspec.to_builtins(kept.rule)
    for name in PERCENTS:
        percent = getattr(kept.rule, name)
        said[name] = None if percent is None else f"{percent:f}"
    return RuleView(
        id=kept.id,
        version=kept.rule.version,
        rule=msgspec.convert({name: value for name, value in said.items() if name != "version"}, RuleBody),
        created_at=kept.created_at,
    )


async def of_countries(db: Connection, store_id: UUID, environment: str, countries: Sequence[str]) -> list[Rule]:
    """Read the rules in use of some countries."""
    rows = await db.fetch(
        f"""
        SELECT {LISTED}
          FROM tax_jurisdiction_rules
         WHERE store_id = $1 AND environment = $2 AND removed_at IS NULL AND country = ANY($3)
        """,
        store_id,
        environment,
        list(countries),
    )
    return [_rule(row) for row in rows]


async def in_use(db: Connection, store_id: UUID, environment: str) -> list[Kept]:
    """Read all rules in use."""
    rows = await db.fetch(
        f"SELECT id, created_at, {LISTED} FROM tax_jurisdiction_rules WHERE store_id = $1 AND environment = $2 AND removed_at IS NULL",
        store_id,
        environment,
    )
    return [_kept(row) for row in rows]


async def one(db: Connection, envelope: Envelope, rule_id: UUID) -> Kept | None:
    """Read a rule in use."""
    row = await db.fetchrow(
        f"""
        SELECT id, created_at, {LISTED}
          FROM tax_jurisdiction_rules
         WHERE id = $3 AND store_id = $1 AND environment = $2 AND removed_at IS NULL
        """,
        envelope.store_id,
        envelope.environment.value,
        rule_id,
    )
    return None if row is None else _kept(row)


async def page(
    db: Connection, envelope: Envelope, *, country: str | None, tax_code: str | None, on: date | None, after: UUID | None, limit: int
) -> list[Kept]:
    """Read a page of rules in use."""
    rows = await db.fetch(
        f"""
        SELECT id, created_at, {LISTED}
          FROM tax_jurisdiction_rules
         WHERE store_id = $1 AND environment = $2 AND removed_at IS NULL
           AND ($3::text IS NULL OR country = $3)
           AND ($4::text IS NULL OR tax_code = $4)
           AND ($5::date IS NULL OR (valid_from <= $5 AND (valid_to IS NULL OR valid_to >= $5)))
           AND ($6::uuid IS NULL OR id > $6)
         ORDER BY id
         LIMIT $7
        """,
        envelope.store_id,
        envelope.environment.value,
        country,
        tax_code,
        on,
        after,
        limit,
    )
    return [_kept(row) for row in rows]


def added(store_id: UUID, environment: str, rule: Rule, *, rule_id: UUID) -> Statement:
    """Write a rule; the same rule is not written twice."""
    values = [getattr(rule, name) for name in COLUMNS]
    places = ", ".join(f"${n}" for n in range(4, 4 + len(COLUMNS)))
    return Statement(
        f"""
        INSERT INTO tax_jurisdiction_rules (id, store_id, environment, {LISTED})
        VALUES ($1, $2, $3, {places})
        ON CONFLICT (store_id, environment, version) WHERE removed_at IS NULL DO NOTHING
        RETURNING id
        """,
        (rule_id, store_id, environment, *values),
        must=True,
    )


def removed(store_id: UUID, environment: str, ids: Sequence[UUID], *, must: bool = False) -> Statement:
    """Take rules out of use; one that must be there is one."""
    return Statement(
        """
        UPDATE tax_jurisdiction_rules
           SET removed_at = now()
         WHERE store_id = $1 AND environment = $2 AND id = ANY($3) AND removed_at IS NULL
        RETURNING id
        """,
        (store_id, environment, list(ids)),
        must=must,
    )


async def check(db: Connection, store_id: UUID, environment: str, rules: Sequence[Rule]) -> None:
    """Write down when rules in use were last compared with their source, inside the caller's transaction."""
    await db.execute(
        """
        UPDATE tax_jurisdiction_rules AS r
           SET checked_on = c.checked_on
          FROM unnest($3::text[], $4::date[]) AS c (version, checked_on)
         WHERE r.store_id = $1 AND r.environment = $2 AND r.version = c.version AND r.removed_at IS NULL
           AND r.checked_on IS DISTINCT FROM c.checked_on
        """,
        store_id,
        environment,
        [rule.version for rule in rules],
        [rule.checked_on for rule in rules],
    )


async def replace(
    db: Connection, store_id: UUID, environment: str, *, added_rules: Sequence[tuple[UUID, Rule]], removed_ids: Sequence[UUID]
) -> None:
    """Bring rules in and take others out as one, inside the caller's transaction."""
    out = removed(store_id, environment, removed_ids)
    await db.execute(out.sql, *out.arguments)
    records = [(rule_id, store_id, environment, *(getattr(rule, name) for name in COLUMNS)) for rule_id, rule in added_rules]
    await db.copy_records_to_table("tax_jurisdiction_rules", records=records, columns=("id", "store_id", "environment", *COLUMNS))
