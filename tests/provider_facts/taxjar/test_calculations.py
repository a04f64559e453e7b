"""What TaxJar works out and refuses to (developers.taxjar.com, calculate sales tax): the simulation answers so, the adapter reads it so."""

from decimal import Decimal
from typing import Any

import httpx
import pytest

from deploy.sandbox.faces import tax_rates
from services.fulfillment.domain.tax.engine import Kind, Line
from services.fulfillment.domain.tax.rules import SHIPPING_CODE, Place, Reason
from services.fulfillment.domain.tax.sale import Exemption
from services.fulfillment.providers.taxjar import ANSWERS, TaxJar, TaxRefused, order_body, rows_from
from shared.provider_answers import IndeterminateResponse
from tests.fulfillment.engines.test_providers import FREIGHT, GOODS, PORTLAND, SEATTLE, asked
from tests.provider_facts.shapes import lacking, unlike
from tests.provider_facts.taxjar.calculations import CALCULATIONS, NO_NEXUS, PARTS, RECORDED, Calculation
from tests.provider_facts.taxjar.conftest import error_of

NEW_YORK: dict[str, Any] = {
    "to_country": "US",
    "to_zip": "11430",
    "to_state": "NY",
    "shipping": 100,
    "line_items": [{"id": "1", "unit_price": 10}],
}
# Each parameter that may be sent, of the request and of a line; what is required ("conditional" for the United States).
PARAMETERS = {
    *("from_country", "from_zip", "from_state", "from_city", "from_street", "to_country", "to_zip", "to_state", "to_city", "to_street"),
    *("amount", "shipping", "customer_id", "exemption_type", "nexus_addresses", "line_items"),
}
OF_LINES = {"id", "quantity", "product_tax_code", "unit_price", "discount"}
REQUIRED = {"to_country", "to_zip", "to_state", "shipping"}
# What is changed in a request, and the error: its status, name, and detail where one is known.
REFUSED: dict[str, tuple[dict[str, Any], tuple[int, str, str]]] = {
    "no country": ({"to_country": ""}, (406, "Not Acceptable", "to_country is missing")),
    "no shipping": ({"shipping": None}, (406, "Not Acceptable", "shipping is missing")),
    "no ZIP": ({"to_zip": ""}, (406, "Not Acceptable", "to_zip is missing")),
    "no state": ({"to_state": ""}, (406, "Not Acceptable", "to_state is missing")),
    # recorded, 2023-12-15.
    "a ZIP of another state": ({"to_zip": "99999"}, (400, "Bad Request", "to_zip 99999 is not used within to_state NY")),
}


def request_of(fact: Calculation) -> dict[str, Any]:
    lines = [{"id": str(n), "quantity": 1, "unit_price": price} for n, price in enumerate(fact.prices)]
    return {**fact.address, "shipping": fact.shipping, "line_items": lines}


def sale_of(fact: Calculation) -> Any:
    lines = [Line(amount=round(price * 100)) for price in fact.prices]
    shipping = Line(amount=round(fact.shipping * 100), tax_code=SHIPPING_CODE, kind=Kind.SHIPPING)
    country, state = fact.address["to_country"], fact.address["to_state"]
    currency = {"CA": "CAD", "FR": "EUR", "FI": "EUR", "AU": "AUD"}.get(country, "USD")
    return asked(*lines, shipping, place=Place(country=country, region=state and f"{country}-{state}"), currency=currency)


@pytest.fixture
def fact(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Calculation:
    """A calculation whose rates the simulation has."""
    found = CALCULATIONS[request.param]
    if found.address["to_country"] == "US":
        monkeypatch.setitem(tax_rates.RATES, found.address["to_state"], found.rates)
    return found


class TestArithmetic:
    @pytest.mark.parametrize("fact", CALCULATIONS, indirect=True)
    async def test_simulation_answers_as_published(self, http: httpx.AsyncClient, fact: Calculation) -> None:
        parts = PARTS[len(fact.rates)]

        tax = (await http.post("/v2/taxes", json=request_of(fact))).json()["tax"]

        shown = [(line["tax_collectable"], [line[part] for part in parts]) for line in tax["breakdown"]["line_items"]]
        freight = tax["breakdown"].get("shipping")
        assert tax["amount_to_collect"] == tax["breakdown"]["tax_collectable"] == fact.amount_to_collect
        assert shown == fact.lines
        assert (freight and (freight["tax_collectable"], [freight[part] for part in parts])) == fact.of_shipping
        assert tax["freight_taxable"] is (fact.of_shipping is not None)

    @pytest.mark.parametrize("fact", CALCULATIONS, indirect=True)
    async def test_adapter_reads_what_is_collected(self, http: httpx.AsyncClient, fact: Calculation) -> None:
        tax = (await http.post("/v2/taxes", json=request_of(fact))).json()["tax"]

        rows = rows_from(tax, sale_of(fact))

        collected = [round(each * 100) for each in (*(tax for tax, _ in fact.lines), fact.of_shipping[0] if fact.of_shipping else 0)]
        # What is to be collected in all counts, where the lines are a cent off.
        collected[-1] += round(fact.amount_to_collect * 100) - sum(collected)
        assert [sum(row.amount for row in rows if row.line == n) for n in range(len(collected))] == collected
        percent = sum(map(Decimal, fact.rates)) * 100
        assert sum(row.rate_percent for row in rows if row.line == 0) == percent

    def test_untaxed_freight_is_left_out_of_the_breakdown(self) -> None:
        line = {**RECORDED["breakdown"]["line_items"][0], "id": "0"}
        tax = {**RECORDED, "amount_to_collect": 0.89, "freight_taxable": False, "breakdown": {"line_items": [line]}}

        rows = rows_from(tax, asked(Line(amount=1_000), FREIGHT))

        assert [(row.line, row.amount, row.untaxed_amount) for row in rows][-1] == (1, 0, 795)

    @pytest.mark.parametrize(
        "breakdown", [None, {}, {"line_items": []}, {"line_items": [{**RECORDED["breakdown"]["line_items"][0], "id": "0"}]}]
    )
    def test_adapter_takes_no_missing_line_for_untaxed(self, breakdown: Any) -> None:
        """Without line items "no breakdown is returned", though tax is collected."""
        with pytest.raises(IndeterminateResponse, match="missing"), ANSWERS.reading():
            rows_from({**RECORDED, "breakdown": breakdown}, asked(Line(amount=1_000), FREIGHT))


class TestShape:
    async def test_simulation_answers_in_the_recorded_shape(self, http: httpx.AsyncClient) -> None:
        tax = (await http.post("/v2/taxes", json=NEW_YORK)).json()["tax"]

        assert unlike(tax, RECORDED) + lacking(tax, RECORDED) == []

    async def test_simulation_answers_so_without_nexus(self, http: httpx.AsyncClient, adapter: TaxJar) -> None:
        body = {**NEW_YORK, "to_zip": "97035", "to_state": "OR"}

        assert (await http.post("/v2/taxes", json=body)).json() == {"tax": NO_NEXUS}
        assert {row.reason for row in await adapter.quote(asked(GOODS, address=PORTLAND, place=Place(country="US", region="US-OR")))} == {
            Reason.NOT_COLLECTING
        }

    @pytest.mark.parametrize(
        ("kind", "collects"), [("wholesale", False), ("government", False), ("other", False), ("marketplace", True), ("non_exempt", True)]
    )
    async def test_a_kind_of_exemption_frees_an_order_or_not(self, http: httpx.AsyncClient, kind: str, collects: bool) -> None:
        """It is answered only where it was sent."""
        tax = (await http.post("/v2/taxes", json={**NEW_YORK, "exemption_type": kind})).json()["tax"]
        unnamed = (await http.post("/v2/taxes", json=NEW_YORK)).json()["tax"]

        assert (tax["exemption_type"], tax["amount_to_collect"] > 0) == (kind, collects)
        assert "exemption_type" not in unnamed
        [row] = rows_from({**RECORDED, "exemption_type": kind, "breakdown": None, "amount_to_collect": 0}, asked(Line(amount=1_000)))
        assert (row.reason is Reason.CUSTOMER_EXEMPT) is not collects


class TestRequests:
    @pytest.mark.parametrize("exemptions", [(), (Exemption(certificate="WA-1", country="US"),)], ids=["taxed", "exempt"])
    def test_adapter_sends_documented_parameters(self, exemptions: tuple[Exemption, ...]) -> None:
        body = order_body(asked(GOODS, FREIGHT, exemptions=exemptions))

        assert body.keys() - PARAMETERS == set()
        assert {name for name in REQUIRED if body.get(name) in (None, "")} == set()
        assert {name for line in body["line_items"] for name in line} - OF_LINES == set()
        assert body.get("exemption_type") == ("other" if exemptions else None)
        # Prices of lines are without their tax, and shipping is no line.
        assert (body["shipping"], sum(line["unit_price"] * line["quantity"] for line in body["line_items"])) == (7.95, 49.9)

    @pytest.mark.parametrize("name", REFUSED)
    async def test_simulation_refuses(self, http: httpx.AsyncClient, name: str) -> None:
        change, expected = REFUSED[name]

        assert error_of(await http.post("/v2/taxes", json={**NEW_YORK, **change})) == expected

    @pytest.mark.parametrize(
        ("change", "detail"),
        [({"postal_code": ""}, "to_zip is missing"), ({"postal_code": "99999"}, "to_zip 99999 is not used within to_state WA")],
    )
    async def test_adapter_says_why_it_was_refused(self, adapter: TaxJar, change: dict[str, str], detail: str) -> None:
        with pytest.raises(TaxRefused, match=detail):
            await adapter.quote(asked(GOODS, address={**SEATTLE, **change}))
