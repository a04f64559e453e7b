"""Whose tax a sale is under: where it counts as made, where the seller is registered, and whom nobody taxes."""

from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal

import msgspec

from services.fulfillment.domain.tax.engine import Line, Row
from services.fulfillment.domain.tax.rule_book import RuleBook, book_of
from services.fulfillment.domain.tax.rules import Level, Place, Reason, Rule, Sourcing, selected
from services.fulfillment.domain.territories import (
    EU_AREA,
    EU_GOODS,
    NORTHERN_IRELAND,
    TAXED_BY_STATES,
    Territory,
    rule_places,
    territory_of,
)
from shared.errors import Refusal
from shared.regions import around

NO_RULE = "none"


class NoTaxRule(Refusal):
    """The seller collects tax at a place that no rule covers; nothing is guessed."""

    code = "no-tax-rule"
    title = "There is no tax rule for this sale"
    status = 422


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """Where the seller collects tax: a country, or a region of it where those tax for themselves; `oss` stands for the whole EU."""

    country: str = ""
    region: str = ""
    oss: bool = False
    valid_from: date = date.min
    valid_to: date | None = None

    def valid_on(self, day: date) -> bool:
        """Tell whether it stands on a day."""
        return self.valid_from <= day and (self.valid_to is None or day <= self.valid_to)

    def collects(self, territory: Territory) -> bool:
        """Tell whether it is one for a territory's own tax, whatever its name there: IM and GB are one, as are MC and FR."""
        if self.oss:
            return EU_AREA in territory.vat
        named = territory_of(Place(country=self.country, region=self.region))
        if self.region and named.tax == self.country:
            return False
        # A number for Northern Ireland alone (XI) says nothing of Great Britain.
        return named.code == territory.code or (named.tax == territory.tax and named.code != NORTHERN_IRELAND)


class Exemption(msgspec.Struct, frozen=True, kw_only=True):
    """A customer's certificate: where, for what, and for how long they are not taxed."""

    certificate: str
    country: str
    # Empty: all regions; all goods.
    region: str = ""
    tax_codes: tuple[str, ...] = ()
    valid_from: date = date.min
    valid_to: date | None = None

    def covers(self, rule: Rule, tax_code: str, day: date) -> bool:
        """Tell whether it frees goods from a rule."""
        somewhere = self.country == rule.country and self.region in ("", rule.region)
        something = not self.tax_codes or any(tax_code == c or tax_code.startswith(f"{c}.") for c in self.tax_codes)
        return somewhere and something and self.valid_from <= day and (self.valid_to is None or day <= self.valid_to)


class Sale(msgspec.Struct, frozen=True, kw_only=True):
    """Who sells from where to whom, when."""

    ship_from: Place
    ship_to: Place
    day: date
    # Where the seller is at home; registered there in any case.
    home: str
    registrations: tuple[Registration, ...] = ()
    exemptions: tuple[Exemption, ...] = ()
    # The buyer's VAT number was given and holds; without a valid one a buyer is a consumer (Directive 2006/112/EC, Article 138).
    buyer_vat_country: str = ""

    @property
    def registered(self) -> tuple[Registration, ...]:
        """Give the registrations that are valid on the day."""
        return tuple(each for each in self.registrations if each.valid_on(self.day))

    def at_home(self, territory: Territory) -> bool:
        """Tell whether a territory is the seller's home, or the part of their country from which they sell."""
        here = territory_of(self.ship_from)
        part = territory.tax == here.tax and self.home in (here.code, *here.parents)
        return part or territory_of(Place(country=self.home)).tax == territory.tax

    def collects(self, territory: Territory) -> bool:
        """Tell whether the seller collects a territory's own tax."""
        return self.at_home(territory) or any(each.collects(territory) for each in self.registered)

    def collects_in(self, country: str, region: str) -> bool:
        """Tell whether the seller collects the tax of a country's region."""
        return any(each.country == country and each.region in around(region) for each in self.registered)


def rules_of(sale: Sale, rules: Sequence[Rule]) -> Callable[[Line], list[Rule]]:
    """Give the rules for each line of a sale, with what frees it from tax put in; raises NoTaxRule."""
    book = book_of(rules)
    place, freed = _where(sale, book)
    known: dict[str, list[Rule]] = {}

    def rules_for(line: Line) -> list[Rule]:
        if line.tax_code not in known:
            known[line.tax_code] = _for_code(sale, book, line.tax_code, place, freed)
        return known[line.tax_code]

    return rules_for


def lacks_rules(sale: Sale, rows: Sequence[Row]) -> bool:
    """Tell whether a sale within the seller's own country is untaxed because there is no rule at all."""
    there = territory_of(sale.ship_to)
    within = sale.at_home(there) or sale.home in there.parents
    return within and any(row.rule_version == NO_RULE and row.reason is Reason.NOT_COLLECTING for row in rows)


def _where(sale: Sale, book: RuleBook) -> tuple[Place, Reason | None]:
    """Decide where a sale counts as made, and whether that alone frees it."""
    there, here = sale.ship_to, sale.ship_from
    target, origin = territory_of(there), territory_of(here)
    if target.tax == origin.tax:
        return there, None
    if EU_AREA in origin.vat & target.vat:
        if sale.buyer_vat_country in EU_GOODS - {origin.country}:
            return there, Reason.INTRA_COMMUNITY_SUPPLY
        # Under the EU's threshold a sale to a consumer is taxed where it comes from (Article 59c).
        return (there if sale.collects(target) else here), None
    if sale.collects(target) or (there.region and sale.collects_in(there.country, there.region)):
        return there, None
    if EU_AREA in origin.vat or (sale.collects(origin) and _has_national_tax(here, book)):
        return there, Reason.EXPORT
    return there, None if _has_regions(sale, target) else Reason.NOT_COLLECTING


def _has_national_tax(place: Place, book: RuleBook) -> bool:
    names = rule_places(place)
    return any(rule.level is Level.COUNTRY and rule.covers(names.for_rule(rule)) for rule in book.near(names.places, ""))


def _has_regions(sale: Sale, territory: Territory) -> bool:
    return any(each.country == territory.tax and each.region for each in sale.registered)


def _for_code(sale: Sale, book: RuleBook, tax_code: str, place: Place, freed: Reason | None) -> list[Rule]:
    found = _selected(sale, book, tax_code, place)
    if freed is not None:
        # One row says why; the rates it is freed from do not matter.
        first = found[0] if found else _nothing(place)
        return [msgspec.structs.replace(first, reason=freed, rate_percent=Decimal(0))]
    if not found:
        if _must_have_rule(sale, book, place):
            raise NoTaxRule(
                f"No rule covers goods of the code {tax_code!r} in {place.country} {place.region} {place.postal_code} on {sale.day}.",
                {"tax_code": tax_code, "country": place.country, "region": place.region},
            )
        return [_nothing(place)]
    return [_as_it_is_for(sale, rule, tax_code, place) for rule in found]


def _selected(sale: Sale, book: RuleBook, tax_code: str, place: Place) -> list[Rule]:
    """Choose the rules at a place; those under a territory's own code go before those under its country's."""
    names, origin_names = rule_places(place), rule_places(sale.ship_from)

    def seen_by(rule: Rule) -> Place:
        at_origin = _counts_at(rule, place, sale.ship_from) is sale.ship_from
        return (origin_names if at_origin else names).for_rule(rule)

    near = book.near((*names.places, *origin_names.places), tax_code)
    found = selected(near, seen_by, tax_code=tax_code, day=sale.day)
    nearest = next((country for country in names.countries if any(rule.country == country for rule in found)), "")
    return [rule for rule in found if rule.country == nearest]


def _must_have_rule(sale: Sale, book: RuleBook, place: Place) -> bool:
    """Tell whether a tax is due at a place that has no rule for it: it is refused then, for a tax is never guessed."""
    territory, names = territory_of(place), rule_places(place)
    region = place.region or territory.region
    if sale.collects_in(territory.tax, region) if region else _has_regions(sale, territory):
        return True
    if territory.tax in TAXED_BY_STATES:
        return False
    if any(each.collects(territory) for each in sale.registered):
        return True
    # To be at home somewhere is no registration where there are no rules: many countries levy no such tax.
    has_rules = any(book.of(country).rules for country in names.whole)
    partly = (rule for country in names.part for rule in book.of(country).rules)
    return sale.at_home(territory) and (has_rules or any(rule.covers(names.for_rule(rule)) for rule in partly))


def _counts_at(rule: Rule, place: Place, origin: Place) -> Place:
    within = (origin.country, origin.region) == (place.country, place.region)
    if rule.sourcing is Sourcing.ORIGIN or (rule.sourcing is Sourcing.HYBRID and within):
        return origin
    return place


def _as_it_is_for(sale: Sale, rule: Rule, tax_code: str, place: Place) -> Rule:
    if any(each.covers(rule, tax_code, sale.day) for each in sale.exemptions):
        return msgspec.structs.replace(rule, reason=Reason.CUSTOMER_EXEMPT)
    regional = rule.level is not Level.COUNTRY and rule.region
    collected = sale.collects_in(rule.country, rule.region) if regional else sale.collects(territory_of(place))
    return rule if collected else msgspec.structs.replace(rule, reason=Reason.NOT_COLLECTING)


def _nothing(place: Place) -> Rule:
    country = territory_of(place).country
    return Rule(
        version=NO_RULE,
        country=country,
        region=place.region if place.region.startswith(country) else "",
        name=NO_RULE,
        rate_percent=Decimal(0),
        reason=Reason.NOT_COLLECTING,
        valid_from=date.min,
    )
