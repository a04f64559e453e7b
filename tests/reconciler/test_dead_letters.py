"""Dead letters over the API: found and understood, sent once more, changed or put away, and nothing happens twice."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.sandbox.webhooks import Told
from services.gateway.domain import Role
from shared import topology
from shared.bus import headers_of
from shared.ids import new_id
from tests.reconciler.letters import act, an_envelope, letters, park, publish, send, show, the_letter
from tests.world import TOTAL, Payment, Place, World, a_key, a_world, until


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, webhooks={}, fulfillment={}, reconciler={}) as made:
        yield made


async def a_poisoned_capture(world: World) -> tuple[Payment, Any]:
    """A capture whose amount is no number: payments can never read it."""
    payment = await world.a_payment()
    envelope = an_envelope(world)
    body = {"order_id": payment.order_id, "intent_id": payment.id, "idempotency_key": "poison", "amount": "all of it"}
    await send(world, "payments.capture.v1", body, envelope)
    return payment, await the_letter(world, envelope.id)


class TestAPoisonedMessage:
    async def test_in_payments_is_understood_and_ends_right_once_edited(self, world: World) -> None:
        payment, letter = await a_poisoned_capture(world)

        seen = await show(world, letter["id"])
        body = {**seen["body"], "amount": TOTAL}
        answer = await act(world, letter["id"], "edit", {"body": body, "reason": "the shop wrote words"})

        assert (letter["service"], letter["order_id"], letter["attempts"]) == ("payments", str(payment.order_id), 1)
        assert "payments.capture.v1 cannot be read: Expected `int | null`, got `str` - at `$.amount`" in letter["reason"]
        assert (seen["fate"]["state"], seen["body"]["amount"], "Poison" in seen["history"][0]["traceback"]) == ("parked", "all of it", True)
        assert answer.status == 200, answer
        await until(lambda: _captured(payment))
        after = await show(world, letter["id"])
        assert after["difference"] == [{"path": "/amount", "before": "all of it", "after": TOTAL}]
        assert (after["letter"]["status"], after["fate"]["state"]) == ("replaced", "discarded")
        audited = await world.rows("SELECT action, reason FROM reconciler.admin_audit WHERE subject = $1", letter["id"])
        assert [dict(each) for each in audited] == [{"action": "dead_letter.edit", "reason": "the shop wrote words"}]

    async def test_in_fulfillment_too(self, world: World) -> None:
        envelope = an_envelope(world)
        body = {"jurisdiction": {"country": "US", "region": "CA"}, "since": "never", "idempotency_key": "poison"}
        await send(world, "fulfillment.put_nexus.v1", body, envelope)
        letter = await the_letter(world, envelope.id)
        seen = await show(world, letter["id"])
        assert "cannot be read" in letter["reason"]

        answer = await act(world, letter["id"], "edit", {"body": {**seen["body"], "nonsense": 1}, "reason": "a try"})

        assert (answer.status, answer.code) == (422, "invalid-request")
        assert "fulfillment.put_nexus.v1" in answer.json["detail"]
        assert (await show(world, letter["id"]))["letter"]["status"] == "waiting"

    async def test_in_webhooks_too(self, world: World) -> None:
        payment = await world.a_payment()
        event = (await until(lambda: world.rows("SELECT id FROM webhooks.webhook_events WHERE order_id = $1", payment.order_id)))[0]
        envelope = an_envelope(world, source="webhooks")
        await send(world, "background.webhooks.process.v1", {"event_id": "the first one"}, envelope)
        letter = await the_letter(world, envelope.id)

        seen = await show(world, letter["id"])
        answer = await act(world, letter["id"], "edit", {"body": {**seen["body"], "event_id": str(event["id"])}, "reason": "its id"})

        assert answer.status == 200, answer
        done = "SELECT state FROM webhooks.inbox WHERE message_id = $1 AND state = 'done'"
        await until(lambda: world.rows(done, answer.json["replaced_by"]))

    async def test_in_the_reconciler_too(self, world: World) -> None:
        envelope = an_envelope(world)
        times = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}
        await send(world, "reconciler.start_run.v1", {"domain": "paymnts", "provider": "sandbox", **times}, envelope)
        letter = await the_letter(world, envelope.id)

        seen = await show(world, letter["id"])
        answer = await act(world, letter["id"], "edit", {"body": {**seen["body"], "domain": "payments"}, "reason": "a typing error"})

        assert answer.status == 200, answer
        await until(lambda: world.rows("SELECT id FROM reconciler.reconciliation_runs WHERE id = $1", answer.json["replaced_by"]))

    async def test_that_is_edited_into_itself_is_refused(self, world: World) -> None:
        envelope = an_envelope(world)
        await park(world, "payments", "payments.capture.v1", await _a_capture(world), envelope)
        letter = await the_letter(world, envelope.id)

        answer = await act(world, letter["id"], "edit", {"body": (await show(world, letter["id"]))["body"], "reason": "none"})

        assert (answer.status, "the same" in answer.json["detail"]) == (422, True)

    async def test_keeps_what_is_sealed_through_an_edit(self, world: World) -> None:
        order_id = await world.an_order()
        snapshot = await world.a_snapshot(order_id)
        await world.change("ALTER TABLE payments.payment_intents RENAME TO elsewhere")
        asked = await world.authorize(order_id, snapshot, headers={"Prefer": "respond-async"})
        letter = await the_letter(world, asked.json["operation_id"])
        await world.change("ALTER TABLE payments.elsewhere RENAME TO payment_intents")

        seen = await show(world, letter["id"])
        answer = await act(world, letter["id"], "edit", {"body": {**seen["body"], "amount": TOTAL}, "reason": "say the amount"})

        assert seen["body"]["payment_method"] == "«sealed»"
        assert answer.status == 200, answer
        await until(lambda: _authorized(world, order_id))
        # Whoever waited is told by what it was replaced.
        found = await until(lambda: _ended(world, asked))
        assert (found["code"], found["replaced_by"]) == ("operation-discarded", answer.json["replaced_by"])


class TestRetry:
    async def test_carries_it_out_under_its_own_id_and_answers_whoever_waits(self, world: World) -> None:
        order_id, asked, letter = await _a_failed_quote(world)

        answer = await act(world, letter["id"], "retry", {"reason": "the table is back"})

        assert (answer.status, answer.json["status"], answer.json["retries"]) == (200, "retried", 1)
        found = await until(lambda: _ended(world, asked))
        assert found["order_id"] == str(order_id)
        assert (await show(world, letter["id"]))["fate"] == {"state": "done", "may_have_left": False}

    async def test_twice_is_refused_the_second_time(self, world: World) -> None:
        _, _, letter = await _a_failed_quote(world)
        assert (await act(world, letter["id"], "retry")).status == 200

        answer = await act(world, letter["id"], "retry")

        assert (answer.status, answer.code) == (409, "letter-settled")

    async def test_that_fails_again_lies_there_again_with_both_deaths(self, world: World) -> None:
        envelope = an_envelope(world)
        await send(world, "payments.capture.v1", {"amount": "words"}, envelope)
        letter = await the_letter(world, envelope.id)

        await act(world, letter["id"], "retry")

        again = await until(lambda: _died_again(world, letter["id"]))
        assert (again["letter"]["deaths"], again["letter"]["retries"], len(again["history"])) == (2, 1, 2)

    async def test_of_what_was_carried_out_does_nothing_twice(self, world: World) -> None:
        order_id, asked, letter = await _a_failed_quote(world)
        await act(world, letter["id"], "retry")
        await until(lambda: _ended(world, asked))
        kept = await world.rows("SELECT body FROM reconciler.dead_letters WHERE id = $1", letter["id"])
        await park(world, "payments", "payments.quote.v1", bytes(kept[0]["body"]), an_envelope(world, id=asked.json["operation_id"]))
        await until(lambda: _died_again(world, letter["id"]))

        discarded = await act(world, letter["id"], "discard", {"reason": "none"})
        retried = await act(world, letter["id"], "retry")

        assert (discarded.status, discarded.code, retried.status) == (409, "carried-out", 200)
        assert len(await world.rows("SELECT 1 FROM payments.order_checkout_snapshots WHERE order_id = $1", order_id)) == 1


class TestDiscard:
    async def test_answers_whoever_waits_and_stays_put_away(self, world: World) -> None:
        order_id, asked, letter = await _a_failed_quote(world)

        answer = await act(world, letter["id"], "discard", {"reason": "the shopper has gone"})

        assert (answer.status, answer.json["status"], answer.json["settled_reason"]) == (200, "discarded", "the shopper has gone")
        assert (await until(lambda: _ended(world, asked)))["code"] == "operation-discarded"
        # A copy that turns up late is not carried out, redriven or not.
        kept = (await world.rows("SELECT body FROM reconciler.dead_letters WHERE id = $1", letter["id"]))[0]["body"]
        late = an_envelope(world, id=asked.json["operation_id"], redriven=True)
        await send(world, "payments.quote.v1", bytes(kept), late)
        await send(world, "payments.get_order.v1", {"order_id": order_id}, an_envelope(world))
        seen = await show(world, letter["id"])
        assert (seen["fate"]["state"], seen["letter"]["status"]) == ("discarded", "discarded")
        assert await world.rows("SELECT 1 FROM payments.order_checkout_snapshots WHERE order_id = $1", order_id) == []

    async def test_of_a_webhook_event_that_was_given_up_ignores_it(self, world: World) -> None:
        body = b'{"id": "evt_unreadable", "type": "payment.x", "data": {"nonsense": true}}'
        told = Told(id="evt_unreadable", type="payment.x", body=body)
        sent = await world.http.post("/api/v1/webhooks/sandbox", content=body, headers=world.outgoing.headers(told))
        assert sent.status_code == 200
        event = "SELECT id, status, last_error FROM webhooks.webhook_events WHERE provider_event_id = 'evt_unreadable' AND status = $1"
        [dead] = await until(lambda: world.rows(event, "dead"))

        letter = await the_letter(world, dead["id"])
        answer = await act(world, letter["id"], "discard", {"reason": "a test of the provider's"})

        assert answer.status == 200, answer
        [ignored] = await world.rows(event, "ignored")
        assert ignored["last_error"] == f"An operator discarded it: {dead['last_error']}"

    async def test_needs_a_reason(self, world: World) -> None:
        _, _, letter = await _a_failed_quote(world)

        assert (await act(world, letter["id"], "discard")).status == 422
        assert (await act(world, letter["id"], "discard", {"reason": ""})).status == 422

    async def test_is_refused_when_a_provider_may_have_been_called(self, world: World) -> None:
        order_id = await world.an_order()
        asked = await world.authorize(order_id, await world.a_snapshot(order_id), "tok_silent", headers={"Prefer": "wait=3"})
        assert asked.status == 202, asked
        operation = asked.json["operation_id"]
        sent = await world.rows("SELECT command FROM gateway.idempotency_keys WHERE operation_id::text = $1", operation)
        await park(world, "payments", "payments.authorize.v1", bytes(sent[0]["command"]), an_envelope(world, id=operation))
        letter = await the_letter(world, operation)
        body = (await show(world, letter["id"]))["body"]

        put_away = await act(world, letter["id"], "discard", {"reason": "none"})
        changed = await act(world, letter["id"], "edit", {"body": {**body, "amount": 1}, "reason": "less"})

        assert [(each.status, each.code) for each in (put_away, changed)] == [(409, "may-have-been-sent")] * 2
        assert (await show(world, letter["id"]))["letter"]["status"] == "waiting"


class TestMany:
    async def test_are_grouped_retried_at_a_rate_and_can_be_stopped(self, world: World) -> None:
        bodies = [{"amount": "words", "intent_id": new_id()} for _ in range(30)]
        for body in bodies:
            await park(world, "payments", "payments.capture.v1", body, an_envelope(world), dead_reason="Tests: many 17 of 30")
        group = await until(lambda: _group(world, "many", 30))
        chosen = {"filter": {"fingerprint": group["fingerprint"]}, "action": "retry"}

        counted = await world.send("POST", "/api/v1/admin/dead-letters/redrives", {**chosen, "dry_run": True})
        earlier = time.monotonic()
        begun = await world.send("POST", "/api/v1/admin/dead-letters/redrives", {**chosen, "rate_per_second": 5})
        await until(lambda: _redriven(world, begun.json["id"], at_least=6))
        stopped = await world.send("POST", f"/api/v1/admin/dead-letters/redrives/{begun.json['id']}/stop", {"reason": "look first"})

        assert (counted.json["status"], counted.json["letters"]) == ("dry_run", 30)
        assert (begun.status, begun.json["letters"]) == (201, 30)
        assert (stopped.status, stopped.json["status"]) == (200, "stopped")
        left = (await world.send("GET", f"/api/v1/admin/dead-letters/redrives/{begun.json['id']}")).json
        assert 6 <= left["done"] <= min(1 + 5 * (time.monotonic() - earlier), 29)
        again = await world.send("POST", f"/api/v1/admin/dead-letters/redrives/{begun.json['id']}/stop", {})
        assert again.code == "redrive-ended"

    async def test_are_put_away_together(self, world: World) -> None:
        envelopes = [an_envelope(world) for _ in range(5)]
        for each in envelopes:
            await park(world, "fulfillment", "fulfillment.buy_label.v1", {"order_id": new_id()}, each)
        ids = [(await the_letter(world, each.id))["id"] for each in envelopes]

        begun = await world.send(
            "POST", "/api/v1/admin/dead-letters/redrives", {"action": "discard", "ids": ids, "rate_per_second": 1000, "reason": "tests"}
        )

        ended = await until(lambda: _completed(world, begun.json["id"]))
        assert (ended["done"], ended["skipped"]) == (5, 0)
        assert {(await show(world, each))["letter"]["status"] for each in ids} == {"discarded"}

    async def test_that_nobody_chose_are_refused(self, world: World) -> None:
        path = "/api/v1/admin/dead-letters/redrives"
        everything = await world.send("POST", path, {"action": "retry", "filter": {}})
        nothing = await world.send("POST", path, {"action": "retry"})
        unexplained = await world.send("POST", path, {"action": "discard", "filter": {"service": "payments"}})

        assert [each.status for each in (everything, nothing, unexplained)] == [422] * 3


class TestTaking:
    async def test_the_same_death_twice_is_one(self, world: World) -> None:
        envelope, at = an_envelope(world), "2026-11-01T00:00:00+00:00"
        for _ in range(2):
            await park(world, "payments", "payments.capture.v1", {}, envelope, dead_at=at)
        await park(world, "payments", "payments.capture.v1", {}, other := an_envelope(world))
        await the_letter(world, other.id)

        seen = await show(world, (await the_letter(world, envelope.id))["id"])

        assert (seen["letter"]["deaths"], len(seen["history"])) == (1, 1)

    async def test_what_crashed_its_consumer_again_and_again_says_so(self, world: World) -> None:
        envelope = an_envelope(world)
        death = {"reason": "delivery_limit", "queue": topology.background_lane("payments"), "count": 1, "exchange": ""}
        facts = {"x-death": [death], "x-delivery-count": 21}
        body = b'{"type":"payments.capture.v1"}'
        await publish(world, topology.DEAD, "payments", "payments.capture.v1", body, headers_of(envelope) | facts)

        letter = await the_letter(world, envelope.id)

        assert letter["reason"] == "Broker: whoever took it died with it in hand, again and again"
        assert (await show(world, letter["id"]))["queue"] == topology.background_lane("payments")

    async def test_one_that_says_nothing_is_for_operators_only(self, world: World) -> None:
        await publish(world, topology.COMMANDS, "payments.nonsense", "payments.nonsense", b"\x00\xff no json", {"odd": "\x00"})

        async def listed(role: Role) -> Any:
            return await world.send("GET", "/api/v1/admin/dead-letters?unreadable=true", role=role)

        found = (await until(lambda: _some(listed(Role.OPERATOR))))[0]
        refused = await listed(Role.ADMIN)
        hidden = await world.send("GET", f"/api/v1/admin/dead-letters/{found['id']}")
        seen = await world.send("GET", f"/api/v1/admin/dead-letters/{found['id']}", role=Role.OPERATOR)
        put_away = await world.send("POST", f"/api/v1/admin/dead-letters/{found['id']}/discard", {"reason": "nonsense"}, role=Role.OPERATOR)

        assert (refused.status, hidden.status) == (403, 404)
        assert "no json" in seen.json["body_text"]
        assert (put_away.status, put_away.json["status"]) == (200, "discarded")

    async def test_another_store_sees_nothing_of_it(self, world: World) -> None:
        envelope = an_envelope(world)
        await park(world, "payments", "payments.capture.v1", {}, envelope)
        letter = await the_letter(world, envelope.id)
        stranger = await a_key(world.place, new_id(), Role.OPERATOR)

        listed = await world.send("GET", "/api/v1/admin/dead-letters", token=stranger)
        hidden = await world.send("GET", f"/api/v1/admin/dead-letters/{letter['id']}", token=stranger)

        assert (listed.json["letters"], hidden.status) == ([], 404)

    async def test_is_found_by_what_one_knows_of_it(self, world: World) -> None:
        envelope, order_id = an_envelope(world), new_id()
        reason = "KeyError: the zebra was not in the registry"
        await park(world, "fulfillment", "fulfillment.buy_label.v1", {"order_id": order_id}, envelope, dead_reason=reason)
        letter = await the_letter(world, envelope.id)

        for query in (
            {"order_id": order_id},
            {"correlation_id": envelope.correlation_id},
            {"text": "zebra registry"},
            {"fingerprint": letter["fingerprint"]},
        ):
            assert [each["id"] for each in await letters(world, **query)] == [letter["id"]], query
        assert await letters(world, text="zebra", service="payments") == []


async def _some(asking: Any) -> Any:
    return (await asking).json["letters"]


async def _captured(payment: Payment) -> bool:
    return bool((await payment.intent())["captured_amount"] == TOTAL)


async def _authorized(world: World, order_id: Any) -> bool:
    payments = (await world.ledger(order_id))["payments"]
    return bool(payments and payments[0]["intent"]["status"] == "authorized")


async def _ended(world: World, asked: Any) -> Any:
    answer = await world.send("GET", asked.headers["location"])
    return answer.json["response"] and answer.json["response"]["body"]


async def _died_again(world: World, letter_id: str) -> Any:
    seen = await show(world, letter_id)
    return seen if seen["letter"]["status"] == "waiting" and seen["letter"]["deaths"] == 2 else None


async def _group(world: World, text: str, count: int) -> Any:
    groups = (await world.send("GET", "/api/v1/admin/dead-letters/groups")).json["groups"]
    return next((each for each in groups if text in each["reason"] and each["letters"] == count), None)


async def _redriven(world: World, redrive_id: str, *, at_least: int) -> bool:
    return bool((await world.send("GET", f"/api/v1/admin/dead-letters/redrives/{redrive_id}")).json["done"] >= at_least)


async def _completed(world: World, redrive_id: str) -> Any:
    found = (await world.send("GET", f"/api/v1/admin/dead-letters/redrives/{redrive_id}")).json
    return found if found["status"] == "completed" else None


async def _a_capture(world: World) -> Any:
    return {"order_id": str(new_id()), "intent_id": str(new_id()), "idempotency_key": "planted"}


async def _a_failed_quote(world: World) -> tuple[Any, Any, Any]:
    """A quote that failed for good because a table was away, which is back by now."""
    order_id = await world.an_order()
    await world.change("ALTER TABLE payments.order_checkout_snapshots RENAME TO elsewhere")
    try:
        asked = await world.quote(order_id, headers={"Prefer": "respond-async"})
        letter = await the_letter(world, asked.json["operation_id"])
    finally:
        await world.change("ALTER TABLE payments.elsewhere RENAME TO order_checkout_snapshots")
    return order_id, asked, letter
