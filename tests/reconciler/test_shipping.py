"""Labels reconciled over the API, at each carrier that keeps books: found is what differs, learnt what was done at the carrier."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from tests.fulfillment import shop
from tests.fulfillment.shop import an_order, ok, quote
from tests.reconciler.books import a_run, brief, drift, make_drift
from tests.world import Place, World, a_world

CARRIERS = ("sandbox", "easypost", "shippo")
SERVICES = {"sandbox": "ground", "easypost": "Sandbox Ground", "shippo": "Sandbox Ground"}
ITEM = {**shop.MUG, "dimensions": {"length_mm": 100, "width_mm": 100, "height_mm": 100}}


@pytest.fixture(scope="module", params=CARRIERS)
async def carrier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
async def world(place: Place, carrier: str) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}, reconciler={}) as made:
        await shop.set_up(made, carriers=[carrier])
        yield made


async def a_label(world: World, carrier: str) -> tuple[UUID, Any]:
    package = {"weight_grams": 800, "length_mm": 200, "width_mm": 150, "height_mm": 100}
    order_id = await an_order(world, items=[ITEM], shipping_amount=None)
    rates = await ok(await world.send("POST", f"/api/v1/checkout/orders/{order_id}/shipping/rates", {"packages": [package]}))
    rate = next(each for each in rates["rates"] if each["service"].lower() == SERVICES[carrier].lower())
    await ok(await quote(world, order_id, shipping_rate_id=rate["id"]))
    bought = await ok(await world.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels", {}))
    return order_id, bought["label"]


def sold(world: World, number: str) -> Any:
    """The label in the carrier's own books, by a parcel's number."""
    label, _ = world.sandbox.carrier.parcel(number)
    return label


async def shown(world: World, order_id: UUID, label_id: str) -> Any:
    page = await ok(await world.send("GET", f"/api/v1/admin/shipments?order_id={order_id}"))
    return next(label for label in page["shipments"][0]["labels"] if label["id"] == label_id)


async def found_of(world: World, order_id: UUID, **filters: str) -> list[Any]:
    return [item for item in await drift(world, domain="shipping", **filters) if item["order_id"] == str(order_id)]


async def test_books_that_agree_have_no_drift(world: World, carrier: str) -> None:
    await a_label(world, carrier)
    order_id, given_back = await a_label(world, carrier)
    await ok(await world.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels/{given_back['id']}/void"))

    run = await a_run(world, "shipping", carrier)

    assert (run["compared"], run["drift_found"]) == (2, 0)


async def test_a_label_given_back_at_the_carrier_is_learnt(world: World, carrier: str) -> None:
    order_id, label = await a_label(world, carrier)
    world.sandbox.carrier.void(sold(world, label["tracking_numbers"][0]))

    run = await a_run(world, "shipping", carrier)

    assert brief(await found_of(world, order_id)) == [("missing_locally", "void", "healed")]
    assert run["drift_healed"] == 1
    assert (await shown(world, order_id, label["id"]))["status"] == "refunded"


async def test_a_label_that_the_carrier_lost_waits(world: World, carrier: str) -> None:
    order_id, label = await a_label(world, carrier)
    await make_drift(world, "labels", sold(world, label["tracking_numbers"][0]).id, forget=True)

    await a_run(world, "shipping", carrier)
    await a_run(world, "shipping", carrier)

    assert brief(await found_of(world, order_id, status="open")) == [("missing_at_provider", "", "open")]
    assert (await shown(world, order_id, label["id"]))["status"] == "purchased"


async def test_a_refund_that_the_carrier_knows_nothing_of_waits(world: World, carrier: str) -> None:
    order_id, label = await a_label(world, carrier)
    await ok(await world.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels/{label['id']}/void"))
    await make_drift(world, "labels", sold(world, label["tracking_numbers"][0]).id, status="purchased")

    await a_run(world, "shipping", carrier)

    assert brief(await found_of(world, order_id)) == [("missing_at_provider", "void", "open")]


@pytest.fixture(scope="module")
async def plain(second_place: Place) -> AsyncIterator[World]:
    async with a_world(second_place, fulfillment={}, reconciler={}) as made:
        await shop.set_up(made, carriers=["sandbox"])
        yield made


class TestBooksWhoseFiguresCanChange:
    """The sandbox's own: its faces show the rate that was bought, once a shipment."""

    @pytest.mark.parametrize(
        ("how", "expected"), [({"amount": 1}, "amount"), ({"currency": "GBP"}, "currency")], ids=["other price", "other currency"]
    )
    async def test_other_figures_wait(self, plain: World, how: Any, expected: str) -> None:
        order_id, label = await a_label(plain, "sandbox")
        await make_drift(plain, "labels", sold(plain, label["tracking_numbers"][0]).id, **how)

        await a_run(plain, "shipping", "sandbox")
        await a_run(plain, "shipping", "sandbox")

        assert brief(await found_of(plain, order_id)) == [(expected, "label", "open")]

    async def test_a_label_bought_twice_is_found(self, plain: World) -> None:
        order_id, label = await a_label(plain, "sandbox")
        twin = await make_drift(plain, "labels", sold(plain, label["tracking_numbers"][0]).id, duplicate=True)

        await a_run(plain, "shipping", "sandbox")

        assert [(item["type"], item["key"]) for item in await found_of(plain, order_id)] == [("duplicate", twin["id"])]

    async def test_a_label_that_somebody_else_bought_is_found(self, plain: World) -> None:
        _, label = await a_label(plain, "sandbox")
        twin = await make_drift(plain, "labels", sold(plain, label["tracking_numbers"][0]).id, duplicate=True)
        plain.sandbox.carrier.get(twin["id"]).reference = None

        await a_run(plain, "shipping", "sandbox")

        assert [item["type"] for item in await drift(plain, status="open") if item["key"] == twin["id"]] == ["missing_locally"]
