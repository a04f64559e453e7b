"""A long past costs nothing: no statement of a quote, a label, its tracking or its tax reads more than the rows it is about."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.bench.export import load
from tests.counting import still
from tests.fulfillment import shop
from tests.fulfillment.shop import an_order, finalize, ok, quote
from tests.journeys.test_shipping import buy, is_at, void
from tests.world import Payment, Place, World, a_world, until

DOCUMENTS = 40_000
SHIPMENTS = 40_000
# What all the statements of the story below may read of any one index or table, rows or pages, with the jobs that run beside it.
READ_MAX = 400

# Orders that were quoted, shipped and delivered, and payments that were told of.
PAST = """
    WITH past AS (SELECT n, gen_random_uuid() AS id, gen_random_uuid() AS order_id FROM generate_series(1, $2) AS n),
    rates AS (INSERT INTO fulfillment.shipment_rates
              SELECT id, $1, 'sandbox', order_id, 'h', 'sandbox', 'r', 'ground', 490, 'EUR', 2, '[]', NULL, now(), now() FROM past),
    quotes AS (INSERT INTO fulfillment.tax_quotes
               SELECT $1, 'sandbox', id, order_id, 'h', 'h', '{}', now() FROM past),
    known AS (INSERT INTO fulfillment.orders_known SELECT $1, 'sandbox', order_id, 1 FROM past),
    paid AS (INSERT INTO fulfillment.order_payments SELECT $1, 'sandbox', id, order_id, id, 1, 'captured', 1, 0 FROM past),
    made AS (INSERT INTO fulfillment.shipments (id, store_id, environment, order_id, snapshot_id, status, carrier, service, amount,
                                                currency, content, packages, tracking_status, finalized_at)
             SELECT id, $1, 'sandbox', order_id, id, 'finalized', 'sandbox', 'ground', 490, 'EUR', one.content, '[]', 'delivered', now()
               FROM past, (SELECT content FROM fulfillment.shipments LIMIT 1) AS one
             RETURNING id, order_id),
    labels AS (INSERT INTO fulfillment.shipment_labels (id, shipment_id, store_id, environment, order_id, command_id, command_digest,
                                                        is_return, status, carrier, service, document, request, provider_label_id,
                                                        currency, actor, correlation_id)
               SELECT id, id, $1, 'sandbox', order_id, id, '', false, 'purchased', 'sandbox', 'ground', 'pdf', one.request, id::text,
                      'EUR', '', ''
                 FROM made, (SELECT request FROM fulfillment.shipment_labels LIMIT 1) AS one
               RETURNING id, order_id)
    INSERT INTO fulfillment.shipment_packages (label_id, position, store_id, environment, order_id, shipment_id, carrier, tracking_number,
                                               weight_grams, media_type, document, tracking_status, next_look_at)
    SELECT id, 0, $1, 'sandbox', order_id, id, 'sandbox', id::text, 1, '', '', 'delivered', now() FROM labels
"""


@pytest.fixture(scope="module")
async def old_world(place: Place) -> AsyncIterator[World]:
    """A world whose statements were planned while its tables were empty, and whose tables then filled."""
    calm = {"resolve_every_seconds": 1.0, "housekeeping_every_seconds": 5.0, "look_every_seconds": 1.0}
    async with a_world(place, fulfillment=calm, webhooks={}) as world:
        await shop.set_up(world, carriers=["sandbox"])
        await _everything(world)
        await load(place.database_url, world.store_id, datetime.now(UTC).date() - timedelta(days=40), DOCUMENTS)
        await world.change(PAST, world.store_id, SHIPMENTS)
        # As autovacuum does after so many: a page of a list that is planned for four rows sorts all that there are.
        await world.change("ANALYZE fulfillment.shipments")
        yield world


async def _everything(world: World) -> None:
    """Everything that happens on the hot path, once."""
    order_id = await an_order(world)
    await ok(await world.send("POST", f"/api/v1/checkout/orders/{order_id}/shipping/rates", {}))
    snapshot = await ok(await quote(world, order_id, shipping_service="ground"))
    paid = await ok(await world.authorize(order_id, snapshot["snapshot_id"]))
    payment = Payment(world, order_id, UUID(paid["intent"]["id"]))
    await ok(await payment.capture())
    label = (await ok(await buy(world, order_id, snapshot_id=snapshot["snapshot_id"])))["label"]
    await ok(await void(world, order_id, label["id"]))
    label = (await ok(await buy(world, order_id)))["label"]
    number = label["tracking_numbers"][0]
    for _ in range(5):
        await world.http.post(f"{world.sandbox.base_url}/control/parcels/{number}/move", json={})
    await until(lambda: is_at(world, order_id, "delivered"))
    await ok(await finalize(world, order_id, snapshot["snapshot_id"]))
    await ok(await payment.refund(100))
    await until(lambda: _reversed(world, order_id))
    await ok(await world.send("GET", "/api/v1/admin/shipments?limit=10"))
    await ok(await world.send("GET", "/api/v1/admin/tax/nexus"))


async def _reversed(world: World, order_id: UUID) -> bool:
    return len((await ok(await world.send("GET", f"/api/v1/admin/orders/{order_id}/tax")))["documents"]) == 2


async def test_the_hot_path_reads_only_the_rows_it_is_about(old_world: World) -> None:
    before = await still(old_world, within=READ_MAX)

    await _everything(old_world)

    after = await still(old_world, within=READ_MAX)
    read = {name: after[name] - before.get(name, 0) for name in after}
    assert {name: rows for name, rows in read.items() if rows > READ_MAX} == {}
    # It was counted at all: which of two indexes that serve alike is taken is the planner's, and when a backend tells is its own.
    assert sum(rows for name, rows in read.items() if name.startswith("fulfillment.")) > 0
