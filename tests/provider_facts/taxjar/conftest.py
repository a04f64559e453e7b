"""The simulation, the adapter in front of it, and somebody else with the account's key."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deploy.sandbox.server import Sandbox
from services.fulfillment.providers.taxjar import TaxJar
from tests.world import SANDBOX_KEY, a_sandbox


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with a_sandbox() as made:
        yield made


@pytest.fixture(scope="module")
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.base_url, headers={"Authorization": f"Bearer {SANDBOX_KEY}"}) as made:
        yield made


@pytest.fixture(scope="module")
async def adapter(sandbox: Sandbox) -> AsyncIterator[TaxJar]:
    made = TaxJar(base_url=sandbox.base_url, api_key=SANDBOX_KEY, timeout_seconds=10.0)
    yield made
    await made.close()


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    """Read an error's status, which the body repeats, its name and its detail."""
    said: dict[str, Any] = answer.json()
    assert said["status"] == answer.status_code
    return answer.status_code, said["error"], said["detail"]
