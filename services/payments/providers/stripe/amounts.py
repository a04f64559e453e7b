"""Amounts as Stripe counts them, where that is not ISO 4217 (docs.stripe.com/currencies#special-cases)."""

from services.payments.domain.guards import UnsupportedByProvider
from shared.money import exponent

# Without decimals at Stripe whatever ISO says.
NO_DECIMALS = frozenset(["BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"])
# With two decimals for the sake of old callers, though they have none; the two must be zeros.
TWO_DECIMALS_OF_NONE = frozenset({"ISK", "UGX"})
# Of three decimals the last must be a zero.
THREE_DECIMALS = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})

# What cards can be charged in: docs.stripe.com/currencies#presentment-currencies, with those of three decimals of the same page.
PRESENTMENT_CURRENCIES = """
    USD AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BWP BYN BZD CAD CDF CHF CLP CNY COP CRC CVE CZK DJF DKK
    DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR ISK JMD JOD JPY KES KGS KHR KMF KRW KWD KYD KZT LAK
    LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD
    RUB RWF SAR SBD SCR SEK SGD SHP SLE SOS SRD SZL THB TJS TND TOP TRY TTD TWD TZS UAH UGX UYU UZS VND VUV WST XAF XCD XCG XOF XPF YER ZAR
    ZMW
"""
CURRENCIES = frozenset(PRESENTMENT_CURRENCIES.split())
# docs.stripe.com/currencies#minimum-and-maximum-charge-amounts, as Stripe counts. Of other currencies the minimum is that of the
# currency which the account is paid out in, converted; Stripe alone knows it.
MINIMUMS = (
    dict.fromkeys(("USD", "ARS", "AUD", "BRL", "CAD", "CHF", "COP", "EUR", "IDR", "ILS", "INR", "JPY", "KRW", "NZD", "PHP", "RUB"), 50)
    | {"SGD": 50, "ZAR": 50, "GBP": 30, "AED": 200, "MYR": 200, "PLN": 200, "RON": 200, "DKK": 250, "NOK": 300, "SEK": 300, "HKD": 400}
    | {"MXN": 1000, "THB": 1000, "CZK": 1500, "HUF": 17_500}
)
# The same page. For cards of some networks it allows more digits; the API's reference (PaymentIntent.amount) does not.
DIGITS_MAX = {"IDR": 12, "COP": 10, "INR": 9}
DIGITS_MAX_OF_OTHERS = 8


def chargeable(amount: int, currency: str) -> int:
    """Write an amount to be charged as Stripe counts; refuses what Stripe does not charge: the currency, or so little or so much of it."""
    if currency not in CURRENCIES:
        raise UnsupportedByProvider(f"Stripe charges nothing in {currency}.", {"currency": currency})
    written = to_stripe(amount, currency)
    least, most = MINIMUMS.get(currency, 1), 10 ** DIGITS_MAX.get(currency, DIGITS_MAX_OF_OTHERS) - 1
    if not least <= written <= most:
        facts = {"currency": currency, "amount": amount, "amount_min": _read(least, currency)[0], "amount_max": _read(most, currency)[0]}
        raise UnsupportedByProvider(f"Stripe charges {facts['amount_min']} to {facts['amount_max']} minor units of {currency}.", facts)
    return written


def to_stripe(amount: int, currency: str) -> int:
    """Write an amount of minor units as Stripe counts; refuses one that Stripe cannot express rather than round it."""
    shift = _decimals(currency) - exponent(currency)
    step = _power(-shift) if currency not in THREE_DECIMALS else 10
    if amount % step:
        raise UnsupportedByProvider(f"Stripe takes {currency} in steps of {step} minor units only.", {"currency": currency, "step": step})
    return amount * _power(shift) // _power(-shift)


def from_stripe(amount: int, currency: str) -> int:
    """Read an amount of Stripe's as minor units of ISO 4217."""
    whole, rest = _read(amount, currency)
    if rest:
        raise ValueError(f"{amount} of {currency} is not a whole number of minor units")
    return whole


def _read(amount: int, currency: str) -> tuple[int, int]:
    shift = _decimals(currency) - exponent(currency)
    return divmod(amount * _power(-shift), _power(shift))


def _decimals(currency: str) -> int:
    if currency in NO_DECIMALS:
        return 0
    return 2 if currency in TWO_DECIMALS_OF_NONE else exponent(currency)


def _power(shift: int) -> int:
    return int(10 ** max(0, shift))
