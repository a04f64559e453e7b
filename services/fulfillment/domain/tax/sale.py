"""Whose tax a sale is under: where it counts as made, where the seller is registered, and whom nobody taxes."""

from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal

import msgspec

from services.fulfillment.domain.postal import matches
from services.fulfillment.domain.tax.conditions import applies_to, of_currency, within_combined_rate
from services.fulfillment.domain.tax.engine import Line
from services.fulfillment.domain.tax.price_bounds import holding
from services.fulfillment.domain.tax.rules import Level, Place, Reason, Rule, Sourcing, matching, most_specific
from shared.errors import Refusal

EU = frozenset(
    {
        *("AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU"),
        *("IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"),
    }
)
# Of member states, yet outside the area of their VAT (Directive 2006/112/EC, Article 6), by postal code.
OUTSIDE_VAT_AREA: dict[str, tuple[str, ...]] = {
    "DE": ("27498", "78266"),
    "ES": ("35*", "38*", "51*", "52*"),
    "FI": ("22*",),
    "FR": ("971*", "972*", "973*", "974*", "976*", "98*"),
    "GR": ("63086", "63087"),
    "IT": ("22061", "23041"),
}
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
    currency: str = ""
    # Goods are carried to the buyer, as a fee on deliveries asks.
    delivered: bool = True

    @property
    def registered(self) -> tuple[Registration, ...]:
        """Give the registrations that stand on the day, the home's with them."""
        standing = (each for each in self.registrations if each.valid_on(self.day))
        return (Registration(country=self.home), *standing)

    def collects(self, country: str, region: str = "") -> bool:
        """Tell whether the seller collects a country's own tax, or that of one of its regions."""
        return any(
            (each.country == country and each.region == region) or (each.oss and region == "" and country in EU) for each in self.registered
        )


def rules_of(sale: Sale, rules: Sequence[Rule]) -> Callable[[Line], list[Rule]]:
    """Give the rules for each line of a sale, with what frees it from tax put in; raises NoTaxRule."""
    place, freed = _where(sale)
    known: dict[str, tuple[list[Rule], bool]] = {}
    priced: dict[Line, list[Rule]] = {}

    def rules_for(line: Line) -> list[Rule]:
        if line.tax_code not in known:
            found = _for_code(sale, rules, line.tax_code, place, freed)
            by_price = any(rule.depends_on_article for rule in found)
            known[line.tax_code] = (found if by_price else _chosen(sale, line, place, most_specific(found)), by_price)
        found, by_price = known[line.tax_code]
        if not by_price:
            return found
        if line not in priced:
            priced[line] = _chosen(sale, line, place, holding(found, line))
        return priced[line]

    return rules_for


def _chosen(sale: Sale, line: Line, place: Place, found: list[Rule]) -> list[Rule]:
    """Insist that a rule is there wherever the seller collects, and keep rules within what they may take together."""
    if any(rule.flat_amount is None for rule in found):
        return within_combined_rate(found)
    if sale.collects(place.country) or sale.collects(place.country, place.region):
        raise NoTaxRule(
            f"No rule covers goods of the code {line.tax_code!r} in {place.country} {place.region} {place.postal_code} on {sale.day}.",
            {"tax_code": line.tax_code, "country": place.country, "region": place.region},
        )
    return [_nothing(place)]


def in_eu_vat_area(place: Place) -> bool:
    """Tell whether a place is in the EU as far as VAT goes."""
    outside = OUTSIDE_VAT_AREA.get(place.country, ())
    return place.country in EU and not any(matches(place.postal_code.replace(" ", ""), pattern) for pattern in outside)


def _where(sale: Sale) -> tuple[Place, Reason | None]:
    """Decide where a sale counts as made, and whether that alone frees it."""
    there, here = sale.ship_to, sale.ship_from
    if in_eu_vat_area(here) and there.country in EU and not in_eu_vat_area(there):
        return there, Reason.EXPORT
    if there.country == here.country:
        return there, None
    if in_eu_vat_area(here) and in_eu_vat_area(there):
        if sale.buyer_vat_country in EU - {here.country}:
            return there, Reason.INTRA_COMMUNITY_SUPPLY
        # Under the EU's threshold a sale to a consumer is taxed where it comes from (Article 59c).
        return (there if sale.collects(there.country) else here), None
    if sale.collects(there.country) or (there.region and sale.collects(there.country, there.region)):
        return there, None
    return there, Reason.EXPORT if in_eu_vat_area(here) else Reason.NOT_COLLECTING if not _has_regions(sale, there) else None


def _has_regions(sale: Sale, place: Place) -> bool:
    return any(each.country == place.country and each.region for each in sale.registered)


def _for_code(sale: Sale, rules: Sequence[Rule], tax_code: str, place: Place, freed: Reason | None) -> list[Rule]:
    """Find all rules that may be about goods of a code, as they are for this sale."""
    found = matching(rules, lambda rule: _counts_at(rule, place, sale.ship_from), tax_code=tax_code, day=sale.day)
    found = of_currency([rule for rule in found if applies_to(rule, sale.ship_from, sale.ship_to, sale.delivered)], sale.currency)
    if freed is not None:
        # One row says why; the rates it is freed from do not matter.
        first = next((rule for rule in most_specific(found) if rule.flat_amount is None), _nothing(place))
        unbound = msgspec.structs.replace(first, applies_from=None, applies_above=None, applies_up_to=None, applies_below=None)
        return [msgspec.structs.replace(unbound, reason=freed, rate_percent=Decimal(0))]
    return [_as_it_is_for(sale, rule, tax_code) for rule in found]


def _counts_at(rule: Rule, place: Place, origin: Place) -> Place:
    within = (origin.country, origin.region) == (place.country, place.region)
    if rule.sourcing is Sourcing.ORIGIN or (rule.sourcing is Sourcing.HYBRID and within):
        return origin
    return place


def _as_it_is_for(sale: Sale, rule: Rule, tax_code: str) -> Rule:
    if any(each.covers(rule, tax_code, sale.day) for each in sale.exemptions):
        return msgspec.structs.replace(rule, reason=Reason.CUSTOMER_EXEMPT)
    regional = rule.level is not Level.COUNTRY
    if not sale.collects(rule.country, rule.region if regional else ""):
        return msgspec.structs.replace(rule, reason=Reason.NOT_COLLECTING)
    return rule


def _nothing(place: Place) -> Rule:
    return Rule(
        version=NO_RULE,
        country=place.country,
        region=place.region,
        name=NO_RULE,
        rate_percent=Decimal(0),
        reason=Reason.NOT_COLLECTING,
        valid_from=date.min,
    )
