"""Quotes by the starter table, over HTTP: groceries in Canada, and a table that has grown old."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy import taxes
from services.fulfillment.domain.tax.table_age import RULES_CHECKED_MAX_DAYS
from shared.messages import Environment
from tests.fulfillment import shop
from tests.fulfillment.shop import MUG, an_order, ok, quote
from tests.world import Place, World, a_world

TORONTO = {
    "name": "Shop",
    "street_address": "1 Yonge Street",
    "city": "Toronto",
    "country_area": "ON",
    "postal_code": "M5E 1W7",
    "country_code": "CA",
}
BUYERS = {
    "QC": ("Montréal", "H2Y 1C6"),
    "BC": ("Vancouver", "V6B 1A1"),
    "SK": ("Regina", "S4P 3Y2"),
    "MB": ("Winnipeg", "R3C 0V8"),
}
# What a mug of 100.00 bears, and so what groceries bore beside GST: PST 7 and 6, RST 7, QST 9.975 %.
PROVINCIAL = {"QC": 998, "BC": 700, "SK": 600, "MB": 700}


async def bring_in(world: World) -> None:
    await taxes.bring_in(
        world.place.database_url,
        taxes.read(taxes.STARTER),
        store_id=world.store_id,
        environment=Environment.SANDBOX,
        replace=False,
        dry_run=False,
    )


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}) as made:
        table = {**shop.TABLE, "zones": [{"name": "home", "country": "CA"}]}
        table["tariffs"] = [{"service": "post", "zone": "home", "currency": "CAD", "bands": [{"up_to_grams": 2000, "amount": 0}]}]
        settings = {"home_country": "CA", "ship_from": TORONTO, "carriers": ["table_rate"], "table": table}
        await ok(await made.send("PUT", "/api/v1/admin/fulfillment/settings", settings))
        for region in ("", *(f"CA-{province}" for province in BUYERS)):
            await ok(await made.send("POST", "/api/v1/admin/tax/nexus", {"country": "CA", "region": region, "valid_from": "2020-01-01"}))
        await bring_in(made)
        yield made


async def quoted(world: World, province: str, **item: Any) -> Any:
    city, postal_code = BUYERS[province]
    buyer = {**TORONTO, "name": "Buyer", "city": city, "country_area": province, "postal_code": postal_code}
    goods = {**MUG, "quantity": 1, "unit_price": 10_000, "tax_behavior": "exclusive", **item}
    order_id = await an_order(world, currency="CAD", items=[goods], shipping_address=buyer)
    return await ok(await quote(world, order_id, shipping_service="post"))


@pytest.mark.parametrize("province", BUYERS)
async def test_groceries_bear_no_provincial_tax(world: World, province: str) -> None:
    """E1, E2: `zero` is free of PST, RST and QST too; books bear GST alone; a mug bears both."""
    taxes_of = {code: (await quoted(world, province, tax_code=code))["totals"]["tax_exclusive"] for code in ("zero", "books", "")}

    assert taxes_of == {"zero": 0, "books": 500, "": 500 + PROVINCIAL[province]}


async def test_an_old_table_says_so_until_it_is_compared_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    fresh = await quoted(world, "BC")
    long_ago = datetime.now(UTC).date() - timedelta(days=RULES_CHECKED_MAX_DAYS + 1)
    await world.change("UPDATE fulfillment.tax_jurisdiction_rules SET checked_on = $2 WHERE store_id = $1", world.store_id, long_ago)
    await world.change("UPDATE fulfillment.store_settings SET revision = revision + 1 WHERE store_id = $1", world.store_id)

    old = await quoted(world, "BC")
    await bring_in(world)
    again = await quoted(world, "BC")

    assert [[each["code"] for each in shown["notices"]] for shown in (fresh, old, again)] == [[], ["tax-rates-old"], []]
    assert "tax rates are old" in caplog.messages
    assert str(long_ago) in old["notices"][0]["detail"]
    assert old["totals"]["tax_exclusive"] == fresh["totals"]["tax_exclusive"] == 1200
