"""Nothing freezes for good: facts that do not fit are accepted, and money that no order owes is seen and given back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
import pytest

from services.gateway.domain import Role
from shared.ids import new_id
from tests.world import ORDER, TOTAL, Payment, Place, World, a_world, until

REASON = "Their support confirmed it; ticket 4711"


@pytest.fixture(scope="module")
async def attentive(place: Place) -> AsyncIterator[World]:
    """A world whose provider tells of everything."""
    async with a_world(place, webhooks={}) as made:
        yield made


@pytest.fixture(params=["sandbox", "stripe"])
def world(attentive: World, request: pytest.FixtureRequest) -> World:
    attentive.provider = request.param
    return attentive


async def theirs(payment: Payment) -> Any:
    """What the sandbox's books hold of a payment, also where its order has several."""
    return payment.world.sandbox.books.payments[(await payment.intent())["provider_payment_id"]]


async def happens(payment: Payment, kind: str, amount: int, status: str = "succeeded") -> None:
    """Have something happen in the provider's dashboard, and wait until we know."""
    before = (await payment.intent())["version"]
    payment.world.sandbox.books.add(await theirs(payment), kind, amount, status=status, reason="dashboard")
    await until(lambda: _newer(payment, before))


async def _newer(payment: Payment, version: int) -> bool:
    return int((await payment.intent())["version"]) > version


async def raised(payment: Payment, amount: int) -> None:
    """Have more held in the provider's dashboard (docs.stripe.com/payments/incremental-authorization)."""
    there = await theirs(payment)
    there.amount = there.operations[0].amount = amount
    books = payment.world.sandbox.books
    books.keep(there)
    books.tell("payment.authorize.succeeded", there, there.operations[0])
    await until(lambda: _has(payment, "authorized_amount", amount))


async def _has(payment: Payment, name: str, value: Any) -> bool:
    return bool((await payment.intent())[name] == value)


async def accept(payment: Payment, *, version: int | None = None, **how: Any) -> Any:
    seen = (await payment.intent())["version"] if version is None else version
    path = f"/api/v1/admin/orders/{payment.order_id}/payments/{payment.id}/accept"
    return await payment.world.send("POST", path, {"version": seen, "reason": REASON}, **how)


async def give_back(payment: Payment, **more: Any) -> Any:
    path = f"/api/v1/admin/orders/{payment.order_id}/payments/{payment.id}/refund"
    return await payment.world.send("POST", path, {"overpaid": True, **more})


async def listed(world: World, name: str) -> dict[str, Any]:
    """Read one part of the list of payments that need somebody, by payment."""
    answer = await world.send("GET", "/api/v1/admin/payments/attention")
    assert answer.status == 200, answer
    return {each["id"]: each for each in answer.json[name]}


async def order_of(payment: Payment) -> Any:
    return (await payment.world.send("GET", f"/api/v1/admin/orders/{payment.order_id}")).json


async def _refunded_and_lost(world: World) -> Payment:
    payment = await world.a_captured_payment()
    assert (await payment.refund(4_000)).status == 201
    await happens(payment, "chargeback", TOTAL)
    return payment


async def _disputed_for_more(world: World) -> Payment:
    payment = await world.a_captured_payment()
    await happens(payment, "chargeback", TOTAL + 500)
    return payment


async def _refunded_too_much(world: World) -> Payment:
    payment = await world.a_captured_payment()
    await happens(payment, "refund", TOTAL + 5_000)
    return payment


async def _held_more(world: World) -> Payment:
    payment = await world.a_payment()
    await raised(payment, TOTAL + 5_000)
    return payment


async def _captured_more(world: World) -> Payment:
    payment = await world.a_payment()
    await happens(payment, "capture", TOTAL + 5_000)
    return payment


async def _refunded_early(world: World) -> Payment:
    payment = await world.a_payment()
    await happens(payment, "refund", 1_000)
    return payment


Make = Callable[[World], Awaitable[Payment]]
# What happened, and where the payment stands once that is accepted: status, capturable, refundable, overpaid.
CASES: dict[str, tuple[Make, str, int, int]] = {
    "C15 a refund, then a chargeback of all": (_refunded_and_lost, "refunded", 0, 0),
    "C14 a dispute of more than the payment": (_disputed_for_more, "refunded", 0, 0),
    "F10 more refunded than captured": (_refunded_too_much, "refunded", 0, 0),
    "C44 incremental authorization": (_held_more, "authorized", TOTAL + 5_000, 0),
    "F10 more captured than held": (_captured_more, "captured", 0, TOTAL + 5_000),
    "F10 refunded before its capture": (_refunded_early, "authorized", TOTAL, 0),
}


# At Stripe what goes back of money that was never taken is a hold let go (docs.stripe.com/changelog/basil/2025-03-31).
NOT_AT_STRIPE = "F10 refunded before its capture"


@pytest.mark.parametrize(
    ("world", "case"),
    [(provider, case) for provider in ("sandbox", "stripe") for case in CASES if (provider, case) != ("stripe", NOT_AT_STRIPE)],
    indirect=["world"],
)
async def test_facts_that_do_not_fit_are_accepted(world: World, case: str) -> None:
    """F10: `conflicted` has a way out, after which the status and what may be done follow from the facts."""
    make, status, capturable, refundable = CASES[case]
    payment = await make(world)
    before = await payment.intent()
    assert before["status"] == "conflicted"
    assert str(payment.id) in await listed(world, "conflicted")
    assert (await payment.refund(1)).code == "invalid-payment-state"

    answer = await accept(payment, role=Role.OPERATOR)

    assert answer.status == 200, answer
    after = await payment.intent()
    assert (after["status"], after["attention"], after["overpaid_amount"]) == (status, None, 0)
    assert str(payment.id) not in {**await listed(world, "conflicted"), **await listed(world, "overpaid")}
    if capturable:
        assert (await payment.capture(capturable)).status == 201
    if refundable:
        assert (await payment.refund(refundable)).status == 201
    assert (await payment.refund(TOTAL * 2)).status == 409
    told = await _audited(payment)
    assert [(each["reason"], each["before"]["attention"], each["after"]["status"]) for each in told] == [
        (REASON, before["attention"], status)
    ]


async def _audited(payment: Payment) -> Any:
    rows = await payment.world.rows("SELECT * FROM payments.admin_audit WHERE subject = $1 AND action = 'payment.accept'", str(payment.id))
    return [{**row, "before": msgspec.json.decode(row["before"]), "after": msgspec.json.decode(row["after"])} for row in rows]


async def test_another_contradiction_needs_attention_again(world: World) -> None:
    """F10: what was accepted stays so, what comes after does not; a repeat is nothing new."""
    payment = await _refunded_and_lost(world)
    assert (await accept(payment)).status == 200

    await happens(payment, "chargeback_reversal", TOTAL)
    won = await payment.intent()
    await happens(payment, "refund", TOTAL)

    again = await payment.intent()
    assert (won["status"], won["attention"]) == ("partially_refunded", None)
    # The same sum as was accepted, and other facts.
    assert (again["status"], again["attention"]) == ("conflicted", "14000 given back of 10000 captured")
    assert (await accept(payment)).json["status"] == "refunded"
    assert (await accept(payment)).code == "nothing-to-accept"


async def test_a_mismatch_is_accepted_and_captured(attentive: World) -> None:
    """F10, C45: half was approved; the half is taken."""
    attentive.provider = "sandbox"
    order_id = await attentive.an_order()
    answer = await attentive.authorize(order_id, await attentive.a_snapshot(order_id), "tok_partial_approval")
    assert (answer.status, answer.code) == (409, "provider-mismatch")
    payment = Payment(attentive, order_id, UUID(answer.json["intent_id"]))

    assert (await accept(payment)).json["status"] == "authorized"

    assert (await payment.capture()).json["intent"]["captured_amount"] == TOTAL // 2
    assert (await attentive.ledger(order_id))["order_status"] == "partially_paid"
    await attentive.books_agree(order_id)


class TestAccepting:
    async def test_two_operators_at_once_accept_once(self, attentive: World) -> None:
        attentive.provider = "sandbox"
        payment = await _refunded_too_much(attentive)
        version = (await payment.intent())["version"]

        answers = await asyncio.gather(*(accept(payment, version=version) for _ in range(5)))

        assert sorted(each.status for each in answers) == [200, 412, 412, 412, 412]
        assert len(await _audited(payment)) == 1

    async def test_is_about_what_was_looked_at(self, attentive: World) -> None:
        attentive.provider = "sandbox"
        payment = await _refunded_too_much(attentive)
        version = (await payment.intent())["version"]
        await happens(payment, "refund", 1)

        stale = await accept(payment, version=version)

        assert (stale.status, stale.code, stale.json["attention"]) == (412, "stale-version", "15001 given back of 10000 captured")
        assert (await payment.intent())["status"] == "conflicted"

    async def test_the_same_key_gets_the_same_answer(self, attentive: World) -> None:
        attentive.provider = "sandbox"
        payment, key = await _refunded_too_much(attentive), new_id().hex
        version = (await payment.intent())["version"]

        first = await accept(payment, version=version, key=key)
        second = await accept(payment, version=version, key=key)

        assert (first.status, first.content) == (second.status, second.content)

    async def test_what_needs_nothing_is_refused(self, attentive: World) -> None:
        attentive.provider = "sandbox"
        payment = await attentive.a_captured_payment()

        assert (await accept(payment)).code == "nothing-to-accept"
        assert (await accept(Payment(attentive, await attentive.an_order(), payment.id), version=1)).status == 404

    async def test_what_is_under_way_is_accepted_and_its_end_is_news(self, attentive: World) -> None:
        """F10: a capture under way for which a fact has left too little; what the provider answers may not fit either."""
        attentive.provider = "sandbox"
        payment = await attentive.a_payment("tok_capture_slow")
        taking = asyncio.create_task(payment.capture(TOTAL))
        await until(lambda: _has(payment, "capture_reserved", TOTAL))
        await happens(payment, "capture", 1_000)

        accepted = await accept(payment)

        assert (accepted.status, accepted.json["status"], accepted.json["attention"]) == (200, "partially_captured", None)
        await taking
        await until(lambda: _has(payment, "capture_reserved", 0))

    async def test_a_refund_that_a_dispute_crowds_out_freezes_nothing(self, attentive: World) -> None:
        """F4, F10: the refund is pending for days; once that is accepted, the rest of the hold can still be captured and voided."""
        attentive.provider = "sandbox"
        payment = await attentive.a_payment()
        assert (await payment.capture(TOTAL - 1_000)).status == 201
        await happens(payment, "refund", 400, "pending")
        await happens(payment, "chargeback", TOTAL - 1_000)
        frozen = await payment.intent()
        assert (frozen["status"], (await payment.capture(600)).status) == ("conflicted", 409)

        accepted = await accept(payment)

        assert (accepted.status, accepted.json["attention"], accepted.json["refund_reserved"]) == (200, None, 400)
        assert (await payment.capture(600)).status == 201
        assert (await payment.void()).status == 201
        intent = await payment.intent()
        assert (intent["status"], intent["captured_amount"], intent["voided_amount"]) == ("partially_refunded", TOTAL - 400, 400)

    async def test_a_void_that_ended_a_conflict_leaves_nothing_to_do(self, attentive: World) -> None:
        attentive.provider = "sandbox"
        payment = await _held_more(attentive)

        assert (await payment.void()).status == 201

        intent = await payment.intent()
        assert (intent["status"], intent["attention"]) == ("voided", None)
        assert str(payment.id) not in await listed(attentive, "conflicted")


async def _again(payment: Payment) -> Payment:
    """Pay a payment's order with another."""
    world = payment.world
    answer = await world.authorize(payment.order_id, await world.a_snapshot(payment.order_id))
    assert answer.status == 201, answer
    return Payment(world, payment.order_id, UUID(answer.json["intent"]["id"]))


async def _two_payments(world: World) -> tuple[Payment, Payment]:
    """Void one, pay with another."""
    first = await world.a_payment()
    assert (await first.void()).status == 201
    second = await _again(first)
    return first, second


async def _declined_and_held(world: World) -> Payment:
    """Declined, says the provider's event, and then that it is held after all."""
    world.provider = "sandbox"
    order_id = await world.an_order()
    answer = await world.authorize(order_id, await world.a_snapshot(order_id), "tok_declined_do_not_honor")
    assert answer.status == 402
    payment = Payment(world, order_id, UUID(answer.json["intent_id"]))
    there = await theirs(payment)
    there.operations[0].status = "succeeded"
    world.sandbox.books.keep(there)
    return payment


async def _submitted(world: World) -> Payment:
    """Submit a payment whose customer has to act."""
    order_id = await world.an_order()
    submitted = {"snapshot_id": await world.a_snapshot(order_id), "payment_method": "tok_3ds"}
    answer = await world.send("POST", f"/api/v1/checkout/orders/{order_id}/submit-payment", submitted)
    assert answer.json["result"] == "requires_action", answer
    return Payment(world, order_id, UUID(answer.json["intent"]["id"]))


async def _tells(payment: Payment) -> None:
    there = await theirs(payment)
    payment.world.sandbox.books.tell("payment.authorize.succeeded", there, there.operations[0])
    await until(lambda: _has(payment, "status", "conflicted"))


class TestAHoldAfterADecline:
    async def test_that_is_accepted_pays_the_order(self, attentive: World) -> None:
        """F10: nobody can hold the money twice once it is accepted."""
        payment = await _declined_and_held(attentive)
        await _tells(payment)

        assert (await accept(payment)).json["status"] == "authorized"

        other = await attentive.authorize(payment.order_id, await attentive.a_snapshot(payment.order_id))
        assert other.code == "payment-already-active"
        assert (await payment.capture()).status == 201
        assert (await order_of(payment))["status"] == "paid"

    async def test_that_is_accepted_beside_another_payment_is_not_captured_for_having_been_submitted(self, attentive: World) -> None:
        """F9, F12: submitted, declined after 3DS, paid otherwise; held after all, it is let go, not taken a second time."""
        attentive.provider = "sandbox"
        payment, other = await _submitted(attentive), await _submitted(attentive)
        there = attentive.sandbox.books.decide(await theirs(payment), passed=False)
        await until(lambda: _has(payment, "status", "declined"))
        second = await _again(payment)
        assert (await second.capture()).status == 201
        there.operations[0].status = "succeeded"
        attentive.sandbox.books.keep(there)
        await _tells(payment)

        assert (await accept(payment)).json["status"] == "authorized"

        # Once this one is captured, whoever captures what was submitted has looked.
        attentive.sandbox.books.decide(await theirs(other), passed=True)
        await until(lambda: _has(other, "captured_amount", TOTAL))
        assert (await payment.void()).json["intent"]["voided_amount"] == TOTAL
        assert ((await payment.intent())["captured_amount"], (await order_of(payment))["overpaid_amount"]) == (0, 0)

    async def test_that_is_accepted_beside_another_payment_is_not_captured(self, attentive: World) -> None:
        payment = await _declined_and_held(attentive)
        second = await _again(payment)
        await _tells(payment)

        assert (await accept(payment)).json["status"] == "authorized"

        assert (await payment.capture()).code == "invalid-payment-state"
        assert (await payment.void()).status == 201
        assert (await second.capture()).status == 201


class TestMoneyTooMuch:
    @pytest.mark.parametrize("paid_first", [True, False])
    async def test_of_a_payment_that_was_voided_is_given_back(self, world: World, paid_first: bool) -> None:
        """F9, C12: void one, pay with another, the first is captured after all, before the second or after it."""
        first, second = await _two_payments(world)
        if paid_first:
            assert (await second.capture()).status == 201
        await happens(first, "capture", TOTAL)
        if not paid_first:
            assert (await second.capture()).status == 201

        seen = (await listed(world, "overpaid"))[str(first.id)]
        assert (seen["overpaid_amount"], seen["status"]) == (TOTAL, "captured")
        assert seen["attention"] == "10000 was taken that the order does not owe"
        assert str(second.id) not in await listed(world, "overpaid")
        order = await order_of(first)
        assert (order["status"], order["overpaid_amount"]) == ("paid", TOTAL)
        assert (await world.ledger(first.order_id))["overpaid_amount"] == TOTAL

        answers = await asyncio.gather(*(give_back(first) for _ in range(3)))

        assert sorted(each.status for each in answers) == [201, 409, 409]
        assert str(first.id) not in await listed(world, "overpaid")
        order = await order_of(first)
        assert (order["status"], order["overpaid_amount"]) == ("paid", 0)
        # The order's own payment is as it was.
        assert (await second.refund(1_000)).status == 201
        assert (await order_of(first))["status"] == "partially_refunded"
        await world.books_agree(first.order_id)

    async def test_of_a_cancelled_order_is_given_back(self, world: World) -> None:
        """F9, C13: void, cancel the order, captured after all."""
        payment = await world.a_payment()
        assert (await payment.void()).status == 201
        assert (await world.put_order(payment.order_id, {**ORDER, "cancelled": True})).status == 200

        await happens(payment, "capture", 4_000)

        assert (await listed(world, "overpaid"))[str(payment.id)]["overpaid_amount"] == 4_000
        order = await order_of(payment)
        assert (order["status"], order["overpaid_amount"]) == ("cancelled", 4_000)
        assert (await give_back(payment)).status == 201
        assert (await order_of(payment))["status"] == "cancelled"
        assert str(payment.id) not in await listed(world, "overpaid")

    async def test_for_another_price_is_given_back_and_the_order_can_be_paid(self, attentive: World) -> None:
        """F9: void, price anew, captured after all: that is not what the order costs."""
        attentive.provider = "sandbox"
        payment = await attentive.a_payment()
        assert (await payment.void()).status == 201
        dearer = {**ORDER, "items": [{**ORDER["items"][0], "unit_price": 9_000}]}
        assert (await attentive.put_order(payment.order_id, dearer)).status == 200
        await happens(payment, "capture", TOTAL)

        order, snapshot_id = await order_of(payment), await attentive.a_snapshot(payment.order_id)
        assert (order["status"], order["overpaid_amount"]) == ("open", TOTAL)
        assert (await attentive.authorize(payment.order_id, snapshot_id)).code == "order-already-paid"
        assert (await attentive.put_order(payment.order_id, ORDER)).code == "order-locked"
        assert (await give_back(payment)).status == 201

        second = await _again(payment)
        assert (await second.capture()).json["intent"]["captured_amount"] == 18_000
        assert (await order_of(payment))["status"] == "paid"

    async def test_of_a_void_that_never_was_pays_the_order(self, attentive: World) -> None:
        """Voided and captured after all, while the order still waits for just that: it is paid, and nothing is too much."""
        attentive.provider = "sandbox"
        payment = await attentive.a_payment()
        assert (await payment.void()).status == 201

        await happens(payment, "capture", TOTAL)

        order = await order_of(payment)
        assert (order["status"], order["overpaid_amount"]) == ("paid", 0)
        assert (await attentive.put_order(payment.order_id, {**ORDER, "cancelled": True})).code == "order-locked"
        assert (await attentive.authorize(payment.order_id, await attentive.a_snapshot(payment.order_id))).status == 409

    async def test_of_the_orders_own_payment_is_given_back(self, world: World) -> None:
        """F9: more captured than the order owes; only the excess goes back, however often that is asked."""
        payment = await _captured_more(world)
        assert (await listed(world, "overpaid"))[str(payment.id)]["overpaid_amount"] == 5_000

        assert (await give_back(payment, amount=5_001)).code == "amount-exceeds-available"
        assert (await give_back(payment)).json["transaction"]["amount"] == 5_000
        assert (await give_back(payment)).code == "amount-exceeds-available"

        assert (await accept(payment)).json["status"] == "partially_refunded"
        assert (await payment.refund()).json["transaction"]["amount"] == TOTAL

    async def test_that_is_kept_is_accepted(self, world: World) -> None:
        """F9: kept for another reason; it leaves the list, and what comes on top does not."""
        first, second = await _two_payments(world)
        assert (await second.capture()).status == 201
        await happens(first, "capture", 4_000)

        assert (await accept(first)).status == 200

        assert str(first.id) not in await listed(world, "overpaid")
        assert (await order_of(first))["status"] == "paid"
        await happens(first, "capture", 1_000)
        assert (await listed(world, "overpaid"))[str(first.id)]["overpaid_amount"] == 5_000

    async def test_pays_the_order_when_that_is_accepted_and_nothing_else_has(self, attentive: World) -> None:
        """F9: void one, another is declined, the first is captured after all: it pays what the order still is."""
        attentive.provider = "sandbox"
        first = await attentive.a_payment()
        assert (await first.void()).status == 201
        declined = await attentive.authorize(first.order_id, await attentive.a_snapshot(first.order_id), "tok_declined_insufficient_funds")
        assert declined.status == 402
        await happens(first, "capture", TOTAL)
        assert (await order_of(first))["status"] == "open"

        assert (await accept(first)).json["overpaid_amount"] == 0

        order = await order_of(first)
        assert (order["status"], order["overpaid_amount"]) == ("paid", 0)
        assert (await attentive.put_order(first.order_id, {**ORDER, "cancelled": True})).code == "order-locked"

    async def test_that_went_back_already_pays_nothing_when_it_is_accepted(self, attentive: World) -> None:
        """F10, F13: captured after its void and given back with more; the order is still open, and stays payable."""
        attentive.provider = "sandbox"
        first = await attentive.a_payment()
        assert (await first.void()).status == 201
        declined = await attentive.authorize(first.order_id, await attentive.a_snapshot(first.order_id), "tok_declined_insufficient_funds")
        assert declined.status == 402
        await happens(first, "capture", TOTAL)
        await happens(first, "refund", TOTAL + 5)

        assert (await accept(first)).json["status"] == "refunded"

        assert (await order_of(first))["status"] == "open"
        assert (await (await _again(first)).capture()).status == 201
        assert (await order_of(first))["status"] == "paid"

    async def test_that_a_dispute_gave_back_is_too_much_when_it_is_won(self, attentive: World) -> None:
        attentive.provider = "sandbox"
        first, second = await _two_payments(attentive)
        assert (await second.capture()).status == 201
        await happens(first, "capture", TOTAL)
        await happens(first, "chargeback", TOTAL)
        assert str(first.id) not in await listed(attentive, "overpaid")

        await happens(first, "chargeback_reversal", TOTAL)

        assert (await listed(attentive, "overpaid"))[str(first.id)]["overpaid_amount"] == TOTAL
        assert (await order_of(first))["status"] == "paid"

    async def test_whose_giving_back_fails_is_in_the_list_again(self, attentive: World) -> None:
        attentive.provider = "sandbox"
        first = await attentive.a_payment("tok_refund_declined")
        assert (await first.void()).status == 201
        await _again(first)
        await happens(first, "capture", TOTAL)

        assert (await give_back(first)).status == 402

        assert (await listed(attentive, "overpaid"))[str(first.id)]["overpaid_amount"] == TOTAL

    async def test_is_told_to_the_merchant(self, attentive: World) -> None:
        attentive.provider = "sandbox"
        first, second = await _two_payments(attentive)
        assert (await second.capture()).status == 201
        await happens(first, "capture", TOTAL)

        async def told() -> Any:
            return await _event(attentive, first, overpaid_amount=TOTAL)

        event = await until(told)
        assert (event["type"], event["data"]["order_status"]) == ("payment.captured", "paid")
        assert event["data"]["payment"]["attention"] == "10000 was taken that the order does not owe"


async def _event(world: World, payment: Payment, **facts: Any) -> Any:
    events, after = [], ""
    while page := (await world.send("GET", f"/api/v1/events?limit=100{after}")).json["events"]:
        events += page
        after = f"&after={page[-1]['id']}"
    mine = [each for each in events if each["data"]["payment"]["id"] == str(payment.id)]
    return next((each for each in mine if facts.items() <= each["data"]["payment"].items()), None)


DEARER = {**ORDER, "items": [{**ORDER["items"][0], "unit_price": 25_000}]}


class TestAtOnce:
    """F9: whichever is first, the order is paid once, and what is too much is seen."""

    async def test_another_payment_and_money_after_all(self, attentive: World) -> None:
        attentive.provider = "sandbox"
        for _ in range(6):
            first = await attentive.a_payment()
            assert (await first.void()).status == 201
            snapshot_id = await attentive.a_snapshot(first.order_id)

            _, answer = await asyncio.gather(happens(first, "capture", TOTAL), attentive.authorize(first.order_id, snapshot_id))
            await until(partial(_has, first, "captured_amount", TOTAL))

            intent, order = await first.intent(), await order_of(first)
            if answer.status == 201:
                assert (intent["superseded"], intent["overpaid_amount"], order["status"]) == (True, TOTAL, "authorized")
            else:
                assert answer.code in ("payment-already-active", "order-already-paid"), answer
                assert (intent["superseded"], intent["overpaid_amount"], order["status"]) == (False, 0, "paid")

    async def test_a_cancellation_and_money_after_all(self, attentive: World) -> None:
        attentive.provider = "sandbox"
        for _ in range(6):
            payment = await attentive.a_payment()
            assert (await payment.void()).status == 201
            cancelled = attentive.put_order(payment.order_id, {**ORDER, "cancelled": True})

            _, answer = await asyncio.gather(happens(payment, "capture", TOTAL), cancelled)
            await until(partial(_has, payment, "captured_amount", TOTAL))

            intent, order = await payment.intent(), await order_of(payment)
            if answer.status == 200:
                assert (intent["overpaid_amount"], order["status"]) == (TOTAL, "cancelled")
            else:
                assert (answer.code, intent["overpaid_amount"], order["status"]) == ("order-locked", 0, "paid")


class TestTheLock:
    async def test_holds_while_money_is_disputed(self, world: World) -> None:
        """F13, C24: the order stays what was paid for, and is that when the dispute is won."""
        payment = await world.a_captured_payment()
        await happens(payment, "chargeback", TOTAL)

        changed = await world.put_order(payment.order_id, DEARER)

        assert (changed.status, changed.code) == (409, "order-locked")
        assert "new order" in changed.json["detail"]
        await happens(payment, "chargeback_reversal", TOTAL)
        order = await order_of(payment)
        assert (order["status"], order["totals"]["total"]) == ("paid", TOTAL)
        assert (await payment.refund(TOTAL)).status == 201

    @pytest.mark.parametrize("amount", [1, TOTAL])
    async def test_holds_when_money_was_given_back(self, attentive: World, amount: int) -> None:
        """F13: refunded in part or whole, it cannot be priced anew nor paid again; both say so."""
        attentive.provider = "sandbox"
        payment = await attentive.a_captured_payment()
        assert (await payment.refund(amount)).status == 201

        changed = await attentive.put_order(payment.order_id, DEARER)
        quoted = await attentive.quote(payment.order_id)
        paid = await attentive.authorize(payment.order_id, (await payment.intent())["snapshot_id"])

        assert (changed.status, changed.code) == (409, "order-locked")
        assert (paid.status, paid.code) == (409, "order-already-paid" if amount == TOTAL else "payment-already-active")
        assert (quoted.status, quoted.json.get("code")) == ((409, "order-already-paid") if amount == TOTAL else (201, None))
        # What prices nothing may change.
        assert (await attentive.put_order(payment.order_id, {**ORDER, "customer_id": new_id()})).status == 200

    async def test_lets_a_refunded_order_be_cancelled_and_no_more(self, attentive: World) -> None:
        attentive.provider = "sandbox"
        payment = await attentive.a_captured_payment()
        cancelled = {**ORDER, "cancelled": True}
        assert (await attentive.put_order(payment.order_id, cancelled)).code == "order-locked"
        assert (await payment.refund()).status == 201

        assert (await attentive.put_order(payment.order_id, {**DEARER, "cancelled": True})).code == "order-locked"
        assert (await attentive.put_order(payment.order_id, cancelled)).status == 200

        assert (await attentive.put_order(payment.order_id, ORDER)).code == "order-locked"
        assert (await order_of(payment))["status"] == "refunded"
