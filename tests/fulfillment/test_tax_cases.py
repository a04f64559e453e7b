"""Worked examples that others publish, to the cent; each names the configuration under which it comes out.

The numbers W… are those of our collection; each case names its publisher.
"""

from decimal import Decimal
from fractions import Fraction

import pytest

from services.fulfillment.domain.tax.amounts import RoundingMode, prorated, rounded
from services.fulfillment.domain.tax.rules import (
    InclusiveRounding,
    Level,
    Place,
    Reason,
    RoundingScope,
    ShippingMode,
)
from services.fulfillment.domain.tax.sale import Registration, Sale
from tests.fulfillment.rates import DAY, goods, national, of_line, rule, shipping, sold, taxed, total

LINE, RATE_GROUP, DOCUMENT = RoundingScope.LINE, RoundingScope.RATE_GROUP, RoundingScope.DOCUMENT


def test_w1_shipping_that_is_not_taxed() -> None:
    """Stripe API reference, the calculation object: Washington."""
    rows = taxed([goods(1_499), shipping(300)], rule("10.25", shipping=ShippingMode.NEVER))

    assert (of_line(rows, 0), of_line(rows, 1)) == (154, 0)
    assert 1_499 + 300 + total(rows) == 1_953
    assert rows[1].reason is Reason.NOT_SUBJECT_TO_TAX


@pytest.mark.parametrize(("scope", "expected"), [(LINE, 519), (DOCUMENT, 520)])
def test_w2_w3_line_and_document_rounding(scope: RoundingScope, expected: int) -> None:
    """help.avalara.com, rounding by line and by document."""
    lines = [goods(4_080), goods(198), goods(1_499)]

    rows = taxed(lines, rule("6.5", "state", scope=scope), rule("2.5", "city", level=Level.CITY, scope=scope))

    assert total(rows) == expected
    if scope is LINE:
        assert [[row.amount for row in rows if row.line == n] for n in range(3)] == [[265, 102], [13, 5], [97, 37]]


def test_w4_a_price_that_holds_its_tax() -> None:
    """developer.avalara.com, tax included."""
    [row] = taxed([goods(10_000, included=True)], rule("7.75"))

    assert (row.taxable_amount, row.amount) == (9_281, 719)


@pytest.mark.parametrize(("scope", "expected"), [(LINE, 232), (DOCUMENT, 230), (RATE_GROUP, 230)])
def test_w5_four_engines(scope: RoundingScope, expected: int) -> None:
    """saleor#12348: Stripe and AvaTax by line; TaxJar and AvaTax with its rounding off by document."""
    rows = taxed([goods(250) for _ in range(4)], rule("23", scope=scope))

    assert total(rows) == expected
    assert sorted(row.amount for row in rows) == ([58] * 4 if scope is LINE else [57, 57, 58, 58])


@pytest.mark.parametrize(("part", "net", "tax"), [(InclusiveRounding.NET, 288, 11), (InclusiveRounding.TAX, 287, 12)])
def test_w7_which_part_of_an_inclusive_price_is_rounded(part: InclusiveRounding, net: int, tax: int) -> None:
    """Zuora, tax-inclusive pricing."""
    [row] = taxed([goods(299, included=True)], rule("4", inclusive=part))

    assert (row.taxable_amount, row.amount) == (net, tax)


def test_w8_two_taxes_beside_each_other() -> None:
    """Revenu Québec: GST and QST on the same base."""
    rows = taxed([goods(10_000)], national("CA", "5", name="GST"), rule("9.975", "QST", country="CA", region="CA-QC"))
    one_step = taxed([goods(10_000)], rule("14.975"))

    assert [row.amount for row in rows] == [500, 998]
    assert 10_000 + total(rows) == 11_498
    assert total(one_step) == 1_498


@pytest.mark.parametrize(("scope", "expected"), [(LINE, 351), (DOCUMENT, 350)])
def test_w9_components_that_are_the_total(scope: RoundingScope, expected: int) -> None:
    """TaxJar's fixture says 3.50 in all and 1.35 + 2.16 = 3.51 in parts; here either is consistent."""
    hst = [rule("5", "GST part", scope=scope), rule("8", "PST part", scope=scope)]

    rows = taxed([goods(1_695), shipping(1_000)], *hst)

    assert total(rows) == expected
    assert total(rows) == sum(sum(row.amount for row in rows if row.name == each.name) for each in hst)
    if scope is LINE:
        assert [sum(row.amount for row in rows if row.name == each.name) for each in hst] == [135, 216]


def test_w10_half_a_cent_goes_up() -> None:
    """TaxJar's fixture: New Jersey taxes freight."""
    lines = [goods(1_500), shipping(150)]

    assert [row.amount for row in taxed(lines, rule("7"))] == [105, 11]
    assert [row.amount for row in taxed(lines, rule("7", rounding=RoundingMode.HALF_EVEN))] == [105, 10]


def test_w12_the_standard_and_the_reduced_rate() -> None:
    """HMRC, how VAT is calculated; and the inverse."""
    assert 10_000 + total(taxed([goods(10_000)], rule("20"))) == 12_000
    assert 10_000 + total(taxed([goods(10_000)], rule("5"))) == 10_500
    assert total(taxed([goods(12_000, included=True)], rule("20"))) == 2_000


def test_w13_goods_and_their_shipping_with_the_tax_in_the_price() -> None:
    """solidus, taxation_integration_spec: Germany."""
    priced = [(2_000, "7"), (800, "7"), (3_000, "19"), (1_600, "19"), (1_000, "19"), (200, "19"), (500, "9")]
    lines = [goods(amount, included=True, tax_code=percent) for amount, percent in priced]

    rows = taxed(lines, *(rule(percent, tax_code=percent) for percent in ("7", "19", "9")))

    assert [row.amount for row in rows] == [131, 52, 479, 255, 160, 32, 41]


@pytest.mark.parametrize(("amount", "quantity", "tax", "taxable"), [(20_000, 1, 156, 2_500), (20_000, 2, 0, 0)])
def test_w16_clothing_over_a_threshold(amount: int, quantity: int, tax: int, taxable: int) -> None:
    """Massachusetts taxes of each article of clothing what is over 175 (legalclarity.org)."""
    [row] = taxed([goods(amount, quantity=quantity)], rule("6.25", taxed_above=17_500))

    assert (row.amount, row.taxable_amount, row.untaxed_amount) == (tax, taxable, amount - taxable)


def test_w17_a_single_article_under_a_cap() -> None:
    """Tennessee: the local tax up to 1,600, another 2.75 % from there to 3,200 (its Department of Revenue)."""
    rows = taxed(
        [goods(400_000)],
        rule("7", "state"),
        rule("2.25", "local", level=Level.COUNTY, taxed_up_to=160_000),
        rule("2.75", "single article", taxed_above=160_000, taxed_up_to=320_000),
    )

    assert [row.amount for row in rows] == [28_000, 3_600, 4_400]
    assert total(rows) == 36_000


def test_w18_a_tax_on_a_tax() -> None:
    """Québec before 2013: QST also on the GST (rule: zen-cart forum)."""
    rows = taxed([goods(10_000)], rule("5", "GST"), rule("9.5", "QST", compound=True))

    assert [row.amount for row in rows] == [500, 998]


@pytest.mark.parametrize(
    ("lines", "base"),
    [
        ([goods(49_995), goods(3_000), shipping(2_000)], 54_995),
        ([goods(350_000), shipping(25_000)], 375_000),
        ([goods(40_000), shipping(10_000)], 50_000),
        ([goods(40_000, tax_code="exempt"), shipping(10_000)], 0),
        ([goods(40_000, tax_code="exempt"), goods(100), shipping(10_000)], 10_100),
    ],
)
def test_w19_shipping_in_new_york(lines: list[object], base: int) -> None:
    """tax.ny.gov, TB-ST-838: taxed when anything it carries is, and then all of it."""
    rules = [
        rule("8.875", shipping=ShippingMode.FOLLOWS_GOODS),
        rule("0", tax_code="exempt", reason=Reason.PRODUCT_EXEMPT, shipping=ShippingMode.FOLLOWS_GOODS),
    ]

    rows = taxed(lines, *rules)  # type: ignore[arg-type]

    assert sum(row.taxable_amount for row in rows) == base


@pytest.mark.parametrize(("first", "second", "tax"), [(10_000, 10_000, 155), (2_000, 8_000, 110)])
def test_w22_shipping_as_the_goods_it_carries(first: int, second: int, tax: int) -> None:
    """saleor PR 17730: weighted by net value."""
    rules = [rule(percent, tax_code=percent, shipping=ShippingMode.PROPORTIONAL) for percent in ("23", "8")]
    lines = [goods(first, tax_code="23"), goods(second, tax_code="8"), shipping(1_000, tax_code="23")]

    rows = taxed(lines, *rules)

    assert of_line(rows, 2) == tax


@pytest.mark.parametrize(
    ("weights", "amount", "shares"),
    [
        ([4_300, 1_400, 2_300], 299, [161, 52, 86]),
        ([1_000] * 3, 299, [100, 100, 99]),
        ([10, 20, 10, 30, 50, 20, 10, 40], 93, [5, 10, 5, 15, 24, 10, 5, 19]),
        ([0, 0], 10, [5, 5]),
        ([100, 100], -20, [-10, -10]),
        ([4_000, 2_000, 2_000], -300, [-150, -75, -75]),
    ],
)
def test_w23_proration_by_largest_remainder(weights: list[int], amount: int, shares: list[int]) -> None:
    """vendure, prorate.spec.ts."""
    assert prorated(weights, amount) == shares


@pytest.mark.parametrize(("price", "discount", "tax"), [(1_033, 100, 156), (1_240, 0, 207), (1_240, 100, 190)])
def test_w26_w27_a_discount_before_the_tax(price: int, discount: int, tax: int) -> None:
    """drupalcommerce, CustomTest: 20 % in the price."""
    assert total(taxed([goods(price - discount, included=True)], rule("20"))) == tax


def test_w27_a_net_price_shown_with_its_tax() -> None:
    """drupalcommerce, CustomTest."""
    [added] = taxed([goods(1_033)], rule("20"))
    [held] = taxed([goods(1_033, included=True)], rule("20"))

    assert (added.amount, 1_033 + added.amount) == (207, 1_240)
    assert (held.amount, held.taxable_amount) == (172, 861)


@pytest.mark.parametrize(("amount", "included", "tax"), [(2_900, False, 145), (2_900, True, 138), (6_000, True, 286)])
def test_w28_a_discount_on_an_item(amount: int, included: bool, tax: int) -> None:
    """solidus, default_tax_spec: 5 %."""
    assert total(taxed([goods(amount, included=included)], rule("5"))) == tax


def test_w28_a_tax_on_more_decimals_than_there_are() -> None:
    """solidus, default_tax_spec: 10.333 at 5 %."""
    assert rounded(Fraction("1033.3") * Fraction(5, 100), RoundingMode.HALF_UP) == 52


def test_w30_a_coupon_that_somebody_else_pays() -> None:
    """CDTFA publication 113: of a doubled coupon the manufacturer's part stays taxed."""
    [row] = taxed([goods(800, paid_by_others=100)], rule("7.25"))

    assert (row.taxable_amount, row.amount) == (900, 65)


CANADA = [
    *(national("CA", percent, name="HST", region=f"CA-{region}") for region, percent in (("ON", "13"), ("NS", "15"), ("NL", "15"))),
    *(national("CA", "5", name="GST", region=f"CA-{region}") for region in ("AB", "NT")),
]


@pytest.mark.parametrize(("seller", "buyer", "percent"), [("AB", "ON", "13"), ("ON", "NS", "15"), ("PE", "NT", "5")])
def test_w31_place_of_supply_in_canada(seller: str, buyer: str, percent: str) -> None:
    """allabouttax.ca: where it goes to decides; Nova Scotia was 15 % then."""
    sale = Sale(ship_from=Place(country="CA", region=f"CA-{seller}"), ship_to=Place(country="CA", region=f"CA-{buyer}"), day=DAY, home="CA")

    [row] = sold(sale, [goods(10_000)], *CANADA)

    assert (row.rate_percent, row.amount) == (Decimal(percent), int(percent) * 100)


@pytest.mark.parametrize(
    ("to", "buyer_vat", "oss", "tax", "reason"),
    [
        ("FR", "FR", False, 0, Reason.INTRA_COMMUNITY_SUPPLY),
        ("FR", "", True, 2_000, Reason.STANDARD_RATED),
        ("FR", "", False, 1_900, Reason.STANDARD_RATED),
        ("DE", "DE", False, 1_900, Reason.STANDARD_RATED),
    ],
)
def test_w33_reverse_charge_and_distance_sales(to: str, buyer_vat: str, oss: bool, tax: int, reason: Reason) -> None:
    """Directive 2006/112/EC, Articles 138 and 59c; numbers worked out."""
    rules = [national("DE", "19"), national("FR", "20")]
    registered = (Registration(oss=True),) if oss else ()
    sale = Sale(
        ship_from=Place(country="DE"),
        ship_to=Place(country=to),
        day=DAY,
        home="DE",
        registrations=registered,
        buyer_vat_country=buyer_vat,
    )

    [row] = sold(sale, [goods(10_000)], *rules)

    assert (row.amount, row.reason) == (tax, reason)


@pytest.mark.parametrize(("net", "percent", "tax"), [(25_508, "22", 5_612), (31_121, "25", 7_780)])
def test_w35_lines_of_an_oss_return(net: int, percent: str, tax: int) -> None:
    """Mint-System, sample of a return: Estonia and Sweden."""
    assert total(taxed([goods(net)], rule(percent))) == tax
