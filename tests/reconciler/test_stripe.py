"""Stripe's books reconciled (F7): strangers use the account too, currencies come and go, and not everything can be read."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.payments.providers.stripe.amounts import to_stripe
from shared.ids import new_id
from tests.reconciler.books import a_run, brief, drift
from tests.world import ORDER, Place, World, a_world


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, provider="stripe", reconciler={}) as made:
        yield made


async def test_strangers_payments_are_none_of_our_business(world: World) -> None:
    """C09, C10: a payment in a currency that has gone, and metadata that looks like ours."""
    payment = await world.a_captured_payment("pm_card_visa")
    books = world.sandbox.books
    metadata = {"cap_size": "L", "tender_reference": "theirs"}
    made: tuple[dict[str, Any], ...] = ({"currency": "ang"}, {"currency": "xyz"}, {"metadata": metadata})
    for facts in made:
        stranger = books.open(
            "pi", **{"amount": 500, "currency": "eur", "payment_method": "pm_card_visa", "capture_method": "automatic", **facts}
        )
        books.attempt(stranger, world.sandbox.base_url)
        books.add(stranger, "chargeback", 500)

    run = await a_run(world)

    assert (run["last_error"], run["drift_found"], run["compared"]) == (None, 0, 1)
    await world.books_agree(payment.order_id)


async def test_one_unreadable_payment_is_one_finding(world: World) -> None:
    unfit, fit = await world.a_captured_payment("pm_card_visa"), await world.a_captured_payment("pm_card_visa")
    at_stripe = unfit.at_the_provider()
    at_stripe.currency = "xyz"
    world.sandbox.books.add(fit.at_the_provider(), "refund", 400, reason="dashboard")

    first = await a_run(world)
    await a_run(world)
    found = await drift(world, status="open", type="unreadable")
    at_stripe.currency = "eur"
    await a_run(world)

    assert first["last_error"] is None
    assert (await fit.intent())["refunded_amount"] == 400
    assert [(item["key"], item["order_id"]) for item in found] == [(at_stripe.id, str(unfit.order_id))]
    assert "XYZ" in found[0]["entry"]
    assert brief(await drift(world, type="unreadable"))[0][2] == "healed"


async def test_what_was_paid_in_a_currency_that_has_gone_is_refunded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """BGN left ISO 4217 at the end of 2025, and Stripe's list with it."""
    with monkeypatch.context() as in_2025:
        in_2025.setattr("services.payments.handlers.orders.current_exponent", lambda currency: 2)
        in_2025.setattr("services.payments.providers.stripe.requests.chargeable", to_stripe)
        payment = await world.a_payment("pm_card_visa", currency="BGN")
        unpaid = await world.an_order(currency="BGN")

    answers = [await payment.capture(7_000), await payment.refund(1_000), await payment.capture()]
    cancelled = await world.put_order(unpaid, {**ORDER, "currency": "BGN", "cancelled": True})
    refused = await world.put_order(new_id(), {**ORDER, "currency": "BGN"})
    run = await a_run(world)

    assert [answer.status for answer in (*answers, cancelled)] == [201, 201, 201, 200]
    assert (refused.status, refused.code) == (422, "unknown-currency")
    assert run["last_error"] is None
    await world.books_agree(payment.order_id)
