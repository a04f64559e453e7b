"""Every field that is simulated, at every depth, and every field that is read is of stripe-python's types (what is sent: test_requests)."""

from typing import Any, get_args

import msgspec
import pytest
import stripe as library
from stripe import params

from services.payments.providers.stripe import objects
from tests.provider_facts.stripe.conftest import HELD, Stripe
from tests.provider_facts.stripe.sdk_types import NONE, lacking, may_be_null, unfit_form, unfit_object

KINDS: dict[str, type] = {
    "balance_transaction": library.BalanceTransaction,
    "charge": library.Charge,
    "dispute": library.Dispute,
    "event": library.Event,
    "payment_intent": library.PaymentIntent,
    "refund": library.Refund,
}
# What we read, and whose fields the library names.
READ: dict[type[msgspec.Struct], list[type]] = {
    objects.PaymentIntent: [library.PaymentIntent],
    objects.Charge: [library.Charge],
    objects.Refund: [library.Refund],
    objects.Dispute: [library.Dispute],
    objects.BalanceTransaction: [library.BalanceTransaction],
    objects.PaymentError: [library.PaymentIntent.LastPaymentError],
    objects.Action: [library.PaymentIntent.NextAction],
    objects.RedirectToUrl: [library.PaymentIntent.NextAction.RedirectToUrl],
    objects.Owned: [library.Charge, library.Refund, library.Dispute],
}


def unfit(thing: dict[str, Any]) -> list[str]:
    kind = KINDS[thing["object"]]
    found = unfit_object(thing, kind) + sorted(lacking(thing, kind))
    inner = thing["data"]["object"] if thing["object"] == "event" else None
    return found if inner is None else found + unfit(inner)


class TestSimulated:
    async def a_life(self, stripe: Stripe) -> list[str]:
        """Make payments that stand wherever a payment can stand."""
        held, voided, captured, disputed, lapsed = [await stripe.hold(method=m) for m in METHODS]
        await stripe.hold(method="pm_card_visa_chargeDeclinedStolenCard")
        await stripe.hold(method="pm_card_threeDSecure2Required")
        await stripe.void(voided)
        await stripe.capture(captured, 7_000)
        await stripe.refund(captured, 1_000)
        await stripe.capture(disputed, HELD)
        stripe.at_stripe(lapsed).authorization_expires_at = stripe.at_stripe(lapsed).created_at
        return [held, voided, captured, disputed, lapsed]

    async def test_objects(self, stripe: Stripe) -> None:
        await self.a_life(stripe)
        seen: dict[str, int] = {}

        for path in ("payment_intents", "refunds", "disputes", "events"):
            expand = {"expand[]": "data.latest_charge.refunds"} if path == "payment_intents" else {}
            for thing in (await stripe.http.get(f"/v1/{path}", params={"limit": "100", **expand})).json()["data"]:
                assert unfit(thing) == [], thing
                seen[thing["object"]] = seen.get(thing["object"], 0) + 1
                brought = (thing.get("latest_charge") or {}).get("balance_transaction")
                if brought:
                    assert unfit((await stripe.http.get(f"/v1/balance_transactions/{brought}")).json()) == []

        assert seen.keys() == {"payment_intent", "refund", "dispute", "event"}

    @pytest.mark.parametrize(
        ("changes", "wrong"),
        [
            ({"colour": "red"}, "colour"),
            ({"amount": "1"}, "amount"),
            ({"status": None}, "status"),
            ({"next_action": {"redirect_to_url": {"urls": ""}, "type": "x"}}, "next_action.redirect_to_url.urls"),
        ],
    )
    async def test_the_judge_sees_what_is_wrong(self, stripe: Stripe, changes: dict[str, Any], wrong: str) -> None:
        payment_id = await stripe.hold()
        thing = (await stripe.http.get(f"/v1/payment_intents/{payment_id}")).json()

        found = unfit({**thing, **changes})

        assert len(found) == 1
        assert found[0].startswith(wrong)


METHODS = ["pm_card_visa", "pm_card_visa", "pm_card_visa", "pm_card_createDispute", "pm_card_visa"]


class TestRead:
    @pytest.mark.parametrize("kind", READ, ids=lambda kind: kind.__name__)
    def test_fields(self, kind: type[msgspec.Struct]) -> None:
        for field in msgspec.structs.fields(kind):
            theirs = [each for each in READ[kind] if field.name in each.__annotations__]
            assert theirs, field.name
            for each in theirs:
                # What Stripe may leave out or say null of, we read as none.
                assert NONE in get_args(field.type) or not may_be_null(each, field.name), (each, field.name)


def test_a_form_is_judged_too() -> None:
    wrong = {"amount": "x", "payment_method_types": {"0": "card"}, "capture_method": "later"}

    found = unfit_form(wrong, params.PaymentIntentCreateParams)

    assert sorted(each.split(" ")[0] for each in found) == ["amount", "capture_method", "currency", "payment_method_types"]
