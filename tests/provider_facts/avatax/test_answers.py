"""What AvaTax works out, and how it refuses: recorded answers, by the simulation and the adapter alike."""

from typing import Any

import httpx
import pytest

from deploy.sandbox.faces import tax_rates
from services.fulfillment.domain.tax.engine import Kind
from services.fulfillment.domain.tax.engine import Line as Sold
from services.fulfillment.domain.tax.sale import Exemption
from services.fulfillment.providers.avalara import ANSWERS, FREIGHT, Avalara, rows_from
from services.fulfillment.providers.taxjar import TaxRefused
from shared.http_client import Answer
from tests.fulfillment.engines.test_providers import GOODS, SEATTLE, asked
from tests.provider_facts.avatax.answers import DOC_STATUS, ERRORS, LINES, PENNSYLVANIA, READ, TRANSACTION, ZIP_INVALID
from tests.provider_facts.avatax.conftest import CREATE, TRANSACTIONS, a_transaction
from tests.provider_facts.shapes import lacking, unlike

EXEMPT = Exemption(certificate="WA-1", country="US")


@pytest.fixture
def pennsylvania(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the tax office know the rates of the recorded answers."""
    monkeypatch.setitem(tax_rates.RATES, "PA", PENNSYLVANIA)


class TestArithmetic:
    @pytest.mark.parametrize("name", LINES)
    async def test_simulation_answers_as_recorded(self, http: httpx.AsyncClient, pennsylvania: None, name: str) -> None:
        fact = LINES[name]

        said = (await http.post(CREATE, json=a_transaction({"amount": fact.amount, "taxIncluded": fact.included}))).json()

        [line] = said["lines"]
        assert [(each["jurisType"], each["rate"], each["tax"]) for each in line["details"]] == fact.details
        assert (line["lineAmount"], line["taxableAmount"], line["tax"]) == (fact.line_amount, fact.line_amount, fact.tax)
        assert (said["totalAmount"], said["totalTax"], said["totalTaxable"]) == (fact.line_amount, fact.tax, fact.line_amount)

    @pytest.mark.parametrize("name", LINES)
    async def test_adapter_reads_each_part(self, http: httpx.AsyncClient, pennsylvania: None, name: str) -> None:
        fact = LINES[name]
        said = (await http.post(CREATE, json=a_transaction({"amount": fact.amount, "taxIncluded": fact.included}))).json()

        rows = rows_from(said, asked(Sold(amount=round(fact.amount * 100), included=fact.included)))

        assert [(row.level.value, row.amount) for row in rows] == [
            ("state" if juris == "STA" else "county", round(tax * 100)) for juris, _, tax in fact.details
        ]

    @pytest.mark.parametrize(
        ("region", "code", "change", "reason"),
        [
            ("WA", "PC040100", {"exemptionNo": "WA-1"}, "exemptAmount"),
            ("WA", "PF050000", {}, "nonTaxableAmount"),
            # FR020100: shipping by a carrier; its tax follows the state.
            ("CA", FREIGHT, {}, "nonTaxableAmount"),
            ("OR", "P0000000", {}, "nonTaxableAmount"),
        ],
        ids=["a certificate", "food", "freight", "no nexus"],
    )
    async def test_what_is_not_taxed_is_said_by_part(
        self, http: httpx.AsyncClient, region: str, code: str, change: dict[str, str], reason: str
    ) -> None:
        """recorded: exemptAmount of a line and totalExempt count all of it; its details say why."""
        to = {"line1": "1 Main St", "city": "Anywhere", "region": region, "country": "US"}

        said = (
            await http.post(CREATE, json=a_transaction({"amount": 10, "taxCode": code}, addresses={"singleLocation": to}, **change))
        ).json()

        [line] = said["lines"]
        assert (said["totalExempt"], line["exemptAmount"], line["taxableAmount"], line["tax"], line["isItemTaxable"]) == (
            10,
            10,
            0,
            0,
            False,
        )
        assert {(each["exemptAmount"], each["nonTaxableAmount"]) for each in line["details"]} == {
            (10.0, 0.0) if reason == "exemptAmount" else (0.0, 10.0)
        }


class TestRead:
    @pytest.mark.parametrize("name", READ)
    @pytest.mark.parametrize("exemptions", [(), (EXEMPT,)], ids=["no certificate", "a certificate"])
    def test_adapter_reads_a_recorded_line(self, name: str, exemptions: tuple[Exemption, ...]) -> None:
        line, expected, reason = READ[name]
        sold = Sold(amount=round(line["lineAmount"] * 100), kind=Kind.GOODS)

        rows = rows_from({"lines": [line]}, asked(sold, exemptions=exemptions))

        assert [(row.level.value, row.name, row.region, f"{row.rate_percent:f}", row.amount) for row in rows] == expected
        assert {row.reason.value for row in rows} == {reason}

    async def test_simulation_answers_in_the_recorded_shape(self, http: httpx.AsyncClient) -> None:
        for change in ({}, {"type": "SalesInvoice", "commit": True}):
            said = (await http.post(CREATE, json=a_transaction({"amount": 10.0, "taxCode": "P0000000"}, **change))).json()

            assert unlike(said, TRANSACTION) + lacking(said, TRANSACTION) == []


class TestErrors:
    @pytest.mark.parametrize("name", ERRORS)
    def test_adapter_classifies(self, name: str) -> None:
        status, body, meaning = ERRORS[name]
        answer = Answer(status=status, body=body, headers={})

        found = "absent" if ANSWERS.says_absent(answer) else "unknown" if ANSWERS.refusal(answer) is None else "refused"

        assert found == meaning

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("no line", {"lines": []}),
            ("too long", {"lines": [{"number": "0", "amount": 10, "taxCode": "x" * 26}]}),
            ("ZIP", {"addresses": {"singleLocation": {"region": "WA", "country": "US", "postalCode": "10001"}}}),
        ],
    )
    async def test_simulation_refuses(self, http: httpx.AsyncClient, name: str, change: dict[str, Any]) -> None:
        status, expected, _ = ERRORS[name]

        answer = await http.post(CREATE, json=a_transaction({"amount": 10}, **change))

        assert answer.status_code == status
        assert self.brief(answer.json()) == self.brief(expected)

    async def test_simulation_says_what_is_not_there(self, http: httpx.AsyncClient) -> None:
        answer = await http.get(f"{TRANSACTIONS}/none")

        assert (answer.status_code, self.brief(answer.json())) == (404, self.brief(ERRORS["not there"][1]))

    async def test_adapter_says_why_it_was_refused(self, adapter: Avalara) -> None:
        with pytest.raises(TaxRefused, match=ZIP_INVALID):
            await adapter.quote(asked(GOODS, address={**SEATTLE, "postal_code": "10001"}))

    async def test_a_committed_document_is_not_replaced(self, http: httpx.AsyncClient) -> None:
        body = a_transaction({"amount": 10}, type="SalesInvoice", commit=True, code="committed-1")
        assert (await http.post(CREATE, json=body)).status_code == 201

        again = await http.post(CREATE, json=body)

        assert (again.status_code, self.brief(again.json())) == (400, self.brief(ERRORS["committed"][1]))
        assert again.json()["error"]["message"] == DOC_STATUS

    @staticmethod
    def brief(body: dict[str, Any]) -> tuple[Any, ...]:
        [detail] = body["error"]["details"]
        assert detail.keys() == ERRORS["ZIP"][1]["error"]["details"][0].keys()
        return body["error"]["code"], body["error"]["message"], *(detail[name] for name in ("code", "number", "faultCode", "helpLink"))
