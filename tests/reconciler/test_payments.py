"""Payments reconciled over the API: every way books can drift is found, none is invented, the healable heals."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.reconciler.books import a_run, brief, drift, make_drift
from tests.world import Payment, Place, World, a_world


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    # Nobody is told of anything: whatever heals, heals by reconciling.
    async with a_world(place, reconciler={}) as made:
        yield made


async def dashboard(world: World, payment: Payment, kind: str, **body: Any) -> None:
    """Something is done at the provider without us."""
    answer = await world.http.post(f"{world.sandbox.base_url}/control/payments/{payment.at_the_provider().id}/{kind}", json=body)
    assert answer.status_code == 200, answer.text


async def test_books_that_agree_have_no_drift(world: World) -> None:
    payment = await world.a_captured_payment()
    await payment.refund(1000)
    await (await world.a_payment()).void()
    await world.authorize(order := await world.an_order(), await world.a_snapshot(order), "tok_declined_insufficient_funds")
    waiting = await world.a_payment("tok_3ds")

    run = await a_run(world)

    assert (run["compared"] >= 4, run["drift_found"], run["last_error"]) == (True, 0, None)
    assert await drift(world) == []
    assert (await waiting.intent())["status"] == "requires_action"


async def test_what_happened_in_the_dashboard_is_learnt(world: World) -> None:
    payment = await world.a_captured_payment()
    held = await world.a_payment()
    waiting = await world.a_payment("tok_3ds")
    await dashboard(world, payment, "refund", amount=2500)
    await dashboard(world, held, "void")
    await dashboard(world, waiting, "approve")

    run = await a_run(world)

    found = await drift(world, run_id=run["id"])
    assert sorted(brief(found)) == [
        ("missing_locally", "refund", "healed"),
        ("missing_locally", "void", "healed"),
        ("status", "authorize", "healed"),
    ]
    assert (run["drift_found"], run["drift_healed"]) == (3, 3)
    assert (await payment.intent())["refunded_amount"] == 2500
    assert (await held.intent())["status"] == "voided"
    assert (await waiting.intent())["status"] == "authorized"
    refund = next(t for t in await payment.transactions() if t["operation"] == "refund")
    assert refund["source"] == "reconciliation"
    await world.books_agree(payment.order_id)


async def test_what_cannot_be_healed_is_one_difference_and_holds_up_no_other(world: World) -> None:
    """F6: the provider gives one name to two refunds, which the ledger takes once."""
    twice = [await world.a_captured_payment() for _ in range(2)]
    for payment in twice:
        await dashboard(world, payment, "refund", amount=100)
    first, second = (payment.at_the_provider().operations[-1] for payment in twice)
    second.id = first.id
    other = await world.a_captured_payment()
    await dashboard(world, other, "refund", amount=300)

    run = await a_run(world)

    found = await drift(world, run_id=run["id"])
    assert sorted(brief(found)) == [
        ("missing_locally", "refund", "healed"),
        ("missing_locally", "refund", "healed"),
        ("missing_locally", "refund", "open"),
    ]
    assert (await other.intent())["refunded_amount"] == 300
    assert await world.rows("SELECT FROM payments.inbox WHERE state = 'parked'") == []
    [left] = [item for item in found if item["status"] == "open"]
    second.id = f"ref_{left['id']}"
    payment = next(each for each in twice if each.at_the_provider().id == left["key"])
    payment.at_the_provider().operations[-1].id = second.id
    await a_run(world)
    assert [(await each.intent())["refunded_amount"] for each in twice] == [100, 100]


async def test_a_refund_that_failed_and_a_dispute_that_turned_unheard_are_learnt(world: World) -> None:
    """C05, C18 (F4, F14): nothing was told of either; the books say it."""
    payment, disputed = await world.a_captured_payment(), await world.a_captured_payment()
    assert (await payment.refund(2500)).status == 201
    await dashboard(world, payment, "refund_fail")
    for status in ("needs_response", "won", "lost"):
        await dashboard(world, disputed, "dispute", status=status, amount=4000)

    run = await a_run(world)

    found = sorted(brief(await drift(world, run_id=run["id"])))
    lost = ("missing_locally", "chargeback", "healed")
    assert found == [lost, lost, ("missing_locally", "chargeback_reversal", "healed"), ("status", "refund", "healed")]
    assert ((await payment.intent())["status"], (await payment.intent())["refunded_amount"]) == ("captured", 0)
    assert (await disputed.intent())["charged_back_amount"] == 4000
    for each in (payment, disputed):
        await world.books_agree(each.order_id)
    again = await a_run(world)
    assert await drift(world, run_id=again["id"]) == []


async def test_a_refund_that_is_pending_on_both_sides_hides_nothing(world: World) -> None:
    """C06: what is pending for days is no difference, and no reason to overlook one."""
    payment = await world.a_captured_payment()
    await dashboard(world, payment, "refund", amount=100, status="pending")
    await a_run(world)
    assert (await payment.intent())["refund_reserved"] == 100
    await make_drift(world, "payments", payment.at_the_provider().id, forget=True)

    run = await a_run(world)

    assert brief(await drift(world, run_id=run["id"])) == [("missing_at_provider", "", "open")]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"forget": True}, ("missing_at_provider", "")),
        ({"kind": "capture", "forget": True}, ("missing_at_provider", "capture")),
        ({"kind": "capture", "amount": 9000}, ("amount", "capture")),
        ({"kind": "capture", "status": "declined"}, ("status", "capture")),
        ({"kind": "capture", "duplicate": True}, ("duplicate", "capture")),
        ({"duplicate": True}, ("duplicate", "")),
    ],
    ids=["payment gone", "capture gone", "other amount", "capture declined", "captured twice", "paid twice"],
)
async def test_what_no_observation_can_mend_waits_with_its_evidence(world: World, how: Any, expected: tuple[str, str]) -> None:
    payment = await world.a_captured_payment()
    known = payment.at_the_provider()
    ledger = await world.ledger(payment.order_id)
    made = await make_drift(world, "payments", known.id, **how)

    first = await a_run(world)
    second = await a_run(world)

    found = [item for item in await drift(world, status="open") if item["key"] == made["id"]]
    assert brief(found) == [(*expected, "open")]
    item = found[0]
    assert (item["first_run_id"], item["last_run_id"]) == (first["id"], second["id"])
    assert item["ours"] or item["theirs"]
    assert item["order_id"] == str(payment.order_id)
    # A finding that waits changes nothing of ours.
    assert await world.ledger(payment.order_id) == ledger


async def test_another_currency_is_found_on_every_operation(world: World) -> None:
    payment = await world.a_captured_payment()
    await make_drift(world, "payments", payment.at_the_provider().id, currency="USD")

    await a_run(world)

    found = [item for item in await drift(world, status="open") if item["order_id"] == str(payment.order_id)]
    assert sorted(brief(found)) == [("currency", "authorize", "open"), ("currency", "capture", "open")]
    assert {(item["ours"]["currency"], item["theirs"]["currency"]) for item in found} == {("EUR", "USD")}


async def test_a_payment_that_we_do_not_know_is_found_unless_it_came_to_nothing(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.sandbox.api_key}"}
    made = []
    for token in ("tok_success", "tok_declined_do_not_honor"):
        body = {"amount": 700, "currency": "EUR", "payment_method": token}
        answer = await world.http.post(f"{world.sandbox.base_url}/v1/payments", json=body, headers={**headers, "Idempotency-Key": token})
        made.append(answer.json()["id"])

    await a_run(world)

    found = [item for item in await drift(world, status="open") if item["key"] in made]
    assert [(item["key"], item["type"], item["theirs"]["amount"]) for item in found] == [(made[0], "missing_locally", 700)]


async def test_a_difference_that_is_no_more_is_settled_by_the_next_run(world: World) -> None:
    payment = await world.a_captured_payment()
    known = payment.at_the_provider()
    await make_drift(world, "payments", known.id, kind="capture", amount=1)
    await a_run(world)
    await make_drift(world, "payments", known.id, kind="capture", amount=10_000)

    await a_run(world)

    found = [item for item in await drift(world) if item["key"] == known.id]
    assert [(item["type"], item["status"], item["resolution"]) for item in found] == [("amount", "healed", "agrees")]


class TestAnOperator:
    async def test_accepts_a_difference_and_it_stays_settled(self, world: World) -> None:
        payment = await world.a_captured_payment()
        known = payment.at_the_provider()
        await make_drift(world, "payments", known.id, kind="capture", amount=9_999)
        await a_run(world)
        item = await self._item(world, known.id)

        reason = {"action": "accepted", "reason": "Their books are a cent off; ticket 17."}
        answer = await world.send("POST", f"/api/v1/admin/reconciliation/drift/{item['id']}/resolve", reason)
        await a_run(world)

        assert (answer.status, answer.json["status"], answer.json["actor"].split(":")[0]) == (200, "resolved", "admin")
        found = [each for each in await drift(world) if each["key"] == known.id]
        assert [(each["status"], each["reason"]) for each in found] == [("resolved", reason["reason"])]
        rows = await world.rows("SELECT * FROM reconciler.admin_audit WHERE subject = $1", item["id"])
        assert [(row["action"], row["reason"]) for row in rows] == [("drift.resolve", reason["reason"])]

    async def test_lets_our_books_learn_what_the_provider_says(self, world: World) -> None:
        payment = await world.a_captured_payment()
        known = payment.at_the_provider()
        await make_drift(world, "payments", known.id, kind="capture", amount=11_000)
        await a_run(world)
        item = await self._item(world, known.id)

        decided = {"action": "provider_is_right", "reason": "Their statement shows it."}
        answer = await world.send("POST", f"/api/v1/admin/reconciliation/drift/{item['id']}/resolve", decided)

        assert (answer.status, answer.json["resolution"]) == (200, "provider_is_right")
        intent = await payment.intent()
        assert (intent["captured_amount"], intent["status"]) == (11_000, "conflicted")

    async def test_cannot_settle_twice_nor_what_is_not_there(self, world: World) -> None:
        payment = await world.a_captured_payment()
        await make_drift(world, "payments", payment.at_the_provider().id, forget=True)
        await a_run(world)
        item = next(each for each in await drift(world, status="open") if each["order_id"] == str(payment.order_id))
        path = f"/api/v1/admin/reconciliation/drift/{item['id']}/resolve"

        taken = await world.send("POST", path, {"action": "provider_is_right", "reason": "x"})
        first = await world.send("POST", path, {"action": "accepted", "reason": "Refunded by hand."})
        second = await world.send("POST", path, {"action": "accepted", "reason": "Again."})

        # There is nothing that their word could put right.
        assert (taken.status, taken.code) == (409, "still-differs")
        assert (first.status, second.status, second.code) == (200, 409, "drift-settled")

    async def _item(self, world: World, key: str) -> Any:
        return next(each for each in await drift(world, status="open") if each["key"] == key)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "since"),
        ({"until": "2999-01-01T00:00:00Z"}, "until"),
        ({"provider": "nobody"}, "provider"),
    ],
)
async def test_a_run_that_makes_no_sense_is_refused(world: World, change: Any, field: str) -> None:
    await world.a_payment()
    body = {"domain": "payments", "provider": "sandbox", "since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", **change}

    answer = await world.send("POST", "/api/v1/admin/reconciliation/runs", body)

    assert (answer.status, answer.json["field"]) == (422, field)
