"""Tracking over real wires: EasyPost's and Shippo's feeds as they are, by webhook and by the hourly look."""

import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from deploy.sandbox.webhooks import Moods
from services.fulfillment.domain.shipping.tracking import TrackingEvent
from services.fulfillment.providers.easypost import EasyPost
from tests.fulfillment import shop
from tests.fulfillment.shop import MUG, an_order, ok, quote
from tests.world import Place, World, a_world, until

SIZED = {**MUG, "quantity": 1, "dimensions": {"length_mm": 120, "width_mm": 95, "height_mm": 101}}
SERVICES = {"sandbox": "ground", "easypost": "Sandbox Ground", "shippo": "Sandbox Ground"}
CARRIERS = list(SERVICES)


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={"look_every_seconds": 0.2}, webhooks={}) as made:
        await shop.set_up(made, carriers=["sandbox"])
        yield made


async def a_label(world: World, carrier: str, **changes: Any) -> tuple[UUID, list[str]]:
    await ok(await world.send("PUT", "/api/v1/admin/fulfillment/settings", {**shop.SETTINGS, "carriers": [carrier]}))
    order_id = await an_order(world, **{"items": [SIZED], **changes})
    await ok(await quote(world, order_id, shipping_service=SERVICES[carrier]))
    label = (await ok(await world.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels", {})))["label"]
    return order_id, label["tracking_numbers"]


async def move(world: World, number: str, status: str, **body: Any) -> None:
    answer = await world.http.post(f"{world.sandbox.base_url}/control/parcels/{number}/move", json={"status": status, **body})
    assert answer.status_code == 200, answer.text


async def tracking(world: World, order_id: UUID) -> Any:
    return await ok(await world.send("GET", f"/api/v1/checkout/orders/{order_id}/shipping/tracking"))


async def seen_of(world: World, order_id: UUID, count: int) -> Any:
    shown = await tracking(world, order_id)
    return shown if sum(len(parcel["events"]) for parcel in shown["parcels"]) >= count else None


def at(minutes: float, *, zone: bool = True) -> str:
    moment = (datetime.now(UTC) + timedelta(minutes=minutes)).replace(microsecond=0)
    return moment.isoformat() if zone else moment.replace(tzinfo=None).isoformat()


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_returned_stays_returned(world: World, carrier: str) -> None:
    """K4 and K5: what comes after the return is of the way back to the sender."""
    order_id, [number] = await a_label(world, carrier)

    for minutes, status in enumerate(("in_transit", "return_to_sender", "in_transit", "delivered")):
        await move(world, number, status, occurred_at=at(minutes))

    shown = await until(partial(seen_of, world, order_id, 4))
    assert (shown["status"], shown["parcels"][0]["status"]) == ("return_to_sender", "return_to_sender")
    assert shown["parcels"][0]["delivered_at"] is None
    listed = await ok(await world.send("GET", f"/api/v1/admin/shipments?order_id={order_id}&tracking_status=return_to_sender"))
    assert len(listed["shipments"]) == 1


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_a_delivery_before_the_label_is_anothers(world: World, carrier: str) -> None:
    """K6: the carrier shows a delivery of 2025-06 under the number of a label of today."""
    order_id, [number] = await a_label(world, carrier)

    await move(world, number, "delivered", occurred_at="2025-06-01T10:00:00+00:00")
    await move(world, number, "in_transit", occurred_at=at(1))

    shown = await until(partial(seen_of, world, order_id, 1))
    assert [event["status"] for event in shown["parcels"][0]["events"]] == ["in_transit"]
    assert (shown["status"], shown["parcels"][0]["delivered_at"]) == ("in_transit", None)


@pytest.mark.parametrize("carrier", ["easypost", "shippo"])
async def test_another_labels_tracker_tells_nothing(world: World, carrier: str) -> None:
    """K6: EasyPost's trackers name their `shipment_id`, Shippo's their `transaction`; the number alone may be another's."""
    order_id, [number] = await a_label(world, carrier)
    other_order, [other] = await a_label(world, carrier)
    # The number of the first label is used again by the second: from now on its tracker is what the carrier shows.
    label, parcel = world.sandbox.carrier.parcel(number)
    parcel.tracking_number = f"{number}-old"
    world.sandbox.carrier.parcel(other)[1].tracking_number = number
    await world.change("UPDATE fulfillment.shipment_packages SET tracking_number = $2 WHERE tracking_number = $1", other, number)

    await move(world, number, "delivered", occurred_at=at(1))

    shown = await until(partial(seen_of, world, other_order, 1))
    assert shown["status"] == "delivered"
    assert (await tracking(world, order_id))["parcels"][0]["events"] == []
    assert label.parcels[0].scans == []


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_a_time_without_zone_is_utc_and_says_so(world: World, carrier: str) -> None:
    """K7: a later time with a zone was lost before, and the parcel stayed where it was."""
    order_id, [number] = await a_label(world, carrier)

    await move(world, number, "in_transit", occurred_at=at(1, zone=False))
    await until(partial(seen_of, world, order_id, 1))
    await move(world, number, "delivered", occurred_at=at(2))

    shown = await until(partial(seen_of, world, order_id, 2))
    assert [event["zone_assumed"] for event in shown["parcels"][0]["events"]] == [True, False]
    assert shown["status"] == "delivered"


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_an_entry_without_a_time_costs_itself_alone(world: World, carrier: str) -> None:
    """K8 and K9, first half."""
    order_id, [number] = await a_label(world, carrier)

    await move(world, number, "pre_transit", occurred_at=None)
    await move(world, number, "in_transit", occurred_at=at(1))

    shown = await until(partial(seen_of, world, order_id, 1))
    assert [event["status"] for event in shown["parcels"][0]["events"]] == ["in_transit"]


async def test_a_look_that_fails_holds_up_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """K9, second half: of A, B and C all are looked for, whatever A raises, and A is looked for again sooner than in an hour."""
    orders = [(await a_label(world, "easypost"))[0] for _ in range(3)]
    rows = await world.rows("SELECT tracking_number FROM fulfillment.shipment_packages WHERE order_id = ANY($1) ORDER BY label_id", orders)
    first = rows[0]["tracking_number"]
    real, looks = EasyPost.track, []

    async def track(self: EasyPost, tracking_number: str, *, provider_label_id: str) -> list[TrackingEvent]:
        looks.append(tracking_number)
        if tracking_number == first:
            raise RuntimeError("a bug of the adapter")
        return await real(self, tracking_number, provider_label_id=provider_label_id)

    monkeypatch.setattr(EasyPost, "track", track)
    before = REGISTRY.get_sample_value("tender_tracking_looks_failed_total", {"carrier": "easypost"}) or 0.0
    # Not by webhook: each scan is only in the carrier's books.
    for row in rows:
        parcel = world.sandbox.carrier.parcel(row["tracking_number"])[1]
        tell, world.sandbox.carrier.tell = world.sandbox.carrier.tell, lambda *_: None
        world.sandbox.carrier.move(parcel.tracking_number, {"status": "in_transit"})
        world.sandbox.carrier.tell = tell
    due = "UPDATE fulfillment.shipment_packages SET next_look_at = now() - interval '1 minute' WHERE order_id = ANY($1)"
    await world.change(due, orders)

    await until(partial(seen_of, world, orders[1], 1))
    await until(partial(seen_of, world, orders[2], 1))

    assert sorted(set(looks)) == sorted(row["tracking_number"] for row in rows)
    soon = """
        SELECT tracking_number FROM fulfillment.shipment_packages
         WHERE order_id = ANY($1) AND next_look_at BETWEEN now() AND now() + interval '5 minutes'
    """
    found = await until(lambda: world.rows(soon, orders))
    assert [row["tracking_number"] for row in found] == [first]
    assert REGISTRY.get_sample_value("tender_tracking_looks_failed_total", {"carrier": "easypost"}) == before + 1


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_a_return_whose_webhook_was_lost_is_looked_for(world: World, carrier: str) -> None:
    """Parcels that a webhook had brought to their end were never looked for: one that went back counted as delivered for good."""
    order_id, [number] = await a_label(world, carrier)
    due = "UPDATE fulfillment.shipment_packages SET next_look_at = now() + make_interval(hours => $2) WHERE order_id = $1"
    await world.change(due, order_id, 1)
    await move(world, number, "delivered", occurred_at=at(2))
    shown = await until(partial(seen_of, world, order_id, 1))
    assert shown["status"] == "delivered"
    tell, world.sandbox.carrier.tell = world.sandbox.carrier.tell, lambda *_: None
    await move(world, number, "return_to_sender", occurred_at=at(1))
    world.sandbox.carrier.tell = tell

    await world.change(due, order_id, 0)

    shown = await until(partial(seen_of, world, order_id, 2))
    assert shown["status"] == "return_to_sender"
    looked = "SELECT 1 FROM fulfillment.shipment_packages WHERE order_id = $1 AND looked_after_end"
    assert await until(lambda: world.rows(looked, order_id))


NEWS: Sequence[tuple[str, float, bool]] = (
    ("in_transit", 1, True),
    ("exception", 2, False),
    ("out_for_delivery", 3, True),
    ("return_to_sender", 4, False),
    ("delivered", 5, True),
)


@pytest.mark.parametrize("seed", range(3))
async def test_any_order_of_several_parcels_ends_the_same(world: World, seed: int) -> None:
    """Two parcels of one order: scans in any order, each told twice, some never, with zones missing, have one end."""
    chance = random.Random(seed)
    moods = world.sandbox.parcels.moods
    order_id, [first, second] = await a_label(world, "sandbox", items=[{**MUG, "quantity": 4, "weight_grams": 9000}])
    news = [(number, each) for number, count in ((first, 5), (second, 3)) for each in NEWS[:count]] * 2
    chance.shuffle(news)
    began = datetime.now(UTC).replace(microsecond=0)

    world.sandbox.parcels.moods = Moods(lost=0.4)
    for number, (status, minutes, zone) in news:
        moment = began + timedelta(minutes=minutes)
        told = moment.isoformat() if zone else moment.replace(tzinfo=None).isoformat()
        await move(world, number, status, code=status, occurred_at=told)

    world.sandbox.parcels.moods = moods

    async def seen() -> Any:
        # A look that was under way, or that the carrier did not answer in time, is made again.
        await world.change("UPDATE fulfillment.shipment_packages SET next_look_at = now() WHERE order_id = $1", order_id)
        return await seen_of(world, order_id, 8)

    shown = await until(seen)
    by_number = {parcel["tracking_number"]: parcel for parcel in shown["parcels"]}
    assert (by_number[first]["status"], by_number[second]["status"]) == ("return_to_sender", "out_for_delivery")
    assert [len(by_number[number]["events"]) for number in (first, second)] == [5, 3]
    assert shown["status"] == "return_to_sender"
