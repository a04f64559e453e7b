"""Packages: how large they are, what is refused of those that the shop's backend names, and what carriers ask for them."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fulfillment.domain.shipping.packages import PackagesUnfit, check_packages, lines_without_size, pack_order
from services.fulfillment.domain.shipping.packing import PACKAGES_MAX, VOLUME_MAX_MM3, Goods, Size, TooHeavy, packed, size_of, volume
from services.fulfillment.providers import RatesRequest
from services.fulfillment.providers.easypost import shipment_body
from services.gateway.domain import Role
from shared.contracts.fulfillment.pricing import PackageBody
from shared.contracts.orders import Address, Item, OrderContent
from tests.fulfillment import shop
from tests.fulfillment.shop import MUG, MUNICH, an_order, ok, quote
from tests.world import Answer, Place, World, a_world

SIDES = st.integers(1, 700)
UNITS = st.lists(st.tuples(st.tuples(SIDES, SIDES, SIDES), st.integers(1, 30)), min_size=1, max_size=6)
LIMIT_GRAMS = 30_000


def whole(units: list[tuple[Size, int]]) -> Size:
    size = size_of(units)
    assert size is not None, "something has a size"
    return size


class TestSize:
    """H1, F8: at least the largest unit and at least the volume of all (gh:nopSolutions/nopCommerce/issues/1270, /730)."""

    @given(units=UNITS)
    def test_all_fit_by_volume_and_each_lies_within(self, units: list[tuple[Size, int]]) -> None:
        size = whole(units)

        assert list(size) == sorted(size, reverse=True)
        assert volume(size) >= sum(volume(unit) * count for unit, count in units)
        for unit, _ in units:
            assert all(side <= room for side, room in zip(sorted(unit, reverse=True), size, strict=True))
        assert whole(units[::-1]) == size
        turned: list[tuple[Size, int]] = [((unit[2], unit[0], unit[1]), count) for unit, count in units]
        assert whole(turned) == size

    @given(units=UNITS, more=UNITS)
    def test_more_units_make_no_smaller_package(self, units: list[tuple[Size, int]], more: list[tuple[Size, int]]) -> None:
        """A side is a whole number of millimetres, which is all that a package may be too large by."""
        before, after = whole(units), whole([*units, *more])

        assert volume(after) > volume(before) - before[0] * before[1]
        assert after[0] >= max(max(unit) for unit, _ in units)

    @given(unit=st.tuples(SIDES, SIDES, SIDES), count=st.integers(1, 10_000))
    def test_the_same_units_grow_evenly_from_the_shortest_side(self, unit: Size, count: int) -> None:
        size, needed = whole([(unit, count)]), volume(unit) * count

        assert needed <= volume(size) < needed + size[0] * size[1]
        if count > 1:
            assert size[2] >= min(size[1], min(unit))
            assert size[0] <= max(max(unit), round(needed ** (1 / 3)) + 2)

    @pytest.mark.parametrize(
        ("units", "size"),
        [
            ([((600, 400, 200), 1)], (600, 400, 200)),
            ([((600, 400, 200), 2)], (600, 400, 400)),
            ([((600, 400, 200), 1), ((20, 20, 5), 1)], (600, 400, 201)),
            ([((20, 300, 250), 2)], (300, 250, 40)),
            ([((100, 100, 100), 1000)], (1000, 1000, 1000)),
            ([((2000, 50, 50), 2)], (2000, 71, 71)),
        ],
    )
    def test_cases(self, units: list[tuple[Size, int]], size: Size) -> None:
        assert whole(units) == size

    def test_a_million_units_cost_no_more_time_than_one(self) -> None:
        lines = [Goods(line=n, quantity=1_000_000, weight_grams=0, size=(1, 1, 1)) for n in range(500)]

        [package] = packed(lines, limit_grams=LIMIT_GRAMS)

        assert sum(package.units.values()) == 500_000_000
        with pytest.raises(TooHeavy):
            packed([Goods(line=0, quantity=1_000_000, weight_grams=0, size=(100_000, 100_000, 100_000))], limit_grams=LIMIT_GRAMS)

    @given(goods=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 900), st.tuples(SIDES, SIDES, SIDES)), min_size=1, max_size=6))
    def test_no_package_holds_more_than_its_volume(self, goods: list[tuple[int, int, Size]]) -> None:
        limit = 200**3
        lines = [Goods(line=n, quantity=count, weight_grams=grams, size=size) for n, (count, grams, size) in enumerate(goods)]

        packages = packed(lines, limit_grams=LIMIT_GRAMS, limit_mm3=limit)

        for line in lines:
            assert sum(package.units.get(line.line, 0) for package in packages) == line.quantity
        for package in packages:
            held = sum(count * lines[line].volume_mm3 for line, count in package.units.items())
            # What is too large for a package travels alone.
            assert held <= limit or sum(package.units.values()) == 1
            assert package.weight_grams <= LIMIT_GRAMS

    def test_what_has_no_size_is_left_out_and_named(self) -> None:
        content = an_order_of({"dimensions": PILLOW}, {}, {"dimensions": PILLOW})

        [package] = pack_order(content, limit_grams=LIMIT_GRAMS, limit_mm3=VOLUME_MAX_MM3)

        assert (package.length_mm, package.width_mm, package.height_mm) == (600, 400, 400)
        assert lines_without_size(content) == [1]
        # What weighs nothing is no thing that is packed.
        assert lines_without_size(an_order_of({"weight_grams": None}, {"dimensions": PILLOW})) == []
        assert lines_without_size(an_order_of({}, {})) == lines_without_size(an_order_of({"dimensions": PILLOW})) == []


PILLOW = {"length_mm": 600, "width_mm": 400, "height_mm": 200}
BUTTON = {"length_mm": 20, "width_mm": 20, "height_mm": 5}


def an_item(**facts: Any) -> dict[str, Any]:
    return {**MUG, "quantity": 1, "weight_grams": 500, **facts}


def an_order_of(*items: dict[str, Any]) -> OrderContent:
    made = [msgspec.convert(an_item(**facts), Item) for facts in items]
    return OrderContent(currency="EUR", items=made)


class TestNamed:
    """F1: also what the shop's own backend names is held against the order."""

    CONTENT = an_order_of({"quantity": 3, "dimensions": PILLOW}, {"weight_grams": None})

    @pytest.mark.parametrize(
        ("packages", "why"),
        [
            ([{"weight_grams": 1_499}], "cannot weigh 1499 g"),
            ([{"weight_grams": 2_000, "units": {"0": 3}}], "Of line 1 0 units"),
            ([{"weight_grams": 2_000, "units": {"0": 4, "1": 1}}], "Of line 0 4 units"),
            ([{"weight_grams": 2_000, "units": {"0": 3, "1": 1, "2": 1}}], "no line '2'"),
            ([{"weight_grams": 2_000, "units": {"00": 3, "1": 1}}], "no line '00'"),
            ([{"weight_grams": 2_000, "units": {"-1": 1, "0": 3, "1": 1}}], "no line '-1'"),
            ([{"weight_grams": 2_000}, {"weight_grams": 2_000}], "names no units"),
            ([{"weight_grams": 2_000, "units": {"0": 3, "1": 1}}, {"weight_grams": 1}], "names no units"),
            ([{"weight_grams": 2_000, "units": {"0": 3, "1": 1}}] * 2, "Of line 0 6 units"),
            ([{"weight_grams": 999, "units": {"0": 2}}, {"weight_grams": 9_000, "units": {"0": 1, "1": 1}}], "cannot weigh 999 g"),
            ([{"weight_grams": 2_000, "length_mm": 800}], "length, width and height"),
            ([{"weight_grams": 2_000, "length_mm": 600, "width_mm": 400, "height_mm": 599}], "too small"),
            ([{"weight_grams": 2_000, "length_mm": 550, "width_mm": 170, "height_mm": 100_000}], None),
            ([{"weight_grams": 1_500}], None),
            ([{"weight_grams": 1_000, "units": {"0": 2}}, {"weight_grams": 500, "units": {"0": 1, "1": 1}}], None),
            ([{"weight_grams": 1_500, "length_mm": 600, "width_mm": 400, "height_mm": 600}], None),
        ],
    )
    def test_is_refused_unless_it_holds_the_order(self, packages: list[Any], why: str | None) -> None:
        named = msgspec.convert(packages, list[PackageBody])
        if why is None:
            assert [package.weight_grams for package in check_packages(self.CONTENT, named)] == [each["weight_grams"] for each in packages]
        else:
            with pytest.raises(PackagesUnfit, match=why):
                check_packages(self.CONTENT, named)

    def test_without_a_size_is_sized_as_one_of_ours(self) -> None:
        [package] = check_packages(self.CONTENT, [PackageBody(weight_grams=9_000)])

        assert (package.length_mm, package.width_mm, package.height_mm) == (600, 490, 490)
        assert package.units == {"0": 3, "1": 1}
        with pytest.raises(PackagesUnfit, match="longer"):
            check_packages(an_order_of({"quantity": 2, "dimensions": dict.fromkeys(PILLOW, 100_000)}), [PackageBody(weight_grams=1_000)])


HOME = Address(name="Shop", street_address="388 Townsend St", city="San Francisco", country_code="US", postal_code="94107")
OUNCE_GRAMS = Decimal("28.349523125")


def easypost_parcel(**package: int) -> dict[str, float]:
    request = RatesRequest(ship_from=HOME, ship_to=HOME, packages=(msgspec.convert(package, PackageBody),), content=an_order_of({}))
    parcel: dict[str, float] = shipment_body(request)["shipment"]["parcel"]
    return parcel


class TestOunces:
    """H7: "Weights are in OUNCES (OZ) and go to one decimal point" (docs.easypost.com/docs/parcels); a pound is 453.59237 g.

    "Any fraction of a pound is rounded up to the next whole pound" (USPS, pe.usps.gov/Archive/HTML/DMMArchive0514/123.htm, 1.2), so a
    shop's whole pound, which is 454 g to the gram, must stay 16.0 oz.
    """

    @pytest.mark.parametrize(
        ("grams", "ounces"),
        [(1, 0.1), (28, 1.0), (29, 1.1), (437, 15.4), (453, 16.0), (454, 16.0), (455, 16.1), (907, 32.0), (908, 32.1), (4_536, 160.0)],
    )
    def test_a_pound_to_the_gram_is_a_pound(self, grams: int, ounces: float) -> None:
        assert easypost_parcel(weight_grams=grams) == {"weight": ounces}

    @given(tenths=st.integers(1, 20_000))
    def test_no_weight_becomes_the_next_tenth_by_being_said_in_grams(self, tenths: int) -> None:
        grams = max(1, round(tenths * OUNCE_GRAMS / 10))

        assert Decimal(str(easypost_parcel(weight_grams=grams)["weight"])) * 10 <= tenths
        assert Decimal(str(easypost_parcel(weight_grams=grams)["weight"])) * OUNCE_GRAMS >= grams - Decimal("0.5")

    def test_a_foot_to_the_millimetre_is_a_foot(self) -> None:
        """USPS charges by volume over one cubic foot (the same page, 1.4), which is 304.8 mm a side."""
        sides = {"length_mm": 305, "width_mm": 305, "height_mm": 306}

        assert easypost_parcel(weight_grams=1, **sides) == {"weight": 0.1, "length": 12.0, "width": 12.0, "height": 12.1}


# Through the system

BANDS = [{"up_to_grams": 5_000, "amount": 500}, {"up_to_grams": 10_000, "amount": 2_500}, {"up_to_grams": LIMIT_GRAMS, "amount": 4_000}]
TABLE: dict[str, Any] = {
    "zones": [{"name": "home", "country": "DE"}],
    "tariffs": [{"service": "post", "zone": "home", "currency": "EUR", "bands": BANDS}],
    "volumetric_mm3_per_gram": 5_000,
}
FLAT = [{"service": "flat", "amount": 700, "currency": "EUR"}]


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={"rates_timeout_seconds": 8.0}, payments={"pricing_timeout_seconds": 16.0}) as made:
        await shop.set_up(made, table=TABLE)
        yield made


async def settle(world: World, *carriers: str, **settings: Any) -> None:
    said = {**shop.SETTINGS, "table": TABLE, "carriers": carriers, **settings}
    await ok(await world.send("PUT", "/api/v1/admin/fulfillment/settings", said))


async def rates(world: World, order_id: UUID, packages: Any = (), **how: Any) -> Answer:
    return await world.send("POST", f"/api/v1/checkout/orders/{order_id}/shipping/rates", {"packages": packages}, **how)


async def label(world: World, order_id: UUID, **body: Any) -> Answer:
    return await world.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels", body)


class TestPrices:
    @pytest.mark.parametrize(
        ("items", "amount", "notices"),
        [
            pytest.param([an_item(dimensions=PILLOW)], 2_500, [], id="H1-one"),
            pytest.param([an_item(dimensions=PILLOW, quantity=2)], 4_000, [], id="H1-two"),
            pytest.param([an_item(dimensions=PILLOW), an_item(dimensions=BUTTON, weight_grams=1)], 2_500, [], id="H1-with-a-button"),
            pytest.param([an_item(dimensions=PILLOW), an_item(weight_grams=1)], 2_500, ["sizes-incomplete"], id="H1-with-one-of-no-size"),
            # 28.8 kg by volume is what a package takes.
            pytest.param([an_item(dimensions=PILLOW, quantity=4)], 4_000 + 2_500, [], id="H1-four-in-two-packages"),
            pytest.param([an_item(weight_grams=0)], 500, [], id="H5-no-weight"),
            pytest.param([an_item(weight_grams=None)], 500, [], id="H5-unknown-weight"),
        ],
    )
    async def test_what_is_large_costs_its_volume(self, world: World, items: list[Any], amount: int, notices: list[str]) -> None:
        await settle(world, "table_rate")
        order_id = await an_order(world, items=items)

        found = await ok(await rates(world, order_id))
        snapshot = await ok(await quote(world, order_id))

        assert ([each["amount"] for each in found["rates"]], snapshot["totals"]["shipping"]) == ([amount], amount)
        assert [each["code"] for each in found["notices"]] == [each["code"] for each in snapshot["notices"]] == notices

    @pytest.mark.parametrize(
        "item",
        [
            pytest.param(an_item(weight_grams=LIMIT_GRAMS + 1), id="H5-over-the-limit"),
            pytest.param(an_item(quantity=1_000_000), id="H5-a-million"),
            pytest.param(an_item(quantity=PACKAGES_MAX + 1, weight_grams=LIMIT_GRAMS), id="H5-too-many-packages"),
        ],
    )
    async def test_what_cannot_be_packed_is_refused(self, world: World, item: Any) -> None:
        await settle(world, "table_rate")

        answer = await quote(world, await an_order(world, items=[item]))

        assert (answer.status, answer.code) == (422, "cannot-be-packed")

    @pytest.mark.parametrize("carrier", ["sandbox", "easypost", "shippo"])
    async def test_every_carrier_sees_the_size_of_two_units(self, world: World, carrier: str) -> None:
        """H11, F8: Shippo's parcels need a size (shippo 3.9.0, ParcelCreateRequest), which two units of known size have."""
        await settle(world, carrier)
        small = await an_order(world, items=[an_item(dimensions=BUTTON)])
        two = await an_order(world, items=[an_item(dimensions=PILLOW, quantity=2)])

        cheap, dear = [min(each["amount"] for each in (await ok(await rates(world, order)))["rates"]) for order in (small, two)]

        # 19.2 kg by volume, at 20 for each half kilogram.
        assert dear >= cheap + 20 * 37

    @pytest.mark.parametrize("carrier", ["easypost", "shippo"])
    async def test_several_packages_are_said_to_be_too_many(self, world: World, carrier: str) -> None:
        """H11: one package a label at these two, which README says."""
        await settle(world, carrier)

        answer = await quote(world, await an_order(world, items=[an_item(quantity=3, weight_grams=20_000, dimensions=BUTTON)]))

        assert (answer.status, answer.code) == (422, "no-shipping-rate")
        assert "one package a label here, and this order goes in 3" in answer.json["notices"][0]["detail"]


class TestNamedByTheBackend:
    async def test_packages_that_hold_the_order_are_priced(self, world: World) -> None:
        await settle(world, "table_rate")
        order_id = await an_order(world, items=[an_item(quantity=2, weight_grams=4_000)])

        apart = [{"weight_grams": 4_100, "units": {"0": 1}}] * 2
        found = [await ok(await rates(world, order_id, packages)) for packages in ((), apart, [{"weight_grams": 8_200}])]
        snapshot = await ok(await quote(world, order_id, shipping_rate_id=found[1]["rates"][0]["id"]))

        assert [each["rates"][0]["amount"] for each in found] == [2_500, 1_000, 2_500]
        assert snapshot["totals"]["shipping"] == 1_000

    async def test_packages_that_do_not_are_refused(self, world: World) -> None:
        await settle(world, "table_rate")
        order_id = await an_order(world, items=[an_item(quantity=2, weight_grams=20_000)])

        answers = [
            await rates(world, order_id, [{"weight_grams": 1}]),
            await rates(world, order_id, [{"weight_grams": 9, "units": {"7": 99}}]),
        ]
        others = [
            await rates(world, order_id, [{"weight_grams": 40_000}], role=role) for role in (Role.SUPPORT, Role.FINANCE, Role.CHECKOUT)
        ]

        assert {(each.status, each.code) for each in answers} == {(422, "packages-unfit")}
        assert {each.status for each in others} == {403}


class TestOtherRates:
    async def test_the_fallback_says_what_is_true(self, world: World) -> None:
        """H6, F20: a carrier that answers in another currency has answered."""
        in_dollars = {**TABLE, "tariffs": [{**TABLE["tariffs"][0], "currency": "USD"}]}
        await settle(world, "table_rate", table=in_dollars)
        order_id = await an_order(world)

        refused = await quote(world, order_id)
        await settle(world, "table_rate", table=in_dollars, fallback_rates=FLAT)
        snapshot = await ok(await quote(world, order_id))
        await settle(world, fallback_rates=FLAT)
        without_carriers = await ok(await quote(world, order_id))

        assert (refused.status, refused.code, refused.json["detail"]) == (422, "no-shipping-rate", "No carrier gave a rate in EUR.")
        assert (snapshot["totals"]["shipping"], without_carriers["totals"]["shipping"]) == (700, 700)
        assert [each["code"] for each in snapshot["notices"]] == ["rates-in-other-currency", "fallback-rates"]
        assert snapshot["notices"][1]["detail"] == "No carrier gave a rate in EUR; these are the store's fallback rates."

    async def test_a_label_of_a_fallback_rate_needs_a_carriers(self, world: World) -> None:
        """H10: the store's own price buys no label; a carrier's rate does, and what is paid stays."""
        await settle(world, "sandbox", fallback_rates=FLAT)
        order_id = await an_order(world)
        world.sandbox.weather = {"fail": 1.0}
        snapshot = await ok(await quote(world, order_id))
        world.sandbox.weather = {}

        refused = await label(world, order_id)
        rate = (await ok(await rates(world, order_id)))["rates"][0]
        bought = await ok(await label(world, order_id, rate_id=rate["id"]))

        assert (snapshot["totals"]["shipping"], snapshot["providers"]["shipping"]["name"]) == (700, "fallback")
        assert (refused.status, refused.code) == (422, "rate-needed")
        assert "fallback rate" in refused.json["detail"]
        assert bought["label"]["amount"] == rate["amount"]

    async def test_a_label_is_not_bought_by_a_rate_of_what_was(self, world: World) -> None:
        """F1: the packages of such a rate are those of another order."""
        await settle(world, "sandbox")
        order_id = await an_order(world, items=[an_item(weight_grams=1)])
        light = (await ok(await rates(world, order_id)))["rates"][0]
        await ok(await world.put_order(order_id, {"currency": "EUR", "items": [an_item(weight_grams=20_000)], "shipping_address": MUNICH}))
        await ok(await quote(world, order_id))

        refused = await label(world, order_id, rate_id=light["id"])

        assert (refused.status, refused.code) == (409, "order-changed")
        assert (await label(world, order_id)).json["label"]["amount"] == 390 + 40 * 20
