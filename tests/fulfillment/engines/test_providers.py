"""TaxJar and AvaTax: published answers taken as they are, and quotes through them."""

from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from deploy.sandbox.server import Sandbox
from services.fulfillment.domain.tax.engine import Kind, Line, Row
from services.fulfillment.domain.tax.rules import SHIPPING_CODE, Place
from services.fulfillment.domain.tax.sale import Exemption, Sale
from services.fulfillment.providers import TaxRequest, Unsupported
from services.fulfillment.providers.avalara import Avalara, transaction_body
from services.fulfillment.providers.avalara import rows_from as rows_from_avalara
from services.fulfillment.providers.taxjar import TaxJar, TaxRefused, order_body
from services.fulfillment.providers.taxjar import rows_from as rows_from_taxjar
from shared.contracts.orders import Address, OrderContent
from shared.ids import new_id
from shared.money import TooManyDecimals
from shared.provider_answers import IndeterminateResponse
from tests.fulfillment import shop
from tests.fulfillment.shop import an_order, finalize, ok, quote
from tests.world import SANDBOX_KEY, a_sandbox, a_world
from tests.world import Place as WorldPlace

SEATTLE = {
    "name": "J",
    "street_address": "415 Pine St",
    "city": "Seattle",
    "country_area": "WA",
    "postal_code": "98101",
    "country_code": "US",
}
RAMSEY = {**SEATTLE, "country_area": "NJ", "postal_code": "07446", "city": "Ramsey"}
PORTLAND = {**SEATTLE, "city": "Portland", "country_area": "OR", "postal_code": "97201"}
ITEM: dict[str, Any] = {"product_variant_id": str(new_id()), "name": "Mug", "quantity": 2, "unit_price": 2495}


def asked(*lines: Line, place: Place | None = None, address: Any = SEATTLE, currency: str = "USD", **sale: Any) -> TaxRequest:
    here = Place(country="US", region="US-NJ", postal_code="07446")
    return TaxRequest(
        sale=Sale(ship_from=here, ship_to=place or Place(country="US", region="US-WA"), day=date(2026, 11, 1), home="US", **sale),
        lines=lines,
        rules=(),
        content=msgspec.convert({"currency": currency, "items": [ITEM], "shipping_address": address}, OrderContent),
        ship_from=msgspec.convert(RAMSEY, Address),
        reference=new_id(),
    )


GOODS, FREIGHT = Line(amount=4_990, quantity=2), Line(amount=795, tax_code=SHIPPING_CODE, kind=Kind.SHIPPING)


def told(rows: list[Row]) -> list[tuple[int, str, str, int]]:
    return [(row.line, row.name, f"{row.rate_percent:f}", row.amount) for row in rows]


class TestPublishedAnswersOfTaxJar:
    def test_a_line_with_its_state(self) -> None:
        # taxjar-ruby, spec/fixtures/taxes.json.
        line = {
            "id": "0",
            "taxable_amount": 15,
            "tax_collectable": 1.05,
            "combined_tax_rate": 0.07,
            "state_taxable_amount": 15,
            "state_sales_tax_rate": 0.07,
            "state_amount": 1.05,
            "county_taxable_amount": 0,
            "county_tax_rate": 0,
            "county_amount": 0,
        }
        shipping = {
            "taxable_amount": 1.5,
            "tax_collectable": 0.11,
            "state_taxable_amount": 1.5,
            "state_sales_tax_rate": 0.07,
            "state_amount": 0.11,
        }
        tax = {"has_nexus": True, "exemption_type": "non_exempt", "breakdown": {"line_items": [line], "shipping": shipping}}
        goods, freight = Line(amount=1_500), Line(amount=150, kind=Kind.SHIPPING)

        rows = rows_from_taxjar(tax, asked(goods, freight, place=Place(country="US", region="US-NJ")))

        assert told(rows) == [(0, "state", "7", 105), (1, "state", "7", 11)]

    def test_parts_that_do_not_add_up_are_one(self) -> None:
        # taxes_canada.json: GST 0.85 and PST 1.36 are 2.21, and 2.20 is collected. What is collected counts.
        line = {
            "id": "0",
            "taxable_amount": 16.95,
            "tax_collectable": 2.2,
            "gst_taxable_amount": 16.95,
            "gst_tax_rate": 0.05,
            "gst": 0.85,
            "pst_taxable_amount": 16.95,
            "pst_tax_rate": 0.08,
            "pst": 1.36,
            "qst_taxable_amount": 0,
            "qst_tax_rate": 0,
            "qst": 0,
        }
        tax = {"has_nexus": True, "breakdown": {"line_items": [line]}}

        rows = rows_from_taxjar(tax, asked(Line(amount=1_695), place=Place(country="CA", region="CA-ON"), currency="CAD"))

        assert told(rows) == [(0, "combined", "13", 220)]

    def test_elsewhere(self) -> None:
        # taxes_international.json.
        line = {"id": "0", "taxable_amount": 16.95, "tax_collectable": 4.07, "country_taxable_amount": 16.95, "country_tax_rate": 0.24}
        tax = {"has_nexus": True, "breakdown": {"line_items": [{**line, "country_tax_collectable": 4.07}]}}

        rows = rows_from_taxjar(tax, asked(Line(amount=1_695), place=Place(country="FI"), currency="EUR"))

        assert told(rows) == [(0, "country", "24", 407)]

    def test_without_nexus_nothing_is_collected_and_it_is_said(self) -> None:
        rows = rows_from_taxjar({"has_nexus": False}, asked(GOODS, FREIGHT))

        assert [(row.amount, row.reason.value) for row in rows] == [(0, "not_collecting"), (0, "not_collecting")]

    def test_an_amount_finer_than_the_currency_is_nobodys_to_round(self) -> None:
        tax = {"has_nexus": True, "breakdown": {"line_items": [{"id": "0", "tax_collectable": 1.055}]}}

        with pytest.raises(TooManyDecimals, match=r"1\.055"):
            rows_from_taxjar(tax, asked(GOODS))

    def test_prices_that_hold_their_tax_are_unknown_to_it(self) -> None:
        with pytest.raises(Unsupported):
            order_body(asked(Line(amount=100, included=True)))


class TestAnswersOfAvaTax:
    def test_163_75_at_9_25_percent_stays_what_they_say(self) -> None:
        # OCA account-fiscal-rule #313: AvaTax says 15.14 where a sum of our own would say 15.15.
        place = {"country": "US", "region": "CA", "taxableAmount": 163.75}
        details = [
            {**place, "jurisType": "State", "taxName": "CA STATE TAX", "rate": 0.0725, "tax": 11.87},
            {**place, "jurisType": "County", "taxName": "CA COUNTY TAX", "rate": 0.02, "tax": 3.27},
        ]
        answer = {"lines": [{"lineNumber": "0", "tax": 15.14, "taxableAmount": 163.75, "exemptAmount": 0, "details": details}]}

        rows = rows_from_avalara(answer, asked(Line(amount=16_375), place=Place(country="US", region="US-CA")))

        assert told(rows) == [(0, "CA STATE TAX", "7.25", 1_187), (0, "CA COUNTY TAX", "2", 327)]

    def test_a_rate_without_anything_taxed_is_not_counted(self) -> None:
        # saleor PR #17252: the sum of all rates said 11 % where 5 % was charged.
        details = [
            {"jurisType": "State", "taxName": "A", "rate": 0.06, "tax": 0, "taxableAmount": 0},
            {"jurisType": "County", "taxName": "B", "rate": 0.05, "tax": 5.0, "taxableAmount": 100},
        ]
        answer = {"lines": [{"lineNumber": "0", "tax": 5.0, "taxableAmount": 100, "details": details}]}

        assert told(rows_from_avalara(answer, asked(Line(amount=10_000)))) == [(0, "B", "5", 500)]

    def test_what_is_asked(self) -> None:
        certificate = Exemption(certificate="WA-1", country="US")

        body = transaction_body(asked(GOODS, FREIGHT, exemptions=(certificate,)), company_code="TENDER")

        assert (body["type"], body["companyCode"], body["exemptionNo"]) == ("SalesOrder", "TENDER", "WA-1")
        assert body["addresses"]["shipTo"] == {
            "line1": "415 Pine St",
            "city": "Seattle",
            "region": "WA",
            "country": "US",
            "postalCode": "98101",
        }
        assert [(line["number"], line["amount"]) for line in body["lines"]] == [("0", 49.9), ("1", 7.95)]
        assert [line.get("taxCode") for line in body["lines"]] == [None, "FR020100"]


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with a_sandbox() as made:
        yield made


class TestTheAdapters:
    @pytest.fixture(params=["taxjar", "avalara"])
    async def engine(self, request: pytest.FixtureRequest, sandbox: Sandbox) -> AsyncIterator[TaxJar | Avalara]:
        made: TaxJar | Avalara = (
            TaxJar(base_url=sandbox.base_url, api_key=SANDBOX_KEY, timeout_seconds=0.5)
            if request.param == "taxjar"
            else Avalara(
                base_url=sandbox.base_url, account_id="sandbox", license_key=SANDBOX_KEY, company_code="TENDER", timeout_seconds=0.5
            )
        )
        yield made
        await made.close()

    async def test_rows_add_up_to_what_is_collected(self, engine: TaxJar | Avalara) -> None:
        # TaxJar rounds a line's tax by itself, 0.52 and 0.31 to 0.82, and asks for 5.99 in all: shipping bears the cent, as its parts do.
        rows = await engine.quote(asked(GOODS, FREIGHT))

        assert [(row.line, row.rate_percent, row.amount) for row in rows] == [
            (0, Decimal("6.5"), 324),
            (0, Decimal("3.85"), 192),
            (1, Decimal("6.5"), 52),
            (1, Decimal("3.85"), 31),
        ]
        assert {row.rule_version for row in rows} == {engine.name}

    async def test_a_wrong_key_proves_nothing(self, sandbox: Sandbox) -> None:
        for engine in (
            TaxJar(base_url=sandbox.base_url, api_key="wrong", timeout_seconds=0.5),
            Avalara(base_url=sandbox.base_url, account_id="a", license_key="wrong", company_code="T", timeout_seconds=0.5),
        ):
            with pytest.raises(IndeterminateResponse, match="401"):
                await engine.quote(asked(GOODS))
            await engine.close()

    async def test_what_they_refuse_is_refused(self, sandbox: Sandbox) -> None:
        engine = TaxJar(base_url=sandbox.base_url, api_key=SANDBOX_KEY, timeout_seconds=0.5)

        with pytest.raises(TaxRefused, match="to_zip"):
            await engine.quote(asked(GOODS, address={**SEATTLE, "postal_code": ""}))
        await engine.close()


class TestThroughTheSystem:
    @pytest.mark.parametrize(("engine", "tax"), [("taxjar", 599), ("avalara", 599)])
    async def test_quoted_and_finalized_as_given(self, own_place: WorldPlace, engine: str, tax: int) -> None:
        order = {"currency": "USD", "items": [ITEM], "shipping_amount": 795}
        async with a_world(own_place, fulfillment={"tax_timeout_seconds": 0.5}) as world:
            await shop.set_up(world, tax_provider=engine, home_country="US", ship_from=RAMSEY)
            order_id = await an_order(world, **order, shipping_address=SEATTLE)
            snapshot = await ok(await quote(world, order_id))
            recorded = await ok(await finalize(world, order_id, snapshot["snapshot_id"], tax_hash=snapshot["tax_hash"]))
            silent = await quote(world, await an_order(world, **order, shipping_address={**SEATTLE, "city": "Silent Hill"}))
            nowhere = await ok(await quote(world, await an_order(world, **order, shipping_address=PORTLAND)))

        assert (snapshot["totals"]["tax_exclusive"], snapshot["totals"]["total"]) == (tax, 4_990 + 795 + tax)
        assert (recorded["provider"], recorded["tax_amount"]) == (engine, tax)
        # A tax is refused rather than guessed, and it is said why; the same key may be tried again.
        assert (silent.status, silent.code, silent.json["retry"]) == (503, "tax-unavailable", "after")
        assert nowhere["totals"]["tax_exclusive"] == 0
