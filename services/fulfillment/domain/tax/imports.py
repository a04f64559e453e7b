"""Goods of low value that are sent into a country: up to which price its tax is collected at the sale, and not at the border."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import msgspec

from services.fulfillment.domain.tax.rules import Reason
from shared.errors import Refusal


class ExchangeRateNeeded(Refusal):
    """The law's limit for goods of low value is in another currency, and no exchange rate is guessed."""

    code = "exchange-rate-needed"
    title = "The limit for goods of low value is not known in this currency"
    status = 422


class ImportLimit(msgspec.Struct, frozen=True, kw_only=True):
    """Up to which price without tax and freight the tax on imported goods is the seller's to collect."""

    currency: str
    # In minor units; the limit itself is of low value.
    amount: int
    # Whether each article is looked at by itself, and not all that is sent together.
    per_article: bool = False
    # Why a buyer with a number of the country's own tax is not taxed at the sale.
    business: Reason
    source: str


# Into the EU under the import scheme (IOSS). A buyer who is registered for VAT is no customer of distance sales (Article 14(4)).
EU_LIMIT = ImportLimit(
    currency="EUR",
    amount=150_00,
    business=Reason.EXPORT,
    source="Directive 2006/112/EC, Article 369l; intrinsic value: Regulation (EU) 2015/2446, Article 1(48)",
)
LIMITS: dict[str, ImportLimit] = {
    "AU": ImportLimit(
        currency="AUD",
        amount=1_000_00,
        business=Reason.NOT_SUBJECT_TO_TAX,
        source="A New Tax System (Goods and Services Tax) Act 1999, Subdivision 84-C; ATO, LCR 2018/1",
    ),
    "GB": ImportLimit(
        currency="GBP",
        amount=135_00,
        business=Reason.REVERSE_CHARGE,
        source="gov.uk, VAT and overseas goods sold directly to customers in the UK",
    ),
    # Below 3000, article by article, and to consumers alone.
    "NO": ImportLimit(
        currency="NOK",
        amount=2_999_99,
        per_article=True,
        business=Reason.EXPORT,
        source="skatteetaten.no, Sending goods under the VOEC scheme",
    ),
    "NZ": ImportLimit(
        currency="NZD",
        amount=1_000_00,
        per_article=True,
        business=Reason.NOT_SUBJECT_TO_TAX,
        source="ird.govt.nz, What low value imported goods are",
    ),
}


def amount_in(limit: ImportLimit, currency: str, stated: Mapping[str, int]) -> int:
    """Give a limit in a currency: its own, or one in which the store states it; raises ExchangeRateNeeded."""
    if currency == limit.currency:
        return limit.amount
    if currency in stated:
        return stated[currency]
    raise ExchangeRateNeeded(
        f"The limit is {limit.amount} minor units of {limit.currency}; state it in {currency} (import_limits of the registration).",
        {"currency": currency, "limit_currency": limit.currency, "limit_amount": limit.amount},
    )


def over(limit: ImportLimit, amount: int, lines: Sequence[tuple[int, int]]) -> list[bool]:
    """Say of each line of goods, by its price without tax and its quantity, whether its tax is due at the border."""
    if limit.per_article:
        return [Fraction(net, quantity) > amount for net, quantity in lines]
    return [sum(net for net, _ in lines) > amount] * len(lines)
