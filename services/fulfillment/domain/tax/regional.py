"""What is doubtful about where a sale goes, wherever its tax depends on that: said, or refused, never taxed at nothing in silence."""

from collections.abc import Sequence

import msgspec

from services.fulfillment.domain.places import Located
from services.fulfillment.domain.tax.rule_book import RuleBook, book_of
from services.fulfillment.domain.tax.rules import Place, Rule
from services.fulfillment.domain.tax.sale import Sale
from services.fulfillment.domain.territories import territory_of
from shared.contracts.fulfillment.pricing import Notice
from shared.errors import Refusal
from shared.regions import around, may_lie_in

# Where the post gives every code to one region, so that with another one's name one of the two is an error: ZIP codes (USPS) and the first
# letter of Canadian ones (Canada Post, Addressing Guidelines). Elsewhere the name holds.
CODES_SAY_THE_REGION = frozenset({"US", "CA"})


class RegionNotUnderstood(Refusal):
    """Tax depends on the region, and neither its name nor the postal code says which it is."""

    code = "region-not-understood"
    title = "Region not understood"
    status = 422


class RegionContradictory(Refusal):
    """The region that is named and that of the postal code are two, and tax is due in the latter."""

    code = "region-contradictory"
    title = "Region and postal code contradict each other"
    status = 422


def doubts(located: Located, sale: Sale, rules: Sequence[Rule], *, field: str) -> list[Notice]:
    """Say what is doubtful about an address where tax depends on it; refuses what could only be guessed."""
    book, place = book_of(rules), located.place
    notices: list[Notice] = []
    if regions := _regions_that_count(sale, book, place):
        if not place.region and any(may_lie_in(region, place.postal_code) for region in regions):
            raise RegionNotUnderstood(
                f"Tax in {place.country} depends on the region; {located.typed_region or 'an empty one'!r} is none that is known, and the "
                "postal code does not say which.",
                {"field": f"{field}.country_area", "country": place.country, "country_area": located.typed_region},
            )
        if place.region:
            notices += _about_region(located, regions, field=field)
    else:
        notices += _about_territory(located)
    if not located.postal_code_fits and book.of(place.country).regions_with_codes & {"", *around(place.region)}:
        detail = (
            f"The postal code {place.postal_code!r} has not the form of those of {place.country}; rules by postal code did not find it."
        )
        notices.append(Notice(code="postal-code-doubtful", detail=detail))
    return notices


def check_origin(sale: Sale, rules: Sequence[Rule]) -> None:
    """Refuse to tax a sale within a country whose rules look at where goods come from, if the region of that is not known."""
    place = sale.ship_from
    if place.country == sale.ship_to.country and not place.region and book_of(rules).of(place.country).looks_at_origin:
        raise RegionNotUnderstood(
            f"Tax in {place.country} depends on the region that the store ships from, which its settings do not name.",
            {"field": "$.ship_from.country_area", "country": place.country},
        )


def _about_region(located: Located, regions: frozenset[str], *, field: str) -> list[Notice]:
    named, by_code = located.named_region, located.postal_region
    if not named:
        detail = f"The region {located.typed_region!r} is none that is known; {by_code} is taken from the postal code."
        return [Notice(code="region-from-postal-code", detail=detail)]
    if not by_code or named in around(by_code) or by_code in around(named):
        return []
    if located.place.country in CODES_SAY_THE_REGION and not regions.isdisjoint(around(by_code)):
        raise RegionContradictory(
            f"{named} is named, and the postal code is one of {by_code}; correct one of the two.",
            {"field": f"{field}.postal_code", "country_area": named, "postal_code_of": by_code},
        )
    return [Notice(code="region-contradictory", detail=f"{named} is named, and the postal code is one of {by_code}; {named} was taken.")]


def _about_territory(located: Located) -> list[Notice]:
    """Say that the region that is named and the postal code lie in two territories."""
    place = located.place
    taken, by_code = territory_of(place), territory_of(msgspec.structs.replace(place, region=""))
    if not located.named_region or taken == by_code or by_code.code == place.country:
        return []
    detail = f"{located.named_region} is named, and the postal code is one of {by_code.name}; {taken.name} was taken."
    return [Notice(code="region-contradictory", detail=detail)]


def _regions_that_count(sale: Sale, book: RuleBook, place: Place) -> frozenset[str]:
    """Name the regions of a country in which the seller collects tax: registered there, or where the country's own tax is another."""
    registered = frozenset(each.region for each in sale.registered if each.country == place.country and each.region)
    return registered | (book.of(place.country).taxed_regions if sale.collects(territory_of(place)) else frozenset())
