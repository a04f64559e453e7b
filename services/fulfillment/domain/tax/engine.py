"""The built-in engine: from lines and rules to tax rows that add up, each with its reason."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from functools import cache

import msgspec

from services.fulfillment.domain.tax.amounts import RoundingMode, apportioned, prorated, rounded
from services.fulfillment.domain.tax.rules import InclusiveRounding, Level, Reason, RoundingScope, Rule, ShippingMode
from shared.contracts.orders import SupplyKind

PERCENT = 100
NO_TAX = Fraction(0)
UNTAXED = frozenset(
    {Reason.PRODUCT_EXEMPT, Reason.NOT_SUBJECT_TO_TAX, Reason.NOT_COLLECTING, Reason.CUSTOMER_EXEMPT, Reason.EXPORT}
    | {Reason.REVERSE_CHARGE, Reason.INTRA_COMMUNITY_SUPPLY}
)


class Kind(StrEnum):
    """What a line is for."""

    GOODS = "goods"
    SHIPPING = "shipping"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Something sold: its amount after every discount, in minor units, with or without its tax in it."""

    amount: int
    quantity: int = 1
    tax_code: str = ""
    included: bool = False
    # Taken off the price by somebody who pays the merchant for it (a manufacturer's coupon): it is taxed all the same.
    paid_by_others: int = 0
    kind: Kind = Kind.GOODS
    supply: SupplyKind = SupplyKind.GOODS

    @property
    def taxed_amount(self) -> int:
        """What a tax looks at: the price that the merchant gets, whoever pays it."""
        return self.amount + self.paid_by_others


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What one jurisdiction's tax on one line comes to, and why; also when it is nothing."""

    line: int
    country: str
    region: str
    level: Level
    name: str
    rate_percent: Decimal
    # Of the line's price without tax: what was taxed, and what was not.
    taxable_amount: int
    untaxed_amount: int
    amount: int
    included: bool
    reason: Reason
    rule_version: str


class _Cell(msgspec.Struct):
    """A tax on a line while it is being worked out."""

    line: int
    rule: Rule
    exact: Fraction
    # What of the line's price it is on, exact, without tax.
    base: Fraction
    included: bool
    reason: Reason
    amount: int = 0


RulesFor = Callable[[Line], Sequence[Rule]]


def compute(lines: Sequence[Line], rules_for: RulesFor) -> list[Row]:
    """Work out every tax on every line; rules come in their order, of each jurisdiction one.

    Jurisdictions add up to the line and lines to the document, under every scope.
    """
    cells = [cell for n, line in enumerate(lines) if line.kind is Kind.GOODS for cell in _on(n, line, rules_for(line))]
    goods = list(cells)
    for n, line in enumerate(lines):
        if line.kind is Kind.SHIPPING:
            cells += _on_shipping(n, line, lines, goods, rules_for)
    _round(cells, lines)
    return _rows(lines, sorted(cells, key=lambda cell: cell.line))


# Exact amounts


def _on(n: int, line: Line, rules: Sequence[Rule], *, amount: int | None = None) -> list[_Cell]:
    """Tax a line's amount, or a part of it, by rules in their order."""
    amount = line.taxed_amount if amount is None else amount
    if not any(_bounded(rule) for rule in rules):
        net, rates = _in_proportion(tuple((_rate(rule), rule.compound) for rule in rules), line.included)
        taxes = [(amount * rate, amount * net) for rate in rates]
    else:
        taxes = _between_bounds(_net(amount, line.quantity, rules) if line.included else Fraction(amount), line.quantity, rules)
    return [
        _Cell(line=n, rule=rule, exact=exact, base=base, included=line.included, reason=rule.reason)
        for rule, (exact, base) in zip(rules, taxes, strict=True)
    ]


@cache
def _in_proportion(rates: tuple[tuple[Fraction, bool], ...], included: bool) -> tuple[Fraction, list[Fraction]]:
    """Say what part of a price is its net, and what part each tax, where none has bounds."""
    parts: list[Fraction] = []
    for rate, compound in rates:
        parts.append(rate * (1 + sum(parts, NO_TAX)) if compound else rate)
    whole = 1 + sum(parts, NO_TAX) if included else Fraction(1)
    return 1 / whole, [part / whole for part in parts]


def _between_bounds(net: Fraction, quantity: int, rules: Sequence[Rule]) -> list[tuple[Fraction, Fraction]]:
    taxes, before = [], NO_TAX
    for rule in rules:
        base = _base(net, quantity, rule)
        exact = (base + (before if rule.compound else 0)) * _rate(rule)
        before += exact
        taxes.append((exact, base))
    return taxes


def _bounded(rule: Rule) -> bool:
    return rule.taxed_above > 0 or rule.taxed_up_to is not None


def _rate(rule: Rule) -> Fraction:
    return NO_TAX if rule.reason in UNTAXED else _of_percent(rule.rate_percent)


@cache
def _of_percent(percent: Decimal) -> Fraction:
    return Fraction(percent) / PERCENT


def _base(net: Fraction, quantity: int, rule: Rule) -> Fraction:
    """What of a line's net a rule taxes: of each article's price what lies between its bounds."""
    if not _bounded(rule):
        return net
    sign = -1 if net < 0 else 1
    each = abs(net) / quantity
    upper = each if rule.taxed_up_to is None else min(each, Fraction(rule.taxed_up_to))
    return sign * quantity * max(Fraction(0), upper - rule.taxed_above)


def _net(gross: int, quantity: int, rules: Sequence[Rule]) -> Fraction:
    """Take the taxes out of a price that holds them, exactly; between the bounds of rules a price grows with its net in straight lines."""
    sign = -1 if gross < 0 else 1
    each = Fraction(abs(gross), quantity)
    bounds = sorted({Fraction(b) for rule in rules for b in (rule.taxed_above, rule.taxed_up_to) if b})
    lower = Fraction(0)
    for upper in bounds:
        if _gross(upper, rules) >= each:
            break
        lower = upper
    slope = _gross(lower + 1, rules, within=lower) - _gross(lower, rules)
    return sign * quantity * (lower + (each - _gross(lower, rules)) / slope)


def _gross(net: Fraction, rules: Sequence[Rule], *, within: Fraction | None = None) -> Fraction:
    """Add the taxes to one article's net; `within` goes on in a straight line from there, past later bounds."""
    taxes = Fraction(0)
    for rule in rules:
        base = _base(net, 1, rule) if within is None else _base(within, 1, rule) + (net - within) * _taxed_at(within, rule)
        taxes += (base + (taxes if rule.compound else 0)) * _rate(rule)
    return net + taxes


def _taxed_at(net: Fraction, rule: Rule) -> int:
    return int(net >= rule.taxed_above and (rule.taxed_up_to is None or net < rule.taxed_up_to))


# Shipping


def _on_shipping(n: int, line: Line, lines: Sequence[Line], goods: Sequence[_Cell], rules_for: RulesFor) -> list[_Cell]:
    cells = []
    always, proportional = [], False
    for rule in rules_for(line):
        of_goods = [cell for cell in goods if cell.rule.jurisdiction == rule.jurisdiction]
        taxed = any(cell.exact for cell in of_goods)
        if rule.shipping is ShippingMode.PROPORTIONAL:
            proportional = True
        elif rule.shipping is ShippingMode.ALWAYS or (rule.shipping is ShippingMode.FOLLOWS_GOODS and taxed):
            always.append(rule)
        else:
            always.append(_without_tax(rule, _why_untaxed(rule, of_goods)))
    if proportional:
        cells += _as_the_goods(n, line, lines, goods, rules_for)
    return cells + _on(n, line, always)


def _why_untaxed(rule: Rule, of_goods: Sequence[_Cell]) -> Reason:
    """Say why shipping is not taxed: for a reason of its own, or because none of an exempt customer's goods is."""
    if rule.reason in UNTAXED:
        return rule.reason
    follows = rule.shipping is ShippingMode.FOLLOWS_GOODS
    exempt = follows and {cell.reason for cell in of_goods} == {Reason.CUSTOMER_EXEMPT}
    return Reason.CUSTOMER_EXEMPT if exempt else Reason.NOT_SUBJECT_TO_TAX


def _as_the_goods(n: int, line: Line, lines: Sequence[Line], goods: Sequence[_Cell], rules_for: RulesFor) -> list[_Cell]:
    """Share the charge among the goods by their value, and tax each share as what it carries."""
    carried = [(m, each) for m, each in enumerate(lines) if each.kind is Kind.GOODS]
    if not carried:
        return _on(n, line, [r for r in rules_for(line) if r.shipping is ShippingMode.PROPORTIONAL])
    taxes: dict[int, Fraction] = defaultdict(Fraction)
    for cell in goods:
        taxes[cell.line] += cell.exact
    by_rules: dict[tuple[tuple[str, Reason], ...], tuple[list[Rule], Fraction]] = {}
    for m, each in carried:
        rules = [rule for rule in rules_for(each) if rule.shipping is ShippingMode.PROPORTIONAL]
        # A certificate frees some goods from the very rule that taxes others.
        key = tuple((rule.version, rule.reason) for rule in rules)
        known = by_rules.get(key, (rules, NO_TAX))
        by_rules[key] = (rules, known[1] + max(NO_TAX, _value(each, taxes[m], included=line.included)))
    shares = prorated([weight for _, weight in by_rules.values()], line.taxed_amount)
    whole = msgspec.structs.replace(line, quantity=1)
    return _merged(
        [cell for (rules, _), share in zip(by_rules.values(), shares, strict=True) for cell in _on(n, whole, rules, amount=share)]
    )


def _value(line: Line, taxes: Fraction, *, included: bool) -> Fraction:
    """Say what a line is worth with or without its taxes, as the charge that it is weighed for is."""
    if line.included == included:
        return Fraction(line.taxed_amount)
    return line.taxed_amount + taxes if included else line.taxed_amount - taxes


def _merged(cells: Sequence[_Cell]) -> list[_Cell]:
    """Bring together what one rule takes of several shares of a charge."""
    found: dict[tuple[str, Reason], _Cell] = {}
    for cell in cells:
        known = found.setdefault((cell.rule.version, cell.reason), cell)
        if known is not cell:
            known.exact += cell.exact
            known.base += cell.base
    return list(found.values())


def _without_tax(rule: Rule, reason: Reason) -> Rule:
    return msgspec.structs.replace(rule, reason=reason)


# Rounding


def _round(cells: list[_Cell], lines: Sequence[Line]) -> None:
    groups: dict[object, list[_Cell]] = defaultdict(list)
    for number, cell in enumerate(cells):
        rule = cell.rule
        shared = (rule.scope, rule.rounding, rule.inclusive, cell.included)
        if cell.included and rule.inclusive is InclusiveRounding.NET:
            groups["net", cell.line, shared].append(cell)
        elif rule.scope is RoundingScope.LINE:
            groups["cell", number].append(cell)
        elif rule.scope is RoundingScope.RATE_GROUP:
            groups["rate", rule.jurisdiction, rule.rate_percent, shared].append(cell)
        else:
            groups["document", shared].append(cell)
    for group in groups.values():
        rule = group[0].rule
        exact = sum((cell.exact for cell in group), Fraction(0))
        if group[0].included and rule.inclusive is InclusiveRounding.NET:
            line = lines[group[0].line]
            total = line.taxed_amount - rounded(line.taxed_amount - exact, rule.rounding)
        else:
            total = rounded(exact, rule.rounding)
        for cell, amount in zip(group, apportioned([cell.exact for cell in group], total), strict=True):
            cell.amount = amount


def _rows(lines: Sequence[Line], cells: Sequence[_Cell]) -> list[Row]:
    taxes: dict[int, int] = defaultdict(int)
    exact: dict[int, Fraction] = defaultdict(Fraction)
    for cell in cells:
        taxes[cell.line] += cell.amount
        exact[cell.line] += cell.exact
    rows = []
    for cell in cells:
        line, rule = lines[cell.line], cell.rule
        net = line.taxed_amount - (taxes[cell.line] if line.included else 0)
        # All of a line is all of it, though the exact net of a price that holds its tax is none of whole units.
        whole = cell.base == line.taxed_amount - (exact[cell.line] if line.included else 0)
        taxable = 0 if cell.reason in UNTAXED else net if whole else rounded(cell.base, RoundingMode.HALF_UP)
        rows.append(
            Row(
                line=cell.line,
                country=rule.country,
                region=rule.region,
                level=rule.level,
                name=rule.name,
                rate_percent=rule.rate_percent,
                taxable_amount=taxable,
                untaxed_amount=net - taxable,
                amount=cell.amount,
                included=cell.included,
                reason=cell.reason,
                rule_version=rule.version,
            )
        )
    return rows
