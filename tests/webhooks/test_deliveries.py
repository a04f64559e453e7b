"""What merchants' endpoints can do to deliveries, by the rows of the security report: hang, ask for a pause, come back, change."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from aiohttp import web

from services.gateway.domain import Role
from services.webhooks.domain import (
    DELIVERIES_OUT_PER_STORE_MAX,
    DELIVERIES_OUT_PER_STORE_TIMING_OUT_MAX,
    RETRY_AFTER_MAX_SECONDS,
    retry_after_seconds,
)
from services.webhooks.handlers.posting import Messenger
from shared.bus import Publisher
from shared.contracts.payments import IntentChanged, IntentView
from shared.ids import new_id
from shared.messages import Envelope, Environment
from shared.outbound import OutboundCallFailed, OutboundFailure
from shared.outbox import parcel
from tests.webhooks.test_merchants import Merchant, a_merchant, an_endpoint, deliveries, endpoint_now, genuine, secrets_of, told
from tests.world import Place, World, a_key, a_world, until

# Long enough that no delivery of a test times out.
DELIVERY_TIMEOUT_SECONDS = 60.0
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    changes = {"allow_private_endpoints": True, "deliver_every_seconds": 0.1, "delivery_timeout_seconds": DELIVERY_TIMEOUT_SECONDS}
    async with a_world(place, webhooks=changes) as made:
        yield made


@pytest.fixture
async def merchant(world: World) -> AsyncIterator[Merchant]:
    async with a_merchant() as made:
        yield made
        made.may_answer.set()
    await world.change("DELETE FROM webhooks.webhook_endpoints")


async def put_endpoint(world: World, endpoint: Any, **changes: Any) -> Any:
    body = {name: endpoint[name] for name in ("url", "event_types", "enabled")}
    answer = await world.send("PUT", f"/api/v1/admin/webhook-endpoints/{endpoint['id']}", {**body, **changes})
    assert answer.status == 200, answer
    return answer.json


class Scripted(Merchant):
    """A merchant whose first answers are written down: a status and headers for each, after its gate has opened."""

    def __init__(self, *answers: tuple[asyncio.Event | None, int, dict[str, str]]) -> None:
        super().__init__()
        self._answers = list(answers)

    async def take(self, request: web.Request) -> web.Response:
        gate, status, headers = self._answers.pop(0) if self._answers else (None, 200, {})
        self.told.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        if gate is not None:
            await gate.wait()
        return web.Response(status=status, headers=headers)


async def announce(world: World, *kinds: str, store_id: UUID | None = None) -> list[UUID]:
    """Have events happen at a store, each of an order of its own, as payments would announce them; gives their ids."""
    parcels = [
        parcel(
            IntentChanged(intent=an_intent(kind), order_status="paid"),
            Envelope(
                id=new_id(),
                store_id=store_id or world.store_id,
                environment=Environment.SANDBOX,
                source="gateway",
                actor="tests",
                correlation_id="tests",
            ),
        )
        for kind in kinds
    ]
    async with Publisher(world.place.amqp_url, name="tests") as publisher:
        for each in parcels:
            await publisher.publish(each.letter())
    return [each.id for each in parcels]


def an_intent(status: str) -> IntentView:
    return IntentView(
        id=new_id(),
        order_id=new_id(),
        snapshot_id=new_id(),
        provider="sandbox",
        status=status,
        currency="EUR",
        authorized_amount=0,
        captured_amount=0,
        refunded_amount=0,
        voided_amount=0,
        charged_back_amount=0,
        capture_reserved=0,
        refund_reserved=0,
        attention=None,
        next_action=None,
        authorization_expires_at=None,
        version=1,
        created_at=NOW,
        updated_at=NOW,
    )


async def delivery_of(world: World, endpoint: Any, **expected: Any) -> Any:
    """Wait until an endpoint's newest delivery is as expected."""

    async def so() -> Any:
        found = await deliveries(world, endpoint)
        return found[0] if found and all(found[0][name] == value for name, value in expected.items()) else None

    return await until(so)


class TestShares:
    """M1, row 50: no store takes more than a quarter, endpoints that time out less."""

    async def test_a_stores_hanging_endpoints_hold_up_no_other_store(self, world: World, merchant: Merchant) -> None:
        merchant.may_answer.clear()
        for _ in range(20):
            await an_endpoint(world, merchant.url)
        neighbour = new_id()
        token = await a_key(world.place, neighbour, Role.ADMIN)
        async with a_merchant() as quick:
            await world.send("POST", "/api/v1/admin/webhook-endpoints", {"url": quick.url}, token=token)

            await announce(world, *["authorized"] * 4)
            await told(merchant, DELIVERIES_OUT_PER_STORE_MAX)
            await announce(world, "captured", store_id=neighbour)
            await told(quick, 1)

            assert len(merchant.told) == DELIVERIES_OUT_PER_STORE_MAX
            merchant.may_answer.set()
            await told(merchant, 80)

    async def test_an_endpoint_that_timed_out_gets_one_place(self, world: World, merchant: Merchant) -> None:
        merchant.may_answer.clear()
        slow = await an_endpoint(world, merchant.url)
        await world.change("UPDATE webhooks.webhook_endpoints SET timeout_count = 3 WHERE id = $1", UUID(slow["id"]))
        async with a_merchant() as quick:
            await an_endpoint(world, quick.url)

            await announce(world, *["authorized"] * 4)
            await told(quick, 4)
            await told(merchant, 1)

            assert len(merchant.told) == 1
            merchant.may_answer.set()
            await told(merchant, 4)
        assert await self.timeouts(world, slow) == 0

    async def test_endpoints_that_time_out_share_half_of_their_stores(self, world: World, merchant: Merchant) -> None:
        merchant.may_answer.clear()
        for _ in range(12):
            await an_endpoint(world, merchant.url)
        await world.change("UPDATE webhooks.webhook_endpoints SET timeout_count = 1")
        async with a_merchant() as quick:
            await an_endpoint(world, quick.url)

            await announce(world, *["authorized"] * 2)
            await told(quick, 2)
            await told(merchant, DELIVERIES_OUT_PER_STORE_TIMING_OUT_MAX)

            assert len(merchant.told) == DELIVERIES_OUT_PER_STORE_TIMING_OUT_MAX

    async def test_a_time_out_is_counted(self, world: World, merchant: Merchant, monkeypatch: pytest.MonkeyPatch) -> None:
        async def hang(*_: Any) -> Any:
            raise OutboundCallFailed(OutboundFailure.TIMED_OUT, "no answer in time")

        monkeypatch.setattr(Messenger, "post", hang)
        endpoint = await an_endpoint(world, merchant.url)

        await announce(world, "authorized")
        await delivery_of(world, endpoint, attempt_count=1, last_status=None)

        assert await self.timeouts(world, endpoint) == 1

    async def timeouts(self, world: World, endpoint: Any) -> int:
        [row] = await world.rows("SELECT timeout_count FROM webhooks.webhook_endpoints WHERE id = $1", UUID(endpoint["id"]))
        return int(row["timeout_count"])


class TestLease:
    @pytest.mark.parametrize(("late", "status"), [(500, 200), (200, 500)])
    async def test_a_sender_without_the_lease_writes_nothing(self, world: World, late: int, status: int) -> None:
        gate, before = asyncio.Event(), await self._superseded(world)
        async with a_merchant(Scripted((gate, late, {}), (None, status, {}))) as merchant:
            endpoint = await an_endpoint(world, merchant.url)
            await announce(world, "authorized")
            await told(merchant, 1)

            # The first sender stands still, and its lease runs out.
            await world.change(
                "UPDATE webhooks.webhook_deliveries SET next_attempt_at = now() WHERE endpoint_id = $1", UUID(endpoint["id"])
            )
            await delivery_of(world, endpoint, last_status=status)
            gate.set()

            async def written() -> bool:
                return await self._superseded(world) > before

            await until(written)
            [delivery] = await deliveries(world, endpoint)
            expected = ("delivered", 200, 1) if status == 200 else ("pending", 500, 1)
            assert (delivery["status"], delivery["last_status"], delivery["attempt_count"]) == expected
            assert ((await endpoint_now(world, endpoint))["failing_since"] is None) is (status == 200)

    async def _superseded(self, world: World) -> float:
        metrics = (await world.http.get(f"{world.monitoring['webhooks']}/metrics")).text
        found = re.search(r'^tender_merchant_deliveries_total{result="superseded"} (\S+)', metrics, re.MULTILINE)
        return 0.0 if found is None else float(found[1])

    @pytest.mark.parametrize("status", [200, 500])
    async def test_a_result_waits_for_its_endpoint_first(self, world: World, status: int) -> None:
        """Or deleting an endpoint, which takes its deliveries with it, and a result would wait for each other."""
        gate = asyncio.Event()
        async with a_merchant(Scripted((gate, status, {}))) as merchant:
            endpoint = await an_endpoint(world, merchant.url)
            await world.change("UPDATE webhooks.webhook_endpoints SET timeout_count = 1 WHERE id = $1", UUID(endpoint["id"]))
            await announce(world, "authorized")
            await told(merchant, 1)
            connection = await asyncpg.connect(world.place.database_url)
            async with connection.transaction():
                await connection.execute("SELECT FROM webhooks.webhook_endpoints WHERE id = $1 FOR UPDATE", UUID(endpoint["id"]))
                gate.set()
                waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                await until(lambda: world.rows(waiting))

                locked = "SELECT FROM webhooks.webhook_deliveries WHERE endpoint_id = $1 FOR UPDATE NOWAIT"
                assert len(await connection.fetch(locked, UUID(endpoint["id"]))) == 1
            await connection.close()
            await delivery_of(world, endpoint, attempt_count=1)


class TestRetryAfter:
    """Row 47: an endpoint that asks for a pause gets it."""

    async def test_the_whole_endpoint_pauses_until_redelivered(self, world: World) -> None:
        async with a_merchant(Scripted((None, 429, {"Retry-After": "3600"}))) as merchant, a_merchant() as quick:
            endpoint = await an_endpoint(world, merchant.url)
            await announce(world, "authorized")
            first = await delivery_of(world, endpoint, last_status=429)
            assert datetime.fromisoformat(first["next_attempt_at"]) > datetime.now(UTC) + timedelta(minutes=55)

            await an_endpoint(world, quick.url)
            await announce(world, "captured")
            await told(quick, 1)
            assert len(merchant.told) == 1

            await world.send("POST", f"/api/v1/admin/webhook-deliveries/{first['id']}/redeliver")
            await told(merchant, 3)
        await world.change("DELETE FROM webhooks.webhook_endpoints")

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("120", 120.0),
            (" 7 ", 7.0),
            ("0", None),
            ("-5", None),
            ("1.5", None),
            ("9" * 5000, RETRY_AFTER_MAX_SECONDS),
            ("Mon, 30 Nov 2026 12:01:00 GMT", 60.0),
            ("Mon, 30 Nov 2026 11:59:00 GMT", None),
            ("Mon, 30 Nov 2028 12:00:00 GMT", RETRY_AFTER_MAX_SECONDS),
            ("Mon, 99 Nov 9999999999 12:00:00 GMT", None),
            ("soon", None),
            ("", None),
            (None, None),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_is_read_as_seconds_or_a_date(self, text: str | None, seconds: float | None) -> None:
        assert retry_after_seconds(text, now=NOW) == seconds


class TestChanging:
    """Rows 46 and 48: what an endpoint does not want any more ends; what it has missed comes when it asks."""

    async def test_narrowed_types_end_pending_deliveries(self, world: World, merchant: Merchant) -> None:
        merchant.status = 500
        endpoint = await an_endpoint(world, merchant.url)
        await announce(world, "authorized", "captured")
        await told(merchant, 2)

        await put_endpoint(world, endpoint, event_types=["payment.captured"])

        found = {each["event_type"]: each for each in await deliveries(world, endpoint)}
        assert {kind: each["status"] for kind, each in found.items()} == {"payment.authorized": "failed", "payment.captured": "pending"}
        assert "no events of this type" in found["payment.authorized"]["last_error"]

    async def test_disabling_ends_pending_deliveries(self, world: World, merchant: Merchant) -> None:
        merchant.status = 500
        endpoint = await an_endpoint(world, merchant.url)
        await announce(world, "authorized")
        await told(merchant, 1)

        await put_endpoint(world, endpoint, enabled=False)

        assert [each["status"] for each in await deliveries(world, endpoint)] == ["failed"]

    async def test_recover_delivers_what_was_missed_once(self, world: World, merchant: Merchant) -> None:
        since = datetime.now(UTC) - timedelta(minutes=1)
        endpoint = await an_endpoint(world, merchant.url, "payment.authorized", "payment.captured")
        witness = await an_endpoint(world, merchant.url, "payment.voided", "payment.captured")
        await put_endpoint(world, endpoint, enabled=False)
        missed = await announce(world, "authorized", "captured", "voided")
        await told(merchant, 2)
        path = f"/api/v1/admin/webhook-endpoints/{endpoint['id']}/recover"

        refused = await world.send("POST", path, {"since": since.isoformat()})
        await put_endpoint(world, endpoint, enabled=True)
        answer = await world.send("POST", path, {"since": since.isoformat()})

        assert (refused.status, refused.code) == (409, "endpoint-disabled")
        assert answer.status == 200, answer
        await told(merchant, 2 + answer.json["count"])
        got = {UUID(each["event_id"]) for each in await deliveries(world, endpoint)}
        assert set(missed[:2]) <= got
        assert missed[2] not in got
        await self.all_delivered(world, endpoint)
        assert (await world.send("POST", path, {"since": since.isoformat()})).json == {"count": 0, "more": False}
        assert len(await deliveries(world, witness)) == 2

    async def all_delivered(self, world: World, endpoint: Any) -> None:
        async def so() -> bool:
            return {each["status"] for each in await deliveries(world, endpoint)} == {"delivered"}

        await until(so)

    async def test_recover_refuses_what_is_not_there(self, world: World, merchant: Merchant) -> None:
        endpoint = await an_endpoint(world, merchant.url)
        stranger = await a_key(world.place, new_id(), Role.ADMIN)
        path, body = f"/api/v1/admin/webhook-endpoints/{endpoint['id']}/recover", {"since": NOW.isoformat()}

        assert (await world.send("POST", path, body, token=stranger)).status == 404
        assert (await world.send("POST", path, {"since": "2026-11-30T12:00:00"})).status == 422


class TestSigningSecrets:
    """M7, row 119: sealed at rest, and read by an operation that is in the audit."""

    async def test_a_row_holds_nothing_to_sign_with(self, world: World, merchant: Merchant) -> None:
        endpoint = await an_endpoint(world, merchant.url)
        [secret] = await secrets_of(world, endpoint)

        [row] = await world.rows("SELECT secrets, key_version FROM webhooks.webhook_endpoints WHERE id = $1", UUID(endpoint["id"]))

        assert secret.startswith("whsec_")
        assert [each.split(":")[:2] for each in row["secrets"]] == [["sealed", "1"]]
        assert row["key_version"] == 1

    async def test_reading_them_is_in_the_audit(self, world: World, merchant: Merchant) -> None:
        endpoint = await an_endpoint(world, merchant.url)
        await secrets_of(world, endpoint)

        found = (await world.send("GET", f"/api/v1/admin/audit?text={endpoint['id']}")).json["actions"]

        assert [each["action"] for each in found][:1] == ["webhooks.get_secrets.v1"]
        assert endpoint["id"] in found[0]["subject"]

    async def test_what_was_in_the_clear_is_sealed(self, world: World, merchant: Merchant) -> None:
        endpoint = await an_endpoint(world, merchant.url)
        plain = "whsec_" + "c2VjcmV0" * 5 + "c2U="
        sql = "UPDATE webhooks.webhook_endpoints SET secrets = ARRAY[$2], key_version = 0 WHERE id = $1"
        await world.change(sql, UUID(endpoint["id"]), plain)

        async def sealed() -> bool:
            [row] = await world.rows("SELECT secrets FROM webhooks.webhook_endpoints WHERE id = $1", UUID(endpoint["id"]))
            return str(row["secrets"][0]).startswith("sealed:1:")

        await until(sealed)
        await announce(world, "authorized")
        await told(merchant, 1)
        assert await secrets_of(world, endpoint) == [plain]
        assert await genuine(plain, *merchant.told[0])

    async def test_one_of_another_endpoint_does_not_open(self, world: World, merchant: Merchant) -> None:
        endpoint, other = await an_endpoint(world, merchant.url), await an_endpoint(world, merchant.url)
        sql = "UPDATE webhooks.webhook_endpoints SET secrets = (SELECT secrets FROM webhooks.webhook_endpoints WHERE id = $2) WHERE id = $1"
        await world.change(sql, UUID(endpoint["id"]), UUID(other["id"]))

        await announce(world, "authorized")
        delivery = await delivery_of(world, endpoint, attempt_count=1)
        answer = await world.send("GET", f"/api/v1/admin/webhook-endpoints/{endpoint['id']}/secrets")

        assert delivery["last_error"] == "signing_secret_unavailable"
        assert answer.status == 503
