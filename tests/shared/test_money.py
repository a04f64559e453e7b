"""Money: exact, in its currency's own decimals (ISO 4217), and never rounded."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.money import (
    MixedCurrencies,
    Money,
    TooManyDecimals,
    UnknownCurrency,
    converted,
    current_exponent,
    decimal_text,
    exponent,
    from_decimal_text,
    total,
)

# ISO 4217 with minor units, as the package iso4217 1.16 has it in November 2026.
OF_2026 = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CLF CLP CNY COP COU
    CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD
    JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO
    NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT
    TND TOP TRY TTD TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""
CURRENCIES = st.sampled_from(["EUR", "USD", "JPY", "KRW", "IQD", "KWD", "BHD", "CLF"])


class TestExponent:
    @pytest.mark.parametrize(("currency", "decimals"), [("EUR", 2), ("JPY", 0), ("IQD", 3), ("BHD", 3), ("CLF", 4)])
    def test_is_the_currencys_own(self, currency: str, decimals: int) -> None:
        assert exponent(currency) == decimals

    @pytest.mark.parametrize("currency", ["XAU", "EURO", "", "eur"])
    def test_is_refused_where_there_is_none(self, currency: str) -> None:
        with pytest.raises(UnknownCurrency):
            exponent(currency)

    @pytest.mark.parametrize(("currency", "decimals"), [("ANG", 2), ("BGN", 2), ("HRK", 2), ("STD", 2), ("BYR", 0), ("TRL", 0)])
    def test_is_known_of_what_has_left_iso_4217_and_takes_no_new_price(self, currency: str, decimals: int) -> None:
        assert exponent(currency) == decimals
        with pytest.raises(UnknownCurrency):
            current_exponent(currency)

    def test_is_known_for_good(self) -> None:
        """An update of the table may drop none: what was paid in it stays refundable. Write what it drops into WITHDRAWN."""
        assert {currency: exponent(currency) for currency in OF_2026.split()}


class TestText:
    @given(amount=st.integers(-(10**15), 10**15), currency=CURRENCIES)
    def test_comes_back_as_it_was(self, amount: int, currency: str) -> None:
        money = Money(amount, currency)

        assert from_decimal_text(decimal_text(money), currency) == money

    @pytest.mark.parametrize(("text", "currency"), [("19.999", "EUR"), ("10.2", "JPY"), ("1.0001", "KWD"), ("NaN", "EUR"), ("1e", "EUR")])
    def test_too_fine_or_no_number_is_refused(self, text: str, currency: str) -> None:
        with pytest.raises(TooManyDecimals):
            from_decimal_text(text, currency)


class TestSums:
    def test_add_up_and_take_away(self) -> None:
        assert Money(3, "EUR") - Money(1, "EUR") == Money(2, "EUR")
        assert total([Money(3, "EUR"), Money(1, "EUR")], "EUR") == Money(4, "EUR")

    def test_of_nothing_are_zero(self) -> None:
        assert total([], "EUR") == Money(0, "EUR")

    def test_of_two_currencies_are_refused(self) -> None:
        with pytest.raises(MixedCurrencies):
            total([Money(1, "EUR"), Money(1, "USD")], "EUR")


@pytest.mark.parametrize(
    ("money", "rate", "worth"),
    [
        (Money(1_000, "JPY"), "0.0061", Money(610, "EUR")),
        (Money(100, "EUR"), "163.5", Money(164, "JPY")),
        (Money(1_005, "EUR"), "0.3", Money(3_015, "KWD")),
        (Money(1, "USD"), "0.5", Money(1, "EUR")),
        (Money(0, "USD"), "0.9", Money(0, "EUR")),
    ],
)
def test_what_an_amount_is_worth_in_another_currency(money: Money, rate: str, worth: Money) -> None:
    assert converted(money, Decimal(rate), worth.currency) == worth
