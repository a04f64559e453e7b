"""An operator in front of a browser that complains of whatever is wrong with a page."""

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, StorageState, expect

from services.gateway.domain import Role
from tests.planted import leaks_in
from tests.world import World, until

DESK, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 800}
THEMES: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")
# Told by the browser itself, which nothing on the page can keep from it.
VIOLATIONS = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective + " " + e.blockedURI));
"""
TOO_WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


class Seat:
    """One page of a browser, and what was wrong with what it showed."""

    def __init__(self, world: World, context: BrowserContext, page: Page, screenshots: Path) -> None:
        self.world = world
        self.page = page
        self._context = context
        self._screenshots = screenshots
        self._wrong: list[str] = []
        self._expected: set[int] = set()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self._wrong.append(f"script: {error}"))

    @classmethod
    @contextlib.asynccontextmanager
    async def taken(
        cls,
        browser: Browser,
        world: World,
        *,
        screenshots: Path,
        role: Role = Role.OPERATOR,
        script: bool = True,
        signed_in: StorageState | None = None,
    ) -> AsyncIterator["Seat"]:
        """Sit down and sign in, or go on with what an earlier seat held when it was signed in."""
        context = await browser.new_context(
            base_url=world.gateway_url,
            viewport=DESK,  # type: ignore[arg-type]
            java_script_enabled=script,
            storage_state=signed_in,
        )
        await context.grant_permissions(["clipboard-read", "clipboard-write"], origin=world.gateway_url)
        if script:
            await context.add_init_script(VIOLATIONS)
        seat = cls(world, context, await context.new_page(), screenshots)
        if signed_in is None:
            await seat.sign_in(world.keys[role])
        try:
            yield seat
        finally:
            await context.close()

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(f"status of {status}" in message.text for status in self._expected):
            self._wrong.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    async def kept(self) -> StorageState:
        """Keep what signs another seat in."""
        return await self._context.storage_state()

    def expects(self, status: int) -> None:
        """Take an answer of this status for what is to come, which browsers call an error."""
        self._expected.add(status)

    async def sign_in(self, key: str) -> None:
        """Sign in with a key."""
        await self.page.goto("/console/sign-in")
        await self.page.get_by_label("Key").fill(key)
        await self.page.get_by_role("button", name="Sign in", exact=True).click()

    async def open(self, path: str) -> None:
        """Open a page of the console and wait until it is live."""
        await self.page.goto(path)

    async def live(self) -> None:
        """Wait until the page has been told that it is true."""
        await expect(self.page.locator("#freshness")).to_have_text("Live")

    async def press(self, name: str | re.Pattern[str], *, within: Any = None) -> None:
        """Press a button and wait for the page that follows."""
        where = within or self.page
        # An id may hold a button's name, and has a button to copy it.
        button = where.get_by_role("button", name=name, exact=True).and_(where.locator("button:not(.copy)"))
        async with self.page.expect_navigation():
            await button.click()

    async def told(self, text: str | re.Pattern[str]) -> None:
        """Insist that the page says what was done."""
        await expect(self.page.locator("main > .flash")).to_contain_text(text)

    async def look(self, name: str) -> None:
        """Look at the page in both themes and on a phone: nobody is kept from reading it."""
        self._screenshots.mkdir(parents=True, exist_ok=True)
        self._wrong += [f"{name} tells {leak}" for leak in leaks_in(await self.page.content())]
        for theme in THEMES:
            await self.page.emulate_media(color_scheme=theme)
            await self.page.screenshot(path=self._screenshots / f"{name}-{theme}.png", full_page=True)
            self._wrong += [f"{name}, {theme}: {each}" for each in await barriers(self.page)]
        await self.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        await self.page.screenshot(path=self._screenshots / f"{name}-phone.png")
        if await self.page.evaluate(TOO_WIDE):
            self._wrong.append(f"{name}: wider than a phone")
        await self.page.set_viewport_size(DESK)  # type: ignore[arg-type]
        await self.page.emulate_media(color_scheme="light")
        await self.check()

    async def check(self) -> None:
        """Insist that nothing was wrong so far."""
        if not self.page.is_closed() and await self.page.evaluate("typeof window.violations") == "object":
            self._wrong += [f"content security policy: {each}" for each in await self.page.evaluate("window.violations")]
        assert not self._wrong, "\n".join(self._wrong)


async def barriers(page: Page) -> list[str]:
    """Name what keeps somebody from using a page (axe's rules, all of them)."""
    found = await Axe().run(page)
    return [f"{each['id']}: {[node['html'][:160] for node in each['nodes']]}" for each in found.response["violations"]]


async def eventually(seat: Seat, path: str, text: str) -> None:
    """Open a page again and again until it says something that is still to come about."""

    async def says() -> bool:
        await seat.open(path)
        return text in await seat.page.locator("main").inner_text()

    await until(says)
