"""The index of rules: it finds what looking at every rule finds, and does not take longer where there are many."""

from datetime import date
from random import Random

import pytest

from services.fulfillment.domain.tax.rule_book import book_of
from services.fulfillment.domain.tax.rules import LEVELS, Place, Rule, Sourcing, selected
from tests.bench.rules import FEW, MANY, seconds_for_quotes, zip_rules
from tests.fulfillment.rates import rule

RATIO_MAX = 1.5
DAY = date(2026, 6, 1)
CODES = ("", "food", "food.bread", "food.bread.rye", "foodstuff", "books")
BRITISH = ("IV1-IV28", "IV2", "IV1 1AA", "BT*", "EC1A", "E1-E18")
RULES, LOOKUPS = 400, 150


def a_pattern(random: Random, country: str) -> str:
    if country == "GB":
        return random.choice(BRITISH)
    low, high = sorted(f"{random.randrange(100):02}{random.choice(('000', '500', '999'))}" for _ in range(2))
    size = random.randint(1, 5)
    return random.choice((low, f"{low[:size]}*", f"{low}-{high}", f"{low[:3]}-{high[:3]}"))


def a_rule(random: Random, number: int, country: str) -> Rule:
    return rule(
        "1",
        random.choice("abc"),
        version=str(number),
        country=country,
        region=random.choice(("", "US-CA", "US-TX") if country == "US" else ("", "GB-NIR")),
        level=random.choice(LEVELS),
        tax_code=random.choice(CODES),
        sourcing=random.choice(list(Sourcing)),
        postal_codes=tuple(a_pattern(random, country) for _ in range(random.randint(0, 3))),
        postal_codes_excluded=tuple(a_pattern(random, country) for _ in range(random.randint(0, 1))),
        valid_from=random.choice((date(2020, 1, 1), date(2026, 6, 1), date(2027, 1, 1))),
    )


def a_place(random: Random) -> Place:
    if random.random() < 0.3:
        code = random.choice(("IV1 1AA", "IV28 9ZZ", "IV2 3AB", "BT1 1AA", "EC1A 1BB", ""))
        return Place(country="GB", region=random.choice(("", "GB-NIR", "GB-BFS")), postal_code=code)
    return Place(country="US", region=random.choice(("", "US-CA", "US-TX")), postal_code=f"{random.randrange(100_000):05}")


class TestIndex:
    @pytest.mark.parametrize("seed", range(8))
    def test_finds_what_looking_at_every_rule_finds(self, seed: int) -> None:
        random = Random(seed)
        # Rules of one country after the other, as the store's come; equal ones of two countries have no other order.
        known = [a_rule(random, number, "GB" if number < RULES / 4 else "US") for number in range(RULES)]
        book, found = book_of(known), 0
        for _ in range(LOOKUPS):
            place, origin, code = a_place(random), a_place(random), random.choice((*CODES, "food.fish", "other"))

            def place_of(each: Rule, place: Place = place, origin: Place = origin) -> Place:
                return origin if each.sourcing is Sourcing.ORIGIN else place

            near = book.near(sorted((place, origin), key=lambda each: each.country), code)
            chosen = selected(near, place_of, tax_code=code, day=DAY)

            assert chosen == selected(known, place_of, tax_code=code, day=DAY)
            found += len(chosen)
        assert found > LOOKUPS

    def test_costs_with_many_rules_what_it_does_with_few(self) -> None:
        few, many = book_of(zip_rules(FEW)), book_of(zip_rules(MANY))
        assert len(many) == MANY

        # Another process may take the machine for a moment: the ratio must hold once in a few times.
        ratios = [seconds_for_quotes(many, quotes=20) / seconds_for_quotes(few, quotes=20) for _ in range(3)]

        assert min(ratios) <= RATIO_MAX, ratios
