"""The cases of Kill Bill's payment tests, as journeys of ours (its TestPaymentApi, TestJanitor and janitor tests; see each)."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.gateway.domain import Role
from shared.ids import new_id
from tests.world import TOTAL, Payment, Place, World, a_world, patiently, until

OPERATIONS = ("capture", "void", "refund", "confirm")
IN_DOUBT = {"Prefer": "wait=1"}


@pytest.fixture(scope="module", params=["sandbox", "stripe"])
async def world(place: Place, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with a_world(place, provider=request.param) as made:
        yield made


class TestKeyReuse:
    """TestPaymentApi: testAddRemovePaymentWithSameKey and its kin; killbill #639 and #660."""

    async def test_after_success_is_the_same_payment(self, world: World) -> None:
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)
        first = await world.authorize(order_id, snapshot_id, key=key)

        again = await world.authorize(order_id, snapshot_id, key=key)
        other = await world.authorize(order_id, snapshot_id, "tok_slow", key=key)

        assert (again.status, again.content) == (201, first.content)
        assert (other.status, other.code) == (422, "idempotency-key-reused")
        await world.books_agree(order_id)

    async def test_after_failure_tells_the_failure_and_a_new_key_pays(self, world: World) -> None:
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)
        first = await world.authorize(order_id, snapshot_id, "tok_declined_insufficient_funds", key=key)

        again = await world.authorize(order_id, snapshot_id, "tok_declined_insufficient_funds", key=key)
        anew = await world.authorize(order_id, snapshot_id)

        assert (first.status, again.status, again.content) == (402, 402, first.content)
        assert anew.status == 201
        assert sum(p.moved("authorize") for p in world.sandbox.books.payments.values() if p.order_id == str(order_id)) == TOTAL

    async def test_while_unknown_joins_and_gets_the_true_answer(self, world: World) -> None:
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)
        token = "tok_timeout_after_success"
        first = await world.authorize(order_id, snapshot_id, token, key=key, headers=IN_DOUBT)

        again = await world.authorize(order_id, snapshot_id, token, key=key)

        assert (first.status, again.status) == (202, 201)
        assert [p.moved("authorize") for p in world.sandbox.books.payments.values() if p.order_id == str(order_id)] == [TOTAL]
        await world.books_agree(order_id)

    async def test_of_a_capture_while_unknown_captures_once(self, world: World) -> None:
        payment, key = await world.a_payment("tok_capture_timeout"), new_id().hex
        first = await payment.capture(4_000, key=key, headers=IN_DOUBT)

        again = await payment.capture(4_000, key=key)

        assert (first.status, again.status) == (202, 201)
        assert payment.at_the_provider().moved("capture") == 4_000
        await world.books_agree(payment.order_id)


class TestInDoubt:
    """TestJanitor: testUnknownEntries, testPendingEntries; IncompletePaymentTransactionTask."""

    @pytest.mark.parametrize("token", ["tok_timeout_after_success", "tok_timeout_once"])
    async def test_an_unknown_authorization_can_be_completed(self, world: World, token: str) -> None:
        order_id = await world.an_order()
        in_doubt = await world.authorize(order_id, await world.a_snapshot(order_id), token, headers=IN_DOUBT)
        payment = await until(lambda: _payment_of(world, order_id))

        captured = await patiently(lambda: payment.capture(key=f"complete {order_id}"))

        assert (in_doubt.status, captured.status, captured.json["intent"]["status"]) == (202, 201, "captured")
        await world.books_agree(order_id)

    async def test_a_capture_of_the_same_money_behind_one_that_may_have_happened_is_refused(self, world: World) -> None:
        payment = await world.a_payment("tok_capture_timeout")
        first = await payment.capture(TOTAL, headers=IN_DOUBT)

        second = await patiently(lambda: payment.capture(TOTAL, key=f"second {payment.id}"))

        assert (first.status, second.status, second.code) == (202, 409, "invalid-payment-state")
        assert payment.at_the_provider().moved("capture") == TOTAL
        await world.books_agree(payment.order_id)

    async def test_a_void_behind_a_capture_that_may_have_happened_releases_only_the_rest(self, world: World) -> None:
        payment = await world.a_payment("tok_capture_timeout")
        await payment.capture(4_000, headers=IN_DOUBT)

        voided = await patiently(lambda: payment.void(key=f"the rest of {payment.id}"))

        await world.books_agree(payment.order_id)
        if world.provider == "stripe":
            # There the rest goes with the last capture.
            assert (voided.status, voided.code) == (422, "unsupported-by-provider")
            voided = await payment.capture(1_000, final=True)
        intent, captured = voided.json["intent"], 5_000 if world.provider == "stripe" else 4_000
        assert (voided.status, intent["captured_amount"], intent["voided_amount"]) == (201, captured, TOTAL - captured)

    @pytest.mark.parametrize(("token", "waited"), [("tok_timeout_after_success", 202), ("tok_capture_timeout", 202)])
    async def test_a_purchase_that_times_out_ends_bought_once(self, world: World, token: str, waited: int) -> None:
        order_id, key = await world.an_order(), new_id().hex
        path, body = f"/api/v1/checkout/orders/{order_id}/submit-payment", {"payment_method": token}
        first = await world.send("POST", path, body, key=key, role=Role.CHECKOUT, headers=IN_DOUBT)

        again = await patiently(lambda: world.send("POST", path, body, key=key, role=Role.CHECKOUT))

        assert (first.status, again.status, again.json["result"]) == (waited, 201, "captured")
        assert [p.moved("capture") for p in world.sandbox.books.payments.values() if p.order_id == str(order_id)] == [TOTAL]
        await world.books_agree(order_id)

    async def test_the_status_is_found_by_reading(self, world: World) -> None:
        order_id = await world.an_order()
        await world.authorize(order_id, await world.a_snapshot(order_id), "tok_pending", headers=IN_DOUBT)
        theirs = next(p for p in world.sandbox.books.payments.values() if p.order_id == str(order_id))
        before = (await world.ledger(order_id))["payments"][0]["transactions"][0]["status"]

        world.sandbox.books.decide(theirs, passed=False)

        assert before == "pending"
        ledger = await until(lambda: _with_status(world, order_id, "declined"))
        assert ledger["order_status"] == "open"
        assert ledger["payments"][0]["transactions"][0]["decline_code"] == "authentication_failed"


class TestTransitions:
    """TestPaymentApi: testInvalidTransitionAfterFailure, testInvalidTransitionAfterSuccess."""

    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_after_a_failure_are_refused(self, world: World, operation: str) -> None:
        order_id = await world.an_order()
        await world.authorize(order_id, await world.a_snapshot(order_id), "tok_declined_do_not_honor")
        payment = await _payment_of(world, order_id)
        assert payment is not None

        answer = await getattr(payment, operation)()

        # Confirming what has ended tells how it ended.
        assert (answer.status, answer.code) == ((402, "payment-declined") if operation == "confirm" else (409, "invalid-payment-state"))
        assert len(await payment.transactions()) == 1

    @pytest.mark.parametrize(
        ("done", "operation"), [("void", "capture"), ("void", "refund"), ("void", "void"), ("capture", "void"), ("capture", "capture")]
    )
    async def test_after_the_end_are_refused(self, world: World, done: str, operation: str) -> None:
        payment = await world.a_payment()
        assert (await getattr(payment, done)()).status == 201

        answer = await getattr(payment, operation)()

        assert (answer.status, answer.json["outcome"]) == (409, "conflict")
        assert len(await payment.transactions()) == 2


async def _payment_of(world: World, order_id: Any) -> Payment | None:
    payments = (await world.ledger(order_id))["payments"]
    return Payment(world, order_id, payments[0]["intent"]["id"]) if payments else None


async def _with_status(world: World, order_id: Any, status: str) -> Any:
    ledger = await world.ledger(order_id)
    return ledger if ledger["payments"][0]["intent"]["status"] == status else None
