"""Any order, repetition and loss of a payment's events, mixed with the answers to our own calls, ends in the same books."""

import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.sandbox.webhooks import Moods, Told
from tests.webhooks.test_ingest import once_more, post
from tests.world import Payment, Place, World, a_world, until

RUNS = 12
# What happens, in order: by us over the API, or in the provider's dashboard.
LIVES = (
    (("api", "capture", 4_000), ("provider", "capture", 3_000), ("provider", "refund", 500), ("api", "refund", 1_500)),
    (("provider", "capture", 10_000), ("provider", "refund", 2_500), ("provider", "chargeback", 1_000), ("provider", "refund", 6_500)),
    (("api", "capture", 2_500), ("provider", "void", 7_500), ("api", "refund", 1_000), ("provider", "chargeback", 1_500)),
    # A refund that fails after it succeeded, and one that is cancelled.
    (
        ("api", "capture", 6_000),
        ("api", "refund", 1_500),
        ("turn", "refund_fail", 0),
        ("provider", "refund", 500),
        ("turn", "refund_cancel", 0),
    ),
    # A dispute that is won and lost after all.
    (("api", "capture", 10_000), ("dispute", "needs_response", 4_000), ("dispute", "won", 0), ("dispute", "lost", 0)),
    (("api", "capture", 10_000), ("dispute", "warning_needs_response", 4_000), ("dispute", "lost", 0), ("dispute", "won", 0)),
)


@pytest.fixture(scope="module", params=["sandbox", "stripe"])
async def world(place: Place, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with a_world(place, webhooks={}, provider=request.param) as made:
        # Nothing goes out by itself; the test is the postman.
        made.outgoing.moods = Moods(lost=1.0)
        yield made


@settings(max_examples=RUNS, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(life=st.sampled_from(LIVES), seed=st.integers(min_value=0, max_value=2**32))
async def test_ends_in_the_same_books(world: World, life: tuple[tuple[str, str, int], ...], seed: int) -> None:
    in_order = await _lived(world, life, None)
    in_any_order = await _lived(world, life, random.Random(seed))

    books, history = in_any_order
    assert books == in_order[0]
    # What turned back before it was heard of leaves no trace in a history.
    assert history == in_order[1] or any(who in ("turn", "dispute") for who, _, _ in life)


async def _lived(world: World, life: tuple[tuple[str, str, int], ...], chance: random.Random | None) -> Any:
    """Live a life, each event delivered at once, or at random, twice or never; in the end all of them come, in any order."""
    payment = await world.a_payment()
    known: list[Told] = []
    for who, what, amount in life:
        known += _events_of(world, payment, known)
        if chance is None:
            await _deliver(world, known[-1:])
        elif chance.random() < 0.5:
            await _deliver(world, [chance.choice(known) for _ in range(chance.randint(1, 2))])
        there, books = payment.at_the_provider(), world.sandbox.books
        if who == "turn":
            books.settle_refund(there, what, {})
        elif who == "dispute":
            books.dispute(there, {"status": what, "amount": amount})
        elif who == "api":
            done = await (payment.capture(amount) if what == "capture" else payment.refund(amount))
            assert done.status == 201, done
        else:
            books.add(there, what, amount, reason="dashboard")
        _a_second_later(payment)
    known += _events_of(world, payment, known)
    if chance is not None:
        chance.shuffle(known)
    await _deliver(world, known)
    await world.books_agree(payment.order_id)
    return _told(await world.ledger(payment.order_id))


def _a_second_later(payment: Payment) -> None:
    """Let what happened lie a second apart, as it does in life; Stripe counts in whole ones."""
    operations = payment.at_the_provider().operations
    moment = datetime.fromisoformat(operations[0].created_at)
    for n, operation in enumerate(operations):
        operation.created_at = (moment + timedelta(seconds=n)).isoformat()


def _events_of(world: World, payment: Payment, known: list[Told]) -> list[Told]:
    """The events that the sandbox made of a payment and did not send."""
    mine = [t for t in world.outgoing.events.values() if payment.at_the_provider().id.encode() in t.body]
    return mine[len(known) :]


async def _deliver(world: World, events: list[Told]) -> None:
    for told in events:
        # A replay by the provider bears the same id, and is a no-op; one by us does not, and must be one too.
        for each in (told, once_more(told)):
            assert (await post(world, each, direct=True)).status == 200

    async def processed() -> bool:
        rows = await world.rows("SELECT FROM webhooks.webhook_events WHERE status NOT IN ('processed', 'ignored')")
        return not rows

    await until(processed)


def _told(ledger: Any) -> Any:
    """What the books say, without ids and times; a fact may have been learnt from an answer or from an event."""
    [payment] = ledger["payments"]
    amounts = {key: value for key, value in payment["intent"].items() if key.endswith(("_amount", "_reserved"))}
    rows = sorted((t["operation"], t["status"], t["amount"], t["processed_amount"]) for t in payment["transactions"])
    history = [(change["from_status"], change["to_status"], change["reason"]) for change in ledger["history"]]
    standing = payment["intent"]["status"], payment["intent"]["attention"], ledger["order_status"]
    return msgspec.to_builtins([standing, amounts, rows]), history
