"""Prices whose net is fixed across borders: the tax of home that they hold comes off before another is put on."""

from collections.abc import Sequence

import msgspec

from services.fulfillment.domain.tax.engine import Kind, Line, RulesFor, compute
from services.fulfillment.domain.tax.rules import Place
from services.fulfillment.domain.tax.sale import Sale


def at_home(sale: Sale) -> Sale:
    """Give the sale to a consumer at home, whose tax the prices hold."""
    place = sale.ship_from if sale.ship_from.country == sale.home else Place(country=sale.home)
    return msgspec.structs.replace(sale, ship_from=place, ship_to=place, exemptions=(), buyer_vat_country="")


def without_home_tax(lines: Sequence[Line], home: RulesFor, there: RulesFor) -> tuple[list[Line], list[int]]:
    """Take home's tax off the lines that hold it and are taxed otherwise; gives them, and by line what the buyer pays less.

    What a third party pays of a price goes down last.
    """
    other = [_named(home, line) != _named(there, line) for line in lines]
    anywhere = any(other)
    changed = [line.included and (differs or (anywhere and line.kind is Kind.SHIPPING)) for line, differs in zip(lines, other, strict=True)]
    if not any(changed):
        return list(lines), []
    held = [0] * len(lines)
    for row in compute(lines, home):
        if row.line < len(lines) and row.included and changed[row.line]:
            held[row.line] += row.amount
    removed = [min(tax, line.amount) for tax, line in zip(held, lines, strict=True)]
    return [
        _net(line, tax, of_buyer) if differs else line for line, tax, of_buyer, differs in zip(lines, held, removed, changed, strict=True)
    ], removed


def _named(rules_for: RulesFor, line: Line) -> list[tuple[str, str]]:
    return [(rule.version, rule.reason.value) for rule in rules_for(line)]


def _net(line: Line, tax: int, of_buyer: int) -> Line:
    return msgspec.structs.replace(
        line, amount=line.amount - of_buyer, paid_by_others=line.paid_by_others - (tax - of_buyer), included=False
    )
