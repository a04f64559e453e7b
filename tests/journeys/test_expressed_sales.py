"""Totals in steps, net prices and fees through the system: quoted, paid, recorded, and given back to the last unit."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from services.gateway.domain import Role
from tests.fulfillment import shop
from tests.fulfillment.shop import BERLIN, MUG, MUNICH, PARIS, ZURICH, a_rule, an_order, finalize, ok, quote
from tests.journeys.test_kept_tax import refund
from tests.world import Payment, Place, World, a_world, until

DENVER = {
    "name": "Ann",
    "street_address": "1437 Bannock St",
    "city": "Denver",
    "postal_code": "80202",
    "country_area": "CO",
    "country_code": "US",
}


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    """A shop in Berlin whose net prices are fixed and whose Swiss totals go to five centimes; it sells to Colorado, too."""
    async with a_world(place, fulfillment={}) as made:
        await shop.set_up(made, fixed_price="net", total_steps={"CHF": 5}, shipping_prices_include_tax=True)
        rules = (
            a_rule("CH", "MWST", "8.1"),
            a_rule("US", "Colorado", "2.9", region="US-CO", level="state", shipping="never"),
            a_rule("US", "Retail Delivery Fee", "0", region="US-CO", level="state", flat_amount=28, currency="USD"),
        )
        for rule in rules:
            await ok(await made.send("POST", "/api/v1/admin/tax/rules", rule))
        for nexus in ({"country": "CH"}, {"country": "US", "region": "US-CO"}):
            await ok(await made.send("POST", "/api/v1/admin/tax/nexus", {**nexus, "valid_from": shop.SINCE}))
        yield made


def adds_up(totals: Any) -> bool:
    """Check what the totals of every snapshot are made of."""
    removed, rounding = totals.get("tax_removed", 0), totals.get("rounding", 0)
    parts = totals["items"] - totals["discounts"] - removed + totals["shipping"] + totals["tax_exclusive"] + rounding
    return bool(parts == totals["total"])


async def paid(world: World, order_id: UUID, snapshot: Any) -> Payment:
    """Authorize and capture a snapshot, whole."""
    done = await ok(await world.authorize(order_id, snapshot["snapshot_id"]))
    assert done["intent"]["authorized_amount"] == snapshot["totals"]["total"]
    payment = Payment(world, order_id, UUID(done["intent"]["id"]))
    await ok(await payment.capture())
    assert (await world.ledger(order_id))["order_status"] == "paid"
    return payment


async def documents(world: World, order_id: UUID, count: int) -> Any:
    """Read what is recorded of an order once there are so many documents."""

    async def recorded() -> Any:
        found = (await ok(await world.send("GET", f"/api/v1/admin/orders/{order_id}/tax")))["documents"]
        return found if len(found) >= count else None

    return await until(recorded)


async def export(world: World, format: str, day: str) -> Any:
    """Export a day's tax."""
    return await world.http.get(
        "/api/v1/admin/tax/reports/export",
        params={"from": day, "to": day, "format": format},
        headers={"Authorization": f"Bearer {world.keys[Role.ADMIN]}"},
    )


class TestNetPrices:
    """A15: gh:solidusio/solidus/issues/3448, gh:woocommerce/woocommerce/issues/4131; the goods hold 476 of 2980, shipping 78 of 490."""

    @pytest.mark.parametrize(
        ("there", "more", "removed", "total"),
        [
            (MUNICH, {}, 0, 2_980 + 490),
            # 2504 and 412 net, 20 % of which are 501 and 82.
            (PARIS, {}, 554, 2_504 + 412 + 501 + 82),
            (PARIS, {"vat_id": "FR40303265045"}, 554, 2_504 + 412),
            (ZURICH, {}, 554, 2_504 + 412 + 203 + 33),
        ],
    )
    async def test_the_net_stays_whatever_tax_is_due(
        self, world: World, there: dict[str, str], more: dict[str, str], removed: int, total: int
    ) -> None:
        snapshot = await ok(await quote(world, await an_order(world, shipping_address=there, shipping_amount=490, **more)))

        totals = snapshot["totals"]
        assert (totals.get("tax_removed", 0), totals["total"]) == (removed, total)
        assert adds_up(totals)
        assert snapshot["lines"][0]["amount"] == 2_980 - (476 if removed else 0)

    async def test_a_remote_engine_is_refused(self, world: World) -> None:
        answer = await world.send(
            "PUT",
            "/api/v1/admin/fulfillment/settings",
            {**shop.SETTINGS, "ship_from": BERLIN, "fixed_price": "net", "tax_provider": "taxjar"},
        )

        assert (answer.status, answer.json["field"]) == (422, "$.fixed_price")


class TestSteps:
    """A14: gh:woocommerce/woocommerce/issues/16035; the total goes to 0.05 CHF, the tax to 0.01."""

    @pytest.mark.parametrize(("unit_price", "step"), [(1_002, 2), (1_003, 1), (1_004, 0), (1_005, -1), (1_006, -2)])
    async def test_paid_recorded_and_given_back_to_the_last_centime(self, world: World, unit_price: int, step: int) -> None:
        mug = {**MUG, "quantity": 1, "unit_price": unit_price, "tax_behavior": "exclusive"}
        order_id = await an_order(world, currency="CHF", items=[mug], shipping_address=ZURICH, shipping_amount=0)
        snapshot = await ok(await quote(world, order_id))

        totals = snapshot["totals"]
        assert (totals["tax_exclusive"], totals.get("rounding", 0), totals["total"] % 5) == (81, step, 0)
        assert adds_up(totals)
        payment = await paid(world, order_id, snapshot)
        await ok(await finalize(world, order_id, snapshot["snapshot_id"]))
        await ok(await payment.refund(500))
        await documents(world, order_id, 2)
        await ok(await payment.refund())
        found = await documents(world, order_id, 3)
        assert sum(each["tax_amount"] for each in found) == 0

    async def test_what_the_order_states_itself_is_rounded_with_it(self, world: World) -> None:
        stated = [{"jurisdiction": "MWST", "rate_percent": "8.1", "amount": 82, "line": 0}]
        mug = {**MUG, "quantity": 1, "unit_price": 1_010, "tax_behavior": "exclusive"}
        order_id = await an_order(world, currency="CHF", items=[mug], shipping_address=None, billing_address=ZURICH, tax_lines=stated)

        totals = (await ok(await quote(world, order_id)))["totals"]

        assert (totals.get("rounding"), totals["total"]) == (-2, 1_090)


class TestFees:
    """C10: Colorado's retail delivery fee (C.R.S. § 43-4-218), once an order, recorded, exported, and given back with the order."""

    async def test_quoted_recorded_exported_and_reversed(self, world: World) -> None:
        mug = {**MUG, "quantity": 1, "unit_price": 10_000, "tax_behavior": "exclusive"}
        order_id = await an_order(world, currency="USD", items=[mug, mug], shipping_address=DENVER, shipping_amount=500)
        snapshot = await ok(await quote(world, order_id))

        [fee] = [line for line in snapshot["tax_lines"] if line["jurisdiction"] == "Retail Delivery Fee"]
        assert (fee["line"], fee["amount"], fee["behavior"]) == (None, 28, "exclusive")
        # Of 5.00 for shipping, 0.80 were German VAT.
        assert snapshot["totals"]["total"] == 20_000 + 420 + 580 + 28
        payment = await paid(world, order_id, snapshot)
        recorded = await ok(await finalize(world, order_id, snapshot["snapshot_id"]))
        assert [(row["line"], row["amount"]) for row in recorded["lines"] if row["tax_code"] == "fee"] == [(None, 28)]
        assert await ok(await finalize(world, order_id, snapshot["snapshot_id"])) == recorded
        day = recorded["document_date"]
        itemized, states = [(await export(world, each, day)).text for each in ("itemized", "us_states")]
        assert ",fee,fee,1,USD," in itemized
        assert "CO,state,Retail Delivery Fee,0,USD,0.00,0.00,0.00,0.00,0.00,0.00,0.00,0.28" in states

        await ok(await payment.refund())

        found = await documents(world, order_id, 2)
        assert [(row["line"], row["amount"]) for row in found[1]["lines"] if row["tax_code"] == "fee"] == [(None, -28)]
        assert sum(each["tax_amount"] for each in found) == 0

    async def test_a_refund_of_shipping_gives_the_fee_back_last(self, world: World) -> None:
        """What has no line is refunded as shipping, 4.20 and the fee, and reverses nothing of the goods."""
        mug = {**MUG, "quantity": 1, "unit_price": 10_000, "tax_behavior": "exclusive"}
        order_id = await an_order(world, currency="USD", items=[mug], shipping_address=DENVER, shipping_amount=500)
        snapshot = await ok(await quote(world, order_id))
        payment = await paid(world, order_id, snapshot)
        await ok(await finalize(world, order_id, snapshot["snapshot_id"]))

        await ok(await refund(payment, shipping=420))
        first = await documents(world, order_id, 2)
        await ok(await refund(payment, shipping=28))
        second = await documents(world, order_id, 3)

        assert (first[1]["tax_amount"], second[2]["tax_amount"]) == (0, -28)

    async def test_none_without_a_delivery(self, world: World) -> None:
        mug = {**MUG, "quantity": 1, "unit_price": 10_000, "tax_behavior": "exclusive"}
        order_id = await an_order(world, currency="USD", items=[mug], shipping_address=None, billing_address=DENVER)

        assert (await ok(await quote(world, order_id)))["totals"]["tax_exclusive"] == 290


class TestRules:
    async def test_all_that_a_rule_can_say_is_kept_as_said(self, world: World) -> None:
        said = {
            **a_rule("US", "Anything", "1.5", region="US-AK", level="county", tax_code="clothing", currency="USD"),
            "applies_above": 100,
            "applies_up_to": 10_000,
            "taxed_up_to": 5_000,
            "taxed_per": "sale",
            "rounding_unit": 5,
            "movement": "between_regions",
            "combined_max_percent": "7.5",
            "shipping": "by_weight",
        }

        made = await ok(await world.send("POST", "/api/v1/admin/tax/rules", said))

        listed = await ok(await world.send("GET", "/api/v1/admin/tax/rules?country=US&tax_code=clothing"))
        [shown] = [each for each in listed["rules"] if each["id"] == made["id"]]
        assert {name: shown["rule"][name] for name in said} == said
        again = await world.send("POST", "/api/v1/admin/tax/rules", {**said, "applies_above": 99})
        assert (again.status, again.code) == (422, "tax-rules-invalid")
        above = {**said, "applies_above": 10_000, "applies_up_to": None}
        await ok(await world.send("POST", "/api/v1/admin/tax/rules", above))

    async def test_india_by_state_through_the_api(self, world: World) -> None:
        """E8 with E5's kind of supply: a seller abroad supplies between states."""
        rules = (
            a_rule("IN", "IGST", "5", movement="between_regions", tax_code="apparel", reason="reduced_rated", applies_up_to=250_000),
            a_rule("IN", "IGST", "18", movement="between_regions"),
        )
        for rule in rules:
            await ok(await world.send("POST", "/api/v1/admin/tax/rules", rule))
        await ok(await world.send("POST", "/api/v1/admin/tax/nexus", {"country": "IN", "valid_from": shop.SINCE}))
        there = {**PARIS, "city": "Bengaluru", "postal_code": "560001", "country_area": "Karnataka", "country_code": "IN"}
        shirts = [
            {**MUG, "quantity": 1, "unit_price": price, "tax_code": "apparel", "tax_behavior": "exclusive"} for price in (250_000, 250_001)
        ]

        order_id = await an_order(world, currency="INR", items=shirts, shipping_address=there, shipping_amount=0)

        assert [line["amount"] for line in (await ok(await quote(world, order_id)))["tax_lines"]] == [12_500, 45_000]
