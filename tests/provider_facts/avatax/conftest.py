"""The simulation, the adapter in front of it, and somebody else with the account's key."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deploy.sandbox.server import Sandbox
from services.fulfillment.providers.avalara import Avalara
from tests.world import SANDBOX_KEY, a_sandbox

CREATE = "/api/v2/transactions/create"
TRANSACTIONS = "/api/v2/companies/TENDER/transactions"


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with a_sandbox() as made:
        yield made


@pytest.fixture(scope="module")
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.base_url, auth=("sandbox", SANDBOX_KEY)) as made:
        yield made


@pytest.fixture(scope="module")
async def adapter(sandbox: Sandbox) -> AsyncIterator[Avalara]:
    made = Avalara(base_url=sandbox.base_url, account_id="sandbox", license_key=SANDBOX_KEY, company_code="TENDER", timeout_seconds=10.0)
    yield made
    await made.close()


def a_transaction(*lines: dict[str, Any], **change: Any) -> dict[str, Any]:
    """The order of which a calculation was recorded on 2019-09-20, in Philadelphia."""
    address = {"line1": "822 Reed St", "line2": "", "city": "Philadelphia", "region": "PA", "country": "US", "postalCode": "19147"}
    numbered = [{"number": str(n), "quantity": 1, "taxIncluded": False, **line} for n, line in enumerate(lines)]
    return {
        "type": "SalesOrder",
        "companyCode": "TENDER",
        "date": "2019-09-20",
        "customerCode": "guest",
        "currencyCode": "USD",
        "addresses": {"shipFrom": address, "shipTo": address},
        "lines": numbered,
        "commit": False,
        **change,
    }
