"""Every amount up to 10^15 minor units passes through the whole life of a payment (public report: iZettle/sdk-android issue 4).

2^31 is the first that 32 bits do not hold: 21 474 836.48 of a currency with two decimals, a day's ordinary purchase in Indonesian rupiah.
"""

import pytest

from tests.world import World

# The first over 32 bits; the most that Stripe takes of rupiah (docs.stripe.com/currencies: twelve digits); the most that the API takes.
LARGE = (2**31, 10**12 - 1, 10**15)


def an_item(amount: int) -> dict[str, object]:
    return {"product_variant_id": "0192f0c1-7e00-7000-8000-000000000001", "name": "House", "quantity": 1, "unit_price": amount}


@pytest.mark.parametrize("amount", LARGE)
class TestALargeAmount:
    async def test_is_captured_and_refunded_whole(self, world: World, amount: int) -> None:
        payment = await world.a_payment(items=[an_item(amount)])

        assert (await payment.capture()).status == 201
        assert (await payment.refund()).status == 201

        intent = await payment.intent()
        assert (intent["captured_amount"], intent["refunded_amount"], intent["status"]) == (amount, amount, "refunded")
        await world.books_agree(payment.order_id)

    async def test_is_captured_and_refunded_in_parts(self, world: World, amount: int) -> None:
        payment = await world.a_payment(items=[an_item(amount)])

        assert (await payment.capture(amount - 1)).status == 201
        assert (await payment.capture(1)).status == 201
        assert (await payment.refund(1)).status == 201
        assert (await payment.refund(amount - 1)).status == 201

        assert (await payment.intent())["refunded_amount"] == amount
        await world.books_agree(payment.order_id)

    async def test_is_never_more_than_there_is(self, world: World, amount: int) -> None:
        payment = await world.a_payment(items=[an_item(amount)])

        assert (await payment.capture(amount)).status == 201
        assert (await payment.refund(amount - 1)).status == 201
        assert (await payment.refund(2)).status == 409
        await world.books_agree(payment.order_id)

    async def test_is_voided(self, world: World, amount: int) -> None:
        payment = await world.a_payment(items=[an_item(amount)])

        assert (await payment.void()).status == 201

        assert (await payment.intent())["status"] == "voided"

    async def test_is_submitted_at_once(self, world: World, amount: int) -> None:
        order_id = await world.an_order(items=[an_item(amount)])

        answer = await world.send("POST", f"/api/v1/checkout/orders/{order_id}/submit-payment", {"payment_method": "tok_success"})

        assert answer.status == 201
        await world.books_agree(order_id)
