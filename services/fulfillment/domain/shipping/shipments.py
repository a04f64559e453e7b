"""Shipments: which of an order's is meant, what its label needs, and how it stands as a whole."""

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

from services.fulfillment.domain.shipping.tracking import TrackingStatus
from services.fulfillment.domain.tax.rules import Place
from services.fulfillment.domain.territories import crosses_customs_border, territory_of
from shared.contracts.orders import Item, SupplyKind
from shared.errors import NotFound, Outcome, Refusal, Retry


class NoShipment(NotFound):
    """The order was never quoted with a way to ship it."""

    code = "no-shipment"
    title = "There is nothing to ship"


class ShipmentAmbiguous(Refusal):
    """Several quotes of the order chose a way to ship, and none of them is paid."""

    code = "shipment-ambiguous"
    title = "Say which snapshot is meant"


class ShipmentFinalized(Refusal):
    """A label was asked for, so what the customer chose can no longer change."""

    code = "shipment-finalized"
    title = "The shipment is finalized"
    outcome = Outcome.CONFLICT


class LabelExists(Refusal):
    """There is a label; another is bought only when it is given back."""

    code = "label-exists"
    title = "The shipment has a label"
    outcome = Outcome.CONFLICT


class LabelUnderWay(Refusal):
    """A label is being bought at this moment."""

    code = "operation-in-progress"
    title = "A label is being bought"
    retry = Retry.AFTER
    retry_after_seconds = 1


class CustomsNeeded(Refusal):
    """Goods that cross a customs border need a declaration, and some have none."""

    code = "customs-needed"
    title = "Customs need to know what is in it"
    status = 422


class Choosable(Protocol):
    """A shipment, as far as choosing looks at it."""

    @property
    def snapshot_id(self) -> UUID | None:
        """Whose choice it is."""
        ...

    @property
    def finalized(self) -> bool:
        """Whether a label was asked for."""
        ...


S = TypeVar("S", bound=Choosable)

# A shipment is as the first of these that any of its parcels is.
WHOLE = (
    TrackingStatus.EXCEPTION,
    TrackingStatus.RETURN_TO_SENDER,
    TrackingStatus.UNKNOWN,
    TrackingStatus.PRE_TRANSIT,
    TrackingStatus.PICKED_UP,
    TrackingStatus.IN_TRANSIT,
    TrackingStatus.OUT_FOR_DELIVERY,
    TrackingStatus.AVAILABLE_FOR_PICKUP,
    TrackingStatus.DELIVERED,
    TrackingStatus.CANCELLED,
)


def meant(shipments: Sequence[S], *, snapshot_id: UUID | None, paid_by: Collection[UUID]) -> S:
    """Choose the shipment that a label is for: the named one, else the finalized, else the paid one, else the only one."""
    if not shipments:
        raise NoShipment("The order was never quoted with a way to ship it, or states its shipping itself.")
    finalized = next((each for each in shipments if each.finalized), None)
    if snapshot_id is not None:
        named = next((each for each in shipments if each.snapshot_id == snapshot_id), None)
        if named is None:
            raise NoShipment(f"The snapshot {snapshot_id} of this order chose no way to ship it.")
        if finalized is not None and finalized is not named:
            raise ShipmentFinalized("The order is shipped as another snapshot chose.", {"snapshot_id": str(finalized.snapshot_id)})
        return named
    if finalized is not None:
        return finalized
    paid = [each for each in shipments if each.snapshot_id in paid_by]
    among = paid or list(shipments)
    if len(among) > 1:
        facts = {"snapshots": [str(each.snapshot_id) for each in among]}
        raise ShipmentAmbiguous("The order was quoted more than once and is not paid; name the snapshot.", facts)
    return among[0]


def refuse_without_customs(items: Sequence[Item], here: Place, there: Place) -> None:
    """Refuse goods that cross a customs border without a declaration."""
    if not crosses_customs_border(here, there):
        return
    missing = [n for n, item in enumerate(items) if item.customs is None and item.supply is SupplyKind.GOODS]
    if missing:
        raise CustomsNeeded(
            f"From {territory_of(here).name} to {territory_of(there).name} every item needs its customs data "
            "(HS code, origin, description).",
            {"lines": missing},
        )


def as_a_whole(statuses: Iterable[TrackingStatus]) -> TrackingStatus:
    """Say how a shipment of several parcels is, whatever their order: by WHOLE, trouble first, else where its last parcel is.

    So one that is partly delivered is where the rest is. A parcel whose label was cancelled counts only where all were.
    """
    return min(statuses, key=WHOLE.index, default=TrackingStatus.UNKNOWN)
