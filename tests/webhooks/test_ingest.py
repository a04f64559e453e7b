"""What providers post: kept before it is answered, handed on once, shown and replayed."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest

from deploy.sandbox.webhooks import Moods, Outgoing, Told
from deploy.state import free_port
from services.gateway.domain import Role
from services.webhooks.app import build
from services.webhooks.domain import BODY_MAX_BYTES
from shared import telemetry
from shared.ids import new_id
from tests.proxy import a_proxy
from tests.webhooks.test_signatures import PUBLISHED, PUBLISHED_KEY
from tests.world import SANDBOX_KEY, WEBHOOK_SECRET, Answer, Payment, Place, World, a_neighbour, a_world, until, webhooks_settings


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    adyen = {"provider": "adyen", "store_id": new_id(), "environment": "sandbox", "account": "adyen:tests", "secrets": [PUBLISHED_KEY]}
    async with a_world(place, webhooks={"accounts": [adyen]}) as made:
        yield made


@pytest.fixture(autouse=True)
def in_good_mood(world: World) -> None:
    world.sandbox.outgoing.moods = Moods()


def an_event(world: World, body: Any, *, kind: str = "payment.authorize.succeeded") -> Told:
    event_id = f"evt_{new_id().hex}"
    raw = msgspec.json.encode({"id": event_id, "type": kind, "created_at": "2026-01-01T00:00:00Z", "data": body})
    return Told(id=event_id, type=kind, body=raw)


async def post(world: World, told: Told, *, path: str = "", headers: Mapping[str, str] | None = None, direct: bool = False) -> Answer:
    base = world.webhooks_url if direct else world.gateway_url
    sent = world.outgoing.headers(told) if headers is None else headers
    return Answer(await world.http.post(f"{base}/api/v1/webhooks/{path or world.provider}", content=told.body, headers=sent))


def once_more(told: Told) -> Told:
    """The same news under another id, which no filter of repeats knows."""
    event_id = f"evt_{new_id().hex}"
    return Told(id=event_id, type=told.type, body=told.body.replace(told.id.encode(), event_id.encode()))


async def events(world: World, **filters: Any) -> Any:
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    answer = await world.send("GET", f"/api/v1/admin/webhooks/events?{query}")
    assert answer.status == 200, answer
    return answer.json


async def event(world: World, told: Told) -> Any:
    """An event as it stands, found by the provider's id of it."""
    row = await world.rows("SELECT id FROM webhooks.webhook_events WHERE provider_event_id = $1", told.id)
    if not row:
        return None
    answer = await world.send("GET", f"/api/v1/admin/webhooks/events/{row[0]['id']}")
    assert answer.status == 200, answer
    return answer.json


async def stands(world: World, told: Told, *statuses: str) -> Any:
    """Wait until an event stands like this."""

    async def so() -> Any:
        found = await event(world, told)
        return found if found is not None and found["event"]["status"] in statuses else None

    return await until(so)


async def all_processed(world: World) -> None:
    """Wait until everything the sandbox told and did not lose is settled."""

    async def settled() -> bool:
        left = await world.rows("SELECT FROM webhooks.webhook_events WHERE status IN ('received', 'failing', 'waiting')")
        return not left and all(told.accepted for told in world.sandbox.outgoing.events.values() if told.deliveries)

    await until(settled)


class TestKeeping:
    async def test_an_event_is_processed_and_shows_its_order(self, world: World) -> None:
        payment = await world.a_payment()

        await until(lambda: _of_order(world, payment))

        [found] = (await events(world, order_id=payment.order_id))["events"]
        assert (found["provider"], found["event_type"], found["status"]) == ("sandbox", "payment.authorize.succeeded", "processed")
        assert (found["attempt_count"], found["last_error"], found["signature_valid"]) == (1, None, True)
        detail = (await world.send("GET", f"/api/v1/admin/webhooks/events/{found['id']}")).json
        assert msgspec.json.decode(detail["payload"])["data"]["order_id"] == str(payment.order_id)
        assert [attempt["outcome"] for attempt in detail["attempts"]] == ["processed"]

    async def test_the_largest_event_is_processed_and_shown(self, world: World) -> None:
        """L12: its text doubles on its way, as every character of it has to be escaped."""
        payment = await world.a_payment()
        books = msgspec.to_builtins(payment.at_the_provider())
        told = an_event(world, {**books, "note": '"' * ((BODY_MAX_BYTES - 8_192) // 2)})

        answer = await post(world, told)
        found = await stands(world, told, "processed", "dead")

        assert (answer.status, found["event"]["status"], found["event"]["order_id"]) == (200, "processed", str(payment.order_id))
        assert found["payload"] == told.body.decode()

    async def test_a_repeat_is_answered_and_does_nothing(self, world: World) -> None:
        told = an_event(world, {}, kind="customer.created")

        answers = [await post(world, told, direct=direct) for direct in (True, False, True)]

        found = await stands(world, told, "ignored")
        assert [a.status for a in answers] == [200, 200, 200]
        assert [attempt["outcome"] for attempt in found["attempts"]] == ["ignored"]

    async def test_many_at_once_are_kept_once_each(self, world: World) -> None:
        told = [an_event(world, {}, kind="customer.created") for _ in range(40)]

        answers = await asyncio.gather(*(post(world, each, direct=True) for each in told * 3))

        assert {a.status for a in answers} == {200}
        rows = await world.rows("SELECT FROM webhooks.webhook_events WHERE provider_event_id = ANY($1)", [t.id for t in told])
        assert len(rows) == len(told)

    async def test_nobody_reads_it_yet_is_said(self, world: World) -> None:
        body = msgspec.json.encode({"live": "false", "notificationItems": [{"NotificationRequestItem": PUBLISHED}]})

        answer = Answer(await world.http.post("/api/v1/webhooks/adyen", content=body))

        assert (answer.status, answer.content) == (200, b"[accepted]")

        async def ignored() -> Any:
            return await world.rows("SELECT FROM webhooks.webhook_events WHERE provider = 'adyen' AND status = 'ignored'")

        await until(ignored)


class TestRefusing:
    async def test_a_forgery_is_refused_without_a_hint_and_takes_no_place(self, world: World) -> None:
        told = an_event(world, {}, kind="customer.created")
        headers = {**world.sandbox.outgoing.headers(told), "webhook-signature": "v1,AAAA"}

        forged = await post(world, told, headers=headers)
        bare = await post(world, told, headers={})
        genuine = await post(world, told)

        assert [forged.status, bare.status, genuine.status] == [401, 401, 200]
        assert forged.json["detail"] == bare.json["detail"]
        await stands(world, told, "ignored")
        [sample] = await world.rows("SELECT * FROM webhooks.webhook_rejections WHERE body_start = $1 LIMIT 1", told.body)
        assert sample["reason"] == "no signature matches"

    async def test_an_old_time_stamp_is_refused(self, world: World) -> None:
        told = an_event(world, {})
        outgoing = world.sandbox.outgoing
        fresh = outgoing.headers(told)
        old = str(int(fresh["webhook-timestamp"]) - 301)

        answer = await post(world, told, headers={**fresh, "webhook-timestamp": old})

        assert answer.status == 401

    @pytest.mark.parametrize(("path", "status"), [("nobody", 401), ("braintree", 401), ("sandbox/not-a-store", 404)])
    async def test_unknown_address_is_refused(self, world: World, path: str, status: int) -> None:
        assert (await post(world, an_event(world, {}), path=path)).status == status

    async def test_another_stores_address_is_refused(self, world: World) -> None:
        told = an_event(world, {}, kind="customer.created")

        assert (await post(world, told, path=f"sandbox/{new_id()}")).status == 401
        assert (await post(world, told, path=f"sandbox/{world.store_id}")).status == 200

    @pytest.mark.parametrize("direct", [True, False])
    async def test_another_method_is_not_allowed(self, world: World, direct: bool) -> None:
        base = world.webhooks_url if direct else world.gateway_url

        assert (await world.http.get(f"{base}/api/v1/webhooks/sandbox")).status_code == 405

    @pytest.mark.parametrize("direct", [True, False])
    @pytest.mark.parametrize(("size", "status"), [(1024 * 1024, 401), (1024 * 1024 + 1, 413)])
    async def test_the_body_has_a_limit(self, world: World, size: int, status: int, direct: bool) -> None:
        answer = await post(world, Told(id="evt_x", type="x", body=b"x" * size), headers={"webhook-id": "evt_x"}, direct=direct)

        assert answer.status == status


class TestMatching:
    async def test_an_event_overtakes_the_answer_of_its_own_call(self, world: World) -> None:
        # The call succeeds and its answer never comes; the webhook settles it before anybody looks.
        payment = await world.a_payment("tok_capture_timeout")

        answer = await payment.capture()

        assert answer.status in (201, 202), answer
        await until(lambda: _captured(payment))
        await all_processed(world)
        assert [t["status"] for t in await payment.transactions() if t["operation"] == "capture"] == ["succeeded"]
        await world.books_agree(payment.order_id)

    async def test_an_event_of_a_payment_not_known_yet_waits_and_is_matched(self, world: World) -> None:
        payment = await world.a_payment()
        await all_processed(world)
        books = msgspec.to_builtins(payment.at_the_provider())
        await world.change("UPDATE payments.payment_intents SET provider_account = 'elsewhere' WHERE id = $1", payment.id)
        told = an_event(world, books)

        assert (await post(world, told)).status == 200
        waiting = await stands(world, told, "waiting")
        await world.change("UPDATE payments.payment_intents SET provider_account = 'sandbox:default' WHERE id = $1", payment.id)
        found = await stands(world, told, "processed")

        assert "No payment is known" in waiting["event"]["last_error"]
        assert found["event"]["order_id"] == str(payment.order_id)
        assert found["event"]["attempt_count"] >= 2

    async def test_what_never_becomes_known_stops_being_looked_for_and_stays(self, world: World) -> None:
        payment = await world.a_payment()
        await all_processed(world)
        await world.change("UPDATE payments.payment_intents SET provider_account = 'elsewhere' WHERE id = $1", payment.id)
        told = an_event(world, msgspec.to_builtins(payment.at_the_provider()))
        await post(world, told)
        await stands(world, told, "waiting")

        await world.change(
            "UPDATE webhooks.webhook_events SET received_at = now() - interval '4 days' WHERE provider_event_id = $1", told.id
        )

        assert (await stands(world, told, "unmatched"))["event"]["next_attempt_at"] is None

    async def test_a_strangers_event_is_ignored_at_once(self, world: World) -> None:
        """C42, F15: nothing that was begun before it can turn out to be what it is about; it need not even be readable."""
        ours = msgspec.to_builtins((await world.a_payment()).at_the_provider())
        await all_processed(world)
        refund = {**ours["operations"][0], "id": "ref_1", "kind": "refund", "reference": None}
        strangers = [
            {**ours, "id": "pay_stranger", "reference": reference, "operations": [{**refund, "amount": amount, "reference": None}]}
            for reference in (None, "an order of theirs", 17, str(new_id()))
            for amount in (500, -5)
        ]
        told = [an_event(world, body, kind="payment.refund.succeeded") for body in strangers]

        await asyncio.gather(*(post(world, each) for each in told))

        for each in told:
            found = await stands(world, each, "ignored")
            assert (found["event"]["attempt_count"], found["event"]["last_error"]) == (1, "pay_stranger is no payment of ours.")

    async def test_an_event_of_another_stores_payment_is_filed_there(self, world: World) -> None:
        """F15, M4: both stores use one account of the provider, which WEBHOOK_ACCOUNTS calls the first one's."""
        neighbour = await a_neighbour(world)
        async with neighbour.http:
            payment = await neighbour.a_payment()

            await until(lambda: _of_order(neighbour, payment))

            [found] = (await events(neighbour, order_id=payment.order_id))["events"]
            assert (found["status"], found["last_error"]) == ("processed", None)
            assert (await world.send("GET", f"/api/v1/admin/webhooks/events/{found['id']}")).status == 404

    async def test_one_without_a_reference_waits_while_a_payment_has_no_name_yet(self, world: World) -> None:
        """F15: what is being authorized while the event comes may be what it is about."""
        world.outgoing.moods = Moods(lost=1.0)
        order_id = await world.an_order()
        snapshot = await world.a_snapshot(order_id)
        paying = asyncio.create_task(world.authorize(order_id, snapshot, "tok_timeout_after_success"))
        made = await until(lambda: _made(world, order_id))
        told = an_event(world, {**msgspec.to_builtins(made), "reference": None})

        await post(world, told)
        await paying

        found = await stands(world, told, "processed")
        assert found["attempts"][0]["outcome"] == "waiting"
        assert found["event"]["order_id"] == str(order_id)

    async def test_an_old_event_after_a_newer_one_changes_nothing(self, world: World) -> None:
        payment = await world.a_payment()
        old = an_event(world, msgspec.to_builtins(payment.at_the_provider()))
        assert (await payment.capture(4_000)).status == 201
        before = await payment.intent()

        await post(world, old)
        await stands(world, old, "processed")

        assert (await payment.intent())["captured_amount"] == before["captured_amount"] == 4_000

    async def test_an_old_one_while_the_customers_return_is_being_confirmed_answers_nobody(self, world: World) -> None:
        world.outgoing.moods = Moods(lost=1.0)
        payment = await world.a_payment("tok_3ds_timeout")
        [old] = [t for t in world.outgoing.events.values() if payment.at_the_provider().id.encode() in t.body]
        asked = world.sandbox.calls.get("confirm", 0)
        confirming = asyncio.create_task(payment.confirm())

        async def under_way() -> bool:
            return world.sandbox.calls.get("confirm", 0) > asked

        await until(under_way)
        assert (await post(world, old)).status == 200
        await stands(world, old, "processed")

        answer = await confirming
        assert (answer.status, answer.json["intent"]["status"]) == (200, "authorized")

    async def test_one_faster_than_an_answer_without_news_is_no_error(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        order_id = await world.an_order()
        paying = asyncio.create_task(world.authorize(order_id, await world.a_snapshot(order_id), "tok_pending"))
        transaction_id = await until(lambda: _pending_transaction(world, order_id))
        retried = _retried_messages()
        async with _writes_without_news_held(world) as connection:
            # The provider has said that it is still at it; the bank decides before that is written.
            await world.change("UPDATE payments.payment_transactions SET next_look_at = now() WHERE id = $1", transaction_id)
            await until(lambda: world.rows("SELECT FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()"))
            world.sandbox.books.decide(next(p for p in world.sandbox.books.payments.values() if p.order_id == str(order_id)), passed=True)
            await until(lambda: _applied_or_waiting(world, transaction_id))
            await connection.execute("SELECT pg_advisory_unlock_all()")
            answer = await paying

        assert (answer.status, answer.json["intent"]["status"]) == (201, "authorized")
        await world.books_agree(order_id)
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
        assert _retried_messages() == retried

    async def test_an_amount_that_disagrees_is_a_conflict_for_people(self, world: World) -> None:
        payment = await world.a_payment()
        there = payment.at_the_provider()
        there.operations[0].amount = 12_345
        told = an_event(world, msgspec.to_builtins(there))

        await post(world, told)
        await stands(world, told, "processed")

        intent = await payment.intent()
        assert intent["attention"] is not None
        assert intent["status"] == "conflicted"


async def _made(world: World, order_id: UUID) -> Any:
    return next((p for p in world.sandbox.books.payments.values() if p.order_id == str(order_id) and p.operations), None)


async def _pending_transaction(world: World, order_id: UUID) -> UUID | None:
    rows = await world.rows(
        """
        SELECT t.id
          FROM payments.payment_transactions t
          JOIN payments.payment_intents i ON i.id = t.payment_intent_id
         WHERE i.order_id = $1 AND t.status = 'pending' AND t.provider_txn_id IS NOT NULL
        """,
        order_id,
    )
    return rows[0]["id"] if rows else None


@contextlib.asynccontextmanager
async def _writes_without_news_held(world: World) -> AsyncIterator[Any]:
    """Hold the write of an answer without news, once it sees the rows as they are, until the connection's lock is released."""
    connection = await asyncpg.connect(world.place.database_url)
    original = await connection.fetchval("SELECT pg_get_functiondef('payments.must(boolean)'::regprocedure)")
    try:
        await connection.execute(
            """
            SELECT pg_advisory_lock(hashtext('look-up'));
            CREATE OR REPLACE FUNCTION payments.must(held boolean) RETURNS void LANGUAGE plpgsql AS $$
            BEGIN
                IF current_query() LIKE '%provider_call_audit%UPDATE payment_transactions%'
                   AND current_query() NOT LIKE '%UPDATE payment_intents%' THEN
                    PERFORM pg_advisory_xact_lock(hashtext('look-up'));
                END IF;
                IF held IS NOT TRUE THEN
                    RAISE EXCEPTION 'somebody else was faster' USING ERRCODE = 'serialization_failure';
                END IF;
            END $$;
            """
        )
        yield connection
    finally:
        await connection.execute("SELECT pg_advisory_unlock_all()")
        await connection.execute(original)
        await connection.close()


async def _applied_or_waiting(world: World, transaction_id: UUID) -> bool:
    """Whether the webhook was applied, or waits for the row that the look-up's write has locked."""
    applied = await world.rows("SELECT FROM payments.payment_transactions WHERE id = $1 AND status = 'succeeded'", transaction_id)
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event IN ('transactionid', 'tuple') AND datname = current_database()"
    return bool(applied or await world.rows(waiting))


def _retried_messages() -> float:
    return sum(
        sample.value for metric in telemetry.messages_retried.collect() for sample in metric.samples if sample.name.endswith("_total")
    )


class TestTheProvidersOwnDoings:
    @pytest.mark.parametrize(
        ("kind", "amount", "status", "order"),
        [("capture", 10_000, "captured", "paid"), ("void", 10_000, "voided", "open")],
    )
    async def test_from_its_dashboard_enter_the_ledger(self, world: World, kind: str, amount: int, status: str, order: str) -> None:
        payment = await world.a_payment()

        await self._at_the_provider(world, payment, kind, amount)

        await until(lambda: _has_status(payment, status))
        ledger = await world.ledger(payment.order_id)
        assert ledger["order_status"] == order
        assert ledger["history"][-1]["source"] == "webhook"
        assert [t["source"] for t in ledger["payments"][0]["transactions"]] == ["api", "webhook"]

    @pytest.mark.parametrize(
        ("kind", "amount", "field"), [("refund", 2_500, "refunded_amount"), ("chargeback", 10_000, "charged_back_amount")]
    )
    async def test_refunds_and_chargebacks_enter_the_ledger(self, world: World, kind: str, amount: int, field: str) -> None:
        payment = await world.a_captured_payment()

        await self._at_the_provider(world, payment, kind, amount)

        async def entered() -> bool:
            return bool((await payment.intent())[field] == amount)

        await until(entered)
        ledger = await world.ledger(payment.order_id)
        assert ledger["history"][-1]["source"] == "webhook"
        assert ledger["payments"][0]["transactions"][-1]["operation"] == kind
        await world.books_agree(payment.order_id)

    async def _at_the_provider(self, world: World, payment: Payment, kind: str, amount: int) -> None:
        url = f"{world.sandbox.base_url}/control/payments/{payment.at_the_provider().id}/{kind}"
        (await world.http.post(url, json={"amount": amount})).raise_for_status()


class TestPoison:
    async def test_is_visible_with_its_count_and_error_and_can_be_replayed(self, world: World) -> None:
        told = an_event(world, {"neither": "a payment"})

        assert (await post(world, told)).status == 200

        failing = await stands(world, told, "failing")
        assert failing["event"]["attempt_count"] == 1
        dead = await stands(world, told, "dead")
        assert dead["event"]["attempt_count"] == 3
        assert "event-unreadable" in dead["event"]["last_error"]
        assert [a["outcome"] for a in dead["attempts"]] == ["failing", "failing", "dead"]
        # A later release can read it, say: here the event itself is mended.
        mended = msgspec.json.encode({"id": told.id, "type": "customer.created", "data": {}})
        await world.change("UPDATE webhooks.webhook_payloads SET body = $2 WHERE event_id = $1", dead["event"]["id"], mended)
        await world.change("UPDATE webhooks.webhook_events SET event_type = 'customer.created' WHERE id = $1", dead["event"]["id"])
        answer = await world.send("POST", f"/api/v1/admin/webhooks/events/{dead['event']['id']}/replay")
        assert answer.status == 201, answer
        assert (answer.json["event_id"], answer.json["replays"]) == (dead["event"]["id"], dead["event"]["id"])
        again = await stands(world, told, "ignored")
        assert again["attempts"][-1]["command_id"] == answer.json["command_id"]
        assert again["attempts"][-1]["replays"] == dead["event"]["id"]
        assert again["event"]["last_error"] is None


class TestReplay:
    async def test_of_a_processed_event_changes_nothing(self, world: World) -> None:
        payment = await world.a_captured_payment()
        await all_processed(world)
        found = (await events(world, order_id=payment.order_id))["events"]
        before = await world.ledger(payment.order_id)

        for each in found:
            assert (await world.send("POST", f"/api/v1/admin/webhooks/events/{each['id']}/replay")).status == 201

        async def twice() -> bool:
            now = (await events(world, order_id=payment.order_id))["events"]
            return all(each["attempt_count"] == 2 for each in now)

        await until(twice)
        assert await world.ledger(payment.order_id) == before

    async def test_of_a_range_takes_what_the_filters_say(self, world: World) -> None:
        told = [an_event(world, {}, kind=f"range.{new_id().hex}")] * 1 + [an_event(world, {}, kind="other")]
        for each in told:
            await post(world, each)
            await stands(world, each, "ignored")
        now = datetime.now(UTC)
        body = {
            "since": (now - timedelta(minutes=5)).isoformat(),
            "until": (now + timedelta(minutes=5)).isoformat(),
            "event_type": told[0].type,
        }

        answer = await world.send("POST", "/api/v1/admin/webhooks/events/replay", body)

        assert (answer.status, answer.json) == (201, {"count": 1, "more": False})

        async def twice() -> bool:
            return bool((await event(world, told[0]))["event"]["attempt_count"] == 2)

        await until(twice)
        assert (await event(world, told[1]))["event"]["attempt_count"] == 1

    async def test_of_an_empty_range_is_refused(self, world: World) -> None:
        now = datetime.now(UTC).isoformat()

        assert (await world.send("POST", "/api/v1/admin/webhooks/events/replay", {"since": now, "until": now})).status == 422

    async def test_of_what_is_not_there_is_not_found(self, world: World) -> None:
        assert (await world.send("POST", f"/api/v1/admin/webhooks/events/{new_id()}/replay")).status == 404
        assert (await world.send("GET", f"/api/v1/admin/webhooks/events/{new_id()}")).status == 404

    async def test_is_for_staff(self, world: World) -> None:
        assert (await world.send("GET", "/api/v1/admin/webhooks/events", role=Role.CHECKOUT)).status == 403


class TestList:
    async def test_pages_through_everything_once(self, world: World) -> None:
        kind = f"page.{new_id().hex}"
        for _ in range(5):
            await post(world, an_event(world, {}, kind=kind))

        first = await events(world, event_type=kind, limit=2)
        second = await events(world, event_type=kind, limit=2, before=first["next"])
        third = await events(world, event_type=kind, limit=2, before=second["next"])

        ids = [each["id"] for page in (first, second, third) for each in page["events"]]
        assert (len(ids), len(set(ids)), third["next"]) == (5, 5, None)
        assert ids == sorted(ids, reverse=True)

    async def test_filters_by_provider_and_status(self, world: World) -> None:
        kind = f"filter.{new_id().hex}"
        await post(world, an_event(world, {}, kind=kind))

        async def ended() -> Any:
            [found] = (await events(world, event_type=kind))["events"]
            return found if found["status"] in ("ignored", "processed", "failed") else None

        event = await until(ended)
        others = {"ignored", "processed", "failed"} - {event["status"]}

        providers = [len((await events(world, event_type=kind, provider=each))["events"]) for each in ("sandbox", "stripe")]
        kept = (await events(world, event_type=kind, status=event["status"]))["events"]

        assert providers == [1, 0]
        assert [each["id"] for each in kept] == [event["id"]]
        assert [(await events(world, event_type=kind, status=each))["events"] for each in sorted(others)] == [[]] * len(others)


class TestRetention:
    async def test_bounds_the_sample_of_what_was_refused(self, world: World) -> None:
        await world.change(
            """
            INSERT INTO webhooks.webhook_rejections (id, provider, reason, headers, body_start, received_at)
            SELECT gen_random_uuid(), 'sandbox', 'tests', '{}', '', now() - CASE WHEN n % 3 = 0 THEN interval '25 hours' ELSE '0' END
              FROM generate_series(1, 3000) AS n
            """
        )

        async def bounded() -> bool:
            [row] = await world.rows(
                """
                SELECT count(*) AS count, count(*) FILTER (WHERE received_at < now() - interval '1 day') AS old
                  FROM webhooks.webhook_rejections
                """
            )
            return bool(row["count"] <= 1_000 and row["old"] == 0)

        await until(bounded)


class TestAnEventThatPaymentsCannotProcess:
    """F6: it parks alone, with its reason, and everything else goes on."""

    async def test_is_given_up_with_the_reason_and_replayed(self, world: World) -> None:
        payment = await world.a_payment()
        told, after = (an_event(world, msgspec.to_builtins(payment.at_the_provider())) for _ in range(2))
        await world.change("ALTER TABLE payments.payment_intents RENAME TO elsewhere")
        try:
            await post(world, told)
            dead = await stands(world, told, "dead")
        finally:
            await world.change("ALTER TABLE payments.elsewhere RENAME TO payment_intents")

        assert [a["outcome"] for a in dead["attempts"]] == ["failing", "failing", "dead"]
        assert "UndefinedTableError" in dead["event"]["last_error"]
        await until(lambda: _metric_is(world, "tender_webhooks_dead", at_least=1))
        assert (await world.http.get(f"{world.monitoring['webhooks']}/health/ready")).status_code == 200
        # Whoever sent it has kept it: payments parks nothing of its own.
        assert await world.rows("SELECT FROM payments.inbox WHERE state = 'parked'") == []
        await post(world, after)
        await stands(world, after, "processed")
        replayed = await world.send("POST", f"/api/v1/admin/webhooks/events/{dead['event']['id']}/replay")
        assert replayed.status == 201
        await stands(world, told, "processed")

    async def test_for_want_of_the_provider_is_tried_again(self, world: World) -> None:
        world.provider = "stripe"
        try:
            payment = await world.a_captured_payment()
            await all_processed(world)
            world.outgoing.moods = Moods(lost=1.0)
            world.sandbox.books.add(payment.at_the_provider(), "refund", 2_500, reason="dashboard")
            [told] = [t for t in world.outgoing.events.values() if t.type == "charge.refunded" and not t.accepted]
            world.sandbox.api_key = "another"
            await post(world, told)

            failing = await stands(world, told, "failing")
            world.sandbox.api_key = SANDBOX_KEY
            await stands(world, told, "processed")
        finally:
            world.provider, world.sandbox.api_key, world.outgoing.moods = "sandbox", SANDBOX_KEY, Moods()

        assert "the payment could not be read" in failing["event"]["last_error"]
        assert (await payment.intent())["refunded_amount"] == 2_500


class TestReadiness:
    async def test_is_whether_events_can_be_kept(self, own_place: Place) -> None:
        """F6: neither an event that waits, nor payments that is away, nor the broker keeps providers from posting."""
        told, later = (Told(id=f"evt_{new_id().hex}", type="payment.x", body=b"{}") for _ in range(2))
        async with a_proxy(own_place.amqp_of("webhooks")) as proxy:
            settings = msgspec.structs.replace(webhooks_settings(own_place, new_id()), amqp_url=proxy.url, http_port=free_port())
            async with build(settings).running() as parts:
                assert (await _posted(parts.url, told)).status_code == 200
                connection = await asyncpg.connect(own_place.database_url)
                await until(lambda: connection.fetchval("SELECT count(*) FROM webhooks.webhook_attempts"))
                await connection.execute("UPDATE webhooks.webhook_events SET received_at = now() - interval '1 hour'")
                await until(lambda: _pending_seconds(parts.monitoring_url))
                assert (await _health(parts.monitoring_url))[0] == 200
            async with build(settings).running() as parts:
                # What ./tender up waits for.
                await until(lambda: _is_ready(parts.monitoring_url))
                await proxy.disconnect(b"webhooks")

                async def shown() -> bool:
                    status, checks = await _health(parts.monitoring_url)
                    assert status == 200
                    return bool(checks["broker"] != "ok")

                await until(shown)
                assert (await _posted(parts.url, later)).status_code == 200
                proxy.allow_all()
            found = await connection.fetchval("SELECT count(*) FROM webhooks.webhook_events WHERE status = 'processed'")
            await connection.close()
        assert found == 0


async def _posted(url: str, told: Told) -> httpx.Response:
    async with httpx.AsyncClient() as http:
        headers = Outgoing(url="", secret=WEBHOOK_SECRET).headers(told)
        return await http.post(f"{url}/api/v1/webhooks/sandbox", content=told.body, headers=headers)


async def _health(url: str) -> tuple[int, Mapping[str, str]]:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{url}/health/ready")
    return answer.status_code, answer.json()["checks"]


async def _is_ready(url: str) -> bool:
    return (await _health(url))[0] == 200


async def _pending_seconds(url: str) -> bool:
    async with httpx.AsyncClient() as http:
        return _value((await http.get(f"{url}/metrics")).text, "tender_webhooks_oldest_pending_seconds") >= 3_600


async def _metric_is(world: World, name: str, *, at_least: float) -> bool:
    return _value((await world.http.get(f"{world.monitoring['webhooks']}/metrics")).text, name) >= at_least


def _value(metrics: str, name: str) -> float:
    return next(float(line.split()[1]) for line in metrics.splitlines() if line.startswith(f"{name} "))


async def _of_order(world: World, payment: Payment) -> bool:
    found = (await events(world, order_id=payment.order_id))["events"]
    return bool(found) and all(each["status"] == "processed" for each in found)


async def _captured(payment: Payment) -> bool:
    return bool((await payment.intent())["captured_amount"])


async def _has_status(payment: Payment, status: str) -> bool:
    return bool((await payment.intent())["status"] == status)
