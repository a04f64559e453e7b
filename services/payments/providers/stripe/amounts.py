"""Amounts as Stripe counts them, where that is not ISO 4217 (docs.stripe.com/currencies#special-cases)."""

from services.payments.domain.guards import UnsupportedByProvider
from shared.money import exponent

# Without decimals at Stripe whatever ISO says.
NO_DECIMALS = frozenset(["BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"])
# With two decimals for the sake of old callers, though they have none; the two must be zeros.
TWO_DECIMALS_OF_NONE = frozenset({"ISK", "UGX"})
# Of three decimals the last must be a zero.
THREE_DECIMALS = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})


def to_stripe(amount: int, currency: str) -> int:
    """Write an amount of minor units as Stripe counts; refuses one that Stripe cannot express rather than round it."""
    shift = _decimals(currency) - exponent(currency)
    step = _power(-shift) if currency not in THREE_DECIMALS else 10
    if amount % step:
        raise UnsupportedByProvider(f"Stripe takes {currency} in steps of {step} minor units only.", {"currency": currency, "step": step})
    return amount * _power(shift) // _power(-shift)


def from_stripe(amount: int, currency: str) -> int:
    """Read an amount of Stripe's as minor units of ISO 4217."""
    shift = _decimals(currency) - exponent(currency)
    whole, rest = divmod(amount * _power(-shift), _power(shift))
    if rest:
        raise ValueError(f"{amount} of {currency} is not a whole number of minor units")
    return whole


def _decimals(currency: str) -> int:
    if currency in NO_DECIMALS:
        return 0
    return 2 if currency in TWO_DECIMALS_OF_NONE else exponent(currency)


def _power(shift: int) -> int:
    return int(10 ** max(0, shift))
