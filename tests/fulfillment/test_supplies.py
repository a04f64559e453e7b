"""Orders of goods and services together, and registrations for a territory by its own code."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from services.fulfillment.domain.tax.engine import Line, compute
from services.fulfillment.domain.tax.rules import Level, Place, Reason, Rule, ShippingMode
from services.fulfillment.domain.tax.sale import Registration, Sale, rules_of
from services.fulfillment.domain.territories import territory_of
from shared.contracts.orders import SupplyKind
from tests.fulfillment import shop
from tests.fulfillment.rates import DAY, goods, national, of_line, rule, shipping, sold, total
from tests.world import Place as WorldPlace
from tests.world import World, a_world

STATE = Place(country="US", region="US-WA")
IN_STATE = Sale(
    ship_from=STATE, ship_to=STATE, day=DAY, home="US", registrations=(Registration(country="US", region="US-WA"),), currency="USD"
)
MODES = (ShippingMode.PROPORTIONAL, ShippingMode.BY_WEIGHT, ShippingMode.HIGHEST_RATE)


def at_rates(mode: ShippingMode) -> list[Rule]:
    """Rates of two countries."""
    return [
        national("DE", "19", version="DE 19", shipping=mode),
        national("DE", "7", version="DE 7", tax_code="book", shipping=mode),
        national("FR", "20", version="FR 20", shipping=mode),
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("supply", [SupplyKind.DIGITAL, SupplyKind.SERVICE])
def test_shipping_is_for_goods_alone(mode: ShippingMode, supply: SupplyKind) -> None:
    """What is not sent has no part in the freight, which is ancillary to what is (UStAE 3.10(5), (6); CJEU C-349/96, CPP)."""
    lines = [goods(1_000, tax_code="book", weight_grams=500), goods(2_000, supply=supply), shipping(600)]
    home = Sale(ship_from=Place(country="DE"), ship_to=Place(country="DE"), day=DAY, home="DE", registrations=(Registration(oss=True),))

    assert of_line(sold(home, lines, *at_rates(mode)), 2) == 42
    # The service is made in Germany, the goods and their freight are taxed in France.
    abroad = msgspec.structs.replace(home, ship_to=Place(country="FR"))
    lines = [goods(10_000, weight_grams=500), goods(10_000, supply=SupplyKind.SERVICE), shipping(1_000)]
    assert of_line(sold(abroad, lines, *at_rates(mode)), 2) == 200


def test_shipping_of_exempt_goods_follows_no_service() -> None:
    """New York taxes delivery as the goods that are delivered (TB-ST-838), not as a download in the same order."""
    food = rule("0", tax_code="food", reason=Reason.PRODUCT_EXEMPT, shipping=ShippingMode.FOLLOWS_GOODS)
    rules = (rule("4", shipping=ShippingMode.FOLLOWS_GOODS), food)

    rows = sold(IN_STATE, [goods(1_000, tax_code="food"), goods(1_000, supply=SupplyKind.DIGITAL), shipping(1_000)], *rules)

    assert [of_line(rows, n) for n in range(3)] == [0, 40, 0]


@pytest.mark.parametrize(
    ("line", "fee"),
    [
        (goods(5_000), 28),
        (goods(5_000, supply=SupplyKind.DIGITAL), 0),
        (goods(5_000, supply=SupplyKind.SERVICE), 0),
    ],
)
def test_a_delivery_fee_is_for_goods(line: Line, fee: int) -> None:
    """Colorado's is due where tangible personal property is delivered (C.R.S. 43-4-218); untaxed goods with a taxed service owe none."""
    rules = (rule("2.9"), rule("0", "fee", flat_amount=28), rule("0", tax_code="food", reason=Reason.PRODUCT_EXEMPT))

    rows = sold(IN_STATE, [line, goods(1_000, tax_code="food")], *rules)

    assert sum(row.amount for row in rows if row.line == 2) == fee


@pytest.mark.parametrize(
    ("home", "there", "code", "region"),
    [
        ("US", Place(country="US", region="US-PR", postal_code="00901"), "PR", "US-PR"),
        ("US", Place(country="PR", postal_code="00901"), "PR", "US-PR"),
        ("ES", Place(country="ES", region="ES-GC", postal_code="35001"), "IC", "ES-CN"),
    ],
)
def test_a_territory_is_registered_for_by_either_name(home: str, there: Place, code: str, region: str) -> None:
    """Rules under a country's code with a region, and a registration under the territory's own code, are of one tax."""
    law = rule("7", country=home, region=region, level=Level.STATE)
    sale = Sale(ship_from=Place(country=home), ship_to=there, day=DAY, home=home)
    by_code, by_region = Registration(country=code), Registration(country=home, region=region)

    for registration in (by_code, by_region):
        assert total(sold(msgspec.structs.replace(sale, registrations=(registration,)), [goods(1_000)], law)) == 70


def test_the_faroes_are_known_by_their_letters() -> None:
    """Three digits after FO (Posta), in addresses of Denmark."""
    assert territory_of(Place(country="DK", postal_code="FO-100")).code == "FO"


@pytest.mark.parametrize(
    ("home", "tax", "reason"),
    [
        ("GB", 2_000, Reason.STANDARD_RATED),
        # MWSTG (CH), Article 8(1): where the recipient is.
        ("CH", 0, Reason.NOT_SUBJECT_TO_TAX),
    ],
)
def test_a_service_for_a_consumer_abroad_is_made_where_its_law_says(home: str, tax: int, reason: Reason) -> None:
    """VATA 1994, s. 7A(2)(b): to a person who is no relevant business person, in the country in which the supplier belongs."""
    sale = Sale(ship_from=Place(country=home), ship_to=Place(country="FR"), day=DAY, home=home)

    rows = sold(sale, [goods(10_000, supply=SupplyKind.SERVICE)], national("GB", "20"), national("CH", "8.1"))

    assert [(row.amount, row.reason) for row in rows] == [(tax, reason)]


@pytest.mark.parametrize("supply", [SupplyKind.GOODS, SupplyKind.DIGITAL])
def test_a_number_of_northern_ireland_is_a_uk_business(supply: SupplyKind) -> None:
    """The UK number with XI before it (gov.uk, Notice 725): imports up to 135 GBP and services are under the reverse charge."""
    there = Place(country="GB", region="GB-NIR", postal_code="BT11AA")
    sale = Sale(ship_from=Place(country="US", region="US-WA"), ship_to=there, day=DAY, home="US", currency="GBP")
    sale = msgspec.structs.replace(sale, registrations=(Registration(country="GB"),), buyer_vat_country="XI")

    lines = [goods(10_000, supply=supply)]

    rows = compute(lines, rules_of(sale, [national("GB", "20")], lines))

    assert [(row.amount, row.reason) for row in rows] == [(0, Reason.REVERSE_CHARGE)]


@pytest.fixture(scope="module")
async def world(place: WorldPlace) -> AsyncIterator[World]:
    """A shop that ships by its own table."""
    async with a_world(place, fulfillment={}) as made:
        await shop.set_up(made)
        yield made


@pytest.mark.parametrize(("supply", "charge"), [("goods", 490), ("digital", 0), ("service", 0)])
async def test_no_freight_where_nothing_is_sent(world: World, supply: str, charge: int) -> None:
    order_id = await shop.an_order(world, items=[{**shop.MUG, "supply": supply}])

    snapshot = await shop.ok(await shop.quote(world, order_id))

    assert (snapshot["totals"]["shipping"], snapshot["totals"]["total"]) == (charge, 2_980 + charge + round(charge * 0.19))
