"""Fulfillment killed at every await that leaves it: one label, found again; one void; tax recorded once, reversed once; quotes."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from shared.ids import new_id
from tests.faults.dying import Dying, Send
from tests.faults.nursery import Nursery
from tests.faults.system import System, a_system
from tests.fulfillment import shop
from tests.fulfillment.shop import an_order, ok, quote
from tests.world import Answer, Place, World, until

VICTIM = "fulfillment"
NEWS_SECONDS = 1.0
ANSWERED = ("before WITH", "after WITH", "publish to the reply queue", "before ack")
WANTED = {
    "label": (*ANSWERED, "before provider POST /v1/shipping/labels", "after provider POST /v1/shipping/labels"),
    "void": (*ANSWERED, "after provider POST /v1/shipping/labels/…/void"),
    "finalize": ANSWERED,
    "refund": ("before WITH", "after WITH", "before ack"),
    "quote": (*ANSWERED, "after provider POST /v1/shipping/rates"),
}


@pytest.mark.parametrize("operation", list(WANTED))
async def test_dying_at_any_point_costs_nothing(nursery: Nursery, own_place: Place, tmp_path: Path, operation: str) -> None:
    settings: dict[str, Any] = {"rates_timeout_seconds": 1.0, "pricing_timeout_seconds": 2.0}
    async with a_system(nursery, own_place, tmp_path, fulfillment=True, **settings) as (system, world):
        await shop.set_up(world, carriers=["sandbox"])
        ground = _Ground(system, world, tmp_path, operation)
        seen = await ground.points()

        for at in range(1, len(seen) + 1):
            await ground.dies_at(at)

        await _nothing_is_left_over(world)
    assert [want for want in WANTED[operation] if not any(want in name for name in seen)] == [], seen


class _Ground(Dying):
    """An operation of fulfillment."""

    def __init__(self, system: System, world: World, folder: Path, operation: str) -> None:
        super().__init__(system, world, folder, VICTIM)
        self._operation = operation

    async def prepared(self) -> tuple[UUID, Send]:
        world, key, buyer = self.world, new_id().hex, new_id()
        order_id = await an_order(world, shipping_address={**shop.MUNICH, "company_name": str(buyer)})
        if self._operation == "quote":
            return order_id, lambda **how: world.send("POST", "/api/v1/checkout/quote", {"order_id": order_id}, key=key, **how)
        snapshot = await ok(await quote(world, order_id, shipping_service="ground"))
        if self._operation in ("finalize", "refund"):
            await shop.pay(world, order_id, snapshot["snapshot_id"])
        if self._operation == "refund":
            await ok(await shop.finalize(world, order_id, snapshot["snapshot_id"]))
            return order_id, lambda **how: self._refunded(order_id, key, **how)
        if self._operation == "finalize":
            path, body = f"/api/v1/checkout/orders/{order_id}/tax/finalize", {"snapshot_id": snapshot["snapshot_id"]}
            return order_id, lambda **how: world.send("POST", path, body, key=key, **how)
        path = f"/api/v1/admin/orders/{order_id}/shipping/labels"
        if self._operation == "label":
            return order_id, lambda **how: world.send("POST", path, {}, key=key, **how)
        label = (await ok(await world.send("POST", path, {})))["label"]
        return order_id, lambda **how: world.send("POST", f"{path}/{label['id']}/void", key=key, **how)

    async def _refunded(self, order_id: UUID, key: str, **how: Any) -> Answer:
        """Refund a line; its news comes after the answer."""
        [payment] = (await self.world.ledger(order_id))["payments"]
        path = f"/api/v1/admin/orders/{order_id}/payments/{payment['intent']['id']}/refund"
        answer = await self.world.send("POST", path, {"lines": [{"line": 0, "amount": 298}]}, key=key, **how)
        await asyncio.sleep(NEWS_SECONDS)
        return answer

    async def check(self, order_id: UUID, at: int) -> None:
        world = self.world
        if self._operation == "finalize":
            recorded = (await ok(await world.send("GET", f"/api/v1/admin/orders/{order_id}/tax")))["documents"]
            assert [document["kind"] for document in recorded] == ["sale"], at
            return
        if self._operation == "refund":
            await until(lambda: shop.told(world, order_id))
            recorded = (await ok(await world.send("GET", f"/api/v1/admin/orders/{order_id}/tax")))["documents"]
            assert [(document["kind"], len(document["lines"])) for document in recorded] == [("sale", 2), ("reversal", 1)], at
            return
        if self._operation == "quote":
            return
        # A void whose answer was lost is "requested" until it is asked about again.
        expected = "purchased" if self._operation == "label" else "refunded"
        await until(lambda: self._stand(order_id, expected))
        labels = await self._labels(order_id)
        theirs = [label for label in world.sandbox.carrier.labels.values() if label.reference in {each["id"] for each in labels}]
        assert [label.status for label in theirs] == [expected], at
        assert [p.tracking_number for p in theirs[0].parcels] == labels[0]["tracking_numbers"], at
        if self._operation == "void":
            seen = (await ok(await world.send("GET", f"/api/v1/checkout/orders/{order_id}/shipping/tracking")))["parcels"]
            assert [[event["status"] for event in parcel["events"]] for parcel in seen] == [["cancelled"]], at
        # Nobody bought one under a name that we do not know.
        assert len(world.sandbox.carrier.labels) == await _known(world), at

    async def _labels(self, order_id: UUID) -> list[Any]:
        listed = await ok(await self.world.send("GET", f"/api/v1/admin/shipments?order_id={order_id}"))
        return [label for shipment in listed["shipments"] for label in shipment["labels"]]

    async def _stand(self, order_id: UUID, status: str) -> bool:
        return [label["status"] for label in await self._labels(order_id)] == [status]


async def _known(world: World) -> int:
    rows = await world.rows("SELECT count(*) AS count FROM fulfillment.shipment_labels WHERE provider_label_id IS NOT NULL")
    return int(rows[0]["count"])


async def _nothing_is_left_over(world: World) -> None:
    async def clean() -> bool:
        rows = await world.rows(
            """
            SELECT (SELECT count(*) FROM fulfillment.inbox WHERE state <> 'done') AS commands,
                   (SELECT count(*) FROM fulfillment.outbox) AS events,
                   (SELECT count(*) FROM gateway.idempotency_keys WHERE status <> 'completed') AS keys,
                   (SELECT count(*) FROM fulfillment.shipment_labels WHERE status IN ('buying', 'void_requested')) AS labels
            """
        )
        return not any(rows[0].values())

    await until(clean)
