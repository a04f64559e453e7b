"""Where customs borders run, also inside one country code."""

from services.fulfillment.domain.tax.rules import Place
from services.fulfillment.domain.tax.sale import in_eu_vat_area

MILITARY = frozenset({"US-AA", "US-AE", "US-AP"})
US_TERRITORIES = frozenset({"PR", "VI", "GU", "AS", "MP", "UM"})
UNIONS = {"MC": "FR", "LI": "CH"}


def crosses_customs_border(here: Place, there: Place) -> bool:
    """Tell whether goods need a customs declaration between two places."""
    if in_eu_vat_area(here) and in_eu_vat_area(there):
        return False
    return _customs_place(here) != _customs_place(there)


def _customs_place(place: Place) -> str:
    country, _, area = place.region.partition("-")
    if place.region in MILITARY or (country == "US" and area in US_TERRITORIES):
        return place.region if place.region in MILITARY else area
    if country := UNIONS.get(place.country, ""):
        return country
    return place.country if in_eu_vat_area(place) else f"{place.country} {place.postal_code}"
