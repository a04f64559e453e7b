"""What the sandbox's tax offices have in common: a few known rates, where postal codes are, and which cities bring trouble."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from deploy.sandbox.tokens import Act

CENT = Decimal("0.01")
# State, county, city and special rates of where parcels in the tests go, as fractions. There is nexus in these states alone.
RATES: dict[str, tuple[str, str, str, str]] = {
    "WA": ("0.065", "0", "0.0385", "0"),
    "NJ": ("0.07", "0", "0", "0"),
    "NY": ("0.04", "0", "0.045", "0.00375"),
    "CA": ("0.0725", "0.0025", "0", "0.0175"),
}
NONE = ("0", "0", "0", "0")
# Elsewhere TaxJar has nexus in these: GST, PST and QST of a province, and a country's VAT.
PROVINCES = {"ON": ("0.05", "0.08", "0")}
COUNTRIES = {"AU": ("0.1",), "FI": ("0.24",), "FR": ("0.2",)}
# The first and the last three digits of a state's postal codes (USPS, L002).
POSTAL_CODES = {
    "WA": [("980", "994")],
    "NJ": [("070", "089")],
    "NY": [("005", "005"), ("063", "063"), ("100", "149")],
    "CA": [("900", "961")],
}
# Food; and what TaxJar calls "Other Exempt" (GET /v2/categories).
EXEMPT_CODES = frozenset({"40030", "PF050000", "99999"})
# Where shipping that is stated by itself is not taxed (developers.taxjar.com, scenario "Shipping Exemptions").
FREIGHT_UNTAXED = frozenset({"CA", "MA"})
SILENT_CITY = "Silent Hill"


def rates_of(state: str) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """Return a state's four rates, all zero without nexus."""
    state_rate, county, city, special = map(Decimal, RATES.get(state, NONE))
    return state_rate, county, city, special


def is_within(postal_code: str, state: str) -> bool:
    """Tell whether a postal code may be within a state; of states that are not known every one may."""
    known = POSTAL_CODES.get(state)
    return known is None or not postal_code or any(first <= postal_code[:3] <= last for first, last in known)


def cents(value: Decimal) -> Decimal:
    """Round half up to cents."""
    return value.quantize(CENT, rounding=ROUND_HALF_UP)


def decimal(value: Any) -> Decimal:
    """Read a number of JSON exactly as it is written."""
    return Decimal(str(value or 0))


def act_of_record(city: Any) -> Act:
    """Choose what befalls the recording of a document by the city that it goes to."""
    acts = {"Late Harbour": Act.SUCCEED_SILENTLY, "Failing Once": Act.FAIL_ONCE, "Silent Once": Act.SILENT_ONCE}
    return acts.get(str(city), Act.SUCCEED)


def act_of_quote(city: Any) -> Act:
    """Choose what befalls a calculation by the city that it goes to."""
    return Act.SILENT if city == SILENT_CITY else Act.SUCCEED
