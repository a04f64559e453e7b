"""A carrier that is a table: zones by weight bands, as data."""

from collections.abc import Sequence

import msgspec

from services.fulfillment.domain.postal import named
from shared.regions import around

GRAMS_PER_KILOGRAM = 1_000


class Zone(msgspec.Struct, frozen=True, kw_only=True):
    """Where the same prices hold; no postal codes mean the whole of the country, or of the region."""

    name: str
    country: str
    region: str = ""
    # `12345`, `123*` or `12000-12999`.
    postal_codes: tuple[str, ...] = ()

    def covers(self, country: str, region: str, postal_code: str) -> bool:
        """Tell whether a place lies in it."""
        if self.country != country or self.region not in ("", *around(region)):
            return False
        return not self.postal_codes or named(self.country, postal_code, self.postal_codes)

    @property
    def size(self) -> tuple[bool, bool]:
        """How large it is: the smaller one goes first where two cover a place."""
        return (not self.postal_codes, not self.region)


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """What a package up to a weight costs, in minor units."""

    up_to_grams: int
    amount: int


class Tariff(msgspec.Struct, frozen=True, kw_only=True):
    """A service's prices in one zone, by weight; over the last band so much for each kilogram begun, or nothing is carried."""

    service: str
    zone: str
    currency: str
    bands: tuple[Band, ...]
    per_kilogram_over: int | None = None
    transit_days: int | None = None


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """All of a carrier's zones and tariffs; what is light and large weighs its volume by `volumetric_mm3_per_gram`, if that is given."""

    zones: tuple[Zone, ...]
    tariffs: tuple[Tariff, ...]
    volumetric_mm3_per_gram: int | None = None


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """A package, as far as prices look at it."""

    weight_grams: int
    length_mm: int = 0
    width_mm: int = 0
    height_mm: int = 0


class TableRate(msgspec.Struct, frozen=True, kw_only=True):
    """What a service asks for all packages together."""

    service: str
    amount: int
    currency: str
    zone: str
    transit_days: int | None


def quoted(table: Table, parcels: Sequence[Parcel], *, country: str, region: str, postal_code: str) -> list[TableRate]:
    """Price packages by every service that carries them there, the cheapest first within a currency."""
    covering = sorted((zone for zone in table.zones if zone.covers(country, region, postal_code)), key=lambda zone: (zone.size, zone.name))
    order = {zone.name: number for number, zone in enumerate(covering)}
    best: dict[str, Tariff] = {}
    for tariff in table.tariffs:
        if tariff.zone in order and (tariff.service not in best or order[tariff.zone] < order[best[tariff.service].zone]):
            best[tariff.service] = tariff
    weights = [_weight(table, parcel) for parcel in parcels]
    rates = []
    for tariff in best.values():
        amounts = [_price(tariff, weight) for weight in weights]
        if None not in amounts:
            rates.append(
                TableRate(
                    service=tariff.service,
                    amount=sum(amount or 0 for amount in amounts),
                    currency=tariff.currency,
                    zone=tariff.zone,
                    transit_days=tariff.transit_days,
                )
            )
    return sorted(rates, key=lambda rate: (rate.currency, rate.amount, rate.service))


def _weight(table: Table, parcel: Parcel) -> int:
    if table.volumetric_mm3_per_gram is None:
        return parcel.weight_grams
    volume = parcel.length_mm * parcel.width_mm * parcel.height_mm
    return max(parcel.weight_grams, -(-volume // table.volumetric_mm3_per_gram))


def _price(tariff: Tariff, grams: int) -> int | None:
    for band in tariff.bands:
        if grams <= band.up_to_grams:
            return band.amount
    if tariff.per_kilogram_over is None or not tariff.bands:
        return None
    last = tariff.bands[-1]
    return last.amount + -(-(grams - last.up_to_grams) // GRAMS_PER_KILOGRAM) * tariff.per_kilogram_over
