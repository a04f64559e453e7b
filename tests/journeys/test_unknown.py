"""Outcomes that nobody learnt: shown with what was tried, decided by an operator with evidence, and the waiting key gets its answer."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from shared.ids import new_id
from tests.world import SANDBOX_KEY, Answer, Payment, Place, World, a_world, patiently, until

PATH = "/api/v1/admin/unknown-outcomes"


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, provider="stripe") as made:
        yield made


@pytest.fixture(autouse=True)
def _back_to_normal(world: World) -> Any:
    yield
    world.sandbox.api_key = SANDBOX_KEY


async def unknown_of(world: World, payment: Payment) -> Any:
    """Wait until an operation's outcome is listed as unknown."""

    async def listed() -> Any:
        answer = await world.send("GET", PATH)
        assert answer.status == 200, answer
        return next((each for each in answer.json["operations"] if each["intent_id"] == str(payment.id)), None)

    return await until(listed)


async def an_unknown_capture(world: World) -> tuple[Payment, str, Any]:
    """A payment whose provider has turned our key away in between; also the capture's key, and how it is listed."""
    payment, key = await world.a_payment(), new_id().hex
    world.sandbox.api_key = "another"
    assert (await payment.capture(key=key, headers={"Prefer": "wait=0"})).status == 202
    return payment, key, await unknown_of(world, payment)


async def decide(world: World, transaction_id: str, outcome: str = "succeeded", **body: Any) -> Answer:
    evidence = {"outcome": outcome, "evidence": "Their support confirmed it on the phone; ticket 4711."}
    return await patiently(lambda: world.send("POST", f"{PATH}/{transaction_id}/decide", {**evidence, **body}))


async def test_listed_with_what_was_tried(world: World) -> None:
    payment, _, listed = await an_unknown_capture(world)

    assert (listed["operation"], listed["amount"], listed["currency"]) == ("capture", 10_000, "EUR")
    assert listed["age_seconds"] > 0
    assert {(call["classification"], call["status"]) for call in listed["tried"]} == {("answered", 401)}
    assert "capture" in {call["operation"] for call in listed["tried"]}
    assert listed["order_id"] == str(payment.order_id)


@pytest.mark.parametrize(("outcome", "status", "intent_status"), [("succeeded", 201, "captured"), ("failed", 409, "authorized")])
async def test_an_operator_decides_and_the_waiting_key_hears_it(world: World, outcome: str, status: int, intent_status: str) -> None:
    payment, key, listed = await an_unknown_capture(world)

    decided = await decide(world, listed["transaction_id"], outcome)
    answer = await patiently(lambda: payment.capture(key=key))

    assert (decided.status, decided.json["status"]) == (200, intent_status)
    assert answer.status == status
    row = next(t for t in await payment.transactions() if t["id"] == listed["transaction_id"])
    assert "ticket 4711" in row["raw_response_redacted"]["evidence"]
    audited = await world.rows("SELECT action, actor, reason FROM payments.admin_audit WHERE subject = $1", listed["transaction_id"])
    assert [(row["action"], row["actor"].split(":")[0]) for row in audited] == [("outcome.decide", "admin")]
    assert all("ticket 4711" in row["reason"] for row in audited)


async def test_the_providers_own_word_wins(world: World) -> None:
    payment, key = await world.a_payment(), new_id().hex
    # It is carried out, and the answer comes too late; then nobody is let in who would look.
    world.sandbox.weather, taken = {"late": 1.0}, world.sandbox.calls.get("capture", 0)
    assert (await payment.capture(key=key, headers={"Prefer": "wait=0"})).status == 202
    await until(lambda: _is(world.sandbox.calls.get("capture", 0) > taken))
    world.sandbox.weather, world.sandbox.api_key = {}, "another"
    listed = await unknown_of(world, payment)
    world.sandbox.api_key = SANDBOX_KEY

    decided = await decide(world, listed["transaction_id"], "failed")
    answer = await patiently(lambda: payment.capture(key=key))

    assert (decided.status, decided.code) == (409, "outcome-known")
    assert answer.status == 201
    await world.books_agree(payment.order_id)


async def _is(held: bool) -> bool:
    return held


LOOKED_AT_AGE = """
    UPDATE payments.payment_transactions
       SET created_at = now() - make_interval(hours => $2), next_look_at = now(), lease_expires_at = now()
     WHERE id = $1
"""


async def test_absence_proves_something_after_the_wait_alone(world: World) -> None:
    """For a resolver that repeats a call whose key Stripe may have forgotten, or that takes it for not made before the list is sure."""
    payment, key, listed = await an_unknown_capture(world)
    transaction_id, sent = UUID(listed["transaction_id"]), world.sandbox.calls.get("capture", 0)
    found = "SELECT status, next_look_at > now() AND lease_expires_at <= now() AS looked FROM payments.payment_transactions WHERE id = $1"
    await world.change("UPDATE payments.payment_transactions SET next_look_at = now() + interval '1 hour' WHERE id = $1", transaction_id)
    world.sandbox.api_key = SANDBOX_KEY

    seen = []
    for hours in (25, 27):
        await world.change(LOOKED_AT_AGE, transaction_id, hours)
        await until(partial(_looked, world, found, transaction_id))
        seen.append((await world.rows(found, transaction_id))[0]["status"])
    answer = await patiently(lambda: payment.capture(key=key))

    assert seen == ["unknown", "failed"]
    assert (answer.status, world.sandbox.calls.get("capture", 0)) == (409, sent)
    await world.books_agree(payment.order_id)


async def _looked(world: World, found: str, transaction_id: UUID) -> bool:
    [row] = await world.rows(found, transaction_id)
    return bool(row["looked"] or row["status"] != "unknown")


async def test_what_has_ended_or_is_not_there_cannot_be_decided(world: World) -> None:
    payment = await world.a_captured_payment()
    ended = (await payment.transactions())[0]["id"]

    assert (await decide(world, ended)).code == "outcome-known"
    assert (await decide(world, str(new_id()))).status == 404
    assert (await world.send("POST", f"{PATH}/{ended}/decide", {"outcome": "perhaps", "evidence": "x"})).status == 422
    assert (await world.send("POST", f"{PATH}/{ended}/decide", {"outcome": "failed", "evidence": ""})).status == 422
