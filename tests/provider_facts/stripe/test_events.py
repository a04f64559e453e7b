"""Which events a change makes, and what the adapter makes of each (docs.stripe.com/api/events/types).

Neither their order nor their number is promised (docs.stripe.com/webhooks#event-ordering); tests/webhooks/test_any_order.py tries that.
"""

from collections.abc import Awaitable, Callable

import msgspec
import pytest

from services.payments.providers import Observed
from tests.provider_facts.stripe.conftest import HELD, Stripe

Change = Callable[[Stripe], Awaitable[str]]


async def held(stripe: Stripe) -> str:
    return await stripe.hold()


async def declined(stripe: Stripe) -> str:
    return await stripe.hold(method="pm_card_visa_chargeDeclined")


async def waiting(stripe: Stripe) -> str:
    return await stripe.hold(method="pm_card_threeDSecure2Required")


async def captured_in_part(stripe: Stripe) -> str:
    payment_id = await stripe.hold()
    await stripe.capture(payment_id, 4_000, final=False)
    return payment_id


async def captured(stripe: Stripe) -> str:
    payment_id = await stripe.hold()
    await stripe.capture(payment_id, HELD)
    return payment_id


async def voided(stripe: Stripe) -> str:
    payment_id = await stripe.hold()
    await stripe.void(payment_id)
    return payment_id


async def lapsed(stripe: Stripe) -> str:
    payment_id = await stripe.hold()
    stripe.at_stripe(payment_id).authorization_expires_at = stripe.at_stripe(payment_id).created_at
    return stripe.at_stripe(payment_id).id


async def refunded(stripe: Stripe) -> str:
    payment_id = await captured(stripe)
    await stripe.refund(payment_id, 1_000)
    return payment_id


async def disputed(stripe: Stripe) -> str:
    payment_id = await stripe.hold(method="pm_card_createDispute")
    await stripe.capture(payment_id, HELD)
    return payment_id


async def refund_failed(stripe: Stripe) -> str:
    payment_id = await refunded(stripe)
    stripe.sandbox.books.settle_refund(stripe.at_stripe(payment_id), "refund_fail", {})
    return payment_id


async def won(stripe: Stripe) -> str:
    payment_id = await disputed(stripe)
    stripe.sandbox.books.dispute(stripe.at_stripe(payment_id), {"status": "won"})
    return payment_id


async def inquired(stripe: Stripe) -> str:
    payment_id = await captured(stripe)
    for status in ("warning_needs_response", "warning_closed"):
        stripe.sandbox.books.dispute(stripe.at_stripe(payment_id), {"status": status})
    return payment_id


HOLD = ["charge.succeeded", "payment_intent.amount_capturable_updated"]
CAPTURE = [*HOLD, "charge.captured", "payment_intent.succeeded"]
# A change, and the events of a payment that ends with it; each in the words of the documentation.
EVENTS: list[tuple[Change, list[str]]] = [
    # "Occurs when a PaymentIntent has funds to be captured."
    (held, HOLD),
    # "Occurs when a PaymentIntent has failed the attempt to create a payment method or a payment."
    (declined, ["charge.failed", "payment_intent.payment_failed"]),
    # "Occurs when a PaymentIntent transitions to requires_action state"
    (waiting, ["payment_intent.requires_action"]),
    # "Occurs whenever a previously uncaptured charge is captured."
    (captured_in_part, [*HOLD, "charge.captured", "payment_intent.amount_capturable_updated"]),
    # "Occurs when a PaymentIntent has successfully completed payment."
    (captured, CAPTURE),
    # "Occurs when a PaymentIntent is canceled."
    (voided, [*HOLD, "payment_intent.canceled"]),
    # "Occurs whenever an uncaptured charge expires."
    (lapsed, [*HOLD, "charge.expired", "payment_intent.canceled"]),
    # "Occurs whenever a refund is created." "Occurs whenever a charge is refunded, including partial refunds."
    (refunded, [*CAPTURE, "refund.created", "charge.refunded"]),
    # "Occurs whenever a customer disputes a charge with their bank." "Occurs when funds are removed from your account due to a dispute."
    (disputed, [*CAPTURE, "charge.dispute.created", "charge.dispute.funds_withdrawn"]),
    # "Occurs whenever a refund has failed." "Occurs whenever a refund is updated." Of cards the last is told as before.
    (refund_failed, [*CAPTURE, "refund.created", "charge.refunded", "refund.failed", "refund.updated", "charge.refund.updated"]),
    # "Occurs when a dispute is closed and the dispute status changes to lost, warning_closed, or won." "Occurs when funds are reinstated
    # to your account after a dispute is closed. This includes partially refunded payments."
    (
        won,
        [*CAPTURE, "charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.dispute.closed", "charge.dispute.funds_reinstated"],
    ),
    # An inquiry takes nothing.
    (inquired, [*CAPTURE, "charge.dispute.created", "charge.dispute.closed"]),
]
# Of the rest the PaymentIntent says more.
SAYS_NOTHING = {"charge.succeeded", "charge.failed"}


@pytest.mark.parametrize(("change", "events"), EVENTS, ids=lambda value: getattr(value, "__name__", ""))
async def test_what_a_change_tells(stripe: Stripe, told: Callable[[], list[str]], change: Change, events: list[str]) -> None:
    await change(stripe)

    assert told() == events


@pytest.mark.parametrize(("change", "events"), EVENTS, ids=lambda value: getattr(value, "__name__", ""))
async def test_what_the_adapter_reads_of_it(stripe: Stripe, change: Change, events: list[str]) -> None:
    """A PaymentIntent says how it stands; a charge, a refund and a dispute say of which payment the books are to be read."""
    payment_id = await change(stripe)

    seen: dict[str, Observed | None] = {
        event.type: stripe.adapter.observe(event.type, event.body)
        for event in stripe.sandbox.stripe.events.values()
        if payment_id in msgspec.json.encode(msgspec.json.decode(event.body)["data"]).decode()
    }

    assert seen.keys() == set(events)
    for kind, observed in seen.items():
        if kind in SAYS_NOTHING:
            assert observed is None
        else:
            assert observed is not None
            assert (observed.provider_payment_id, observed.strangers) == (payment_id, False)
            assert (observed.observations is not None) == kind.startswith("payment_intent.")
