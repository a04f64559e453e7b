"""A process is killed at every await that leaves it, one after the other: the retry gets the true answer, once."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

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


# Where a provider is asked for several things in a row (F11, F12), which does not depend on whom.
SEVERAL_STEPS = ["another card", "confirm submitted"]
CASES = [
    *(("payments", "sandbox", PAYMENTS_POINTS, operation) for operation in [*OPERATIONS, *SEVERAL_STEPS]),
    *(("gateway", "sandbox", GATEWAY_POINTS, operation) for operation in OPERATIONS),
    *(("payments", "stripe", PAYMENTS_POINTS, operation) for operation in OPERATIONS),
]


@pytest.mark.parametrize(("victim", "provider", "wanted", "operation"), CASES, ids=[f"{case[0]}-{case[1]}-{case[3]}" for case in CASES])
async def test_dying_at_any_point_costs_nothing(
    nursery: Nursery, own_place: Place, tmp_path: Path, victim: str, provider: str, wanted: tuple[str, ...], operation: str
) -> None:
    async with a_system(nursery, own_place, tmp_path, provider=provider, customer_look_seconds=3600) as (system, world):
        ground = _Ground(system, world, tmp_path, victim, operation)
        seen = await ground.points()

        for at in range(1, len(seen) + 1):
            await ground.dies_at(at)

        await _nothing_is_left_over(world)
    assert [want for want in wanted if not any(want in name for name in seen)] == [], seen


class _Ground(Dying):
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


async def test_dying_while_facts_are_accepted(nursery: Nursery, own_place: Place, tmp_path: Path) -> None:
    """F10: an operator's word is taken and written down once."""
    async with a_system(nursery, own_place, tmp_path) as (system, world):
        ground = _Accepting(system, world, tmp_path, "payments")
        seen = await ground.points()
        # Up to its only write; the way back is that of the operations above.
        written = 1 + next(at for at, name in enumerate(seen) if name.startswith("after WITH"))

        for at in range(1, written + 1):
            await ground.dies_at(at)

        await _nothing_is_left_over(world)


class _Accepting(Dying):
    """The facts of a payment of which half was approved."""

    async def prepared(self) -> tuple[UUID, Send]:
        world, key = self.world, new_id().hex
        order_id = await world.an_order()
        answer = await world.authorize(order_id, await world.a_snapshot(order_id), "tok_partial_approval")
        assert answer.code == "provider-mismatch"
        payment = Payment(world, order_id, UUID(answer.json["intent_id"]))
        body = {"version": (await payment.intent())["version"], "reason": "half of it will do"}
        path = f"/api/v1/admin/orders/{order_id}/payments/{payment.id}/accept"
        return order_id, lambda **how: world.send("POST", path, body, key=key, **how)

    async def check(self, order_id: UUID, at: int) -> None:
        [payment] = (await self.world.ledger(order_id))["payments"]
        assert (payment["intent"]["status"], payment["intent"]["attention"]) == ("authorized", None), at
        sql = "SELECT reason FROM payments.admin_audit WHERE action = 'payment.accept' AND subject = $1"
        assert [row["reason"] for row in await self.world.rows(sql, payment["intent"]["id"])] == ["half of it will do"], at


async def _nothing_is_left_over(world: World) -> None:
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
