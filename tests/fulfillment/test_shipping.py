"""Packing, tables of rates, and what becomes of labels."""

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fulfillment.domain.shipping.labels import LabelFinal, LabelStatus, moved
from services.fulfillment.domain.shipping.packing import PACKAGES_MAX, Goods, TooHeavy, packed
from services.fulfillment.domain.shipping.table_rates import Band, Parcel, Table, Tariff, Zone, quoted

GOODS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5_000)), min_size=1, max_size=8)


class TestPacking:
    @given(goods=GOODS)
    def test_everything_travels_and_no_package_is_too_heavy(self, goods: list[tuple[int, int]]) -> None:
        lines = [Goods(line=n, quantity=quantity, weight_grams=weight) for n, (quantity, weight) in enumerate(goods)]

        packages = packed(lines, limit_grams=5_000)

        for line in lines:
            assert sum(package.units.get(line.line, 0) for package in packages) == line.quantity
        for package in packages:
            assert package.weight_grams == sum(count * lines[line].weight_grams for line, count in package.units.items()) <= 5_000
        assert packages == packed(lines[::-1], limit_grams=5_000)
        # No two next to each other would have fitted into one.
        assert all(one.weight_grams + other.weight_grams > 5_000 for one, other in pairwise(packages))

    def test_many_light_things_travel_together(self) -> None:
        [package] = packed([Goods(line=0, quantity=1_000_000, weight_grams=0)], limit_grams=30_000)

        assert package.units == {0: 1_000_000}

    def test_a_unit_over_the_limit_is_refused(self) -> None:
        with pytest.raises(TooHeavy, match="5001 g"):
            packed([Goods(line=0, quantity=1, weight_grams=5_001)], limit_grams=5_000)

    def test_so_are_too_many_packages(self) -> None:
        with pytest.raises(TooHeavy, match="packages"):
            packed([Goods(line=0, quantity=PACKAGES_MAX + 1, weight_grams=5_000)], limit_grams=5_000)


BANDS = (Band(up_to_grams=1_000, amount=490), Band(up_to_grams=5_000, amount=690))
TABLE = Table(
    zones=(
        Zone(name="country", country="DE"),
        Zone(name="islands", country="DE", postal_codes=("25*", "26465")),
        Zone(name="north", country="DE", region="DE-SH"),
    ),
    tariffs=(
        Tariff(service="standard", zone="country", currency="EUR", bands=BANDS, per_kilogram_over=100, transit_days=2),
        Tariff(service="standard", zone="islands", currency="EUR", bands=(Band(up_to_grams=5_000, amount=1_990),)),
        Tariff(service="standard", zone="north", currency="EUR", bands=(Band(up_to_grams=5_000, amount=590),)),
        Tariff(service="express", zone="country", currency="EUR", bands=BANDS[:1]),
    ),
    volumetric_mm3_per_gram=5_000,
)


def prices(*parcels: Parcel, postal_code: str = "10115", region: str = "DE-BE", country: str = "DE") -> dict[str, int]:
    return {r.service: r.amount for r in quoted(TABLE, parcels, country=country, region=region, postal_code=postal_code)}


class TestTableRates:
    @pytest.mark.parametrize(
        ("grams", "amounts"),
        [
            (1, {"express": 490, "standard": 490}),
            (1_000, {"express": 490, "standard": 490}),
            (1_001, {"standard": 690}),
            (5_000, {"standard": 690}),
            (5_001, {"standard": 790}),
            (7_000, {"standard": 890}),
        ],
    )
    def test_go_by_weight(self, grams: int, amounts: dict[str, int]) -> None:
        assert prices(Parcel(weight_grams=grams)) == amounts

    @pytest.mark.parametrize(
        ("postal_code", "region", "amount"),
        [
            ("10115", "DE-BE", 490),
            ("24103", "DE-SH", 590),
            ("25845", "DE-SH", 1_990),
            ("26465", "DE-NI", 1_990),
            ("254 99", "DE-SH", 1_990),
        ],
    )
    def test_the_smallest_zone_that_covers_a_place_counts(self, postal_code: str, region: str, amount: int) -> None:
        assert prices(Parcel(weight_grams=500), postal_code=postal_code, region=region)["standard"] == amount

    def test_packages_add_up_and_each_must_be_carried(self) -> None:
        assert prices(Parcel(weight_grams=900), Parcel(weight_grams=4_000)) == {"standard": 490 + 690}

    def test_what_is_large_weighs_its_volume(self) -> None:
        assert prices(Parcel(weight_grams=100, length_mm=400, width_mm=300, height_mm=200)) == {"standard": 690}

    def test_where_no_zone_is_nothing_is_carried(self) -> None:
        assert prices(Parcel(weight_grams=1), country="FR") == {}

    def test_come_cheapest_first(self) -> None:
        table = Table(
            zones=(Zone(name="z", country="DE"),),
            tariffs=tuple(
                Tariff(service=service, zone="z", currency="EUR", bands=(Band(up_to_grams=9, amount=amount),))
                for service, amount in (("b", 2), ("c", 1), ("a", 2))
            ),
        )

        rates = quoted(table, [Parcel(weight_grams=1)], country="DE", region="", postal_code="")

        assert [rate.service for rate in rates] == ["c", "a", "b"]


ALLOWED = {
    ("purchased", "void_requested"),
    *(("void_requested", end) for end in ("refunded", "rejected", "not_applicable")),
    ("rejected", "void_requested"),
    ("rejected", "refunded"),
}


@pytest.mark.parametrize(("before", "after"), list(product(LabelStatus, LabelStatus)))
def test_a_label_moves_as_carriers_move_it(before: LabelStatus, after: LabelStatus) -> None:
    if before is after or (before.value, after.value) in ALLOWED:
        assert moved(before, after) is after
    else:
        with pytest.raises(LabelFinal):
            moved(before, after)
