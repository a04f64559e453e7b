"""What staff look through: how everything is, orders, what needs somebody, what providers were asked, and the keys there are."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner

from deploy.cli import cli
from services.gateway.domain import Role
from shared.ids import new_id
from tests.reconciler.letters import an_envelope, park, the_letter
from tests.world import KEY_ROLES, Payment, Place, World, a_key, a_world, until


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(
        place, gateway={"sample_every_seconds": 0.2, "part_timeout_seconds": 1.0}, webhooks={"allow_private_endpoints": True}, reconciler={}
    ) as made:
        yield made


async def _overview(world: World, token: str | None = None) -> Any:
    """The overview as an operator has it, or the owner of another key."""
    return await _get(world, "overview", token=token or world.keys[Role.OPERATOR])


async def _get(world: World, path: str, **how: Any) -> Any:
    answer = await world.send("GET", f"/api/v1/admin/{path}", **how)
    assert answer.status == 200, answer
    return answer.json


async def _whole(world: World, path: str) -> Any:
    """Ask until payments has told its part: who is slow is named as missing, as is who is not there."""

    async def complete() -> Any:
        page = await _get(world, path)
        return None if "payments" in page["missing"] else page

    return await until(complete)


class TestTheOverview:
    async def test_tells_of_every_service_and_names_the_one_that_is_down(self, world: World) -> None:
        await world.a_payment()

        told = await _overview(world)

        by_name = {each["service"]: each for each in told["services"]}
        assert list(by_name) == ["gateway", "payments", "webhooks", "fulfillment", "reconciler"]
        assert {name: each["up"] for name, each in by_name.items()} == {
            **dict.fromkeys(("gateway", "payments", "webhooks", "reconciler"), True),
            "fulfillment": False,
        }
        payments, down = by_name["payments"], by_name["fulfillment"]
        assert (payments["consumers"], payments["vitals"]["handled_per_second"] > 0, payments["vitals"]["p95_seconds"] > 0) == (
            1,
            True,
            True,
        )
        assert (down["vitals"], down["consumers"]) == (None, 0)
        assert (told["unknown_outcomes"], told["drift_open"]) == (0, 0)

    async def test_counts_what_waits_for_somebody(self, world: World) -> None:
        envelope = an_envelope(world)
        await park(world, "payments", "payments.capture.v1", {"order_id": "x"}, envelope)
        await the_letter(world, envelope.id)

        counted = await until(lambda: self._letters(world))

        assert counted >= 1

    async def _letters(self, world: World) -> int:
        told = await _overview(world)
        return int(next(each["dead_letters"] for each in told["services"] if each["service"] == "payments"))

    async def test_of_a_store_counts_its_own(self, world: World) -> None:
        """Row 90, L13."""
        other = await a_key(world.place, new_id(), Role.ADMIN)
        envelope = an_envelope(world)
        await park(world, "payments", "payments.capture.v1", {"order_id": "x"}, envelope)
        await the_letter(world, envelope.id)

        own, others = [await _overview(world, key) for key in (world.keys[Role.ADMIN], other)]

        letters = [{each["service"]: each["dead_letters"] for each in told["services"]}["payments"] for told in (own, others)]
        assert (letters[0] >= 1, letters[1]) == (True, 0)
        hidden = [each[name] for told in (own, others) for each in told["services"] for name in ("vitals", "depth", "parked", "consumers")]
        assert set(hidden) == {None}
        assert (others["unknown_outcomes"], others["drift_open"], others["unrouted"]) == (0, 0, None)

    async def test_remembers_how_it_was(self, world: World) -> None:
        samples = await until(lambda: self._samples(world))

        assert [each["taken_at"] for each in samples] == sorted(each["taken_at"] for each in samples)
        assert {each["depth"] for each in samples} == {0}

    async def _samples(self, world: World) -> Any:
        told = await _overview(world)
        found = next(each["samples"] for each in told["services"] if each["service"] == "payments")
        return found if len(found) >= 3 else None


class TestOrders:
    async def test_are_paged_the_newest_first(self, world: World) -> None:
        made = [str(await world.an_order()) for _ in range(5)]

        first = await _get(world, "orders?limit=3")
        second = await _get(world, f"orders?limit=2&before={first['next']}")

        assert [each["id"] for each in first["orders"]] == made[:1:-1]
        assert [each["id"] for each in second["orders"]] == made[1::-1]

    async def test_are_found_by_any_id(self, world: World) -> None:
        customer_id = new_id()
        payment = await world.a_payment(customer_id=str(customer_id))
        transaction = (await payment.transactions())[0]
        theirs = payment.at_the_provider().id

        found = [
            [each["id"] for each in (await _get(world, f"orders?text={text}"))["orders"]]
            for text in (payment.order_id, customer_id, payment.id, transaction["id"], theirs, transaction["provider_txn_id"])
        ]

        assert found == [[str(payment.order_id)]] * 6
        assert (await _get(world, "orders?text=nothing%20like%20it"))["orders"] == []

    async def test_are_narrowed_by_status_with_their_latest_payment(self, world: World) -> None:
        payment = await world.a_captured_payment()
        refused = await world.an_order()
        await world.authorize(refused, await world.a_snapshot(refused), "tok_declined_lost_card")

        paid = (await _get(world, "orders?status=paid"))["orders"]
        still_open = (await _get(world, "orders?status=open"))["orders"]

        shown = next(each for each in paid if each["id"] == str(payment.order_id))
        assert {each["status"] for each in paid} == {"paid"}
        assert (shown["payment_status"], shown["provider"], shown["payments"], shown["total"]) == ("captured", "sandbox", 1, 10_000)
        assert next(each["payment_status"] for each in still_open if each["id"] == str(refused)) == "declined"

    async def test_of_another_store_are_not_there(self, world: World) -> None:
        payment = await world.a_payment()
        other = await a_key(world.place, new_id(), Role.ADMIN)

        listed = await _get(world, "orders", token=other)
        found = await _get(world, f"orders?text={payment.at_the_provider().id}", token=other)

        assert (listed["orders"], found["orders"]) == ([], [])


class TestAttention:
    async def test_lists_conflicts_and_holds_that_end(self, world: World) -> None:
        ending, frozen = await world.a_payment(), await world.a_payment()
        await ending.capture(1_000)
        await ending.refund(400)
        ending.at_the_provider().authorization_expires_at = (datetime.now(UTC) + timedelta(hours=3)).isoformat()
        await _change(world, "authorization_expires_at = now() + interval '3 hours'", ending)
        await _change(world, "attention = 'their books say more'", frozen)

        told = await _get(world, "payments/attention")
        sooner = await _get(world, "payments/attention?expiring_within_hours=1")

        assert [(each["id"], each["attention"]) for each in told["conflicted"]] == [(str(frozen.id), "their books say more")]
        assert [each["id"] for each in told["expiring"]] == [str(ending.id)]
        assert sooner["expiring"] == []

    async def test_of_another_store_is_not_there(self, world: World) -> None:
        payment = await world.a_payment()
        await world.change(
            "UPDATE payments.payment_intents SET authorization_expires_at = now(), attention = 'x' WHERE id = $1", payment.id
        )
        other = await a_key(world.place, new_id(), Role.ADMIN)

        assert await _get(world, "payments/attention", token=other) == {"conflicted": [], "expiring": [], "overpaid": []}


class TestProviderCalls:
    async def test_are_listed_and_narrowed(self, world: World) -> None:
        correlation = {"X-Correlation-Id": f"calls-{new_id().hex}"}
        order_id = await world.an_order()
        declined = await world.authorize(order_id, await world.a_snapshot(order_id), "tok_declined_lost_card", headers=correlation)
        assert declined.status == 402

        of_it = (await _get(world, f"provider-calls?service=payments&correlation_id={correlation['X-Correlation-Id']}"))["calls"]
        authorized = (await _get(world, "provider-calls?service=payments&operation=authorize&limit=200"))["calls"]
        nothing = await _get(world, "provider-calls?service=payments&provider=nobody")

        assert [(each["operation"], each["classification"], each["provider"]) for each in of_it] == [("authorize", "answered", "sandbox")]
        assert "tok_declined" not in str(of_it)
        assert {each["operation"] for each in authorized} == {"authorize"}
        assert nothing == {"calls": [], "next": None, "missing": []}

    async def test_are_paged_without_a_gap(self, world: World) -> None:
        for _ in range(3):
            await world.a_payment()
        whole = [each["id"] for each in (await _get(world, "provider-calls?service=payments&limit=200"))["calls"]]

        seen: list[str] = []
        before = ""
        while True:
            page = await _get(world, f"provider-calls?service=payments&limit=2{before}")
            seen += [each["id"] for each in page["calls"]]
            if page["next"] is None:
                break
            before = f"&before={page['next']}"

        assert seen == whole
        assert whole == sorted(whole, reverse=True)

    async def test_of_a_service_that_is_down_are_named_as_missing(self, world: World) -> None:
        told = await _get(world, "provider-calls?limit=1")

        assert (told["missing"], len(told["calls"])) == (["fulfillment"], 1)

    async def test_of_a_service_that_makes_none_are_refused(self, world: World) -> None:
        answer = await world.send("GET", "/api/v1/admin/provider-calls?service=webhooks")

        assert (answer.status, answer.code) == (422, "invalid-request")


class TestKeys:
    async def test_are_listed_without_their_secrets(self, world: World) -> None:
        listed = (await _get(world, "api-keys"))["keys"]

        assert {each["role"] for each in listed} == set(KEY_ROLES)
        assert str(UUID(world.keys[Role.ADMIN].split("_")[2])) in [each["id"] for each in listed]
        assert [key for key in world.keys.values() if key.split("_")[3] in str(listed)] == []

    async def test_one_is_revoked_once_and_opens_nothing_any_more(self, world: World) -> None:
        key = await a_key(world.place, world.store_id, Role.CHECKOUT)
        key_id = UUID(key.split("_")[2])
        before = await world.send("GET", "/api/v1/operations/01900000-0000-7000-8000-000000000000", token=key)

        answers = [await world.send("POST", f"/api/v1/admin/api-keys/{key_id}/revoke") for _ in range(2)]
        after = await world.send("GET", "/api/v1/operations/01900000-0000-7000-8000-000000000000", token=key)

        assert (before.status, after.status, after.code) == (404, 401, "unauthenticated")
        assert [answer.status for answer in answers] == [200, 200]
        assert answers[0].json == answers[1].json
        listed = next(each for each in (await _get(world, "api-keys"))["keys"] if each["id"] == str(key_id))
        assert listed == answers[0].json

    async def test_ones_own_and_another_stores_cannot_be_revoked(self, world: World) -> None:
        other = await a_key(world.place, new_id(), Role.ADMIN)

        own = await world.send("POST", f"/api/v1/admin/api-keys/{UUID(world.keys[Role.ADMIN].split('_')[2])}/revoke")
        elsewhere = await world.send("POST", f"/api/v1/admin/api-keys/{UUID(other.split('_')[2])}/revoke")

        assert (own.status, own.code, elsewhere.status) == (409, "own-key", 404)
        assert (await world.send("GET", "/api/v1/admin/orders", token=other)).status == 200


class TestTheAudit:
    async def test_tells_what_staff_did_in_every_service(self, world: World) -> None:
        payment = await world.a_payment()
        assert (await payment.void(role=Role.OPERATOR)).status == 201
        key = await a_key(world.place, world.store_id, Role.CHECKOUT)
        await world.send("POST", f"/api/v1/admin/api-keys/{UUID(key.split('_')[2])}/revoke")
        await world.send("POST", "/api/v1/admin/webhook-endpoints", {"url": "https://shop.example/told"})

        told = await _get(world, "audit?limit=200")

        assert told["missing"] == ["fulfillment"]
        found = {(each["service"], each["action"]) for each in told["actions"]}
        assert found >= {("gateway", "api_key.revoke"), ("payments", "payments.void.v1")}
        assert {service for service, _ in found} >= {"gateway", "payments", "webhooks"}
        of_it = (await _get(world, f"audit?text={payment.id}"))["actions"]
        assert [(each["action"], each["actor"].split(":")[0]) for each in of_it] == [("payments.void.v1", "operator")]

    async def test_is_paged_without_a_gap(self, world: World) -> None:
        for _ in range(3):
            await world.a_captured_payment()
        whole = [each["id"] for each in (await _whole(world, "audit?limit=200"))["actions"]]
        assert len(whole) > 9

        seen: list[str] = []
        before = ""
        while True:
            page = await _whole(world, f"audit?limit=9{before}")
            seen += [each["id"] for each in page["actions"]]
            if page["next"] is None:
                break
            before = f"&before={page['next']}"

        assert seen == whole == sorted(whole, reverse=True)

    async def test_says_nothing_of_what_follows_from_it(self, world: World) -> None:
        await world.a_captured_payment()
        await until(lambda: world.rows("SELECT FROM webhooks.inbox WHERE type = 'payments.intent_changed.v1' AND state = 'done'"))

        assert (await _get(world, "audit?text=intent_changed"))["actions"] == []

    async def test_of_another_store_holds_its_own_key_alone(self, world: World) -> None:
        other = await a_key(world.place, new_id(), Role.ADMIN)

        assert [each["action"] for each in (await _get(world, "audit", token=other))["actions"]] == ["api_key.create"]


class TestAtTheCommandLine:
    async def type(self, world: World, *words: object, role: Role = Role.OPERATOR) -> str:
        env = {"TENDER_URL": world.gateway_url, "TENDER_KEY": world.keys[role]}
        done = await asyncio.to_thread(CliRunner().invoke, cli, [str(word) for word in words], env=env)
        assert done.exit_code == 0, done.output
        return done.output

    async def test_everything_is_looked_at_as_well(self, world: World) -> None:
        payment = await world.a_payment()
        declined = await world.an_order()
        await world.authorize(declined, await world.a_snapshot(declined), "tok_declined_lost_card")
        frozen = await world.a_payment()
        await _change(world, "attention = 'their books say more'", frozen)

        assert "DOWN" in await self.type(world, "overview")
        assert str(payment.order_id) in await self.type(world, "orders", "ls", "--text", payment.id)
        assert "authorize declined (lost_card)" in await self.type(world, "orders", "timeline", declined)
        assert str(frozen.id) in await self.type(world, "attention")
        assert "authorize" in await self.type(world, "calls", "--operation", "authorize", "--bodies")
        assert "trace_id" in await self.type(world, "traces", "ls")
        assert "payments.capture.v1" in await self.type(world, "asyncapi")
        assert "payments.put_order.v1" in await self.type(world, "audit", "--text", "put_order")
        assert "operator" in await self.type(world, "keys", "list", role=Role.ADMIN)
        key = await a_key(world.place, world.store_id, Role.CHECKOUT)
        assert "checkout" in await self.type(world, "keys", "revoke", UUID(key.split("_")[2]), role=Role.ADMIN)


async def _change(world: World, what: str, payment: Payment) -> None:
    """Make an intent what its ledger does not say, once the provider has told of it too: that is read from the ledger anew."""
    told = "SELECT FROM webhooks.webhook_events WHERE order_id = $1 AND status = 'processed'"
    assert await until(lambda: world.rows(told, payment.order_id))
    await world.change(f"UPDATE payments.payment_intents SET {what} WHERE id = $1", payment.id)
