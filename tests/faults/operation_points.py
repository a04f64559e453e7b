"""A service is killed at every await of an operation that leaves the process, one after the other: the retry gets the true answer, once."""

from pathlib import Path
from typing import Any
from uuid import UUID

from shared.ids import new_id
from tests.faults.dying import Dying, Send
from tests.faults.nursery import Nursery
from tests.faults.system import System, a_system
from tests.world import Payment, Place, World, until

OPERATIONS = ["authorize", "confirm", "capture", "refund", "void"]
# What has to be among the points, or the wrapping no longer sees what leaves the process.
PAYMENTS_POINTS = ("before provider", "after provider", "before WITH", "after WITH", "publish to the reply queue", "before ack")
GATEWAY_POINTS = (
    "before WITH made AS ( INSERT INTO idempotency_keys",
    "before publish to tender.commands",
    "before UPDATE idempotency_keys",
)


async def die_at_every_point(
    nursery: Nursery, place: Place, folder: Path, *, victim: str, operation: str, wanted: tuple[str, ...], provider: str = "sandbox"
) -> None:
    """Kill the victim at each point of an operation; insist that the points wanted were among them."""
    async with a_system(nursery, place, folder, provider=provider, customer_look_seconds=3600) as (system, world):
        dying = DyingOperation(system, world, folder, victim, operation)
        points = await dying.points()

        for at in range(1, len(points) + 1):
            await dying.dies_at(at)

        await nothing_is_left_over(world)
    assert [want for want in wanted if not any(want in name for name in points)] == [], points


class DyingOperation(Dying):
    """An operation on a payment."""

    def __init__(self, system: System, world: World, folder: Path, victim: str, operation: str) -> None:
        super().__init__(system, world, folder, victim)
        self._operation = operation

    async def check(self, order_id: UUID, at: int) -> None:
        payments = [p for p in self.world.sandbox.books.payments.values() if p.order_id == str(order_id)]
        kind = {"confirm": "authorize", "another card": "authorize", "confirm submitted": "capture"}.get(self._operation, self._operation)
        ended = ["failed"] if self._operation == "another card" else []
        assert [o.status for p in payments for o in p.operations if o.kind == kind] == [*ended, "succeeded"], at
        await self.world.books_agree(order_id)

    async def prepared(self) -> tuple[UUID, Send]:
        world, key = self.world, new_id().hex
        if self._operation == "authorize":
            order_id = await world.an_order()
            snapshot_id = await world.a_snapshot(order_id)
            return order_id, lambda **how: world.authorize(order_id, snapshot_id, key=key, **how)
        if self._operation == "refund":
            payment: Payment = await world.a_captured_payment()
            return payment.order_id, lambda **how: payment.refund(4_000, key=key, **how)
        if self._operation == "confirm submitted":
            order_id = await world.an_order()
            body = {"payment_method": "tok_3ds", "snapshot_id": await world.a_snapshot(order_id)}
            submitted = await world.send("POST", f"/api/v1/checkout/orders/{order_id}/submit-payment", body)
            payment = Payment(world, order_id, UUID(submitted.json["intent"]["id"]))
            # The submit's own key would go on with it, and is not what is tried here.
            await world.change("DELETE FROM gateway.idempotency_keys WHERE status <> 'completed'")
            world.sandbox.books.decide(payment.at_the_provider(), passed=True)
            return order_id, lambda **how: payment.confirm(key=key, **how)
        waits = self._operation in ("confirm", "another card")
        payment = await world.a_payment("tok_3ds" if waits else "tok_success")
        if self._operation == "another card":
            snapshot_id = await world.a_snapshot(payment.order_id)
            return payment.order_id, lambda **how: world.authorize(payment.order_id, snapshot_id, key=key, **how)
        if self._operation == "confirm":
            world.sandbox.books.decide(payment.at_the_provider(), passed=True)
            return payment.order_id, lambda **how: payment.confirm(key=key, **how)
        if self._operation == "capture":
            return payment.order_id, lambda **how: payment.capture(4_000, key=key, **how)
        return payment.order_id, lambda **how: payment.void(key=key, **how)


async def nothing_is_left_over(world: World) -> None:
    """Insist that every command, key, event and outcome has found its end, and that nothing went to the dead letters."""

    async def clean() -> bool:
        row: Any = (
            await world.rows(
                """
                SELECT (SELECT count(*) FROM payments.inbox WHERE state <> 'done') AS commands,
                       (SELECT count(*) FROM payments.outbox) AS events,
                       (SELECT count(*) FROM gateway.idempotency_keys WHERE status <> 'completed') AS keys,
                       (SELECT count(*) FROM payments.payment_transactions WHERE status IN ('pending', 'unknown')) AS outcomes
                """
            )
        )[0]
        return not any(row.values())

    await until(clean)
