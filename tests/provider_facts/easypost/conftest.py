"""The simulation with the face of EasyPost, the adapter in front of it, and its HTTP interface without our adapter."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deploy.sandbox.server import Sandbox
from services.fulfillment.providers.easypost import EasyPost, shipment_body
from tests.provider_facts.shipments import a_rates_request
from tests.world import SANDBOX_KEY, a_sandbox


class EasyPostApi:
    """EasyPost's HTTP interface, as the holder of an account's key uses it."""

    def __init__(self, sandbox: Sandbox, http: httpx.AsyncClient) -> None:
        self.sandbox = sandbox
        self.http = http

    async def get(self, path: str, **query: str) -> Any:
        return (await self.http.get(f"/v2/{path}", params=query)).json()

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        return await self.http.post(f"/v2/{path}", json=body)

    async def create(self, **changes: Any) -> Any:
        return (await self.post("shipments", shipment_body(a_rates_request(**changes)))).json()

    async def buy(self, shipment: Any, service: str = "Ground", **changes: Any) -> Any:
        rate = next(rate for rate in shipment["rates"] if rate["service"] == service)
        return (await self.post(f"shipments/{shipment['id']}/buy", {"rate": {"id": rate["id"]}, **changes})).json()

    async def a_label(self, service: str = "Ground") -> Any:
        return await self.buy(await self.create(), service)

    def move(self, shipment: Any, **scan: Any) -> None:
        self.sandbox.carrier.move(shipment["tracking_code"], scan)


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with a_sandbox(webhook_url="http://127.0.0.1:9/unused") as running:
        yield running


@pytest.fixture(scope="module")
async def api(sandbox: Sandbox) -> AsyncIterator[EasyPostApi]:
    async with httpx.AsyncClient(base_url=sandbox.base_url, auth=(SANDBOX_KEY, "")) as http:
        yield EasyPostApi(sandbox, http)


@pytest.fixture(scope="module")
async def carrier(sandbox: Sandbox) -> AsyncIterator[EasyPost]:
    adapter = EasyPost(base_url=sandbox.base_url, api_key=SANDBOX_KEY, timeout_seconds=10.0)
    yield adapter
    await adapter.close()
