"""What laws say of a tax besides its rate: cliffs, caps, kinds of supply, fees, larger units, and shares of shipping."""

from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.fulfillment.domain.pricing import to_step
from services.fulfillment.domain.tax.amounts import RoundingMode
from services.fulfillment.domain.tax.conditions import TaxRuleCurrency
from services.fulfillment.domain.tax.engine import Kind, Line, Row
from services.fulfillment.domain.tax.importing import RulesRefused, from_csv, refuse_overlaps, version_of
from services.fulfillment.domain.tax.net_prices import at_home, without_home_tax
from services.fulfillment.domain.tax.reversal import corrections
from services.fulfillment.domain.tax.rules import (
    InclusiveRounding,
    Level,
    Movement,
    Place,
    Reason,
    RoundingScope,
    Rule,
    ShippingMode,
    TaxedPer,
)
from services.fulfillment.domain.tax.sale import Exemption, NoTaxRule, Registration, Sale, own_region_untaxed, rules_of
from shared.refund_shares import Returned, given_back
from tests.fulfillment.rates import DAY, goods, national, of_line, rule, shipping, sold, taxed, total

COLORADO = {"region": "US-CO"}


def in_state(state: str, *, home: str = "US", day: date = DAY, **facts: Any) -> Sale:
    """A sale by a seller who is registered in the state that it goes to."""
    there = Place(country=home, region=f"{home}-{state}")
    return Sale(
        ship_from=there, ship_to=there, day=day, home=home, registrations=(Registration(country=home, region=there.region),), **facts
    )


def a_tax(percent: str, name: str, state: str, **facts: Any) -> Rule:
    return rule(percent, name, **{"region": f"US-{state}", **facts})


NY = (
    a_tax("4", "New York", "NY"),
    a_tax("0", "New York", "NY", tax_code="clothing", reason=Reason.PRODUCT_EXEMPT, applies_below=11_000),
)


@pytest.mark.parametrize(
    ("amount", "quantity", "paid_by_others", "tax"),
    [(10_999, 1, 0, 0), (11_000, 1, 0, 440), (15_000, 1, 0, 600), (21_998, 2, 0, 0), (22_000, 2, 0, 880), (10_900, 1, 100, 440)],
)
def test_c5_clothing_under_a_price_is_free(amount: int, quantity: int, paid_by_others: int, tax: int) -> None:
    """New York: an item of clothing sold for less than $110 is exempt, one of $110 or more is taxed whole (Tax Law § 1115(a)(30));
    a store's coupon lowers the price and a manufacturer's does not (Publication 718-C; TB-ST-140)."""
    line = goods(amount, quantity=quantity, paid_by_others=paid_by_others, tax_code="clothing")

    rows = sold(in_state("NY"), [line], *NY)

    assert total(rows) == tax
    assert {row.reason for row in rows} == {Reason.STANDARD_RATED if tax else Reason.PRODUCT_EXEMPT}


def test_c5_shipping_of_clothing_follows_what_holds() -> None:
    """New York taxes delivery as what is delivered (TB-ST-838); a charge for shipping under 110 is no article of clothing."""
    rules = [msgspec.structs.replace(each, shipping=ShippingMode.FOLLOWS_GOODS) for each in NY]

    cheap = sold(in_state("NY"), [goods(5_000, tax_code="clothing"), shipping(1_000, tax_code="shipping")], *rules)
    dear = sold(in_state("NY"), [goods(11_000, tax_code="clothing"), shipping(1_000, tax_code="shipping")], *rules)

    assert (of_line(cheap, 1), of_line(dear, 1)) == (0, 40)


@pytest.mark.parametrize(
    ("amount", "day", "tax"),
    [
        (9_999, date(2026, 8, 7), 0),
        (9_999, date(2026, 8, 9), 0),
        (9_999, date(2026, 8, 10), 825),
        (10_000, date(2026, 8, 8), 825),
        (15_000, date(2026, 8, 8), 1_238),
    ],
)
def test_c7_a_tax_holiday_frees_cheap_articles_for_some_days(amount: int, day: date, tax: int) -> None:
    """Texas: clothing sold for less than $100 is exempt on three days of August (Tax Code § 151.326); 150.00 is taxed whole."""
    holiday = {"valid_from": date(2026, 8, 7), "valid_to": date(2026, 8, 9), "applies_below": 10_000, "reason": Reason.PRODUCT_EXEMPT}
    rules = [
        a_tax("6.25", "Texas", "TX"),
        a_tax("0", "Texas", "TX", tax_code="clothing", **holiday),
        a_tax("2", "Austin", "TX", level=Level.CITY),
        a_tax("0", "Austin", "TX", tax_code="clothing", level=Level.CITY, **holiday),
    ]

    assert total(sold(in_state("TX", day=day), [goods(amount, tax_code="clothing")], *rules)) == tax


INDIA = (
    national("IN", "5", name="GST", tax_code="apparel", reason=Reason.REDUCED_RATED, applies_up_to=250_000),
    national("IN", "18", name="GST", tax_code="apparel", applies_above=250_000),
)


@pytest.mark.parametrize(
    ("amount", "quantity", "included", "tax"),
    [
        (250_000, 1, False, 12_500),
        (250_001, 1, False, 45_000),
        # 2500.00 and a third of a paisa each.
        (750_001, 3, False, 135_000),
        (262_500, 1, True, 12_500),
        # At 5 % the net would be over 2500, at 18 % not: the price as it is written decides.
        (262_502, 1, True, 40_043),
        (295_000, 1, True, 45_000),
        (295_002, 1, True, 45_000),
    ],
)
def test_e8_all_of_dear_apparel_is_taxed_higher(amount: int, quantity: int, included: bool, tax: int) -> None:
    """India from 22 September 2025: apparel of a sale value not exceeding Rs. 2500 per piece 5 %, exceeding it 18 %
    (notification 9/2025-Central Tax (Rate), Schedules I and II, chapters 61 and 62)."""
    sale = Sale(ship_from=Place(country="IN"), ship_to=Place(country="IN"), day=DAY, home="IN")

    assert total(sold(sale, [goods(amount, quantity=quantity, included=included, tax_code="apparel")], *INDIA)) == tax


@pytest.mark.parametrize(("amount", "tax"), [(10_499, 500), (10_500, 500), (11_999, 1_999), (12_000, 2_000)])
def test_a_cliff_downwards_is_judged_by_what_is_written_where_both_sides_hold(amount: int, tax: int) -> None:
    """Net 100 or more at 5 %, less at 20 %: 105.00 to 119.99 gross fit both; the written price is over 100.00, so it is 5 %."""
    rules = [national("US", "20", applies_below=10_000), national("US", "5", applies_from=10_000)]
    sale = Sale(ship_from=Place(country="US"), ship_to=Place(country="US"), day=DAY, home="US")

    [row] = sold(sale, [goods(amount, included=True)], *rules)

    expected = {10_499: ("20", 1_750), 10_500: ("5", 500), 11_999: ("5", 571), 12_000: ("5", 571)}[amount]
    assert (str(row.rate_percent), row.amount) == expected


def test_what_no_rule_covers_at_a_price_is_refused() -> None:
    sale = Sale(ship_from=Place(country="IN"), ship_to=Place(country="IN"), day=DAY, home="IN")

    with pytest.raises(NoTaxRule):
        sold(sale, [goods(300_000, tax_code="apparel")], INDIA[0])


def test_bounds_in_another_currency_are_not_compared() -> None:
    rules = [NY[0], msgspec.structs.replace(NY[1], currency="USD")]
    line = goods(10_000, tax_code="clothing")

    with pytest.raises(TaxRuleCurrency):
        sold(in_state("NY", currency="EUR"), [line], *rules)
    euro = msgspec.structs.replace(rules[1], version="in euros", currency="EUR", applies_below=9_500)
    assert total(sold(in_state("NY", currency="EUR"), [line], *rules, euro)) == 400
    assert total(sold(in_state("NY", currency="USD"), [line], *rules, euro)) == 0


# Caps


def test_c8_a_cap_of_a_sale_is_met_by_all_its_lines() -> None:
    """Kenai Peninsula Borough: 3 % of the first $500 of a sale (kpb.us, sales tax), so 15.00 at most, however many articles."""
    borough = a_tax("3", "Kenai Peninsula Borough", "AK", level=Level.COUNTY, taxed_up_to=50_000, taxed_per=TaxedPer.SALE)
    lines = [goods(30_000, quantity=3), goods(30_000), goods(90_000), shipping(2_000, tax_code="shipping")]

    rows = sold(in_state("AK"), lines, borough)

    assert [(row.amount, row.taxable_amount, row.untaxed_amount) for row in rows] == [
        (900, 30_000, 0),
        (600, 20_000, 10_000),
        (0, 0, 90_000),
        (0, 0, 2_000),
    ]
    assert total(sold(in_state("AK"), lines[::-1], borough)) == 1_500
    # 515.00 hold 15.00; two of 412.00 hold no more than one of 824.00 does.
    assert total(sold(in_state("AK"), [goods(51_500, included=True)], borough)) == 1_500
    assert total(sold(in_state("AK"), [goods(41_200, included=True), goods(41_200, included=True)], borough)) == 1_500


def test_c9_a_cap_of_an_article_stays_one() -> None:
    """Tennessee's single article (2.25 % up to 1600, 2.75 % from there to 3200): two of 2000.00 are two articles."""
    rules = (
        a_tax("7", "Tennessee", "TN"),
        a_tax("2.25", "local", "TN", level=Level.COUNTY, taxed_up_to=160_000),
        a_tax("2.75", "single article", "TN", taxed_above=160_000, taxed_up_to=320_000),
    )

    assert sorted(row.amount for row in sold(in_state("TN"), [goods(200_000)], *rules)) == [1_100, 3_600, 14_000]
    assert total(sold(in_state("TN"), [goods(400_000, quantity=2)], *rules)) == 2 * 18_700


@pytest.mark.parametrize(
    ("rates", "local"),
    [
        ({"city": "1", "county": "0.5", "district": "0.5"}, ["1", "0.5", "0.5"]),
        ({"city": "1.5", "county": "1", "district": "0.5"}, ["1.5", "0", "0.5"]),
        ({"city": "2", "county": "0.5", "district": "1"}, ["2", "0", "0"]),
    ],
)
def test_local_taxes_stay_within_what_they_may_take_together(rates: dict[str, str], local: list[str]) -> None:
    """Texas: local taxes are 2 % at most in any place (Tax Code §§ 321.101(f), 323.101(d)): city, county, then districts, and one that
    would go over is not collected (34 TAC § 3.334)."""
    rules = [
        a_tax(rate, level, "TX", level=Level(level), priority=n, combined_max_percent=Decimal(2))
        for n, (level, rate) in enumerate(rates.items())
    ]

    rows = sold(in_state("TX"), [goods(10_000)], a_tax("6.25", "Texas", "TX", priority=-1), *rules)

    assert [row.amount for row in rows] == [625, *(int(Decimal(rate) * 100) for rate in local)]
    assert [row.reason for row in rows if not row.amount] == [Reason.NOT_SUBJECT_TO_TAX] * local.count("0")


# Kinds of supply


GST = [
    national("IN", "9", name="CGST", movement=Movement.WITHIN_REGION),
    *(
        national("IN", "9", name="SGST", region=f"IN-{state}", level=Level.STATE, movement=Movement.WITHIN_REGION, version=f"SGST {state}")
        for state in ("KA", "MH")
    ),
    national("IN", "9", name="UTGST", region="IN-CH", level=Level.STATE, movement=Movement.WITHIN_REGION),
    national("IN", "18", name="IGST", movement=Movement.BETWEEN_REGIONS),
]


@pytest.mark.parametrize(
    ("here", "there", "taxes"),
    [
        ("KA", "KA", {"CGST": 900, "SGST": 900}),
        ("KA", "MH", {"IGST": 1_800}),
        ("CH", "CH", {"CGST": 900, "UTGST": 900}),
        ("KA", "CH", {"IGST": 1_800}),
    ],
)
def test_e5_two_halves_within_a_state_and_one_between_states(here: str, there: str, taxes: dict[str, int]) -> None:
    """India: intra-State supplies bear central and state (or Union territory) tax, inter-State ones integrated tax
    (CGST Act s. 9, UTGST Act s. 7, IGST Act ss. 5, 7 and 8)."""
    sale = Sale(
        ship_from=Place(country="IN", region=f"IN-{here}"),
        ship_to=Place(country="IN", region=f"IN-{there}"),
        day=DAY,
        home="IN",
        registrations=(Registration(country="IN", region=f"IN-{here}"),),
    )

    assert {row.name: row.amount for row in sold(sale, [goods(10_000)], *GST)} == taxes


def test_e5_an_unknown_state_is_refused_rather_than_guessed() -> None:
    sale = Sale(ship_from=Place(country="IN", region="IN-KA"), ship_to=Place(country="IN"), day=DAY, home="IN")

    with pytest.raises(NoTaxRule):
        sold(sale, [goods(10_000)], *GST)


@pytest.mark.parametrize(("registered", "region"), [(True, ""), (False, "IN-KA")])
def test_e5_a_state_tax_that_is_not_collected_at_home_is_said(registered: bool, region: str) -> None:
    here = Place(country="IN", region="IN-KA")
    registrations = (Registration(country="IN", region="IN-KA"),) if registered else ()
    sale = Sale(ship_from=here, ship_to=here, day=DAY, home="IN", registrations=registrations)

    assert own_region_untaxed(sale, sold(sale, [goods(10_000)], *GST)) == region


# Fees


STATE = a_tax("2.9", "Colorado", "CO", shipping=ShippingMode.NEVER)
FEE = a_tax("0", "Retail Delivery Fee", "CO", flat_amount=28, currency="USD")
FREE = a_tax("0", "Colorado", "CO", tax_code="food", reason=Reason.PRODUCT_EXEMPT)
DIGITAL = a_tax("0", "Retail Delivery Fee", "CO", tax_code="digital", reason=Reason.NOT_SUBJECT_TO_TAX)


def fees(sale: Sale, lines: list[Line], *rules: Rule) -> list[Row]:
    return [row for row in sold(sale, lines, *rules) if row.name == "Retail Delivery Fee" and row.amount]


def test_c10_a_flat_fee_once_a_delivery_of_taxed_goods() -> None:
    """Colorado's retail delivery fee: once a retail sale, however many shipments, where an item that is delivered bears the state's tax
    (C.R.S. § 43-4-218; 1 CCR 201-20, rule 43-4-218(3)(a); $0.28 from July 2025: tax.colorado.gov/retail-delivery-fee-rates)."""
    sale = in_state("CO", currency="USD", delivered=True)
    lines = [goods(10_000), goods(5_000, tax_code="food"), goods(2_000), shipping(500, tax_code="shipping")]

    rows = sold(sale, lines, STATE, FEE, FREE, DIGITAL)

    [fee] = [row for row in rows if row.line == len(lines)]
    assert (fee.amount, fee.taxable_amount, fee.untaxed_amount, fee.included, fee.rule_version) == (28, 0, 0, False, FEE.version)
    assert total(rows) == 290 + 58 + 28
    assert fees(sale, [goods(5_000, tax_code="food"), shipping(500, tax_code="shipping")], STATE, FEE, FREE) == []
    assert fees(sale, [goods(5_000, tax_code="digital")], STATE, FEE, DIGITAL) == []
    assert fees(sale, [goods(0)], STATE, FEE) == []
    assert fees(msgspec.structs.replace(sale, delivered=False), lines, STATE, FEE, FREE) == []
    exempt = Exemption(certificate="R-1", country="US", region="US-CO")
    assert fees(msgspec.structs.replace(sale, exemptions=(exempt,)), lines, STATE, FEE, FREE) == []
    assert fees(msgspec.structs.replace(sale, registrations=()), lines, STATE, FEE, FREE) == []
    with pytest.raises(TaxRuleCurrency):
        fees(msgspec.structs.replace(sale, currency="EUR"), lines, STATE, FEE, FREE)


def test_a_fee_from_an_amount_of_the_sale_on() -> None:
    """Minnesota's fee is on sales of $100 or more (Minn. Stat. § 168E.03): of all that is taxed, not of one article."""
    from_hundred = msgspec.structs.replace(FEE, flat_amount=50, applies_from=10_000)
    sale = in_state("CO", currency="USD")

    assert fees(sale, [goods(6_000), goods(3_999)], STATE, from_hundred) == []
    assert [row.amount for row in fees(sale, [goods(6_000), goods(4_000)], STATE, from_hundred)] == [50]


# Shipping


def by_code(*rules: Rule, mode: ShippingMode) -> list[Rule]:
    return [msgspec.structs.replace(each, shipping=mode) for each in rules]


@pytest.mark.parametrize(
    ("weights", "tax"), [((1_000, 3_000), 25), ((3_000, 1_000), 75), ((0, 1_000), 0), ((None, 1_000), 50), ((0, 0), 50)]
)
def test_b7_shipping_is_shared_by_weight(weights: tuple[int | None, int | None], tax: int) -> None:
    """RCW 82.08.145(3) and NRS 360B.255: of a shipment with taxed and exempt goods the share by price or by weight is taxed.
    Goods of an unknown weight cannot be weighed: then it is by value."""
    rules = by_code(
        a_tax("10", "Washington", "WA"),
        a_tax("0", "Washington", "WA", tax_code="food", reason=Reason.PRODUCT_EXEMPT),
        mode=ShippingMode.BY_WEIGHT,
    )
    lines = [goods(10_000, weight_grams=weights[0]), goods(10_000, tax_code="food", weight_grams=weights[1])]

    rows = sold(in_state("WA"), [*lines, shipping(1_000, tax_code="shipping")], *rules)

    assert of_line(rows, 2) == tax
    assert sum(row.taxable_amount + row.untaxed_amount for row in rows if row.line == 2 and row.reason is Reason.STANDARD_RATED) <= 1_000


@pytest.mark.parametrize(
    ("basket", "tax", "reason"),
    [
        ([("books", 10_000), ("", 100)], 114, Reason.STANDARD_RATED),
        ([("books", 10_000)], 42, Reason.REDUCED_RATED),
        ([("books", 10_000), ("", 0)], 42, Reason.REDUCED_RATED),
        ([("zero", 10_000)], 0, Reason.ZERO_RATED),
    ],
)
def test_b4_shipping_at_the_highest_rate_in_the_basket(basket: list[tuple[str, int]], tax: int, reason: Reason) -> None:
    """nopCommerce 2905, Smartstore 245: shops that tax delivery of a mixed basket at its highest rate; 6.00 at 19 % or 7 %."""
    rules = by_code(
        national("DE", "19"),
        national("DE", "7", tax_code="books", reason=Reason.REDUCED_RATED),
        national("DE", "0", tax_code="zero", reason=Reason.ZERO_RATED),
        mode=ShippingMode.HIGHEST_RATE,
    )
    sale = Sale(ship_from=Place(country="DE"), ship_to=Place(country="DE"), day=DAY, home="DE")
    lines = [goods(amount, tax_code=code) for code, amount in basket]

    [row] = [row for row in sold(sale, [*lines, shipping(600, tax_code="shipping")], *rules) if row.line == len(lines)]

    assert (row.amount, row.reason) == (tax, reason)


# Rounding


@pytest.mark.parametrize(
    ("unit", "scope", "mode", "expected"),
    [
        (1, RoundingScope.DOCUMENT, RoundingMode.HALF_UP, 342),
        (5, RoundingScope.DOCUMENT, RoundingMode.HALF_UP, 340),
        (100, RoundingScope.DOCUMENT, RoundingMode.HALF_UP, 300),
        (100, RoundingScope.RATE_GROUP, RoundingMode.UP, 400),
        (100, RoundingScope.LINE, RoundingMode.DOWN, 200),
    ],
)
def test_tax_is_rounded_to_its_unit(unit: int, scope: RoundingScope, mode: RoundingMode, expected: int) -> None:
    """India rounds tax to the nearest rupee (CGST Act s. 170), Switzerland knows 0.05; 1500.00 paise and so on at 18 %: 3.42 exactly."""
    rows = taxed([goods(900), goods(600), goods(400)], rule("18", rounding_unit=unit, scope=scope, rounding=mode))

    assert total(rows) == (expected if scope is not RoundingScope.LINE else 200)
    assert all(row.amount >= 0 for row in rows)


@pytest.mark.parametrize(("total", "rounding"), [(1002, -2), (1003, 2), (1000, 0), (1007, -2), (1008, 2), (2, -2), (0, 0)])
def test_a14_totals_go_to_the_step(total: int, rounding: int) -> None:
    """CHF: five centimes are the smallest coin (Ordinance on Coinage, SR 941.101); only the total is rounded, never the tax."""
    assert to_step(total, {"CHF": 5}, "CHF") == rounding
    assert to_step(total, {"CHF": 5}, "EUR") == 0


# Net prices


EUROPE = (national("DE", "19"), national("FR", "20"), national("CH", "8.1"))


def across(there: str, lines: list[Line], **facts: Any) -> tuple[list[Line], list[int], list[Row]]:
    sale = Sale(
        ship_from=Place(country="DE"), ship_to=Place(country=there), day=DAY, home="DE", registrations=(Registration(oss=True),), **facts
    )
    lines, removed = without_home_tax(lines, rules_of(at_home(sale), EUROPE), rules_of(sale, EUROPE))
    return lines, removed, sold(sale, lines, *EUROPE)


@pytest.mark.parametrize(
    ("there", "facts", "removed", "pays"),
    [
        ("DE", {}, [], 11_900 + 595),
        ("FR", {}, [1_900, 95], 12_000 + 600),
        ("FR", {"buyer_vat_country": "FR"}, [1_900, 95], 10_500),
        ("CH", {}, [1_900, 95], 10_500),
    ],
)
def test_a15_the_net_is_kept_across_borders(there: str, facts: dict[str, str], removed: list[int], pays: int) -> None:
    """solidus 3448, woocommerce 4131: 119.00 with 19 % at home is 120.00 with 20 % abroad, and 100.00 for an export or a business."""
    lines = [goods(11_900, included=True), shipping(595, included=True, tax_code="shipping")]

    kept, taken, rows = across(there, lines, **facts)

    assert taken == removed
    assert sum(line.amount for line in kept) + sum(row.amount for row in rows if not row.included) == pays


def test_a15_what_another_pays_goes_down_last() -> None:
    kept, removed, rows = across("CH", [goods(0, paid_by_others=11_900, included=True), goods(5_950, paid_by_others=5_950, included=True)])

    assert removed == [0, 1_900]
    assert [(line.amount, line.taxed_amount) for line in kept] == [(0, 10_000), (4_050, 10_000)]
    assert total(rows) == 0


# Rules from files


HEADING = "country,name,rate_percent,valid_from,source,tax_code,valid_to,applies_from,applies_above,applies_up_to,applies_below,flat_amount"


def read(*rows: str) -> list[Rule]:
    return from_csv("\n".join([HEADING, *rows]))


def test_prices_that_meet_no_other_rule_may_hold_at_once() -> None:
    rules = read(
        "IN,GST,5,2025-09-22,law,apparel,,,,250000,,", "IN,GST,18,2025-09-22,law,apparel,,,250000,,,", "IN,GST,18,2017-07-01,law,,,,,,,"
    )

    assert [(each.applies_up_to, each.applies_above) for each in rules] == [(250_000, None), (None, 250_000), (None, None)]
    refuse_overlaps(rules)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["IN,GST,5,2025-09-22,law,a,,,,250000,,", "IN,GST,18,2025-10-01,law,a,,250000,,,,"], "holds at the same time"),
        (["IN,GST,5,2025-09-22,law,a,,100,100,,,"], "exclude each other"),
        (["IN,GST,5,2025-09-22,law,a,,100,,,100,"], "no price at which it applies"),
        (["IN,GST,5,2025-09-22,law,a,,-1,,,,"], "under 0"),
        (["US,fee,1,2025-09-22,law,,,,,,,28"], "no rate"),
        (["US,fee,0,2025-09-22,law,,,,,,,0"], "flat_amount"),
    ],
)
def test_what_cannot_hold_is_refused(rows: list[str], problem: str) -> None:
    with pytest.raises(RulesRefused, match=problem):
        read(*rows)


def test_rules_that_say_nothing_new_keep_their_version() -> None:
    """The version that 003 of the schema knew, so that an import of the same file changes nothing."""
    [known] = read("DE,MwSt,19,2021-01-01,law,,,,,,,")

    assert version_of(known) == known.version == "f021fea0a9a9cd9f2b0be2a2c47a47a0"


# Whatever is sold


BOUNDS = st.sampled_from([{}, {"applies_below": 9_000}, {"applies_from": 9_000}, {"applies_up_to": 3_000}, {"applies_above": 3_000}])
SALES = st.sampled_from([{}, {}, {"taxed_up_to": 9_000, "taxed_per": TaxedPer.SALE}, {"taxed_above": 4_000, "taxed_per": TaxedPer.SALE}])


@st.composite
def laws(draw: st.DrawFn) -> list[Rule]:
    """Taxes of a state and two below it with all that a rule can say, and a fee."""
    shared = {
        "scope": draw(st.sampled_from(RoundingScope)),
        "rounding": draw(st.sampled_from(RoundingMode)),
        **draw(st.sampled_from([{"inclusive": InclusiveRounding.NET}, {}, {"rounding_unit": 5}, {"rounding_unit": 100}])),
        "shipping": draw(st.sampled_from(ShippingMode)),
    }
    found = []
    for n, level in enumerate((Level.STATE, Level.COUNTY, Level.CITY)):
        percents = st.decimals(Decimal(0), Decimal(30), places=3).map(str)
        most = draw(st.sampled_from([None, Decimal(20)]))
        common = {**shared, "level": level, "priority": n, "compound": draw(st.booleans()), "combined_max_percent": most}
        found.append(rule(draw(percents), level.value, version=f"{level} all", **common, **draw(SALES)))
        found.append(rule(draw(percents), level.value, version=f"{level} cliff", tax_code="food", **common, **draw(BOUNDS)))
    return [*found, rule("0", "fee", version="fee", flat_amount=28)]


@settings(max_examples=60, deadline=None)
@given(
    basket=st.lists(
        st.builds(
            Line,
            amount=st.integers(0, 50_000),
            quantity=st.integers(1, 5),
            tax_code=st.sampled_from(["", "food"]),
            included=st.booleans(),
            weight_grams=st.none() | st.integers(0, 5_000),
        ),
        min_size=1,
        max_size=5,
    ),
    charge=st.integers(0, 2_000),
    law=laws(),
)
def test_everything_adds_up_under_all_that_rules_can_say(basket: list[Line], charge: int, law: list[Rule]) -> None:
    lines = [*basket, Line(amount=charge, tax_code="shipping", kind=Kind.SHIPPING, included=basket[0].included)]
    sale = in_state("WA")

    rows = sold(sale, lines, *law)

    assert rows == sold(sale, lines, *law)
    assert {row.line for row in rows} - {len(lines)} == set(range(len(lines)))
    for n, line in enumerate(lines):
        mine = [row for row in rows if row.line == n]
        net = line.amount - sum(row.amount for row in mine if row.included)
        assert net >= 0
        assert all(row.amount >= 0 and row.taxable_amount >= 0 for row in mine)
        assert all(row.taxable_amount + row.untaxed_amount == net for row in mine)
        assert all(row.amount == 0 for row in mine if row.reason not in (Reason.STANDARD_RATED, Reason.REDUCED_RATED))
        assert {type(amount) for row in mine for amount in (row.amount, row.taxable_amount, row.untaxed_amount)} == {int}
    fee = [row for row in rows if row.line == len(lines)]
    assert [row.amount for row in fee] in ([], [28])


@given(
    amount=st.integers(1, 40_000), quantity=st.integers(1, 4), low=st.integers(0, 30), high=st.integers(0, 30), bound=st.integers(1, 20_000)
)
def test_a_price_with_its_tax_is_judged_as_its_net_would_be(amount: int, quantity: int, low: int, high: int, bound: int) -> None:
    """Where one side alone agrees with itself it is that one; else the written price decides."""
    rules = [national("US", str(low), version="low", applies_below=bound), national("US", str(high), version="high", applies_from=bound)]
    sale = Sale(ship_from=Place(country="US"), ship_to=Place(country="US"), day=DAY, home="US")

    [row] = sold(sale, [goods(amount, quantity=quantity, included=True)], *rules)

    each = Fraction(amount, quantity)
    agreeing = [
        v for v, ok in (("low", each / (1 + Fraction(low, 100)) < bound), ("high", each / (1 + Fraction(high, 100)) >= bound)) if ok
    ]
    written = "low" if each < bound else "high"
    assert row.rule_version == (agreeing[0] if len(agreeing) == 1 else written)


@given(
    lines=st.lists(st.integers(0, 5_000), min_size=1, max_size=5),
    step=st.sampled_from([5, 10, 50]),
    refunds=st.lists(st.integers(1, 9_000), max_size=4),
)
def test_a_rounded_total_goes_back_whole_with_its_tax(lines: list[int], step: int, refunds: list[int]) -> None:
    """What rounded the total is a line of its own without tax, and may be less than nothing."""
    rows = taxed([goods(amount) for amount in lines], rule("8.1"))
    charged = {n: amount + of_line(rows, n) for n, amount in enumerate(lines)}
    rounding = to_step(sum(charged.values()), {"CHF": step}, "CHF")
    charged |= {len(lines): rounding} if rounding else {}
    whole, before, back = sum(charged.values()), dict.fromkeys(charged, 0), []
    parts: list[Returned] = []

    for refund in [*refunds, whole]:
        amount = min(refund, whole - sum(before.values()))
        if amount:
            parts.append(Returned(transaction_id=UUID(int=len(parts) + 1), amount=amount))
        shared = given_back(dict[int | None, int](charged.items()), parts)
        after = {n: shared[n] for n in charged}
        assert sum(after.values()) == sum(part.amount for part in parts)
        back += [row for each in corrections(rows, sold=charged, before=before, after=after) if each is not None for row in each.rows]
        before = after

    assert total(back) == -total(rows) if whole else not back
