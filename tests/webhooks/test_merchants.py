"""What is told to merchants: signed, numbered, tried again, never into a private network, and there to catch up on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from aiohttp import web

from services.gateway.domain import Role
from services.webhooks.domain import DELIVERIES_OUT_PER_ENDPOINT_MAX, DELIVERY_SECONDS, Account, Incoming, delivery_again_seconds
from services.webhooks.handlers.posting import Messenger
from services.webhooks.providers.standard import STANDARD
from services.webhooks.store.deliveries import Due
from shared.bus import Publisher
from shared.contracts.payments import IntentChanged, IntentView
from shared.ids import new_id
from shared.messages import Envelope, Environment
from shared.outbound import OutboundCallFailed, OutboundFailure
from shared.outbox import parcel
from tests.leaks import kept_in
from tests.world import Answer, Payment, Place, World, a_key, a_world, until


class Merchant:
    """A merchant's server: what it was told, and how it answers, once it may."""

    def __init__(self) -> None:
        self.told: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        self.url = ""
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def take(self, request: web.Request) -> web.Response:
        self.told.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        await self.may_answer.wait()
        return web.Response(status=self.status, headers={"Location": self.url} if self.status == 302 else {})

    def events(self) -> list[Any]:
        return [msgspec.json.decode(body) for _, body in self.told]


@contextlib.asynccontextmanager
async def a_merchant(made: Merchant | None = None) -> AsyncIterator[Merchant]:
    merchant, app = made or Merchant(), web.Application()
    app.router.add_post("/hooks", merchant.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    merchant.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"
    try:
        yield merchant
    finally:
        await runner.cleanup()


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, webhooks={"allow_private_endpoints": True, "deliver_every_seconds": 0.1}) as made:
        yield made


@pytest.fixture(scope="module")
async def guarded(second_place: Place) -> AsyncIterator[World]:
    """A world whose merchants' addresses have to be public."""
    async with a_world(second_place, webhooks={}) as made:
        yield made


@pytest.fixture
async def merchant(world: World) -> AsyncIterator[Merchant]:
    async with a_merchant() as made:
        yield made
    for each in (await world.send("GET", "/api/v1/admin/webhook-endpoints")).json["endpoints"]:
        assert (await world.send("DELETE", f"/api/v1/admin/webhook-endpoints/{each['id']}")).status == 200


async def an_endpoint(world: World, url: str, *event_types: str) -> Any:
    answer = await world.send("POST", "/api/v1/admin/webhook-endpoints", {"url": url, "event_types": list(event_types)})
    assert answer.status == 200, answer
    return answer.json


async def secrets_of(world: World, endpoint: Any) -> list[str]:
    answer = await world.send("GET", f"/api/v1/admin/webhook-endpoints/{endpoint['id']}/secrets")
    assert answer.status == 200, answer
    found: list[str] = answer.json["secrets"]
    return found


async def deliveries(world: World, endpoint: Any, **filters: Any) -> Any:
    query = "&".join(f"{name}={value}" for name, value in {"endpoint_id": endpoint["id"], **filters}.items())
    answer = await world.send("GET", f"/api/v1/admin/webhook-deliveries?{query}")
    assert answer.status == 200, answer
    return answer.json["deliveries"]


async def endpoint_now(world: World, endpoint: Any) -> Any:
    found = (await world.send("GET", "/api/v1/admin/webhook-endpoints")).json["endpoints"]
    return next(each for each in found if each["id"] == endpoint["id"])


async def told(merchant: Merchant, count: int) -> None:
    async def so() -> bool:
        return len(merchant.told) >= count

    await until(so)


async def genuine(secret: str, headers: dict[str, str], body: bytes) -> bool:
    account = Account(provider="standard", store_id=new_id(), environment=Environment.SANDBOX, account="", secrets=(secret,))
    return bool((await STANDARD.open(Incoming(headers, body), [account], now=datetime.now(UTC))).genuine)


class TestTelling:
    async def test_is_signed_numbered_and_the_same_as_what_is_kept(self, world: World, merchant: Merchant) -> None:
        endpoint = await an_endpoint(world, merchant.url)
        [secret] = await secrets_of(world, endpoint)

        payment = await world.a_captured_payment()
        assert (await payment.refund(1_000)).status == 201
        await told(merchant, 3)

        assert [await genuine(secret, headers, body) for headers, body in merchant.told] == [True, True, True]
        events = sorted(merchant.events(), key=lambda e: e["sequence"])
        assert [(e["sequence"], e["type"], e["order_id"]) for e in events] == [
            (1, "payment.authorized", str(payment.order_id)),
            (2, "payment.captured", str(payment.order_id)),
            (3, "payment.partially_refunded", str(payment.order_id)),
        ]
        assert events[2]["data"]["payment"]["refunded_amount"] == 1_000
        assert events[2]["data"]["order_status"] == "partially_refunded"
        assert await self.kept_of(world, payment, 3) == events
        assert {headers["webhook-id"] for headers, _ in merchant.told} == {e["id"] for e in events}

        async def all_delivered() -> bool:
            return [d["status"] for d in await deliveries(world, endpoint)] == ["delivered"] * 3

        await until(all_delivered)

    async def kept_of(self, world: World, payment: Payment, count: int) -> list[Any]:
        """Read so many events of an order; they show once no transaction of the server, in whatever database, could overtake them."""
        kept: list[Any] = []

        async def all_there() -> bool:
            kept[:] = [e for e in await self.everything(world) if e["order_id"] == str(payment.order_id)]
            return len(kept) >= count

        await until(all_there)
        return kept

    async def everything(self, world: World) -> list[Any]:
        found: list[Any] = []
        after = ""
        while True:
            answer = await world.send("GET", f"/api/v1/events?limit=2{after}")
            assert answer.status == 200, answer
            found += answer.json["events"]
            if answer.json["next"] is None:
                return found
            after = f"&after={answer.json['next']}"

    async def test_tells_only_what_was_asked_for(self, world: World, merchant: Merchant) -> None:
        await an_endpoint(world, merchant.url, "payment.captured")

        await world.a_captured_payment()
        await told(merchant, 1)

        assert [e["type"] for e in merchant.events()] == ["payment.captured"]

    async def test_tells_once_however_often_the_bus_does_and_nothing_that_is_old(self, world: World, merchant: Merchant) -> None:
        endpoint = await an_endpoint(world, merchant.url)
        payment = await world.a_captured_payment()
        await told(merchant, 2)
        newest = max(merchant.events(), key=lambda e: e["sequence"])
        intent = msgspec.convert(newest["data"]["payment"], IntentView, strict=False)
        old = IntentChanged(intent=msgspec.structs.replace(intent, version=1), order_status="authorized")
        new = IntentChanged(intent=msgspec.structs.replace(intent, version=intent.version + 1), order_status="paid")
        cause = Envelope(
            id=new_id(),
            store_id=world.store_id,
            environment=Environment.SANDBOX,
            source="gateway",
            actor="tests",
            correlation_id="tests",
        )
        twice = parcel(new, cause)

        async with Publisher(world.place.amqp_url, name="tests") as publisher:
            for letter in (parcel(old, cause).letter(), twice.letter(), twice.letter()):
                await publisher.publish(letter)
        await told(merchant, 3)

        async def all_handled() -> bool:
            [row] = await world.rows("SELECT count(*) AS count FROM webhooks.inbox WHERE state <> 'done'")
            return bool(row["count"] == 0)

        await until(all_handled)
        assert [e["sequence"] for e in await self.kept_of(world, payment, 3)] == [1, 2, 3]
        assert len(await deliveries(world, endpoint)) == 3


class TestTrying:
    @pytest.mark.parametrize(("status", "error"), [(500, "status_500"), (404, "status_404"), (302, "redirected")])
    async def test_again_after_anything_but_a_yes_and_at_once_when_told_to(
        self, world: World, merchant: Merchant, status: int, error: str
    ) -> None:
        merchant.status = status
        endpoint = await an_endpoint(world, merchant.url, "payment.authorized")
        await world.a_payment()
        await told(merchant, 1)

        async def tried() -> Any:
            return next((d for d in await deliveries(world, endpoint) if d["attempt_count"] == 1), None)

        delivery = await until(tried)
        assert (delivery["status"], delivery["last_status"], delivery["last_error"]) == ("pending", status, error)
        assert (await endpoint_now(world, endpoint))["failing_since"] is not None
        merchant.status = 204
        answer = await world.send("POST", f"/api/v1/admin/webhook-deliveries/{delivery['id']}/redeliver")
        assert (answer.status, answer.json["status"]) == (200, "pending")

        async def delivered() -> bool:
            return [d["status"] for d in await deliveries(world, endpoint)] == ["delivered"]

        await until(delivered)
        assert (await endpoint_now(world, endpoint))["failing_since"] is None
        assert [e["sequence"] for e in merchant.events()] == [1, 1]

    async def test_nobody_there_is_written_down(self, world: World, merchant: Merchant) -> None:
        endpoint = await an_endpoint(world, "http://127.0.0.1:9/nobody", "payment.authorized")
        await world.a_payment()

        async def tried() -> Any:
            return next((d for d in await deliveries(world, endpoint) if d["last_error"]), None)

        delivery = await until(tried)
        assert (delivery["last_status"], delivery["status"], delivery["last_error"]) == (None, "pending", "connection_failed")

    async def test_ends_after_the_last_try_and_can_be_begun_again(self, world: World, merchant: Merchant) -> None:
        merchant.status = 500
        endpoint = await an_endpoint(world, merchant.url, "payment.authorized")
        await world.a_payment()
        await told(merchant, 1)
        await world.change(
            "UPDATE webhooks.webhook_deliveries SET attempt_count = $2, next_attempt_at = now() WHERE endpoint_id = $1",
            UUID(endpoint["id"]),
            len(DELIVERY_SECONDS),
        )

        async def failed() -> Any:
            return next(iter(await deliveries(world, endpoint, status="failed")), None)

        delivery = await until(failed)
        merchant.status = 200
        await world.send("POST", f"/api/v1/admin/webhook-deliveries/{delivery['id']}/redeliver")

        async def delivered() -> bool:
            return bool(await deliveries(world, endpoint, status="delivered"))

        await until(delivered)

    def test_takes_three_days_in_all_with_jitter(self) -> None:
        assert 3 * 24 * 3600 <= sum(DELIVERY_SECONDS) <= 3.1 * 24 * 3600
        assert delivery_again_seconds(0, spread=0.0) == pytest.approx(4.0)
        assert delivery_again_seconds(0, spread=1.0) == pytest.approx(6.0)
        assert delivery_again_seconds(len(DELIVERY_SECONDS), spread=0.5) is None


class TestSlowMerchants:
    async def test_one_that_does_not_answer_is_told_a_few_at_once_and_holds_nobody_else_up(self, world: World, merchant: Merchant) -> None:
        merchant.may_answer.clear()
        slow = await an_endpoint(world, merchant.url, "payment.authorized")
        async with a_merchant() as quick:
            await an_endpoint(world, quick.url, "payment.authorized")
            count = DELIVERIES_OUT_PER_ENDPOINT_MAX + 3

            for _ in range(count):
                await world.a_payment()
            await told(quick, count)
            await told(merchant, DELIVERIES_OUT_PER_ENDPOINT_MAX)
            assert len(merchant.told) == DELIVERIES_OUT_PER_ENDPOINT_MAX
            merchant.may_answer.set()

            async def all_delivered() -> bool:
                return [d["status"] for d in await deliveries(world, slow)] == ["delivered"] * count

            await until(all_delivered)
        assert len(merchant.told) == count


class TestDisabling:
    async def test_at_once_when_it_is_gone(self, world: World, merchant: Merchant) -> None:
        merchant.status = 410
        endpoint = await an_endpoint(world, merchant.url)
        await world.a_payment()

        async def disabled() -> Any:
            now = await endpoint_now(world, endpoint)
            return None if now["enabled"] else now

        assert "410" in (await until(disabled))["disabled_why"]
        assert {d["status"] for d in await deliveries(world, endpoint)} == {"failed"}

    async def test_after_long_failure_and_enabled_again_by_hand(self, world: World, merchant: Merchant) -> None:
        merchant.status = 500
        endpoint = await an_endpoint(world, merchant.url)
        await world.a_payment()
        await told(merchant, 1)

        async def failing() -> bool:
            found = "SELECT FROM webhooks.webhook_endpoints WHERE id = $1 AND enabled AND failing_since > now() - interval '1 hour'"
            return bool(await world.rows(found, UUID(endpoint["id"])))

        await until(failing)
        await world.change(
            "UPDATE webhooks.webhook_endpoints SET failing_since = failing_since - interval '6 days' WHERE id = $1", UUID(endpoint["id"])
        )

        async def disabled() -> bool:
            return not (await endpoint_now(world, endpoint))["enabled"]

        await until(disabled)
        merchant.status = 200
        answer = await world.send("PUT", f"/api/v1/admin/webhook-endpoints/{endpoint['id']}", {"url": merchant.url})
        assert (answer.status, answer.json["enabled"], answer.json["disabled_why"]) == (200, True, None)
        metrics = (await world.http.get(f"{world.monitoring['webhooks']}/metrics")).text
        assert "tender_merchant_endpoints_disabled_total" in metrics


class TestSecrets:
    async def test_rotate_with_both_active(self, world: World, merchant: Merchant) -> None:
        endpoint = await an_endpoint(world, merchant.url, "payment.authorized")
        [old] = await secrets_of(world, endpoint)

        assert (await world.send("POST", f"/api/v1/admin/webhook-endpoints/{endpoint['id']}/rotate-secret")).status == 200

        new, still = await secrets_of(world, endpoint)
        assert (still, new != old) == (old, True)
        await world.a_payment()
        await told(merchant, 1)
        headers, body = merchant.told[0]
        assert [await genuine(secret, headers, body) for secret in (old, new)] == [True, True]

    async def test_stand_in_no_stored_answer(self, world: World, merchant: Merchant) -> None:
        endpoint = await an_endpoint(world, merchant.url)
        [secret] = await secrets_of(world, endpoint)

        assert await kept_in(world.place, secret) == []


class TestRefusing:
    @pytest.mark.parametrize(
        "url",
        [
            "http://hooks.example.com/",
            "https://127.0.0.1/",
            "https://localhost/",
            "https://db.internal/",
            "https://10.1.2.3/",
            "https://192.168.0.1:8443/",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[fd00::1]/",
            "https://[64:ff9b:1::1]/",
            "https://１２７.0.0.1/",
            "https://①⓪.0.0.1/",
            "https://127。0。0。1/",
            "https://localhost./",
            "https://user:secret@hooks.example.com/",
            "https://127.1/",
            "https://0x7f000001/",
            "https://127.0.0.1./",
            "https://[::127.0.0.1]/",
            "https://[2002:7f00:1::]/",
            "https://127%2e0.0.1/",
            "https://hooks.example.invalid/",
            "https://hooks.example.com:6379/",
            "https://[not-an-address/",
            "https://hooks.example.com:port/",
            "https://",
        ],
    )
    async def test_private_targets(self, guarded: World, url: str) -> None:
        answer = await guarded.send("POST", "/api/v1/admin/webhook-endpoints", {"url": url})

        assert (answer.status, answer.code) == (422, "endpoint-not-public")

    async def test_a_public_one_is_fine(self, guarded: World) -> None:
        answer = await guarded.send("POST", "/api/v1/admin/webhook-endpoints", {"url": "https://ｈooks.Example.com/tender"})

        assert (answer.status, answer.json["url"]) == (200, "https://hooks.example.com/tender")

    async def test_an_endpoint_that_may_not_be_called_says_only_so(self, guarded: World, merchant: Merchant) -> None:
        endpoint = await an_endpoint(guarded, "https://hooks.example.com/tender")
        await guarded.change("UPDATE webhooks.webhook_endpoints SET url = $1", merchant.url.replace("http:", "https:"))
        await guarded.a_payment()

        async def tried() -> Any:
            return next((d for d in await deliveries(guarded, endpoint) if d["attempt_count"] == 1), None)

        delivery = await until(tried)
        assert (delivery["last_status"], delivery["last_error"]) == (None, "not_allowed")
        assert merchant.told == []

    @pytest.mark.parametrize("host", ["127.0.0.1", "１２７.0.0.1", "127。0。0。1", "[::ffff:127.0.0.1]", "localhost"])
    async def test_an_address_inside_is_not_called_however_it_is_written(self, merchant: Merchant, host: str) -> None:
        messenger = Messenger(allow_private=False, timeout_seconds=5.0)
        url = merchant.url.replace("127.0.0.1", host)
        due = Due(
            id=new_id(), endpoint_id=new_id(), event_id=new_id(), attempt_count=0, url=url, secrets=[], body=b"{}", correlation_id="tests"
        )

        with pytest.raises(OutboundCallFailed) as refused:
            await messenger.post(due)
        await messenger.close()

        assert refused.value.failure is OutboundFailure.NOT_ALLOWED
        assert merchant.told == []

    async def test_what_is_not_there_or_another_stores(self, world: World, merchant: Merchant) -> None:
        endpoint = await an_endpoint(world, merchant.url)
        stranger = await a_key(world.place, new_id(), Role.ADMIN)

        async def ask(method: str, path: str, **how: Any) -> Answer:
            return await world.send(method, f"/api/v1/{path}", **how)

        mine = f"admin/webhook-endpoints/{endpoint['id']}"
        body = {"url": merchant.url}
        answers = [
            await ask("PUT", mine, body=body, token=stranger),
            await ask("DELETE", mine, token=stranger),
            await ask("POST", f"{mine}/rotate-secret", token=stranger),
            await ask("GET", f"{mine}/secrets", token=stranger),
            await ask("PUT", f"admin/webhook-endpoints/{new_id()}", body=body),
            await ask("POST", f"admin/webhook-deliveries/{new_id()}/redeliver"),
            await ask("GET", f"events?after={new_id()}"),
        ]

        assert [a.status for a in answers] == [404] * len(answers)
        assert (await ask("GET", "admin/webhook-endpoints", token=stranger)).json == {"endpoints": []}

    async def test_who_may_not(self, world: World) -> None:
        assert (await world.send("GET", "/api/v1/events", role=Role.CHECKOUT)).status == 403


class TestDue:
    async def test_a_failed_delivery_is_made_again_by_itself_when_it_is_due(self, world: World, merchant: Merchant) -> None:
        merchant.status = 500
        endpoint = await an_endpoint(world, merchant.url, "payment.authorized")
        await world.a_payment()
        await told(merchant, 1)
        merchant.status = 200
        await world.change("UPDATE webhooks.webhook_deliveries SET next_attempt_at = now() WHERE endpoint_id = $1", UUID(endpoint["id"]))

        async def delivered() -> bool:
            return bool(await deliveries(world, endpoint, status="delivered"))

        await until(delivered)
