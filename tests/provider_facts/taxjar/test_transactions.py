"""What TaxJar records (developers.taxjar.com, transactions): the simulation keeps it so, the adapter writes and reads it so."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from deploy.sandbox.server import Sandbox
from services.fulfillment.providers.tax_books import FiledLine, TaxFiling, TaxParties, TaxRefusedForGood
from services.fulfillment.providers.taxjar import TaxJar, filed_body
from shared.contracts.orders import Address
from shared.ids import new_id
from tests.fulfillment.engines.test_providers import RAMSEY, SEATTLE
from tests.provider_facts.shapes import lacking, unlike
from tests.provider_facts.taxjar.conftest import error_of

DAY = datetime(2026, 11, 30, 12, 0, 0, 123456, tzinfo=UTC)
# Each parameter that may be sent, and those that must not be blank ("a 406 response will be returned").
PARAMETERS = {
    *("transaction_id", "transaction_reference_id", "transaction_date", "provider", "amount", "shipping", "sales_tax", "customer_id"),
    *("from_country", "from_zip", "from_state", "from_city", "from_street", "to_country", "to_zip", "to_state", "to_city", "to_street"),
    *("exemption_type", "line_items"),
}
OF_LINES = {"id", "quantity", "product_identifier", "description", "product_tax_code", "unit_price", "discount", "sales_tax"}
REQUIRED = ("transaction_id", "transaction_date", "to_country", "to_zip", "to_state", "amount", "shipping", "sales_tax")
# "may be a date, an ISO UTC date/time, or an ISO date/time with zone offset"; "only alphanumeric characters, underscores, and dashes".
DATES = {
    "2015-05-25": "2015-05-25T00:00:00.000Z",
    "2015/05/14": "2015-05-14T00:00:00.000Z",
    "2015-05-25T13:05:45": "2015-05-25T13:05:45.000Z",
    "2015-05-25T13:05:45-05:00": "2015-05-25T18:05:45.000Z",
    "2022-04-13T18:19:21Z": "2022-04-13T18:19:21.000Z",
}
DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)?)?")
# In cents: numbers of JSON, written and read without loss.
LARGE = [1, 2**31, 10**15 - 1, 10**15]
NAME = re.compile(r"[A-Za-z0-9_-]+")
# recorded, 2024-01-26, whole; an order's has the same fields, and no reference.
RECORDED: dict[str, Any] = {
    "user_id": 345723,
    "transaction_reference_id": "R925733488",
    "transaction_id": "R925733488-REFUND",
    "transaction_date": "2024-01-26T21:12:59.000Z",
    "to_zip": "11430",
    "to_street": "A Different Road",
    "to_state": "NY",
    "to_country": "US",
    "to_city": "HERNDON",
    "shipping": "-0.0",
    "sales_tax": "-3.56",
    "provider": "api",
    "line_items": [
        {
            "unit_price": "-10.0",
            "sales_tax": "-0.89",
            "quantity": 1,
            "product_tax_code": "TaxCode - 34067",
            "product_identifier": "SKU-1",
            "id": 0,
            "discount": "0.0",
            "description": "First Product - Master",
        }
    ],
    "from_zip": None,
    "from_street": None,
    "from_state": None,
    "from_country": "US",
    "from_city": None,
    "exemption_type": None,
    "customer_id": None,
    "amount": "-40.0",
}


def a_transaction(**change: Any) -> dict[str, Any]:
    """The order of which a record was made on 2022-12-12, under a new name."""
    line = {"id": 1, "quantity": 1, "product_tax_code": "20010", "unit_price": "10.0", "discount": 0, "sales_tax": "0.89"}
    return {
        "transaction_id": str(new_id()),
        "transaction_date": "2022-12-12T19:28:53Z",
        "to_country": "US",
        "to_zip": "11430",
        "to_city": "Herndon",
        "to_state": "NY",
        "to_street": "A Different Road",
        "amount": "110.0",
        "shipping": "100.0",
        "sales_tax": "9.77",
        "line_items": [line],
        **change,
    }


LINE = a_transaction()["line_items"][0]
# What is changed in an order, and the error: its status, name, and detail.
REFUSED: dict[str, tuple[dict[str, Any], tuple[int, str, str]]] = {
    **{f"no {name}": ({name: ""}, (406, "Not Acceptable", f"{name} is missing")) for name in REQUIRED},
    # Since version 2020-08-07.
    "amount": ({"amount": "110.01"}, (400, "Bad Request", "amount param does not equal sum of line_items + shipping")),
    "description": (
        {"line_items": [{**LINE, "description": "x" * 256}]},
        (400, "Bad Request", "line_items[][description] param exceeds limit of 255 characters"),
    ),
    # recorded, 2023-12-15.
    "ZIP": ({"to_zip": "99999"}, (400, "Bad Request", "to_zip 99999 is not used within to_state NY")),
    # "any order-level or line item sales_tax present in the order must be zero".
    "exempt": ({"exemption_type": "other"}, (400, "Bad Request", "sales_tax must be zero when exemption_type is set")),
}


def a_filing(*, kind: str = "sale", sign: int = 1, reverses: UUID | None = None, **change: Any) -> TaxFiling:
    parties = TaxParties(
        ship_from=msgspec.convert(RAMSEY, Address),
        ship_to=msgspec.convert(SEATTLE, Address),
        ship_from_region="US-NJ",
        ship_to_region="US-WA",
        exempt=change.pop("exempt", False),
    )
    tax = change.pop("tax", 516)
    lines = (
        FiledLine(line=0, net_amount=sign * 4_990, tax_amount=sign * tax, tax_code="20010"),
        FiledLine(line=None, net_amount=sign * 795, tax_amount=sign * min(tax, 82)),
    )
    facts = {"document_id": new_id(), "currency": "USD", "recorded_at": DAY, "parties": parties, "lines": lines, **change}
    return TaxFiling(kind=kind, reverses=reverses, **facts)


class TestRequests:
    @pytest.mark.parametrize(("kind", "sign"), [("sale", 1), ("reversal", -1)])
    def test_adapter_sends_documented_parameters(self, kind: str, sign: int) -> None:
        """Amounts of orders are positive, of refunds negative ("We recommend"); with lines, amount is their sum and shipping."""
        body = filed_body(a_filing(kind=kind, sign=sign))

        assert body.keys() - PARAMETERS == set()
        assert {name for name in REQUIRED if body.get(name) in (None, "")} == set()
        assert {name for line in body["line_items"] for name in line} - OF_LINES == set()
        assert all("sales_tax" in line for line in body["line_items"])
        assert NAME.fullmatch(body["transaction_id"])
        assert DATE.fullmatch(body["transaction_date"])
        goods = sum(line["unit_price"] * line["quantity"] for line in body["line_items"])
        assert (body["amount"], goods, body["shipping"]) == (sign * 57.85, sign * 49.9, sign * 7.95)

    @pytest.mark.parametrize(("tax", "sent"), [(516, None), (0, "other")])
    def test_adapter_names_an_exemption_only_without_tax(self, tax: int, sent: str | None) -> None:
        assert filed_body(a_filing(exempt=True, tax=tax)).get("exemption_type") == sent

    async def test_adapter_names_its_version(self, adapter: TaxJar) -> None:
        """API version: "all new TaxJar accounts will default to version '2020-08-07'", older ones to '2012-01-01'."""
        assert adapter._client._headers["x-api-version"] == "2020-08-07"

    @pytest.mark.parametrize("currency", ["EUR", "CAD"])
    async def test_adapter_records_dollars_alone(self, adapter: TaxJar, currency: str) -> None:
        """ "Total amount of the order with shipping, excluding sales tax in dollars": another currency's would be read as dollars."""
        filing = a_filing(currency=currency)

        with pytest.raises(TaxRefusedForGood, match=currency):
            await adapter.file(filing)

        assert await adapter.get_record(str(filing.document_id)) is None


class TestRefusals:
    @pytest.mark.parametrize("name", REFUSED)
    async def test_simulation_refuses(self, http: httpx.AsyncClient, name: str) -> None:
        change, expected = REFUSED[name]

        assert error_of(await http.post("/v2/transactions/orders", json=a_transaction(**change))) == expected

    async def test_an_order_of_cents_more_than_collected_is_recorded(self, http: httpx.AsyncClient) -> None:
        """recorded, 2022-12-12: 9.77 by lines, where the calculation had said 9.76."""
        assert (await http.post("/v2/transactions/orders", json=a_transaction())).status_code == 201

    async def test_a_name_is_recorded_once_of_orders_and_refunds(self, http: httpx.AsyncClient) -> None:
        """recorded, 2023-01-13; support, 351: "must be a unique identifier for the refund and different from the original order"."""
        order = a_transaction()
        refund = {**order, "transaction_reference_id": order["transaction_id"]}
        assert (await http.post("/v2/transactions/orders", json=order)).status_code == 201

        for path, body in (("orders", order), ("refunds", refund)):
            refused = error_of(await http.post(f"/v2/transactions/{path}", json=body))
            assert refused == (422, "Unprocessable Entity", "Provider tranx already imported for your user account")

    async def test_a_refund_names_its_order(self, http: httpx.AsyncClient) -> None:
        refused = error_of(await http.post("/v2/transactions/refunds", json=a_transaction()))

        assert refused == (406, "Not Acceptable", "transaction_reference_id is missing")

    async def test_adapter_repeats_and_is_refused(self, adapter: TaxJar, sandbox: Sandbox) -> None:
        filing = a_filing()
        await adapter.file(filing)
        await adapter.file(filing)
        elsewhere = msgspec.structs.replace(filing.parties, ship_to=msgspec.convert({**SEATTLE, "postal_code": "10001"}, Address))

        with pytest.raises(TaxRefusedForGood, match="to_zip 10001"):
            await adapter.file(a_filing(parties=elsewhere))

        assert [document.key for document in sandbox.taxes.documents.values()].count(str(filing.document_id)) == 1


class TestRecords:
    @pytest.mark.parametrize(("path", "sign"), [("orders", ""), ("refunds", "-")])
    @pytest.mark.parametrize("sent", ["", "-"], ids=["positive", "negative"])
    async def test_amounts_are_signed_whatever_is_sent(self, http: httpx.AsyncClient, path: str, sign: str, sent: str) -> None:
        """ "Values will be signed automatically regardless of what you send in", and shown as text."""
        line = {**LINE, "unit_price": f"{sent}10.0", "sales_tax": f"{sent}0.89", "product_identifier": "SKU-1", "description": "A"}
        amounts = {"amount": f"{sent}110.0", "shipping": f"{sent}100.0", "sales_tax": f"{sent}9.77"}
        body = a_transaction(**amounts, line_items=[line], transaction_reference_id="R925733488")

        shown = (await http.post(f"/v2/transactions/{path}", json=body)).json()[path[:-1]]

        assert unlike(shown, {**RECORDED, "line_items": [{**RECORDED["line_items"][0], "id": 1}]}) + lacking(shown, RECORDED) == []
        assert {shown["amount"], shown["shipping"], shown["sales_tax"]} == {f"{sign}110.0", f"{sign}100.0", f"{sign}9.77"}
        assert {shown["line_items"][0]["unit_price"], shown["line_items"][0]["sales_tax"]} == {f"{sign}10.0", f"{sign}0.89"}
        assert (shown["to_city"], shown["line_items"][0]["discount"]) == ("HERNDON", "0.0")
        assert (await http.get(f"/v2/transactions/{path}/{body['transaction_id']}")).json() == {path[:-1]: shown}

    @pytest.mark.parametrize(("sent", "shown"), DATES.items())
    async def test_a_date_is_shown_in_utc(self, http: httpx.AsyncClient, sent: str, shown: str) -> None:
        answer = await http.post("/v2/transactions/orders", json=a_transaction(transaction_date=sent))

        assert answer.json()["order"]["transaction_date"] == shown

    async def test_adapter_reads_what_it_recorded(self, adapter: TaxJar) -> None:
        sale = a_filing()
        reversal = a_filing(kind="reversal", sign=-1, reverses=sale.document_id)
        await adapter.file(sale)
        await adapter.file(reversal)

        for filing, sign in ((sale, 1), (reversal, -1)):
            record = await adapter.get_record(str(filing.document_id))
            assert record is not None
            assert (record.kind, record.net_amount, record.tax_amount) == (filing.kind, sign * 5_785, sign * 598)
            assert record.made_at == DAY.replace(microsecond=0)

    @pytest.mark.parametrize("amount", LARGE)
    async def test_an_amount_is_read_as_it_was_recorded(self, adapter: TaxJar, amount: int) -> None:
        filing = a_filing(lines=(FiledLine(line=0, net_amount=amount, tax_amount=amount // 10),))
        await adapter.file(filing)

        record = await adapter.get_record(str(filing.document_id))

        assert record is not None
        assert (record.net_amount, record.tax_amount) == (amount, amount // 10)

    async def test_both_days_of_a_range_are_listed(self, http: httpx.AsyncClient, adapter: TaxJar) -> None:
        """ "Start date" and "end date of a range"; names alone, orders and refunds each by themselves."""
        day = datetime(2026, 3, 1, 12, tzinfo=UTC)
        filings = [a_filing(recorded_at=day + timedelta(days=n)) for n in range(3)]
        for filing in filings:
            await adapter.file(filing)

        page = await adapter.list_records(since=day, until=day + timedelta(days=1), cursor=None)
        days = {"from_transaction_date": "2026/03/01", "to_transaction_date": "2026/03/02"}
        listed = (await http.get("/v2/transactions/orders", params=days)).json()["orders"]

        assert [record.key for record in page.records] == listed == [str(filing.document_id) for filing in filings[:2]]

    async def test_what_is_not_there_is_said(self, http: httpx.AsyncClient, adapter: TaxJar) -> None:
        assert error_of(await http.get(f"/v2/transactions/orders/{new_id()}"))[:2] == (404, "Not Found")
        assert await adapter.get_record(str(new_id())) is None

    async def test_a_wrong_key_is_unauthorized(self, http: httpx.AsyncClient) -> None:
        answer = await http.get("/v2/transactions/orders", headers={"Authorization": "Bearer other"})

        assert error_of(answer)[:2] == (401, "Unauthorized")
