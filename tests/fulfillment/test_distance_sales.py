"""The EU's threshold of 10 000 EUR: sales to consumers in other member states, less what went back (Directive 2006/112/EC, Article 59c)."""

from typing import Any
from uuid import UUID

import pytest

from services.fulfillment.domain.tax.rules import Place
from services.fulfillment.domain.tax.sale import Sale, is_distance_sale
from shared.contracts.orders import SupplyKind
from tests.fulfillment import shop
from tests.fulfillment.rates import DAY, goods, shipping
from tests.fulfillment.shop import MUNICH, PARIS, an_order, finalize, ok, quote
from tests.world import Payment, World, a_world, until
from tests.world import Place as WorldPlace

DIGITAL, SERVICE = SupplyKind.DIGITAL, SupplyKind.SERVICE
MADRID, CANARIES = Place(country="ES", postal_code="28001"), Place(country="ES", postal_code="35001")


@pytest.mark.parametrize(
    ("there", "buyer", "supplies", "counts"),
    [
        pytest.param(MADRID, "", [SupplyKind.GOODS], True, id="D16 a consumer in another member state"),
        pytest.param(MADRID, "ES", [SupplyKind.GOODS], False, id="D16 a business"),
        pytest.param(Place(country="DE"), "", [SupplyKind.GOODS], False, id="D16 at home"),
        pytest.param(CANARIES, "", [SupplyKind.GOODS], False, id="D16 the Canaries"),
        pytest.param(Place(country="CH"), "", [SupplyKind.GOODS], False, id="D16 an export"),
        pytest.param(MADRID, "", [DIGITAL], True, id="D16 a download"),
        pytest.param(MADRID, "ES", [DIGITAL], False, id="D16 a download of a business"),
        pytest.param(MADRID, "", [SERVICE], False, id="D16 another service"),
    ],
)
def test_which_sales_count(there: Place, buyer: str, supplies: list[SupplyKind], counts: bool) -> None:
    sale = Sale(ship_from=Place(country="DE"), ship_to=there, day=DAY, home="DE", buyer_vat_country=buyer)

    assert is_distance_sale(sale, [*(goods(100, supply=each) for each in supplies), shipping(5)]) is counts


TENERIFE = {**MUNICH, "city": "Santa Cruz", "postal_code": "38001", "country_area": "Tenerife", "country_code": "ES"}
THOUSAND = {**shop.MUG, "quantity": 1, "unit_price": 1_000_00, "tax_behavior": "exclusive"}


async def a_sale(world: World, **changes: Any) -> tuple[Payment, int]:
    """Sell for 1000.00 without tax, paid, captured and recorded; gives the total, too."""
    order_id = await an_order(world, items=[THOUSAND], shipping_amount=0, **changes)
    snapshot = await ok(await quote(world, order_id))
    paid = await ok(await world.authorize(order_id, snapshot["snapshot_id"]))
    payment = Payment(world, order_id, UUID(paid["intent"]["id"]))
    await ok(await payment.capture())
    await ok(await finalize(world, order_id, snapshot["snapshot_id"]))
    return payment, snapshot["totals"]["total"]


async def test_d16_the_watch_counts_what_the_directive_counts(own_place: WorldPlace) -> None:
    watch = {"oss": True, "registered": False, "threshold_amount": 10_000_00, "threshold_currency": "EUR"}
    async with a_world(own_place, fulfillment={}) as world:
        await shop.set_up(world)
        body = {**watch, "valid_from": shop.SINCE, "threshold_period": "current_or_previous_year"}
        await ok(await world.send("POST", "/api/v1/admin/tax/nexus", body))

        async def counted() -> tuple[int, int]:
            listed = (await ok(await world.send("GET", "/api/v1/admin/tax/nexus")))["nexus"]
            threshold = next(each["threshold"] for each in listed if not each["nexus"]["registered"])
            return threshold["amount"], threshold["count"]

        for change in (
            {"shipping_address": MUNICH},
            {"shipping_address": PARIS, "vat_id": "FR 83 404 833 048"},
            {"shipping_address": TENERIFE},
        ):
            await a_sale(world, **change)
        assert await counted() == (0, 0)
        kept, _ = await a_sale(world, shipping_address=PARIS)
        returned, total = await a_sale(world, shipping_address=PARIS)
        assert await counted() == (2_000_00, 2)

        await ok(await returned.refund(total))
        await until(lambda: _is(counted, (1_000_00, 2)))
        await ok(await kept.refund(600_00))
        await until(lambda: _is(counted, (500_00, 2)))


async def _is(read: Any, expected: Any) -> bool:
    return bool(await read() == expected)
