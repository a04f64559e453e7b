"""Goods that are sent into a country: collected at the sale up to the law's limit, at the border beyond it; and what is no goods at all."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.fulfillment.domain.tax.engine import Row, compute
from services.fulfillment.domain.tax.imports import ExchangeRateNeeded
from services.fulfillment.domain.tax.rules import Place, Reason
from services.fulfillment.domain.tax.sale import Registration, Sale, due_at_border, rules_of
from shared.contracts.orders import SupplyKind
from tests.fulfillment import shop
from tests.fulfillment.rates import DAY, goods, national, shipping
from tests.fulfillment.shop import MUNICH, PARIS, an_order, ok, quote
from tests.world import Place as WorldPlace
from tests.world import World, a_world

RULES = [
    *(national("DE", "19"), national("FR", "20"), national("GB", "20"), national("AU", "10", name="GST")),
    *(national("NZ", "15", name="GST"), national("NO", "25", name="MVA")),
]
DIGITAL, SERVICE = SupplyKind.DIGITAL, SupplyKind.SERVICE
HOME, EXPORT, TAXED = Reason.NOT_COLLECTING, Reason.EXPORT, Reason.STANDARD_RATED
IOSS, OSS = Registration(ioss=True), Registration(oss=True)


def a_sale(here: str, there: str, currency: str, *registrations: Registration, **facts: Any) -> Sale:
    given = {"ship_from": Place(country=here), "ship_to": Place(country=there), "day": DAY, "home": here, "currency": currency}
    return Sale(**{**given, "registrations": registrations, **facts})


def sold(sale: Sale, *lines: Any) -> list[Row]:
    return compute(lines, rules_of(sale, RULES, lines))


def outcome(sale: Sale, *lines: Any) -> list[tuple[int, Reason]]:
    return [(row.amount, row.reason) for row in sold(sale, *lines)]


class TestLimits:
    """IOSS: Directive 2006/112/EC, Article 369l; the value without tax and freight: Regulation (EU) 2015/2446, Article 1(48).

    UK: gov.uk, "VAT and overseas goods sold directly to customers in the UK". Australia: ATO, LCR 2018/1; "for consignments of goods
    imported over A$1,000 any GST … are charged to the importer at the border". New Zealand: ird.govt.nz, "individually". Norway:
    skatteetaten.no, "below NOK 3,000 … per item and not per consignment".
    """

    @pytest.mark.parametrize(
        ("there", "currency", "registration", "amount", "tax"),
        [
            pytest.param("DE", "EUR", IOSS, 150_00, 28_50, id="D18 IOSS 150.00"),
            pytest.param("DE", "EUR", IOSS, 150_01, None, id="D18 IOSS 150.01"),
            pytest.param("DE", "EUR", IOSS, 200_00, None, id="D18 IOSS 200.00"),
            pytest.param("GB", "GBP", Registration(country="GB"), 135_00, 27_00, id="D18 UK 135.00"),
            pytest.param("GB", "GBP", Registration(country="GB"), 135_01, None, id="D18 UK 135.01"),
            pytest.param("AU", "AUD", Registration(country="AU"), 1_000_00, 100_00, id="D18 Australia 1000.00"),
            pytest.param("AU", "AUD", Registration(country="AU"), 1_000_01, None, id="D18 Australia 1000.01"),
            pytest.param("NZ", "NZD", Registration(country="NZ"), 1_000_00, 150_00, id="New Zealand 1000.00"),
            pytest.param("NZ", "NZD", Registration(country="NZ"), 1_000_01, None, id="New Zealand 1000.01"),
            pytest.param("NO", "NOK", Registration(country="NO"), 2_999_99, 750_00, id="Norway 2999.99"),
            pytest.param("NO", "NOK", Registration(country="NO"), 3_000_00, None, id="Norway 3000.00"),
        ],
    )
    def test_tax_is_collected_up_to_the_limit(
        self, there: str, currency: str, registration: Registration, amount: int, tax: int | None
    ) -> None:
        sale = a_sale("US", there, currency, registration)

        rows = sold(sale, goods(amount))

        assert [(row.amount, row.reason) for row in rows] == [(0, EXPORT) if tax is None else (tax, TAXED)]
        assert due_at_border(sale, rows) is (tax is None)

    def test_all_that_is_sent_together_counts_and_freight_does_not(self) -> None:
        sale = a_sale("US", "DE", "EUR", IOSS)

        assert outcome(sale, goods(80_00), goods(70_00), shipping(50_00)) == [(15_20, TAXED), (13_30, TAXED), (9_50, TAXED)]
        assert outcome(sale, goods(80_00), goods(70_01), shipping(50_00)) == [(0, EXPORT)] * 3
        assert outcome(sale, goods(151_00, quantity=10)) == [(0, EXPORT)]

    def test_articles_are_looked_at_one_by_one_where_the_law_does(self) -> None:
        sale = a_sale("US", "NO", "NOK", Registration(country="NO"))

        assert outcome(sale, goods(5_000_00, quantity=2)) == [(1_250_00, TAXED)]
        assert outcome(sale, goods(3_500_00), goods(100_00), shipping(40_00)) == [(0, EXPORT), (25_00, TAXED), (10_00, TAXED)]
        assert outcome(sale, goods(3_500_00), shipping(40_00)) == [(0, EXPORT), (0, EXPORT)]

    @pytest.mark.parametrize(("amount", "tax"), [(178_50, 28_50), (178_52, None)])
    def test_a_price_that_holds_its_tax_counts_without_it(self, amount: int, tax: int | None) -> None:
        assert outcome(a_sale("US", "DE", "EUR", IOSS), goods(amount, included=True)) == [(0, EXPORT) if tax is None else (tax, TAXED)]

    def test_a_price_counts_after_its_discount_and_with_what_others_pay_of_it(self) -> None:
        sale = a_sale("US", "DE", "EUR", IOSS)

        assert outcome(sale, goods(140_00, paid_by_others=10_00)) == [(28_50, TAXED)]
        assert outcome(sale, goods(140_00, paid_by_others=10_01)) == [(0, EXPORT)]

    def test_what_is_no_goods_does_not_count(self) -> None:
        sale = a_sale("US", "DE", "EUR", IOSS, OSS)

        assert outcome(sale, goods(100_00), goods(400_00, supply=DIGITAL)) == [(19_00, TAXED), (76_00, TAXED)]
        assert outcome(sale, goods(151_00), goods(400_00, supply=DIGITAL)) == [(0, EXPORT), (76_00, TAXED)]

    def test_an_importer_sells_at_home_there(self) -> None:
        importer = Registration(country="GB", importer=True)

        assert outcome(a_sale("DE", "GB", "EUR", importer), goods(200_00)) == [(40_00, TAXED)]
        assert outcome(a_sale("US", "DE", "EUR", IOSS, Registration(country="DE", importer=True)), goods(200_00)) == [(38_00, TAXED)]

    def test_another_currency_is_not_guessed(self) -> None:
        """Regulation (EU) 2015/2447, Article 146, and its like say which rate; without one the sale is refused, however small."""
        with pytest.raises(ExchangeRateNeeded):
            sold(a_sale("US", "DE", "USD", IOSS), goods(1_00))

        stated = Registration(ioss=True, import_limits={"USD": 174_00})
        assert outcome(a_sale("US", "DE", "USD", stated), goods(174_00)) == [(33_06, TAXED)]
        assert outcome(a_sale("US", "DE", "USD", stated), goods(174_01)) == [(0, EXPORT)]

    def test_a_limit_is_for_what_crosses_the_border(self) -> None:
        assert outcome(a_sale("GB", "GB", "GBP"), goods(200_00)) == [(40_00, TAXED)]
        assert outcome(a_sale("DE", "FR", "EUR", OSS, IOSS), goods(200_00)) == [(40_00, TAXED)]
        # Of a third territory, not the third country: the Canaries are outside the VAT area.
        canaries = Place(country="ES", postal_code="35001")
        assert outcome(a_sale("ES", "DE", "EUR", IOSS, ship_from=canaries), goods(200_00)) == [(0, EXPORT)]


class TestSchemes:
    @pytest.mark.parametrize(
        ("here", "registration", "expected"),
        [
            pytest.param("DE", OSS, (20_00, TAXED), id="the Union scheme within"),
            pytest.param("DE", IOSS, (19_00, TAXED), id="the import scheme is not for goods within"),
            pytest.param("US", IOSS, (20_00, TAXED), id="the import scheme from outside"),
            pytest.param("US", OSS, (0, HOME), id="the Union scheme is not for imports"),
        ],
    )
    def test_f17_each_scheme_has_its_goods(self, here: str, registration: Registration, expected: tuple[int, Reason]) -> None:
        """Directive 2006/112/EC: Articles 369a to 369k (Union scheme), 369l to 369x (import scheme)."""
        assert outcome(a_sale(here, "FR", "EUR", registration), goods(100_00)) == [expected]

    def test_d17_under_the_threshold_and_after_the_scheme(self) -> None:
        """Article 59c: taxed where it comes from."""
        ended = Registration(oss=True, valid_to=DAY.replace(month=5))

        assert outcome(a_sale("DE", "FR", "EUR"), goods(100_00)) == [(19_00, TAXED)]
        assert outcome(a_sale("DE", "FR", "EUR", ended), goods(100_00)) == [(19_00, TAXED)]

    @pytest.mark.parametrize(
        ("there", "currency", "registration", "amount", "buyer", "reason"),
        [
            pytest.param("DE", "EUR", IOSS, 100_00, "DE", EXPORT, id="D19 IOSS"),
            pytest.param("DE", "EUR", IOSS, 100_00, "FR", EXPORT, id="D19 IOSS and a number of another member state"),
            pytest.param("GB", "GBP", Registration(country="GB"), 100_00, "GB", Reason.REVERSE_CHARGE, id="D19 UK"),
            pytest.param("GB", "GBP", Registration(country="GB"), 200_00, "GB", EXPORT, id="D19 UK over the limit"),
            pytest.param("NO", "NOK", Registration(country="NO"), 100_00, "NO", EXPORT, id="D19 VOEC is for consumers"),
            pytest.param("AU", "AUD", Registration(country="AU"), 100_00, "AU", Reason.NOT_SUBJECT_TO_TAX, id="D19 Australia"),
        ],
    )
    def test_businesses_are_not_taxed_at_the_sale(
        self, there: str, currency: str, registration: Registration, amount: int, buyer: str, reason: Reason
    ) -> None:
        """Directive 2006/112/EC, Article 14(4): distance sales are to consumers; gov.uk, as above: the customer accounts for the VAT."""
        sale = a_sale("US", there, currency, registration, buyer_vat_country=buyer)

        assert outcome(sale, goods(amount), shipping(5_00)) == [(0, reason), (0, reason)]

    def test_another_countrys_number_is_a_consumers(self) -> None:
        assert outcome(a_sale("US", "GB", "GBP", Registration(country="GB"), buyer_vat_country="FR"), goods(100_00)) == [(20_00, TAXED)]


class TestServices:
    """Directive 2006/112/EC: to businesses Articles 44 and 196, to consumers Article 45, by electronic means Articles 58 and 59c."""

    @pytest.mark.parametrize("supply", [DIGITAL, SERVICE])
    def test_d15_a_business_elsewhere_owes_the_tax_itself(self, supply: SupplyKind) -> None:
        sale = a_sale("DE", "FR", "EUR", buyer_vat_country="FR")

        assert outcome(sale, goods(100_00, supply=supply)) == [(0, Reason.REVERSE_CHARGE)]
        assert outcome(sale, goods(100_00)) == [(0, Reason.INTRA_COMMUNITY_SUPPLY)]
        assert outcome(sale, goods(100_00), goods(100_00, supply=supply)) == [
            (0, Reason.INTRA_COMMUNITY_SUPPLY),
            (0, Reason.REVERSE_CHARGE),
        ]

    @pytest.mark.parametrize(
        ("supply", "there", "registrations", "expected"),
        [
            pytest.param(DIGITAL, "DE", (), (19_00, TAXED), id="digital at home"),
            pytest.param(DIGITAL, "FR", (), (19_00, TAXED), id="digital under the threshold"),
            pytest.param(DIGITAL, "FR", (OSS,), (20_00, TAXED), id="digital by OSS"),
            pytest.param(DIGITAL, "GB", (), (0, Reason.NOT_SUBJECT_TO_TAX), id="digital outside"),
            pytest.param(SERVICE, "FR", (OSS,), (19_00, TAXED), id="another service is made at home"),
            pytest.param(SERVICE, "US", (), (19_00, TAXED), id="also for consumers outside"),
        ],
    )
    def test_consumers(self, supply: SupplyKind, there: str, registrations: Any, expected: tuple[int, Reason]) -> None:
        assert outcome(a_sale("DE", there, "EUR", *registrations), goods(100_00, supply=supply)) == [expected]

    @pytest.mark.parametrize(
        ("here", "there", "registration"),
        [("US", "FR", OSS), ("US", "FR", Registration(country="FR")), ("DE", "GB", Registration(country="GB"))],
    )
    def test_a_business_owes_it_too_where_the_seller_is_registered(self, here: str, there: str, registration: Registration) -> None:
        sale = a_sale(here, there, "EUR", registration, buyer_vat_country=there)

        assert outcome(sale, goods(100_00, supply=DIGITAL)) == [(0, Reason.REVERSE_CHARGE)]

    def test_a_number_of_the_home_country_leaves_a_service_at_home(self) -> None:
        assert outcome(a_sale("DE", "FR", "EUR", OSS, buyer_vat_country="DE"), goods(100_00, supply=SERVICE)) == [(19_00, TAXED)]

    def test_a_download_comes_from_the_sellers_home_and_not_from_a_warehouse(self) -> None:
        sale = a_sale("FR", "FR", "EUR", OSS, home="DE", buyer_vat_country="FR")

        assert outcome(sale, goods(100_00, supply=DIGITAL)) == [(0, Reason.REVERSE_CHARGE)]
        assert outcome(sale, goods(100_00)) == [(20_00, TAXED)]

    def test_a_seller_outside_collects_on_services_by_the_one_stop_shop(self) -> None:
        """The non-Union scheme, Articles 358a to 369."""
        assert outcome(a_sale("US", "FR", "EUR", OSS), goods(100_00, supply=DIGITAL)) == [(20_00, TAXED)]


ZURICH = {"ship_from": shop.ZURICH, "home_country": "CH", "carriers": ["table_rate"]}
FIFTY = {**shop.MUG, "quantity": 1, "unit_price": 50_00, "tax_behavior": "exclusive"}


@pytest.fixture(scope="module")
async def swiss(place: WorldPlace) -> AsyncIterator[World]:
    """A shop in Zürich with an IOSS number."""
    async with a_world(place, fulfillment={}) as world:
        await shop.set_up(world, **ZURICH)
        body = {"ioss": True, "registration_number": "IM2760000001", "valid_from": shop.SINCE, "import_limits": {"CHF": 14_000}}
        await ok(await world.send("POST", "/api/v1/admin/tax/nexus", body))
        yield world


@pytest.mark.parametrize(
    ("changes", "tax", "reasons", "notices"),
    [
        pytest.param({"quantity": 3}, 2_850, {"standard_rated"}, [], id="D18 up to 150"),
        pytest.param({"quantity": 4}, 0, {"export"}, ["import-vat-due"], id="D18 over 150"),
        pytest.param({"vat_id": "DE136695976"}, 0, {"export"}, ["import-vat-due"], id="D19 a business"),
        pytest.param({"quantity": 9, "supply": "digital"}, 8_550, {"standard_rated"}, [], id="D18 a download"),
        pytest.param({"quantity": 3, "currency": "CHF"}, 0, {"export"}, ["import-vat-due"], id="D18 150 francs"),
    ],
)
async def test_a_quote_says_where_the_tax_is_paid(
    swiss: World, changes: dict[str, Any], tax: int, reasons: set[str], notices: list[str]
) -> None:
    of_order: dict[str, Any] = {name: changes.pop(name) for name in ("vat_id", "currency") if name in changes}
    order = {"items": [{**FIFTY, **changes}], "shipping_amount": 0, "shipping_address": MUNICH, **of_order}

    snapshot = await ok(await quote(swiss, await an_order(swiss, **order)))

    assert snapshot["totals"]["tax_exclusive"] == tax
    assert {line["reason"] for line in snapshot["tax_lines"]} == reasons
    assert [notice["code"] for notice in snapshot["notices"]] == notices


async def test_a_currency_without_a_limit_is_refused(swiss: World) -> None:
    order = {"currency": "USD", "items": [FIFTY], "shipping_amount": 0, "shipping_address": PARIS}

    answer = await quote(swiss, await an_order(swiss, **order))

    assert (answer.status, answer.code) == (422, "exchange-rate-needed")


@pytest.mark.parametrize(
    "body",
    [
        {"oss": True, "ioss": True},
        {"country": "DE", "ioss": True},
        {"ioss": True, "registration_number": "DE1"},
        {"ioss": True, "importer": True},
    ],
)
async def test_a_scheme_that_makes_no_sense_is_refused(swiss: World, body: dict[str, Any]) -> None:
    answer = await swiss.send("POST", "/api/v1/admin/tax/nexus", {"valid_from": shop.SINCE, **body})

    assert (answer.status, answer.code) == (422, "invalid-request")
