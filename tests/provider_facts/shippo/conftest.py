"""The simulation with the face of Shippo, the adapter in front of it, and its HTTP interface without our adapter."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deploy.sandbox.server import Sandbox
from services.fulfillment.providers.shippo import API_VERSION, Shippo, shipment_body
from tests.provider_facts.shipments import a_rates_request
from tests.world import SANDBOX_KEY, a_sandbox


class ShippoApi:
    """Shippo's HTTP interface, as the holder of an account's token uses it."""

    def __init__(self, sandbox: Sandbox, http: httpx.AsyncClient) -> None:
        self.sandbox = sandbox
        self.http = http

    async def get(self, path: str, **query: Any) -> Any:
        return (await self.http.get(f"/{path}", params=query)).json()

    async def post(self, path: str, body: Any) -> httpx.Response:
        return await self.http.post(f"/{path}/", json=body)

    async def a_shipment(self, **changes: Any) -> Any:
        return (await self.post("shipments", shipment_body(a_rates_request(**changes)))).json()

    async def a_rate(self, service: str = "Ground", **changes: Any) -> str:
        shipment = await self.a_shipment(**changes)
        return str(next(rate["object_id"] for rate in shipment["rates"] if rate["servicelevel"]["name"] == service))

    async def a_transaction(self, rate: str = "", *, waits: bool = True, **changes: Any) -> Any:
        body = {"rate": rate or await self.a_rate(), "label_file_type": "PDF_4x6", "async": not waits, **changes}
        return (await self.post("transactions", body)).json()

    def move(self, transaction: Any, **scan: Any) -> None:
        self.sandbox.carrier.move(transaction["tracking_number"], scan)


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with a_sandbox(webhook_url="http://127.0.0.1:9/unused") as running:
        yield running


@pytest.fixture(scope="module")
async def api(sandbox: Sandbox) -> AsyncIterator[ShippoApi]:
    headers = {"Authorization": f"ShippoToken {SANDBOX_KEY}", "SHIPPO-API-VERSION": API_VERSION}
    async with httpx.AsyncClient(base_url=sandbox.base_url, headers=headers, follow_redirects=True) as http:
        yield ShippoApi(sandbox, http)


@pytest.fixture(scope="module")
async def carrier(sandbox: Sandbox) -> AsyncIterator[Shippo]:
    adapter = Shippo(base_url=sandbox.base_url, api_key=SANDBOX_KEY, timeout_seconds=10.0)
    yield adapter
    await adapter.close()
