"""A carrier that is the store's own table of zones and weights: for shops that ship by hand or by contract."""

from uuid import UUID

from services.fulfillment.domain.pricing import place_of
from services.fulfillment.domain.shipping.labels import LabelStatus
from services.fulfillment.domain.shipping.table_rates import Band, Parcel, Table, Tariff, Zone, quoted
from services.fulfillment.domain.shipping.tracking import TrackingEvent
from services.fulfillment.providers import (
    Bought,
    CarrierCapabilities,
    CarrierNews,
    CarrierRate,
    CarrierRefused,
    LabelRequest,
    RatesRequest,
    Unsupported,
)
from shared.contracts.fulfillment.pricing import TableBody


class TableRate:
    """Prices by the store's table; prints no labels."""

    name = "table_rate"
    carrier = "table_rate"
    absence_is_proof_after_seconds = 0.0
    capabilities = CarrierCapabilities(labels=False, documents=(), returns=False, insurance=False, multiple_packages=True, tracking=False)

    async def rates(self, request: RatesRequest) -> list[CarrierRate]:
        """Look the prices up."""
        if request.table is None:
            return []
        place = place_of(request.ship_to)
        if not place.region and any(zone.region for zone in request.table.zones if zone.country == place.country):
            # The zone of the whole country would be a guess, and mostly the cheaper one.
            raise CarrierRefused("region", f"there are zones for regions of {place.country}, and the address's region is not understood")
        parcels = [
            Parcel(weight_grams=p.weight_grams, length_mm=p.length_mm, width_mm=p.width_mm, height_mm=p.height_mm) for p in request.packages
        ]
        found = quoted(_table(request.table), parcels, country=place.country, region=place.region, postal_code=place.postal_code)
        return [
            CarrierRate(
                provider_rate_id=f"{rate.zone}/{rate.service}",
                service=rate.service,
                amount=rate.amount,
                currency=rate.currency,
                transit_days=rate.transit_days,
            )
            for rate in found
        ]

    async def buy(self, request: LabelRequest, *, reference: UUID) -> Bought:
        """There is nothing to buy."""
        raise Unsupported("A table of prices prints no labels.")

    async def find(self, request: LabelRequest, *, reference: UUID) -> Bought | None:
        """Nothing was ever bought."""
        return None

    async def void(self, provider_label_id: str, *, reference: UUID) -> LabelStatus:
        """There is nothing to give back."""
        raise Unsupported("A table of prices prints no labels.")

    async def status(self, provider_label_id: str) -> LabelStatus:
        """There is no label."""
        raise Unsupported("A table of prices prints no labels.")

    async def track(self, tracking_number: str, *, provider_label_id: str) -> list[TrackingEvent]:
        """Nobody looks."""
        return []

    def read_event(self, event_type: str, payload: bytes) -> CarrierNews:
        """Nobody tells."""
        raise ValueError("a table sends no webhooks")

    async def close(self) -> None:
        """Nothing is open."""


def _table(body: TableBody) -> Table:
    return Table(
        zones=tuple(Zone(name=z.name, country=z.country, region=z.region, postal_codes=tuple(z.postal_codes)) for z in body.zones),
        tariffs=tuple(
            Tariff(
                service=t.service,
                zone=t.zone,
                currency=t.currency,
                bands=tuple(Band(up_to_grams=b.up_to_grams, amount=b.amount) for b in sorted(t.bands, key=lambda b: b.up_to_grams)),
                per_kilogram_over=t.per_kilogram_over,
                transit_days=t.transit_days,
            )
            for t in body.tariffs
        ),
        volumetric_mm3_per_gram=body.volumetric_mm3_per_gram,
    )
