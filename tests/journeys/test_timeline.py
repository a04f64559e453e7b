"""An order's timeline: everything that happened to it, across services, in order; a service that is down hides nothing of the rest."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from services.gateway.domain import Role
from shared.ids import new_id
from tests.fulfillment import shop
from tests.fulfillment.shop import an_order, finalize, ok, quote
from tests.reconciler.letters import an_envelope, park, the_letter
from tests.world import Place, World, a_key, a_world, until


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}, webhooks={"allow_private_endpoints": True}, reconciler={}) as made:
        await shop.set_up(made, carriers=["sandbox"])
        yield made


async def timeline(world: World, order_id: UUID) -> Any:
    return await ok(await world.send("GET", f"/api/v1/admin/orders/{order_id}/timeline"))


async def a_shipped_order(world: World) -> UUID:
    order_id = await an_order(world)
    snapshot = await ok(await quote(world, order_id, shipping_service="ground", payment_provider="sandbox"))
    paid = await ok(await world.authorize(order_id, snapshot["snapshot_id"]))
    await ok(await finalize(world, order_id, snapshot["snapshot_id"]))
    await ok(await world.send("POST", f"/api/v1/admin/orders/{order_id}/payments/{paid['intent']['id']}/capture", {}))
    await ok(await world.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels", {}))
    return order_id


async def test_tells_everything_in_order_with_who_says_so(world: World) -> None:
    order_id = await a_shipped_order(world)
    await park(world, "fulfillment", "fulfillment.buy_label.v1", {"order_id": order_id}, planted := an_envelope(world))
    await the_letter(world, planted.id)

    found = await until(lambda: _told(world, order_id, "payment.capture.succeeded"))

    titles = [(entry["service"], entry["kind"], entry["title"]) for entry in found["entries"]]
    for expected in (
        ("payments", "quote", "quoted"),
        ("payments", "transaction", "authorize succeeded"),
        ("payments", "transaction", "capture succeeded"),
        ("payments", "provider_call", "sandbox authorize: 200"),
        ("payments", "status", "authorized → paid"),
        ("webhooks", "webhook", "sandbox told payment.capture.succeeded"),
        ("fulfillment", "tax", "tax finalized"),
        ("fulfillment", "shipment", "label purchased"),
        ("reconciler", "dead_letter", "fulfillment.buy_label.v1 could not be handled"),
    ):
        assert expected in titles, (expected, titles)
    moments = [entry["at"] for entry in found["entries"]]
    assert moments == sorted(moments)
    assert (found["missing"], found["incomplete"]) == ([], [])
    told = {entry["kind"]: entry for entry in found["entries"]}
    assert all(told[kind]["correlation_id"] for kind in ("status", "transaction", "provider_call", "tax", "shipment", "dead_letter"))


async def test_a_service_that_is_down_is_named_and_hides_nothing(own_place: Place) -> None:
    async with a_world(own_place, gateway={"part_timeout_seconds": 0.5}) as world:
        payment = await world.a_captured_payment()

        found = await timeline(world, payment.order_id)
        unknown = await timeline(world, new_id())

        assert found["missing"] == ["webhooks", "fulfillment", "reconciler"]
        assert "capture succeeded" in [entry["title"] for entry in found["entries"]]
        assert (unknown["entries"], unknown["missing"]) == ([], found["missing"])


async def test_an_order_that_nobody_knows_is_not_there(world: World) -> None:
    answer = await world.send("GET", f"/api/v1/admin/orders/{new_id()}/timeline")

    assert (answer.status, answer.code) == (404, "not-found")


async def test_another_store_sees_nothing_of_it(world: World) -> None:
    order_id = await a_shipped_order(world)
    stranger = await a_key(world.place, new_id(), Role.OPERATOR)

    answer = await world.send("GET", f"/api/v1/admin/orders/{order_id}/timeline", token=stranger)

    assert answer.status == 404


async def _told(world: World, order_id: UUID, event: str) -> Any:
    found = await timeline(world, order_id)
    return found if any(event in entry["title"] for entry in found["entries"] if entry["kind"] == "webhook") else None
