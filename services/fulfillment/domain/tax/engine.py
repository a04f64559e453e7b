"""The built-in engine: from lines and rules to tax rows that add up, each with its reason."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import msgspec

from services.fulfillment.domain.tax.amounts import RoundingMode, apportioned, prorated, rounded
from services.fulfillment.domain.tax.rules import InclusiveRounding, Level, Reason, RoundingScope, Rule, ShippingMode, TaxedPer
from shared.contracts.orders import SupplyKind

PERCENT = 100
NO_TAX = Fraction(0)
UNTAXED = frozenset(
    {Reason.PRODUCT_EXEMPT, Reason.NOT_SUBJECT_TO_TAX, Reason.NOT_COLLECTING, Reason.CUSTOMER_EXEMPT, Reason.EXPORT}
    | {Reason.REVERSE_CHARGE, Reason.INTRA_COMMUNITY_SUPPLY}
)
# How a charge for shipping is shared among the goods.
SHARED = (ShippingMode.PROPORTIONAL, ShippingMode.BY_WEIGHT)


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
    # Of all its units; nothing where it is not known.
    weight_grams: int | None = None
    kind: Kind = Kind.GOODS
    supply: SupplyKind = SupplyKind.GOODS

    @property
    def taxed_amount(self) -> int:
        """What a tax looks at: the price that the merchant gets, whoever pays it."""
        return self.amount + self.paid_by_others


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What one jurisdiction's tax on one line comes to, and why; also when it is nothing. A fee on the sale is past the last line."""

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


class _Term(NamedTuple):
    """What a rule takes of an article's net: a rate of what lies between its bounds."""

    rate: Fraction
    compound: bool
    lower: Fraction
    upper: Fraction | None


RulesFor = Callable[[Line], Sequence[Rule]]
# What rules with bounds by the sale have met of it so far.
Met = dict[tuple[object, ...], Fraction]


def compute(lines: Sequence[Line], rules_for: RulesFor) -> list[Row]:
    """Work out every tax on every line; rules come in their order, of each jurisdiction one.

    Jurisdictions add up to the line and lines to the document, under every scope. Flat fees follow, each once.
    """
    met: Met = {}
    cells = [cell for n, line in enumerate(lines) if line.kind is Kind.GOODS for cell in _on(n, line, rules_for(line), met)]
    goods = list(cells)
    for n, line in enumerate(lines):
        if line.kind is Kind.SHIPPING:
            cells += _on_shipping(n, line, lines, goods, rules_for, met)
    fees = [cell for cell in cells if cell.rule.flat_amount is not None]
    if fees:
        cells = [cell for cell in cells if cell.rule.flat_amount is None]
    _round(cells, lines)
    rows = _rows(lines, sorted(cells, key=lambda cell: cell.line))
    return rows + _fees(lines, fees, cells) if fees else rows


# Exact amounts


def _on(n: int, line: Line, rules: Sequence[Rule], met: Met, *, amount: int | None = None) -> list[_Cell]:
    """Tax a line's amount, or a part of it, by rules in their order."""
    amount = line.taxed_amount if amount is None else amount
    if not any(_bounded(rule) for rule in rules):
        net, rates = _in_proportion(tuple((_rate(rule), rule.compound) for rule in rules), line.included)
        taxes = [(amount * rate, amount * net) for rate in rates]
    else:
        terms = _terms(rules, line.quantity, met)
        exact_net = _net(amount, line.quantity, terms) if line.included else Fraction(amount)
        _meet(met, rules, exact_net)
        taxes = _between_bounds(exact_net, line.quantity, terms)
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


def _between_bounds(net: Fraction, quantity: int, terms: Sequence[_Term]) -> list[tuple[Fraction, Fraction]]:
    taxes, before = [], NO_TAX
    for term in terms:
        base = _base(net, quantity, term)
        exact = (base + (before if term.compound else 0)) * term.rate
        before += exact
        taxes.append((exact, base))
    return taxes


def net_of(line: Line, rules: Sequence[Rule]) -> Fraction:
    """Say what one article costs without the taxes that its price would hold under rules."""
    return _net(line.taxed_amount, line.quantity, _terms(rules, line.quantity, {})) / line.quantity


def _bounded(rule: Rule) -> bool:
    return rule.taxed_above > 0 or rule.taxed_up_to is not None


def _rate(rule: Rule) -> Fraction:
    return NO_TAX if rule.reason in UNTAXED else _of_percent(rule.rate_percent)


@cache
def _of_percent(percent: Decimal) -> Fraction:
    return Fraction(percent) / PERCENT


def _terms(rules: Sequence[Rule], quantity: int, met: Met) -> list[_Term]:
    """Say what each rule takes of an article; of bounds by the sale, what earlier lines have left of them."""
    return [_term(rule, quantity, met) for rule in rules]


def _term(rule: Rule, quantity: int, met: Met) -> _Term:
    lower, upper = Fraction(rule.taxed_above), None if rule.taxed_up_to is None else Fraction(rule.taxed_up_to)
    if _bounded(rule) and rule.taxed_per is TaxedPer.SALE:
        before = met.get(_bound_of(rule), NO_TAX)
        lower = max(NO_TAX, lower - before) / quantity
        upper = None if upper is None else max(NO_TAX, upper - before) / quantity
    return _Term(_rate(rule), rule.compound, lower, upper)


def _meet(met: Met, rules: Sequence[Rule], net: Fraction) -> None:
    for rule in rules:
        if rule.taxed_per is TaxedPer.SALE and rule.reason not in UNTAXED:
            met[_bound_of(rule)] = met.get(_bound_of(rule), NO_TAX) + net


def _bound_of(rule: Rule) -> tuple[object, ...]:
    return (rule.jurisdiction, rule.taxed_above, rule.taxed_up_to)


def _base(net: Fraction, quantity: int, term: _Term) -> Fraction:
    """What of a line's net a rule taxes: of each article's price what lies between its bounds."""
    if not term.lower and term.upper is None:
        return net
    sign = -1 if net < 0 else 1
    each = abs(net) / quantity
    upper = each if term.upper is None else min(each, term.upper)
    return sign * quantity * max(Fraction(0), upper - term.lower)


def _net(gross: int, quantity: int, terms: Sequence[_Term]) -> Fraction:
    """Take the taxes out of a price that holds them, exactly; between the bounds of rules a price grows with its net in straight lines."""
    sign = -1 if gross < 0 else 1
    each = Fraction(abs(gross), quantity)
    bounds = sorted({bound for term in terms for bound in (term.lower, term.upper) if bound})
    lower = Fraction(0)
    for upper in bounds:
        if _gross(upper, terms) >= each:
            break
        lower = upper
    slope = _gross(lower + 1, terms, within=lower) - _gross(lower, terms)
    return sign * quantity * (lower + (each - _gross(lower, terms)) / slope)


def _gross(net: Fraction, terms: Sequence[_Term], *, within: Fraction | None = None) -> Fraction:
    """Add the taxes to one article's net; `within` goes on in a straight line from there, past later bounds."""
    taxes = Fraction(0)
    for term in terms:
        base = _base(net, 1, term) if within is None else _base(within, 1, term) + (net - within) * _taxed_at(within, term)
        taxes += (base + (taxes if term.compound else 0)) * term.rate
    return net + taxes


def _taxed_at(net: Fraction, term: _Term) -> int:
    return int(net >= term.lower and (term.upper is None or net < term.upper))


# Shipping


def _on_shipping(n: int, line: Line, lines: Sequence[Line], goods: Sequence[_Cell], rules_for: RulesFor, met: Met) -> list[_Cell]:
    cells = []
    always, shared = [], set()
    carried = _carried(lines)
    goods = [cell for cell in goods if cell.line in carried]
    for rule in rules_for(line):
        of_goods = [cell for cell in goods if cell.rule.jurisdiction == rule.jurisdiction]
        taxed = any(cell.exact for cell in of_goods)
        if rule.shipping in SHARED:
            shared.add(rule.shipping)
        elif rule.shipping is ShippingMode.HIGHEST_RATE:
            always.append(_of_highest_rate(rule, [lines[m] for m in carried], rules_for))
        elif rule.shipping is ShippingMode.ALWAYS or (rule.shipping is ShippingMode.FOLLOWS_GOODS and taxed):
            always.append(rule)
        else:
            always.append(_without_tax(rule, _why_untaxed(rule, of_goods)))
    for mode in SHARED:
        if mode in shared:
            cells += _as_the_goods(n, line, [(m, lines[m]) for m in carried], goods, rules_for, met, mode)
    return cells + _on(n, line, always, met)


def _carried(lines: Sequence[Line]) -> list[int]:
    """Name the lines that a charge for shipping is for: goods where there are any, for services are not sent; else all."""
    sold = [n for n, line in enumerate(lines) if line.kind is Kind.GOODS]
    return [n for n in sold if lines[n].supply is SupplyKind.GOODS] or sold


def _why_untaxed(rule: Rule, of_goods: Sequence[_Cell]) -> Reason:
    """Say why shipping is not taxed: for a reason of its own, or because none of an exempt customer's goods is."""
    if rule.reason in UNTAXED:
        return rule.reason
    follows = rule.shipping is ShippingMode.FOLLOWS_GOODS
    exempt = follows and {cell.reason for cell in of_goods} == {Reason.CUSTOMER_EXEMPT}
    return Reason.CUSTOMER_EXEMPT if exempt else Reason.NOT_SUBJECT_TO_TAX


def _of_highest_rate(rule: Rule, carried: Sequence[Line], rules_for: RulesFor) -> Rule:
    """Find the rule of the highest rate among a jurisdiction's on goods that cost something; without any it is shipping's own."""
    priced = [each for each in carried if each.taxed_amount]
    found = [other for each in priced for other in rules_for(each) if other.jurisdiction == rule.jurisdiction]
    highest = max(found, key=lambda other: (_rate(other), other.version), default=rule)
    # Bounds of an article's price are not about the charge for shipping.
    by_article = highest.taxed_per is TaxedPer.ARTICLE
    return msgspec.structs.replace(highest, taxed_above=0, taxed_up_to=None) if by_article and _bounded(highest) else highest


def _as_the_goods(
    n: int, line: Line, carried: Sequence[tuple[int, Line]], goods: Sequence[_Cell], rules_for: RulesFor, met: Met, mode: ShippingMode
) -> list[_Cell]:
    """Share the charge among the goods by their value or weight, and tax each share as what it carries."""
    if not carried:
        return _on(n, line, [r for r in rules_for(line) if r.shipping is mode], met)
    taxes: dict[int, Fraction] = defaultdict(Fraction)
    for cell in goods:
        taxes[cell.line] += cell.exact
    # Goods whose weight is not known cannot be weighed against others.
    weighed = mode is ShippingMode.BY_WEIGHT and all(each.weight_grams is not None for _, each in carried)
    by_rules: dict[tuple[tuple[str, Reason], ...], tuple[list[Rule], Fraction]] = {}
    for m, each in carried:
        rules = [rule for rule in rules_for(each) if rule.shipping is mode]
        # A certificate frees some goods from the very rule that taxes others.
        key = tuple((rule.version, rule.reason) for rule in rules)
        known = by_rules.get(key, (rules, NO_TAX))
        weight = Fraction(each.weight_grams or 0) if weighed else max(NO_TAX, _value(each, taxes[m], included=line.included))
        by_rules[key] = (rules, known[1] + weight)
    shares = prorated([weight for _, weight in by_rules.values()], line.taxed_amount)
    whole = msgspec.structs.replace(line, quantity=1)
    return _merged(
        [cell for (rules, _), share in zip(by_rules.values(), shares, strict=True) for cell in _on(n, whole, rules, met, amount=share)]
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


# Flat fees


def _fees(lines: Sequence[Line], fees: Sequence[_Cell], taxes: Sequence[_Cell]) -> list[Row]:
    """Charge each fee once, where goods that it names bear a tax of the same country, region and level; the highest of a jurisdiction."""
    taxed = {(cell.line, _authority(cell.rule)) for cell in taxes if cell.exact}
    due: dict[object, list[_Cell]] = defaultdict(list)
    for cell in fees:
        line = lines[cell.line]
        named = line.kind is Kind.GOODS and line.supply is SupplyKind.GOODS and cell.reason not in UNTAXED
        if named and (cell.line, _authority(cell.rule)) in taxed:
            due[cell.rule.jurisdiction].append(cell)
    rows = []
    for cells in due.values():
        worth = sum((cell.base for cell in cells), NO_TAX)
        applying = [cell.rule for cell in cells if cell.rule.applies_at(worth)]
        if applying:
            rows.append(_fee(len(lines), max(applying, key=lambda rule: (rule.flat_amount or 0, rule.version))))
    return rows


def _authority(rule: Rule) -> tuple[str, str, Level]:
    return (rule.country, rule.region, rule.level)


def _fee(line: int, rule: Rule) -> Row:
    return Row(
        line=line,
        country=rule.country,
        region=rule.region,
        level=rule.level,
        name=rule.name,
        rate_percent=rule.rate_percent,
        taxable_amount=0,
        untaxed_amount=0,
        amount=rule.flat_amount or 0,
        included=False,
        reason=rule.reason,
        rule_version=rule.version,
    )


# Rounding


def _round(cells: list[_Cell], lines: Sequence[Line]) -> None:
    groups: dict[object, list[_Cell]] = defaultdict(list)
    for number, cell in enumerate(cells):
        rule = cell.rule
        shared = (rule.scope, rule.rounding, rule.rounding_unit, rule.inclusive, cell.included)
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
            total = _to_unit(exact, rule)
        shares = [cell.exact for cell in group]
        if rule.rounding_unit != 1 and exact:
            # What the larger unit adds or takes is shared like the tax.
            shares = [share * total / exact for share in shares]
        for cell, amount in zip(group, apportioned(shares, total), strict=True):
            cell.amount = amount
    _keep_within_prices(list(groups.values()), lines)


def _to_unit(amount: Fraction, rule: Rule) -> int:
    if rule.rounding_unit == 1:
        return rounded(amount, rule.rounding)
    return rounded(amount / rule.rounding_unit, rule.rounding) * rule.rounding_unit


def _keep_within_prices(groups: Sequence[list[_Cell]], lines: Sequence[Line]) -> None:
    """Round a line's taxes together, to minor units, where apart they are more than the price that holds them.

    What that takes off goes to other lines that are rounded together with it.
    """
    held: dict[int, int] = defaultdict(int)
    for group in groups:
        for cell in group:
            held[cell.line] += cell.amount if cell.included else 0
    for n in [n for n, amount in held.items() if abs(amount) > abs(lines[n].taxed_amount)]:
        mine = [(group, cell) for group in groups for cell in group if cell.line == n and cell.included]
        exact = [cell.exact for _, cell in mine]
        amounts = apportioned(exact, rounded(sum(exact, NO_TAX), mine[0][1].rule.rounding))
        held[n] = sum(amounts)
        for (group, cell), amount in zip(mine, amounts, strict=True):
            taken, cell.amount = cell.amount - amount, amount
            for other in sorted(group, key=lambda each: each.exact, reverse=True):
                room = lines[other.line].taxed_amount - held[other.line]
                if other.line != n and cell.rule.rounding_unit == 1 and 0 < taken <= room:
                    other.amount += taken
                    held[other.line] += taken
                    taken = 0


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
