"""Certificates: which lines they free, judged once for every engine; what is filed and what is evidence follow it."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from services.fulfillment.domain.tax.certificates import CertificateUnsupported, certificates_of, counted
from services.fulfillment.domain.tax.engine import Line
from services.fulfillment.domain.tax.rules import Level, Place, Reason, ShippingMode
from services.fulfillment.domain.tax.sale import Exemption, Registration, Sale
from services.fulfillment.providers.avalara import invoice_body, transaction_body
from services.fulfillment.providers.tax_books import FiledLine, TaxFiling
from services.fulfillment.providers.taxjar import filed_body, order_body
from shared.ids import new_id
from tests.fulfillment import shop
from tests.fulfillment.engines.test_providers import FREIGHT, ITEM, RAMSEY, SEATTLE, asked
from tests.fulfillment.rates import DAY, goods, rule, shipping, sold
from tests.fulfillment.shop import an_order, finalize, ok, quote
from tests.provider_facts.taxjar.test_transactions import a_filing
from tests.world import Place as WorldPlace
from tests.world import World, a_world, until

WASHINGTON = Place(country="US", region="US-WA", postal_code="98101")
# gh:OCA/l10n-usa, pull request 186 and issue 198: a certificate is for a state, a time and goods.
FOOD, MUG = goods(10_000, tax_code="food.bread"), goods(10_000, tax_code="mugs")


def a_sale(*exemptions: Exemption, **change: Any) -> Sale:
    registered = (Registration(country="US", region="US-WA"),)
    facts = {"ship_from": WASHINGTON, "ship_to": WASHINGTON, "day": DAY, "home": "US", "registrations": registered}
    return Sale(**{**facts, "exemptions": exemptions, **change})


def a_certificate(**facts: Any) -> Exemption:
    return Exemption(**{"certificate": "C-1", "country": "US", **facts})


CASES = {
    "no certificate": (None, ["", ""]),
    "C12 all": (a_certificate(), ["C-1", "C-1"]),
    "C12 the state": (a_certificate(region="US-WA"), ["C-1", "C-1"]),
    "C12 expired": (a_certificate(valid_to=date(2026, 5, 31)), ["", ""]),
    "C12 the last day": (a_certificate(valid_to=DAY), ["C-1", "C-1"]),
    "C12 future": (a_certificate(valid_from=date(2026, 6, 2)), ["", ""]),
    "C12 another state": (a_certificate(region="US-TX"), ["", ""]),
    "C12 another country": (a_certificate(country="CA"), ["", ""]),
    "C12 food only": (a_certificate(tax_codes=("food",)), ["C-1", ""]),
    "C12 a longer code is another": (a_certificate(tax_codes=("foo",)), ["", ""]),
}


class TestJudgement:
    @pytest.mark.parametrize("name", CASES)
    def test_every_engine_frees_the_same_lines(self, name: str) -> None:
        certificate, expected = CASES[name]
        sale = a_sale(*([certificate] if certificate else []))

        rows = sold(sale, [FOOD, MUG], rule("8.25"))

        assert list(certificates_of(sale, [FOOD, MUG])) == expected
        assert [(row.amount, row.reason is Reason.CUSTOMER_EXEMPT) for row in rows] == [
            (0, True) if certificate else (825, False) for certificate in expected
        ]
        assert counted(sale, [FOOD, MUG], rows) == [(n, certificate) for n, certificate in enumerate(expected) if certificate]

    def test_a_certificate_frees_nothing_of_what_is_not_taxed(self) -> None:
        """No tax was due, so the certificate did not count; not collecting is the truer reason (F15)."""
        elsewhere = a_sale(a_certificate(), registrations=(Registration(country="US", region="US-TX"),), home="GB")

        for sale, of_rule, reason in (
            (elsewhere, rule("8.25"), Reason.NOT_COLLECTING),
            (a_sale(a_certificate()), rule("0", reason=Reason.PRODUCT_EXEMPT), Reason.PRODUCT_EXEMPT),
        ):
            rows = sold(sale, [MUG], of_rule)
            assert ([row.reason for row in rows], counted(sale, [MUG], rows)) == ([reason], [])

    def test_a_province_frees_from_its_own_tax_alone(self) -> None:
        """Excise Tax Act (Canada) and a province's sales tax are two laws: British Columbia's certificate leaves GST due."""
        vancouver = Place(country="CA", region="CA-BC")
        sale = a_sale(a_certificate(country="CA", region="CA-BC"), ship_from=vancouver, ship_to=vancouver, home="CA", registrations=())
        sale = msgspec.structs.replace(sale, registrations=(Registration(country="CA", region="CA-BC"),))
        taxes = (rule("5", "GST", country="CA", region="", level=Level.COUNTRY), rule("7", "PST", country="CA", region="CA-BC"))

        rows = sold(sale, [MUG], *taxes)

        assert [(row.name, row.amount) for row in rows] == [("GST", 500), ("PST", 0)]
        with pytest.raises(CertificateUnsupported):
            certificates_of(sale, [MUG])


class TestShipping:
    @pytest.mark.parametrize("mode", ["follows_goods", "always", "proportional"])
    def test_b8_an_exempt_customers_shipping_says_so(self, mode: str) -> None:
        """us_states adds both up as sold to exempt customers."""
        rows = sold(a_sale(a_certificate()), [MUG, shipping(1_000)], rule("8.25", shipping=ShippingMode(mode)))

        assert [(row.untaxed_amount, row.reason) for row in rows] == [(10_000, Reason.CUSTOMER_EXEMPT), (1_000, Reason.CUSTOMER_EXEMPT)]

    def test_b8_shipping_of_goods_that_are_freed_says_so(self) -> None:
        sale = a_sale(a_certificate(tax_codes=("food",)))

        rows = sold(sale, [FOOD, shipping(1_000)], rule("8.25", shipping=ShippingMode.FOLLOWS_GOODS))
        mixed = sold(sale, [FOOD, MUG, shipping(1_000)], rule("8.25", shipping=ShippingMode.FOLLOWS_GOODS))

        assert rows[-1].reason is Reason.CUSTOMER_EXEMPT
        assert (mixed[-1].amount, mixed[-1].reason) == (83, Reason.STANDARD_RATED)

    @pytest.mark.parametrize("mode", ["follows_goods", "never"])
    def test_f15_not_collecting_is_not_hidden(self, mode: str) -> None:
        sale = a_sale(registrations=(Registration(country="US", region="US-TX"),), home="GB")

        rows = sold(sale, [MUG, shipping(1_000)], rule("8.25", shipping=ShippingMode(mode)))

        assert {row.reason for row in rows} == {Reason.NOT_COLLECTING}

    @pytest.mark.parametrize("lines", [[FOOD, MUG], [MUG, FOOD]])
    def test_a_share_is_free_with_the_goods_that_it_carries(self, lines: list[Line]) -> None:
        """RCW 82.08.145: of a mixed shipment the share of what is exempt is not taxed, whichever line comes first."""
        rows = sold(a_sale(a_certificate(tax_codes=("food",))), [*lines, shipping(1_000)], rule("8.25", shipping=ShippingMode.PROPORTIONAL))

        of_shipping = {row.reason: (row.amount, row.untaxed_amount) for row in rows if row.line == 2}
        assert of_shipping[Reason.STANDARD_RATED][0] == 41
        assert Reason.CUSTOMER_EXEMPT in of_shipping

    @pytest.mark.parametrize(("included", "shares"), [(False, [35, 95]), (True, [31, 84])])
    def test_a19_gross_and_net_are_never_weighed_together(self, included: bool, shares: list[int]) -> None:
        """A book of 107.00 with 7 % in it and a mug of 100.00 without its 19 % are worth the same: 5.00 of net freight each, 35 and 95.

        Freight of 10.00 with its tax in it is shared as 107 to 119: 4.73 and 5.27, of which 7/107 is 31 and 19/119 is 84.
        """
        book, mug = goods(10_700, included=True, tax_code="books"), goods(10_000, tax_code="mugs")
        rules = [
            rule("7", tax_code="books", shipping=ShippingMode.PROPORTIONAL),
            rule("19", tax_code="mugs", shipping=ShippingMode.PROPORTIONAL),
            rule("19", shipping=ShippingMode.PROPORTIONAL),
        ]

        rows = sold(a_sale(), [book, mug, shipping(1_000, included=included)], *rules)

        assert [row.amount for row in rows if row.line == 2] == shares


GROCERY = Line(amount=1_000, tax_code="40030.bread")
CUP = Line(amount=4_990, quantity=2)


class TestRequests:
    """TaxJar exempts an order or a customer, and a line by its category alone; AvaTax a document or a line by any number."""

    def test_a_certificate_for_all_frees_the_order(self) -> None:
        sale = asked(CUP, FREIGHT, exemptions=(a_certificate(region="US-WA"),))

        body = order_body(sale)
        said = transaction_body(sale, company_code="T")

        assert (body["exemption_type"], body["shipping"], [line.get("product_tax_code") for line in body["line_items"]]) == (
            "other",
            7.95,
            [None],
        )
        assert (said["exemptionNo"], [line.get("exemptionCode") for line in said["lines"]]) == ("C-1", [None, None])

    @pytest.mark.parametrize("facts", [{"region": "US-TX"}, {"valid_to": date(2026, 10, 31)}, {"valid_from": date(2026, 11, 2)}])
    def test_c13_one_that_does_not_hold_is_not_sent(self, facts: dict[str, Any]) -> None:
        sale = asked(CUP, FREIGHT, exemptions=(a_certificate(**facts),))

        assert "exemption_type" not in order_body(sale)
        assert "exemptionNo" not in transaction_body(sale, company_code="T")

    def test_one_for_some_goods_frees_their_lines(self) -> None:
        sale = asked(GROCERY, CUP, FREIGHT, exemptions=(a_certificate(tax_codes=("40030",)),))

        body = order_body(sale)
        said = transaction_body(sale, company_code="T")

        assert "exemption_type" not in body
        # GET /v2/categories: "Other Exempt: Item is exempt" (taxjar-ruby, spec/fixtures/categories.json).
        assert [line.get("product_tax_code") for line in body["line_items"]] == ["99999", None]
        assert "exemptionNo" not in said
        # developer.avalara.com, exempt transactions: "at the document and line level".
        assert [line.get("exemptionCode") for line in said["lines"]] == ["C-1", None, None]

    def test_shipping_that_alone_is_free_is_not_asked_about(self) -> None:
        assert order_body(asked(CUP, FREIGHT, exemptions=(a_certificate(tax_codes=("shipping",)),)))["shipping"] == 0

    @pytest.mark.parametrize("kind", ["sale", "reversal"])
    def test_what_is_filed_agrees(self, kind: str) -> None:
        """A reversal of the freed line alone is no exempt order: its sale was none."""
        filing = a_filing(lines=(FiledLine(line=0, net_amount=1_000, tax_amount=0, tax_code="40030"),), kind=kind, reverses=new_id())
        parties = msgspec.structs.replace(filing.parties, certificates={"0": "C-1"})
        filing = msgspec.structs.replace(filing, parties=parties)

        body, said = filed_body(filing), invoice_body(filing, company_code="T")

        assert ("exemption_type" in body, body["line_items"][0]["product_tax_code"]) == (False, "99999")
        assert ("exemptionNo" in said, said["lines"][0]["exemptionCode"]) == (False, "C-1")

    def test_what_is_filed_of_a_free_sale_agrees(self) -> None:
        filing: TaxFiling = a_filing(exempt=True, tax=0)
        filing = msgspec.structs.replace(
            filing, parties=msgspec.structs.replace(filing.parties, certificates={"0": "C-1", "shipping": "C-1"})
        )

        assert filed_body(filing)["exemption_type"] == "other"
        assert invoice_body(filing, company_code="T")["exemptionNo"] == "C-1"


TODAY = datetime.now(UTC).date()
# mug 100.00 to Seattle, of 6.5 and 3.85 %: 10.35 (the sandbox's rates).
CHINA = {**ITEM, "quantity": 1, "unit_price": 10_000}
BREAD = {**CHINA, "unit_price": 2_000, "tax_code": "20010.bread"}


@pytest.fixture(scope="module", params=["built_in", "taxjar", "avalara"])
async def store(request: pytest.FixtureRequest, place: WorldPlace) -> AsyncIterator[World]:
    """A shop in New Jersey that collects Washington's tax by one of the engines."""
    async with a_world(place, fulfillment={"file_every_seconds": 0.1}) as world:
        await shop.set_up(world, tax_provider=request.param, home_country="US", ship_from=RAMSEY)
        for name, percent, level in (("state", "6.5", "state"), ("city", "3.85", "city")):
            body = shop.a_rule("US", name, percent, region="US-WA", level=level, shipping="proportional")
            await ok(await world.send("POST", "/api/v1/admin/tax/rules", body))
        await ok(await world.send("POST", "/api/v1/admin/tax/nexus", {"country": "US", "region": "US-WA", "valid_from": shop.SINCE}))
        yield world


async def a_customer(world: World, **facts: Any) -> str:
    customer = str(new_id())
    body = {"customer_id": customer, "certificate": "R-77", "country": "US", "valid_from": shop.SINCE, **facts}
    await ok(await world.send("POST", "/api/v1/admin/tax/exemptions", body))
    return customer


def yesterday() -> str:
    return str(TODAY - timedelta(days=1))


@pytest.mark.parametrize(
    ("facts", "tax", "evidence"),
    [
        pytest.param({"region": "US-WA", "valid_to": yesterday()}, 1_242, None, id="C13 G11 expired"),
        pytest.param({"region": "US-WA", "valid_from": str(TODAY + timedelta(days=2))}, 1_242, None, id="C13 G11 future"),
        pytest.param({"region": "US-TX"}, 1_242, None, id="C13 G11 Texas"),
        pytest.param({"country": "CA"}, 1_242, None, id="C13 G11 another country"),
        pytest.param({"tax_codes": ["20010"]}, 1_035, ["R-77"], id="C13 food only"),
        pytest.param({"region": "US-WA"}, 0, ["R-77"], id="C13 Washington"),
    ],
)
async def test_a_certificate_counts_or_not_by_every_engine(store: World, facts: dict[str, Any], tax: int, evidence: Any) -> None:
    customer = await a_customer(store, **facts)
    order = {"currency": "USD", "items": [CHINA, BREAD], "shipping_amount": 0, "shipping_address": SEATTLE, "customer_id": customer}
    order_id = await an_order(store, **order)
    snapshot = await ok(await quote(store, order_id))
    recorded = await ok(await finalize(store, order_id, snapshot["snapshot_id"]))

    assert snapshot["totals"]["tax_exclusive"] == tax
    assert recorded["evidence"].get("certificates") == evidence
    freed = {line["line"] for line in recorded["lines"] if line["reason"] == "customer_exempt"}
    assert freed == (set() if evidence is None else {1} if "tax_codes" in facts else {0, 1})
    if recorded["provider"] != "built_in":
        await _filed_as_charged(store, UUID(recorded["id"]), tax, freed)


async def _filed_as_charged(world: World, document_id: UUID, tax: int, freed: set[int]) -> None:
    async def there() -> Any:
        return world.sandbox.taxes.documents.get(str(document_id))

    document = await until(there)
    assert round(float(document.tax) * 100) == tax
    if document.face == "taxjar":
        assert document.facts["exemption_type"] == ("other" if len(freed) == 2 else None)
        codes = [line["product_tax_code"] for line in document.facts["line_items"]]
        assert codes == [None, "99999" if freed == {1} else "20010.bread"]
    else:
        assert [line["exemptAmount"] > 0 for line in document.facts["lines"]] == [n in freed for n in range(2)]
