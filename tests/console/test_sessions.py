"""Who sees the console, and what nobody can make an operator's browser do."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import httpx
import pytest

from deploy import setup
from services.gateway.console import ROUTES
from services.gateway.console.rendering import TEMPLATES
from services.gateway.domain import STAFF, Role
from shared.ids import new_id
from shared.messages import Environment
from tests.console.shop import TRACE_ID, Shop, a_trace
from tests.fulfillment import shop as tax_shop
from tests.reconciler.letters import an_envelope, park, the_letter
from tests.world import MUG, Payment, Place, World, a_key, a_world, until

CSRF = re.compile(r'name="csrf" value="([^"]+)"')
KEY = re.compile(r'name="key" value="([^"]+)"')
# Whoever is not signed in comes here alone.
OPEN = {("GET", "/console/sign-in"), ("POST", "/console/sign-in"), ("GET", "/console/static/{name:str}")}


@asynccontextmanager
async def a_browser(world: World, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """What a browser keeps of the console: its cookies."""
    async with httpx.AsyncClient(base_url=world.gateway_url, timeout=30) as http:
        if key is not None:
            answer = await http.post("/console/sign-in", data={"access_key": key})
            assert (answer.status_code, answer.headers["location"]) == (303, "/console"), answer.text
        yield http


def the_routes() -> list[tuple[str, str]]:
    """Every route of the console, as it is served."""
    found: list[tuple[str, str]] = []
    for router in ROUTES:
        for route in router.routes:
            path = f"/console{route.path}".rstrip("/") if not route.path.startswith("/console") else route.path.rstrip("/")
            found += [(str(method), path) for method in sorted(route.methods - {"OPTIONS", "HEAD"})]
    return found


def test_there_are_routes() -> None:
    assert len(the_routes()) > 30
    assert set(the_routes()) >= OPEN


@pytest.mark.parametrize(("method", "path"), [each for each in the_routes() if each not in OPEN])
async def test_nobody_sees_or_does_anything_without_signing_in(world: World, method: str, path: str) -> None:
    concrete = re.sub(r"\{[a-z_]+:uuid\}", str(new_id()), re.sub(r"\{[a-z_]+:(str|int)\}", "1", path))

    async with a_browser(world) as http:
        answer = await http.request(method, concrete)

    assert (answer.status_code, answer.headers["location"].split("?")[0]) == (303, "/console/sign-in")


@pytest.mark.parametrize(("method", "path"), [each for each in the_routes() if each not in OPEN and each[0] == "POST"])
async def test_a_form_from_elsewhere_does_nothing(world: World, shop: Shop, method: str, path: str) -> None:
    concrete = re.sub(r"\{[a-z_]+:uuid\}", str(new_id()), re.sub(r"\{[a-z_]+:(str|int)\}", "1", path))

    async with a_browser(world, world.keys[Role.ADMIN]) as http:
        page = (await http.get("/console")).text
        known = CSRF.search(page)
        assert known is not None
        without = await http.post(concrete, data={"key": "k"})
        forged = await http.post(concrete, data={"key": "k", "csrf": known[1][::-1]})
        true = {"key": "k", "csrf": known[1]}
        elsewhere = await http.post(concrete, data=true, headers={"Origin": "https://evil.example"})
        beside = await http.post(concrete, data=true, headers={"Sec-Fetch-Site": "same-site"})

    assert [each.status_code for each in (without, forged, elsewhere, beside)] == [403, 403, 403, 403]


# Who may do what by a form, by how its address begins, the first that fits; every other page is all the staff's.
RULES: tuple[tuple[str, frozenset[Role]], ...] = (
    ("(GET|POST) /console/orders/[^/]+/payments/.*", STAFF - {Role.SUPPORT}),
    ("POST /console/(attention|reconciliation)/.*", STAFF - {Role.SUPPORT}),
    ("GET /console/tax/export", STAFF - {Role.SUPPORT}),
    ("(GET|POST) /console/dead-letters/[^/]+/(edit|discard)", frozenset({Role.ADMIN, Role.OPERATOR})),
    ("POST /console/(dead-letters|events|keys/deliveries)/.*", STAFF - {Role.FINANCE}),
    ("POST /console/keys/(credentials/[^/]+/[^/]+/verify|endpoints/[^/]+/recover)", STAFF - {Role.FINANCE}),
    ("POST /console/keys/.*", frozenset({Role.ADMIN})),
    ("POST /console/sign-out", STAFF),
    ("GET .*", STAFF),
)
# What a browser offers: forms that are sent, and links that lead to one.
OFFERED = re.compile(r'method="post" action="([^"]+)"')
LEADING = re.compile(r'href="(/console/(?:orders/[^"/]+/payments|dead-letters/[^"/]+/edit)[^"]*)"')


def rule_of(method: str, path: str) -> frozenset[Role]:
    """Who may open or send an address; a form that no rule is about fails."""
    return next(roles for pattern, roles in RULES if re.fullmatch(pattern, f"{method} {path}"))


class TestRoles:
    @pytest.mark.parametrize("role", sorted(STAFF))
    async def test_each_role_does_what_it_may_and_no_more(self, world: World, role: Role) -> None:
        """M15, row 92: of every address of the console."""
        wrong = []
        async with a_browser(world, world.keys[role]) as http:
            for method, path in the_routes():
                if (method, path) in OPEN or path.endswith("/sign-out"):
                    continue
                answer = await http.request(method, re.sub(r"\{[a-z_]+:uuid\}", str(new_id()), re.sub(r"\{[a-z_]+:(str|int)\}", "1", path)))
                refused = answer.status_code == 403 and "needs one of the roles" in answer.text
                wrong += [(method, path, answer.status_code)] if refused is (role in rule_of(method, path)) else []
        assert wrong == []

    @pytest.mark.parametrize("role", sorted(STAFF))
    async def test_pages_offer_each_role_what_it_may_do(self, world: World, shop: Shop, role: Role) -> None:
        pages = ["", "/attention", "/events", "/dead-letters/list", "/tax", "/reconciliation", "/keys", f"/orders/{shop.held.order_id}"]
        async with a_browser(world, world.keys[role]) as http:
            texts = [(await http.get(f"/console{page}")).text for page in [*pages, f"/dead-letters/{shop.letter}", f"/events/{shop.event}"]]
        offered = {("POST", found) for text in texts for found in OFFERED.findall(text)}
        offered |= {("GET", found) for text in texts for found in LEADING.findall(text)}

        assert {each for each in offered if role not in rule_of(*each)} == set()
        assert len(offered) > {Role.SUPPORT: 4, Role.FINANCE: 4, Role.ADMIN: 20, Role.OPERATOR: 10}[role]
        assert ("API keys of this store" in texts[pages.index("/keys")]) is (role is Role.ADMIN)

    async def test_support_cannot_discard_many(self, world: World, shop: Shop) -> None:
        body = {"action": "discard", "ids": [shop.letter], "reason": "noise"}
        answers = [
            await world.send("POST", "/api/v1/admin/dead-letters/redrives", {**body, "dry_run": True}, role=r) for r in sorted(STAFF)
        ]

        assert dict(zip(sorted(STAFF), (answer.status for answer in answers), strict=True)) == {
            Role.ADMIN: 201,
            Role.FINANCE: 403,
            Role.OPERATOR: 201,
            Role.SUPPORT: 403,
        }


class TestSigningIn:
    @pytest.mark.parametrize("role", sorted(STAFF))
    async def test_with_a_key_of_staff(self, world: World, role: Role) -> None:
        async with a_browser(world) as http:
            answer = await http.post(
                "/console/sign-in", data={"access_key": f" {world.keys[role]}\n", "next": "/console/orders?status=paid"}
            )
            page = await http.get("/console")

        cookie = answer.headers["set-cookie"].lower()
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/orders?status=paid")
        assert [word for word in ("httponly", "samesite=strict", "path=/") if word not in cookie] == []
        assert world.keys[role].lower() not in cookie
        assert page.status_code == 200

    async def test_is_refused_with_a_checkout_key(self, world: World) -> None:
        async with a_browser(world) as http:
            answer = await http.post("/console/sign-in", data={"access_key": world.keys[Role.CHECKOUT]})

        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
        assert "needs a key of one of the roles" in answer.text

    @pytest.mark.parametrize("key", ["", "nonsense", "tender_sandbox_00000000000000000000000000000000_" + "0" * 64])
    async def test_is_refused_with_no_key_at_all(self, world: World, key: str) -> None:
        async with a_browser(world) as http:
            answer = await http.post("/console/sign-in", data={"access_key": key})

        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
        assert "not valid" in answer.text

    @pytest.mark.parametrize("wanted", ["https://evil.example", "//evil.example", "/api/v1", "/console/sign-in", "/console\\@evil.example"])
    async def test_leads_nowhere_else(self, world: World, wanted: str) -> None:
        async with a_browser(world) as http:
            answer = await http.post("/console/sign-in", data={"access_key": world.keys[Role.OPERATOR], "next": wanted})

        assert (answer.status_code, answer.headers["location"]) == (303, "/console")

    async def test_the_table_holds_no_token(self, world: World) -> None:
        async with a_browser(world, world.keys[Role.OPERATOR]) as http:
            token = http.cookies["tender_session"]
        rows = await world.rows("SELECT encode(token_hash, 'escape') AS hash FROM gateway.console_sessions")

        assert rows
        assert [row for row in rows if token in row["hash"]] == []


class TestASession:
    async def test_ends_with_signing_out(self, world: World) -> None:
        async with a_browser(world, world.keys[Role.OPERATOR]) as http:
            token = http.cookies["tender_session"]
            csrf = CSRF.search((await http.get("/console")).text)
            assert csrf is not None
            answer = await http.post("/console/sign-out", data={"csrf": csrf[1]})
        async with a_browser(world) as thief:
            thief.cookies.set("tender_session", token)
            after = await thief.get("/console")

        assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")
        assert after.status_code == 303

    async def test_ends_with_its_key(self, world: World) -> None:
        key = await a_key(world.place, world.store_id, Role.OPERATOR)
        async with a_browser(world, key) as http:
            before = await http.get("/console")
            await world.change("UPDATE gateway.api_keys SET revoked_at = now() WHERE id = $1", UUID(key.split("_")[2]))
            after = await http.get("/console")

        assert (before.status_code, after.status_code) == (200, 303)

    async def test_ends_with_its_time(self, world: World) -> None:
        async with a_browser(world, world.keys[Role.OPERATOR]) as http:
            before = await http.get("/console")
            await world.change("UPDATE gateway.console_sessions SET expires_at = now()")
            after = await http.get("/console")

        assert (before.status_code, after.status_code) == (200, 303)

    async def test_sees_nothing_of_another_store(self, world: World, shop: Shop) -> None:
        other = await a_key(world.place, new_id(), Role.ADMIN)
        paths = [f"/orders/{shop.captured.order_id}", f"/dead-letters/{shop.letter}", f"/events/{shop.event}"]
        async with a_browser(world, other) as http:
            answers = [await http.get(f"/console{path}") for path in paths]
            lists = [await http.get(f"/console/{name}") for name in ("orders", "events", "shipments", "provider-calls", "attention")]

        assert [answer.status_code for answer in answers] == [404, 404, 404]
        assert [str(shop.captured.order_id) in page.text or str(shop.unknown) in page.text for page in lists] == [False] * 5


async def test_an_open_page_is_let_go_when_the_gateway_stops(own_place: Place) -> None:
    async with httpx.AsyncClient(timeout=30) as http, AsyncExitStack() as running:
        world = await running.enter_async_context(a_world(own_place))
        await http.post(f"{world.gateway_url}/console/sign-in", data={"access_key": world.keys[Role.OPERATOR]})
        async with http.stream("GET", f"{world.gateway_url}/console/orders", headers={"Accept": "text/event-stream"}) as watching:
            assert watching.headers["x-correlation-id"]
            told = watching.aiter_text()
            assert "event: changed" in await anext(told)
            stopping = asyncio.create_task(running.aclose())
            # To its end, as the gateway says it: an answer that is broken off raises.
            async for _ in told:
                pass
            await stopping


class TestAForm:
    async def test_sent_twice_does_it_once(self, world: World) -> None:
        payment = await world.a_captured_payment()
        path = f"/console/orders/{payment.order_id}/payments/{payment.id}/refund"
        async with a_browser(world, world.keys[Role.OPERATOR]) as http:
            page = (await http.get(path, params={"amount": "10.00"})).text
            form = {"csrf": _first(CSRF, page), "key": _first(KEY, page), "amount": "1000", "currency": "EUR"}
            answers = [await http.post(path, data=form) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [303, 303]
        assert await _refunds(payment) == [1_000]

    async def test_without_its_key_does_nothing(self, world: World) -> None:
        payment = await world.a_captured_payment()
        path = f"/console/orders/{payment.order_id}/payments/{payment.id}/refund"
        async with a_browser(world, world.keys[Role.OPERATOR]) as http:
            page = (await http.get(path)).text
            answer = await http.post(path, data={"csrf": _first(CSRF, page), "amount": "1000"})

        assert answer.status_code == 403
        assert await _refunds(payment) == []

    async def test_with_a_text_that_no_table_holds_is_refused_before_anything_is_sent(self, world: World, shop: Shop) -> None:
        path = f"/console/dead-letters/{shop.letter}"
        async with a_browser(world, world.keys[Role.OPERATOR]) as http:
            page = (await http.get(path)).text
            form = {"csrf": _first(CSRF, page), "key": _first(KEY, page), "reason": "nu\0l"}
            answer = await http.post(f"{path}/discard", data=form)

        assert (answer.status_code, "NUL" in answer.text) == (422, True)
        assert (await world.send("GET", f"/api/v1/admin/dead-letters/{shop.letter}")).json["letter"]["status"] == "waiting"

    async def test_leaves_a_row_of_who_did_it(self, world: World) -> None:
        payment = await world.a_payment()
        path = f"/console/orders/{payment.order_id}/payments/{payment.id}/void"
        async with a_browser(world, world.keys[Role.OPERATOR]) as http:
            page = (await http.get(path)).text
            await http.post(path, data={"csrf": _first(CSRF, page), "key": _first(KEY, page)})
        rows = await world.rows("SELECT actor FROM payments.admin_audit WHERE subject LIKE '%' || $1 || '%'", str(payment.id))

        assert (await payment.intent())["status"] == "voided"
        assert [row["actor"].split(":")[0] for row in rows] == ["operator"]


async def test_a_page_says_nothing_to_whoever_embeds_or_caches_it(world: World) -> None:
    async with a_browser(world, world.keys[Role.OPERATOR]) as http:
        headers = (await http.get("/console/orders")).headers

    assert (headers["cache-control"], headers["x-frame-options"], headers["x-content-type-options"]) == ("no-store", "DENY", "nosniff")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]


async def test_a_strangers_word_for_https_is_not_believed(world: World) -> None:
    async with a_browser(world) as http:
        answer = await http.get("/console/sign-in", headers={"X-Forwarded-Proto": "https"})

    assert "strict-transport-security" not in answer.headers


async def test_a_page_is_small(world: World) -> None:
    async with a_browser(world, world.keys[Role.OPERATOR]) as http:
        page = await http.get("/console/orders")
        names = re.findall(r'"(/console/static/[^"]+)"', page.text)
        files = [await http.get(name) for name in names]

    assert page.headers["content-encoding"] == "gzip"
    assert len(files) == 5
    assert all("immutable" in file.headers["cache-control"] for file in files)
    assert sum(int(file.headers["content-length"]) for file in files) < 40_000


# A text that ends the attribute or the element it is put into, unless it is escaped.
PLANTED = re.compile(r"&lt;u&gt;([a-z ]+)&lt;/u&gt;")
PLAIN = ("", "/orders", "/attention", "/events", "/dead-letters", "/dead-letters/list", "/shipments", "/reconciliation", "/keys", "/audit")
TEXTS = """
    WITH spans AS (UPDATE payments.spans
                      SET name = '{span}', attributes = jsonb_build_object('a', '{attribute}') WHERE trace_id = '{trace}'),
         holds AS (UPDATE payments.payment_intents SET attention = '{attention}' WHERE id = '{payment}'),
         calls AS (UPDATE payments.provider_call_audit SET url_path = '{path}', response = jsonb_build_object('message', '{answer}')),
         labels AS (UPDATE fulfillment.shipment_labels SET reason = '{label}'),
         events AS (UPDATE webhooks.webhook_events SET last_error = '{event}', event_type = '{type}' WHERE id = '{webhook}'),
         endpoints AS (UPDATE webhooks.webhook_endpoints SET url = '{address}', disabled_why = '{disabled}'),
         deliveries AS (UPDATE webhooks.webhook_deliveries SET last_error = '{delivery}'),
         runs AS (UPDATE reconciler.reconciliation_runs SET last_error = '{run}')
    UPDATE reconciler.drift_items SET key = '{key}', theirs = jsonb_build_object('status', '{theirs}')
"""


def planted(name: str) -> str:
    """A text with markup in it that says where it was planted."""
    return f"\"'><u>{name}</u>"


class TestMarkup:
    async def test_texts_with_markup_are_shown_as_texts(self, world: World, shop: Shop) -> None:
        """For a page that does not escape: what shoppers, providers and callers wrote would run in an operator's browser."""
        key = await setup.create_key(
            world.place.database_url, store_id=world.store_id, environment=Environment.SANDBOX, role=Role.ADMIN, name=planted("key name")
        )
        order_id = await world.an_order(items=[{**MUG, "name": planted("item")}])
        given_back = f"/api/v1/admin/orders/{shop.captured.order_id}/payments/{shop.captured.id}/refund"
        await tax_shop.ok(await world.send("POST", given_back, {"amount": 100, "reason": planted("refund")}))
        envelope = an_envelope(world, actor=planted("actor"), correlation_id=planted("request"))
        texts = {"dead_reason": planted("death"), "dead_traceback": planted("traceback")}
        await park(world, "payments", planted("message"), {"amount": planted("body")}, envelope, **texts)
        letter = await the_letter(world, envelope.id)
        await tax_shop.ok(await world.send("POST", "/api/v1/admin/webhook-endpoints", {"url": "http://127.0.0.1:9/hook"}))
        put_away = {"action": "discard", "ids": [str(new_id())], "reason": planted("reason")}
        redrive = await tax_shop.ok(await world.send("POST", "/api/v1/admin/dead-letters/redrives", put_away))
        await a_trace(world)
        await world.a_payment()
        await until(lambda: world.rows("SELECT FROM webhooks.webhook_deliveries"))
        names = re.findall(r"'{([a-z]+)}'", TEXTS.replace("{trace}", "").replace("{payment}", "").replace("{webhook}", ""))
        texts = {name: planted(name).replace("'", "''") for name in names}
        await world.change(TEXTS.format(trace=TRACE_ID, payment=shop.held.id, webhook=shop.event, **texts))

        asked = urlencode(dict.fromkeys(("text", "provider", "operation", "correlation_id", "event_type", "order_id"), planted("asked")))
        orders = [f"/orders/{each}" for each in (order_id, shop.captured.order_id, shop.held.order_id)]
        lists = [f"/{name}?{asked}" for name in ("orders", "events", "provider-calls", "traces", "audit", "attention", "shipments")]
        letters = [f"/dead-letters/{each}" for each in (letter["id"], f"{shop.letter}/edit", f"redrives/{redrive['id']}")]
        others = [f"/traces/{TRACE_ID}", f"/events/{shop.event}", "/provider-calls", "/traces", "/tax"]
        async with a_browser(world, key) as http:
            pages = {path: (await http.get(f"/console{path}")).text for path in (*PLAIN, *orders, *lists, *letters, *others)}

        assert [path for path, page in pages.items() if "<u>" in page] == []
        shown = {name for page in pages.values() for name in PLANTED.findall(page)}
        wanted = {"key name", "item", "refund", "actor", "request", "death", "traceback", "message", "body", "reason", "asked", *names}
        assert wanted - shown == set()

    def test_no_template_turns_escaping_off(self) -> None:
        """For one text that is taken for markup: the rule holds for all texts, so that no page needs a test of its own."""
        off = re.compile(r"\|\s*safe\b|autoescape|Markup")

        assert [path.name for path in TEMPLATES.glob("*.html") if off.search(path.read_text())] == []


def _first(pattern: re.Pattern[str], page: str) -> str:
    # The one of the form that does it, behind the one that signs out.
    return str(pattern.findall(page)[-1])


async def _refunds(payment: Payment) -> list[Any]:
    return [row["amount"] for row in await payment.transactions() if row["operation"] == "refund"]
