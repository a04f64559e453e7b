"""Parcels: labels bought once, given back, opened and rendered; and where parcels are, in whatever order the news comes."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import pypdfium2
import pytest

from deploy.sandbox import server
from services.gateway.domain import Role
from shared import topology
from shared.bus import Letter, Publisher, headers_of
from shared.contracts.fulfillment.shipping import BuyLabel
from shared.ids import new_id
from shared.messages import Envelope, Environment, Refused, decode_reply, encode, type_of
from shared.vault import Unwrapper, Vault
from tests.fulfillment import shop
from tests.fulfillment.shop import MUG, PARIS, ZURICH, an_order, ok, quote
from tests.planted import BUYER, PRIVATE_KEYS
from tests.world import Answer, Place, World, a_world, until

RACERS = 50


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}, webhooks={}) as made:
        await shop.set_up(made, carriers=["sandbox"])
        yield made


@pytest.fixture(autouse=True)
def _well_behaved(request: pytest.FixtureRequest) -> None:
    if "world" in request.fixturenames:
        carrier = request.getfixturevalue("world").sandbox.carrier
        carrier.grants_voids, carrier.rate_lifetime_seconds = True, 3600.0


async def a_quoted_order(world: World, *, service: str = "ground", **changes: Any) -> tuple[UUID, Any]:
    order_id = await an_order(world, **changes)
    return order_id, await ok(await quote(world, order_id, shipping_service=service))


async def buy(world: World, order_id: UUID, **body: Any) -> Answer:
    return await world.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels", body)


async def void(world: World, order_id: UUID, label_id: str) -> Answer:
    return await world.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels/{label_id}/void")


async def document(world: World, order_id: UUID, label_id: str, package: int = 0) -> Any:
    path = f"/api/v1/admin/orders/{order_id}/shipping/labels/{label_id}/document"
    return await world.http.get(path, params={"package": package}, headers={"Authorization": f"Bearer {world.keys[Role.ADMIN]}"})


async def a_label(world: World, **changes: Any) -> tuple[UUID, Any]:
    order_id, _ = await a_quoted_order(world, **changes)
    return order_id, (await ok(await buy(world, order_id)))["label"]


def sold(world: World, order_id: UUID) -> list[Any]:
    """What the carrier's own books hold of an order: its buyer's name is the order's id."""
    return [label for label in world.sandbox.carrier.labels.values() if str(order_id) in label.ship_to.get("company_name", "")]


def sold_under(world: World, reference: str) -> int:
    """How many labels the carrier's books hold under a label's id."""
    return len(world.sandbox.carrier.find(reference))


def at(order: UUID, place: Any = shop.MUNICH, **more: Any) -> Any:
    return {**place, "company_name": str(order), **more}


async def tracking(world: World, order_id: UUID) -> Any:
    return await ok(await world.send("GET", f"/api/v1/checkout/orders/{order_id}/shipping/tracking"))


async def is_at(world: World, order_id: UUID, status: str) -> bool:
    return bool((await tracking(world, order_id))["status"] == status)


class TestRates:
    async def test_services_of_the_carrier_by_zone_and_weight(self, world: World) -> None:
        _, home = await a_quoted_order(world)
        _, abroad = await a_quoted_order(world, shipping_address=PARIS)

        assert [(r["service"], r["amount"]) for r in home["shipping_rates"]] == [("economy", 410), ("ground", 530), ("express", 1380)]
        assert [(r["service"], r["amount"]) for r in abroad["shipping_rates"]] == [("economy", 960), ("ground", 1300), ("express", 2700)]

    async def test_packages_are_given_or_packed_by_weight(self, world: World) -> None:
        order_id = await an_order(world, items=[{**MUG, "quantity": 7, "weight_grams": 9000}])
        path = f"/api/v1/checkout/orders/{order_id}/shipping/rates"

        packed = await ok(await world.send("POST", path, {}))
        sides = {"length_mm": 800, "width_mm": 600, "height_mm": 400}
        given = await ok(await world.send("POST", path, {"packages": [{"weight_grams": 63000, **sides}]}))

        assert [p["weight_grams"] for p in packed["packages"]] == [27000, 27000, 9000]
        assert [p["weight_grams"] for p in given["packages"]] == [63000]

    async def test_a_silent_carrier_costs_its_rates_and_not_the_quote(self, own_place: Place) -> None:
        async with a_world(own_place, fulfillment={"rates_timeout_seconds": 0.3}) as world:
            await shop.set_up(world, carriers=["sandbox", "table_rate"])

            snapshot = await ok(await quote(world, await an_order(world, shipping_address={**shop.MUNICH, "city": "Silent Hill"})))

        assert {r["carrier"] for r in snapshot["shipping_rates"]} == {"table_rate"}
        assert [n["code"] for n in snapshot["notices"]] == ["provider-silent"]

    async def test_without_any_carrier_the_fallback_is_taken_and_said(self, own_place: Place) -> None:
        fallback = [{"service": "flat", "amount": 700, "currency": "EUR"}]
        silent = {**shop.MUNICH, "city": "Silent Hill"}
        async with a_world(own_place, fulfillment={"rates_timeout_seconds": 0.3}) as world:
            await shop.set_up(world, carriers=["sandbox"], fallback_rates=fallback)

            order_id = await an_order(world, shipping_address=silent)
            snapshot = await ok(await quote(world, order_id))
            label = await buy(world, order_id)
            refused = await world.send(
                "PUT", "/api/v1/admin/fulfillment/settings", {**shop.SETTINGS, "carriers": ["sandbox"], "fallback_rates": []}
            )
            none = await quote(world, await an_order(world, shipping_address=silent))

        assert (snapshot["totals"]["shipping"], [n["code"] for n in snapshot["notices"]]) == (700, ["provider-silent", "fallback-rates"])
        assert (label.status, label.code) == (422, "rate-needed")
        assert refused.status == 200
        assert (none.status, none.code) == (422, "no-shipping-rate")


class TestLabels:
    async def test_a_label_is_bought_and_the_shipment_is_final(self, world: World) -> None:
        order_id, snapshot = await a_quoted_order(world)

        bought = await ok(await buy(world, order_id))

        label, shipment = bought["label"], bought["shipment"]
        assert (label["status"], label["service"], label["amount"], label["currency"]) == ("purchased", "ground", 530, "EUR")
        assert (shipment["status"], shipment["snapshot_id"]) == ("finalized", snapshot["snapshot_id"])
        listed = await ok(await world.send("GET", f"/api/v1/admin/shipments?order_id={order_id}"))
        assert [each["labels"][0]["tracking_numbers"] for each in listed["shipments"]] == [label["tracking_numbers"]]

    async def test_the_pdf_opens_and_shows_the_parcel(self, world: World) -> None:
        order_id, label = await a_label(world)

        answer = await document(world, order_id, label["id"])

        assert answer.headers["content-type"] == "application/pdf"
        pdf = pypdfium2.PdfDocument(answer.content)
        text = pdf[0].get_textpage().get_text_bounded()
        assert label["tracking_numbers"][0] in text
        assert BUYER["street_address"] in text
        image = pdf[0].render(scale=2).to_pil()
        dark = sum(image.convert("L").histogram()[:64])
        # Four by six inches at 144 dots, and bars and letters on it.
        assert (image.size, 10_000 < dark < 200_000) == ((576, 864), True)

    async def test_for_label_printers(self, world: World) -> None:
        order_id, _ = await a_quoted_order(world)
        label = (await ok(await buy(world, order_id, document="zpl")))["label"]

        answer = await document(world, order_id, label["id"])

        assert answer.headers["content-type"].startswith("application/zpl")
        assert answer.text.startswith("^XA")
        assert f"^FD{label['tracking_numbers'][0]}^FS" in answer.text

    async def test_several_packages_have_a_number_and_a_page_each(self, world: World) -> None:
        order_id, label = await a_label(world, items=[{**MUG, "quantity": 7, "weight_grams": 9000}])

        pages = [await document(world, order_id, label["id"], n) for n in range(4)]

        assert len(set(label["tracking_numbers"])) == 3
        assert [page.status_code for page in pages] == [200, 200, 200, 404]

    async def test_a_label_for_the_way_back(self, world: World) -> None:
        order_id, _ = await a_label(world)

        back = (await ok(await buy(world, order_id, is_return=True)))["label"]

        assert (back["is_return"], back["status"]) == (True, "purchased")
        text = pypdfium2.PdfDocument((await document(world, order_id, back["id"])).content)[0].get_textpage().get_text_bounded()
        assert text.index(BUYER["street_address"]) < text.index("Karl-Marx-Allee 1")

    async def test_insured(self, world: World) -> None:
        order_id, _ = await a_quoted_order(world, shipping_address=at(new_id()))

        label = (await ok(await buy(world, order_id, insured_amount=50_000)))["label"]

        theirs = next(each for each in world.sandbox.carrier.labels.values() if each.reference == label["id"])
        assert theirs.insured_amount == 50_000

    async def test_across_a_border_with_customs_data(self, world: World) -> None:
        customs = {"hs_code": "691200", "origin_country": "DE", "description": "Stoneware mug"}
        without, _ = await a_quoted_order(world, shipping_address=ZURICH)
        with_it, _ = await a_quoted_order(world, shipping_address=ZURICH, items=[{**MUG, "customs": customs}])
        calls = dict(world.sandbox.calls)

        refused = await buy(world, without)
        calls_after = dict(world.sandbox.calls)
        bought = await ok(await buy(world, with_it))

        assert (refused.status, refused.code, refused.json["lines"]) == (422, "customs-needed", [0])
        assert calls == calls_after
        assert bought["label"]["status"] == "purchased"


class TestOnlyOnce:
    async def test_a_quote_whose_pricing_came_late_keeps_one_way_to_ship(self, own_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is asked for again; of two ways to ship a label would not know which is meant."""
        monkeypatch.setattr(server, "SLOW_SECONDS", 0.8)
        async with a_world(own_place, fulfillment={"rates_timeout_seconds": 4.0}, payments={"pricing_timeout_seconds": 0.5}) as world:
            await shop.set_up(world, carriers=["sandbox"])
            world.sandbox.weather = {"slow": 1.0}
            order_id = await an_order(world)
            quoting = asyncio.create_task(quote(world, order_id, shipping_service="ground"))
            drafts = "SELECT FROM fulfillment.shipments WHERE order_id = $1"
            await until(lambda: world.rows(drafts, order_id))
            world.sandbox.weather = {}

            snapshot = await ok(await quoting)
            kept = await world.rows(drafts, order_id)
            asked = await world.rows("SELECT FROM fulfillment.shipment_rates WHERE order_id = $1", order_id)

        assert snapshot["totals"]["shipping"] > 0
        assert len(kept) == 1
        assert len(asked) >= 2 * len(snapshot["shipping_rates"]), "it was priced again, on a slow machine more than once"

    async def test_raced_one_label_is_bought(self, world: World) -> None:
        order = new_id()
        order_id, _ = await a_quoted_order(world, shipping_address=at(order))

        answers = await asyncio.gather(*(buy(world, order_id) for _ in range(RACERS)))

        bought = [a for a in answers if a.status == 201]
        assert len(bought) == 1
        assert {(a.status, a.code) for a in answers if a.status != 201} <= {(409, "operation-in-progress"), (409, "label-exists")}
        assert len(sold(world, order)) == 1

    async def test_the_same_key_is_the_same_label(self, world: World) -> None:
        order = new_id()
        order_id, _ = await a_quoted_order(world, shipping_address=at(order))
        path, key = f"/api/v1/admin/orders/{order_id}/shipping/labels", new_id().hex

        answers = await asyncio.gather(*(world.send("POST", path, {}, key=key) for _ in range(8)))

        assert {a.content for a in answers} == {answers[0].content}
        assert len(sold(world, order)) == 1

    @pytest.mark.parametrize("city", ["Silent Once", "Failing Once", "Busytown", "Late Harbour"])
    async def test_what_the_carrier_left_unclear_is_found_out_and_answered(self, own_place: Place, city: str) -> None:
        order = new_id()
        async with a_world(own_place, fulfillment={"rates_timeout_seconds": 4.0}, payments={"pricing_timeout_seconds": 8.0}) as world:
            await shop.set_up(world, carriers=["sandbox"])
            order_id, _ = await a_quoted_order(world, shipping_address=at(order, city=city))

            answer = await buy(world, order_id)
            found = answer.json if answer.status == 201 else await until(lambda: _ended(world, answer))

            assert found["label"]["status"] == "purchased"
            assert len(sold(world, order)) == 1

    async def test_a_rate_that_expired_is_not_priced_anew_in_silence(self, world: World) -> None:
        order_id, _ = await a_quoted_order(world)
        await world.change("UPDATE fulfillment.shipment_rates SET expires_at = now() WHERE order_id = $1", order_id)

        refused = await buy(world, order_id)
        rates = (await ok(await world.send("POST", f"/api/v1/checkout/orders/{order_id}/shipping/rates", {})))["rates"]
        again = next(rate for rate in rates if rate["service"] == "ground")
        bought = await ok(await buy(world, order_id, rate_id=again["id"]))

        assert (refused.status, refused.code) == (409, "rate-expired")
        assert bought["label"]["service"] == "ground"


async def _ended(world: World, answer: Answer) -> Any:
    operation = await world.operation(answer.headers["Location"])
    return operation["response"] and operation["response"]["body"]


class TestNobodyKnows:
    async def test_it_is_listed_and_settled_by_an_operator_with_evidence(self, own_place: Place) -> None:
        async with a_world(own_place, fulfillment={}) as world:
            await shop.set_up(world, carriers=["sandbox"])
            order_id, _ = await a_quoted_order(world, shipping_address=at(new_id(), city="Silent Harbour"))
            path = f"/api/v1/admin/orders/{order_id}/shipping/labels"
            asked = await world.send("POST", path, {}, headers={"Prefer": "respond-async"})
            label = await until(lambda: _unknown_label(world, order_id))

            decided = await until(lambda: _decided(world, label["label_id"]))
            _, bought = await a_label(world)
            too_late = await _decide(world, bought["id"])

            assert {call["classification"] for call in label["tried"]} >= {"sent_no_answer"}
            assert (decided["status"], decided["reason"]) == ("failed", "decided_by_operator: not in their list")
            assert (await until(lambda: _ended(world, asked)))["carrier_code"] == "decided_by_operator"
            assert await _unknown_label(world, order_id) is None
            audited = await world.rows("SELECT action, reason FROM fulfillment.admin_audit WHERE subject = $1", label["label_id"])
            assert [tuple(row) for row in audited] == [("label.decide", "not in their list")]
            assert (too_late.status, too_late.code) == (409, "outcome-known")


async def _unknown_label(world: World, order_id: UUID) -> Any:
    labels = (await ok(await world.send("GET", "/api/v1/admin/unknown-outcomes/labels")))["labels"]
    return next((each for each in labels if each["order_id"] == str(order_id) and each["tried"]), None)


async def _decide(world: World, label_id: str) -> Answer:
    body = {"outcome": "failed", "evidence": "not in their list"}
    return await world.send("POST", f"/api/v1/admin/unknown-outcomes/labels/{label_id}/decide", body)


async def _decided(world: World, label_id: str) -> Any:
    # The resolver may be at it this very moment.
    answer = await _decide(world, label_id)
    return answer.json if answer.status == 200 else None


class TestTheChoiceStands:
    async def test_the_api_refuses_another_service(self, world: World) -> None:
        order_id, _ = await a_quoted_order(world)
        label = (await ok(await buy(world, order_id)))["label"]
        await ok(await void(world, order_id, label["id"]))
        rates = (await ok(await world.send("POST", f"/api/v1/checkout/orders/{order_id}/shipping/rates", {})))["rates"]
        express = next(rate for rate in rates if rate["service"] == "express")

        by_rate = await buy(world, order_id, rate_id=express["id"])
        by_name = await buy(world, order_id, service="express")

        assert [(a.status, a.code) for a in (by_rate, by_name)] == [(409, "shipment-finalized")] * 2

    async def test_another_snapshot_cannot_ship_it_any_more(self, world: World) -> None:
        order_id, first = await a_quoted_order(world)
        second = await ok(await quote(world, order_id, shipping_service="express"))
        await ok(await buy(world, order_id, snapshot_id=first["snapshot_id"]))

        answer = await buy(world, order_id, snapshot_id=second["snapshot_id"])

        assert (answer.status, answer.code) == (409, "shipment-finalized")

    async def test_a_message_is_refused_as_well(self, world: World) -> None:
        order_id, _ = await a_label(world)
        command_id = new_id()
        envelope = Envelope(
            id=command_id,
            store_id=world.store_id,
            environment=Environment.SANDBOX,
            source="gateway",
            actor="somebody with a way to the bus",
            correlation_id=str(command_id),
        )
        command = BuyLabel(order_id=order_id, service="express", is_return=True)
        letter = Letter(
            exchange=topology.COMMANDS,
            routing_key=type_of(BuyLabel),
            body=encode(command),
            headers=headers_of(envelope),
            type=type_of(BuyLabel),
        )
        async with Publisher(world.place.amqp_url, name="tests") as publisher:
            await publisher.publish(letter)

        kept = "SELECT reply FROM fulfillment.inbox WHERE message_id = $1 AND state = 'done'"
        [row] = await until(lambda: world.rows(kept, command_id))
        wallet = Unwrapper(Vault(PRIVATE_KEYS["fulfillment"]))
        place = f"tender/reply/1|{world.store_id}|sandbox|gateway|{command_id}"
        reply = decode_reply(wallet.unwrap(row["reply"].decode(), info=place))
        assert isinstance(reply, Refused)
        assert reply.problem.code == "shipment-finalized"

    async def test_sql_refuses(self, world: World) -> None:
        order_id, _ = await a_label(world)

        for change in (
            "UPDATE fulfillment.shipments SET service = 'express' WHERE order_id = $1",
            "UPDATE fulfillment.shipments SET status = 'draft', finalized_at = NULL WHERE order_id = $1",
            "DELETE FROM fulfillment.shipments WHERE order_id = $1",
        ):
            with pytest.raises(asyncpg.RestrictViolationError):
                await world.change(change, order_id)

    async def test_the_paid_snapshot_is_meant(self, world: World) -> None:
        order_id, first = await a_quoted_order(world)
        await ok(await quote(world, order_id, shipping_service="express"))
        unclear = await buy(world, order_id)
        await ok(await world.authorize(order_id, first["snapshot_id"]))
        await until(lambda: world.rows("SELECT FROM fulfillment.order_payments WHERE order_id = $1 AND status = 'authorized'", order_id))

        bought = await ok(await buy(world, order_id))

        assert (unclear.status, unclear.code) == (409, "shipment-ambiguous")
        assert bought["shipment"]["snapshot_id"] == first["snapshot_id"]

    async def test_an_order_that_prices_its_shipping_itself_is_shipped_by_a_rate(self, world: World) -> None:
        order_id = await an_order(world, shipping_amount=500, tax_lines=[])
        await ok(await quote(world, order_id))
        without = await buy(world, order_id)
        rates = (await ok(await world.send("POST", f"/api/v1/checkout/orders/{order_id}/shipping/rates", {})))["rates"]

        answers = await asyncio.gather(*(buy(world, order_id, rate_id=rates[1]["id"]) for _ in range(4)))

        [bought] = [answer.json for answer in answers if answer.status == 201]
        assert (without.status, without.code) == (404, "no-shipment")
        assert (bought["shipment"]["snapshot_id"], bought["label"]["service"]) == (None, "ground")
        other = await buy(world, order_id, rate_id=rates[2]["id"], is_return=True)
        assert (other.status, other.code) == (409, "shipment-finalized")

    async def test_an_order_without_a_shipment(self, world: World) -> None:
        answer = await buy(world, new_id())

        assert (answer.status, answer.code) == (404, "no-shipment")


class TestVoid:
    async def test_a_label_is_given_back_and_another_can_be_bought(self, world: World) -> None:
        order_id, label = await a_label(world)

        back = await ok(await void(world, order_id, label["id"]))
        twice = await ok(await void(world, order_id, label["id"]))
        again = await ok(await buy(world, order_id))

        assert (back["status"], twice["status"], again["label"]["status"]) == ("refunded", "refunded", "purchased")
        assert (await tracking(world, order_id))["parcels"][0]["status"] == "cancelled"

    async def test_the_carrier_decides_later_and_tells(self, world: World) -> None:
        world.sandbox.carrier.grants_voids = False
        order_id, label = await a_label(world)

        asked = await ok(await void(world, order_id, label["id"]))
        theirs = next(each for each in world.sandbox.carrier.labels.values() if each.reference == label["id"])
        await world.http.post(f"{world.sandbox.base_url}/control/labels/{theirs.id}/grant")

        assert asked["status"] == "void_requested"
        await until(lambda: _label_is(world, order_id, "refunded"))

    async def test_a_label_that_was_used_is_rejected(self, world: World) -> None:
        order_id, label = await a_label(world)
        for _ in range(2):
            await _move(world, label["tracking_numbers"][0])

        back = await ok(await void(world, order_id, label["id"]))

        assert back["status"] == "rejected"

    async def test_a_service_that_is_billed_on_scan(self, world: World) -> None:
        order_id, label = await a_label(world, service="economy")

        back = await ok(await void(world, order_id, label["id"]))
        again = await void(world, order_id, label["id"])

        assert back["status"] == "not_applicable"
        assert (again.status, again.code) == (409, "invalid-label-state")

    async def test_of_another_order(self, world: World) -> None:
        _, label = await a_label(world)

        answer = await void(world, await an_order(world), label["id"])

        assert (answer.status, answer.code) == (404, "not-found")

    async def test_a_parcel_that_moves_all_the_same_is_looked_at(self, world: World) -> None:
        order_id, label = await a_label(world)
        await ok(await void(world, order_id, label["id"]))

        await _move(world, label["tracking_numbers"][0], status="in_transit", occurred_at=_in(60))

        await until(lambda: _alerted(world, order_id))


async def _label_is(world: World, order_id: UUID, status: str) -> bool:
    listed = await ok(await world.send("GET", f"/api/v1/admin/shipments?order_id={order_id}"))
    return bool(listed["shipments"][0]["labels"][0]["status"] == status)


async def _alerted(world: World, order_id: UUID) -> bool:
    return bool((await tracking(world, order_id))["parcels"][0]["alert"] == "void_but_moving")


async def _move(world: World, number: str, **body: Any) -> None:
    answer = await world.http.post(f"{world.sandbox.base_url}/control/parcels/{number}/move", json=body)
    assert answer.status_code == 200, answer.text


def _in(seconds: int) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


class TestTracking:
    async def test_a_parcel_is_followed_to_its_door(self, world: World) -> None:
        order_id, label = await a_label(world)

        for status in ("pre_transit", "picked_up", "in_transit", "out_for_delivery", "delivered"):
            await _move(world, label["tracking_numbers"][0])
            await until(partial(is_at, world, order_id, status))

        parcel = (await tracking(world, order_id))["parcels"][0]
        assert [event["status"] for event in parcel["events"]][-1] == "delivered"
        assert parcel["delivered_at"] is not None
        listed = await ok(await world.send("GET", f"/api/v1/admin/shipments?order_id={order_id}&tracking_status=delivered"))
        assert len(listed["shipments"]) == 1

    async def test_news_that_come_twice_and_in_any_order_end_the_same(self, world: World) -> None:
        order_id, label = await a_label(world)
        number, rng = label["tracking_numbers"][0], random.Random(7)
        stops = ["pre_transit", "picked_up", "in_transit", "exception", "in_transit", "out_for_delivery", "delivered"]
        news = [(stop, _in(n)) for n, stop in enumerate(stops)] * 2
        rng.shuffle(news)

        for status, occurred_at in news:
            await _move(world, number, status=status, code=status, occurred_at=occurred_at)

        await until(lambda: _all_seen(world, order_id, len(stops)))
        parcel = (await tracking(world, order_id))["parcels"][0]
        assert [event["status"] for event in parcel["events"]] == stops
        assert parcel["status"] == "delivered"

    async def test_a_shipment_is_where_its_last_parcel_is(self, world: World) -> None:
        order_id, label = await a_label(world, items=[{**MUG, "quantity": 4, "weight_grams": 9000}])
        first, second = label["tracking_numbers"]

        await asyncio.gather(*(_move(world, first, status="delivered", occurred_at=_in(5)) for _ in range(2)))
        await _move(world, second, status="in_transit")
        await until(lambda: is_at(world, order_id, "in_transit"))
        await _move(world, second, status="delivered", occurred_at=_in(9))

        await until(lambda: is_at(world, order_id, "delivered"))
        rows = await world.rows("SELECT tracking_status FROM fulfillment.shipments WHERE order_id = $1", order_id)
        assert [row["tracking_status"] for row in rows] == ["delivered"]

    async def test_a_parcel_that_nobody_tells_of_is_asked_for(self, own_place: Place) -> None:
        async with a_world(own_place, fulfillment={"track_every_seconds": 0.2}) as world:
            await shop.set_up(world, carriers=["sandbox"])
            order_id, label = await a_label(world)

            for _ in range(5):
                await _move(world, label["tracking_numbers"][0])

            await until(lambda: is_at(world, order_id, "delivered"))

    async def test_a_webhook_that_overtakes_the_label_is_kept(self, world: World) -> None:
        order_id, label = await a_label(world)
        number = label["tracking_numbers"][0]
        # As if the carrier had not answered yet, so that we did not know the number.
        bought = "UPDATE fulfillment.shipment_labels SET status = $2, next_look_at = now() + interval '1 hour' WHERE id = $1"
        await world.change(bought, UUID(label["id"]), "buying")
        await world.change("UPDATE fulfillment.shipment_packages SET tracking_number = 'later' WHERE tracking_number = $1", number)
        await _move(world, number)
        waiting = "SELECT FROM webhooks.webhook_events WHERE status = 'waiting'"
        await until(lambda: world.rows(waiting))
        await world.change("UPDATE fulfillment.shipment_packages SET tracking_number = $1 WHERE tracking_number = 'later'", number)
        await world.change(bought, UUID(label["id"]), "purchased")

        await until(lambda: is_at(world, order_id, "pre_transit"))

    async def test_a_strangers_parcel_is_ignored_at_once(self, world: World) -> None:
        """F15: the carrier's account may be used by others too."""
        order_id, label = await a_label(world)
        number = label["tracking_numbers"][0]
        await world.change("UPDATE fulfillment.shipment_packages SET tracking_number = 'theirs' WHERE tracking_number = $1", number)

        await _move(world, number)

        ignored = "SELECT last_error FROM webhooks.webhook_events WHERE status = 'ignored' AND last_error IS NOT NULL"
        [found] = await until(lambda: world.rows(ignored))
        assert found["last_error"] == "No parcel of ours bears its number."
        assert (await tracking(world, order_id))["status"] == "unknown"

    async def test_a_number_used_again_belongs_to_the_newer_label(self, world: World) -> None:
        old_order, old = await a_label(world)
        new_order, new = await a_label(world)
        number = new["tracking_numbers"][0]
        await world.change(_MONTHS_AGO, number, UUID(old["id"]))

        await _move(world, number)

        await until(lambda: is_at(world, new_order, "pre_transit"))
        assert (await tracking(world, old_order))["status"] == "unknown"


_MONTHS_AGO = """
    UPDATE fulfillment.shipment_packages
       SET tracking_number = $1, created_at = now() - interval '200 days'
     WHERE label_id = $2
"""


async def _all_seen(world: World, order_id: UUID, count: int) -> bool:
    return len((await tracking(world, order_id))["parcels"][0]["events"]) == count


class TestWhoMaySee:
    async def test_a_shopper_sees_only_their_own_parcels(self, world: World) -> None:
        order_id, _ = await a_label(world)
        token = (await ok(await world.send("POST", f"/api/v1/admin/orders/{order_id}/checkout-token")))["token"]

        own = await world.send("GET", f"/api/v1/checkout/orders/{order_id}/shipping/tracking", token=token)
        other = await world.send("GET", f"/api/v1/checkout/orders/{new_id()}/shipping/tracking", token=token)
        label = await world.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels", {}, token=token)

        assert (own.status, other.status, label.status) == (200, 403, 403)
