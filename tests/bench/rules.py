"""What a quote's tax costs with few rules and with many, in one process: no network, no database.

`python -m tests.bench.rules` prints both and their ratio.
"""

import sys
import time
from datetime import date
from decimal import Decimal

from services.fulfillment.domain.tax.engine import Line, compute
from services.fulfillment.domain.tax.rule_book import book_of
from services.fulfillment.domain.tax.rules import Level, Place, Rule
from services.fulfillment.domain.tax.sale import Registration, Sale, rules_of
from shared.regions import region_of_postal_code

FEW, MANY = 200, 50_000
QUOTES = 300
PLACE = Place(country="US", region="US-CA", postal_code="90001")
SALE = Sale(
    ship_from=Place(country="US", region="US-NY", postal_code="10001"),
    ship_to=PLACE,
    day=date(2026, 6, 1),
    home="US",
    registrations=(Registration(country="US", region="US-CA"),),
)
LINES = [Line(amount=10_000, quantity=2, tax_code=code) for code in ("", "books", "clothing", "food")]


def zip_rules(count: int) -> list[Rule]:
    """Give the taxes of so many ZIP codes, each in its state, those around 90001 among them."""
    first = int(PLACE.postal_code) - 100
    codes = (f"{number % 100_000:05}" for number in range(first, first + 100_000))
    placed = ((code, region) for code in codes if (region := region_of_postal_code("US", code)))
    return [_rule(code, region, number) for number, (code, region) in zip(range(count), placed, strict=False)]


def seconds_for_quotes(rules: list[Rule]) -> float:
    """Measure quotes that find the store's rules indexed, as all but the first after a change do; the best of several runs counts."""
    book = book_of(rules)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(QUOTES):
            compute(LINES, rules_of(SALE, book))
        best = min(best, time.perf_counter() - started)
    return best / QUOTES


def _rule(code: str, region: str, number: int) -> Rule:
    return Rule(
        version=f"{number}",
        country="US",
        region=region,
        postal_codes=(code,),
        level=Level.CITY,
        name=f"City of {code}",
        rate_percent=Decimal("1.25"),
        valid_from=date(2020, 1, 1),
        source="bench",
    )


def main() -> None:
    """Print what a quote costs with few rules and with many."""
    few, many = (seconds_for_quotes(zip_rules(count)) for count in (FEW, MANY))
    sys.stdout.write(f"{FEW} rules: {few * 1e6:.0f} us; {MANY} rules: {many * 1e6:.0f} us; ratio {many / few:.2f}\n")


if __name__ == "__main__":
    main()
