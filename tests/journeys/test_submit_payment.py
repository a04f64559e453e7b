"""The old way: quote if needed, authorize and capture in one request, each step an operation of its own."""

from uuid import UUID

from shared.ids import new_id
from tests.world import ORDER, TOTAL, Answer, World, until


async def _submit(world: World, order_id: UUID, method: str = "tok_success", **how: object) -> Answer:
    path = f"/api/v1/checkout/orders/{order_id}/submit-payment"
    return await world.send("POST", path, {"payment_method": method}, **how)  # type: ignore[arg-type]


class TestSubmitPayment:
    async def test_quotes_authorizes_and_captures(self, world: World) -> None:
        order_id = await world.an_order()

        answer = await _submit(world, order_id)

        assert (answer.status, answer.json["result"], answer.json["intent"]["captured_amount"]) == (201, "captured", TOTAL)
        assert set(answer.json["operations"]) == {"quote", "authorize", "capture"}
        assert answer.headers["Deprecation"].startswith("@")
        assert answer.headers["Sunset"]
        await world.books_agree(order_id)

    async def test_each_step_is_an_operation_of_its_own(self, world: World) -> None:
        order_id = await world.an_order()
        answer = await _submit(world, order_id)

        whole = await world.operation(f"/api/v1/operations/{answer.headers['Operation-Id']}")
        step = await world.operation(f"/api/v1/operations/{answer.json['operations']['capture']}")

        assert [s["type"] for s in whole["steps"]] == ["payments.quote.v1", "payments.authorize.v1", "payments.capture.v1"]
        assert (step["status"], step["response"]["status"]) == ("completed", 201)

    async def test_replays_byte_for_byte(self, world: World) -> None:
        order_id, key = await world.an_order(), new_id().hex
        first = await _submit(world, order_id, key=key)

        again = await _submit(world, order_id, key=key)

        assert again.content == first.content
        await world.books_agree(order_id)

    async def test_authorized_and_not_captured_is_an_answer_of_its_own(self, world: World) -> None:
        order_id = await world.an_order()

        answer = await _submit(world, order_id, "tok_capture_declined")

        assert (answer.status, answer.json["result"]) == (201, "authorized_not_captured")
        assert answer.json["capture_problem"]["decline_code"] == "capture_declined"

    async def test_a_decline_is_the_wholes_decline(self, world: World) -> None:
        order_id = await world.an_order()

        answer = await _submit(world, order_id, "tok_declined_lost_card")

        assert (answer.status, answer.code, answer.json["decline_code"]) == (402, "payment-declined", "lost_card")

    async def test_a_customer_who_must_act_is_told_so(self, world: World) -> None:
        order_id = await world.an_order()

        answer = await _submit(world, order_id, "tok_3ds")

        assert (answer.status, answer.json["result"]) == (201, "requires_action")
        assert answer.json["intent"]["next_action"]["url"]

    async def test_goes_on_by_itself_after_the_caller_has_left(self, world: World) -> None:
        order_id = await world.an_order()
        answer = await _submit(world, order_id, "tok_timeout_after_success", headers={"Prefer": "respond-async"})
        assert answer.status == 202

        async def captured() -> bool:
            return bool((await world.ledger(order_id))["order_status"] == "paid")

        assert await until(captured)
        await world.books_agree(order_id)

    async def test_refuses_an_order_that_is_not_there(self, world: World) -> None:
        answer = await _submit(world, new_id())

        assert answer.status == 404

    async def test_refuses_a_changed_order(self, world: World) -> None:
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)
        await world.put_order(order_id, {**ORDER, "shipping_amount": 5})

        body = {"payment_method": "tok_success", "snapshot_id": snapshot_id}
        answer = await world.send("POST", f"/api/v1/checkout/orders/{order_id}/submit-payment", body)

        assert (answer.status, answer.code) == (409, "order-changed")
