"""The shopper can go on: another card after an abandoned 3DS, the capture after a passed one, and orders with nothing to pay."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from deploy.sandbox.books import Refused
from services.gateway.domain import Role
from shared.ids import new_id
from tests.reconciler.books import a_run, drift
from tests.world import MUG, ORDER, TOTAL, Answer, Payment, Place, World, a_world, patiently, until


@pytest.fixture(scope="module", params=["sandbox", "stripe"])
async def world(place: Place, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    # A payment that waits is not looked at by itself, so that nothing but what the shopper does brings it on.
    async with a_world(place, provider=request.param, payments={"customer_look_seconds": 3600}) as made:
        yield made


def _theirs(world: World, order_id: UUID) -> list[Any]:
    return [p for p in world.sandbox.books.payments.values() if p.order_id == str(order_id)]


def _held(world: World, order_id: UUID) -> list[int]:
    return [p.held for p in _theirs(world, order_id) if p.held]


async def _waiting(world: World) -> Payment:
    return await world.a_payment("tok_3ds")


async def _again(payment: Payment, method: str = "tok_success", **how: Any) -> Answer:
    world = payment.world
    return await world.authorize(payment.order_id, await world.a_snapshot(payment.order_id), method, role=Role.CHECKOUT, **how)


async def _statuses(world: World, order_id: UUID) -> list[str]:
    return [p["intent"]["status"] for p in (await world.ledger(order_id))["payments"]]


class TestAnotherCard:
    """F11, C20: https://github.com/stripe/stripe-ios/issues/1897, https://github.com/woocommerce/woocommerce-gateway-stripe/issues/2950."""

    async def test_ends_the_payment_that_waits_and_pays(self, world: World) -> None:
        payment = await _waiting(world)

        answer = await _again(payment)

        assert (answer.status, answer.json["intent"]["status"]) == (201, "authorized")
        assert await _statuses(world, payment.order_id) == ["voided", "authorized"]
        first = payment.at_the_provider()
        assert (first.released, _held(world, payment.order_id)) == (True, [TOTAL])
        assert world.sandbox.books.decide(first, passed=True).held == 0
        await world.books_agree(payment.order_id)

    async def test_its_history_says_why(self, world: World) -> None:
        payment = await _waiting(world)
        await _again(payment)

        void = next(t for t in await payment.transactions() if t["operation"] == "void")
        ledger = await world.ledger(payment.order_id)

        assert (void["status"], void["reason"]) == ("succeeded", "replaced")
        assert [(h["from_status"], h["to_status"]) for h in ledger["history"]][1:] == [
            ("open", "payment_pending"),
            ("payment_pending", "open"),
            ("open", "payment_pending"),
            ("payment_pending", "authorized"),
        ]

    async def test_again_and_again(self, world: World) -> None:
        payment = await _waiting(world)
        for _ in range(3):
            assert (await _again(payment, "tok_3ds")).json["intent"]["status"] == "requires_action"

        answer = await _again(payment)

        assert answer.status == 201
        assert await _statuses(world, payment.order_id) == ["voided"] * 4 + ["authorized"]
        assert _held(world, payment.order_id) == [TOTAL]

    async def test_what_was_approved_meanwhile_is_the_answer(self, world: World) -> None:
        payment = await _waiting(world)
        world.sandbox.books.decide(payment.at_the_provider(), passed=True)

        answer = await _again(payment)

        assert (answer.status, answer.json["intent"]["id"], answer.json["intent"]["status"]) == (201, str(payment.id), "authorized")
        assert len(_theirs(world, payment.order_id)) == 1
        await world.books_agree(payment.order_id)

    async def test_what_was_approved_for_another_amount_is_told(self, world: World) -> None:
        payment = await _waiting(world)
        world.sandbox.books.decide(payment.at_the_provider(), passed=True)
        # As if it had been quoted with another way to ship.
        await world.change("UPDATE payments.payment_intents SET requested_amount = requested_amount - 1 WHERE id = $1", payment.id)

        answer = await _again(payment)

        assert (answer.status, answer.code, answer.json["status"]) == (409, "payment-already-active", 409)
        assert (answer.json["intent_id"], answer.json["payment_status"]) == (str(payment.id), "authorized")
        assert _held(world, payment.order_id) == [TOTAL]

    async def test_what_was_declined_meanwhile_is_not_in_the_way(self, world: World) -> None:
        payment = await _waiting(world)
        world.sandbox.books.decide(payment.at_the_provider(), passed=False)

        answer = await _again(payment)

        assert answer.status == 201
        assert await _statuses(world, payment.order_id) == ["declined", "authorized"]

    async def test_two_tabs_at_once_hold_once(self, world: World) -> None:
        payment = await _waiting(world)
        snapshot_id = await world.a_snapshot(payment.order_id)
        keys = [new_id().hex for _ in range(8)]

        answers = await asyncio.gather(*(patiently(partial(world.authorize, payment.order_id, snapshot_id, key=key)) for key in keys))

        assert sorted(a.status for a in answers) == [201] + [409] * 7
        assert {a.code for a in answers if a.status == 409} == {"payment-already-active"}
        assert _held(world, payment.order_id) == [TOTAL]
        await world.books_agree(payment.order_id)

    async def test_the_same_key_gets_the_same_answer(self, world: World) -> None:
        payment = await _waiting(world)
        snapshot_id, key = await world.a_snapshot(payment.order_id), new_id().hex

        answers = await asyncio.gather(*(world.authorize(payment.order_id, snapshot_id, key=key) for _ in range(8)))

        assert {a.status for a in answers} == {201}
        assert len({a.content for a in answers}) == 1
        assert len(_theirs(world, payment.order_id)) == 2

    @pytest.mark.parametrize("weather", ["late", "silent"])
    async def test_no_new_hold_while_the_end_is_not_certain(self, world: World, weather: str) -> None:
        payment = await _waiting(world)
        snapshot_id, key = await world.a_snapshot(payment.order_id), new_id().hex
        world.sandbox.weather = {weather: 1.0}
        try:
            first = await world.authorize(payment.order_id, snapshot_id, key=key)
        finally:
            world.sandbox.weather = {}

        # A look or a repeat may find the end out, or bring it about, before the caller is answered.
        if first.status != 201:
            assert (first.status, first.code, first.json["retry"]) == (409, "outcome-unknown", "after")
            assert len(_theirs(world, payment.order_id)) == 1
        answer = await patiently(lambda: world.authorize(payment.order_id, snapshot_id, key=key))
        assert answer.status == 201
        assert _held(world, payment.order_id) == [TOTAL]
        await world.books_agree(payment.order_id)

    async def test_an_approval_beside_the_end_leaves_one_hold(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        payment = await _waiting(world)
        books, theirs = world.sandbox.books, payment.at_the_provider()
        void = books.void
        # The bank approves between our look and our cancel, which then lets go of what is held
        # (docs.stripe.com/api/payment_intents/cancel).
        monkeypatch.setattr(books, "void", lambda payment, body: void(books.decide(payment, passed=True), body))

        answer = await _again(payment)

        assert (answer.status, theirs.held) == (201, 0)
        assert _held(world, payment.order_id) == [TOTAL]
        await world.books_agree(payment.order_id)

    async def test_an_end_refused_for_an_approval_is_answered_with_it(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        payment = await _waiting(world)
        books, theirs = world.sandbox.books, payment.at_the_provider()

        def refuse(_: Any, __: Any) -> Any:
            books.decide(theirs, passed=True)
            code = "nothing_to_void" if world.provider == "sandbox" else "payment_intent_unexpected_state"
            raise Refused(400, code, "It was approved a moment ago.")

        monkeypatch.setattr(books, "void", refuse)
        answer = await _again(payment)

        assert (answer.status, answer.json["intent"]["id"]) == (201, str(payment.id))
        assert _held(world, payment.order_id) == [TOTAL]
        await world.books_agree(payment.order_id)

    async def test_a_bad_request_ends_nothing(self, world: World) -> None:
        payment = await _waiting(world)

        answer = await world.authorize(payment.order_id, str(new_id()))

        assert answer.status == 404
        assert (await payment.intent())["status"] == "requires_action"

    async def test_coming_back_from_the_bank_of_an_ended_one_is_told_so(self, world: World) -> None:
        payment = await _waiting(world)
        await _again(payment)

        answer = await payment.confirm()

        assert (answer.status, answer.code, answer.json["decline_code"]) == (409, "payment-not-executed", "released")

    @pytest.mark.parametrize("more", [{}, {"payment_method": "tok_success"}], ids=["no card", "a card"])
    async def test_a_way_to_ship_that_costs_nothing_ends_it_too(self, world: World, more: dict[str, Any]) -> None:
        """F11, C33: what waits is for a dearer way to ship the same order, which comes to nothing now."""
        payment = await _waiting(world)
        snapshot_id = await world.a_snapshot(payment.order_id)
        await world.change("UPDATE payments.order_checkout_snapshots SET total = 0 WHERE id = $1", UUID(snapshot_id))

        path = f"/api/v1/checkout/orders/{payment.order_id}/payments/authorize"
        answer = await world.send("POST", path, {"snapshot_id": snapshot_id, **more}, role=Role.CHECKOUT)

        assert (answer.status, answer.json["intent"]["status"], answer.json["intent"]["requested_amount"]) == (201, "captured", 0)
        first, second = (p["intent"] for p in (await world.ledger(payment.order_id))["payments"])
        assert (first["status"], first["superseded"], second["superseded"]) == ("voided", True, False)
        assert (await world.ledger(payment.order_id))["order_status"] == "paid"
        assert (payment.at_the_provider().released, len(_theirs(world, payment.order_id))) == (True, 1)

    async def test_a_cart_edit_is_told_which_payment_waits(self, world: World) -> None:
        """F11, C20: domain rule: what is priced is locked while a payment is active."""
        payment = await _waiting(world)

        answer = await world.put_order(payment.order_id, {**ORDER, "shipping_amount": 5})

        assert (answer.status, answer.code, answer.json["payment_status"]) == (409, "order-locked", "requires_action")
        assert answer.json["intent_id"] == str(payment.id)
        assert (await payment.void()).status == 201
        assert (await world.put_order(payment.order_id, {**ORDER, "shipping_amount": 5})).status == 200

    async def test_a_payment_that_is_held_is_not_ended(self, world: World) -> None:
        payment = await world.a_payment()

        answer = await _again(payment)

        assert (answer.status, answer.code, answer.json["payment_status"]) == (409, "payment-already-active", "authorized")


async def _submit(world: World, order_id: UUID, method: str = "tok_3ds", **how: Any) -> Answer:
    body = {"payment_method": method, "snapshot_id": await world.a_snapshot(order_id), "return_url": "https://shop.example/back"}
    return await world.send("POST", f"/api/v1/checkout/orders/{order_id}/submit-payment", how.pop("body", body), role=Role.CHECKOUT, **how)


async def _submitted(world: World) -> Payment:
    order_id = await world.an_order()
    answer = await _submit(world, order_id)
    assert (answer.status, answer.json["result"]) == (201, "requires_action")
    return Payment(world, order_id, UUID(answer.json["intent"]["id"]))


def _pass(payment: Payment) -> None:
    payment.world.sandbox.books.decide(payment.at_the_provider(), passed=True)


class TestSubmitted:
    """F12, C22: https://github.com/koala73/worldmonitor/issues/4440 (the return from the bank is never reconciled)."""

    async def test_confirming_goes_on_to_the_capture(self, world: World) -> None:
        payment = await _submitted(world)
        _pass(payment)

        answer = await payment.confirm(role=Role.CHECKOUT)

        assert (answer.status, answer.json["intent"]["status"], answer.json["intent"]["captured_amount"]) == (200, "captured", TOTAL)
        assert (await world.ledger(payment.order_id))["order_status"] == "paid"
        await world.books_agree(payment.order_id)

    async def test_confirming_again_tells_the_same(self, world: World) -> None:
        payment = await _submitted(world)
        _pass(payment)
        key = new_id().hex
        first = await payment.confirm(key=key)

        same, other = await payment.confirm(key=key), await payment.confirm()

        assert same.content == first.content
        assert (other.status, other.json["intent"]["status"]) == (200, "captured")
        assert [t["operation"] for t in await payment.transactions()] == ["authorize", "capture"]

    async def test_confirming_twice_at_once_captures_once(self, world: World) -> None:
        payment = await _submitted(world)
        _pass(payment)

        answers = await asyncio.gather(*(patiently(partial(payment.confirm, key=key)) for key in ("a", "b", "c", "d", "e")))

        assert {a.status for a in answers} == {200}
        assert [t["operation"] for t in await payment.transactions()] == ["authorize", "capture"]
        await world.books_agree(payment.order_id)

    async def test_confirming_too_early_waits_on(self, world: World) -> None:
        payment = await _submitted(world)
        early = await payment.confirm()
        _pass(payment)

        answer = await payment.confirm()

        assert (early.json["intent"]["status"], answer.json["intent"]["status"]) == ("requires_action", "captured")

    async def test_the_same_submit_again_goes_on(self, world: World) -> None:
        order_id, key = await world.an_order(), new_id().hex
        body = {
            "payment_method": "tok_3ds",
            "snapshot_id": await world.a_snapshot(order_id),
            "return_url": "https://shop.example/back",
        }
        first = await _submit(world, order_id, key=key, body=body)
        early = await _submit(world, order_id, key=key, body=body)
        _pass(Payment(world, order_id, UUID(first.json["intent"]["id"])))

        answer = await _submit(world, order_id, key=key, body=body)

        assert (first.json["result"], early.json["result"]) == ("requires_action", "requires_action")
        assert (answer.status, answer.json["result"], answer.json["intent"]["captured_amount"]) == (201, "captured", TOTAL)
        assert (await _submit(world, order_id, key=key, body=body)).content == answer.content
        await world.books_agree(order_id)

    async def test_a_declined_bank_answers_the_same_submit(self, world: World) -> None:
        order_id, key = await world.an_order(), new_id().hex
        body = {
            "payment_method": "tok_3ds",
            "snapshot_id": await world.a_snapshot(order_id),
            "return_url": "https://shop.example/back",
        }
        first = await _submit(world, order_id, key=key, body=body)
        payment = Payment(world, order_id, UUID(first.json["intent"]["id"]))
        world.sandbox.books.decide(payment.at_the_provider(), passed=False)

        answer = await _submit(world, order_id, key=key, body=body)

        assert (answer.status, answer.code) == (402, "payment-declined")

    async def test_another_submit_finds_it_approved_and_captures(self, world: World) -> None:
        payment = await _submitted(world)
        _pass(payment)

        answer = await _submit(world, payment.order_id, "tok_success")

        assert (answer.status, answer.json["result"], answer.json["intent"]["id"]) == (201, "captured", str(payment.id))
        assert len(_theirs(world, payment.order_id)) == 1
        await world.books_agree(payment.order_id)

    async def test_another_submit_takes_another_card(self, world: World) -> None:
        payment = await _submitted(world)

        answer = await _submit(world, payment.order_id, "tok_success")

        assert (answer.status, answer.json["result"]) == (201, "captured")
        assert await _statuses(world, payment.order_id) == ["voided", "captured"]
        await world.books_agree(payment.order_id)

    async def test_an_authorize_after_a_submit_finds_it_captured(self, world: World) -> None:
        payment = await _submitted(world)
        _pass(payment)

        answer = await _again(payment)

        assert (answer.status, answer.json["intent"]["id"], answer.json["intent"]["status"]) == (201, str(payment.id), "captured")
        await world.books_agree(payment.order_id)

    async def test_a_capture_that_is_declined_leaves_the_hold(self, world: World) -> None:
        payment = await _submitted(world)
        _pass(payment)
        payment.at_the_provider().payment_method = "tok_capture_declined"

        answer = await payment.confirm()

        assert (answer.status, answer.json["decline_code"], answer.json["intent_status"]) == (402, "capture_declined", "authorized")
        assert _held(world, payment.order_id) == [TOTAL]

    @pytest.mark.parametrize("whose", ["the same", "another"])
    async def test_a_submit_whose_capture_is_declined_is_told_that_it_is_held(self, world: World, whose: str) -> None:
        """F12: after 3DS as without it, authorized and not captured is a result of its own (tests/journeys/test_submit_payment.py)."""
        order_id, key = await world.an_order(), new_id().hex
        body = {"payment_method": "tok_3ds", "snapshot_id": await world.a_snapshot(order_id), "return_url": "https://shop.example/back"}
        payment = Payment(world, order_id, UUID((await _submit(world, order_id, key=key, body=body)).json["intent"]["id"]))
        _pass(payment)
        payment.at_the_provider().payment_method = "tok_capture_declined"

        how = {"key": key, "body": body} if whose == "the same" else {"method": "tok_success"}
        answer = await _submit(world, order_id, **how)

        assert (answer.status, answer.json["result"]) == (201, "authorized_not_captured")
        assert (answer.json["intent"]["id"], answer.json["intent"]["status"]) == (str(payment.id), "authorized")
        assert answer.json["capture_problem"]["decline_code"] == "capture_declined"
        assert [t["operation"] for t in await payment.transactions()] == ["authorize", "capture"]

    async def test_whoever_does_not_wait_reads_at_the_operation_that_the_customer_must_act(self, world: World) -> None:
        """F12: its answer is not kept with the key, and whoever asked with `Prefer: respond-async` hears it all the same."""
        order_id, key, later = await world.an_order(), new_id().hex, {"Prefer": "respond-async"}
        body = {"payment_method": "tok_3ds", "snapshot_id": await world.a_snapshot(order_id), "return_url": "https://shop.example/back"}
        location = (await _submit(world, order_id, key=key, body=body, headers=later)).response.headers["Location"]

        async def heard() -> Any:
            operation = await world.operation(location)
            return operation if operation["response"] else None

        first = await until(heard)
        payment = Payment(world, order_id, UUID(first["response"]["body"]["intent"]["id"]))
        _pass(payment)
        assert (first["status"], first["response"]["status"], first["response"]["body"]["result"]) == (
            "requires_action",
            201,
            "requires_action",
        )
        assert first["response"]["body"]["intent"]["next_action"]["url"]
        await _submit(world, order_id, key=key, body=body, headers=later)

        async def ended() -> Any:
            operation = await world.operation(location)
            return operation if operation["status"] == "completed" else None

        assert (await until(ended))["response"]["body"]["result"] == "captured"

    @pytest.mark.parametrize("weather", ["late", "silent", "busy"])
    async def test_trouble_on_the_way_is_got_over(self, world: World, weather: str) -> None:
        payment, key = await _submitted(world), new_id().hex
        _pass(payment)
        world.sandbox.weather = {weather: 1.0}
        try:
            first = await payment.confirm(key=key, headers={"Prefer": "wait=1"})
        finally:
            world.sandbox.weather = {}

        answer = await patiently(lambda: payment.confirm(key=key), timeout_seconds=40)

        assert first.status in (200, 202)
        assert (answer.status, answer.json["intent"]["captured_amount"]) == (200, TOTAL)
        assert [t["operation"] for t in await payment.transactions()] == ["authorize", "capture"]
        await world.books_agree(payment.order_id)

    async def test_what_is_only_authorized_is_not_captured(self, world: World) -> None:
        payment = await _waiting(world)
        _pass(payment)

        answer = await payment.confirm()

        assert (answer.status, answer.json["intent"]["status"]) == (200, "authorized")

    async def test_one_without_3ds_is_captured_by_whoever_submitted_it(self, world: World) -> None:
        order_id = await world.an_order()
        answer = await _submit(world, order_id, "tok_success")

        assert (answer.status, answer.json["result"]) == (201, "captured")
        wanted = await world.rows("SELECT capture_wanted FROM payments.payment_intents WHERE order_id = $1", order_id)
        assert [row["capture_wanted"] for row in wanted] == [False]


FREE = {**ORDER, "items": [{**MUG, "unit_price": 0}]}


async def _free(world: World, **changes: Any) -> UUID:
    return await world.an_order(**{**FREE, **changes})


async def _paid_free(world: World) -> Payment:
    order_id = await _free(world)
    answer = await world.authorize(order_id, await world.a_snapshot(order_id), role=Role.CHECKOUT)
    assert answer.status == 201, answer
    return Payment(world, order_id, UUID(answer.json["intent"]["id"]))


class TestNothingToPay:
    """C33: https://github.com/polarsource/polar/issues/8801, https://github.com/duncanmcclean/simple-commerce/issues/821."""

    async def test_authorizing_pays_without_a_provider(self, world: World) -> None:
        order_id, calls = await _free(world), dict(world.sandbox.calls)

        answer = await world.authorize(order_id, await world.a_snapshot(order_id), role=Role.CHECKOUT)

        intent = answer.json["intent"]
        assert (answer.status, intent["status"], intent["captured_amount"], intent["attention"]) == (201, "captured", 0, None)
        assert answer.json["transaction"]["status"] == "succeeded"
        assert (world.sandbox.calls, _theirs(world, order_id)) == (calls, [])

    async def test_its_history_says_so(self, world: World) -> None:
        payment = await _paid_free(world)

        ledger = await world.ledger(payment.order_id)
        timeline = (await world.send("GET", f"/api/v1/admin/orders/{payment.order_id}/timeline")).json
        told = await world.rows("SELECT count(*) AS told FROM payments.payment_transactions WHERE payment_intent_id = $1", payment.id)

        assert ledger["order_status"] == "paid"
        assert [(h["from_status"], h["to_status"]) for h in ledger["history"]] == [(None, "open"), ("open", "paid")]
        assert "nothing to pay" in ledger["history"][-1]["reason"]
        assert "authorize succeeded" in [each["title"] for each in timeline["entries"]]
        assert told[0]["told"] == 1
        await world.books_agree(payment.order_id)

    @pytest.mark.parametrize("body", [{}, {"payment_method": "tok_success"}], ids=["no card", "a card"])
    async def test_submitting_pays(self, world: World, body: dict[str, Any]) -> None:
        order_id = await _free(world)

        answer = await world.send("POST", f"/api/v1/checkout/orders/{order_id}/submit-payment", body, role=Role.CHECKOUT)

        assert (answer.status, answer.json["result"]) == (201, "captured")
        assert (await world.ledger(order_id))["order_status"] == "paid"

    async def test_a_discount_of_everything_is_nothing_to_pay(self, world: World) -> None:
        gift = {**MUG, "quantity": 1, "unit_price": 500, "adjustments": [{"label": "Gift card", "amount": 500}]}
        order_id = await world.an_order(items=[gift])

        answer = await world.authorize(order_id, await world.a_snapshot(order_id))

        assert (answer.status, answer.json["intent"]["status"]) == (201, "captured")

    async def test_paying_twice_is_refused_and_repeating_is_not(self, world: World) -> None:
        order_id, key = await _free(world), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)

        answers = await asyncio.gather(*(world.authorize(order_id, snapshot_id, key=key) for _ in range(5)))
        other = await world.authorize(order_id, snapshot_id)

        assert len({a.content for a in answers}) == 1
        assert (other.status, other.code, other.json["payment_status"]) == (409, "payment-already-active", "captured")

    async def test_two_at_once_pay_once(self, world: World) -> None:
        order_id = await _free(world)
        snapshot_id = await world.a_snapshot(order_id)

        answers = await asyncio.gather(*(world.authorize(order_id, snapshot_id) for _ in range(5)))

        assert sorted(a.status for a in answers) == [201, 409, 409, 409, 409]

    @pytest.mark.parametrize("operation", ["capture", "void", "refund"])
    async def test_there_is_nothing_to_move(self, world: World, operation: str) -> None:
        payment = await _paid_free(world)

        answer = await getattr(payment, operation)()

        assert (answer.status, answer.code, answer.json["payment_status"]) == (409, "invalid-payment-state", "captured")
        assert "nothing to pay" in answer.json["detail"]

    async def test_confirming_tells_how_it_stands(self, world: World) -> None:
        payment = await _paid_free(world)

        answer = await payment.confirm()

        assert (answer.status, answer.json["intent"]["status"]) == (200, "captured")

    async def test_its_price_is_locked(self, world: World) -> None:
        payment = await _paid_free(world)

        answer = await world.put_order(payment.order_id, ORDER)

        assert (answer.status, answer.code, answer.json["payment_status"]) == (409, "order-locked", "captured")
        assert (await world.put_order(payment.order_id, {**FREE, "customer_id": str(new_id())})).status == 200
        assert (await world.ledger(payment.order_id))["order_status"] == "paid"

    async def test_it_can_be_cancelled_and_reopened(self, world: World) -> None:
        payment = await _paid_free(world)

        cancelled = await world.put_order(payment.order_id, {**FREE, "cancelled": True})
        refused = await world.quote(payment.order_id)
        reopened = await world.put_order(payment.order_id, FREE)

        assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
        assert (refused.status, refused.code) == (409, "order-cancelled")
        assert (reopened.status, reopened.json["status"]) == (200, "paid")
        history = (await world.ledger(payment.order_id))["history"]
        assert [h["to_status"] for h in history] == ["open", "paid", "cancelled", "paid"]

    async def test_something_to_pay_needs_a_payment_method(self, world: World) -> None:
        order_id = await world.an_order()
        body = {"snapshot_id": await world.a_snapshot(order_id)}

        answer = await world.send("POST", f"/api/v1/checkout/orders/{order_id}/payments/authorize", body)

        assert (answer.status, answer.code, answer.json["field"]) == (422, "invalid-request", "$.payment_method")
        assert (await world.ledger(order_id))["payments"] == []


class TestReturnUrl:
    """Red team, case 68: what the customer's browser is sent to is an http address in one line."""

    @pytest.mark.parametrize("path", ["payments/authorize", "submit-payment"])
    async def test_an_address_for_no_browser_is_refused(self, world: World, path: str) -> None:
        order_id = await world.an_order()
        body = {"payment_method": "tok_3ds", "snapshot_id": await world.a_snapshot(order_id)}
        for url in ("https://shop.example/\r\nSet-Cookie: a=b", "https://user@shop.example/", "https://shöp.example/", "https://127.1/"):
            answer = await world.send("POST", f"/api/v1/checkout/orders/{order_id}/{path}", {**body, "return_url": url})

            assert (answer.status, answer.code, answer.json["field"]) == (422, "invalid-request", "$.return_url")
        assert (await world.ledger(order_id))["payments"] == []


@pytest.fixture(scope="module", params=["sandbox", "stripe"])
async def told_world(second_place: Place, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A world whose provider tells, and nobody else asks."""
    payments = {"customer_look_seconds": 3600}
    async with a_world(second_place, provider=request.param, payments=payments, webhooks={}, reconciler={}) as made:
        yield made


class TestToldByWebhook:
    async def test_an_approval_goes_on_to_the_capture(self, told_world: World) -> None:
        """F12: nobody comes back from the bank; the webhook alone tells of it."""
        payment = await _submitted(told_world)
        _pass(payment)

        async def paid() -> bool:
            return bool((await told_world.ledger(payment.order_id))["order_status"] == "paid")

        assert await until(paid)
        await told_world.books_agree(payment.order_id)
        assert (await payment.confirm()).json["intent"]["status"] == "captured"

    async def test_an_approval_beside_another_card_leaves_one_hold(self, told_world: World) -> None:
        """F11: the bank approves, its webhook comes, and the shopper takes another card, all at once."""
        payments = [await _waiting(told_world) for _ in range(6)]
        snapshots = [await told_world.a_snapshot(payment.order_id) for payment in payments]

        async def approve(payment: Payment) -> None:
            _pass(payment)

        async def pay(payment: Payment, snapshot_id: str) -> Answer:
            key = new_id().hex
            return await patiently(lambda: told_world.authorize(payment.order_id, snapshot_id, key=key))

        both = [asyncio.gather(pay(p, snapshot_id), approve(p)) for p, snapshot_id in zip(payments, snapshots, strict=True)]
        answers = [answer for answer, _ in await asyncio.gather(*both)]

        assert {(a.status, a.json.get("code")) for a in answers} <= {(201, None), (409, "payment-already-active")}
        for payment in payments:
            assert _held(told_world, payment.order_id) == [TOTAL]
            await told_world.books_agree(payment.order_id)

    async def test_a_merchant_is_told_of_a_free_order_and_no_book_differs(self, told_world: World) -> None:
        """C33: events as of any payment; a provider's books do not have it, which is no difference."""
        payment = await _paid_free(told_world)

        async def told() -> list[str]:
            events = (await told_world.send("GET", "/api/v1/events")).json["events"]
            return [e["type"] for e in events if e["order_id"] == str(payment.order_id)]

        assert await until(told) == ["payment.captured"]
        assert (await a_run(told_world))["drift_found"] == 0
        assert await drift(told_world) == []
