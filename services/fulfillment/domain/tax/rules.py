"""Tax rules as data: which jurisdiction taxes what, from when to when, at which rate and on which base."""

from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

import msgspec

from services.fulfillment.domain.postal import named
from services.fulfillment.domain.tax.amounts import RoundingMode
from shared.regions import around

# Tax codes under which shipping may have rules of its own; without any it follows the goods' rule for goods of no code.
SHIPPING_CODE = "shipping"


class Level(StrEnum):
    """Whose tax it is, from the largest to the smallest."""

    COUNTRY = "country"
    STATE = "state"
    COUNTY = "county"
    CITY = "city"
    DISTRICT = "district"


LEVELS = tuple(Level)


class Reason(StrEnum):
    """Why a line bears the tax it bears, also when that is none."""

    STANDARD_RATED = "standard_rated"
    REDUCED_RATED = "reduced_rated"
    ZERO_RATED = "zero_rated"
    REVERSE_CHARGE = "reverse_charge"
    INTRA_COMMUNITY_SUPPLY = "intra_community_supply"
    EXPORT = "export"
    CUSTOMER_EXEMPT = "customer_exempt"
    PRODUCT_EXEMPT = "product_exempt"
    NOT_SUBJECT_TO_TAX = "not_subject_to_tax"
    NOT_COLLECTING = "not_collecting"


class ShippingMode(StrEnum):
    """Whether shipping is taxed: always, never, wholly when any goods are, at their highest rate, or as they are by value or weight."""

    ALWAYS = "always"
    NEVER = "never"
    FOLLOWS_GOODS = "follows_goods"
    HIGHEST_RATE = "highest_rate"
    PROPORTIONAL = "proportional"
    BY_WEIGHT = "by_weight"


class RoundingScope(StrEnum):
    """What is rounded: each line's tax, the sum of a rate, or the document's."""

    LINE = "line"
    RATE_GROUP = "rate_group"
    DOCUMENT = "document"


class InclusiveRounding(StrEnum):
    """Which part of a price that holds its tax is rounded; the other is what is left."""

    TAX = "tax"
    NET = "net"


class Sourcing(StrEnum):
    """Where a sale counts as made: where it goes to, where it comes from, or the latter only within one region."""

    DESTINATION = "destination"
    ORIGIN = "origin"
    HYBRID = "hybrid"


class Movement(StrEnum):
    """Whether a tax is on every supply, on those within one region alone, or on those from one region to another (India's GST)."""

    ANY = "any"
    WITHIN_REGION = "within_region"
    BETWEEN_REGIONS = "between_regions"


class TaxedPer(StrEnum):
    """Of what `taxed_above` and `taxed_up_to` are bounds: each article's price, or all that a jurisdiction taxes in one sale."""

    ARTICLE = "article"
    SALE = "sale"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A place, as far as taxes look at it: ISO 3166-1 and 3166-2 codes and a postal code."""

    country: str
    region: str = ""
    postal_code: str = ""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One tax of one jurisdiction, on goods of one tax code, for a time."""

    # Stays with every amount it led to, so that anybody can see years later which rule it was.
    version: str
    country: str
    region: str = ""
    # `12345`, `123*` or `12000-12999`; none means everywhere.
    postal_codes: tuple[str, ...] = ()
    postal_codes_excluded: tuple[str, ...] = ()
    level: Level = Level.COUNTRY
    name: str
    # Empty: all goods that no other rule of this jurisdiction names.
    tax_code: str = ""
    rate_percent: Decimal
    reason: Reason = Reason.STANDARD_RATED
    # Taxes are worked out in this order; a compound one also taxes those before it.
    priority: int = 0
    compound: bool = False
    # Of each article's price, in minor units, only what is over the one and up to the other is taxed.
    taxed_above: int = 0
    taxed_up_to: int | None = None
    taxed_per: TaxedPer = TaxedPer.ARTICLE
    # All or nothing by the article's price, in minor units, of a fee by all that is taxed of the sale: at least, over, at most, under.
    # Where it does not apply, the jurisdiction's next specific rule does.
    applies_from: int | None = None
    applies_above: int | None = None
    applies_up_to: int | None = None
    applies_below: int | None = None
    # Whose minor units these amounts are; a sale in another currency that such a rule would decide is refused.
    currency: str = ""
    movement: Movement = Movement.ANY
    # Rules of a region that bear it are taken in their order while their rates together stay within it; what would go over is left out.
    combined_max_percent: Decimal | None = None
    # A fee once a delivery with goods that the same country, region and level taxes, instead of a rate.
    flat_amount: int | None = None
    shipping: ShippingMode = ShippingMode.ALWAYS
    rounding: RoundingMode = RoundingMode.HALF_UP
    scope: RoundingScope = RoundingScope.LINE
    inclusive: InclusiveRounding = InclusiveRounding.TAX
    # Tax is rounded to whole multiples of so many minor units.
    rounding_unit: int = 1
    sourcing: Sourcing = Sourcing.DESTINATION
    valid_from: date
    # The last day on which it is valid.
    valid_to: date | None = None
    source: str = ""
    # When it was last compared with its source; a table of rates says so, and grows old by it.
    checked_on: date | None = None

    @property
    def jurisdiction(self) -> tuple[str, str, str, str]:
        """Name whose tax it is: country, region, level, name."""
        return (self.country, self.region, self.level.value, self.name)

    @property
    def has_price_bounds(self) -> bool:
        """Tell whether it applies at some prices alone."""
        return not (self.applies_from is self.applies_above is self.applies_up_to is self.applies_below is None)

    @property
    def depends_on_article(self) -> bool:
        """Tell whether the price of one article decides if it applies; of a fee it is that of the sale."""
        return self.has_price_bounds and self.flat_amount is None

    def applies_at(self, price: Fraction) -> bool:
        """Tell whether it applies at a price."""
        return (
            (self.applies_from is None or price >= self.applies_from)
            and (self.applies_above is None or price > self.applies_above)
            and (self.applies_up_to is None or price <= self.applies_up_to)
            and (self.applies_below is None or price < self.applies_below)
        )

    def valid_on(self, day: date) -> bool:
        """Tell whether it is in force on a day."""
        return self.valid_from <= day and (self.valid_to is None or day <= self.valid_to)

    def covers(self, place: Place) -> bool:
        """Tell whether a place lies in its jurisdiction."""
        if self.country != place.country or self.region not in ("", *around(place.region)):
            return False
        inside = not self.postal_codes or named(self.country, place.postal_code, self.postal_codes)
        return inside and not named(self.country, place.postal_code, self.postal_codes_excluded)


def percent_text(rate: Decimal) -> str:
    """Write a rate without zeros that say nothing."""
    text = f"{rate:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def selected(rules: Sequence[Rule], place_of: Callable[[Rule], Place], *, tax_code: str, day: date) -> list[Rule]:
    """Choose the rules for goods on a day: of each jurisdiction the most specific, in their order."""
    return most_specific(matching(rules, place_of, tax_code=tax_code, day=day))


def matching(rules: Sequence[Rule], place_of: Callable[[Rule], Place], *, tax_code: str, day: date) -> list[Rule]:
    """Find the rules that name goods, on a day; `place_of` says at which place a rule looks."""
    return [
        rule
        for rule in rules
        if (rule.tax_code in ("", tax_code) or tax_code.startswith(f"{rule.tax_code}."))
        and rule.valid_on(day)
        and rule.covers(place_of(rule))
    ]


def most_specific(rules: Sequence[Rule]) -> list[Rule]:
    """Choose of each jurisdiction the most specific rule, the youngest of equals, in the order in which they are worked out.

    A tax code is more specific than none, and `food.bread` more so than `food`; named postal codes are more so than none; then bounds of
    the price, a kind of supply and a currency are.
    """
    chosen: dict[tuple[str, str, str, str], Rule] = {}
    for rule in rules:
        known = chosen.get(rule.jurisdiction)
        if known is None or _specific(rule) > _specific(known):
            chosen[rule.jurisdiction] = rule
    return sorted(chosen.values(), key=lambda rule: (rule.priority, LEVELS.index(rule.level), rule.name))


def _specific(rule: Rule) -> tuple[int, bool, bool, bool, bool, date, str]:
    narrower = (rule.has_price_bounds, rule.movement is not Movement.ANY, bool(rule.currency))
    return (len(rule.tax_code), bool(rule.postal_codes), *narrower, rule.valid_from, rule.version)
