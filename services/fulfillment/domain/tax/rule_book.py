"""Rules by place: of many thousands those few that can hold somewhere, found without looking at the others."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product, takewhile
from typing import overload

from services.fulfillment.domain.postal import normalized, patterns_of
from services.fulfillment.domain.tax.rules import Level, Place, Rule, Sourcing
from shared.regions import around


class CountryRules:
    """A country's rules and an index of them by region, tax code and postal code."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        shelves: dict[tuple[str, str], list[int]] = defaultdict(list)
        for number, rule in enumerate(self.rules):
            shelves[rule.region, rule.tax_code].append(number)
        self._shelves = {key: _Shelf(self.rules, numbers) for key, numbers in shelves.items()}
        # Where the country's own tax is another one, where tax depends on the postal code, and whether it does on where goods come from.
        self.taxed_regions = frozenset(rule.region for rule in self.rules if rule.region and rule.level is Level.COUNTRY)
        self.regions_with_codes = frozenset(rule.region for rule in self.rules if rule.postal_codes or rule.postal_codes_excluded)
        self.looks_at_origin = any(rule.sourcing is not Sourcing.DESTINATION for rule in self.rules)

    def near(self, places: Iterable[Place], tax_code: str) -> list[Rule]:
        """Give the rules for goods that may hold at one of some places, in their order."""
        numbers: set[int] = set()
        for place in places:
            code = normalized(place.country, place.postal_code)
            for key in product({"", *around(place.region)}, _codes(tax_code)):
                if key in self._shelves:
                    numbers |= self._shelves[key].near(code)
        return [self.rules[number] for number in sorted(numbers)]


class RuleBook(Sequence[Rule]):
    """The rules of some countries."""

    def __init__(self, countries: Mapping[str, CountryRules]) -> None:
        self._countries = countries

    @overload
    def __getitem__(self, index: int) -> Rule: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rule]: ...
    def __getitem__(self, index: int | slice) -> Rule | Sequence[Rule]:
        return tuple(self)[index]

    def __iter__(self) -> Iterator[Rule]:
        return (rule for each in self._countries.values() for rule in each.rules)

    def __len__(self) -> int:
        return sum(len(each.rules) for each in self._countries.values())

    def near(self, places: Sequence[Place], tax_code: str) -> list[Rule]:
        """Give the rules for goods that may hold at one of some places; all others cannot."""
        within = dict.fromkeys(place.country for place in places)
        return [rule for country in within for rule in self.of(country).near([p for p in places if p.country == country], tax_code)]

    def of(self, country: str) -> CountryRules:
        """Give a country's rules; it may have none."""
        return self._countries.get(country, NO_RULES)


NO_RULES = CountryRules(())


def book_of(rules: Sequence[Rule]) -> RuleBook:
    """Index rules that are not yet."""
    if isinstance(rules, RuleBook):
        return rules
    countries: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        countries[rule.country].append(rule)
    return RuleBook({country: CountryRules(found) for country, found in countries.items()})


class _Shelf:
    """Rules of one region for one tax code, by the postal codes that they name."""

    def __init__(self, rules: Sequence[Rule], numbers: Iterable[int]) -> None:
        self._everywhere: set[int] = set()
        self._single: dict[str, set[int]] = defaultdict(set)
        ranges: dict[int, list[tuple[str, str, int]]] = defaultdict(list)
        for number in numbers:
            rule = rules[number]
            if not rule.postal_codes:
                self._everywhere.add(number)
            for pattern in (each for text in rule.postal_codes for each in patterns_of(rule.country, text)):
                if pattern.first == pattern.last:
                    self._single[pattern.first].add(number)
                else:
                    ranges[len(pattern.first)].append((pattern.first, pattern.last, number))
        self._ranges = {size: _Ranges(found) for size, found in ranges.items()}

    def near(self, code: str) -> set[int]:
        found = set(self._everywhere)
        for size in range(len(code) + 1):
            found |= self._single.get(code[:size], set())
            if size in self._ranges:
                found.update(self._ranges[size].around(code[:size]))
        return found


class _Ranges:
    """Ranges of equally long beginnings as an interval tree: those around the middle here, the others in two halves."""

    def __init__(self, ranges: Sequence[tuple[str, str, int]]) -> None:
        self._middle = sorted(first for first, _, _ in ranges)[len(ranges) // 2]
        here = [each for each in ranges if each[0] <= self._middle <= each[1]]
        below = [each for each in ranges if each[1] < self._middle]
        above = [each for each in ranges if each[0] > self._middle]
        self._by_first = sorted(here)
        self._by_last = sorted(here, key=lambda each: each[1], reverse=True)
        self._below, self._above = (_Ranges(half) if half else None for half in (below, above))

    def around(self, begin: str) -> Iterator[int]:
        if begin <= self._middle:
            yield from (number for _, _, number in takewhile(lambda each: each[0] <= begin, self._by_first))
        else:
            yield from (number for _, _, number in takewhile(lambda each: each[1] >= begin, self._by_last))
        half = self._below if begin < self._middle else self._above
        if half is not None:
            yield from half.around(begin)


def _codes(tax_code: str) -> list[str]:
    """Name a tax code, those it is a part of, and that of all goods."""
    parts = tax_code.split(".") if tax_code else []
    return ["", *(".".join(parts[:size]) for size in range(1, len(parts) + 1))]
