"""A shop that is paid through Stripe: what differs from the sandbox's own face, and what only its webhooks tell."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from deploy.sandbox.server import Account
from deploy.sandbox.webhooks import Moods
from services.gateway.domain import Role
from tests.webhooks.test_ingest import post
from tests.world import TOTAL, Payment, Place, World, a_world, until


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, provider="stripe", webhooks={}) as made:
        yield made


async def stands(payment: Payment, status: str, **amounts: int) -> Any:
    """Wait until a payment stands so, and give its intent."""

    async def so() -> Any:
        intent = await payment.intent()
        agree = all(intent[f"{name}_amount"] == amount for name, amount in amounts.items())
        return intent if intent["status"] == status and agree else None

    return await until(so)


async def sources(payment: Payment) -> list[tuple[str, str, int]]:
    return [(t["operation"], t["source"], t["processed_amount"]) for t in await payment.transactions()]


class TestThroughTheApi:
    async def test_from_the_quote_to_the_refund(self, world: World) -> None:
        payment = await world.a_payment("pm_card_visa")
        answers = [await payment.capture(6_000), await payment.capture(4_000), await payment.refund(2_500)]

        assert [a.status for a in answers] == [201, 201, 201]
        assert answers[-1].json["intent"]["status"] == "partially_refunded"
        at_stripe = payment.at_the_provider()
        assert (at_stripe.id[:3], at_stripe.moved("capture"), at_stripe.moved("refund")) == ("pi_", TOTAL, 2_500)
        await world.books_agree(payment.order_id)

    async def test_the_quote_says_what_it_can_do(self, world: World) -> None:
        answer = await world.quote(await world.an_order())

        told = answer.json["providers"]["payment"]
        assert (told["name"], told["capabilities"]["multiple_captures"], told["capabilities"]["void_after_capture"]) == (
            "stripe",
            True,
            False,
        )

    async def test_a_decline_comes_with_the_issuers_advice(self, world: World) -> None:
        order_id = await world.an_order()

        answer = await world.authorize(order_id, await world.a_snapshot(order_id), "pm_card_visa_chargeDeclinedStolenCard")

        assert (answer.status, answer.json["decline_code"], answer.json["advice"]) == (
            402,
            "stolen_card",
            "Do not try this payment method again.",
        )

    @pytest.mark.parametrize(("decision", "status"), [("pass", "authorized"), ("fail", "declined")])
    async def test_the_customers_bank_decides(self, world: World, decision: str, status: str) -> None:
        payment = await world.a_payment("pm_card_threeDSecure2Required")
        intent = await payment.intent()
        assert (intent["status"], intent["next_action"]["type"]) == ("requires_action", "redirect")
        async with httpx.AsyncClient() as browser:
            await browser.post(intent["next_action"]["url"], data={"decision": decision})

        answer = await payment.confirm()

        assert answer.status == (200 if decision == "pass" else 402)
        await stands(payment, status)

    async def test_a_customer_who_never_comes_back_is_told_of_by_webhook(self, world: World) -> None:
        payment = await world.a_payment("pm_card_threeDSecure2Required")

        world.sandbox.books.decide(payment.at_the_provider(), passed=True)

        await stands(payment, "authorized", authorized=TOTAL)

    async def test_without_a_return_url_the_bank_cannot_ask(self, world: World) -> None:
        order_id = await world.an_order()

        answer = await world.authorize(
            order_id, await world.a_snapshot(order_id), "pm_card_threeDSecure2Required", more={"return_url": None}
        )

        assert (answer.status, answer.json["decline_code"]) == (402, "authentication_required")
        assert "return_url" in answer.json["advice"]

    async def test_an_amount_that_stripe_cannot_express_is_refused_before_anything_is_written(self, world: World) -> None:
        item = {"product_variant_id": "0192f0c1-7e00-7000-8000-000000000001", "name": "Mug", "quantity": 1, "unit_price": 5_124}
        order_id = await world.an_order(currency="KWD", items=[item])

        answer = await world.authorize(order_id, await world.a_snapshot(order_id))

        assert (answer.status, answer.code) == (422, "unsupported-by-provider")
        assert (await world.ledger(order_id))["payments"] == []

    async def test_nothing_secret_is_kept_of_a_call(self, world: World) -> None:
        payment = await world.a_payment("pm_card_visa")

        rows = await world.rows("SELECT request::text, response::text FROM payments.provider_call_audit WHERE provider = 'stripe'")

        kept = "".join(row["request"] + row["response"] for row in rows)
        assert str(payment.order_id) in kept
        assert not [secret for secret in ("client_secret", "pm_card_visa", "last4", "return_url") if secret in kept]


class TestWithoutMulticapture:
    async def test_a_part_that_is_not_the_last_is_refused_before_anything_is_written(self, second_place: Place) -> None:
        async with a_world(second_place, provider="stripe", payments={"stripe_multicapture": False}) as world:
            world.sandbox.account = Account(multicapture=False)
            payment = await world.a_payment("pm_card_visa")

            part = await payment.capture(4_000)
            last = await payment.capture(4_000, final=True)

            assert (part.status, part.code) == (422, "unsupported-by-provider")
            assert "final" in part.json["detail"]
            assert (last.status, last.json["intent"]["status"]) == (201, "captured")
            assert last.json["intent"]["voided_amount"] == TOTAL - 4_000
            await world.books_agree(payment.order_id)


class TestMisfortunes:
    @pytest.fixture(autouse=True)
    def in_good_mood_again(self, world: World) -> Iterator[None]:
        yield
        world.outgoing.moods = Moods()

    async def test_events_that_come_twice_late_and_out_of_order_end_the_same(self, world: World) -> None:
        world.outgoing.moods = Moods(doubled=0.7, late=0.3, late_seconds=0.4, shuffled_seconds=0.4)
        payment = await world.a_payment("pm_card_visa")
        await payment.capture(6_000)
        books, at_stripe = world.sandbox.books, payment.at_the_provider()
        books.add(at_stripe, "capture", 4_000, reason="dashboard")
        books.add(at_stripe, "refund", 1_500, reason="dashboard")

        await stands(payment, "partially_refunded", captured=TOTAL, refunded=1_500)
        await all_processed(world)

        await stands(payment, "partially_refunded", captured=TOTAL, refunded=1_500)
        await world.books_agree(payment.order_id)

    async def test_an_event_that_was_lost_is_sent_again_on_request(self, world: World) -> None:
        payment = await world.a_captured_payment("pm_card_visa")
        world.outgoing.moods = Moods(lost=1.0)
        before = set(world.outgoing.events)
        world.sandbox.books.add(payment.at_the_provider(), "refund", 400, reason="dashboard")
        lost = [each for event_id, each in world.outgoing.events.items() if event_id not in before]

        async with httpx.AsyncClient(base_url=world.sandbox.base_url) as http:
            await http.post(f"/control/webhooks/{lost[0].id}/send")

        assert [(each.type, each.deliveries) for each in lost[1:]] == [("charge.refunded", 0)]
        await stands(payment, "partially_refunded", refunded=400)


async def all_processed(world: World) -> None:
    """Wait until every event that was made has arrived and is done with."""

    async def so() -> bool:
        rows = await world.rows("SELECT provider_event_id, status FROM webhooks.webhook_events WHERE provider = 'stripe'")
        done = {row["provider_event_id"] for row in rows if row["status"] in ("processed", "ignored")}
        return done == set(world.outgoing.events)

    await until(so)


async def all_of(world: World, payment: Payment) -> None:
    """Wait until every event of a payment is done with."""
    made = {t.id for t in world.outgoing.events.values() if payment.at_the_provider().id.encode() in t.body}

    async def so() -> bool:
        rows = await world.rows("SELECT provider_event_id, status FROM webhooks.webhook_events WHERE provider = 'stripe'")
        return made <= {row["provider_event_id"] for row in rows if row["status"] in ("processed", "ignored")}

    await until(so)


class TestWithoutUs:
    async def test_what_is_done_in_the_dashboard_enters_the_ledger(self, world: World) -> None:
        payment = await world.a_payment("pm_card_visa")
        books, at_stripe = world.sandbox.books, payment.at_the_provider()

        books.add(at_stripe, "capture", 7_000, reason="dashboard")
        await stands(payment, "partially_captured", captured=7_000)
        books.add(at_stripe, "refund", 2_000, reason="dashboard")
        await stands(payment, "partially_refunded", refunded=2_000)

        assert await sources(payment) == [("authorize", "api", TOTAL), ("capture", "webhook", 7_000), ("refund", "webhook", 2_000)]
        await world.books_agree(payment.order_id)

    async def test_a_dispute_and_its_being_won(self, world: World) -> None:
        payment = await world.a_payment("pm_card_createDispute")
        await payment.capture()

        await stands(payment, "refunded", charged_back=TOTAL)
        world.sandbox.books.add(payment.at_the_provider(), "chargeback_reversal", TOTAL)
        intent = await stands(payment, "captured", charged_back=0)

        assert intent["attention"] is None
        assert [operation for operation, _, _ in await sources(payment)] == ["authorize", "capture", "chargeback", "chargeback_reversal"]
        assert (await world.ledger(payment.order_id))["order_status"] == "paid"
        await world.books_agree(payment.order_id)

    async def test_a_hold_that_lapses_expires(self, world: World) -> None:
        payment = await world.a_payment("tok_authorization_expires")

        async def lapsed() -> bool:
            return world.sandbox.books.get(payment.at_the_provider().id).released

        await until(lapsed)
        await stands(payment, "expired")

    async def test_a_cancellation_in_the_dashboard_voids(self, world: World) -> None:
        payment = await world.a_payment("pm_card_visa")

        world.sandbox.books.add(payment.at_the_provider(), "void", TOTAL, reason="requested_by_customer")

        await stands(payment, "voided")
        assert (await world.authorize(payment.order_id, await world.a_snapshot(payment.order_id))).status == 201

    async def test_our_own_void_is_one_row_however_it_is_told(self, world: World) -> None:
        payment = await world.a_payment("pm_card_visa")
        voided = await payment.void()
        told = [t for t in world.outgoing.events.values() if payment.at_the_provider().id.encode() in t.body]
        for each in told:
            assert (await post(world, each)).status == 200

        async def all_told() -> bool:
            rows = await world.rows("SELECT FROM webhooks.webhook_events WHERE status NOT IN ('processed', 'ignored')")
            return not rows

        await until(all_told)
        assert voided.status == 201
        assert await sources(payment) == [("authorize", "api", TOTAL), ("void", "api", TOTAL)]

    async def test_what_others_do_with_the_account_is_ignored(self, world: World) -> None:
        stranger = world.sandbox.books.open("pi", amount=500, currency="eur", payment_method="pm_card_visa")
        world.sandbox.books.attempt(stranger, world.sandbox.base_url)

        async def ignored() -> Any:
            path = "/api/v1/admin/webhooks/events?provider=stripe&status=ignored&limit=100"
            events = (await world.send("GET", path, role=Role.ADMIN)).json["events"]
            kinds = {"charge.succeeded", "payment_intent.amount_capturable_updated"}
            ours = {t.id for t in world.outgoing.events.values() if stranger.id.encode() in t.body}
            return {e["event_type"] for e in events if e["provider_event_id"] in ours} == kinds

        await until(ignored)

    @pytest.mark.parametrize("kind", ["refund", "chargeback"])
    async def test_what_comes_back_of_strangers_payments_is_ignored_at_once(self, world: World, kind: str) -> None:
        """F15: neither a refund nor a dispute says whose it is, and three days were waited for the payment."""
        stranger = world.sandbox.books.open("pi", amount=500, currency="eur", payment_method="pm_card_visa", capture_method="automatic")
        world.sandbox.books.attempt(stranger, world.sandbox.base_url)
        world.sandbox.books.add(stranger, kind, 500, reason="dashboard")
        events = [t.id for t in world.outgoing.events.values() if stranger.id.encode() in t.body]

        async def ignored() -> bool:
            rows = await world.rows("SELECT status, provider_event_id FROM webhooks.webhook_events WHERE provider = 'stripe'")
            return [row["status"] for row in rows if row["provider_event_id"] in events] == ["ignored"] * len(events)

        await until(ignored)

    async def test_what_others_wrote_into_metadata_stops_nothing(self, world: World) -> None:
        """C09, F7: also where they overwrote our reference."""
        payment = await world.a_payment("pm_card_visa")
        at_stripe = payment.at_the_provider()
        at_stripe.metadata = {**at_stripe.metadata, "cap_size": "L", "cap_x": " "}
        world.sandbox.books.add(at_stripe, "capture", 4_000, reason="dashboard")
        await stands(payment, "partially_captured", captured=4_000)

        at_stripe.metadata = {"tender_reference": "mine"}
        world.sandbox.books.add(at_stripe, "capture", 6_000, reason="dashboard")

        await stands(payment, "captured", captured=TOTAL)


class TestAnOldAccount:
    """F2: events, dashboard and time of an account of before 2025-03-31.basil leave Refunds of what was never captured."""

    @pytest.fixture(autouse=True, params=["2023-08-16", "2020-08-27"])
    def of_old(self, world: World, request: pytest.FixtureRequest) -> Iterator[None]:
        world.sandbox.account = Account(api_version=request.param)
        yield
        world.sandbox.account = Account()

    async def test_a_cancellation_voids_and_frees_the_order(self, world: World) -> None:
        payment = await world.a_payment("pm_card_visa")

        world.sandbox.books.add(payment.at_the_provider(), "void", TOTAL, reason="requested_by_customer")

        intent = await stands(payment, "voided", refunded=0, captured=0)
        await all_of(world, payment)
        assert intent["attention"] is None
        assert payment.at_the_provider().moved("let_go") == TOTAL
        assert (await world.ledger(payment.order_id))["order_status"] == "open"
        assert (await world.authorize(payment.order_id, await world.a_snapshot(payment.order_id))).status == 201

    async def test_a_void_of_ours_is_one(self, world: World) -> None:
        payment = await world.a_payment("pm_card_visa")

        assert (await payment.void()).json["intent"]["status"] == "voided"
        await all_of(world, payment)

        await stands(payment, "voided", refunded=0)

    async def test_a_hold_that_lapses_expires(self, world: World) -> None:
        payment = await world.a_payment("tok_authorization_expires")

        async def lapsed() -> bool:
            return world.sandbox.books.get(payment.at_the_provider().id).released

        await until(lapsed)
        await stands(payment, "expired", refunded=0)
        await all_of(world, payment)
        await stands(payment, "expired", refunded=0)

    async def test_a_last_capture_of_less_leaves_all_refundable(self, world: World) -> None:
        payment = await world.a_payment("pm_card_visa")
        books, at_stripe = world.sandbox.books, payment.at_the_provider()

        books.add(at_stripe, "capture", 7_000, final=True, reason="dashboard")
        await stands(payment, "captured", captured=7_000, refunded=0)
        await all_of(world, payment)
        books.add(at_stripe, "refund", TOTAL - 7_000, reason="dashboard")
        await stands(payment, "partially_refunded", captured=7_000, refunded=TOTAL - 7_000)
        rest = await payment.refund()

        assert (rest.status, rest.json["transaction"]["amount"]) == (201, 7_000 - (TOTAL - 7_000))
        await stands(payment, "refunded", refunded=7_000)


class TestLimits:
    @pytest.mark.parametrize(
        ("currency", "price"), [("CLF", 10_000), ("IQD", 100_000), ("EUR", 49), ("GBP", 29), ("EUR", 10**8), ("IDR", 10**12)]
    )
    async def test_what_stripe_does_not_charge_is_refused_before_anything_is_written(self, world: World, currency: str, price: int) -> None:
        """F17: docs.stripe.com/currencies."""
        payment = {"currency": currency, "items": [{**ITEM, "unit_price": price}], "shipping_amount": 0, "tax_lines": []}
        order_id = await world.an_order(**payment)

        answer = await world.authorize(order_id, await world.a_snapshot(order_id), "pm_card_visa")

        assert (answer.status, answer.code) == (422, "unsupported-by-provider")
        assert (await world.ledger(order_id))["payments"] == []

    async def test_twelve_digits_of_idr_are_charged(self, world: World) -> None:
        amount = 10**12 - 1
        order_id = await world.an_order(currency="IDR", items=[{**ITEM, "unit_price": amount}], shipping_amount=0, tax_lines=[])

        answer = await world.authorize(order_id, await world.a_snapshot(order_id), "pm_card_visa")

        assert (answer.status, answer.json["intent"]["authorized_amount"]) == (201, amount)

    async def test_a_payment_is_captured_fifty_times(self, world: World) -> None:
        """C54: docs.stripe.com/payments/multicapture allows fifty, of fifty keys of metadata two are ours already."""
        payment = await world.a_payment("pm_card_visa")

        answers = [await payment.capture(100) for _ in range(50)]
        refused = await payment.capture(100)

        assert {answer.status for answer in answers} == {201}
        assert (refused.status, refused.code) == (422, "unsupported-by-provider")
        assert len(payment.at_the_provider().metadata) <= 50
        await world.books_agree(payment.order_id)

    @pytest.mark.parametrize("amounts", [(10_000, None), (400, 400), (400, 300), (300, 400)])
    async def test_a_declined_capture_claims_nothing_of_the_next(self, world: World, amounts: tuple[int, int | None]) -> None:
        """Whether a declined call leaves its metadata no documentation says, so the next capture takes the note away."""
        payment = await world.a_payment("tok_capture_declined")
        declined = [await payment.capture(amounts[0]) for _ in range(2)]
        payment.at_the_provider().payment_method = "pm_card_visa"

        answer = await payment.capture(amounts[1])

        assert {each.status for each in declined} == {402}
        assert (answer.status, answer.json["intent"]["captured_amount"]) == (201, amounts[1] or 10_000)
        assert answer.json["intent"]["attention"] is None
        await world.books_agree(payment.order_id)


ITEM = {"product_variant_id": "0192f0c1-7e00-7000-8000-000000000001", "name": "Mug", "quantity": 1}
