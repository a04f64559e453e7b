"""What was held and let go is no refund (F2).

docs.stripe.com/changelog/basil/2025-03-31/remove-refund-from-partial-capture-and-payment-cancellation-flow: until then a partial capture
and a cancellation, by hand or by time, left a Refund of what was let go; it and its events are made no more.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
import pytest

from deploy.sandbox.server import Account
from services.payments.domain.intents import Operation, Reason
from services.payments.providers.stripe import API_VERSION, objects
from services.payments.providers.stripe.objects import BalanceTransaction, PaymentIntent
from shared.ids import new_id
from tests.provider_facts.stripe.conftest import HELD, OLD, Stripe

CAPTURED = 7_000
REST = HELD - CAPTURED

# Who let go of the rest: a call in the version of today or of old, the dashboard, or time; of the last two the account's version decides.
VERSIONS = ["today", "old"]


@pytest.fixture(params=VERSIONS)
async def account(request: pytest.FixtureRequest, stripe: Stripe) -> Stripe:
    """An account of today or of old; the adapter speaks today's version."""
    stripe.sandbox.account = Account(api_version=OLD if request.param == "old" else API_VERSION)
    return stripe


def refunds_at_stripe(stripe: Stripe, payment_id: str) -> int:
    return stripe.at_stripe(payment_id).moved("let_go")


class TestPaymentsOfOld:
    """They were made, captured and voided in 2023-08-16, and are read in today's version."""

    async def test_a_void_is_a_void(self, old_stripe: Stripe, stripe: Stripe) -> None:
        payment_id = await old_stripe.hold()
        await old_stripe.void(payment_id)

        assert refunds_at_stripe(stripe, payment_id) == HELD
        assert await stripe.shows(payment_id) == [("void", HELD)]

    async def test_a_last_capture_of_less_refunds_nothing(self, old_stripe: Stripe, stripe: Stripe) -> None:
        payment_id = await old_stripe.hold()
        await old_stripe.capture(payment_id, CAPTURED)

        assert refunds_at_stripe(stripe, payment_id) == REST
        assert await stripe.shows(payment_id) == [("capture", CAPTURED)]

    async def test_a_real_refund_of_just_as_much_is_one(self, old_stripe: Stripe, stripe: Stripe) -> None:
        payment_id = await old_stripe.hold()
        await old_stripe.capture(payment_id, CAPTURED)
        stripe.in_the_dashboard(payment_id, "refund", REST)

        assert await stripe.shows(payment_id) == [("capture", CAPTURED), ("refund", REST)]

    async def test_a_refund_of_ours_of_just_as_much_is_one(self, old_stripe: Stripe, stripe: Stripe) -> None:
        payment_id = await old_stripe.hold()
        await old_stripe.capture(payment_id, CAPTURED)
        await stripe.refund(payment_id, REST)

        assert await stripe.shows(payment_id) == [("capture", CAPTURED), ("refund", REST)]

    async def test_one_among_more_refunds_than_are_shown_is_told_apart(self, old_stripe: Stripe, stripe: Stripe) -> None:
        payment_id = await old_stripe.hold()
        await old_stripe.capture(payment_id, CAPTURED)
        for _ in range(12):
            stripe.in_the_dashboard(payment_id, "refund", 500)

        shown = await stripe.shows(payment_id)

        assert sum(amount for operation, amount in shown if operation == "refund") == 6_000

    async def test_is_seen_alike_in_a_listing(self, old_stripe: Stripe, stripe: Stripe) -> None:
        payment_id = await old_stripe.hold()
        await old_stripe.void(payment_id)
        made = (await stripe.read(payment_id)).created_at

        page = await stripe.adapter.list_transactions(since=made, until=made, cursor=None)

        [found] = [each for each in page.transactions if each.provider_payment_id == payment_id]
        assert [o.operation for o in found.observations] == [Operation.AUTHORIZE, Operation.VOID]

    async def test_the_answers_of_old_say_the_same(self, old_stripe: Stripe) -> None:
        voided = await old_stripe.void(await old_stripe.hold())
        captured = await old_stripe.capture(await old_stripe.hold(), CAPTURED)

        assert [o.operation for o in voided] == [Operation.AUTHORIZE, Operation.VOID]
        assert [(o.operation, o.amount) for o in captured] == [(Operation.AUTHORIZE, HELD), (Operation.CAPTURE, CAPTURED)]


class TestWithoutUs:
    """The dashboard and time speak the account's version, whatever ours is."""

    async def test_a_cancellation_voids(self, account: Stripe) -> None:
        payment_id = await account.hold()

        account.in_the_dashboard(payment_id, "void", HELD, reason="requested_by_customer")

        assert await account.shows(payment_id) == [("void", HELD)]

    async def test_a_hold_that_lapses_expires(self, account: Stripe) -> None:
        payment_id = await account.hold()
        payment = account.at_stripe(payment_id)
        payment.authorization_expires_at = payment.created_at

        observations = (await account.read(payment_id)).observations

        assert [(o.operation, o.reason) for o in observations[1:]] == [(Operation.VOID, Reason.EXPIRED.value)]

    async def test_what_lapses_after_a_part_was_captured_expires(self, account: Stripe) -> None:
        payment_id = await account.hold()
        await account.capture(payment_id, CAPTURED, final=False)
        payment = account.at_stripe(payment_id)
        payment.authorization_expires_at = payment.created_at

        assert await account.shows(payment_id) == [("capture", CAPTURED), ("void", REST)]

    @pytest.mark.parametrize("refunded", [0, REST, 1_000])
    async def test_a_last_capture_of_less_refunds_nothing(self, account: Stripe, refunded: int) -> None:
        payment_id = await account.hold()

        account.in_the_dashboard(payment_id, "capture", CAPTURED, final=True)
        if refunded:
            account.in_the_dashboard(payment_id, "refund", refunded)

        returned = [("refund", refunded)] if refunded else []
        assert await account.shows(payment_id) == [("capture", CAPTURED), ("void", REST), *returned]

    async def test_our_own_calls_leave_no_refund_in_an_old_account(self, account: Stripe) -> None:
        voided, captured = await account.hold(), await account.hold()
        await account.void(voided)
        await account.capture(captured, CAPTURED)
        account.in_the_dashboard(captured, "refund", REST)

        assert await account.shows(voided) == [("void", HELD)]
        assert await account.shows(captured) == [("capture", CAPTURED), ("refund", REST)]


class TestTheSimulation:
    """The same changelog entry, field by field."""

    async def looked_at(self, stripe: Stripe, payment_id: str, version: str) -> dict[str, Any]:
        expand, headers = {"expand[]": "latest_charge.refunds"}, {"Stripe-Version": version}
        found = await stripe.http.get(f"/v1/payment_intents/{payment_id}", params=expand, headers=headers)
        thing: dict[str, Any] = found.json()
        return thing

    @pytest.mark.parametrize(
        ("version", "fields"), [(OLD, (None, HELD, True, [HELD])), (API_VERSION, (0, 0, False, []))], ids=["old", "today"]
    )
    async def test_a_cancellation(self, stripe: Stripe, version: str, fields: Any) -> None:
        stripe.sandbox.account.api_version = version
        payment_id = await stripe.hold()
        stripe.in_the_dashboard(payment_id, "void", HELD)

        charge = (await self.looked_at(stripe, payment_id, version))["latest_charge"]

        refunds = [refund["amount"] for refund in charge["refunds"]["data"]]
        assert (charge["amount_captured"], charge["amount_refunded"], charge["refunded"], refunds) == fields

    @pytest.mark.parametrize(("version", "reason"), [(OLD, "automatic"), (API_VERSION, "expired")])
    async def test_a_lapsed_hold_says_why(self, stripe: Stripe, version: str, reason: str) -> None:
        stripe.sandbox.account.api_version = version
        payment_id = await stripe.hold()
        payment = stripe.at_stripe(payment_id)
        payment.authorization_expires_at = payment.created_at

        assert (await self.looked_at(stripe, payment_id, version))["cancellation_reason"] == reason

    @pytest.mark.parametrize(
        ("version", "events"),
        [
            ("2023-08-16", ["payment_intent.canceled", "charge.refunded"]),
            ("2024-10-28.acacia", ["payment_intent.canceled", "refund.created", "charge.refunded"]),
            (API_VERSION, ["payment_intent.canceled"]),
        ],
    )
    async def test_what_is_told(self, stripe: Stripe, version: str, events: list[str], told: Callable[[], list[str]]) -> None:
        """Refunds of every kind have events of their own since changelog/acacia/2024-10-28/refund-webhook-update."""
        stripe.sandbox.account.api_version = version
        payment_id = await stripe.hold()
        begun = len(told())

        stripe.in_the_dashboard(payment_id, "void", HELD)

        assert told()[begun:] == events


INTENT: dict[str, Any] = {
    "id": "pi_1",
    "object": "payment_intent",
    "amount": 1000,
    "currency": "eur",
    "created": 1_760_000_000,
    "metadata": {"tender_reference": str(new_id())},
}
CAPTURE = UUID("0199c9c6-0000-7000-8000-000000000001")
ENDED = int(objects.minted_at(CAPTURE).timestamp())


def a_refund(identifier: str, amount: int, **changes: Any) -> dict[str, Any]:
    facts = {"status": "succeeded", "created": ENDED, "metadata": {}, "reason": None}
    return {"id": identifier, "object": "refund", "amount": amount, "currency": "eur", "payment_intent": "pi_1", **facts, **changes}


def returned(
    status: str, received: int, refunds: list[dict[str, Any]], brought: BalanceTransaction | None = None, **charge: Any
) -> list[str]:
    """Name the refunds that a payment shows; its refunds come with the newest first."""
    whole = {"id": "ch_1", "object": "charge", "status": "succeeded", "refunds": {"data": refunds[::-1], "has_more": False}, **charge}
    notes = {f"cap_{CAPTURE.hex}": f"{received} final"} if received else {}
    facts = {"status": status, "amount_received": received, "latest_charge": whole, "metadata": {**INTENT["metadata"], **notes}}
    found = objects.transaction(msgspec.convert({**INTENT, **facts}, PaymentIntent), brought=brought)
    return [o.provider_txn_id or "" for o in found.observations if o.operation is Operation.REFUND]


class TestTellingApart:
    def test_nothing_captured_is_nothing_given_back(self) -> None:
        assert returned("canceled", 0, [a_refund("re_1", 1000)]) == []

    def test_what_lapsed_says_so(self) -> None:
        assert returned("succeeded", 700, [a_refund("re_1", 300, reason="expired_uncaptured_charge"), a_refund("re_2", 300)]) == ["re_2"]

    def test_the_one_that_the_capture_made_is_the_first(self) -> None:
        refunds = [a_refund("re_1", 300), a_refund("re_2", 300), a_refund("re_3", 300, created=ENDED + 60)]

        assert returned("succeeded", 700, refunds) == ["re_2", "re_3"]

    def test_one_of_before_the_last_capture_was_given_back(self) -> None:
        refunds = [a_refund("re_1", 300, created=ENDED - 3600), a_refund("re_2", 300)]

        assert returned("succeeded", 700, refunds) == ["re_1"]

    @pytest.mark.parametrize(
        "changes", [{"amount": 299}, {"status": "failed"}, {"status": "pending"}, {"metadata": {"tender_reference": str(new_id())}}]
    )
    def test_another_is_given_back(self, changes: dict[str, Any]) -> None:
        assert returned("succeeded", 700, [a_refund("re_1", **{"amount": 300, **changes})]) == ["re_1"]

    def test_while_more_can_be_captured_nothing_is_let_go(self) -> None:
        assert returned("requires_capture", 700, [a_refund("re_1", 300)]) == ["re_1"]

    @pytest.mark.parametrize(
        ("amount", "rate", "given_back"), [(1000, None, []), (700, None, ["re_1"]), (1234, "1.234", []), (864, "1.234", ["re_1"])]
    )
    def test_what_the_charge_brought_decides(self, amount: int, rate: str | None, given_back: list[str]) -> None:
        """The changelog: a charge brought what was authorized, and brings what is captured; in the currency of the payout."""
        brought = msgspec.convert(
            {"id": "txn_1", "amount": amount, "exchange_rate": rate and float(rate)}, BalanceTransaction, strict=False
        )

        assert returned("succeeded", 700, [a_refund("re_1", 300)], brought) == given_back

    def test_a_charge_that_does_not_count_it_decides(self) -> None:
        """The changelog: `amount_refunded` is not updated by what is let go."""
        assert returned("succeeded", 700, [a_refund("re_1", 300)], amount_refunded=0) == []

    def test_a_charge_that_counts_no_open_refund_decides_nothing(self) -> None:
        refunds = [a_refund("re_1", 300), a_refund("re_2", 300, status="pending")]
        brought = BalanceTransaction(id="txn_1", amount=700)

        assert returned("succeeded", 700, refunds, brought, amount_refunded=300) == ["re_1", "re_2"]
