"""What happens at the provider without us enters the ledger with its source: through messages on the background lane."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared import topology
from shared.bus import Letter, Publisher, headers_of
from shared.contracts.payments import Observe
from shared.ids import new_id
from shared.messages import Envelope, Environment, encode, type_of
from tests.world import TOTAL, Payment, Place, World, a_world, until


@pytest.fixture(scope="module")
async def publisher(place: Place) -> AsyncIterator[Publisher]:
    async with Publisher(place.amqp_url, name="tests") as publisher:
        yield publisher


async def tell(world: World, publisher: Publisher, observation: Observe) -> None:
    envelope = Envelope(
        id=new_id(),
        store_id=world.store_id,
        environment=Environment.SANDBOX,
        source="webhooks",
        actor="provider",
        correlation_id="webhook-1",
    )
    kind = type_of(Observe)
    await publisher.publish(
        Letter(exchange=topology.COMMANDS, routing_key=kind, body=encode(observation), headers=headers_of(envelope), type=kind)
    )


def observed(payment: Payment, operation: str, amount: int, **facts: Any) -> Observe:
    told = {
        "provider_payment_id": payment.at_the_provider().id,
        "status": "succeeded",
        "currency": "EUR",
        "provider_txn_id": f"dash_{new_id().hex}",
        "origin": "webhook",
        **facts,
    }
    return Observe(
        provider="sandbox",
        provider_account="sandbox:default",
        operation=operation,
        amount=amount,
        **told,
    )


class TestObserve:
    async def test_a_refund_made_in_the_dashboard_enters_the_ledger_once(self, world: World, publisher: Publisher) -> None:
        payment = await world.a_captured_payment()
        observation = observed(payment, "refund", 2_000)

        await asyncio.gather(*(tell(world, publisher, observation) for _ in range(5)))

        await until(lambda: _amount(payment, "refunded_amount", 2_000))
        rows = [t for t in await payment.transactions() if t["operation"] == "refund"]
        assert [(t["source"], t["amount"]) for t in rows] == [("webhook", 2_000)]
        assert (await world.ledger(payment.order_id))["history"][-1]["source"] == "webhook"

    async def test_a_fact_that_leaves_too_little_for_what_is_under_way_enters_all_the_same(
        self, world: World, publisher: Publisher
    ) -> None:
        payment = await world.a_payment("tok_capture_slow")
        taking = asyncio.create_task(payment.capture(TOTAL))
        await until(lambda: _amount(payment, "capture_reserved", TOTAL))
        theirs = world.sandbox.books.add(payment.at_the_provider(), "capture", 1_000, reason="dashboard")

        await tell(world, publisher, observed(payment, "capture", 1_000, provider_txn_id=theirs.id))

        await until(lambda: _amount(payment, "captured_amount", 1_000))
        answer, intent = await taking, await payment.intent()
        assert (answer.status, answer.json["decline_code"]) == (409, "amount_too_large")
        assert (intent["status"], intent["attention"], intent["capture_reserved"]) == ("partially_captured", None, 0)
        await world.books_agree(payment.order_id)

    async def test_an_excess_is_recorded_and_freezes_the_payment(self, world: World, publisher: Publisher) -> None:
        payment = await world.a_captured_payment()

        await tell(world, publisher, observed(payment, "refund", TOTAL + 1))

        await until(lambda: _amount(payment, "refunded_amount", TOTAL + 1))
        assert (await payment.intent())["status"] == "conflicted"
        assert (await payment.refund(1)).code == "invalid-payment-state"

    async def test_the_answer_heard_twice_during_the_call_counts_once(self, world: World, publisher: Publisher) -> None:
        payment = await world.a_payment("tok_capture_timeout")
        capturing = asyncio.create_task(payment.capture(4_000))
        operation = await until(lambda: _captured_there(payment))

        told = observed(payment, "capture", 4_000, provider_txn_id=operation.id, reference=operation.reference)
        await tell(world, publisher, told)

        assert (await capturing).status == 201
        await until(lambda: _amount(payment, "captured_amount", 4_000))
        assert (await payment.intent())["capture_reserved"] == 0
        await world.books_agree(payment.order_id)

    async def test_an_observation_that_comes_before_its_payment_waits_for_it(self, world: World, publisher: Publisher) -> None:
        payment = await world.a_captured_payment()
        early = observed(payment, "refund", 500, provider_payment_id="pay_later")

        await tell(world, publisher, early)
        await world.change("UPDATE payments.payment_intents SET provider_payment_id = 'pay_later' WHERE id = $1", payment.id)

        await until(lambda: _amount(payment, "refunded_amount", 500))


async def _amount(payment: Payment, name: str, amount: int) -> bool:
    return bool((await payment.intent())[name] == amount)


async def _captured_there(payment: Payment) -> Any:
    return next((o for o in payment.at_the_provider().operations if o.kind == "capture"), None)


class TestAbandonment:
    async def test_an_old_checkout_frees_its_order_and_a_late_success_is_given_back(self, own_place: Place) -> None:
        async with a_world(own_place, payments={"abandon_after_seconds": 1.0, "customer_look_seconds": 0.2}) as world:
            payment = await world.a_payment("tok_3ds")
            await until(lambda: _is(payment, "abandoned"))
            again = await world.authorize(payment.order_id, await world.a_snapshot(payment.order_id))
            first = next(p for p in world.sandbox.books.payments.values() if p.payment_method == "tok_3ds")

            world.sandbox.books.decide(first, passed=True)

            await until(lambda: _released(first))
            assert again.status == 201
            assert (await payment.intent())["status"] == "abandoned"
            await until(lambda: _amount(payment, "voided_amount", TOTAL))


async def _is(payment: Payment, status: str) -> bool:
    return bool((await payment.intent())["status"] == status)


async def _released(payment: Any) -> bool:
    return bool(payment.held == 0 and payment.moved("authorize") == TOTAL)


class TestReplayWindow:
    async def test_a_question_older_than_the_window_is_never_sent_again(self, world: World) -> None:
        order_id = await world.an_order()
        await world.authorize(order_id, await world.a_snapshot(order_id), "tok_silent", headers={"Prefer": "respond-async"})
        # Its row is there before anything is sent; others may have asked before.
        assert await until(lambda: _made_old(world, order_id))
        before = world.sandbox.calls.get("authorize", 0)

        ended = await until(lambda: _ended(world, order_id))

        assert ended["transactions"][0]["decline_code"] == "not_executed"
        # The call that was out when time jumped, and at most one repeat that had begun before.
        assert world.sandbox.calls["authorize"] <= before + 1


async def _made_old(world: World, order_id: Any) -> Any:
    return await world.rows(
        """
        UPDATE payments.payment_transactions t
           SET created_at = now() - interval '2 days'
          FROM payments.payment_intents i
         WHERE i.id = t.payment_intent_id AND i.order_id = $1 AND t.status IN ('pending', 'unknown')
        RETURNING t.id
        """,
        order_id,
    )


async def _ended(world: World, order_id: Any) -> Any:
    payments = (await world.ledger(order_id))["payments"]
    return payments[0] if payments and payments[0]["intent"]["status"] == "declined" else None
