"""F6, F18: a provider's answer that holds what no table can hold is no answer: the outcome is looked up, and nothing crashes."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from services.payments.domain.intents import Operation
from services.payments.providers import CaptureRequest, TransactionPage
from services.payments.providers.sandbox import SandboxPayments
from shared.ids import new_id
from shared.provider_answers import IndeterminateResponse
from tests.payments.intermediary import Intermediary, Reply, an_intermediary
from tests.webhooks.test_values import AMOUNTS, CURRENCIES, MOMENTS, TEXTS, variants
from tests.world import Place, World, a_world, until

CAPTURE = {"id": "cap_1", "kind": "capture", "status": "succeeded", "amount": 500, "created_at": "2026-01-01T00:00:00Z"}
SHOWN: dict[str, Any] = {
    "id": "pay_1",
    "reference": str(new_id()),
    "currency": "EUR",
    "created_at": "2026-01-01T00:00:00Z",
    "authorization_expires_at": None,
    "operations": [CAPTURE],
}
UNFIT = {
    **variants(SHOWN, {"currency": CURRENCIES, "created_at": MOMENTS, "authorization_expires_at": MOMENTS, "id": TEXTS}),
    **variants(
        SHOWN,
        {"amount": AMOUNTS, "id": TEXTS, "reason": TEXTS, "decline_code": TEXTS, "kind": TEXTS, "status": TEXTS},
        inside=lambda shown: shown["operations"][0],
    ),
}
SOME = ("amount half", "amount over-bigint", "amount over-64-bits", "reason nul", "id long", "authorization_expires_at year-9999")


@pytest.fixture(scope="module")
async def between() -> AsyncIterator[Intermediary]:
    async with an_intermediary() as made:
        yield made


@pytest.fixture(scope="module")
async def world(place: Place, between: Intermediary) -> AsyncIterator[World]:
    async with a_world(place, payments={"sandbox_url": between.url}) as made:
        between._upstream = made.sandbox.base_url
        yield made


async def test_no_reading_takes_it_for_an_answer() -> None:
    async with an_intermediary() as liar:
        provider = SandboxPayments(base_url=liar.url, api_key="x", timeout_seconds=1.0)
        taken = []
        for name, body in UNFIT.items():
            page = b'{"data": [' + body + b'], "next_cursor": null}'
            moment = datetime.now(UTC)
            prepared = provider.prepare(
                CaptureRequest(provider_payment_id="pay_1", amount=500, currency="EUR", final=False, reference=new_id())
            )
            for answer, ask in (
                (body, provider.get_transaction("pay_1")),
                (body, provider.send(prepared, idempotency_key="x", reference=new_id())),
                (page, provider.list_transactions(since=moment, until=moment, cursor=None)),
                (page, provider.find_by_reference(new_id(), operation=Operation.CAPTURE, provider_payment_id=None)),
            ):
                liar.reply = Reply(200, answer, "application/json")
                try:
                    found = await ask
                except IndeterminateResponse:
                    continue
                # On a page it is told by its name, if it has one.
                if not isinstance(found, TransactionPage) or found.transactions:
                    taken.append((name, found))
        await provider.close()

    assert taken == []


@pytest.mark.parametrize("name", SOME)
async def test_the_outcome_is_looked_up(world: World, between: Intermediary, name: str) -> None:
    payment = await world.a_payment()
    between.reply = Reply(200, UNFIT[name], "application/json")

    answer = await payment.capture(500)

    assert between.reply is None
    assert answer.status in (201, 202), answer
    await until(lambda: _captured(payment, 500))
    await world.books_agree(payment.order_id)


@pytest.mark.parametrize("message", ["a\0b", "x" * 100_000, {"a": ["b\0c"]}, 10**30], ids=["nul", "long", "nested", "large"])
async def test_a_refusal_with_such_a_text_is_one_all_the_same_or_looked_up(world: World, between: Intermediary, message: Any) -> None:
    payment = await world.a_payment()
    text = msgspec.json.encode(message) if message != 10**30 else b"1" + b"0" * 30
    between.reply = Reply(400, b'{"error": {"code": "amount_too_large", "message": ' + text + b"}}", "application/json")

    await payment.capture(500)

    # The sandbox carried it out, whatever was said: looking shows it, and a refusal of its own words is believed at first.
    async def ended() -> bool:
        rows = [t for t in await payment.transactions() if t["operation"] == "capture"]
        return bool(rows) and rows[0]["status"] in ("failed", "succeeded")

    await until(ended)
    # Its audit is kept with it.
    calls = await world.rows("SELECT FROM payments.provider_call_audit WHERE operation = 'capture' AND status = 400")
    assert calls


async def test_one_question_that_cannot_be_concluded_holds_up_no_other(world: World) -> None:
    """F6: its provider's account is not configured any more, say."""
    order_id = await world.an_order()
    assert (await world.authorize(order_id, await world.a_snapshot(order_id), "tok_pending", headers={"Prefer": "wait=0"})).status == 202
    of_order = "SELECT id FROM payments.payment_intents WHERE order_id = $1"
    lost = f"SELECT id FROM payments.payment_transactions WHERE payment_intent_id = ({of_order})"
    [row] = await until(lambda: world.rows(f"{lost} AND provider_txn_id IS NOT NULL", order_id))
    await world.change("UPDATE payments.payment_intents SET provider_account = 'gone' WHERE order_id = $1", order_id)
    await world.change("UPDATE payments.payment_transactions SET next_look_at = now(), looks = 8 WHERE id = $1", row["id"])

    other = await world.a_payment("tok_timeout_once")

    put_off = "SELECT FROM payments.payment_transactions WHERE id = $1 AND looks = 9 AND next_look_at > now() + interval '10 minutes'"
    await until(lambda: world.rows(put_off, row["id"]))
    assert (await other.intent())["status"] == "authorized"


async def _captured(payment: Any, amount: int) -> bool:
    return bool((await payment.intent())["captured_amount"] == amount)
