"""Calculations as TaxJar answers them: the request, what it bore in rates, and what was answered."""

from typing import Any, NamedTuple


class Calculation(NamedTuple):
    """A published calculation; amounts and rates as they are written there."""

    source: str
    address: dict[str, str]
    # Unit prices, all of quantity one, and shipping.
    prices: list[float]
    shipping: float
    # In the United States of state, county, city and special district, in Canada GST, PST and QST, elsewhere one.
    rates: tuple[str, ...]
    # Of each line: what is collected, and its parts.
    lines: list[tuple[float, list[float]]]
    # The same of shipping; none where freight is not taxed.
    of_shipping: tuple[float, list[float]] | None
    amount_to_collect: float


def to(zip_code: str, state: str, city: str, *, country: str = "US") -> dict[str, str]:
    return {"to_country": country, "to_zip": zip_code, "to_state": state, "to_city": city}


CALCULATIONS = {
    # Parts of a line, 0.94 and 0.04 and 0.38, are a cent over what is collected; freight is not taxed.
    "california": Calculation(
        "developers.taxjar.com, calculate sales tax, response example",
        to("90002", "CA", "Los Angeles"),
        [15],
        1.5,
        ("0.0625", "0.0025", "0", "0.025"),
        [(1.35, [0.94, 0.04, 0, 0.38])],
        None,
        1.35,
    ),
    # The order's parts, 1.03 and 0.17 and 0.17, are a cent over; so are shipping's.
    "texas": Calculation(
        "developers.taxjar.com, scenario Origin-Based Sourcing",
        to("77058", "TX", "Houston"),
        [15],
        1.5,
        ("0.0625", "0", "0.01", "0.01"),
        [(1.24, [0.94, 0, 0.15, 0.15])],
        (0.12, [0.09, 0, 0.02, 0.02]),
        1.36,
    ),
    "massachusetts": Calculation(
        "developers.taxjar.com, scenario Shipping Exemptions",
        to("01608", "MA", "Worcester"),
        [15],
        1.5,
        ("0.0625", "0", "0", "0"),
        [(0.94, [0.94, 0, 0, 0])],
        None,
        0.94,
    ),
    # Line and shipping, 0.89 and 8.88, are a cent over what the order collects; 9.77 was then recorded with the order.
    "new york": Calculation(
        "recorded, backfilling transactions, 2022-04-13",
        to("11430", "NY", "Herndon"),
        [10],
        100,
        ("0.04", "0", "0.04875", "0"),
        [(0.89, [0.4, 0, 0.49, 0])],
        (8.88, [4.0, 0, 4.88, 0]),
        9.76,
    ),
    "new jersey": Calculation(
        "ruby, taxes.json",
        to("07446", "NJ", "Ramsey"),
        [15],
        1.5,
        ("0.07", "0", "0", "0"),
        [(1.05, [1.05, 0, 0, 0])],
        (0.11, [0.11, 0, 0, 0]),
        1.16,
    ),
    # Shipping's GST is 0.075 and its tax 0.195, both rounded up.
    "toronto": Calculation(
        "developers.taxjar.com, scenario Canada",
        to("M5V 2T6", "ON", "Toronto", country="CA"),
        [15],
        1.5,
        ("0.05", "0.08", "0"),
        [(1.95, [0.75, 1.2, 0])],
        (0.2, [0.08, 0.12, 0]),
        2.15,
    ),
    # GST 0.85 and PST 1.36 are a cent over the 2.20 that are collected.
    "ontario": Calculation(
        "ruby, taxes_canada.json",
        to("M5V 2T6", "ON", "Toronto", country="CA"),
        [16.95],
        10,
        ("0.05", "0.08", "0"),
        [(2.2, [0.85, 1.36, 0])],
        (1.3, [0.5, 0.8, 0]),
        3.5,
    ),
    "marseille": Calculation(
        "developers.taxjar.com, scenario European Union",
        to("13281", "", "Marseille", country="FR"),
        [15],
        1.5,
        ("0.2",),
        [(3, [3])],
        (0.3, [0.3]),
        3.3,
    ),
    "finland": Calculation(
        "ruby, taxes_international.json",
        to("00150", "", "Helsinki", country="FI"),
        [16.95],
        10,
        ("0.24",),
        [(4.07, [4.07])],
        (2.4, [2.4]),
        6.47,
    ),
    "australia": Calculation(
        "developers.taxjar.com, scenario Australia",
        to("VIC 3002", "", "Richmond", country="AU"),
        [15],
        1.5,
        ("0.1",),
        [(1.5, [1.5])],
        (0.15, [0.15]),
        1.65,
    ),
}

US_PARTS = ("state_amount", "county_amount", "city_amount", "special_district_amount")
# What the tax of a part is called, by the number of parts.
PARTS = {4: US_PARTS, 3: ("gst", "pst", "qst"), 1: ("country_tax_collectable",)}
# recorded, 2022-04-13 (the same calculation as "new york"), whole.
RECORDED: dict[str, Any] = {
    "amount_to_collect": 9.76,
    "breakdown": {
        "city_tax_collectable": 5.36,
        "city_tax_rate": 0.04875,
        "city_taxable_amount": 110.0,
        "combined_tax_rate": 0.08875,
        "county_tax_collectable": 0.0,
        "county_tax_rate": 0.0,
        "county_taxable_amount": 0.0,
        "line_items": [
            {
                "city_amount": 0.49,
                "city_tax_rate": 0.04875,
                "city_taxable_amount": 10.0,
                "combined_tax_rate": 0.08875,
                "county_amount": 0.0,
                "county_tax_rate": 0.0,
                "county_taxable_amount": 0.0,
                "id": "1",
                "special_district_amount": 0.0,
                "special_district_taxable_amount": 0.0,
                "special_tax_rate": 0.0,
                "state_amount": 0.4,
                "state_sales_tax_rate": 0.04,
                "state_taxable_amount": 10.0,
                "tax_collectable": 0.89,
                "taxable_amount": 10.0,
            }
        ],
        "shipping": {
            "city_amount": 4.88,
            "city_tax_rate": 0.04875,
            "city_taxable_amount": 100.0,
            "combined_tax_rate": 0.08875,
            "county_amount": 0.0,
            "county_tax_rate": 0.0,
            "county_taxable_amount": 0.0,
            "special_district_amount": 0.0,
            "special_tax_rate": 0.0,
            "special_taxable_amount": 0.0,
            "state_amount": 4.0,
            "state_sales_tax_rate": 0.04,
            "state_taxable_amount": 100.0,
            "tax_collectable": 8.88,
            "taxable_amount": 100.0,
        },
        "special_district_tax_collectable": 0.0,
        "special_district_taxable_amount": 0.0,
        "special_tax_rate": 0.0,
        "state_tax_collectable": 4.4,
        "state_tax_rate": 0.04,
        "state_taxable_amount": 110.0,
        "tax_collectable": 9.76,
        "taxable_amount": 110.0,
    },
    "freight_taxable": True,
    "has_nexus": True,
    "jurisdictions": {"city": "NEW YORK CITY", "country": "US", "county": "QUEENS", "state": "NY"},
    "order_total_amount": 110.0,
    "rate": 0.08875,
    "shipping": 100.0,
    "tax_source": "destination",
    "taxable_amount": 110.0,
}
# developers.taxjar.com, scenario No Nexus, whole.
NO_NEXUS = {"amount_to_collect": 0, "freight_taxable": False, "has_nexus": False, "rate": 0, "tax_source": None, "taxable_amount": 0}
