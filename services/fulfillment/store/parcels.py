"""Parcels in SQL: the packages that labels are on, and what was seen of them on their way."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from services.fulfillment.domain.shipping.tracking import EARLY_MAX, Projection, TrackingEvent
from shared.contracts.fulfillment.shipping import TrackingEventView, TrackingView
from shared.database import Connection, Record, Statement
from shared.messages import Envelope, Environment

DUE_ROWS_MAX = 50
STORES_OF_A_NUMBER_MAX = 20
PARCELS_OF_A_NUMBER_MAX = 20


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """A package on its way, and all that was seen of it."""

    label_id: UUID
    position: int
    store_id: UUID
    environment: Environment
    order_id: UUID
    shipment_id: UUID
    carrier: str
    tracking_number: str
    tracking_status: str
    is_return: bool
    provider_label_id: str
    revision: int
    # The shipment's, as of the same moment.
    shipment_revision: int
    # When its label was asked for, and the next of the store with the same number: what was seen in between is of this parcel.
    made_at: datetime
    followed_at: datetime | None
    tracking: Projection
    events: tuple[TrackingEvent, ...]


def _parcel(row: Record) -> Parcel:
    return Parcel(
        label_id=row["label_id"],
        position=row["position"],
        store_id=row["store_id"],
        environment=Environment(row["environment"]),
        order_id=row["order_id"],
        shipment_id=row["shipment_id"],
        carrier=row["carrier"],
        tracking_number=row["tracking_number"],
        tracking_status=row["tracking_status"],
        is_return=row["is_return"],
        provider_label_id=row["provider_label_id"],
        revision=row["revision"],
        shipment_revision=row["shipment_revision"],
        made_at=row["made_at"],
        followed_at=row["followed_at"],
        tracking=msgspec.json.decode(row["tracking"], type=Projection),
        events=msgspec.json.decode(row["events"], type=tuple[TrackingEvent, ...]),
    )


_PARCEL = """
    SELECT p.*, l.is_return, l.provider_label_id, s.tracking_revision AS shipment_revision,
           -- A label whose purchase was unclear for a while travels before its package is written down.
           least(l.created_at, p.created_at) AS made_at,
           (SELECT min(least(nl.created_at, n.created_at))
              FROM shipment_packages n
              JOIN shipment_labels nl ON nl.id = n.label_id
             WHERE n.tracking_number = p.tracking_number AND n.carrier = p.carrier AND n.created_at > p.created_at
               AND (n.store_id, n.environment) IS NOT DISTINCT FROM (p.store_id, p.environment)) AS followed_at,
           (SELECT coalesce(json_agg(e.event ORDER BY e.occurred_at), '[]')
              FROM tracking_events e
             WHERE e.label_id = p.label_id AND e.position = p.position) AS events
      FROM shipment_packages p
      JOIN shipment_labels l ON l.id = p.label_id
      JOIN shipments s ON s.id = p.shipment_id
"""


async def by_number(
    db: Connection, envelope: Envelope, carrier: str, tracking_number: str, *, provider_label_id: str | None = None
) -> list[Parcel]:
    """Find the parcels that bear a number, the newest first: of the label that the carrier names, if it names one."""
    rows = await db.fetch(
        _PARCEL
        + """
         WHERE p.tracking_number = $4 AND p.carrier = $3 AND (p.store_id, p.environment) IS NOT DISTINCT FROM ($1, $2)
           AND ($5::text IS NULL OR l.provider_label_id = $5)
         ORDER BY p.created_at DESC
         LIMIT $6
        """,
        envelope.store_id,
        envelope.environment.value,
        carrier,
        tracking_number,
        provider_label_id,
        PARCELS_OF_A_NUMBER_MAX,
    )
    return [_parcel(row) for row in rows]


async def stores_by_number(
    db: Connection, environment: Environment, carrier: str, tracking_numbers: Collection[str], *, seen_at: datetime
) -> list[UUID]:
    """List the stores whose parcels bear one of these numbers, the one whose label was the last before the scan first."""
    rows = await db.fetch(
        """
        SELECT store_id
          FROM shipment_packages
         WHERE tracking_number = ANY($1::text[]) AND carrier = $2 AND environment = $3
         ORDER BY (created_at <= $4::timestamptz + make_interval(secs => $5)) DESC, created_at DESC
         LIMIT $6
        """,
        list(tracking_numbers),
        carrier,
        environment.value,
        seen_at,
        EARLY_MAX.total_seconds(),
        STORES_OF_A_NUMBER_MAX,
    )
    return list(dict.fromkeys(row["store_id"] for row in rows))


async def of_order(db: Connection, envelope: Envelope, order_id: UUID) -> list[Parcel]:
    """Read an order's parcels."""
    rows = await db.fetch(
        _PARCEL + " WHERE p.order_id = $3 AND (p.store_id, p.environment) IS NOT DISTINCT FROM ($1, $2) ORDER BY p.label_id, p.position",
        envelope.store_id,
        envelope.environment.value,
        order_id,
    )
    return [_parcel(row) for row in rows]


async def claim_due(db: Connection, *, again_seconds: float) -> list[tuple[UUID, int, str]]:
    """Take parcels that are to be looked for, one last time after their end, and say when again; gives labels, positions, carriers."""
    rows = await db.fetch(
        """
        UPDATE shipment_packages
           SET next_look_at = now() + make_interval(secs => $1)
         WHERE (label_id, position) IN (SELECT label_id, position
                                          FROM shipment_packages
                                         WHERE tracking_status <> 'cancelled'
                                           AND (tracking_status NOT IN ('delivered', 'return_to_sender') OR NOT looked_after_end)
                                           AND next_look_at <= now()
                                         ORDER BY next_look_at
                                         LIMIT $2
                                           FOR UPDATE SKIP LOCKED)
        RETURNING label_id, position, carrier
        """,
        again_seconds,
        DUE_ROWS_MAX,
    )
    return [(row["label_id"], row["position"], row["carrier"]) for row in rows]


async def get(db: Connection, label_id: UUID, position: int) -> Parcel:
    """Read a parcel."""
    row = await db.fetchrow(_PARCEL + " WHERE (p.label_id, p.position) = ($1, $2)", label_id, position)
    assert row is not None, "a package is never deleted"
    return _parcel(row)


async def looked_after_end(db: Connection, parcel: Parcel) -> None:
    """Write down that the carrier was asked when a parcel had come to its end, so that it need not be asked again."""
    await db.execute(
        "UPDATE shipment_packages SET looked_after_end = true WHERE (label_id, position) = ($1, $2)", parcel.label_id, parcel.position
    )


async def look_sooner(db: Connection, label_id: UUID, position: int, *, seconds: float) -> None:
    """Have a parcel looked for again in so many seconds, if that is sooner."""
    await db.execute(
        """
        UPDATE shipment_packages
           SET next_look_at = least(next_look_at, now() + make_interval(secs => $3))
         WHERE (label_id, position) = ($1, $2)
        """,
        label_id,
        position,
        seconds,
    )


def seen(parcel: Parcel, events: Sequence[TrackingEvent], *, source: str) -> Statement:
    """Write what was seen of a parcel; what is known already is only worded otherwise."""
    return Statement(
        """
        INSERT INTO tracking_events (label_id, position, event_key, event, occurred_at, source)
        SELECT $1, $2, key, event::jsonb, at, $3
          FROM unnest($4::text[], $5::text[], $6::timestamptz[]) AS t (key, event, at)
        ON CONFLICT (label_id, position, event_key) DO UPDATE SET event = excluded.event
        """,
        (
            parcel.label_id,
            parcel.position,
            source,
            [event.key for event in events],
            [msgspec.json.encode(event).decode() for event in events],
            [event.occurred_at for event in events],
        ),
    )


def projected(parcel: Parcel, projection: Projection) -> Statement:
    """Say where a parcel is; must know all that was seen of it."""
    return Statement(
        """
        UPDATE shipment_packages
           SET tracking = $4, tracking_status = $5, revision = revision + 1
         WHERE label_id = $1 AND position = $2 AND revision = $3
        RETURNING revision
        """,
        (parcel.label_id, parcel.position, parcel.revision, msgspec.json.encode(projection).decode(), projection.status.value),
        must=True,
    )


def view(parcel: Parcel, projection: Projection, history: Sequence[TrackingEvent]) -> TrackingView:
    """Show where a parcel is and what was seen of it."""
    return TrackingView(
        carrier=parcel.carrier,
        tracking_number=parcel.tracking_number,
        status=projection.status.value,
        detail=projection.detail,
        since=projection.since,
        delivered_at=projection.delivered_at,
        estimated_delivery=projection.estimated_delivery,
        alert=None if projection.alert is None else projection.alert.value,
        events=[
            TrackingEventView(
                occurred_at=event.occurred_at,
                status=event.status.value,
                code=event.code,
                detail=event.detail,
                location=event.location,
                zone_assumed=event.zone_assumed,
            )
            for event in history
        ],
    )
