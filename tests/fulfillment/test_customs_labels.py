"""Labels across customs borders, bought through HTTP: what EasyPost and Shippo were sent, and what is refused before they are asked."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from shared.ids import new_id
from tests.fulfillment import shop
from tests.fulfillment.shop import MUG, an_order, ok, quote
from tests.journeys.test_shipping import buy, void
from tests.world import Answer, Place, World, a_world, until

CUSTOMS = {"hs_code": "691200", "origin_country": "DE", "description": "Stoneware mug"}
BOX = {"length_mm": 200, "width_mm": 200, "height_mm": 200}
GOODS: dict[str, Any] = {**MUG, "quantity": 1, "customs": CUSTOMS, "dimensions": BOX, "tax_behavior": "exclusive"}
MADRID = {"name": "Tienda", "street_address": "Gran Via 1", "city": "Madrid", "postal_code": "28013", "country_code": "ES"}
BOSTON = {
    "name": "Shop",
    "street_address": "1 Main Street",
    "city": "Boston",
    "country_area": "MA",
    "postal_code": "02108",
    "country_code": "US",
}
ZURICH = {"name": "Laden", "street_address": "Bahnhofstrasse 1", "city": "Zürich", "postal_code": "8001", "country_code": "CH"}
CANARIES = {"name": "Ana", "street_address": "Calle Triana 1", "city": "Las Palmas", "postal_code": "35002", "country_code": "ES"}
APO = {
    "name": "Sgt. Doe",
    "street_address": "PSC 3 Box 4120",
    "city": "APO",
    "country_area": "AE",
    "postal_code": "09021",
    "country_code": "US",
}
TOKYO = {"name": "Haruka", "street_address": "1-2-3 Ginza", "city": "Chuo-ku", "country_area": "Tokyo", "postal_code": "104-0061"}
PARIS = {"name": "Jean", "street_address": "1 Rue de Rivoli", "city": "Paris", "postal_code": "75001", "country_code": "FR"}
MONACO = {"name": "Anne", "street_address": "1 Avenue de la Costa", "city": "Monaco", "postal_code": "98000", "country_code": "MC"}
EORI = {"kind": "EORI", "number": "DE1234567890123", "country": "DE"}
IOSS = {"kind": "IOSS", "number": "IM2760000742", "country": "DE"}
DUTIES = {"payer": "SENDER", "account": "123456789", "country": "DE"}
ITN = "X20261130123456"
TAXED: dict[str, Any] = {"tax_lines": []}


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}, payments={"pricing_timeout_seconds": 8.0}) as made:
        yield made


async def ships(world: World, carrier: str, ship_from: dict[str, Any], **customs: Any) -> None:
    """Have the store ship from somewhere by a carrier, with terms of its own."""
    settings = {"home_country": ship_from["country_code"], "ship_from": ship_from, "carriers": [carrier]}
    await ok(await world.send("PUT", "/api/v1/admin/fulfillment/settings", {**settings, **({"customs": customs} if customs else {})}))


async def ordered(world: World, there: dict[str, Any], **changes: Any) -> UUID:
    """Push an order of one mug and quote it."""
    order_id = await an_order(world, **{"shipping_address": there, "items": [GOODS], **TAXED, **changes})
    await ok(await quote(world, order_id, shipping_service="Sandbox Ground"))
    return order_id


async def notices(world: World, there: dict[str, Any], **changes: Any) -> list[str]:
    """Quote an order of one mug, and give the codes of its notices."""
    order_id = await an_order(world, **{"shipping_address": there, "items": [GOODS], **TAXED, **changes})
    return [each["code"] for each in (await ok(await quote(world, order_id)))["notices"]]


def last(world: World) -> Any:
    """Give what the carrier was sent for the label that was bought last."""
    bought = [each for each in world.sandbox.shipments.values() if getattr(each, "label_id", None)][-1]
    if hasattr(bought, "rate_id"):
        of_rate = (each for each in world.sandbox.shipments.values() for rate in getattr(each, "rates", ()) if rate.id == bought.rate_id)
        bought = next(of_rate)
    return bought.said


def shipments(world: World) -> int:
    """Count what carriers were asked for."""
    return len(world.sandbox.shipments)


class TestBoughtAcrossABorder:
    async def test_spain_to_the_canaries(self, world: World) -> None:
        """I7: Directive 2006/112/EC, Article 6(1)(b): outside the VAT area, so with a declaration (DUA), though one country code."""
        await ships(world, "easypost", MADRID, signer="Ada Lovelace")
        bare = await ordered(world, CANARIES, items=[{**GOODS, "customs": None}])
        whole = await ordered(world, CANARIES)
        before = shipments(world)

        refused = await buy(world, bare)
        unasked = shipments(world) == before
        await ok(await buy(world, whole))

        assert (refused.status, refused.code, refused.json["lines"], unasked) == (422, "customs-needed", [0], True)
        info = last(world)["customs_info"]
        assert (info["customs_signer"], info["contents_type"], "eel_pfc" in info) == ("Ada Lovelace", "merchandise", False)
        assert last(world)["options"]["incoterm"] == "DAP"

    async def test_united_states_to_military_mail(self, world: World) -> None:
        """I6, I11: USPS DMM 703.2.3.6; 15 CFR 30.37(a)."""
        await ships(world, "easypost", BOSTON)
        bare = await buy(world, await ordered(world, APO, currency="USD", items=[{**GOODS, "customs": None}]))
        await ok(await buy(world, await ordered(world, APO, currency="USD")))

        assert (bare.status, bare.code) == (422, "customs-needed")
        assert last(world)["customs_info"]["eel_pfc"] == "NOEEI 30.37(a)"

    async def test_germany_to_switzerland_names_the_exporter(self, world: World) -> None:
        """I10: Delegated Regulation (EU) 2015/2446, Article 141(4): more than 1000 EUR needs the exporter's EORI number."""
        await ships(world, "easypost", shop.BERLIN)
        dear = {"items": [{**GOODS, "unit_price": 100_001}]}
        refused = await buy(world, await ordered(world, shop.ZURICH, **dear))
        await ships(world, "easypost", shop.BERLIN, numbers=[EORI, IOSS])
        await ok(await buy(world, await ordered(world, shop.ZURICH, **dear)))

        assert (refused.status, refused.code, refused.json["field"]) == (422, "customs-incomplete", "$.customs.numbers")
        assert last(world)["tax_identifiers"] == [
            {"entity": "SENDER", "tax_id": "DE1234567890123", "tax_id_type": "EORI", "issuing_country": "DE"}
        ]

    @pytest.mark.parametrize("carrier", ["easypost", "shippo"])
    async def test_import_by_ioss_bears_its_number(self, world: World, carrier: str) -> None:
        """I10, F17: Directive 2006/112/EC, Articles 369l to 369x."""
        await ships(world, carrier, ZURICH, numbers=[IOSS])
        await ok(await buy(world, await ordered(world, shop.MUNICH, **({"currency": "USD"} if carrier == "shippo" else {}))))

        sent = last(world)
        if carrier == "easypost":
            assert [(each["tax_id_type"], each["tax_id"]) for each in sent["tax_identifiers"]] == [("IOSS", "IM2760000742")]
        else:
            declaration = sent["customs_declaration"]
            assert declaration["exporter_identification"] == {"tax_id": {"number": "IM2760000742", "type": "IOSS"}}
            assert (declaration["incoterm"], declaration["is_vat_collected"]) == ("DDU", True)

    async def test_france_to_monaco_declares_nothing(self, world: World) -> None:
        """I8: Regulation (EU) 952/2013, Article 4(2)(a)."""
        await ships(world, "easypost", PARIS)
        await ok(await buy(world, await ordered(world, MONACO)))

        assert "customs_info" not in last(world)

    async def test_what_comes_back_is_declared_as_that(self, world: World) -> None:
        """I5: a return across a border."""
        await ships(world, "easypost", shop.BERLIN, numbers=[EORI], contents="merchandise", incoterm="DDP", duties_account=DUTIES)
        await ok(await buy(world, await ordered(world, shop.ZURICH, customs={"contents": "gift"}), is_return=True))

        sent = last(world)
        assert (sent["options"]["incoterm"], "duty_payment" in sent["options"]) == ("DAP", False)
        assert (sent["from_address"]["country"], sent["customs_info"]["contents_type"]) == ("CH", "returned_goods")
        assert [each["entity"] for each in sent["tax_identifiers"]] == ["RECEIVER"]


class TestQuoted:
    async def test_prices_without_a_declaration_are_said(self, world: World) -> None:
        """EasyPost and Shippo price what they know of a parcel, so a quote says where they do not know it all."""
        await ships(world, "easypost", BOSTON)
        bare, dear = {**GOODS, "customs": None}, {**GOODS, "unit_price": 250_001}
        there = {**TOKYO, "country_code": "JP"}
        found = [await notices(world, there, currency="USD", items=[item]) for item in (GOODS, bare, dear)]

        assert found == [[], ["customs-needed"], ["customs-incomplete"]]


class TestTermsOfOneLabel:
    async def test_itn_that_came_after_the_quote(self, world: World) -> None:
        """I11: 15 CFR 30.37(a): goods of one Schedule B code worth more than 2500 USD are filed, and the ITN is on the label."""
        await ships(world, "easypost", BOSTON)
        there = {**TOKYO, "country_code": "JP"}
        order_id = await ordered(world, there, currency="USD", items=[{**GOODS, "unit_price": 250_001}])
        before = shipments(world)

        refused = await buy(world, order_id)
        unasked = shipments(world) == before
        key = new_id().hex
        path, body = f"/api/v1/admin/orders/{order_id}/shipping/labels", {"customs": {"itn": ITN}}
        answers = [await world.send("POST", path, body, key=key) for _ in range(2)]
        again = await buy(world, order_id, **body)

        assert (refused.status, refused.code, refused.json["field"], unasked) == (422, "customs-incomplete", "$.customs.itn", True)
        assert last(world)["customs_info"]["eel_pfc"] == f"AES {ITN}"
        # Twice the same is one label, and another one is refused.
        assert (answers[0].status, answers[0].content) == (201, answers[1].content)
        assert (again.status, again.code) == (409, "label-exists")

    async def test_duties_are_paid_by_an_account_or_not_at_all(self, world: World) -> None:
        """I12."""
        await ships(world, "easypost", shop.BERLIN)
        unpaid = await buy(world, await ordered(world, shop.ZURICH), customs={"incoterm": "DDP"})
        await ships(world, "easypost", shop.BERLIN, duties_account=DUTIES)
        await ok(await buy(world, await ordered(world, shop.ZURICH, customs={"incoterm": "DDP"})))

        assert (unpaid.status, unpaid.code, unpaid.json["field"]) == (422, "customs-incomplete", "$.customs.duties_account")
        sent = last(world)["options"]
        assert (sent["incoterm"], sent["duty_payment"]) == ("DDP", {"type": "SENDER", "account": "123456789", "country": "DE"})

    async def test_signature_and_dangerous_goods(self, world: World) -> None:
        """I12."""
        await ships(world, "easypost", shop.BERLIN)
        batteries = {"items": [{**GOODS, "dangerous_goods": "lithium_batteries"}]}
        await ok(await buy(world, await ordered(world, shop.MUNICH, **batteries), delivery_confirmation="adult_signature"))
        options = last(world)["options"]
        await ships(world, "shippo", shop.BERLIN)
        await ok(await buy(world, await ordered(world, shop.MUNICH, **batteries, delivery_confirmation="signature")))
        extra = last(world)["extra"]

        assert (options["delivery_confirmation"], options["hazmat"]) == ("ADULT_SIGNATURE", "LITHIUM")
        assert extra == {
            "signature_confirmation": "STANDARD",
            "dangerous_goods": {"contains": True, "lithium_batteries": {"contains": True}},
        }

    async def test_label_of_other_terms_after_a_void(self, world: World) -> None:
        """I1: a new label after a void; its rate is another, as each of EasyPost's buys one label."""
        await ships(world, "easypost", shop.BERLIN)
        order_id = await ordered(world, shop.ZURICH)
        label = (await ok(await buy(world, order_id)))["label"]
        await ok(await void(world, order_id, label["id"]))
        again = await ok(await buy(world, order_id, customs={"contents": "gift"}))

        assert again["label"]["status"] == "purchased"
        assert last(world)["customs_info"]["contents_type"] == "gift"

    async def test_carrier_that_fails_once_is_asked_again(self, world: World) -> None:
        """Pricing with other terms fails: nothing is bought or written by then, and the command is carried out once the carrier is back."""
        await ships(world, "easypost", shop.BERLIN)
        order_id = await ordered(world, shop.ZURICH)
        before, asked = len(world.sandbox.carrier.labels), sum(world.sandbox.calls.values())
        world.sandbox.weather = {"fail": 1.0}
        buying = asyncio.create_task(buy(world, order_id, customs={"contents": "gift"}))

        async def was_asked() -> bool:
            return sum(world.sandbox.calls.values()) > asked

        try:
            await until(was_asked)
        finally:
            world.sandbox.weather = {}
        unsold = len(world.sandbox.carrier.labels) == before
        bought = await buying

        assert (unsold, bought.status, len(world.sandbox.carrier.labels)) == (True, 201, before + 1)

    async def test_dearer_label_than_the_quote_is_refused(self, world: World) -> None:
        """What the buyer's rate does not cover is not bought without the shop's word."""
        await ships(world, "easypost", shop.BERLIN)
        order_id = await ordered(world, shop.ZURICH)
        await world.change("UPDATE fulfillment.shipment_rates SET amount = amount - 1 WHERE order_id = $1", order_id)
        refused = await buy(world, order_id, customs={"contents": "gift"})

        assert (refused.status, refused.code) == (409, "rate-expired")


class TestWhoMaySay:
    async def test_shopper_says_nothing_of_customs(self, world: World) -> None:
        await ships(world, "easypost", shop.BERLIN)
        order_id = await ordered(world, shop.ZURICH)
        path = f"/api/v1/admin/orders/{order_id}/checkout-token"
        token = (await ok(await world.send("POST", path)))["token"]
        terms = {"customs": {"contents": "gift"}}
        rates = f"/api/v1/checkout/orders/{order_id}/shipping/rates"
        label = f"/api/v1/admin/orders/{order_id}/shipping/labels"
        bodies = {"/api/v1/checkout/quote": {"order_id": str(order_id), **terms}, rates: terms, label: terms}

        answers = [await self._send(world, token, each, body) for each, body in bodies.items()]

        assert [(answer.status in (400, 403, 422)) for answer in answers] == [True] * 3, answers

    async def test_store_has_no_itn(self, world: World) -> None:
        settings = {"home_country": "US", "ship_from": BOSTON, "customs": {"itn": ITN}}
        refused = await world.send("PUT", "/api/v1/admin/fulfillment/settings", settings)

        assert (refused.status, refused.json["field"]) == (422, "$.customs.itn")

    async def test_malformed_numbers_are_named(self, world: World) -> None:
        wrong = {"kind": "IOSS", "number": "DE136695976", "country": "DE"}
        settings = {"home_country": "US", "ship_from": BOSTON, "customs": {"numbers": [wrong]}}
        refused = await world.send("PUT", "/api/v1/admin/fulfillment/settings", settings)

        assert refused.status == 422
        assert [each["field"] for each in refused.json["errors"]] == ["customs.numbers[0]"]

    async def _send(self, world: World, token: str, path: str, body: Any) -> Answer:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": new_id().hex}
        return Answer(await world.http.post(path, json=body, headers=headers))


class TestRegistrations:
    """The last ones, as their registration stays with the store."""

    async def test_value_is_without_the_tax_that_the_quote_worked_out(self, world: World) -> None:
        """F17: Delegated Regulation (EU) 2015/2446, Article 1(48); the number is the registration's."""
        await ships(world, "easypost", ZURICH)
        await ok(await world.send("POST", "/api/v1/admin/tax/rules", shop.a_rule("DE", "MwSt", "19")))
        nexus = {"country": "DE", "valid_from": shop.SINCE, "registration_number": "DE 136 695 976"}
        await ok(await world.send("POST", "/api/v1/admin/tax/nexus", nexus))
        item = {**GOODS, "unit_price": 11_900, "tax_behavior": "inclusive"}
        await ok(await buy(world, await ordered(world, shop.MUNICH, items=[item], tax_lines=None)))

        [declared] = last(world)["customs_info"]["customs_items"]
        assert declared["value"] == "100.00"
        assert [(each["tax_id_type"], each["tax_id"]) for each in last(world)["tax_identifiers"]] == [("VAT", "DE136695976")]

    @pytest.mark.parametrize("recorded", [False, True])
    async def test_order_of_stated_shipping_bears_the_scheme_it_was_taxed_by(self, world: World, recorded: bool) -> None:
        """170.00 with 27.14 of IOSS tax are 142.86, below its limit; without its number they are taxed again at the border."""
        await ships(world, "easypost", {**TOKYO, "country_code": "JP"})
        if not recorded:
            nexus = {"ioss": True, "valid_from": shop.SINCE, "registration_number": "IM2760000742"}
            await ok(await world.send("POST", "/api/v1/admin/tax/nexus", nexus))
        item = {**GOODS, "unit_price": 17_000, "tax_behavior": "inclusive"}
        order_id = await an_order(world, items=[item], shipping_address=shop.MUNICH, shipping_amount=0)
        snapshot = await ok(await quote(world, order_id))
        if recorded:
            await ok(await shop.finalize(world, order_id, snapshot["snapshot_id"]))
        rates = await ok(await world.send("POST", f"/api/v1/checkout/orders/{order_id}/shipping/rates", {}))
        await ok(await buy(world, order_id, rate_id=rates["rates"][0]["id"]))

        [declared] = last(world)["customs_info"]["customs_items"]
        assert (snapshot["totals"]["tax_inclusive"], declared["value"]) == (2_714, "142.86")
        assert "IOSS" in [each["tax_id_type"] for each in last(world)["tax_identifiers"]]
