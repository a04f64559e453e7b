"""Quotes: shipping and tax worked out, chosen, frozen; and what is refused rather than guessed."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.ids import new_id
from tests.fulfillment import shop
from tests.fulfillment.shop import MUG, PARIS, ZURICH, an_order, ok, quote
from tests.world import Place, World, a_world


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}) as made:
        await shop.set_up(made)
        yield made


def taxes(snapshot: Any) -> list[tuple[int | None, str, str, int, str]]:
    return [(t["line"], t["jurisdiction"], t["rate_percent"], t["amount"], t["reason"]) for t in snapshot["tax_lines"]]


class TestItWorks:
    async def test_the_cheapest_way_is_chosen_and_taxed(self, world: World) -> None:
        order_id = await an_order(world)

        snapshot = await ok(await quote(world, order_id))

        rates = [(r["carrier"], r["service"], r["amount"]) for r in snapshot["shipping_rates"]]
        assert rates == [("table_rate", "post", 490), ("table_rate", "courier", 990)]
        assert snapshot["selected_shipping_rate"]["service"] == "post"
        # 2980 x 19/119 = 475.80; 490 x 19 % = 93.10
        assert taxes(snapshot) == [(0, "MwSt", "19", 476, "standard_rated"), (None, "MwSt", "19", 93, "standard_rated")]
        assert snapshot["totals"] == {
            "items": 2980,
            "discounts": 0,
            "shipping": 490,
            "tax_exclusive": 93,
            "tax_inclusive": 476,
            "total": 3563,
        }
        assert (snapshot["providers"]["shipping"]["name"], snapshot["providers"]["tax"]["name"]) == ("table_rate", "built_in")
        assert snapshot["notices"] == []

    async def test_a_service_is_chosen_by_its_name(self, world: World) -> None:
        snapshot = await ok(await quote(world, await an_order(world), shipping_service="courier"))

        assert snapshot["totals"]["shipping"] == 990

    async def test_a_rate_that_was_shown_is_chosen_by_its_id(self, world: World) -> None:
        order_id = await an_order(world)
        shown = await ok(await world.send("POST", f"/api/v1/checkout/orders/{order_id}/shipping/rates", {}))
        assert shown["packages"] == [{"weight_grams": 800, "length_mm": 0, "width_mm": 0, "height_mm": 0, "units": {"0": 2}}]

        snapshot = await ok(await quote(world, order_id, shipping_rate_id=shown["rates"][1]["id"]))

        assert snapshot["selected_shipping_rate"]["id"] == shown["rates"][1]["id"]
        assert snapshot["totals"]["shipping"] == 990

    async def test_the_quoted_total_is_what_is_paid_and_the_order_is_paid_by_it(self, world: World) -> None:
        order_id = await an_order(world)
        snapshot = await ok(await quote(world, order_id))
        paid = await ok(await world.authorize(order_id, snapshot["snapshot_id"]))
        assert paid["intent"]["authorized_amount"] == 3563

        await ok(await world.send("POST", f"/api/v1/admin/orders/{order_id}/payments/{paid['intent']['id']}/capture", {}))

        assert (await world.ledger(order_id))["order_status"] == "paid"

    async def test_tax_is_that_of_where_it_goes(self, world: World) -> None:
        snapshot = await ok(await quote(world, await an_order(world, shipping_address=PARIS)))

        # 2980 x 20/120 = 496.67; 1290 x 20 % = 258
        assert taxes(snapshot) == [(0, "TVA", "20", 497, "standard_rated"), (None, "TVA", "20", 258, "standard_rated")]

    async def test_outside_the_union_nothing_is_collected(self, world: World) -> None:
        snapshot = await ok(await quote(world, await an_order(world, shipping_address=ZURICH)))

        assert [(t["amount"], t["reason"]) for t in snapshot["tax_lines"]] == [(0, "export"), (0, "export")]

    async def test_a_business_elsewhere_in_the_union_is_supplied_free_of_tax(self, world: World) -> None:
        # The number's check digits are right; it is that of the worked example in the law's own guide, not somebody's.
        snapshot = await ok(await quote(world, await an_order(world, shipping_address=PARIS, vat_id="FR 83 404 833 048")))

        assert {t["reason"] for t in snapshot["tax_lines"]} == {"intra_community_supply"}
        assert snapshot["notices"] == []

    async def test_a_number_that_cannot_be_one_makes_a_consumer(self, world: World) -> None:
        snapshot = await ok(await quote(world, await an_order(world, shipping_address=PARIS, vat_id="FR 84 404 833 048")))

        assert {t["reason"] for t in snapshot["tax_lines"]} == {"standard_rated"}
        assert [n["code"] for n in snapshot["notices"]] == ["vat-id-invalid"]

    async def test_a_certificate_frees_its_customer(self, world: World) -> None:
        customer = str(new_id())
        body = {"customer_id": customer, "certificate": "NATO-1", "country": "DE", "valid_from": "2024-01-01"}
        made = await ok(await world.send("POST", "/api/v1/admin/tax/exemptions", body))

        freed = await ok(await quote(world, await an_order(world, customer_id=customer)))
        await ok(await world.send("DELETE", f"/api/v1/admin/tax/exemptions/{made['id']}"))
        taxed = await ok(await quote(world, await an_order(world, customer_id=customer)))

        assert {t["reason"] for t in freed["tax_lines"]} == {"customer_exempt"}
        assert {t["reason"] for t in taxed["tax_lines"]} == {"standard_rated"}

    async def test_what_the_order_states_itself_stands(self, world: World) -> None:
        stated = [{"jurisdiction": "DE", "rate_percent": "19", "amount": 100, "line": 0, "behavior": "inclusive"}]

        only_tax = await ok(await quote(world, await an_order(world, tax_lines=stated)))
        only_shipping = await ok(await quote(world, await an_order(world, shipping_amount=0)))

        assert (only_tax["totals"]["tax_inclusive"], only_tax["totals"]["shipping"]) == (100, 490)
        assert only_tax["tax_hash"] == ""
        assert (only_shipping["totals"]["shipping"], only_shipping["totals"]["tax_inclusive"]) == (0, 476)
        assert only_shipping["providers"]["shipping"]["name"] == "as-ordered"

    async def test_a_changed_rule_holds_at_once_and_is_another_version(self, world: World) -> None:
        rule = shop.a_rule("DE", "MwSt", "3", tax_code="maps", reason="reduced_rated")
        made = await ok(await world.send("POST", "/api/v1/admin/tax/rules", rule))
        item = {**MUG, "tax_code": "maps"}
        first = await ok(await quote(world, await an_order(world, items=[item])))

        changed = await ok(await world.send("PUT", f"/api/v1/admin/tax/rules/{made['id']}", {**rule, "rate_percent": "4"}))
        second = await ok(await quote(world, await an_order(world, items=[item])))
        await ok(await world.send("DELETE", f"/api/v1/admin/tax/rules/{made['id']}"))
        third = await ok(await quote(world, await an_order(world, items=[item])))

        assert changed["version"] != made["version"]
        assert [s["tax_lines"][0]["rate_percent"] for s in (first, second, third)] == ["3", "4", "19"]
        assert second["tax_lines"][0]["rule_version"] == changed["version"]


class TestItRefuses:
    async def test_a_service_that_is_not_offered(self, world: World) -> None:
        answer = await quote(world, await an_order(world), shipping_service="teleport")

        assert (answer.status, answer.code, answer.json["offered"]) == (422, "no-such-rate", ["post", "courier"])

    async def test_a_rate_of_another_order(self, world: World) -> None:
        first, second = await an_order(world), await an_order(world)
        shown = await ok(await world.send("POST", f"/api/v1/checkout/orders/{first}/shipping/rates", {}))

        answer = await quote(world, second, shipping_rate_id=shown["rates"][0]["id"])

        assert (answer.status, answer.code) == (422, "no-such-rate")

    async def test_a_rate_that_has_expired(self, world: World) -> None:
        order_id = await an_order(world)
        shown = await ok(await world.send("POST", f"/api/v1/checkout/orders/{order_id}/shipping/rates", {}))
        await world.change("UPDATE fulfillment.shipment_rates SET expires_at = now() WHERE order_id = $1", order_id)

        answer = await quote(world, order_id, shipping_rate_id=shown["rates"][0]["id"])

        assert (answer.status, answer.code, answer.json["retry"]) == (409, "rate-expired", "never")

    async def test_a_rate_for_what_the_order_was_before(self, world: World) -> None:
        order_id = await an_order(world)
        shown = await ok(await world.send("POST", f"/api/v1/checkout/orders/{order_id}/shipping/rates", {}))
        await ok(await world.put_order(order_id, {"currency": "EUR", "items": [{**MUG, "quantity": 3}], "shipping_address": PARIS}))

        answer = await quote(world, order_id, shipping_rate_id=shown["rates"][0]["id"])

        assert (answer.status, answer.code) == (409, "order-changed")

    async def test_where_nobody_ships(self, world: World) -> None:
        heavy = [{**MUG, "weight_grams": 29_000, "quantity": 1}]

        answer = await quote(world, await an_order(world, items=heavy, shipping_address=PARIS))

        assert (answer.status, answer.code) == (422, "no-shipping-rate")

    async def test_what_does_not_fit_any_package(self, world: World) -> None:
        answer = await quote(world, await an_order(world, items=[{**MUG, "weight_grams": 31_000}]))

        assert (answer.status, answer.code) == (422, "cannot-be-packed")

    async def test_rates_without_an_address(self, world: World) -> None:
        order_id = await an_order(world, shipping_address=None)

        answer = await world.send("POST", f"/api/v1/checkout/orders/{order_id}/shipping/rates", {})

        assert (answer.status, answer.code) == (422, "address-needed")

    async def test_tax_without_a_rule(self, world: World) -> None:
        spain = {**PARIS, "country_code": "ES", "postal_code": "28001", "city": "Madrid", "country_area": "Madrid"}

        answer = await quote(world, await an_order(world, shipping_address=spain, shipping_amount=0))

        assert (answer.status, answer.code) == (422, "no-tax-rule")

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"carriers": ["pigeon"]}, "provider-not-configured"),
            ({"tax_provider": "oracle"}, "provider-not-configured"),
            ({"table": {**shop.TABLE, "zones": []}}, "invalid-request"),
        ],
    )
    async def test_settings_that_make_no_sense(self, world: World, change: Any, code: str) -> None:
        answer = await world.send("PUT", "/api/v1/admin/fulfillment/settings", {**shop.SETTINGS, **change})

        assert (answer.status, answer.code) == (422, code)

    async def test_a_rule_beside_another_for_the_same(self, world: World) -> None:
        answer = await world.send("POST", "/api/v1/admin/tax/rules", shop.a_rule("DE", "MwSt", "16"))

        assert (answer.status, answer.code) == (422, "tax-rules-invalid")

    @pytest.mark.parametrize(
        "body",
        [
            {"country": "FR", "oss": True, "valid_from": "2024-01-01"},
            {"valid_from": "2024-01-01"},
            {"country": "US", "region": "CA-QC", "valid_from": "2024-01-01"},
            {"country": "US", "valid_from": "2024-01-01", "threshold_amount": 100},
            {"country": "US", "valid_from": "2024-01-01", "valid_to": "2023-01-01"},
        ],
    )
    async def test_a_registration_that_makes_no_sense(self, world: World, body: Any) -> None:
        answer = await world.send("POST", "/api/v1/admin/tax/nexus", body)

        assert (answer.status, answer.code) == (422, "invalid-request")


class TestOtherCurrencies:
    async def test_rates_in_another_currency_are_left_out_and_said(self, own_place: Place) -> None:
        dear = {"service": "gold", "zone": "home", "currency": "USD", "bands": [{"up_to_grams": 30000, "amount": 1}]}
        table = {**shop.TABLE, "tariffs": [dear, *shop.TABLE["tariffs"]]}
        async with a_world(own_place, fulfillment={}) as world:
            await shop.set_up(world, table=table)
            mixed = await ok(await quote(world, await an_order(world)))
            await ok(
                await world.send("PUT", "/api/v1/admin/fulfillment/settings", {**shop.SETTINGS, "table": {**table, "tariffs": [dear]}})
            )
            alone = await quote(world, await an_order(world))

        # One cent is less than 4.90, and a cent of what?
        assert [r["service"] for r in mixed["shipping_rates"]] == ["post", "courier"]
        assert [n["code"] for n in mixed["notices"]] == ["rates-in-other-currency"]
        assert (alone.status, alone.code) == (422, "no-shipping-rate")


class TestDegraded:
    async def test_a_store_without_settings_says_so(self, place: Place) -> None:
        async with a_world(place, fulfillment={}) as bare:
            shipped = await quote(bare, await an_order(bare))
            digital = await ok(await quote(bare, await an_order(bare, shipping_address=None)))

        assert (shipped.status, shipped.code) == (422, "shipping-not-configured")
        assert [n["code"] for n in digital["notices"]] == ["tax-not-configured"]
        assert [(t["amount"], t["reason"]) for t in digital["tax_lines"]] == [(0, "not_collecting")]

    async def test_without_fulfillment_nothing_is_priced_and_nothing_is_lost(self, own_place: Place) -> None:
        async with a_world(own_place, payments={"pricing_timeout_seconds": 0.3}) as alone:
            order_id = await an_order(alone)

            answer = await alone.send("POST", "/api/v1/checkout/quote", {"order_id": order_id}, headers={"Prefer": "wait=1"})

        assert answer.status == 202
