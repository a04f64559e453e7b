"""Rules, lines and sales, written short."""

from datetime import date
from decimal import Decimal
from typing import Any

from services.fulfillment.domain.tax.engine import Kind, Line, Row, compute
from services.fulfillment.domain.tax.rules import Level, Place, Rule
from services.fulfillment.domain.tax.sale import Sale, rules_of

DAY = date(2026, 6, 1)
PLACE = Place(country="US", region="US-WA", postal_code="98101")


def rule(percent: str, name: str = "VAT", **facts: Any) -> Rule:
    """A rule of one place, valid for ever."""
    given = {
        "version": f"{name} {percent} {facts.get('tax_code', '')}",
        "country": "US",
        "level": Level.STATE,
        "region": "US-WA",
        "name": name,
        "rate_percent": Decimal(percent),
        "valid_from": date(2000, 1, 1),
    }
    return Rule(**{**given, **facts})


def national(country: str, percent: str, **facts: Any) -> Rule:
    """A country's own tax."""
    return rule(percent, **{"country": country, "region": "", "level": Level.COUNTRY, **facts})


def goods(amount: int, **facts: Any) -> Line:
    return Line(amount=amount, **facts)


def shipping(amount: int, **facts: Any) -> Line:
    return Line(amount=amount, kind=Kind.SHIPPING, **facts)


def taxed(lines: list[Line], *rules: Rule) -> list[Row]:
    """Tax lines by all of the rules that name their tax code."""

    def rules_for(line: Line) -> list[Rule]:
        of_code = [each for each in rules if each.tax_code == line.tax_code]
        return of_code or [each for each in rules if not each.tax_code]

    return compute(lines, rules_for)


def sold(sale: Sale, lines: list[Line], *rules: Rule) -> list[Row]:
    """Tax lines as a sale is taxed."""
    return compute(lines, rules_of(sale, rules))


def of_line(rows: list[Row], line: int) -> int:
    return sum(row.amount for row in rows if row.line == line)


def total(rows: list[Row]) -> int:
    return sum(row.amount for row in rows)
