"""Labels in SQL: bought under a lease, and given back."""

import time
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from services.fulfillment.domain.shipping.labels import LabelStatus
from services.fulfillment.providers import Bought, LabelRequest
from services.fulfillment.store.shipments import Shipment
from shared.contracts.calls import TriedCall
from shared.contracts.fulfillment.shipping import LabelView, UnknownLabelView
from shared.database import Connection, Pool, Record, Statement, connected
from shared.ids import NOBODY
from shared.messages import Envelope, Environment
from shared.turns import due_in_turns

DUE_ROWS_MAX = 50
# The clocks of two services' databases.
CLOCKS_DIFFER_SECONDS = 60.0
TRIED_CALLS_MAX = 20


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """A label as its row holds it."""

    id: UUID
    shipment_id: UUID
    store_id: UUID
    environment: Environment
    order_id: UUID
    command_id: UUID
    command_digest: bytes
    is_return: bool
    status: str
    carrier: str
    service: str
    document: str
    request: LabelRequest
    provider_label_id: str | None
    amount: int | None
    currency: str
    reason: str
    actor: str
    correlation_id: str
    lease_token: int
    looks: int
    revision: int
    age_seconds: float
    created_at: datetime
    updated_at: datetime
    # By this process's monotonic clock: when the row was read, our lease with it.
    leased_at_seconds: float = msgspec.field(default_factory=time.monotonic)

    def envelope(self) -> Envelope:
        """Give the facts of the command that asked for it."""
        return Envelope(
            id=self.command_id,
            store_id=self.store_id,
            environment=self.environment,
            source="gateway",
            actor=self.actor,
            correlation_id=self.correlation_id,
        )


DERIVED = frozenset({"request", "environment", "age_seconds", "leased_at_seconds"})


def _label(row: Record) -> Label:
    said = {name: row[name] for name in Label.__struct_fields__ if name not in DERIVED}
    return Label(
        **said,
        request=msgspec.json.decode(row["request"], type=LabelRequest),
        environment=Environment(row["environment"]),
        age_seconds=float(row["age_seconds"]),
    )


_COLUMNS = "l.*, extract(epoch FROM now() - l.created_at) AS age_seconds"


def begun(
    envelope: Envelope,
    label_id: UUID,
    shipment: Shipment,
    *,
    digest: bytes,
    carrier: str,
    request: LabelRequest,
    currency: str,
    lease_seconds: float,
) -> Statement:
    """Write down that a label is about to be bought, under our lease; must be the only one."""
    return Statement(
        """
        INSERT INTO shipment_labels (id, shipment_id, store_id, environment, order_id, command_id, command_digest, is_return, status,
                                     carrier, service, document, request, currency, actor, correlation_id, lease_expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'buying', $9, $10, $11, $12, $13, $14, $15, now() + make_interval(secs => $16))
        ON CONFLICT DO NOTHING
        RETURNING id
        """,
        (
            label_id,
            shipment.id,
            envelope.store_id,
            envelope.environment.value,
            shipment.order_id,
            envelope.id,
            digest,
            request.is_return,
            carrier,
            request.service,
            request.document,
            msgspec.json.encode(request).decode(),
            currency,
            envelope.actor,
            envelope.correlation_id,
            lease_seconds,
        ),
        must=True,
    )


async def of_order(db: Connection, envelope: Envelope, order_id: UUID) -> list[Label]:
    """Read an order's labels, the newest first."""
    rows = await db.fetch(
        f"""
        SELECT {_COLUMNS}
          FROM shipment_labels l
         WHERE order_id = $3 AND (store_id, environment) IS NOT DISTINCT FROM ($1, $2)
         ORDER BY id DESC
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    return [_label(row) for row in rows]


async def by_provider_id(db: Connection, envelope: Envelope, carrier: str, provider_label_id: str) -> Label | None:
    """Find a label by what its carrier calls it."""
    row = await db.fetchrow(
        f"""
        SELECT {_COLUMNS}
          FROM shipment_labels l
         WHERE provider_label_id = $4 AND carrier = $3 AND (store_id, environment) IS NOT DISTINCT FROM ($1, $2)
        """,
        envelope.store_id,
        envelope.environment.value,
        carrier,
        provider_label_id,
    )
    return None if row is None else _label(row)


async def stores_by_provider_id(db: Connection, environment: Environment, carrier: str, provider_label_id: str | None) -> list[UUID]:
    """List the stores with a label that its carrier calls this."""
    rows = await db.fetch(
        "SELECT DISTINCT store_id FROM shipment_labels WHERE provider_label_id = $1 AND carrier = $2 AND environment = $3",
        provider_label_id,
        carrier,
        environment.value,
    )
    return [row["store_id"] for row in rows]


async def any_being_bought(db: Connection, envelope: Envelope, carrier: str, *, told_at: datetime) -> bool:
    """Tell whether a label of which the carrier's names are still to be learnt was asked for before the carrier spoke.

    By the store of the envelope, or by any store where the envelope names none.
    """
    found: bool = await db.fetchval(
        """
        SELECT EXISTS (SELECT
                         FROM shipment_labels
                        WHERE status = 'buying' AND carrier = $3 AND created_at <= $4::timestamptz + make_interval(secs => $5)
                          AND (store_id = $1 OR $1 = $6) AND environment = $2)
        """,
        envelope.store_id,
        envelope.environment.value,
        carrier,
        told_at,
        CLOCKS_DIFFER_SECONDS,
        NOBODY,
    )
    return found


async def at_carrier(db: Connection, carrier: str, keys: Sequence[str], references: Sequence[UUID]) -> list[Label]:
    """Find the labels that a carrier knows under these names, or that bear these references, whosever they are."""
    rows = await db.fetch(
        f"""
        SELECT {_COLUMNS} FROM shipment_labels l WHERE l.provider_label_id = ANY($2::text[]) AND l.carrier = $1
         UNION
        SELECT {_COLUMNS} FROM shipment_labels l WHERE l.id = ANY($3::uuid[]) AND l.carrier = $1
        """,
        carrier,
        list(keys),
        list(references),
    )
    return [_label(row) for row in rows]


async def keys_between(
    db: Connection, envelope: Envelope, carrier: str, *, first: UUID, last: UUID, after: UUID, limit: int
) -> list[tuple[UUID, str]]:
    """Read under which names a carrier should know what was bought between two ids, which begin with their time (UUIDv7)."""
    rows = await db.fetch(
        """
        SELECT id, provider_label_id
          FROM shipment_labels
         WHERE id >= $1 AND id < $2 AND id > $3
           AND (store_id, environment, carrier) IS NOT DISTINCT FROM ($4, $5, $6)
           AND provider_label_id IS NOT NULL
         ORDER BY id
         LIMIT $7
        """,
        first,
        last,
        after,
        envelope.store_id,
        envelope.environment.value,
        carrier,
        limit,
    )
    return [(row["id"], row["provider_label_id"]) for row in rows]


async def renew(pool: Pool, label: Label, *, lease_seconds: float) -> None:
    """Keep our lease while the call is out."""
    async with connected(pool) as db:
        await db.execute(
            "UPDATE shipment_labels SET lease_expires_at = now() + make_interval(secs => $3) WHERE id = $1 AND lease_token = $2",
            label.id,
            label.lease_token,
            lease_seconds,
        )


_DUE = due_in_turns(
    "shipment_labels", "status IN ('buying', 'void_requested') AND next_look_at <= now() AND lease_expires_at <= now()", limit="$2"
)


async def take_due(db: Connection, *, lease_seconds: float) -> list[Label]:
    """Take the lease on what is due, the stores in turns: labels being bought of which nothing is known, and voids that are not decided."""
    rows = await db.fetch(
        f"""
        UPDATE shipment_labels l
           SET lease_token = lease_token + 1, lease_expires_at = now() + make_interval(secs => $1), looks = looks + 1
         WHERE id = ANY(ARRAY({_DUE}))
        RETURNING {_COLUMNS}
        """,
        lease_seconds,
        DUE_ROWS_MAX,
    )
    return [_label(row) for row in rows]


async def take_one(db: Connection, label_id: UUID, *, lease_seconds: float) -> Label | None:
    """Take the lease on one label of which nothing is known, unless somebody else has it."""
    row = await db.fetchrow(
        f"""
        UPDATE shipment_labels l
           SET lease_token = lease_token + 1, lease_expires_at = now() + make_interval(secs => $2), looks = looks + 1
         WHERE id = $1 AND status = 'buying' AND lease_expires_at <= now()
        RETURNING {_COLUMNS}
        """,
        label_id,
        lease_seconds,
    )
    return None if row is None else _label(row)


async def one(db: Connection, envelope: Envelope, label_id: UUID) -> Label | None:
    """Read a label of a store's."""
    row = await db.fetchrow(
        f"SELECT {_COLUMNS} FROM shipment_labels l WHERE id = $3 AND (store_id, environment) IS NOT DISTINCT FROM ($1, $2)",
        envelope.store_id,
        envelope.environment.value,
        label_id,
    )
    return None if row is None else _label(row)


async def list_unknown(db: Connection, envelope: Envelope, *, after: UUID | None, limit: int) -> list[UnknownLabelView]:
    """Read labels whose call was not answered, the oldest first, each with its latest calls."""
    rows = await db.fetch(
        """
        SELECT l.id AS label_id, l.shipment_id, l.order_id, l.carrier, l.service, l.looks, l.next_look_at, l.created_at,
               extract(epoch FROM now() - l.created_at)::float8 AS age_seconds,
               (SELECT coalesce(json_agg(c ORDER BY c.called_at), '[]')
                  FROM (SELECT operation, classification, status, called_at
                          FROM provider_call_audit
                         WHERE transaction_id = l.id
                         ORDER BY called_at DESC
                         LIMIT $5) AS c)::text AS tried
          FROM shipment_labels l
         WHERE l.status = 'buying' AND (l.looks > 0 OR l.lease_expires_at <= now()) AND l.store_id = $1 AND l.environment = $2
           AND ($3::uuid IS NULL OR l.id > $3)
         ORDER BY l.id
         LIMIT $4
        """,
        envelope.store_id,
        envelope.environment.value,
        after,
        limit,
        TRIED_CALLS_MAX,
    )
    return [UnknownLabelView(**{**dict(row), "tried": msgspec.json.decode(row["tried"], type=list[TriedCall])}) for row in rows]


def looked(label: Label, *, again_seconds: float) -> Statement:
    """Let go of a label of which nothing was found out, until it is looked at again."""
    return Statement(
        """
        UPDATE shipment_labels
           SET lease_expires_at = now(), next_look_at = now() + make_interval(secs => $3)
         WHERE id = $1 AND lease_token = $2
        """,
        (label.id, label.lease_token, again_seconds),
    )


def stands(label: Label, status: str, *, reason: str = "", bought: Bought | None = None, again_seconds: float = 0.0) -> Statement:
    """Say how a label stands now; must be the one who found it out."""
    return Statement(
        """
        UPDATE shipment_labels
           SET status = $4, reason = $5, provider_label_id = coalesce($6, provider_label_id), amount = coalesce($7, amount),
               currency = coalesce($8, currency), revision = revision + 1, updated_at = now(),
               lease_expires_at = now(), next_look_at = now() + make_interval(secs => $9)
         WHERE id = $1 AND lease_token = $2 AND revision = $3
        RETURNING id
        """,
        (
            label.id,
            label.lease_token,
            label.revision,
            status,
            reason,
            None if bought is None else bought.provider_label_id,
            None if bought is None else bought.amount,
            None if bought is None else bought.currency,
            again_seconds,
        ),
        must=True,
    )


def packed(label: Label, bought: Bought, *, carrier: str, look_seconds: float) -> Statement:
    """Write a bought label's packages."""
    packages = bought.packages
    weights = [each.weight_grams for each in label.request.packages]
    return Statement(
        """
        INSERT INTO shipment_packages (label_id, position, store_id, environment, order_id, shipment_id, carrier, tracking_number,
                                       weight_grams, media_type, document, next_look_at, looked_after_end)
        SELECT $1, position, $2, $3, $4, $5, $6, number, weight, media, document, now() + make_interval(secs => $7), false
          FROM unnest($8::integer[], $9::text[], $10::integer[], $11::text[], $12::bytea[]) AS t (position, number, weight, media, document)
        """,
        (
            label.id,
            label.store_id,
            label.environment.value,
            label.order_id,
            label.shipment_id,
            carrier,
            look_seconds,
            list(range(len(packages))),
            [each.tracking_number for each in packages],
            [weights[n] if n < len(weights) else 1 for n in range(len(packages))],
            [each.media_type for each in packages],
            [each.document for each in packages],
        ),
    )


async def of_shipments(db: Connection, shipment_ids: Sequence[UUID]) -> list[LabelView]:
    """Show the labels of some shipments, the newest first."""
    found = await db.fetch(
        f"""
        SELECT {_COLUMNS}, ARRAY(SELECT tracking_number FROM shipment_packages p WHERE p.label_id = l.id ORDER BY position) AS numbers
          FROM shipment_labels l
         WHERE shipment_id = ANY($1)
         ORDER BY id DESC
        """,
        list(shipment_ids),
    )
    return [view(_label(row), row["numbers"]) for row in found]


async def document(db: Connection, envelope: Envelope, order_id: UUID, label_id: UUID, position: int) -> tuple[str, bytes] | None:
    """Read a package's printed label."""
    row = await db.fetchrow(
        """
        SELECT media_type, document
          FROM shipment_packages
         WHERE label_id = $4 AND position = $5 AND (store_id, environment, order_id) IS NOT DISTINCT FROM ($1, $2, $3)
        """,
        envelope.store_id,
        envelope.environment.value,
        order_id,
        label_id,
        position,
    )
    return None if row is None else (row["media_type"], row["document"])


# Views


def view(label: Label, tracking_numbers: Sequence[str]) -> LabelView:
    """Show a label."""
    return LabelView(
        id=label.id,
        shipment_id=label.shipment_id,
        status=label.status,
        carrier=label.carrier,
        service=label.service,
        amount=label.amount,
        currency=label.currency,
        is_return=label.is_return,
        document=label.document,
        tracking_numbers=list(tracking_numbers),
        reason=label.reason,
        created_at=label.created_at,
        updated_at=label.updated_at,
    )


def after(label: Label, status: LabelStatus, bought: Bought | None, *, reason: str = "") -> Label:
    """Give a label as it stands after what was found out."""
    return msgspec.structs.replace(
        label,
        status=status.value,
        reason=reason,
        provider_label_id=label.provider_label_id if bought is None else bought.provider_label_id,
        amount=label.amount if bought is None else bought.amount,
        currency=label.currency if bought is None else bought.currency,
    )


async def may_have_left(db: Connection, envelope: Envelope) -> bool:
    """Tell whether a carrier may have been asked for a command's label: its row is written before the call."""
    found: bool = await db.fetchval(
        "SELECT EXISTS (SELECT FROM shipment_labels WHERE store_id = $1 AND environment = $2 AND command_id = $3)",
        envelope.store_id,
        envelope.environment.value,
        envelope.id,
    )
    return found
