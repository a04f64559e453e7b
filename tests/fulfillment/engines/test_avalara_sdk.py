"""AvaTax's own library against the sandbox."""

import asyncio
from collections.abc import AsyncIterator

import avalara
import pytest

from deploy.sandbox.server import Sandbox
from services.fulfillment.providers.avalara import invoice_body, transaction_body
from tests.fulfillment.engines.test_providers import FREIGHT, GOODS, asked
from tests.provider_facts.taxjar.test_transactions import a_filing
from tests.world import SANDBOX_KEY, a_sandbox


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with a_sandbox() as made:
        yield made


async def test_a_transaction_is_created(sandbox: Sandbox) -> None:
    client = avalara.AvataxClient("tests", "1", "tests", sandbox.base_url).add_credentials("sandbox", SANDBOX_KEY)

    answer = await asyncio.to_thread(client.create_transaction, transaction_body(asked(GOODS, FREIGHT), company_code="TENDER"))

    assert answer.status_code == 201
    assert (answer.json()["totalTax"], len(answer.json()["lines"])) == (5.99, 2)


async def test_an_invoice_is_recorded_and_shown(sandbox: Sandbox) -> None:
    client = avalara.AvataxClient("tests", "1", "tests", sandbox.base_url).add_credentials("sandbox", SANDBOX_KEY)
    filing = a_filing()

    await asyncio.to_thread(client.create_transaction, invoice_body(filing, company_code="TENDER"))
    shown = (await asyncio.to_thread(client.get_transaction_by_code, "TENDER", str(filing.document_id))).json()
    again = await asyncio.to_thread(client.create_transaction, invoice_body(filing, company_code="TENDER"))

    assert (shown["status"], shown["totalAmount"], shown["totalTax"]) == ("Committed", 57.85, 5.98)
    assert (again.status_code, again.json()["error"]["code"]) == (400, "GetTaxError")
