"""TaxJar's own library against the sandbox."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import taxjar

from deploy.sandbox.server import Sandbox
from services.fulfillment.providers.taxjar import filed_body, order_body
from tests.fulfillment.engines.test_providers import FREIGHT, GOODS, asked
from tests.provider_facts.taxjar.test_transactions import a_filing
from tests.world import SANDBOX_KEY, a_sandbox


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with a_sandbox() as made:
        yield made


async def test_an_order_is_answered(sandbox: Sandbox) -> None:
    client = taxjar.Client(api_key=SANDBOX_KEY, api_url=sandbox.base_url)

    tax = await asyncio.to_thread(client.tax_for_order, order_body(asked(GOODS, FREIGHT)))

    # 49.90 and 7.95 at 6.5 % and 3.85 %.
    assert (tax.amount_to_collect, tax.has_nexus, tax.breakdown.line_items[0].state_amount) == (5.99, True, 3.24)


async def test_transactions_are_recorded_and_shown(sandbox: Sandbox) -> None:
    client = taxjar.Client(api_key=SANDBOX_KEY, api_url=sandbox.base_url)
    sale = a_filing()
    refund = {
        **filed_body(a_filing(kind="reversal", sign=-1, reverses=sale.document_id)),
        "transaction_reference_id": str(sale.document_id),
    }

    ordered = await asyncio.to_thread(client.create_order, filed_body(sale))
    await asyncio.to_thread(client.create_refund, refund)
    shown = await asyncio.to_thread(client.show_refund, refund["transaction_id"])

    assert (ordered.amount, ordered.shipping, ordered.sales_tax, ordered.line_items[0].unit_price) == (57.85, 7.95, 5.98, 49.9)
    assert (shown.amount, shown.shipping, shown.sales_tax, shown.line_items[0].unit_price) == (-57.85, -7.95, -5.98, -49.9)
    assert str(sale.document_id) in list((await asyncio.to_thread(client.list_orders)).data)


async def test_a_refusal_says_why(sandbox: Sandbox) -> None:
    client = taxjar.Client(api_key=SANDBOX_KEY, api_url=sandbox.base_url)

    with pytest.raises(taxjar.exceptions.TaxJarResponseError, match="406"):
        await asyncio.to_thread(client.tax_for_order, {"to_country": "US", "shipping": 1})
