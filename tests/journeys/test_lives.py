"""Refunds and disputes live on after they were answered: what the provider says later, and whoever made them, through the whole system.

Refunds: docs.stripe.com/refunds (pending while the balance does not cover them, failed and cancelled after they succeeded), cards
4000000000007726 and 4000000000005126 of docs.stripe.com/testing. Disputes: docs.stripe.com/disputes/how-disputes-work.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from deploy.sandbox.faces import stripe_objects
from deploy.sandbox.webhooks import Moods
from tests.webhooks.test_ingest import once_more, post
from tests.world import TOTAL, Answer, Payment, Place, World, a_world, patiently, until

AT_ONCE = {"Prefer": "wait=0"}


@pytest.fixture(scope="module", params=["sandbox", "stripe"])
async def world(place: Place, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with a_world(place, webhooks={}, provider=request.param) as made:
        yield made


async def at_the_provider(payment: Payment, kind: str, **body: Any) -> None:
    """Something happens in the provider's dashboard, or at the bank."""
    sandbox = payment.world.sandbox.base_url
    answer = await payment.world.http.post(f"{sandbox}/control/payments/{payment.at_the_provider().id}/{kind}", json=body)
    assert answer.status_code == 200, answer.text


async def comes(condition: Callable[[], Awaitable[dict[str, Any]]], **facts: Any) -> dict[str, Any]:
    """Wait until some facts are so."""

    async def so() -> dict[str, Any] | None:
        now = await condition()
        return now if {name: now.get(name) for name in facts} == facts else None

    found: dict[str, Any] = await until(so)
    return found


async def order_comes(payment: Payment, status: str) -> None:
    assert await comes(lambda: payment.world.ledger(payment.order_id), order_status=status)


async def refunds(payment: Payment) -> list[tuple[str, int, str | None]]:
    return [(t["status"], t["amount"], t["decline_code"]) for t in await payment.transactions() if t["operation"] == "refund"]


async def a_pending_refund(world: World, amount: int, *, captured: int | None = None) -> Payment:
    """A refund of ours that its provider has and does not carry out yet."""
    payment = await world.a_payment("tok_refund_pending")
    assert (await payment.capture(captured)).status == 201
    answer = await payment.refund(amount, headers=AT_ONCE)
    assert answer.status == 202, answer
    await accepted(payment, 1)
    return payment


async def accepted(payment: Payment, count: int) -> None:
    async def so() -> bool:
        known = [t for t in await payment.transactions() if t["operation"] == "refund" and t["provider_txn_id"] is not None]
        return len(known) == count

    await until(so)


async def told(world: World, payment: Payment, kind: str) -> list[Any]:
    """What the merchant is told of this kind."""
    found: list[Any] = []

    async def so() -> list[Any]:
        answer = await world.send("GET", "/api/v1/events?limit=100")
        while answer.json["events"]:
            found.extend(e for e in answer.json["events"] if e["type"] == kind and e["order_id"] == str(payment.order_id))
            answer = await world.send("GET", f"/api/v1/events?limit=100&after={answer.json['events'][-1]['id']}")
        return found

    await until(so)
    return found


class TestRefundsThatFail:
    @pytest.mark.parametrize(("end", "code"), [("refund_fail", "expired_or_canceled_card"), ("refund_cancel", "merchant_request")])
    async def test_after_it_succeeded_the_money_is_refundable_again(self, world: World, end: str, code: str) -> None:
        """C05 (F4): the row failed, the amount is back, the order is paid again, and the merchant is told."""
        payment = await world.a_captured_payment()
        first = await payment.refund()
        await order_comes(payment, "refunded")

        await at_the_provider(payment, end)

        intent = await comes(payment.intent, status="captured", refunded_amount=0, refund_reserved=0, attention=None)
        assert await refunds(payment) == [("failed", TOTAL, code)]
        await order_comes(payment, "paid")
        [event] = await told(world, payment, "payment.refund_failed")
        assert event["data"]["order_status"] == "paid"
        assert event["data"]["payment"]["version"] == intent["version"]
        expected = {"transaction_id": first.json["transaction"]["id"], "amount": TOTAL, "decline_code": code}
        assert event["data"]["failed_refunds"] == [expected]
        again = await payment.refund()
        assert (again.status, again.json["intent"]["status"]) == (201, "refunded")
        await world.books_agree(payment.order_id)

    @pytest.mark.parametrize("method", ["tok_refund_fails_later", "pm_card_refundFail"])
    async def test_by_itself_a_while_later(self, world: World, method: str) -> None:
        """C05: card 4000000000005126, whose refund succeeds and then fails."""
        if world.provider == "sandbox" and method.startswith("pm_"):
            method = "tok_refund_fails_later"
        payment = await world.a_captured_payment(method)
        assert (await payment.refund(400)).json["transaction"]["status"] == "succeeded"

        await comes(payment.intent, status="captured", refunded_amount=0)

        await world.books_agree(payment.order_id)

    async def test_late_and_repeated_news_change_nothing(self, world: World) -> None:
        """C05: every event of its life once more, in the reverse order, as a provider may send them again after days."""
        payment = await a_pending_refund(world, 400)
        await at_the_provider(payment, "refund_succeed")
        await comes(payment.intent, refunded_amount=400)
        await at_the_provider(payment, "refund_fail")
        before = await comes(payment.intent, refunded_amount=0, refund_reserved=0)

        for each in reversed([t for t in world.outgoing.events.values() if payment.at_the_provider().id.encode() in t.body]):
            assert (await post(world, once_more(each), direct=True)).status == 200

        await all_processed(world)
        assert await payment.intent() == before
        assert await refunds(payment) == [("failed", 400, "expired_or_canceled_card")]

    async def test_one_whose_success_was_never_heard(self, world: World) -> None:
        """C06: pending, then failed or cancelled; in between everything was lost."""
        payment = await a_pending_refund(world, TOTAL)
        moods, world.outgoing.moods = world.outgoing.moods, Moods(lost=1.0)
        await at_the_provider(payment, "refund_succeed")
        world.outgoing.moods = moods

        await at_the_provider(payment, "refund_fail")

        await comes(payment.intent, status="captured", refunded_amount=0, refund_reserved=0)
        await order_comes(payment, "paid")
        assert (await payment.refund(1)).status in (201, 202)

    async def test_one_that_fails_at_once_was_declined(self, world: World) -> None:
        payment = await world.a_captured_payment("tok_refund_declined")

        answer = await payment.refund()

        assert (answer.status, answer.code, answer.json["decline_code"]) == (402, "payment-declined", "refund_declined")
        assert [e["data"]["failed_refunds"][0]["amount"] for e in await told(world, payment, "payment.refund_failed")] == [TOTAL]
        assert (await payment.intent())["refund_reserved"] == 0


async def all_processed(world: World) -> None:
    async def so() -> bool:
        rows = await world.rows("SELECT FROM webhooks.webhook_events WHERE status NOT IN ('processed', 'ignored')")
        return not rows

    await until(so)


class TestRefundsThatArePending:
    async def test_reserve_their_amount_and_nothing_else_waits(self, world: World) -> None:
        """C06 (F5): captures, other refunds and voids go on for days beside it."""
        payment = await a_pending_refund(world, 400, captured=5_000)
        assert (await payment.intent())["refund_reserved"] == 400

        captured, second = await payment.capture(2_000), await payment.refund(100, headers=AT_ONCE)
        await comes(payment.intent, refund_reserved=500)
        too_much = await patiently(lambda: payment.refund(6_501))

        assert (captured.status, second.status) == (201, 202)
        assert (too_much.status, too_much.code, too_much.json["available"]) == (409, "amount-exceeds-available", 6_500)
        await comes(payment.intent, captured_amount=7_000, refund_reserved=500)
        if world.provider == "sandbox":
            assert (await payment.void()).json["intent"]["voided_amount"] == 3_000
        else:
            assert (await payment.capture(3_000, final=True)).status == 201
        await world.books_agree(payment.order_id)

    async def test_are_answered_when_their_provider_says_so(self, world: World) -> None:
        payment = await a_pending_refund(world, 400)
        key = "pending " + str(payment.id)
        answer = await payment.refund(200, key=key, headers=AT_ONCE)
        assert answer.status == 202
        await accepted(payment, 2)

        await at_the_provider(payment, "refund_succeed")
        await comes(payment.intent, refunded_amount=200, refund_reserved=400)
        done = await until(lambda: answered(lambda: payment.refund(200, key=key)))

        assert (done.status, done.json["transaction"]["status"], done.json["transaction"]["amount"]) == (201, "succeeded", 200)
        await world.books_agree(payment.order_id)

    async def test_stay_pending_whatever_a_look_at_them_meets(self, world: World) -> None:
        """C06: a provider that is silent for a while does not make them unknown, nor anything wait for them."""
        payment = await a_pending_refund(world, 400)
        key, world.sandbox.api_key = world.sandbox.api_key, "another"
        await looked_at_again(payment)
        world.sandbox.api_key = key

        assert (await refunds(payment))[0][0] == "pending"
        assert (await payment.refund(100, headers=AT_ONCE)).status == 202

    async def test_from_the_dashboard_are_neither_unknown_nor_undone(self, world: World) -> None:
        """C07 (F5): it bears no reference of ours; it is found by its own name, looked at, and succeeds or fails days later."""
        payment = await world.a_captured_payment()
        await at_the_provider(payment, "refund", amount=700, status="pending")
        await comes(payment.intent, refund_reserved=700)
        await looked_at_again(payment, age="3 days")  # Absence would long be proof.

        assert await refunds(payment) == [("pending", 700, None)]
        assert (await payment.refund(300)).status == 201
        await at_the_provider(payment, "refund_succeed")

        intent = await comes(payment.intent, status="partially_refunded", refunded_amount=1_000, refund_reserved=0)
        assert intent["attention"] is None
        await world.books_agree(payment.order_id)


async def looked_at_again(payment: Payment, *, age: str = "0") -> None:
    """Have the resolver look at a refund."""
    [refund] = [t["id"] for t in await payment.transactions() if t["operation"] == "refund"]
    await payment.world.change(
        "UPDATE payments.payment_transactions SET created_at = created_at - $2::text::interval, next_look_at = now() WHERE id = $1",
        refund,
        age,
    )

    async def so() -> bool:
        [row] = await payment.world.rows("SELECT next_look_at > now() AS done FROM payments.payment_transactions WHERE id = $1", refund)
        return bool(row["done"])

    await until(so)


async def answered(send: Callable[[], Awaitable[Answer]]) -> Answer | None:
    answer = await send()
    return answer if answer.status not in (202, 503) else None


Steps = list[dict[str, Any]]
# How a dispute of a captured payment turns, and what is charged back in the end.
DISPUTES: dict[str, tuple[Steps, int]] = {
    "C19 an inquiry": ([{"status": "warning_needs_response"}, {"status": "warning_under_review"}, {"status": "warning_closed"}], 0),
    "an inquiry that becomes a dispute": ([{"status": "warning_needs_response"}, {"status": "needs_response"}], TOTAL),
    "under review": ([{"status": "needs_response"}, {"status": "under_review"}], TOTAL),
    "C17 won": ([{"status": "needs_response"}, {"status": "won"}], 0),
    "lost": ([{"status": "needs_response"}, {"status": "lost"}], TOTAL),
    "C18 won, then lost": ([{"status": "needs_response"}, {"status": "won"}, {"status": "lost"}], TOTAL),
    "C18 lost, then won": ([{"status": "needs_response"}, {"status": "lost"}, {"status": "won"}], 0),
    "F14 lost, won and lost": ([{"status": "lost"}, {"status": "won"}, {"status": "lost"}], TOTAL),
    "F14 prevented": ([{"status": "prevented"}], 0),
    "F14 prevented after all": ([{"status": "needs_response"}, {"status": "prevented"}], 0),
    "prevented by giving the money": ([{"status": "prevented", "withdrawn": True}], TOTAL),
    "partly lost": ([{"status": "needs_response"}, {"status": "lost", "returned": 2_500}], TOTAL - 2_500),
    "two, one of them won": (
        [{"status": "needs_response", "amount": 4_000}, {"status": "needs_response", "amount": 3_000, "new": True}, {"status": "won"}],
        4_000,
    ),
}


class TestDisputes:
    @pytest.mark.parametrize("heard", ["as it happens", "backwards and twice"])
    @pytest.mark.parametrize(("steps", "lost"), DISPUTES.values(), ids=DISPUTES)
    async def test_end_as_the_providers_books_do(self, world: World, steps: Steps, lost: int, heard: str) -> None:
        payment = await world.a_captured_payment()
        before = set(world.outgoing.events)
        world.outgoing.moods = Moods(lost=0.0 if heard == "as it happens" else 1.0)

        for step in steps:
            await at_the_provider(payment, "dispute", **step)
        world.outgoing.moods = Moods()
        mine = [t for key, t in world.outgoing.events.items() if key not in before and payment.at_the_provider().id.encode() in t.body]
        for each in reversed(mine) if heard != "as it happens" else ():
            for copy in (each, once_more(each)):
                assert (await post(world, copy, direct=True)).status == 200

        await comes(payment.intent, charged_back_amount=lost, attention=None)
        await all_processed(world)
        intent = await comes(payment.intent, charged_back_amount=lost, attention=None)
        status = {0: "captured", TOTAL: "refunded"}.get(lost, "partially_refunded")
        assert intent["status"] == status
        await order_comes(payment, {"captured": "paid"}.get(status, status))
        await world.books_agree(payment.order_id)
        refund = await payment.refund(TOTAL - lost) if lost < TOTAL and "new" not in steps[1 % len(steps)] else await payment.refund(TOTAL)
        # C16, C17: what is disputed or lost is not refunded, what was won is.
        assert refund.status == (201 if lost == 0 or (lost < TOTAL and world.provider == "sandbox" and "returned" in steps[-1]) else 409)

    async def test_beside_a_refund_or_for_more_are_shown_and_flagged(self, world: World) -> None:
        """C14, C15: what was lost is lost, also where it is more than there was; won, it is as before."""
        payment = await world.a_captured_payment()
        assert (await payment.refund(400)).status == 201

        await at_the_provider(payment, "dispute", status="needs_response", amount=TOTAL + 50)
        flagged = await comes(payment.intent, status="conflicted", charged_back_amount=TOTAL + 50, refunded_amount=400)
        await at_the_provider(payment, "dispute", status="won")

        assert "given back" in flagged["attention"]
        await comes(payment.intent, status="partially_refunded", charged_back_amount=0, refunded_amount=400, attention=None)
        assert (await payment.refund(600)).status == 201
        await world.books_agree(payment.order_id)

    async def test_end_a_refund_that_was_pending(self, world: World) -> None:
        """A refund fails with charge_for_pending_refund_disputed (docs.stripe.com/api/refunds/object) when its payment is disputed."""
        payment = await a_pending_refund(world, 400)

        await at_the_provider(payment, "dispute", status="needs_response")
        await at_the_provider(payment, "refund_fail", reason="charge_for_pending_refund_disputed")

        await comes(payment.intent, status="refunded", charged_back_amount=TOTAL, refunded_amount=0, refund_reserved=0, attention=None)
        await at_the_provider(payment, "dispute", status="won")
        await comes(payment.intent, status="captured", charged_back_amount=0)
        await world.books_agree(payment.order_id)


@pytest.mark.parametrize("late", ["pending", "failed"])
async def test_late_news_of_what_succeeded(world: World, late: str) -> None:
    """C40: "pending" after success is older and changes nothing; "failed" is not what the books show, and is parked."""
    payment = await world.a_captured_payment()
    there = payment.at_the_provider()

    if world.provider == "stripe":
        error = {"type": "card_error", "code": "card_declined", "decline_code": "do_not_honor"}
        older = {
            "pending": ("payment_intent.created", {"status": "requires_confirmation", "amount_received": 0, "latest_charge": None}),
            "failed": (
                "payment_intent.payment_failed",
                {"status": "requires_payment_method", "amount_received": 0, "last_payment_error": error},
            ),
        }
        kind, changes = older[late]
        world.outgoing.tell(kind, {**stripe_objects.payment_intent(there), **changes}, there.created_at)
    else:
        [capture] = [o for o in there.operations if o.kind == "capture"]
        capture.status = late
        world.sandbox.books.tell(f"payment.capture.{late}", there, capture)
        capture.status = "succeeded"

    async def arrived() -> bool:
        return list(world.outgoing.events.values())[-1].accepted

    await until(arrived)
    await comes(lambda: news_of(world, payment), status="dead" if late == "failed" else "processed")
    await comes(payment.intent, status="captured", captured_amount=TOTAL, attention=None)
    # What is parked here would be waited for by the tests that follow.
    await world.change("UPDATE webhooks.webhook_events SET status = 'ignored' WHERE status = 'dead'")


async def news_of(world: World, payment: Payment) -> Any:
    """Read the newest event that a provider sent about a payment."""
    sql = "SELECT e.status FROM webhooks.webhook_events e JOIN webhooks.webhook_payloads p ON p.event_id = e.id"
    about = f"%{payment.at_the_provider().id}%"
    return dict((await world.rows(f"{sql} WHERE convert_from(p.body, 'UTF8') LIKE $1 ORDER BY e.received_at DESC LIMIT 1", about))[0])
