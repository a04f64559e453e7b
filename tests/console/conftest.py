"""A shop with something of everything, and a browser to look at it with."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, StorageState, async_playwright, expect

from services.gateway.domain import Role
from tests.console.seat import Seat
from tests.console.shop import Shop, furnish
from tests.fulfillment import shop as tax_shop
from tests.world import Place, World, a_world

SCREENSHOTS = Path(os.environ.get("TENDER_SCREENSHOTS") or Path(__file__).parents[2] / ".tender" / "screenshots")


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    """Everything there is, with pages that look often whether they are still true."""
    often = {"console_live_seconds": 0.1, "sample_every_seconds": 0.5}
    async with a_world(place, gateway=often, fulfillment={}, webhooks={"allow_private_endpoints": True}, reconciler={}) as made:
        await tax_shop.set_up(made, carriers=["sandbox"])
        yield made


@pytest.fixture(scope="module")
async def shop(world: World) -> Shop:
    return await furnish(world)


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    path = os.environ.get("TENDER_TEST_CHROMIUM")
    assert path, "run the tests with ./tender test, which finds a browser"
    async with async_playwright() as playwright:
        # As root Chromium wants no sandbox; in a container its shared memory is small.
        launched = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield launched
        await launched.close()


@pytest.fixture(scope="module")
async def signed_in(browser: Browser, world: World) -> StorageState:
    """What an operator's browser holds once it is signed in."""
    async with Seat.taken(browser, world, screenshots=SCREENSHOTS) as first:
        await expect(first.page.get_by_role("button", name="Sign out", exact=True)).to_be_visible()
        return await first.kept()


@pytest.fixture
async def seat(browser: Browser, world: World, signed_in: StorageState) -> AsyncIterator[Seat]:
    """An operator, signed in; whatever the browser complains of fails the test."""
    async with Seat.taken(browser, world, screenshots=SCREENSHOTS, signed_in=signed_in) as made:
        yield made
        await made.check()


@pytest.fixture
async def admin(browser: Browser, world: World) -> AsyncIterator[Seat]:
    """An admin, signed in, who may change keys, credentials and endpoints."""
    async with Seat.taken(browser, world, screenshots=SCREENSHOTS, role=Role.ADMIN) as made:
        await expect(made.page.get_by_role("button", name="Sign out", exact=True)).to_be_visible()
        yield made
        await made.check()
