"""Whose tax a sale is under: where it counts as made, where the seller is registered, and whom nobody taxes."""

from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal

import msgspec

from services.fulfillment.domain.tax import imports
from services.fulfillment.domain.tax.conditions import applies_to, of_currency, within_combined_rate
from services.fulfillment.domain.tax.engine import UNTAXED, Kind, Line, Row, compute
from services.fulfillment.domain.tax.price_bounds import holding
from services.fulfillment.domain.tax.rule_book import RuleBook, book_of
from services.fulfillment.domain.tax.rules import Level, Place, Reason, Rule, Sourcing, matching, most_specific
from services.fulfillment.domain.territories import (
    EU,
    EU_AREA,
    EU_GOODS,
    NORTHERN_IRELAND,
    TAXED_BY_STATES,
    Territory,
    rule_places,
    territory_of,
)
from shared.contracts.orders import SupplyKind
from shared.errors import Refusal
from shared.regions import around, may_lie_in

NO_RULE = "none"
UNITED_KINGDOM = "GB"


class NoTaxRule(Refusal):
    """The seller collects tax at a place that no rule covers; nothing is guessed."""

    code = "no-tax-rule"
    title = "There is no tax rule for this sale"
    status = 422


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """Where the seller collects tax: a country, or a region of it where those tax for themselves, or the whole EU by a scheme.

    `oss` is the Union scheme, for what is sent within the EU; `ioss` the import scheme, for goods of low value that are sent into it.
    """

    country: str = ""
    region: str = ""
    oss: bool = False
    ioss: bool = False
    # The seller imports what is sent there, and then sells it there, whatever it is worth.
    importer: bool = False
    # The limit of goods of low value, as the seller states it in other currencies.
    import_limits: dict[str, int] = {}
    valid_from: date = date.min
    valid_to: date | None = None

    def valid_on(self, day: date) -> bool:
        """Tell whether it stands on a day."""
        return self.valid_from <= day and (self.valid_to is None or day <= self.valid_to)

    def collects(self, territory: Territory) -> bool:
        """Tell whether it is one for a territory's tax, by no scheme, whatever its name there: IM and GB are one, as are MC and FR."""
        named = territory_of(Place(country=self.country, region=self.region))
        if not self.country or (self.region and named.tax == self.country):
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

    def covers(self, country: str, region: str, tax_code: str, day: date) -> bool:
        """Tell whether it frees goods from the tax of a country, or of one of its regions."""
        somewhere = self.country == country and self.region in ("", region)
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
    # What the line that is looked at supplies.
    supply: SupplyKind = SupplyKind.GOODS
    # Goods are carried to the buyer, as a fee on deliveries asks.
    delivered: bool = True

    @property
    def registered(self) -> tuple[Registration, ...]:
        """Give the registrations that are valid on the day."""
        return tuple(each for each in self.registrations if each.valid_on(self.day))

    def at_home(self, territory: Territory) -> bool:
        """Tell whether a territory is the seller's home, or the part of their country from which they sell."""
        here = territory_of(self.ship_from)
        part = territory.tax == here.tax and self.home in (here.code, *here.parents)
        return part or territory_of(Place(country=self.home)).tax == territory.tax

    def in_eu(self, territory: Territory) -> bool:
        """Tell whether the EU's VAT rules on what is supplied hold in a territory; in Northern Ireland those on services do not."""
        return EU_AREA in territory.vat and (self.supply is SupplyKind.GOODS or territory.code != NORTHERN_IRELAND)

    def collects(self, territory: Territory) -> bool:
        """Tell whether the seller collects a territory's own tax."""
        return self.at_home(territory) or self.registered_in(territory)

    def registered_in(self, territory: Territory) -> bool:
        """Tell whether the seller is registered for a territory's own tax, there or by a scheme."""
        return any(
            self.in_eu(territory) and self._in_scheme(each) if each.oss or each.ioss else each.collects(territory)
            for each in self.registered
        )

    def collects_in(self, country: str, region: str) -> bool:
        """Tell whether the seller collects the tax of a country's region."""
        return any(each.country == country and each.region in around(region) for each in self.registered)

    def _in_scheme(self, registration: Registration) -> bool:
        """Tell whether a scheme for the whole EU is for this sale: the Union's, or where goods come from outside, the one for imports."""
        imported = self.supply is SupplyKind.GOODS and EU_AREA not in territory_of(self.ship_from).vat
        return registration.ioss if imported else registration.oss

    def certificate(self, country: str, region: str, tax_code: str) -> str:
        """Name the certificate that frees goods from the tax of a country or a region; empty where none does."""
        found = (each.certificate for each in self.exemptions if each.covers(country, region, tax_code, self.day))
        return next(found, "")

    @property
    def import_limit(self) -> imports.ImportLimit | None:
        """Give the limit up to which the seller collects the tax of goods that come from outside; nothing for any other sale."""
        origin, target = territory_of(self.ship_from), territory_of(self.ship_to)
        if origin.tax == target.tax or any(each.importer and each.collects(target) for each in self.registered):
            return None
        if EU_AREA in target.vat and EU_AREA in origin.vat:
            return None
        if EU_AREA in target.vat and any(each.ioss for each in self.registered):
            return imports.EU_LIMIT
        # Northern Ireland's imports from outside of both are also under the UK's limit.
        return imports.LIMITS.get(target.tax) if self.collects(target) else None


def rules_of(sale: Sale, rules: Sequence[Rule], lines: Sequence[Line] = ()) -> Callable[[Line], list[Rule]]:
    """Give the rules for each line of a sale, with what frees it from tax put in; raises NoTaxRule, or ExchangeRateNeeded for imports."""
    book = book_of(rules)
    at_border = _at_border(sale, book, lines)
    known: dict[tuple[str, SupplyKind, Reason | None], _Candidates] = {}
    chosen: dict[Line, list[Rule]] = {}

    def rules_for(line: Line) -> list[Rule]:
        key = (line.tax_code, line.supply, at_border(line))
        if key not in known:
            view = _as_supplied(sale, line.supply)
            place, freed = _where(view, book)
            known[key] = _candidates(view, book, line.tax_code, place, key[2] or _why_freed(view, freed))
        found = known[key]
        if found.whatever_the_price is not None:
            return found.whatever_the_price
        if line not in chosen:
            chosen[line] = _chosen(found, line)
        return chosen[line]

    return rules_for


def lacks_rules(sale: Sale, rows: Sequence[Row]) -> bool:
    """Tell whether a sale within the seller's own country is untaxed because there is no rule at all."""
    there = territory_of(sale.ship_to)
    within = sale.at_home(there) or sale.home in there.parents
    return within and any(row.rule_version == NO_RULE and row.reason is Reason.NOT_COLLECTING for row in rows)


def own_region_untaxed(sale: Sale, rows: Sequence[Row]) -> str:
    """Name the region that the seller sells from and within, and whose tax they do not collect for want of a registration."""
    own = around(sale.ship_from.region)
    untaxed = (row.region for row in rows if row.reason is Reason.NOT_COLLECTING and row.rate_percent and row.region)
    return next((region for region in untaxed if region in own), "")


def is_distance_sale(sale: Sale, lines: Sequence[Line]) -> bool:
    """Tell whether the EU's threshold counts a sale: goods or electronic services, to a consumer in another member state (Article 59c)."""

    def counts(view: Sale) -> bool:
        origin, target = territory_of(view.ship_from), territory_of(view.ship_to)
        within = view.in_eu(origin) and view.in_eu(target) and origin.tax != target.tax
        return within and view.supply is not SupplyKind.SERVICE and view.buyer_vat_country not in _eu_numbers(view)

    return any(counts(_as_supplied(sale, line.supply)) for line in lines if line.kind is Kind.GOODS)


def due_at_border(sale: Sale, rows: Sequence[Row]) -> bool:
    """Tell whether the seller collects the tax of imports at a place, and not of these."""
    return sale.import_limit is not None and any(row.reason is Reason.EXPORT for row in rows)


def _as_supplied(sale: Sale, supply: SupplyKind) -> Sale:
    """See a sale as of one supply: what is not sent comes from where the seller is at home, and any other service than an electronic one
    is made there for consumers (Directive 2006/112/EC, Articles 45 and 58; VATA 1994, s. 7A(2)(b) and Schedule 4A, paragraph 15)."""
    if supply is SupplyKind.GOODS:
        return sale
    here = sale.ship_from if sale.at_home(territory_of(sale.ship_from)) else Place(country=sale.home)
    origin = territory_of(here)
    consumer = sale.buyer_vat_country in ("", origin.tax, origin.country)
    made_here = supply is SupplyKind.SERVICE and consumer and (EU_AREA in origin.vat or origin.tax == UNITED_KINGDOM)
    there = here if made_here else sale.ship_to
    return msgspec.structs.replace(sale, supply=supply, ship_from=here, ship_to=there)


def _why_freed(sale: Sale, freed: Reason | None) -> Reason | None:
    """Give the reason for services: a business of another member state owes their tax (Directive 2006/112/EC, Articles 44 and 196), and
    what is made outside is under no tax here; goods alone are exported (Article 146)."""
    if sale.supply is SupplyKind.GOODS:
        return freed
    origin, target = territory_of(sale.ship_from), territory_of(sale.ship_to)
    if freed is None and origin.tax not in (sale.buyer_vat_country, target.tax) and _to_business(sale):
        return Reason.REVERSE_CHARGE
    of_services = {Reason.INTRA_COMMUNITY_SUPPLY: Reason.REVERSE_CHARGE, Reason.EXPORT: Reason.NOT_SUBJECT_TO_TAX}
    return of_services.get(freed, freed) if freed else None


def _at_border(sale: Sale, book: RuleBook, lines: Sequence[Line]) -> Callable[[Line], Reason | None]:
    """Judge of which lines the seller does not collect the tax because they are imported, and give the reason for each."""
    goods = [line for line in lines if line.kind is Kind.GOODS and line.supply is SupplyKind.GOODS]
    limit = sale.import_limit
    if limit is None or not goods:
        return lambda line: None
    stated = {currency: amount for each in sale.registered for currency, amount in each.import_limits.items()}
    amount = imports.amount_in(limit, sale.currency, stated)
    too_dear = imports.over(limit, amount, [(net, line.quantity) for net, line in zip(_nets(sale, book, goods), goods, strict=True)])
    low = limit.business if _to_business(sale) else None
    reasons = {line: Reason.EXPORT if dear else low for line, dear in zip(goods, too_dear, strict=True)}
    # The freight goes as the goods do, and is taxed where any of them are.
    of_freight = Reason.EXPORT if all(too_dear) else low

    def at_border(line: Line) -> Reason | None:
        if line.kind is Kind.SHIPPING:
            return of_freight
        return reasons.get(line)

    return at_border


def _to_business(sale: Sale) -> bool:
    """Tell whether the buyer is registered for the tax of where the sale goes."""
    target = territory_of(sale.ship_to)
    return sale.buyer_vat_country in (target.tax, target.code) or (sale.in_eu(target) and sale.buyer_vat_country in _eu_numbers(sale))


def _nets(sale: Sale, book: RuleBook, goods: Sequence[Line]) -> list[int]:
    """Take out of prices the tax that they hold if the seller collects it."""
    held = [0] * len(goods)
    if any(line.included for line in goods):
        for row in compute(goods, lambda line: _chosen(_candidates(sale, book, line.tax_code, sale.ship_to, None), line)):
            held[row.line] += row.amount if row.included else 0
    return [line.taxed_amount - tax for line, tax in zip(goods, held, strict=True)]


def _where(sale: Sale, book: RuleBook) -> tuple[Place, Reason | None]:
    """Decide where a sale counts as made, and whether that alone frees it."""
    there, here = sale.ship_to, sale.ship_from
    target, origin = territory_of(there), territory_of(here)
    if target.tax == origin.tax:
        return there, None
    if sale.in_eu(origin) and sale.in_eu(target):
        if sale.buyer_vat_country in _eu_numbers(sale) - {origin.country}:
            return there, Reason.INTRA_COMMUNITY_SUPPLY
        # Under the EU's threshold a sale to a consumer is taxed where it comes from (Article 59c).
        return (there if sale.collects(target) else here), None
    if sale.collects(target) or (there.region and sale.collects_in(there.country, there.region)):
        return there, None
    if sale.in_eu(origin) or (sale.collects(origin) and _has_national_tax(here, book)):
        return there, Reason.EXPORT
    return there, None if _has_regions(sale, target) else Reason.NOT_COLLECTING


def _eu_numbers(sale: Sale) -> frozenset[str]:
    return EU_GOODS if sale.supply is SupplyKind.GOODS else EU


def _has_national_tax(place: Place, book: RuleBook) -> bool:
    names = rule_places(place)
    return any(rule.level is Level.COUNTRY and rule.covers(names.for_rule(rule)) for rule in book.near(names.places, ""))


def _has_regions(sale: Sale, territory: Territory) -> bool:
    return any(each.country == territory.tax and each.region for each in sale.registered)


def _may_lie_in_region(sale: Sale, territory: Territory, place: Place) -> bool:
    return any(each.country == territory.tax and may_lie_in(each.region, place.postal_code) for each in sale.registered if each.region)


class _Candidates(msgspec.Struct, kw_only=True):
    """All rules that may be about goods of a code at a place, as they are for a sale, and those that hold at any price."""

    sale: Sale
    book: RuleBook
    place: Place
    tax_code: str
    rules: list[Rule]
    whatever_the_price: list[Rule] | None = None


def _candidates(sale: Sale, book: RuleBook, tax_code: str, place: Place, freed: Reason | None) -> _Candidates:
    rules = _matching(sale, book, tax_code, place)
    if freed is None:
        rules = [_as_it_is_for(sale, rule, tax_code, place) for rule in rules]
    else:
        # One row says why; the rates it is freed from do not matter.
        first = next((rule for rule in most_specific(rules) if rule.flat_amount is None), _nothing(place))
        unbound = msgspec.structs.replace(first, applies_from=None, applies_above=None, applies_up_to=None, applies_below=None)
        rules = [msgspec.structs.replace(unbound, reason=freed, rate_percent=Decimal(0))]
    found = _Candidates(sale=sale, book=book, place=place, tax_code=tax_code, rules=rules)
    if not any(rule.depends_on_article for rule in rules):
        found.whatever_the_price = _insisted(found, most_specific(rules))
    return found


def _chosen(found: _Candidates, line: Line) -> list[Rule]:
    if found.whatever_the_price is not None:
        return found.whatever_the_price
    return _insisted(found, holding(found.rules, line))


def _insisted(found: _Candidates, rules: list[Rule]) -> list[Rule]:
    """Insist that a rule is there wherever the seller collects, and keep rules within what they may take together."""
    if any(rule.flat_amount is None for rule in rules):
        return within_combined_rate(rules)
    sale, place = found.sale, found.place
    if _must_have_rule(sale, found.book, place):
        raise NoTaxRule(
            f"No rule covers goods of the code {found.tax_code!r} in {place.country} {place.region} {place.postal_code} on {sale.day}.",
            {"tax_code": found.tax_code, "country": place.country, "region": place.region},
        )
    return [_nothing(place)]


def _matching(sale: Sale, book: RuleBook, tax_code: str, place: Place) -> list[Rule]:
    """Find the rules at a place; those under a territory's own code go before those under its country's."""
    names, origin_names = rule_places(place), rule_places(sale.ship_from)

    def seen_by(rule: Rule) -> Place:
        at_origin = _counts_at(rule, place, sale.ship_from) is sale.ship_from
        return (origin_names if at_origin else names).for_rule(rule)

    near = book.near((*names.places, *origin_names.places), tax_code)
    found = matching(near, seen_by, tax_code=tax_code, day=sale.day)
    found = of_currency([rule for rule in found if applies_to(rule, sale.ship_from, sale.ship_to, sale.delivered)], sale.currency)
    nearest = next((country for country in names.countries if any(rule.country == country for rule in found)), "")
    return [rule for rule in found if rule.country == nearest]


def _must_have_rule(sale: Sale, book: RuleBook, place: Place) -> bool:
    """Tell whether a tax is due at a place that has no rule for it: it is refused then, for a tax is never guessed."""
    territory, names = territory_of(place), rule_places(place)
    region = place.region or territory.region
    if sale.collects_in(territory.tax, region) if region else _may_lie_in_region(sale, territory, place):
        return True
    if territory.tax in TAXED_BY_STATES:
        return False
    if sale.registered_in(territory):
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
    regional = rule.level is not Level.COUNTRY and rule.region
    territory = territory_of(place)
    # A country's rule for a region may be that of a territory with a tax of its own, where the seller is registered by its code.
    own = territory.tax != rule.country and territory_of(Place(country=rule.country, region=rule.region)) == territory
    by_region = regional and not (own and sale.collects(territory))
    if not (sale.collects_in(rule.country, rule.region) if by_region else sale.collects(territory)):
        return msgspec.structs.replace(rule, reason=Reason.NOT_COLLECTING)
    # What bears no tax needs no certificate.
    taxed = rule.reason not in UNTAXED and rule.rate_percent
    if taxed and sale.certificate(rule.country, rule.region, tax_code):
        return msgspec.structs.replace(rule, reason=Reason.CUSTOMER_EXEMPT)
    return rule


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
