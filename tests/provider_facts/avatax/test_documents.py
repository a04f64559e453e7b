"""What AvaTax records: types, statuses, fields and their lengths, by the simulation and the adapter alike."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from deploy.sandbox.faces import avatax
from deploy.sandbox.server import Sandbox
from services.fulfillment.domain.tax.sale import Exemption
from services.fulfillment.providers.avalara import (
    ADDRESS_LINE_MAX_CHARACTERS,
    EXEMPTION_MAX_CHARACTERS,
    PAGE_ROWS,
    Avalara,
    invoice_body,
    transaction_body,
)
from services.fulfillment.providers.tax_books import FiledLine
from shared.contracts.orders import ITEMS_MAX
from shared.ids import new_id
from tests.fulfillment.engines.test_providers import FREIGHT, GOODS, SEATTLE, asked
from tests.provider_facts.avatax.conftest import CREATE, TRANSACTIONS, a_transaction
from tests.provider_facts.taxjar.test_transactions import LARGE, a_filing

# models: CreateTransactionModel, LineItemModel, AddressesModel, AddressLocationInfo, TaxOverrideModel.
FIELDS = {
    *("code", "lines", "type", "companyCode", "date", "salespersonCode", "customerCode", "customerUsageType", "entityUseCode", "discount"),
    *("purchaseOrderNo", "exemptionNo", "addresses", "parameters", "userDefinedFields", "referenceCode", "reportingLocationCode", "commit"),
    *("batchCode", "taxOverride", "currencyCode", "serviceMode", "exchangeRate", "exchangeRateEffectiveDate", "exchangeRateCurrencyCode"),
    *("posLaneCode", "businessIdentificationNo", "isSellerImporterOfRecord", "description", "email", "debugLevel", "customerSupplierName"),
    *("dataSourceId", "deliveryTerms"),
}
OF_LINES = {
    *(
        "number",
        "quantity",
        "amount",
        "addresses",
        "taxCode",
        "customerUsageType",
        "entityUseCode",
        "itemCode",
        "exemptionCode",
        "discounted",
    ),
    *("taxIncluded", "revenueAccount", "ref1", "ref2", "description", "businessIdentificationNo", "taxOverride", "parameters"),
    *("userDefinedFields", "hsCode", "merchantSellerId", "merchantSellerIdentifier", "marketplaceLiabilityType", "originationDocumentId"),
    *("originationSite", "category", "summary"),
}
OF_ADDRESSES = {"locationCode", "line1", "line2", "line3", "city", "region", "country", "postalCode", "latitude", "longitude"}
OF_OVERRIDES = {"type", "taxAmount", "taxDate", "reason", "taxAmountByTaxTypes"}
# enums: DocumentType; "a document type ending with Invoice is a permanent transaction", one "ending with Order is a temporary estimate".
TYPES = {
    *("SalesOrder", "SalesInvoice", "PurchaseOrder", "PurchaseInvoice", "ReturnOrder", "ReturnInvoice", "InventoryTransferOrder"),
    *("InventoryTransferInvoice", "ReverseChargeOrder", "ReverseChargeInvoice", "CustomsInvoice", "CustomsOrder"),
}
# enums: DocumentStatus; "only recorded and committed transactions will be considered" for a return ("What's a DocStatusError?").
STATUSES = {
    "Temporary": False,
    "Saved": False,
    "Posted": False,
    "Committed": True,
    "Cancelled": False,
    "Queued": False,
    "PendingApproval": False,
    "Uncommitted": False,
}
# Batch File Reference; recorded errors of taxCode ("between 0 and 25") and postalCode (11); lines of an address since release 23.7.0.
LENGTHS_MAX = {
    "code": 50,
    "customerCode": 50,
    "companyCode": 25,
    "exemptionNo": 25,
    "referenceCode": 50,
    "businessIdentificationNo": 25,
    "taxCode": 25,
    "itemCode": 50,
    "line1": 100,
    "line2": 100,
    "line3": 100,
    "city": 50,
    "postalCode": 11,
}
DAY = datetime(2026, 5, 1, 12, tzinfo=UTC)


def unfit(body: dict[str, Any]) -> list[str]:
    """Name what a request has that the models have not, and what is too long."""
    addresses = list(body["addresses"].values())
    overrides = [line["taxOverride"] for line in body["lines"] if "taxOverride" in line]
    found = [(body, FIELDS), *((line, OF_LINES) for line in body["lines"]), *((address, OF_ADDRESSES) for address in addresses)]
    unknown = [name for each, known in (*found, *((each, OF_OVERRIDES) for each in overrides)) for name in each if name not in known]
    long = [name for each, _ in found for name, most in LENGTHS_MAX.items() if len(str(each.get(name, ""))) > most]
    return unknown + long


class TestRequests:
    @pytest.mark.parametrize("certificate", ["WA-1", "A certificate of more characters than AvaTax accepts"])
    def test_adapter_asks_with_known_fields(self, certificate: str) -> None:
        long = {**SEATTLE, "street_address": "Building 7 of the Old Harbour " * 13}

        body = transaction_body(
            asked(GOODS, FREIGHT, address=long, exemptions=(Exemption(certificate=certificate, country="US"),)), company_code="T"
        )

        assert unfit(body) == []
        assert (body["type"], body["exemptionNo"]) == ("SalesOrder", certificate[:EXEMPTION_MAX_CHARACTERS])
        lines = [body["addresses"]["shipTo"][name] for name in ("line1", "line2", "line3")]
        assert all(0 < len(line) <= ADDRESS_LINE_MAX_CHARACTERS for line in lines)
        assert " ".join(lines) in long["street_address"]

    @pytest.mark.parametrize(("kind", "sign", "type_"), [("sale", 1, "SalesInvoice"), ("reversal", -1, "ReturnInvoice")])
    def test_adapter_records_with_known_fields(self, kind: str, sign: int, type_: str) -> None:
        """models, LineItemModel: amounts of a return "must be negative", quantities "always positive"; a tax override needs its reason."""
        body = invoice_body(a_filing(kind=kind, sign=sign, reverses=new_id()), company_code="TENDER")

        assert unfit(body) == []
        assert (body["type"], body["commit"]) == (type_, True)
        assert [(line["amount"], line["quantity"]) for line in body["lines"]] == [(sign * 49.9, 1), (sign * 7.95, 1)]
        assert all(line["taxOverride"]["type"] == "TaxAmount" and line["taxOverride"]["reason"] for line in body["lines"])
        assert len({line["number"] for line in body["lines"]}) == len(body["lines"])

    def test_an_order_has_fewer_lines_than_are_accepted(self) -> None:
        """ "Common errors", MaxCountExceededError: "15000 invoice lines is the current limit"; shipping is one of ours."""
        assert ITEMS_MAX + 1 <= 15_000

    def test_simulation_knows_the_lengths(self) -> None:
        assert {**avatax.LENGTHS_MAX, **avatax.LINE_LENGTHS_MAX, **avatax.ADDRESS_LENGTHS_MAX} == LENGTHS_MAX


class TestLife:
    @pytest.mark.parametrize(("type_", "commit", "status"), [("SalesInvoice", True, "Committed"), ("ReturnInvoice", False, "Saved")])
    async def test_an_invoice_is_recorded(self, http: httpx.AsyncClient, type_: str, commit: bool, status: str) -> None:
        body = a_transaction({"amount": -10}, type=type_, commit=commit, code=str(new_id()))

        made = (await http.post(CREATE, json=body)).json()

        shown = (await http.get(f"{TRANSACTIONS}/{body['code']}")).json()
        assert (shown["status"], shown["type"], shown["id"], shown["date"]) == (status, type_, made["id"], "2019-09-20")
        assert made["id"] > 0
        assert type_ in TYPES

    @pytest.mark.parametrize("type_", ["SalesOrder", "ReturnOrder", None])
    async def test_an_order_is_not_recorded(self, http: httpx.AsyncClient, type_: str | None) -> None:
        """recorded: id 0, Temporary; without a type it is a SalesOrder."""
        made = (await http.post(CREATE, json=a_transaction({"amount": 10}, type=type_, commit=True, code="order-1"))).json()

        assert (made["id"], made["status"], made["type"]) == (0, "Temporary", type_ or "SalesOrder")
        assert (await http.get(f"{TRANSACTIONS}/order-1")).status_code == 404

    async def test_a_saved_document_is_replaced(self, http: httpx.AsyncClient) -> None:
        """ "What's a DocStatusError?": a saved one is replaced, a committed or cancelled one is not."""
        body = a_transaction({"amount": 10}, type="SalesInvoice", code=str(new_id()))
        for amount, commit in ((10, False), (20, True)):
            assert (
                await http.post(CREATE, json={**body, "lines": [{"number": "0", "amount": amount}], "commit": commit})
            ).status_code == 201

        shown = (await http.get(f"{TRANSACTIONS}/{body['code']}")).json()

        assert (shown["totalAmount"], shown["status"]) == (20, "Committed")

    async def test_an_override_is_the_tax(self, adapter: Avalara, http: httpx.AsyncClient) -> None:
        """models, TransactionLineModel: `tax` applies the override, `taxCalculated` is without it."""
        filing = a_filing(tax=1)

        await adapter.file(filing)

        shown = (await http.get(f"{TRANSACTIONS}/{filing.document_id}")).json()
        assert (shown["totalTax"], shown["totalTaxCalculated"]) == (0.02, 5.99)
        assert [line["tax"] for line in shown["lines"]] == [0.01, 0.01]

    @pytest.mark.parametrize(("kind", "sign"), [("sale", 1), ("reversal", -1)])
    async def test_adapter_records_once_and_reads_it(self, adapter: Avalara, kind: str, sign: int) -> None:
        filing = a_filing(kind=kind, sign=sign, reverses=new_id())
        await adapter.file(filing)
        await adapter.file(filing)

        record = await adapter.get_record(str(filing.document_id))

        assert record is not None
        assert (record.kind, record.currency, record.net_amount, record.tax_amount, record.standing) == (
            *(kind, "USD"),
            *(sign * 5_785, sign * 598, True),
        )

    @pytest.mark.parametrize("amount", LARGE)
    @pytest.mark.parametrize("currency", ["USD", "JPY", "KWD"])
    async def test_an_amount_is_read_as_it_was_recorded(self, adapter: Avalara, currency: str, amount: int) -> None:
        filing = a_filing(currency=currency, lines=(FiledLine(line=0, net_amount=amount, tax_amount=amount // 10),))
        await adapter.file(filing)

        record = await adapter.get_record(str(filing.document_id))

        assert record is not None
        assert (record.currency, record.net_amount, record.tax_amount) == (currency, amount, amount // 10)

    @pytest.mark.parametrize(("status", "counts"), STATUSES.items())
    async def test_only_what_is_committed_counts(self, adapter: Avalara, sandbox: Sandbox, status: str, counts: bool) -> None:
        filing = a_filing()
        await adapter.file(filing)
        sandbox.taxes.documents[str(filing.document_id)].status = status

        record = await adapter.get_record(str(filing.document_id))

        assert record is not None
        assert record.standing is counts


class TestLists:
    async def test_the_last_day_is_listed(self, http: httpx.AsyncClient, adapter: Avalara) -> None:
        """ "Filtering in REST": between matches what is "greater than or equal to the first value" and "less than the second value"."""
        filings = [a_filing(recorded_at=DAY + timedelta(days=n)) for n in range(3)]
        for filing in filings:
            await adapter.file(filing)

        page = await adapter.list_records(since=DAY, until=DAY + timedelta(days=1), cursor=None)
        query = {"$filter": "date between '2026-05-01' and '2026-05-02'"}
        listed = [each["code"] for each in (await http.get(TRANSACTIONS, params=query)).json()["value"]]

        assert [record.key for record in page.records] == [str(filing.document_id) for filing in filings[:2]]
        assert listed == [str(filings[0].document_id)]

    async def test_what_was_adjusted_is_not_listed(self, adapter: Avalara, sandbox: Sandbox) -> None:
        """recorded, adjust/invoice_order_success: another of the same code replaces it (the library: "the current transaction")."""
        adjusted, now = (a_filing(recorded_at=DAY + timedelta(days=10)) for _ in range(2))
        for filing in (adjusted, now):
            await adapter.file(filing)
        sandbox.taxes.documents[str(adjusted.document_id)].status = "Adjusted"

        page = await adapter.list_records(since=DAY + timedelta(days=10), until=DAY + timedelta(days=10), cursor=None)

        assert [record.key for record in page.records] == [str(now.document_id)]

    def test_a_page_is_within_the_limit(self) -> None:
        """library, list_transactions_by_company: "limited to returning 1,000 transactions at a time"."""
        assert PAGE_ROWS <= avatax.PAGE_ROWS_MAX == 1_000
