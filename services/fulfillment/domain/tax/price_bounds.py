"""Rules that apply at some prices alone, all or nothing: which of them hold for a line."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

from services.fulfillment.domain.tax.engine import Kind, Line, net_of
from services.fulfillment.domain.tax.rules import Rule, most_specific


def holding(rules: Sequence[Rule], line: Line) -> list[Rule]:
    """Choose the rules that hold for a line: of each jurisdiction the most specific that applies at its article's price.

    The price of an article is what the merchant gets for it after discounts, a third party's part with it, without tax. One that holds its
    tax is judged by the one choice of rules under which its net leads to the same choice; where none does, or several do, by the price as
    it is written. Shipping has no articles: such rules are not about it.
    """
    if line.kind is Kind.SHIPPING or not any(rule.depends_on_article for rule in rules):
        return most_specific([rule for rule in rules if not rule.depends_on_article])
    written = Fraction(abs(line.taxed_amount), line.quantity)
    if not line.included:
        return _at(rules, written)
    choices = {tuple(rule.version for rule in chosen): chosen for chosen in (_at(rules, price) for price in _prices(rules))}
    confirmed = [chosen for chosen in choices.values() if _at(rules, abs(net_of(line, chosen))) == chosen]
    return confirmed[0] if len(confirmed) == 1 else _at(rules, written)


def _at(rules: Sequence[Rule], price: Fraction) -> list[Rule]:
    return most_specific([rule for rule in rules if not rule.depends_on_article or rule.applies_at(price)])


def _prices(rules: Sequence[Rule]) -> Iterator[Fraction]:
    """Give a price at each bound and one between any two, so that every choice there is comes up."""
    each = [bound for rule in rules for bound in (rule.applies_from, rule.applies_above, rule.applies_up_to, rule.applies_below)]
    bounds = sorted({Fraction(0), *(Fraction(bound) for bound in each if bound is not None)})
    yield from bounds
    yield from ((lower + upper) / 2 for lower, upper in pairwise(bounds))
    yield bounds[-1] + 1
