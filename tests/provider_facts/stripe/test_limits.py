"""What Stripe charges: currencies, the least, the most; how often it captures; what metadata may hold (F17, C54).

docs.stripe.com/currencies (presentment currencies; minimum and maximum charge amounts; special cases), read in copies of 2023 and 2026.
Of the most, the page of 2026 allows cards of most networks 12 digits in every currency; the reference of the API (stripe-python 16.1.0,
PaymentIntent.amount: "up to eight digits") and the page's rule for all else do not, so theirs holds.
"""

import pytest
from iso4217 import Currency

from services.payments.domain.guards import UnsupportedByProvider
from services.payments.domain.intents import Operation
from services.payments.providers import AuthorizeRequest, Captured
from services.payments.providers.stripe.amounts import CURRENCIES, from_stripe
from services.payments.providers.stripe.requests import CAPTURES_MAX, prepare
from shared.ids import new_id
from shared.money import exponent
from tests.provider_facts.stripe.conftest import Stripe

# "Use these minimum amounts by currency", in Stripe's units.
MINIMUMS = {
    "USD": 50,
    "AED": 200,
    "ARS": 50,
    "AUD": 50,
    "BRL": 50,
    "CAD": 50,
    "CHF": 50,
    "COP": 50,
    "CZK": 1500,
    "DKK": 250,
    "EUR": 50,
    "GBP": 30,
    "HKD": 400,
    "HUF": 17500,
    "IDR": 50,
    "ILS": 50,
    "INR": 50,
    "JPY": 50,
    "KRW": 50,
    "MXN": 1000,
    "MYR": 200,
    "NOK": 300,
    "NZD": 50,
    "PHP": 50,
    "PLN": 200,
    "RON": 200,
    "RUB": 50,
    "SEK": 300,
    "SGD": 50,
    "THB": 1000,
    "ZAR": 50,
}
# "12 digits for IDR", "10 digits for COP", "9 digits for INR", "8 digits for all other currencies".
MAXIMUMS = {"IDR": 10**12 - 1, "COP": 10**10 - 1, "INR": 10**9 - 1, "EUR": 10**8 - 1, "JPY": 10**8 - 1, "HUF": 10**8 - 1, "LBP": 10**8 - 1}
# In ISO 4217 and on none of the page's lists.
NOT_TAKEN = [
    *("BOV", "BTN", "CHE", "CHW", "CLF", "COU", "CUP", "ERN", "GHS", "IQD", "IRR", "KPW", "LYD", "MRU", "MXV", "SDG", "SSP", "STN", "SVC"),
    *("SYP", "TMT", "USN", "UYI", "UYW", "VED", "VES", "XAD", "ZWG"),
]


def an_authorization(amount: int, currency: str) -> AuthorizeRequest:
    return AuthorizeRequest(
        reference=new_id(), order_id=new_id(), amount=amount, currency=currency, payment_method="pm_card_visa", return_url=None
    )


def is_taken(amount: int, currency: str) -> bool:
    """Whether the adapter writes a call for such a payment; an amount in Stripe's units."""
    try:
        prepare(an_authorization(from_stripe(amount, currency), currency), multicapture=True)
    except UnsupportedByProvider:
        return False
    return True


async def answer(stripe: Stripe, **form: str) -> tuple[int, str | None]:
    said = await stripe.http.post("/v1/payment_intents", data=form)
    return said.status_code, said.json().get("error", {}).get("code")


class TestAmounts:
    @pytest.mark.parametrize(("currency", "least"), MINIMUMS.items())
    async def test_less_than_the_least_is_refused(self, stripe: Stripe, currency: str, least: int) -> None:
        assert (is_taken(least, currency), is_taken(least - 1, currency)) == (True, False)
        assert await answer(stripe, amount=str(least), currency=currency.lower()) == (200, None)
        assert await answer(stripe, amount=str(least - 1), currency=currency.lower()) == (400, "amount_too_small")

    @pytest.mark.parametrize(("currency", "most"), MAXIMUMS.items())
    async def test_more_than_the_most_is_refused(self, stripe: Stripe, currency: str, most: int) -> None:
        assert (is_taken(most, currency), is_taken(most + 1, currency)) == (True, False)
        assert await answer(stripe, amount=str(most), currency=currency.lower()) == (200, None)
        assert await answer(stripe, amount=str(most + 1), currency=currency.lower()) == (400, "amount_too_large")

    @pytest.mark.parametrize(("currency", "amount"), [("KWD", "5124"), ("ISK", "550"), ("UGX", "5050")])
    async def test_what_cannot_be_expressed_is_refused_there_too(self, stripe: Stripe, currency: str, amount: str) -> None:
        assert (await answer(stripe, amount=amount, currency=currency.lower()))[0] == 400

    async def test_a_hold_of_twelve_digits_is_captured_and_refunded(self, stripe: Stripe) -> None:
        payment_id = await stripe.hold(10**12 - 1, currency="IDR")

        await stripe.capture(payment_id, 10**12 - 1)
        await stripe.refund(payment_id, 10**12 - 2)

        assert await stripe.shows(payment_id) == [("capture", 10**12 - 1), ("refund", 10**12 - 2)]


class TestCurrencies:
    @pytest.mark.parametrize("currency", NOT_TAKEN)
    async def test_what_is_not_taken_is_refused(self, stripe: Stripe, currency: str) -> None:
        with pytest.raises(UnsupportedByProvider):
            prepare(an_authorization(10 ** exponent(currency) * 100, currency), multicapture=True)
        assert (await answer(stripe, amount="100000", currency=currency.lower()))[0] == 400

    async def test_each_of_iso_4217_is_taken_or_not(self, stripe: Stripe) -> None:
        priced = {currency.code for currency in Currency if currency.exponent is not None}

        assert priced - set(NOT_TAKEN) == CURRENCIES
        assert {await answer(stripe, amount="100000", currency=currency.lower()) for currency in CURRENCIES} == {(200, None)}


class TestCaptures:
    """docs.stripe.com/payments/multicapture: "up to 50 times"; docs.stripe.com/metadata: 50 keys of 40 characters, values of 500."""

    async def test_fifty_are_each_known_by_its_reference(self, stripe: Stripe) -> None:
        payment_id = await stripe.hold()
        earlier: list[Captured] = []
        for number in range(CAPTURES_MAX):
            seen = await stripe.capture(payment_id, 100 + number, final=number == CAPTURES_MAX - 1, earlier=earlier)
            earlier = [Captured(reference=o.reference, amount=o.amount) for o in seen if o.operation is Operation.CAPTURE and o.reference]
            assert len(earlier) == number + 1

        captures = [o for o in (await stripe.read(payment_id)).observations if o.operation is Operation.CAPTURE]
        assert [(o.reference, o.amount) for o in captures] == [(each.reference, 100 + n) for n, each in enumerate(earlier)]
        assert len(stripe.at_stripe(payment_id).metadata) <= 50

    async def test_the_fifty_first_is_refused_by_both(self, stripe: Stripe) -> None:
        payment_id = await stripe.hold()
        for _ in range(50):
            stripe.in_the_dashboard(payment_id, "capture", 100)

        with pytest.raises(UnsupportedByProvider):
            await stripe.capture(payment_id, 100, earlier=[Captured(reference=new_id(), amount=100)] * 50)
        [refused] = await stripe.capture(payment_id, 100)

        assert (refused.operation, refused.status.value) == (Operation.CAPTURE, "failed")

    @pytest.mark.parametrize(
        "metadata",
        [{f"key{n}": "x" for n in range(51)}, {"k" * 41: "x"}, {"k": "x" * 501}],
        ids=["51 keys", "a key of 41 characters", "a value of 501"],
    )
    async def test_metadata_beyond_its_limits_is_refused(self, stripe: Stripe, metadata: dict[str, str]) -> None:
        form = {f"metadata[{key}]": value for key, value in metadata.items()}

        assert (await answer(stripe, amount="500", currency="eur", **form))[0] == 400

    async def test_an_empty_value_unsets_a_key(self, stripe: Stripe) -> None:
        payment_id = await stripe.hold()
        for value in ("1", ""):
            form = {"amount_to_capture": "100", "final_capture": "false", "metadata[mine]": value}
            thing = (await stripe.http.post(f"/v1/payment_intents/{payment_id}/capture", data=form)).json()

        assert "mine" not in thing["metadata"]
        assert "tender_reference" in thing["metadata"]
