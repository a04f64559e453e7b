"""A process dies in the middle: the client's retry gets the true answer, and the sandbox shows one effect."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.ids import new_id
from tests.faults.system import System, a_system
from tests.world import TOTAL, Answer, Payment, Place, World, until


@pytest.fixture
async def system(own_place: Place, tmp_path: Path) -> AsyncIterator[tuple[System, World]]:
    async with a_system(own_place, tmp_path) as made:
        yield made


async def _called(world: World, kind: str, times: int) -> bool:
    return world.sandbox.calls.get(kind, 0) >= times


async def _patiently(send: Any) -> Answer:
    """Retry with the same key, as a client does."""
    for _ in range(40):
        try:
            answer: Answer = await send()
        except httpx.HTTPError:
            await asyncio.sleep(0.2)
            continue
        if answer.status not in (202, 503):
            return answer
    raise AssertionError("no true answer came")


class TestPaymentsDies:
    @pytest.mark.parametrize("operation", ["authorize", "capture", "refund", "void"])
    async def test_while_the_provider_acts(self, system: tuple[System, World], operation: str) -> None:
        processes, world = system
        token = "tok_timeout_after_success" if operation == "authorize" else f"tok_{operation}_timeout"
        send = await _prepared(world, operation, token)
        before = world.sandbox.calls.get(operation, 0)
        first = asyncio.create_task(send())
        await until(lambda: _called(world, operation, before + 1))

        processes.kill("payments")
        await processes.start("payments")

        answer = await _patiently(send)
        assert answer.status == 201
        assert (await first).status in (201, 202)
        payment = next(iter(world.sandbox.books.payments.values()))
        assert sum(1 for o in payment.operations if o.kind == operation) == 1
        await world.books_agree(_order_of(world))

    async def test_and_its_stop_waits_for_what_is_in_hand(self, system: tuple[System, World]) -> None:
        processes, world = system
        send = await _prepared(world, "authorize", "tok_slow")
        first = asyncio.create_task(send())
        await until(lambda: _called(world, "authorize", 1))

        stopping = processes.ask_to_stop("payments")

        assert (await first).status == 201
        await until(lambda: _over(stopping))


async def _over(process: Any) -> bool:
    return not process.running


class TestGatewayDies:
    async def test_before_the_reply_and_another_one_answers(self, system: tuple[System, World]) -> None:
        processes, world = system
        await processes.start("gateway 2")
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)
        first = asyncio.create_task(world.authorize(order_id, snapshot_id, "tok_slow", key=key))
        await until(lambda: _called(world, "authorize", 1))

        processes.kill("gateway")
        with pytest.raises(httpx.HTTPError):
            await first
        other = _through(processes, world, "gateway 2")
        answer = await _patiently(lambda: other.authorize(order_id, snapshot_id, "tok_slow", key=key))

        assert (answer.status, answer.json["intent"]["authorized_amount"]) == (201, TOTAL)
        assert len(world.sandbox.books.payments) == 1
        await other.http.aclose()

    async def test_and_what_it_left_is_finished_without_anybody_asking(self, system: tuple[System, World]) -> None:
        processes, world = system
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)
        first = asyncio.create_task(world.authorize(order_id, snapshot_id, "tok_slow", key=key))
        await until(lambda: _called(world, "authorize", 1))

        processes.kill("gateway")
        with pytest.raises(httpx.HTTPError):
            await first
        await processes.start("gateway")

        rows = await until(lambda: _completed(world, key))
        assert rows[0]["response_code"] == 201

    async def test_two_gateways_have_one_answer(self, system: tuple[System, World]) -> None:
        processes, world = system
        await processes.start("gateway 2")
        other = _through(processes, world, "gateway 2")
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)

        answers = await asyncio.gather(*(w.authorize(order_id, snapshot_id, key=key) for w in (world, other) for _ in range(10)))

        assert {a.status for a in answers} == {201}
        assert len({a.content for a in answers}) == 1
        assert len(world.sandbox.books.payments) == 1
        await other.http.aclose()


def _through(processes: System, world: World, gateway: str) -> World:
    """The same world, called through another gateway."""
    return World(
        world.place,
        gateway_url=processes.url(gateway),
        payments_url=world.payments_url,
        sandbox=world.sandbox,
        keys=world.keys,
        store_id=world.store_id,
    )


async def _completed(world: World, key: str) -> Any:
    return await world.rows("SELECT * FROM gateway.idempotency_keys WHERE idempotency_key = $1 AND status = 'completed'", key)


async def _prepared(world: World, operation: str, token: str) -> Any:
    key = new_id().hex
    if operation == "authorize":
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)
        return lambda: world.authorize(order_id, snapshot_id, token, key=key)
    payment: Payment = await (world.a_captured_payment(token) if operation == "refund" else world.a_payment(token))
    return {
        "capture": lambda: payment.capture(4_000, key=key),
        "refund": lambda: payment.refund(4_000, key=key),
        "void": lambda: payment.void(key=key),
    }[operation]


def _order_of(world: World) -> Any:
    return next(iter(world.sandbox.books.payments.values())).order_id
