"""What is recorded again after it was reversed is a sale in the provider's books, which agree with ours."""

from uuid import UUID

import pytest

from tests.fulfillment.engines.test_providers import ITEM, SEATTLE
from tests.fulfillment.shop import an_order, finalize, finalize_as_it_is, ok, quote
from tests.reconciler.books import a_run
from tests.reconciler.test_tax import TAX, a_shop, documents, recorded
from tests.world import Payment, Place, World, until


async def _held(world: World) -> tuple[Payment, str]:
    order_id = await an_order(world, currency="USD", items=[ITEM], shipping_amount=795, shipping_address=SEATTLE)
    snapshot = await ok(await quote(world, order_id))
    paid = await ok(await world.authorize(order_id, snapshot["snapshot_id"]))
    return Payment(world, order_id, UUID(paid["intent"]["id"])), snapshot["snapshot_id"]


@pytest.mark.parametrize("engine", ["taxjar", "avalara"])
async def test_a_further_capture_is_a_sale_there(second_place: Place, engine: str) -> None:
    """G5: what was voided never came there; a correction bears its sale's codes and rates (G4).

    TaxJar: an order transaction again, for a refund's amounts are negative (developers.taxjar.com/api/reference, POST refunds). AvaTax: a
    SalesInvoice, for a committed ReturnInvoice may be in a filed period and is not voided (developer.avalara.com, "Voiding documents").
    """
    async with a_shop(second_place, engine) as world:
        voided, unpaid = await _held(world)
        await ok(await finalize_as_it_is(world, voided.order_id, unpaid))
        await ok(await voided.void())
        payment, snapshot_id = await _held(world)
        await ok(await payment.capture(3_192))
        await ok(await finalize(world, payment.order_id, snapshot_id))
        await until(lambda: _are(world, payment, 2))

        await ok(await payment.capture())
        sale, reversal, again = await recorded(world, payment.order_id, 3)
        run = await a_run(world, "tax", engine)

        assert [each.kind for each in (sale, reversal, again)] == ["sale", "reversal", "sale"]
        assert (float(again.amount), float(again.tax)) == (-float(reversal.amount), -float(reversal.tax))
        assert float(sale.tax) == TAX / 100
        assert await documents(world, voided.order_id) == []
        assert (run["compared"], run["drift_found"]) == (3, 0)


async def _are(world: World, payment: Payment, count: int) -> bool:
    return len(await documents(world, payment.order_id)) == count
