"""No store and no caller takes all places for requests in hand (security report H1, row 97)."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.gateway.domain import Role
from shared.ids import new_id
from tests.world import ORDER, Answer, Place, World, a_key, a_world, until

PLACES, PER_STORE, PER_TOKEN = 10, 6, 2
# As long as a client may ask for, and longer than any of these tests.
WAIT = {"Prefer": "wait=60"}
SILENCE_SECONDS = 20.0


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    limits = {
        "requests_in_flight_max": PLACES,
        "requests_in_flight_per_store_max": PER_STORE,
        "requests_in_flight_per_token_max": PER_TOKEN,
    }
    async with a_world(place, gateway=limits, payments={"provider_timeout_seconds": SILENCE_SECONDS}) as made:
        made.sandbox.silence_seconds = SILENCE_SECONDS
        yield made


@pytest.fixture(autouse=True)
async def _free_places(world: World) -> None:
    await until(lambda: _free(world, PER_STORE))


async def _free(world: World, count: int) -> bool:
    answers = await asyncio.gather(*(world.put_order(new_id(), ORDER) for _ in range(count)))
    return all(answer.status == 200 for answer in answers)


class Waiting:
    """Requests that wait for a provider that does not answer."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._calls: list[asyncio.Task[Answer]] = []

    async def order(self) -> tuple[str, str, str]:
        """An order, its snapshot, and a shopper's token for it."""
        order_id = await self._world.an_order()
        snapshot_id = await self._world.a_snapshot(order_id)
        token = await self._world.send("POST", f"/api/v1/admin/orders/{order_id}/checkout-token")
        return str(order_id), snapshot_id, token.json["token"]

    def pay(self, order: tuple[str, str, str], *, key: str = "", token: str | None = None) -> "asyncio.Task[Answer]":
        order_id, snapshot_id, _ = order
        body = {"snapshot_id": snapshot_id, "payment_method": "tok_silent"}
        path = f"/api/v1/checkout/orders/{order_id}/payments/authorize"
        call = asyncio.create_task(self._world.send("POST", path, body, key=key or new_id().hex, token=token, headers=WAIT))
        self._calls.append(call)
        return call

    async def under_way(self, count: int) -> None:
        """Wait until so many have come to payments, or to their first's answer."""
        asked = "SELECT FROM gateway.idempotency_keys WHERE command_type LIKE '%authorize%' AND status = 'in_progress'"

        async def there() -> bool:
            return len(await self._world.rows(asked)) >= count

        await until(there)

    async def hang_up(self) -> None:
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)


@pytest.fixture
async def waiting(world: World) -> AsyncIterator[Waiting]:
    made = Waiting(world)
    yield made
    await made.hang_up()
    await world.change("DELETE FROM gateway.idempotency_keys WHERE status = 'in_progress'")


async def test_whoever_joins_a_key_shares_its_place(world: World, waiting: Waiting) -> None:
    order = await waiting.order()

    joined = [waiting.pay(order, key="the same", token=order[2]) for _ in range(5 * PLACES)]
    await waiting.under_way(1)

    assert await _free(world, PER_STORE - 1)
    assert not any(call.done() for call in joined)


async def test_a_token_has_its_share(world: World, waiting: Waiting) -> None:
    order = await waiting.order()

    # One pays; another may find the order being paid (409) before it has been refused a place.
    calls = [waiting.pay(order, token=order[2]) for _ in range(PER_TOKEN + 8)]

    refused = await until(lambda: _refused(calls, 3))
    assert {(answer.code, answer.json["retry"]) for answer in refused} == {("too-many-in-hand", "same_key")}
    assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
    assert await _free(world, PER_STORE - PER_TOKEN)


async def test_a_store_has_its_share_with_any_number_of_keys_and_another_store_goes_on(world: World, waiting: Waiting) -> None:
    orders = [await waiting.order() for _ in range(PER_STORE)]
    keys = [await a_key(world.place, world.store_id, Role.CHECKOUT) for _ in range(3)]
    for number, order in enumerate(orders):
        waiting.pay(order, token=keys[number % len(keys)])
    await waiting.under_way(PER_STORE)

    mine = await world.put_order(new_id(), ORDER)
    theirs = await world.put_order(new_id(), ORDER, token=await a_key(world.place, new_id(), Role.ADMIN))

    assert (mine.status, mine.code) == (429, "too-many-in-hand")
    assert theirs.status == 200


async def test_a_client_that_hangs_up_frees_its_place(world: World, waiting: Waiting) -> None:
    for _ in range(PER_STORE):
        waiting.pay(await waiting.order())
    await waiting.under_way(PER_STORE)
    assert (await world.put_order(new_id(), ORDER)).status == 429

    await waiting.hang_up()

    await until(lambda: _free(world, PER_STORE))


async def _refused(calls: list["asyncio.Task[Answer]"], count: int) -> list[Answer] | None:
    refused = [call.result() for call in calls if call.done() and call.result().status == 429]
    return refused if len(refused) >= count else None
