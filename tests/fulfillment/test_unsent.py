"""What is sold and not sent: services by whichever means are in no package, cost no shipping and bear no fee on deliveries."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fulfillment import shop
from tests.fulfillment.shop import MUG, a_rule, an_order, ok, quote
from tests.fulfillment.test_customs_labels import GOODS, ZURICH, last
from tests.journeys.test_expressed_sales import DENVER
from tests.journeys.test_shipping import buy
from tests.world import Place, World, a_world

BOOK = {**MUG, "name": "E-book", "quantity": 1, "supply": "digital", "weight_grams": 1_800}
CUP = {**MUG, "quantity": 1}


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}, payments={"pricing_timeout_seconds": 8.0}) as made:
        await shop.set_up(made)
        yield made


async def rates(world: World, items: list[Any], **body: Any) -> Any:
    order_id = await an_order(world, items=items)
    return await ok(await world.send("POST", f"/api/v1/checkout/orders/{order_id}/shipping/rates", body))


class TestServices:
    async def test_nothing_is_sent_of_services_alone(self, world: World) -> None:
        offered = await rates(world, [BOOK])
        totals = (await ok(await quote(world, await an_order(world, items=[BOOK]))))["totals"]

        assert (offered["rates"], [each["code"] for each in offered["notices"]]) == ([], ["nothing-to-ship"])
        assert (totals["shipping"], totals["total"]) == (0, MUG["unit_price"])

    @pytest.mark.parametrize("packages", [[], [{"weight_grams": 400}], [{"weight_grams": 400, "units": {"1": 1}}]])
    async def test_goods_are_packed_and_services_are_not(self, world: World, packages: list[Any]) -> None:
        offered = await rates(world, [BOOK, CUP], packages=packages)

        assert [(each["weight_grams"], each["units"]) for each in offered["packages"]] == [(400, {"1": 1})]

    async def test_no_fee_on_deliveries_where_nothing_taxed_is_delivered(self, world: World) -> None:
        """C.R.S. § 43-4-218(3): a retail delivery is one of tangible personal property by motor vehicle."""
        for each in (
            a_rule("US", "Colorado", "2.9", region="US-CO", level="state", shipping="never"),
            a_rule("US", "Colorado", "0", region="US-CO", level="state", tax_code="food", reason="product_exempt"),
            a_rule("US", "Retail Delivery Fee", "0", region="US-CO", level="state", flat_amount=28, currency="USD"),
        ):
            await ok(await world.send("POST", "/api/v1/admin/tax/rules", each))
        await ok(await world.send("POST", "/api/v1/admin/tax/nexus", {"country": "US", "region": "US-CO", "valid_from": shop.SINCE}))
        taxed, food = {"tax_behavior": "exclusive"}, {"tax_code": "food"}

        found = [
            (await ok(await quote(world, await an_order(world, currency="USD", shipping_address=DENVER, shipping_amount=0, items=items))))
            for items in ([{**BOOK, **taxed}], [{**BOOK, **taxed}, {**CUP, **taxed, **food}], [{**BOOK, **taxed}, {**CUP, **taxed}])
        ]

        assert [each["totals"]["tax_exclusive"] for each in found] == [43, 43, 43 + 43 + 28]


class TestNetPrices:
    """The last one, as its settings stay with the store."""

    async def test_customs_value_what_is_paid(self, world: World) -> None:
        """The buyer pays 119.00 less 19.00 of home's tax (Regulation (EU) 952/2013, Article 70(2))."""
        settings = {**shop.SETTINGS, "carriers": ["easypost"], "fixed_price": "net"}
        await ok(await world.send("PUT", "/api/v1/admin/fulfillment/settings", settings))
        item = {**GOODS, "unit_price": 11_900, "tax_behavior": "inclusive"}
        order_id = await an_order(world, shipping_address=ZURICH, items=[item])
        snapshot = await ok(await quote(world, order_id))
        await ok(await buy(world, order_id))

        [declared] = last(world)["customs_info"]["customs_items"]
        assert (snapshot["totals"]["tax_removed"], declared["value"]) == (1_900, "100.00")
