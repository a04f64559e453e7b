"""Addresses as people type them: understood, refused or said, never taxed at nothing in silence."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from shared.ids import new_id
from tests.fulfillment.shop import BERLIN, MUG, SINCE, a_rule, an_order, ok, quote
from tests.world import Answer, Place, World, a_world

LONDON = {"name": "Shop", "street_address": "1 Poultry", "city": "London", "postal_code": "EC2R 8EJ", "country_code": "GB"}
HOMES = {
    "GB": LONDON,
    "DE": BERLIN,
    "CA": {**LONDON, "city": "Ottawa", "postal_code": "K1P 1J1", "country_area": "ON", "country_code": "CA"},
}
RULES = (
    a_rule("US", "California", "7.25", level="state", region="US-CA"),
    a_rule("US", "Los Angeles County", "2.25", level="county", region="US-CA", postal_codes=["90001"]),
    a_rule("US", "Los Angeles", "1", level="city", region="US-CA", postal_codes=["900*"]),
    a_rule("US", "Columbia", "6", level="state", region="US-DC"),
    a_rule("IN", "CGST", "9"),
    # By its code until 2023; its present one is another.
    a_rule("IN", "SGST", "9", level="state", region="IN-KA"),
    a_rule("IN", "SGST", "9", level="state", region="IN-OR"),
    a_rule("CA", "HST", "13", region="CA-ON"),
    a_rule("CA", "GST", "5", region="CA-QC"),
    a_rule("CA", "QST", "9.975", region="CA-QC", level="state"),
    a_rule("BR", "ICMS", "17", level="state", region="BR-SP"),
    a_rule("BR", "ISS", "1", level="city", region="BR-SP", postal_codes=["01310-100"]),
    a_rule("ES", "IGIC", "7", level="state", region="ES-CN"),
    a_rule("DE", "USt", "19"),
    a_rule("ES", "IVA", "21"),
    a_rule("FI", "ALV", "25.5"),
)
REGISTRATIONS: tuple[dict[str, Any], ...] = (
    *(
        {"country": country, "region": f"{country}-{region}"}
        for country, region in (("US", "CA"), ("US", "DC"), ("IN", "KA"), ("IN", "OD"))
    ),
    *({"country": country, "region": f"{country}-{region}"} for country, region in (("CA", "QC"), ("BR", "SP"))),
    {"country": "IN"},
    {"country": "CA"},
    {"oss": True},
)
TABLE = {
    "zones": [
        {"name": "usa", "country": "US"},
        {"name": "alaska", "country": "US", "region": "US-AK"},
        {"name": "los angeles", "country": "US", "postal_codes": ["90001"]},
        {"name": "germany", "country": "DE"},
        {"name": "heligoland", "country": "DE", "postal_codes": ["27498"]},
        {"name": "britain", "country": "GB"},
        {"name": "highlands", "country": "GB", "postal_codes": ["IV1-IV28", "PH19", "HS*"]},
    ],
    "tariffs": [
        {"service": "post", "zone": zone, "currency": "EUR", "bands": [{"up_to_grams": 30_000, "amount": amount}]}
        for zone, amount in (("usa", 2000), ("alaska", 6000), ("los angeles", 1000), ("germany", 500), ("heligoland", 1500))
    ]
    + [
        {"service": "post", "zone": zone, "currency": "EUR", "bands": [{"up_to_grams": 30_000, "amount": amount}]}
        for zone, amount in (("britain", 700), ("highlands", 2900))
    ],
}


class Store:
    """A store whose home moves where a case needs it."""

    def __init__(self, world: World) -> None:
        self.send = world.send
        self._world = world
        self._home = ""

    async def sold(self, home: str, address: dict[str, str]) -> Answer:
        await self.move(home)
        item = {**MUG, "quantity": 1, "unit_price": 10_000, "tax_behavior": "exclusive"}
        return await quote(self._world, await self.order(address, items=[item], shipping_amount=0))

    async def move(self, home: str) -> None:
        if self._home != home:
            settings = {"home_country": home, "ship_from": HOMES[home], "carriers": ["table_rate"], "table": TABLE}
            await ok(await self.send("PUT", "/api/v1/admin/fulfillment/settings", settings))
            self._home = home

    async def order(self, address: dict[str, str], **more: Any) -> UUID:
        to = {"name": "A", "street_address": "1 Main St", "city": "Town", **address}
        return await an_order(self._world, shipping_address=to, **more)


@pytest.fixture(scope="module")
async def store(place: Place) -> AsyncIterator[Store]:
    async with a_world(place, fulfillment={}) as world:
        for rule in RULES:
            await ok(await world.send("POST", "/api/v1/admin/tax/rules", rule))
        for registration in REGISTRATIONS:
            await ok(await world.send("POST", "/api/v1/admin/tax/nexus", {**registration, "valid_from": SINCE}))
        yield Store(world)


def us(postal_code: str = "90001", area: str = "", **more: str) -> dict[str, str]:
    return {"country_code": "US", "postal_code": postal_code, "country_area": area, **more}


def of(country: str, postal_code: str = "", area: str = "", **more: str) -> dict[str, str]:
    return {"country_code": country, "postal_code": postal_code, "country_area": area, **more}


LOS_ANGELES = [725, 225, 100]


class TestTax:
    @pytest.mark.parametrize(
        ("home", "address", "taxes"),
        [
            # github.com/woocommerce/woocommerce/issues/24506; rates: cdtfa.ca.gov, California city and county sales and use tax rates.
            pytest.param("GB", us("90001-1234", "CA"), LOS_ANGELES, id="C1-zip-plus-4"),
            pytest.param("GB", us("90001 1234", "CA"), LOS_ANGELES, id="C1-blank"),
            pytest.param("GB", us("CA 90001", "CA"), LOS_ANGELES, id="C1-state-before"),
            # github.com/reactioncommerce/reaction/issues/3518, spree/spree/issues/6549: not understood may not be untaxed.
            pytest.param("GB", us("90001", ""), LOS_ANGELES, id="C3-no-state"),
            pytest.param("GB", us("90001", "Calif."), LOS_ANGELES, id="C3-abbreviation"),
            pytest.param("GB", us("90001", "US-CA"), LOS_ANGELES, id="C3-iso-3166-2"),
            pytest.param("GB", us("90001", "california"), LOS_ANGELES, id="C3-name"),
            pytest.param("GB", us("90001", "Californa"), LOS_ANGELES, id="C3-typo-in-the-name"),
            pytest.param("GB", us("9O001", "California"), [725], id="C3-typo-in-the-zip"),
            pytest.param("GB", us("", "California"), [725], id="C3-no-zip"),
            pytest.param("GB", us("90001", "California", street_address=""), LOS_ANGELES, id="C3-no-street"),
            pytest.param("GB", us("90001", "California", city=""), LOS_ANGELES, id="C3-no-city"),
            pytest.param("GB", us("20001", "D.C."), [600], id="C3-dc"),
            pytest.param("GB", us("20001", "Washington, D.C."), [600], id="C3-washington-dc"),
            pytest.param("GB", us("98101", "WA"), [0], id="C3-state-without-nexus"),
            # CGST Act 2017, section 9, and Karnataka GST Act 2017, section 9: 9 % each of 18.
            pytest.param("GB", of("IN", "560001", "Karnataka"), [900, 900], id="E6-name"),
            pytest.param("GB", of("IN", "560 001", "KA"), [900, 900], id="E6-code"),
            pytest.param("GB", of("IN", "560001", "कर्नाटक"), [900, 900], id="E6-local-name"),
            pytest.param("GB", of("IN", "560001", ""), [900, 900], id="E6-by-pin"),
            pytest.param("GB", of("IN", "751001", "Orissa"), [900, 900], id="E6-former-name"),
            # ISO 3166-2:CA; Canada Post used PQ until 1992. revenuquebec.ca: GST 5 % and QST 9.975 %.
            pytest.param("CA", of("CA", "H2Y 1C6", "PQ"), [500, 998], id="E4-former-code"),
            pytest.param("CA", of("CA", "h2y-1c6", "Qué."), [500, 998], id="E4-abbreviation"),
            pytest.param("CA", of("CA", "M5V 3L9", ""), [1300], id="E4-by-postal-code"),
            pytest.param("CA", of("CA", "", "ON"), [1300], id="E4-no-postal-code"),
            pytest.param("GB", of("BR", "01310-100", "São Paulo"), [1700, 100], id="E7-name"),
            pytest.param("GB", of("BR", "01310100", "Sao Paulo"), [1700, 100], id="E7-without-accents-and-dash"),
            # Directive 2006/112/EC, Article 6: outside the VAT area; github.com/woocommerce/woocommerce/issues/29212.
            pytest.param("DE", of("DE", "D-27498"), [0], id="D6-Heligoland"),
            pytest.param("DE", of("DE", "DE-78266"), [0], id="D6-Büsingen"),
            pytest.param("DE", of("ES", "E-35001", "Las Palmas"), [0], id="D6-Canaries"),
            pytest.param("DE", of("FI", "AX-22100"), [0], id="D6-Åland"),
            pytest.param("DE", of("DE", "D-27499"), [1900], id="D6-next-to-Heligoland"),
            # In Oklahoma or Texas, so not where the seller is registered (Texhoma, on the border of both).
            pytest.param("GB", us("73960", ""), [0], id="C3-elsewhere-in-any-case"),
        ],
    )
    async def test_is_that_of_where_an_address_is(self, store: Store, home: str, address: dict[str, str], taxes: list[int]) -> None:
        answer = await ok(await store.sold(home, address))

        assert [line["amount"] for line in answer["tax_lines"]] == taxes

    @pytest.mark.parametrize(
        ("home", "address", "field", "code"),
        [
            pytest.param("GB", us("", ""), "country_area", "region-not-understood", id="C3-nothing"),
            pytest.param("GB", us("00000", ""), "country_area", "region-not-understood", id="C3-no-such-zip"),
            pytest.param("GB", us("9000", "Californa"), "country_area", "region-not-understood", id="C3-two-typos"),
            pytest.param("GB", us("90001", "Oregon"), "postal_code", "region-contradictory", id="C3-zip-of-a-state-with-nexus"),
            pytest.param("GB", of("IN", "", "Mysore"), "country_area", "region-not-understood", id="E6-no-state"),
            pytest.param("CA", of("CA", "75001", ""), "country_area", "region-not-understood", id="E4-foreign-postal-code"),
            # Ottawa and Gatineau share it: K is Ontario's letter, and offices of the federal government are on both sides of the river.
            pytest.param("CA", of("CA", "K1A 0B1", ""), "country_area", "region-not-understood", id="E4-shared-postal-code"),
        ],
    )
    async def test_is_refused_where_the_region_is_a_guess(
        self, store: Store, home: str, address: dict[str, str], field: str, code: str
    ) -> None:
        answer = await store.sold(home, address)

        assert (answer.status, answer.code) == (422, code)
        assert answer.json["field"] == f"$.shipping_address.{field}"

    @pytest.mark.parametrize(
        ("address", "notices"),
        [
            (us("90001", "CA"), []),
            (us("90001", "Californa"), ["region-from-postal-code"]),
            (us("90001", ""), ["region-from-postal-code"]),
            (us("9000", "CA"), ["postal-code-doubtful"]),
            (us("", "CA"), ["postal-code-doubtful"]),
            (us("98101", "CA"), ["region-contradictory"]),
            # Nothing depends on it there.
            (of("CH", "80011", "Nowhere"), []),
            (of("AE", "", "Nowhere"), []),
        ],
    )
    async def test_says_what_is_doubtful_about_an_address(self, store: Store, address: dict[str, str], notices: list[str]) -> None:
        answer = await ok(await store.sold("GB", address))

        assert [notice["code"] for notice in answer["notices"]] == notices


class TestZones:
    @pytest.mark.parametrize(
        ("address", "amount"),
        [
            pytest.param(us("90001-1234", "CA"), 1000, id="H3-zip-plus-4"),
            pytest.param(of("DE", "D-27498"), 1500, id="H3-country-before"),
            pytest.param(us("99501", "Alaska", street_address=""), 6000, id="H4-spelled-out-no-street"),
            pytest.param(us("99501", "Alaska", city=""), 6000, id="H4-no-city"),
            pytest.param(us("9950", "alaska"), 6000, id="H4-typo-in-the-zip"),
            pytest.param(us("99501", "US-AK"), 6000, id="H4-iso-3166-2"),
            pytest.param(us("99501", ""), 6000, id="H4-by-zip"),
            pytest.param(us("99201", "Wash."), 2000, id="H4-another-state"),
            pytest.param(of("GB", "iv11aa"), 2900, id="H5-outward-range"),
            pytest.param(of("GB", "IV63 6TU"), 700, id="H5-outside-the-range"),
            pytest.param(of("GB", "PH1 9AA"), 700, id="H5-not-PH19"),
        ],
    )
    async def test_have_an_address_however_it_is_written(self, store: Store, address: dict[str, str], amount: int) -> None:
        await store.move("GB")
        order_id = await store.order(address)

        answer = await ok(await store.send("POST", f"/api/v1/checkout/orders/{order_id}/shipping/rates", {}))

        assert [rate["amount"] for rate in answer["rates"]] == [amount]

    async def test_are_not_guessed_where_the_region_counts(self, store: Store) -> None:
        await store.move("GB")
        order_id = await store.order(us("", "Alasca"))

        answer = await store.send("POST", f"/api/v1/checkout/orders/{order_id}/shipping/rates", {})

        assert (answer.status, answer.code) == (422, "no-shipping-rate")
        assert "region" in answer.json["notices"][0]["detail"]


class TestRefusedPatterns:
    @pytest.mark.parametrize(
        ("country", "region", "postal_code"),
        [
            ("US", "", "90001-1234"),
            ("US", "", "9000"),
            ("US", "US-ZZ", "90001"),
            ("US", "US-XK", "*"),
            ("CA", "", "K1A"),
            ("DE", "", "1234"),
            ("DE", "", "12000-1299"),
            ("GB", "", "IV28-IV1"),
        ],
    )
    async def test_that_no_address_has(self, store: Store, country: str, region: str, postal_code: str) -> None:
        rule = a_rule(country, f"Tax {new_id()}", "1", region=region, postal_codes=[postal_code])
        zone = {"name": "z", "country": country, "region": region, "postal_codes": [postal_code]}
        settings = {"home_country": "GB", "ship_from": LONDON, "table": {"zones": [zone], "tariffs": []}}

        assert (await store.send("POST", "/api/v1/admin/tax/rules", rule)).status == 422
        assert (await store.send("PUT", "/api/v1/admin/fulfillment/settings", settings)).status == 422
