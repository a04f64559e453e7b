"""Two processes at one label, parcel or order: a process that lost the lease, or read an older revision, changes nothing.

And labels whose carrier's list may lag behind: nothing is bought again before the wait that the carrier's adapter declares.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from deploy.sandbox.books import Refused
from services.fulfillment.handlers import labels
from tests.fulfillment import shop
from tests.fulfillment.carriers.test_conformance import ADAPTERS
from tests.fulfillment.shop import MUG, ok
from tests.fulfillment.test_tracking_journeys import SERVICES, SIZED, at, move, seen_of, tracking
from tests.locks import changed_meanwhile
from tests.world import Place, World, a_world, until

WAITS = {name: adapter.absence_is_proof_after_seconds for name, adapter in ADAPTERS.items() if adapter.absence_is_proof_after_seconds}
LEASE = "SELECT * FROM fulfillment.shipment_labels WHERE order_id = $1"
TAKEN_BY_ANOTHER = """
    UPDATE fulfillment.shipment_labels
       SET lease_token = lease_token + 1, lease_expires_at = now() + interval '1 hour'
     WHERE order_id = $1
"""
LEASE_ENDS = "UPDATE fulfillment.shipment_labels SET lease_expires_at = now(), next_look_at = now() WHERE order_id = $1"
GROWN_OLD = """
    UPDATE fulfillment.shipment_labels
       SET created_at = created_at - make_interval(secs => $2), next_look_at = now()
     WHERE order_id = $1
"""


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    # A call that a test holds back is not given up meanwhile.
    async with a_world(place, fulfillment={"provider_timeout_seconds": 30.0}, webhooks={}) as made:
        await shop.set_up(made, carriers=["sandbox"])
        yield made


class Gate:
    """Holds calls that buy a label back, once the carrier has carried them out, until a test lets them go."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()
        self.trouble: Refused | None = None
        self._answer: Callable[..., Awaitable[Any]] = world.sandbox.keyed
        monkeypatch.setattr(world.sandbox, "keyed", self._keyed)

    async def _keyed(self, request: Any, face: Any, kind: str, *how: Any) -> Any:
        answer = await self._answer(request, face, kind, *how)
        if kind == "label" and not self.opened.is_set():
            self.reached.set()
            await self.opened.wait()
            if self.trouble is not None:
                raise self.trouble
        return answer


@pytest.fixture
def gate(world: World, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(world, monkeypatch)


async def a_rated_order(world: World, carrier: str = "sandbox", **changes: Any) -> UUID:
    """An order that one carrier is to ship."""
    await ok(await world.send("PUT", "/api/v1/admin/fulfillment/settings", {**shop.SETTINGS, "carriers": [carrier]}))
    order_id = await shop.an_order(world, **{"items": [SIZED], **changes})
    await ok(await shop.quote(world, order_id, shipping_service=SERVICES[carrier]))
    return order_id


async def buy(world: World, order_id: UUID, **body: Any) -> Any:
    """Ask for its label, without waiting for it."""
    path = f"/api/v1/admin/orders/{order_id}/shipping/labels"
    return await world.send("POST", path, body, headers={"Prefer": "respond-async"})


async def the_label(world: World, order_id: UUID) -> Any:
    """The row of an order's label."""
    [row] = await world.rows(LEASE, order_id)
    return row


async def ended(world: World, order_id: UUID) -> Any:
    """The row, once it is known what became of it."""
    rows = await world.rows(LEASE, order_id)
    return rows[0] if rows and rows[0]["status"] != "buying" else None


def sold(world: World, label: Any) -> int:
    """How many labels the carrier's books hold under a label's id, or were sold by its rate."""
    return len([each for each in world.sandbox.carrier.labels.values() if each.reference == str(label["id"])])


class TestLostLease:
    async def test_late_refusal_ends_no_label_that_another_finds(self, world: World, gate: Gate) -> None:
        """For a write of what became of a label without a look at the lease: the label would be failed, and is paid for."""
        order_id = await a_rated_order(world)
        await buy(world, order_id)
        await gate.reached.wait()
        gate.trouble = Refused(422, "address_invalid", "An answer that a proxy made up")

        async with changed_meanwhile(world, (TAKEN_BY_ANOTHER, [order_id])):
            gate.opened.set()
        await world.change(LEASE_ENDS, order_id)

        label = await until(lambda: ended(world, order_id))
        assert (label["status"], sold(world, label)) == ("purchased", 1)

    async def test_silent_call_does_not_end_the_lease_of_another(self, world: World, gate: Gate) -> None:
        """For letting go of a label without a look at the lease: a third process would take it from the second."""
        order_id = await a_rated_order(world)
        await buy(world, order_id)
        await gate.reached.wait()
        gate.trouble = Refused(500, "api_error", "Something went wrong on our end")

        async with changed_meanwhile(world, (TAKEN_BY_ANOTHER, [order_id])):
            gate.opened.set()

        # What the late process knows of its call is written down all the same.
        called = "SELECT FROM fulfillment.provider_call_audit WHERE transaction_id = $1 AND operation = 'buy_label' AND status = 500"
        await until(lambda: _known(world, called, order_id))
        left = "SELECT lease_expires_at - now() > interval '30 minutes' AS much FROM fulfillment.shipment_labels WHERE order_id = $1"
        assert (await world.rows(left, order_id))[0]["much"]
        await world.change(LEASE_ENDS, order_id)
        assert (await until(lambda: ended(world, order_id)))["status"] == "purchased"

    async def test_lease_is_renewed_while_the_carrier_is_asked(self, world: World, gate: Gate) -> None:
        """For leases that are never renewed: the resolver would take a label whose call is still out."""
        order_id = await a_rated_order(world)
        await buy(world, order_id)
        await gate.reached.wait()
        first = await the_label(world, order_id)

        async def renewed() -> Any:
            row = await the_label(world, order_id)
            return row if row["lease_expires_at"] > first["lease_expires_at"] else None

        kept = await until(renewed)
        gate.opened.set()

        assert (kept["lease_token"], kept["looks"]) == (first["lease_token"], 0)
        assert (await until(lambda: ended(world, order_id)))["status"] == "purchased"

    async def test_nothing_is_sent_once_the_lease_ran_out(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """For a call that goes out although its process stood still longer than its lease lasts: another may be at it."""
        order_id = await a_rated_order(world)
        calls = world.sandbox.calls.get("label", 0)
        # The process is frozen between the row that it read and the call, every time.
        monkeypatch.setattr(labels, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 3600))
        await buy(world, order_id)
        await until(lambda: _looked(world, order_id, 1))
        while_frozen = world.sandbox.calls.get("label", 0)

        monkeypatch.undo()
        await world.change(LEASE_ENDS, order_id)

        label = await until(lambda: ended(world, order_id))
        assert (while_frozen - calls, label["status"], sold(world, label)) == (0, "purchased", 1)


async def _known(world: World, called: str, order_id: UUID) -> Any:
    return await world.rows(called, (await the_label(world, order_id))["id"])


async def _looked(world: World, order_id: UUID, times: int) -> bool:
    rows = await world.rows(LEASE, order_id)
    return bool(rows) and (rows[0]["looks"] >= times or rows[0]["status"] != "buying")


class TestProofOfAbsence:
    def test_some_carriers_declare_a_wait(self) -> None:
        assert set(WAITS) == {"easypost", "shippo"}

    @pytest.mark.parametrize("carrier", list(WAITS))
    async def test_is_bought_again_after_the_wait_and_not_before(self, world: World, carrier: str) -> None:
        """For a resolver that does not wait: what a list does not show yet may have been bought, and would be bought twice."""
        order_id = await a_rated_order(world, carrier, shipping_address={**shop.MUNICH, "city": "Failing Once"})
        calls = world.sandbox.calls.get("label", 0)
        await buy(world, order_id)
        await until(lambda: _looked(world, order_id, 1))
        # A look is over when the next one has begun.
        for looks, seconds in ((2, WAITS[carrier] - 30), (3, 0.0)):
            await world.change(GROWN_OLD, order_id, seconds)
            await until(partial(_looked, world, order_id, looks))
        early = (await the_label(world, order_id), world.sandbox.calls["label"] - calls)

        await world.change(GROWN_OLD, order_id, 31.0)

        assert (early[0]["status"], early[1]) == ("buying", 1)
        assert (await until(lambda: ended(world, order_id)))["status"] == "purchased"
        assert world.sandbox.calls["label"] - calls == 2


PACKAGE = "SELECT * FROM fulfillment.shipment_packages WHERE order_id = $1 ORDER BY position"
PROJECTED = """
    UPDATE fulfillment.shipment_packages
       SET tracking = $3, tracking_status = $4, revision = $5
     WHERE (label_id, position) = ($1, $2)
"""
SEEN = "INSERT INTO fulfillment.tracking_events SELECT (jsonb_populate_record(NULL::fulfillment.tracking_events, $1::text::jsonb)).*"


class TestOlderRevision:
    async def _a_sight(self, world: World, order_id: UUID, position: int) -> tuple[list[Any], Any]:
        """Have a parcel delivered and undo it: gives what writes it again as another process would, and the parcel."""
        before = (await world.rows(PACKAGE, order_id))[position]
        await move(world, before["tracking_number"], "delivered", occurred_at=at(60))
        await until(lambda: seen_of(world, order_id, 1))
        after = (await world.rows(PACKAGE, order_id))[position]
        [event] = await world.rows(
            "SELECT to_jsonb(e)::text AS event FROM fulfillment.tracking_events e WHERE label_id = $1", after["label_id"]
        )
        await world.change("DELETE FROM fulfillment.tracking_events WHERE label_id = $1", after["label_id"])
        # Some carriers show the newest sight alone, so that this one is not learnt a second time.
        world.sandbox.carrier.parcel(before["tracking_number"])[1].scans.clear()
        key = (after["label_id"], position)
        await world.change(PROJECTED, *key, before["tracking"], before["tracking_status"], before["revision"])
        again = (PROJECTED, [*key, after["tracking"], after["tracking_status"], after["revision"]])
        return [again, (SEEN, [event["event"]])], before

    async def test_parcel_forgets_no_news_that_came_meanwhile(self, world: World) -> None:
        """For a parcel's place worked out of an older revision: delivered already, it would be on its way again."""
        order_id = await a_rated_order(world)
        await buy(world, order_id)
        await until(lambda: ended(world, order_id))
        await world.change("UPDATE fulfillment.shipment_labels SET is_return = true WHERE order_id = $1", order_id)
        delivered, parcel = await self._a_sight(world, order_id, 0)

        async with changed_meanwhile(world, *delivered):
            await move(world, parcel["tracking_number"], "in_transit", occurred_at=at(30))

        shown = await until(lambda: seen_of(world, order_id, 2))
        assert shown["parcels"][0]["status"] == "delivered"

    async def test_shipment_knows_of_both_its_parcels(self, world: World) -> None:
        """For a shipment's place worked out of an older revision: delivered as a whole, it would stay on its way for ever."""
        order_id = await a_rated_order(world, items=[{**MUG, "quantity": 4, "weight_grams": 9000}])
        await buy(world, order_id)
        await until(lambda: ended(world, order_id))
        delivered, _ = await self._a_sight(world, order_id, 0)
        other = (await world.rows(PACKAGE, order_id))[1]
        moved_on = "UPDATE fulfillment.shipments SET tracking_revision = tracking_revision + 1 WHERE order_id = $1"

        async with changed_meanwhile(world, *delivered, (moved_on, [order_id])):
            await move(world, other["tracking_number"], "delivered", occurred_at=at(30))

        await until(lambda: seen_of(world, order_id, 2))
        [row] = await world.rows("SELECT tracking_status FROM fulfillment.shipments WHERE order_id = $1", order_id)
        assert ((await tracking(world, order_id))["status"], row["tracking_status"]) == ("delivered", "delivered")

    async def test_tax_is_recorded_of_what_is_paid_at_the_time(self, world: World) -> None:
        """For a sale worked out of an older revision of its order: it would be recorded although the payment is gone."""
        order_id = await shop.an_order(world)
        snapshot_id = (await ok(await shop.quote(world, order_id)))["snapshot_id"]
        await shop.pay(world, order_id, snapshot_id)
        known = "UPDATE fulfillment.orders_known SET revision = revision + 1 WHERE order_id = $1"
        gone = "UPDATE fulfillment.order_payments SET status = 'voided', captured_amount = 0, version = version + 1 WHERE order_id = $1"

        async with changed_meanwhile(world, (known, [order_id]), (gone, [order_id])):
            finalizing = asyncio.create_task(shop.finalize_as_it_is(world, order_id, snapshot_id))
        await finalizing

        documents = (await ok(await world.send("GET", f"/api/v1/admin/orders/{order_id}/tax")))["documents"]
        assert documents == []
