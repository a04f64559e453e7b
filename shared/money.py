"""Money as an integer of minor units and an ISO 4217 code; nothing here ever rounds."""

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from functools import cache

import msgspec
from iso4217 import Currency

from shared.errors import Refusal

AMOUNT_MAX_MINOR_UNITS = 10**15

# Decimals of what has left ISO 4217 since providers of ours took it or the ECB has published its rates: what was paid in it stays readable
# and refundable (ISO 4217 list three, six-group.com).
_TWO = "ANG BGN CUC CYP EEK HRK LTL LVL MRO MTL ROL SIT SKK SLL STD VEF ZMK ZWL"
_NONE = "BYR TRL"
WITHDRAWN = dict.fromkeys(_TWO.split(), 2) | dict.fromkeys(_NONE.split(), 0)


class UnknownCurrency(Refusal):
    """The code is not an ISO 4217 currency that has minor units."""

    code = "unknown-currency"
    title = "This is not a currency we know"
    status = 422


class TooManyDecimals(Refusal):
    """The amount is finer than its currency; rounding it would change a price."""

    code = "too-many-decimals"
    title = "The amount has more decimals than its currency"
    status = 422


class MixedCurrencies(Refusal):
    """Two amounts of different currencies cannot be added or compared."""

    code = "mixed-currencies"
    title = "These amounts are in different currencies"
    status = 422


@cache
def exponent(currency: str) -> int:
    """Tell how many decimals a currency has or had (ISO 4217: JPY 0, EUR 2, IQD 3)."""
    return WITHDRAWN[currency] if currency in WITHDRAWN else current_exponent(currency)


@cache
def current_exponent(currency: str) -> int:
    """Tell how many decimals a currency has that prices can be in today."""
    try:
        decimals = Currency(currency).exponent
    except ValueError:
        raise UnknownCurrency(f"{currency!r} is not an ISO 4217 code.", {"currency": currency}) from None
    if decimals is None:
        raise UnknownCurrency(f"{currency} has no minor unit, so no price can be in it.", {"currency": currency})
    return decimals


class Money(msgspec.Struct, frozen=True, order=True):
    """An exact amount, in minor units of one currency."""

    amount: int
    currency: str

    def __add__(self, other: "Money") -> "Money":
        return Money(self.amount + self._same(other).amount, self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money(self.amount - self._same(other).amount, self.currency)

    def __str__(self) -> str:
        return f"{decimal_text(self)} {self.currency}"

    def _same(self, other: "Money") -> "Money":
        if other.currency != self.currency:
            raise MixedCurrencies(
                f"{self.currency} and {other.currency} cannot be added.",
                {"currencies": [self.currency, other.currency]},
            )
        return other


def converted(money: Money, rate: Decimal, currency: str) -> Money:
    """Say what an amount is worth in another currency, at so many of its units for one; rounded half-up, for reports alone."""
    value = Decimal(money.amount).scaleb(-exponent(money.currency)) * rate
    return Money(int(value.scaleb(exponent(currency)).quantize(Decimal(1), rounding=ROUND_HALF_UP)), currency)


def total(amounts: Iterable[Money], currency: str) -> Money:
    """Add amounts that must all be in one currency; nothing adds up to zero."""
    result = Money(0, currency)
    for each in amounts:
        result = result + each
    return result


def decimal_text(money: Money) -> str:
    """Write the amount for people, with the decimals its currency has."""
    places = exponent(money.currency)
    return f"{Decimal(money.amount).scaleb(-places):.{places}f}"


def from_decimal_text(text: str, currency: str) -> Money:
    """Read '12.50' as minor units; refuse what the currency cannot hold exactly."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise TooManyDecimals(f"{text!r} is not a decimal number.", {"amount": text}) from None
    if not value.is_finite():
        raise TooManyDecimals(f"{text!r} is not a finite number.", {"amount": text})
    minor = value.scaleb(exponent(currency))
    if minor != minor.to_integral_value():
        raise TooManyDecimals(
            f"{text} has more decimals than {currency} has ({exponent(currency)}).",
            {"amount": text, "currency": currency, "exponent": exponent(currency)},
        )
    return Money(int(minor), currency)
