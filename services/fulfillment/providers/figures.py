"""Figures of tax providers as they are given: their amounts in our minor units, one row a jurisdiction where those add up to the line."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from services.fulfillment.domain.tax.engine import Line, Row
from services.fulfillment.domain.tax.rules import Level, Place, Reason
from shared.money import AMOUNT_MAX_MINOR_UNITS, Money, decimal_text, from_decimal_text
from shared.provider_values import ID_MAX_CHARACTERS, ImplausibleValue, check_amount, check_text

COMBINED = "combined"
# What the column takes.
RATE_PERCENT_END = 1000


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """What one jurisdiction's tax on one line is, as a provider says."""

    level: Level
    name: str
    region: str
    rate_percent: Decimal
    taxable_amount: int
    amount: int

    def __post_init__(self) -> None:
        """Refuse what could not be kept."""
        check_amount("taxable_amount", self.taxable_amount, least=-AMOUNT_MAX_MINOR_UNITS)
        check_amount("amount", self.amount, least=-AMOUNT_MAX_MINOR_UNITS)
        check_text("name", self.name, characters_max=ID_MAX_CHARACTERS)
        check_text("region", self.region, characters_max=ID_MAX_CHARACTERS)
        if not 0 <= self.rate_percent < RATE_PERCENT_END:
            raise ImplausibleValue(f"{self.rate_percent} % is no rate of a tax")


def rows_of(
    n: int, line: Line, place: Place, components: Sequence[Component], *, tax: int, taxable: int, provider: str, reason: Reason
) -> list[Row]:
    """Write a line's tax by jurisdiction where its parts add up to what is charged for it, else as one; nothing is worked out anew."""
    told = [each for each in components if each.taxable_amount or each.amount]
    if not told or sum(each.amount for each in told) != tax:
        rate = sum((each.rate_percent for each in told), Decimal(0))
        told = [Component(level=Level.COUNTRY, name=COMBINED, region=place.region, rate_percent=rate, taxable_amount=taxable, amount=tax)]
    net = line.taxed_amount - (tax if line.included else 0)
    return [
        Row(
            line=n,
            country=place.country,
            region=each.region,
            level=each.level,
            name=each.name,
            rate_percent=each.rate_percent,
            taxable_amount=each.taxable_amount,
            untaxed_amount=max(0, net - each.taxable_amount),
            amount=each.amount,
            included=line.included,
            reason=reason if not each.amount else Reason.STANDARD_RATED,
            rule_version=provider,
        )
        for each in told
    ]


def minor(value: Any, currency: str) -> int:
    """Read a provider's decimal as minor units; raises ValueError or Refusal for what is finer than the currency or more than there is."""
    amount = from_decimal_text(str(value if value is not None else 0), currency).amount
    check_amount("amount", amount, least=-AMOUNT_MAX_MINOR_UNITS)
    return amount


def decimal_of(amount: int, currency: str) -> str:
    """Write minor units as a provider's decimal."""
    return decimal_text(Money(amount, currency))


def percent_of(rate: Any) -> Decimal:
    """Read a fraction (0.07) as percent (7), with no more decimals than a rate is kept with."""
    return (Decimal(str(rate if rate is not None else 0)) * 100).quantize(Decimal("0.000001")).normalize() + 0
