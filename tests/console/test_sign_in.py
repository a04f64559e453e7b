"""How staff sign in behind a proxy with TLS: the cookie, the throttle, how a session ends by itself, and what a page says was done."""

from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from uuid import UUID

import httpx
import pytest

from services.gateway.domain import Principal, Role, TooManySignIns
from services.gateway.handlers import live_pages
from services.gateway.handlers.sign_ins import SignIns
from shared.ids import new_id
from shared.messages import Environment
from tests.world import Place, World, a_key, a_world, gateway_settings

SESSION = "__Host-tender_session"
PROXIED = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
LIVE = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    """A gateway behind a proxy on this machine, as it is by default otherwise."""
    behind = {"trusted_proxies": "127.0.0.0/8", "console_secure_cookie": True, "sign_ins_per_address_per_minute_max": 3}
    async with a_world(place, gateway=behind) as made:
        yield made


async def sign_in(world: World, key: str, *, address: str = "192.0.2.1") -> httpx.Response:
    headers = {**PROXIED, "X-Forwarded-For": address}
    return await world.http.post(f"{world.gateway_url}/console/sign-in", data={"access_key": key}, headers=headers)


async def a_session(world: World, key: str | None = None) -> dict[str, str]:
    """The headers of a browser that has signed in."""
    answer = await sign_in(world, key or world.keys[Role.OPERATOR])
    assert answer.status_code == 303, answer.text
    return {**PROXIED, "Cookie": f"{SESSION}={answer.headers['set-cookie'].partition('=')[2].partition(';')[0]}"}


async def opened(world: World, path: str, headers: dict[str, str]) -> httpx.Response:
    return await world.http.get(f"{world.gateway_url}{path}", headers=headers)


async def test_the_cookie_is_for_this_host_over_https(world: World) -> None:
    """Row 109, L7."""
    answer = await sign_in(world, world.keys[Role.OPERATOR])

    name, _, rest = answer.headers["set-cookie"].partition("=")
    attributes = {part.strip().lower() for part in rest.split(";")[1:]}
    assert name == SESSION
    assert attributes >= {"secure", "httponly", "samesite=strict", "path=/"}
    assert not any(part.startswith("domain") for part in attributes)
    assert (await opened(world, "/console/orders", await a_session(world))).status_code == 200


async def test_a_form_larger_than_any_key_is_not_read(world: World) -> None:
    """Tens of thousands of fields took a tenth of a second each time, of everybody's."""
    form = "&".join(f"field_{number}=1" for number in range(10_000))

    answer = await world.http.post(
        f"{world.gateway_url}/console/sign-in", content=form, headers={**PROXIED, "Content-Type": "application/x-www-form-urlencoded"}
    )

    assert answer.status_code == 413, answer.text


@pytest.mark.parametrize("path", ["/console/sign-in", "/api/v1/admin/orders"])
async def test_https_alone_binds_browsers_to_https(world: World, path: str) -> None:
    encrypted, plain = [await opened(world, path, headers) for headers in (PROXIED, {})]

    assert encrypted.headers["strict-transport-security"] == "max-age=31536000"
    assert "strict-transport-security" not in plain.headers


async def test_failed_sign_ins_are_throttled_by_address(world: World) -> None:
    """Row 95, L7: the right key is not looked at either, until the minute is over; other addresses go on."""
    answers = [await sign_in(world, "nonsense", address="198.51.100.7") for _ in range(9)]
    right = await sign_in(world, world.keys[Role.OPERATOR], address="198.51.100.7")
    elsewhere = await sign_in(world, world.keys[Role.OPERATOR], address="198.51.100.8")

    assert {answer.status_code for answer in answers[:3]} == {401}
    assert (answers[-1].status_code, answers[-1].headers["Retry-After"]) == (429, "60")
    assert (right.status_code, elsewhere.status_code) == (429, 303)


def test_failures_of_all_hold_up_unknown_addresses(place: Place) -> None:
    clock = {"now": 0.0}
    throttle = SignIns(gateway_settings(place, {"sign_ins_per_minute_max": 5}), lambda: clock["now"])
    throttle.attempt("192.0.2.1")
    throttle.succeeded("192.0.2.1")
    for number in range(5):
        throttle.attempt(f"2001:db8:{number}::1")

    with pytest.raises(TooManySignIns, match="in all"):
        throttle.attempt("198.51.100.9")
    throttle.attempt("192.0.2.1")
    clock["now"] = 12.0
    throttle.attempt("198.51.100.9")


def test_an_ipv6_network_is_one_address(place: Place) -> None:
    throttle = SignIns(gateway_settings(place, {"sign_ins_per_address_per_minute_max": 2}))
    throttle.attempt("2001:db8::1")
    throttle.attempt("2001:db8::2")

    with pytest.raises(TooManySignIns, match="from this address"):
        throttle.attempt("2001:db8::3")


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "used"])
async def test_an_idle_session_ends(world: World, idle: bool) -> None:
    """L7: by default after half an hour without a page or a form."""
    headers = await a_session(world, await a_key(world.place, world.store_id, Role.SUPPORT))
    await world.change("UPDATE gateway.console_sessions SET used_at = now() - make_interval(mins => $1)", 31 if idle else 29)

    first, again = [await opened(world, "/console/orders", headers) for _ in range(2)]

    assert (first.status_code, again.status_code) == ((303, 303) if idle else (200, 200))


async def test_an_open_page_does_not_use_a_session(world: World) -> None:
    key = await a_key(world.place, world.store_id, Role.SUPPORT)
    headers = await a_session(world, key)
    await world.change("UPDATE gateway.console_sessions SET used_at = now() - interval '20 minutes'")

    async with world.http.stream("GET", f"{world.gateway_url}/console/orders", headers={**headers, **LIVE}) as page:
        assert "event: changed" in await anext(page.aiter_text())
        watched = await _unused_minutes(world, key)
    await opened(world, "/console/orders", headers)

    assert (watched >= 20, await _unused_minutes(world, key) >= 20) == (True, False)


async def _unused_minutes(world: World, key: str) -> float:
    sql = "SELECT extract(epoch FROM now() - used_at)::float8 / 60 AS minutes FROM gateway.console_sessions WHERE key_id = $1"
    [row] = await world.rows(sql, UUID(key.split("_")[2]))
    return float(row["minutes"])


@pytest.mark.parametrize("signed_in", [True, False], ids=["signed in", "at sign-in"])
async def test_a_planted_message_is_not_shown(world: World, signed_in: bool) -> None:
    """Row 110, L8: what a page says was done is signed for its session; somebody else's signature does not do."""
    planted = urlsafe_b64encode(b'{"good":false,"text":"Call this number at once"}').decode()
    headers = await a_session(world) if signed_in else {**PROXIED, "Cookie": "a=b"}
    path = "/console/orders" if signed_in else "/console/sign-in"

    for value in (planted, f"{planted}.AAAA", f"{planted}."):
        page = await opened(world, path, {**headers, "Cookie": f"{headers['Cookie']}; __Host-tender_flash={value}"})
        assert (page.status_code, "Call this number" in page.text) == (200, False)


async def test_one_key_cannot_open_every_live_page(world: World) -> None:
    """Row 111, L8: nor can a store; the pages of others stay live."""
    own, other = await a_session(world), await a_session(world, await a_key(world.place, new_id(), Role.ADMIN))
    readers: list[AsyncIterator[str]] = []
    async with AsyncExitStack() as pages:
        statuses = await _open_pages(world, pages, readers, own, live_pages.LIVE_PAGES_PER_KEY_MAX + 1)
        others = await _open_pages(world, pages, readers, other, 1)

    assert statuses == [200] * live_pages.LIVE_PAGES_PER_KEY_MAX + [204]
    assert others == [200]


async def _open_pages(
    world: World, pages: AsyncExitStack, readers: list[AsyncIterator[str]], headers: dict[str, str], count: int
) -> list[int]:
    found = []
    for _ in range(count):
        stream = world.http.stream("GET", f"{world.gateway_url}/console/orders", headers={**headers, **LIVE})
        page = await pages.enter_async_context(stream)
        if page.status_code == 200:
            # The page is closed with what reads it.
            readers.append(page.aiter_text())
            await anext(readers[-1])
        found.append(page.status_code)
    return found


def test_a_store_has_a_share_of_the_live_pages() -> None:
    counted, store_id = live_pages.LivePages(), new_id()
    with ExitStack() as held:
        for _ in range(live_pages.LIVE_PAGES_PER_STORE_MAX):
            held.enter_context(counted.open(a_principal(store_id)))

        assert (counted.full(a_principal(store_id)), counted.full(a_principal(new_id()))) == (True, False)
    assert not counted.full(a_principal(store_id))


def a_principal(store_id: UUID) -> Principal:
    return Principal(id=str(new_id()), store_id=store_id, environment=Environment.SANDBOX, role=Role.SUPPORT)
