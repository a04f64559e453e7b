"""Whose tax a sale is under: where it counts as made, where the seller is registered, and whom nobody taxes."""

from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal

import msgspec

from services.fulfillment.domain.postal import matches
from services.fulfillment.domain.tax import imports
from services.fulfillment.domain.tax.engine import UNTAXED, Kind, Line, Row, compute
from services.fulfillment.domain.tax.rules import Level, Place, Reason, Rule, Sourcing, selected
from shared.contracts.orders import SupplyKind
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

    @property
    def registered(self) -> tuple[Registration, ...]:
        """Give the registrations that stand on the day, the home's with them."""
        standing = (each for each in self.registrations if each.valid_on(self.day))
        return (Registration(country=self.home), *standing)

    def collects(self, country: str, region: str = "") -> bool:
        """Tell whether the seller collects a country's own tax, or that of one of its regions."""
        return any(
            (each.country == country and each.region == region) or (region == "" and country in EU and self._in_scheme(each))
            for each in self.registered
        )

    def _in_scheme(self, registration: Registration) -> bool:
        """Tell whether a scheme for the whole EU is for this sale: the Union's, or where goods come from outside, the one for imports."""
        imported = self.supply is SupplyKind.GOODS and not in_eu_vat_area(self.ship_from)
        return registration.ioss if imported else registration.oss

    def certificate(self, country: str, region: str, tax_code: str) -> str:
        """Name the certificate that frees goods from the tax of a country or a region; empty where none does."""
        found = (each.certificate for each in self.exemptions if each.covers(country, region, tax_code, self.day))
        return next(found, "")

    @property
    def import_limit(self) -> imports.ImportLimit | None:
        """Give the limit up to which the seller collects the tax of goods that come from outside; nothing for any other sale."""
        here, there = self.ship_from, self.ship_to
        if any(each.importer and each.country == there.country for each in self.registered):
            return None
        if in_eu_vat_area(there):
            return imports.EU_LIMIT if not in_eu_vat_area(here) and any(each.ioss for each in self.registered) else None
        crosses = here.country != there.country and self.collects(there.country)
        return imports.LIMITS.get(there.country) if crosses else None


def rules_of(sale: Sale, rules: Sequence[Rule], lines: Sequence[Line] = ()) -> Callable[[Line], list[Rule]]:
    """Give the rules for each line of a sale, with what frees it from tax put in; raises NoTaxRule, or ExchangeRateNeeded for imports."""
    at_border = _at_border(sale, rules, lines)
    known: dict[tuple[str, SupplyKind, Reason | None], list[Rule]] = {}

    def rules_for(line: Line) -> list[Rule]:
        key = (line.tax_code, line.supply, at_border(line))
        if key not in known:
            view = _as_supplied(sale, line.supply)
            place, freed = _where(view)
            known[key] = _for_code(view, rules, line.tax_code, place, key[2] or _why_freed(view, freed))
        return known[key]

    return rules_for


def is_distance_sale(sale: Sale, lines: Sequence[Line]) -> bool:
    """Tell whether the EU's threshold counts a sale: goods or electronic services, to a consumer in another member state (Article 59c)."""

    def counts(view: Sale) -> bool:
        here, there = view.ship_from, view.ship_to
        within = in_eu_vat_area(here) and in_eu_vat_area(there) and here.country != there.country
        return within and view.supply is not SupplyKind.SERVICE and view.buyer_vat_country not in EU

    return any(counts(_as_supplied(sale, line.supply)) for line in lines if line.kind is Kind.GOODS)


def due_at_border(sale: Sale, rows: Sequence[Row]) -> bool:
    """Tell whether the seller collects the tax of imports at a place, and not of these."""
    return sale.import_limit is not None and any(row.reason is Reason.EXPORT for row in rows)


def _as_supplied(sale: Sale, supply: SupplyKind) -> Sale:
    """See a sale as of one supply: what is not sent comes from where the seller is at home, and any other service than an electronic one
    is made there for consumers (Directive 2006/112/EC, Articles 45 and 58)."""
    if supply is SupplyKind.GOODS:
        return sale
    here = sale.ship_from if sale.ship_from.country == sale.home else Place(country=sale.home)
    consumer = sale.buyer_vat_country in ("", here.country)
    there = here if supply is SupplyKind.SERVICE and in_eu_vat_area(here) and consumer else sale.ship_to
    return msgspec.structs.replace(sale, supply=supply, ship_from=here, ship_to=there)


def _why_freed(sale: Sale, freed: Reason | None) -> Reason | None:
    """Give the reason for services: a business of another member state owes their tax (Directive 2006/112/EC, Articles 44 and 196), and
    what is made outside is under no tax here; goods alone are exported (Article 146)."""
    if sale.supply is SupplyKind.GOODS:
        return freed
    if freed is None and sale.buyer_vat_country != sale.ship_from.country != sale.ship_to.country and _to_business(sale):
        return Reason.REVERSE_CHARGE
    of_services = {Reason.INTRA_COMMUNITY_SUPPLY: Reason.REVERSE_CHARGE, Reason.EXPORT: Reason.NOT_SUBJECT_TO_TAX}
    return of_services.get(freed, freed) if freed else None


def _at_border(sale: Sale, rules: Sequence[Rule], lines: Sequence[Line]) -> Callable[[Line], Reason | None]:
    """Judge of which lines the seller does not collect the tax because they are imported, and give the reason for each."""
    goods = [line for line in lines if line.kind is Kind.GOODS and line.supply is SupplyKind.GOODS]
    limit = sale.import_limit
    if limit is None or not goods:
        return lambda line: None
    stated = {currency: amount for each in sale.registered for currency, amount in each.import_limits.items()}
    amount = imports.amount_in(limit, sale.currency, stated)
    too_dear = imports.over(limit, amount, [(net, line.quantity) for net, line in zip(_nets(sale, rules, goods), goods, strict=True)])
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
    return sale.buyer_vat_country == sale.ship_to.country or (in_eu_vat_area(sale.ship_to) and sale.buyer_vat_country in EU)


def _nets(sale: Sale, rules: Sequence[Rule], goods: Sequence[Line]) -> list[int]:
    """Take out of prices the tax that they hold if the seller collects it."""
    held = [0] * len(goods)
    if any(line.included for line in goods):
        for row in compute(goods, lambda line: _for_code(sale, rules, line.tax_code, sale.ship_to, None)):
            held[row.line] += row.amount if row.included else 0
    return [line.taxed_amount - tax for line, tax in zip(goods, held, strict=True)]


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
    found = selected(rules, lambda rule: _counts_at(rule, place, sale.ship_from), tax_code=tax_code, day=sale.day)
    if freed is not None:
        # One row says why; the rates it is freed from do not matter.
        first = found[0] if found else _nothing(place)
        return [msgspec.structs.replace(first, reason=freed, rate_percent=Decimal(0))]
    if not found:
        if sale.collects(place.country) or sale.collects(place.country, place.region):
            raise NoTaxRule(
                f"No rule covers goods of the code {tax_code!r} in {place.country} {place.region} {place.postal_code} on {sale.day}.",
                {"tax_code": tax_code, "country": place.country, "region": place.region},
            )
        return [_nothing(place)]
    return [_as_it_is_for(sale, rule, tax_code) for rule in found]


def _counts_at(rule: Rule, place: Place, origin: Place) -> Place:
    within = (origin.country, origin.region) == (place.country, place.region)
    if rule.sourcing is Sourcing.ORIGIN or (rule.sourcing is Sourcing.HYBRID and within):
        return origin
    return place


def _as_it_is_for(sale: Sale, rule: Rule, tax_code: str) -> Rule:
    regional = rule.level is not Level.COUNTRY
    if not sale.collects(rule.country, rule.region if regional else ""):
        return msgspec.structs.replace(rule, reason=Reason.NOT_COLLECTING)
    # What bears no tax needs no certificate.
    taxed = rule.reason not in UNTAXED and rule.rate_percent
    if taxed and sale.certificate(rule.country, rule.region, tax_code):
        return msgspec.structs.replace(rule, reason=Reason.CUSTOMER_EXEMPT)
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
