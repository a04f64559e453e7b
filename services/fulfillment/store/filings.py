"""Tax documents to be recorded at a provider, in SQL."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec

from services.fulfillment.providers.tax_books import FiledLine, TaxFiling, TaxParties
from shared.database import Connection, Record, Statement, each_there
from shared.messages import Envelope, Environment

DUE_ROWS_MAX = 20
ERROR_MAX_CHARACTERS = 1000


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A document to record, under our lease."""

    document_id: UUID
    store_id: UUID
    environment: Environment
    provider: str
    looks: int
    lease_token: int
    correlation_id: str
    filing: TaxFiling

    def envelope(self) -> Envelope:
        """Say for whom it is recorded."""
        return Envelope(
            id=self.document_id,
            store_id=self.store_id,
            environment=self.environment,
            source="fulfillment",
            actor="job:filing",
            correlation_id=self.correlation_id,
        )


def to_file(envelope: Envelope, document_id: UUID, provider: str, parties: TaxParties | None) -> Statement:
    """Promise to record a document at a provider; a reversal's parties are its sale's."""
    return Statement(
        "INSERT INTO tax_filings (document_id, store_id, environment, provider, parties) VALUES ($1, $2, $3, $4, $5)",
        (
            document_id,
            envelope.store_id,
            envelope.environment.value,
            provider,
            None if parties is None else msgspec.json.encode(parties).decode(),
        ),
    )


# A document with what a provider is told of it; a line's net price is what its customer paid without its tax.
_FILING = """
    d.kind, d.currency, d.created_at, d.reverses, d.correlation_id, d.line_amounts,
    coalesce(f.parties, s.parties)::text AS parties,
    (SELECT coalesce(json_agg(l ORDER BY l.position), '[]')
       FROM (SELECT min(position) AS position, line, sum(amount)::bigint AS tax_amount, min(tax_code) AS tax_code
               FROM order_tax_lines
              WHERE document_id = d.id
              GROUP BY line) AS l)::text AS lines
"""


async def take_due(db: Connection, *, lease_seconds: float) -> list[Due]:
    """Take the lease on documents that are due; a reversal waits for its sale."""
    rows = await db.fetch(
        f"""
        WITH taken AS (
          UPDATE tax_filings
             SET lease_token = lease_token + 1, lease_expires_at = now() + make_interval(secs => $1), looks = looks + 1
           WHERE document_id = ANY(ARRAY(
                 SELECT f.document_id
                   FROM tax_filings f
                   JOIN tax_documents d ON d.id = f.document_id
                   LEFT JOIN tax_filings sale ON sale.document_id = d.reverses
                  WHERE f.status = 'pending' AND f.next_look_at <= now() AND f.lease_expires_at <= now()
                    AND (d.reverses IS NULL OR sale.status = 'filed')
                  ORDER BY f.next_look_at
                  LIMIT $2
                    FOR UPDATE OF f SKIP LOCKED))
          RETURNING *)
        SELECT f.document_id, f.store_id, f.environment, f.provider, f.looks, f.lease_token, {_FILING}
          FROM taken f
          JOIN tax_documents d ON d.id = f.document_id
          LEFT JOIN tax_filings s ON s.document_id = d.reverses
        """,
        lease_seconds,
        DUE_ROWS_MAX,
    )
    return [_due(row) for row in rows]


def _due(row: Record) -> Due:
    return Due(
        document_id=row["document_id"],
        store_id=row["store_id"],
        environment=Environment(row["environment"]),
        provider=row["provider"],
        looks=row["looks"],
        lease_token=row["lease_token"],
        correlation_id=row["correlation_id"],
        filing=TaxFiling(
            document_id=row["document_id"],
            kind=_kind_of(row),
            currency=row["currency"],
            recorded_at=row["created_at"],
            parties=msgspec.json.decode(row["parties"], type=TaxParties),
            lines=lines_of(msgspec.json.decode(row["lines"]), msgspec.json.decode(row["line_amounts"]), reversal=row["kind"] == "reversal"),
            reverses=row["reverses"],
        ),
    )


def _kind_of(row: Record) -> str:
    # To a provider, what is sold again after all is a sale.
    return "sale" if row["kind"] == "reinstatement" else str(row["kind"])


def lines_of(taxes: list[dict[str, object]], paid: Mapping[str, int], *, reversal: bool) -> tuple[FiledLine, ...]:
    """Work out each line's price without its tax from what was paid for it, or went back."""
    by_line = {"shipping" if each["line"] is None else str(each["line"]): each for each in taxes}
    sign = -1 if reversal else 1
    lines = []
    for name, amount in _of_sale(paid).items():
        said = by_line.get(name, {})
        tax = int(str(said.get("tax_amount", 0)))
        lines.append(
            FiledLine(
                line=None if name == "shipping" else int(name),
                net_amount=sign * amount - tax,
                tax_amount=tax,
                tax_code=str(said.get("tax_code") or ""),
            )
        )
    return tuple(lines)


def _of_sale(paid: Mapping[str, int]) -> dict[str, int]:
    """Leave out what rounds a total, which is no part of a sale as providers know it."""
    return {name: amount for name, amount in paid.items() if name == "shipping" or name.isdecimal()}


def filed(due: Due) -> Statement:
    """Say that a document is recorded; must be the one who recorded it."""
    return Statement(
        """
        UPDATE tax_filings SET status = 'filed', filed_at = now(), last_error = NULL
         WHERE document_id = $1 AND lease_token = $2 AND status = 'pending'
        RETURNING document_id
        """,
        (due.document_id, due.lease_token),
        must=True,
    )


def refused(due: Due, error: str) -> Statement:
    """Say that the provider will not record a document."""
    return Statement(
        "UPDATE tax_filings SET status = 'refused', last_error = $3 WHERE document_id = $1 AND lease_token = $2 AND status = 'pending'",
        (due.document_id, due.lease_token, error[:ERROR_MAX_CHARACTERS]),
    )


def put_off(due: Due, error: str, *, again_seconds: float) -> Statement:
    """Let a document go that could not be recorded now."""
    return Statement(
        """
        UPDATE tax_filings
           SET last_error = $3, lease_expires_at = now(), next_look_at = now() + make_interval(secs => $4)
         WHERE document_id = $1 AND lease_token = $2 AND status = 'pending'
        """,
        (due.document_id, due.lease_token, error[:ERROR_MAX_CHARACTERS], again_seconds),
    )


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A document of ours as it is compared with a provider's."""

    id: UUID
    store_id: UUID
    environment: str
    order_id: UUID
    kind: str
    currency: str
    created_at: datetime
    status: str
    net_amount: int
    tax_amount: int


async def by_ids(db: Connection, ids: list[UUID], provider: str) -> list[Kept]:
    """Read documents that a provider may know, whosever they are."""
    rows = await db.fetch(
        """
        SELECT d.id, d.store_id, d.environment, d.order_id, d.kind, d.currency, d.created_at, f.status, d.tax_amount, d.line_amounts
          FROM tax_documents d
          JOIN tax_filings f ON f.document_id = d.id
         WHERE d.id = ANY($1::uuid[]) AND f.provider = $2
        """,
        ids,
        provider,
    )
    found = []
    for row in rows:
        paid = sum(_of_sale(msgspec.json.decode(row["line_amounts"], type=dict[str, int])).values())
        sign = -1 if row["kind"] == "reversal" else 1
        facts = {name: row[name] for name in Kept.__struct_fields__ if name != "net_amount"}
        found.append(Kept(**{**facts, "kind": _kind_of(row)}, net_amount=sign * paid - row["tax_amount"]))
    return found


async def keys_between(
    db: Connection, envelope: Envelope, provider: str, *, first: UUID, last: UUID, after: UUID, limit: int
) -> list[tuple[UUID, str]]:
    """Read under which names a provider should know what was recorded between two ids, which begin with their time (UUIDv7)."""
    rows = await db.fetch(
        """
        SELECT document_id AS id
          FROM tax_filings
         WHERE document_id >= $1 AND document_id < $2 AND document_id > $3
           AND (store_id, environment, provider) IS NOT DISTINCT FROM ($4, $5, $6)
         ORDER BY document_id
         LIMIT $7
        """,
        first,
        last,
        after,
        envelope.store_id,
        envelope.environment.value,
        provider,
        limit,
    )
    return [(row["id"], str(row["id"])) for row in rows]


async def stores(db: Connection) -> list[tuple[UUID, str, str]]:
    """List whose documents are recorded at which provider; each is found behind the one before."""
    rows = await each_there(db, "tax_filings", "store_id", "environment", "provider")
    return [(row["store_id"], row["environment"], row["provider"]) for row in rows]
