"""Anybody with the account writes there (docs.stripe.com/metadata; F7, F15): their metadata, their payments, currencies of the past."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.sandbox.books import Payment
from services.payments.domain.intents import Operation
from services.payments.providers import TransactionPage, TransactionUnreadable
from services.payments.providers.stripe.amounts import from_stripe, to_stripe
from shared.http_client import recorded
from shared.provider_answers import IndeterminateResponse
from tests.provider_facts.stripe.conftest import HELD, Stripe

# Left ISO 4217 (list three, six-group.com), and were once on docs.stripe.com/currencies.
OF_THE_PAST = ["ANG", "BGN", "EEK", "HRK", "LTL", "LVL", "MRO", "SLL", "STD", "VEF"]
METADATA = [
    {"cap_size": "L"},
    {"cap_": " ", "caps_": "", "caps_1": "L", "caps_x": "y", "cap": "1"},
    {f"cap_{'0' * 32}": "a lot", f"cap_{'z' * 32}": "7000", f"cap_{'1' * 31}": "7000", f"cap_{'2' * 32}": ""},
    {"caps_2": f"{'3' * 32}:x {'4' * 31}:7000 {'5' * 32}", "tender_order": "none", "tender_reason": "\x00"},
    {f"cap_{'6' * 32}": "9" * 13, f"cap_{'7' * 32}": "-7000"},
    # No UUIDv7 (RFC 9562, 5.7), or one that no calendar of Python's holds: its milliseconds end in the year 10889.
    {f"cap_{'0' * 32}": "7000", f"cap_{'0' * 31}1": "7000 final", "caps_0": f"{'0' * 31}2:7000"},
    {f"cap_{'f' * 32}": "7000 final", f"cap_{'f' * 12}7fff8fff{'f' * 12}": "100 final", "caps_9": f"{'e' * 32}:1"},
]


def a_stranger(stripe: Stripe, **facts: Any) -> Payment:
    books = stripe.sandbox.books
    made = books.open("pi", **{"amount": 500, "currency": "eur", "payment_method": "pm_card_visa", "capture_method": "automatic", **facts})
    books.attempt(made, stripe.sandbox.base_url)
    return made


async def listed(stripe: Stripe) -> TransactionPage:
    now = datetime.now(UTC)
    return await stripe.adapter.list_transactions(since=now - timedelta(hours=1), until=now + timedelta(hours=1), cursor=None)


class TestMetadata:
    @pytest.mark.parametrize("metadata", METADATA)
    async def test_of_others_changes_nothing(self, stripe: Stripe, metadata: dict[str, str]) -> None:
        payment_id = await stripe.hold()
        await stripe.capture(payment_id, 7_000)
        payment = stripe.at_stripe(payment_id)
        before = await stripe.shows(payment_id)

        payment.metadata = {**payment.metadata, **metadata}

        assert await stripe.shows(payment_id) == before == [("capture", 7_000)]
        assert payment_id in {each.provider_payment_id for each in (await listed(stripe)).transactions}

    async def test_without_our_reference_a_payment_of_ours_can_be_read(self, stripe: Stripe) -> None:
        payment_id = await stripe.hold()
        stripe.at_stripe(payment_id).metadata = {"tender_reference": "gone"}

        assert [o.operation for o in (await stripe.read(payment_id)).observations] == [Operation.AUTHORIZE]


class TestListing:
    @pytest.mark.parametrize("facts", [{"metadata": {"cap_size": "L"}}, {"currency": "ang"}, {"currency": "xyz"}])
    async def test_strangers_are_skipped_unread(self, stripe: Stripe, facts: dict[str, Any]) -> None:
        stranger = a_stranger(stripe, **facts)
        stripe.in_the_dashboard(stranger.id, "chargeback", 500)

        with recorded() as calls:
            page = await listed(stripe)

        assert stranger.id not in {each.provider_payment_id for each in page.transactions}
        assert (page.unreadable, [call.operation for call in calls]) == ((), ["list_transactions"])

    async def test_one_that_cannot_be_read_is_told_by_name(self, stripe: Stripe) -> None:
        unfit, fit = await stripe.hold(), await stripe.hold()
        stripe.at_stripe(unfit).currency = "xyz"

        page = await listed(stripe)

        assert [each.provider_payment_id for each in page.unreadable] == [unfit]
        assert "XYZ" in page.unreadable[0].reason
        assert fit in {each.provider_payment_id for each in page.transactions}
        with pytest.raises(TransactionUnreadable):
            await stripe.adapter.get_transaction(unfit)
        stripe.sandbox.books.forget(stripe.at_stripe(unfit))


class TestCurrenciesOfThePast:
    @pytest.mark.parametrize("currency", OF_THE_PAST)
    async def test_are_read_and_refunded(self, stripe: Stripe, currency: str) -> None:
        payment_id = await stripe.hold()
        payment = stripe.at_stripe(payment_id)
        payment.currency = currency.lower()
        await stripe.capture(payment_id, HELD)
        await stripe.refund(payment_id, 1_000)

        observations = (await stripe.read(payment_id)).observations

        assert {(o.currency, o.amount) for o in observations} == {(currency, HELD), (currency, 1_000)}
        assert to_stripe(1, currency) == from_stripe(1, currency) == 1


class TestWhosePaymentItIs:
    async def test_is_told_by_its_metadata(self, stripe: Stripe) -> None:
        ours, theirs = await stripe.hold(), a_stranger(stripe, currency="ang").id

        assert [await stripe.adapter.is_strangers(each) for each in (ours, theirs, "pi_nowhere")] == [False, True, False]

    async def test_is_not_told_by_silence(self, stripe: Stripe) -> None:
        stripe.sandbox.api_key, key = "other", stripe.sandbox.api_key

        with pytest.raises(IndeterminateResponse):
            await stripe.adapter.is_strangers("pi_1")
        stripe.sandbox.api_key = key
