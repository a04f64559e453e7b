"""Every magic token's outcome, and what happens when the provider is silent, late, or says something else."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from deploy.sandbox.tokens import DECLINE_CODES, TOKENS
from services.gateway.domain import Role
from shared.ids import new_id
from tests.world import ORDER, TOTAL, Answer, Payment, Place, World, a_key, a_world, until

# Outcomes that a token reaches at once; the rest is told below, and the life of refunds in test_lives.py.
AUTHORIZED_AT_ONCE = (
    *("tok_success", "tok_slow", "tok_authorization_expires", "tok_dispute", "tok_void_timeout"),
    *("tok_refund_pending", "tok_refund_succeeds_later", "tok_refund_fails_later"),
)


class TestTokens:
    def test_each_is_told_in_this_file(self) -> None:
        source = Path(__file__).read_text()

        assert [token for token in TOKENS if token not in source and not token.startswith("tok_declined_")] == []

    @pytest.mark.parametrize("token", AUTHORIZED_AT_ONCE)
    async def test_is_authorized(self, world: World, token: str) -> None:
        payment = await world.a_payment(token)

        assert payment.at_the_provider().moved("authorize") == TOTAL

    @pytest.mark.parametrize("code", DECLINE_CODES)
    async def test_is_declined_with_its_reason_and_advice(self, world: World, code: str) -> None:
        order_id = await world.an_order()

        answer = await world.authorize(order_id, await world.a_snapshot(order_id), f"tok_declined_{code}")

        assert (answer.status, answer.code, answer.json["outcome"], answer.json["retry"]) == (
            402,
            "payment-declined",
            "declined",
            "new_method",
        )
        assert answer.json["decline_code"] == code
        assert answer.json["advice"]
        ledger = await world.ledger(order_id)
        assert (ledger["order_status"], ledger["payments"][0]["intent"]["status"]) == ("open", "declined")

    async def test_one_card_after_the_other_is_stopped(self, world: World) -> None:
        """Security report M14, row 98: whoever tries cards asks the provider a few times, and then no more for a while."""
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)

        answers = [await world.authorize(order_id, snapshot_id, "tok_declined_insufficient_funds") for _ in range(12)]

        assert [answer.status for answer in answers] == [402] * 10 + [429] * 2
        assert (answers[-1].code, answers[-1].json["retry"], answers[-1].headers["Retry-After"]) == ("too-many-declines", "after", "600")
        assert len([p for p in world.sandbox.books.payments.values() if p.order_id == str(order_id)]) == 10
        later = "UPDATE payments.payment_intents SET updated_at = updated_at - interval '10 minutes' WHERE order_id = $1"
        await world.change(later, order_id)
        assert (await world.authorize(order_id, snapshot_id)).status == 201

    async def test_card_trying_is_stopped_by_token_and_store(self, own_place: Place) -> None:
        """Security report M14, row 98: by the checkout token, and for all of a store, but no other's."""
        limits = {"declines_per_token_max": 2, "declines_per_store_max": 4}
        async with a_world(own_place, payments=limits) as world:
            order_id = await world.an_order()
            snapshot_id = await world.a_snapshot(order_id)
            token = (await world.send("POST", f"/api/v1/admin/orders/{order_id}/checkout-token")).json["token"]

            async def tried(key: str | None) -> tuple[int, str]:
                answer = await world.authorize(order_id, snapshot_id, "tok_declined_insufficient_funds", token=key)
                return answer.status, answer.json.get("of", "")

            by_token = [await tried(token) for _ in range(3)]
            by_key = [await tried(None) for _ in range(3)]
            asked = len([p for p in world.sandbox.books.payments.values() if p.order_id == str(order_id)])
            other = await a_key(own_place, new_id(), Role.ADMIN)
            await world.put_order(order_id, ORDER, token=other)
            snapshot_id = (await world.quote(order_id, token=other)).json["snapshot_id"]
            elsewhere = await tried(other)

        assert (by_token, by_key) == ([(402, ""), (402, ""), (429, "token")], [(402, ""), (402, ""), (429, "store")])
        assert (asked, elsewhere) == (4, (402, ""))

    @pytest.mark.parametrize("token", ["tok_500_once", "tok_429_once"])
    async def test_a_passing_failure_ends_authorized(self, world: World, token: str) -> None:
        payment = await world.a_payment(token)

        assert (await payment.intent())["status"] == "authorized"
        await world.books_agree(payment.order_id)

    async def test_an_unknown_token_is_refused_and_proven_not_executed(self, world: World) -> None:
        order_id = await world.an_order()

        answer = await world.authorize(order_id, await world.a_snapshot(order_id), "tok_nonsense")

        assert (answer.status, answer.code, answer.json["decline_code"]) == (409, "payment-not-executed", "payment_method_unknown")

    async def test_capture_is_declined_and_the_authorization_stands(self, world: World) -> None:
        payment = await world.a_payment("tok_capture_declined")

        answer = await payment.capture()

        assert (answer.status, answer.json["decline_code"]) == (402, "capture_declined")
        intent = await payment.intent()
        assert (intent["status"], intent["capture_reserved"]) == ("authorized", 0)

    async def test_refund_is_declined_and_the_capture_stands(self, world: World) -> None:
        payment = await world.a_captured_payment("tok_refund_declined")

        answer = await payment.refund()

        assert (answer.status, answer.json["decline_code"]) == (402, "refund_declined")
        assert (await payment.intent())["refund_reserved"] == 0

    @pytest.mark.parametrize("token", ["tok_capture_500_once", "tok_capture_slow"])
    async def test_a_passing_failure_of_a_capture_captures_once(self, world: World, token: str) -> None:
        payment = await world.a_captured_payment(token)

        assert payment.at_the_provider().moved("capture") == TOTAL
        await world.books_agree(payment.order_id)

    async def test_a_passing_failure_of_a_refund_refunds_once(self, world: World) -> None:
        payment = await world.a_captured_payment("tok_refund_500_once")

        answer = await payment.refund()

        assert answer.status == 201
        await world.books_agree(payment.order_id)

    async def test_a_dispute_enters_the_ledger_as_a_chargeback(self, world: World) -> None:
        payment = await world.a_captured_payment("tok_dispute")

        intent = await payment.intent()

        assert (intent["status"], intent["charged_back_amount"]) == ("refunded", TOTAL)
        assert "chargeback" in [t["operation"] for t in await payment.transactions()]
        await world.books_agree(payment.order_id)


class TestCustomerAction:
    @pytest.mark.parametrize(("decision", "status"), [("pass", "authorized"), ("fail", "declined")])
    async def test_the_banks_page_decides(self, world: World, decision: str, status: str) -> None:
        payment = await world.a_payment("tok_3ds")
        intent = await payment.intent()
        assert (intent["status"], intent["next_action"]["type"]) == ("requires_action", "redirect")
        async with httpx.AsyncClient() as browser:
            page = await browser.get(intent["next_action"]["url"])
            assert "Approve" in page.text
            await browser.post(intent["next_action"]["url"], data={"decision": decision})

        answer = await payment.confirm()

        assert answer.status == (200 if decision == "pass" else 402)
        assert (await payment.intent())["status"] == status
        await world.books_agree(payment.order_id)

    async def test_confirming_too_early_still_waits(self, world: World) -> None:
        payment = await world.a_payment("tok_3ds")

        answer = await payment.confirm()

        assert (answer.status, answer.json["intent"]["status"]) == (200, "requires_action")
        assert answer.json["intent"]["next_action"]["url"]

    @pytest.mark.parametrize(("token", "status"), [("tok_3ds_passed", 200), ("tok_3ds_failed", 402)])
    async def test_the_token_decides_without_a_page(self, world: World, token: str, status: int) -> None:
        payment = await world.a_payment(token)

        answer = await payment.confirm()

        assert answer.status == status

    async def test_a_confirmation_answered_too_late_ends_authorized(self, world: World) -> None:
        payment = await world.a_payment("tok_3ds_timeout")

        answer = await payment.confirm()

        assert (answer.status, answer.json["intent"]["status"]) == (200, "authorized")
        assert payment.at_the_provider().moved("authorize") == TOTAL
        await world.books_agree(payment.order_id)

    async def test_confirming_again_tells_the_same(self, world: World) -> None:
        payment = await world.a_payment("tok_3ds_passed")
        await payment.confirm()

        answer = await payment.confirm()

        assert (answer.status, answer.json["intent"]["status"]) == (200, "authorized")

    async def test_a_waiting_payment_can_be_voided_and_the_order_paid_otherwise(self, world: World) -> None:
        payment = await world.a_payment("tok_3ds")

        answer = await payment.void()

        assert (answer.status, answer.json["intent"]["status"]) == (201, "voided")
        again = await world.authorize(payment.order_id, await world.a_snapshot(payment.order_id))
        assert again.status == 201

    async def test_a_payment_that_waits_for_nobody_cannot_be_confirmed(self, world: World) -> None:
        payment = await world.a_payment()

        answer = await payment.capture()
        confirmed = await payment.confirm()

        assert (answer.status, confirmed.status, confirmed.json["intent"]["status"]) == (201, 200, "captured")


class TestSilence:
    @pytest.mark.parametrize("token", ["tok_timeout_after_success", "tok_timeout_once"])
    async def test_one_charge_and_the_true_answer(self, world: World, token: str) -> None:
        order_id = await world.an_order()

        answer = await world.authorize(order_id, await world.a_snapshot(order_id), token)

        assert (answer.status, answer.json["intent"]["status"]) == (201, "authorized")
        assert [p.moved("authorize") for p in world.sandbox.books.payments.values() if p.order_id == str(order_id)] == [TOTAL]
        await world.books_agree(order_id)

    async def test_an_answer_after_the_wait_is_202_and_ends_right(self, world: World) -> None:
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)

        answer = await world.authorize(order_id, snapshot_id, "tok_timeout_after_success", headers={"Prefer": "wait=1"})

        assert (answer.status, answer.json["outcome"]) == (202, "unknown")
        assert await until(lambda: _status(world, order_id, "authorized"))
        await world.books_agree(order_id)

    async def test_holds_also_when_the_provider_forgets_keys(self, world: World) -> None:
        world.sandbox.books.check_keys = False
        try:
            payment = await world.a_payment("tok_timeout_after_success")
        finally:
            world.sandbox.books.check_keys = True

        assert payment.at_the_provider().moved("authorize") == TOTAL
        await world.books_agree(payment.order_id)

    @pytest.mark.parametrize("check_keys", [True, False])
    async def test_a_capture_happens_once(self, world: World, check_keys: bool) -> None:
        payment = await world.a_payment("tok_capture_timeout")
        world.sandbox.books.check_keys = check_keys
        try:
            answer = await payment.capture(6_000)
        finally:
            world.sandbox.books.check_keys = True

        assert (answer.status, answer.json["intent"]["captured_amount"]) == (201, 6_000)
        await world.books_agree(payment.order_id)

    async def test_a_void_happens_once(self, world: World) -> None:
        payment = await world.a_payment("tok_void_timeout")

        answer = await payment.void()

        assert (answer.status, answer.json["intent"]["status"]) == (201, "voided")

    async def test_a_refund_happens_once(self, world: World) -> None:
        payment = await world.a_captured_payment("tok_refund_timeout")

        answer = await payment.refund(2_500)

        assert (answer.status, answer.json["intent"]["refunded_amount"]) == (201, 2_500)
        await world.books_agree(payment.order_id)

    async def test_a_provider_that_never_answers_leaves_an_unknown_that_is_never_failed(self, world: World) -> None:
        order_id = await world.an_order()

        answer = await world.authorize(order_id, await world.a_snapshot(order_id), "tok_silent", headers={"Prefer": "wait=3"})

        assert answer.status == 202
        ledger = await world.ledger(order_id)
        assert ledger["payments"][0]["transactions"][0]["status"] in ("pending", "unknown")
        assert ledger["order_status"] == "payment_pending"

    async def test_a_capture_behind_an_unknown_one_resolves_it_first(self, world: World) -> None:
        payment = await world.a_payment("tok_capture_timeout")
        first = await payment.capture(4_000, headers={"Prefer": "respond-async"})
        await until(lambda: _has_unknown(world, payment))

        async def captured() -> Answer | None:
            answer = await payment.capture(4_000)
            return None if answer.status == 409 and answer.json["retry"] == "after" else answer

        second = await until(captured)

        assert (first.status, second.status) == (202, 201)
        assert payment.at_the_provider().moved("capture") == 8_000
        await world.books_agree(payment.order_id)

    async def test_a_payment_pending_at_the_bank_ends_when_the_bank_decides(self, world: World) -> None:
        order_id = await world.an_order()
        answer = await world.authorize(order_id, await world.a_snapshot(order_id), "tok_pending", headers={"Prefer": "wait=1"})
        assert answer.status == 202
        payment = next(p for p in world.sandbox.books.payments.values() if p.order_id == str(order_id))

        world.sandbox.books.decide(payment, passed=True)

        assert await until(lambda: _status(world, order_id, "authorized"))


async def _status(world: World, order_id: UUID, status: str) -> bool:
    payments = (await world.ledger(order_id))["payments"]
    return bool(payments) and payments[0]["intent"]["status"] == status


async def _has_unknown(world: World, payment: Payment) -> bool:
    return any(t["status"] == "unknown" for t in await payment.transactions()) or len(await payment.transactions()) == 2


class TestDisagreement:
    async def test_a_partial_approval_is_frozen_for_an_operator_who_can_release_it(self, world: World) -> None:
        order_id = await world.an_order()

        answer = await world.authorize(order_id, await world.a_snapshot(order_id), "tok_partial_approval")

        assert (answer.status, answer.code, answer.json["outcome"]) == (409, "provider-mismatch", "conflict")
        ledger = await world.ledger(order_id)
        intent = ledger["payments"][0]["intent"]
        assert (intent["status"], intent["authorized_amount"]) == ("conflicted", TOTAL // 2)
        payment = Payment(world, order_id, UUID(intent["id"]))
        assert (await payment.capture()).code == "invalid-payment-state"
        assert (await payment.void()).json["intent"]["status"] == "voided"

    async def test_an_authorization_that_lapses_is_seen_as_expired(self, world: World) -> None:
        payment = await world.a_payment("tok_authorization_expires")

        assert await until(lambda: _status(world, payment.order_id, "expired"))

        again = await world.authorize(payment.order_id, await world.a_snapshot(payment.order_id))
        assert again.status == 201

    async def test_the_rest_of_a_partial_capture_lapses(self, world: World) -> None:
        payment = await world.a_payment("tok_authorization_expires")
        await payment.capture(1_000)

        assert await until(lambda: _status(world, payment.order_id, "captured"))

        assert (await payment.intent())["voided_amount"] == TOTAL - 1_000

    async def test_the_rest_of_a_hold_lapses_after_a_refund_too(self, world: World) -> None:
        payment = await world.a_payment()
        await payment.capture(1_000)
        await payment.refund(400)
        payment.at_the_provider().authorization_expires_at = datetime.now(UTC).isoformat()
        expired = "UPDATE payments.payment_intents SET authorization_expires_at = now() WHERE id = $1"

        await world.change(expired, payment.id)

        async def released() -> bool:
            return bool((await payment.intent())["voided_amount"] == TOTAL - 1_000)

        await until(released)
        await world.books_agree(payment.order_id)
