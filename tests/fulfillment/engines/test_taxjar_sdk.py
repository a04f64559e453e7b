"""TaxJar's own library against the sandbox."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import taxjar

from deploy.sandbox.server import Sandbox
from services.fulfillment.providers.taxjar import order_body
from tests.fulfillment.engines.test_providers import FREIGHT, GOODS, asked
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


async def test_a_refusal_says_why(sandbox: Sandbox) -> None:
    client = taxjar.Client(api_key=SANDBOX_KEY, api_url=sandbox.base_url)

    with pytest.raises(taxjar.exceptions.TaxJarResponseError, match="406"):
        await asyncio.to_thread(client.tax_for_order, {"to_country": "US", "shipping": 1})
