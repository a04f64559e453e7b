"""M4, row 57: an event of an account that stores share belongs to the store that it is about, and to none before."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import pytest

from deploy.sandbox.webhooks import Told
from services.gateway.domain import Role
from shared.ids import NOBODY
from tests.fulfillment import shop
from tests.journeys.test_shipping import a_label, tracking
from tests.webhooks.test_ingest import all_processed, an_event, events, post
from tests.world import WEBHOOK_SECRET, Payment, Place, World, a_key, a_neighbour, a_world, until

PROVIDERS = ("sandbox", "sandbox-carrier")
SHARED = [{"provider": name, "environment": "sandbox", "account": f"{name}:default", "secrets": [WEBHOOK_SECRET]} for name in PROVIDERS]


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}, webhooks={"webhook_accounts": msgspec.json.encode(SHARED).decode()}) as made:
        yield made


@pytest.fixture(scope="module")
async def neighbour(world: World) -> AsyncIterator[World]:
    made = await a_neighbour(world)
    yield made
    await made.http.aclose()


async def filed(store: World, order_id: UUID, *, status: str = "processed") -> Any:
    """Wait until a store reads of an order's events one that stands like this."""

    async def so() -> Any:
        found = (await events(store, order_id=order_id))["events"]
        return next((each for each in found if each["status"] == status), None)

    return await until(so)


async def row_of(world: World, told: Told, *statuses: str) -> Any:
    """Wait until an event's row stands like this, whosever it is."""

    async def so() -> Any:
        found = await world.rows("SELECT id, store_id, status FROM webhooks.webhook_events WHERE provider_event_id = $1", told.id)
        return found[0] if found and found[0]["status"] in statuses else None

    return await until(so)


async def readers(event_id: Any, *stores: World) -> list[int]:
    """With what each store's admin is answered who reads an event, lists all and replays it."""
    path = f"/api/v1/admin/webhooks/events/{event_id}"
    answers = [await store.send("GET", path) for store in stores]
    answers += [await store.send("POST", f"{path}/replay") for store in stores]
    for store in stores:
        assert str(event_id) not in {each["id"] for each in (await events(store))["events"]}
    return [answer.status for answer in answers]


async def about(payment: Payment, world: World) -> Told:
    return an_event(world, msgspec.to_builtins(payment.at_the_provider()))


async def test_an_event_is_the_store_of_its_payments_alone(world: World, neighbour: World) -> None:
    payments = {world.store_id: await world.a_captured_payment(), neighbour.store_id: await neighbour.a_captured_payment()}

    for store, other in ((world, neighbour), (neighbour, world)):
        found = await filed(store, payments[store.store_id].order_id)
        assert await readers(found["id"], other) == [404, 404]
        assert (await payments[store.store_id].intent())["captured_amount"] == 10_000


async def test_what_only_a_webhook_says_is_booked_for_its_store(world: World, neighbour: World) -> None:
    payment = await neighbour.a_captured_payment()
    await all_processed(world)
    theirs = payment.at_the_provider()

    world.sandbox.books.add(theirs, "refund", 1_000, reason="dashboard")
    await post(world, await about(payment, world))

    async def refunded() -> bool:
        return bool((await payment.intent())["refunded_amount"] == 1_000)

    await until(refunded)
    assert (await neighbour.ledger(payment.order_id))["payments"][0]["transactions"][-1]["source"] == "webhook"


async def test_an_event_is_hidden_until_its_payment_is_known(world: World, neighbour: World) -> None:
    payment = await neighbour.a_payment()
    await all_processed(world)
    account = "UPDATE payments.payment_intents SET provider_account = $2 WHERE id = $1"
    await world.change(account, payment.id, "elsewhere")
    told = await about(payment, world)

    await post(world, told)
    waiting = await row_of(world, told, "waiting")
    hidden = await readers(waiting["id"], world, neighbour)
    await world.change(account, payment.id, "sandbox:default")
    found = await row_of(world, told, "processed")

    assert (waiting["store_id"], hidden) == (NOBODY, [404] * 4)
    assert found["store_id"] == neighbour.store_id
    assert await readers(found["id"], world) == [404, 404]


async def test_a_repeat_of_a_filed_event_is_no_new_one(world: World, neighbour: World) -> None:
    payment = await neighbour.a_payment()
    told = await about(payment, world)

    answers = await asyncio.gather(*(post(world, told) for _ in range(3)))
    await row_of(world, told, "processed")
    answers.append(await post(world, told))

    assert [each.status for each in answers] == [200] * 4
    assert len(await world.rows("SELECT FROM webhooks.webhook_events WHERE provider_event_id = $1", told.id)) == 1


@pytest.mark.parametrize("kind", ["customer.created", "payment.authorize.succeeded"])
async def test_an_event_of_no_stores_payment_stays_hidden(world: World, neighbour: World, kind: str) -> None:
    theirs = msgspec.to_builtins((await world.a_payment()).at_the_provider())
    told = an_event(world, {**theirs, "id": "pay_stranger", "reference": None}, kind=kind)
    await all_processed(world)

    await post(world, told)
    found = await row_of(world, told, "ignored")

    assert found["store_id"] == NOBODY
    assert await readers(found["id"], world, neighbour) == [404] * 4
    key = await a_key(world.place, NOBODY, Role.ADMIN)
    path = f"/api/v1/admin/webhooks/events/{found['id']}"
    assert (await world.send("GET", path, token=key)).json["event"]["status"] == "ignored"
    assert (await world.send("POST", f"{path}/replay", token=key)).status == 201


async def test_a_carriers_event_is_the_store_of_its_parcels_alone(world: World, neighbour: World) -> None:
    await shop.set_up(neighbour, carriers=["sandbox"])
    order_id, label = await a_label(neighbour)
    number = label["tracking_numbers"][0]

    moved = await world.http.post(f"{world.sandbox.base_url}/control/parcels/{number}/move", json={})

    assert moved.status_code == 200
    found = await filed(neighbour, order_id)
    assert await readers(found["id"], world) == [404, 404]
    assert (await tracking(neighbour, order_id))["status"] == "pre_transit"
