"""Red team 116 (M17): a webhooks service in wrong hands has every webhook secret, so nothing is booked on its word alone.

Messages are sent as `tender_webhooks`, the broker user of that service, and hold what a provider would have sent for a change that its
books do not show.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from deploy.sandbox.webhooks import Moods, Told
from shared import topology
from shared.bus import Letter, Publisher, headers_of
from shared.contracts import payments
from shared.contracts.fulfillment import shipping
from shared.contracts.payments import Refund
from shared.ids import new_id
from shared.messages import Done, Envelope, Environment, Message, Refused, Reply, encode, type_of
from shared.replies import Replies
from tests.fulfillment import shop
from tests.fulfillment.shop import an_order, ok, quote
from tests.shared.probe import take
from tests.world import Payment, Place, World, a_world, until


class Hijacked:
    """The bus as it is open to an attacker who controls the webhooks service."""

    def __init__(self, world: World, publisher: Publisher, replies: Replies) -> None:
        self.world = world
        self.publisher = publisher
        self.replies = replies

    def envelope(self, **facts: Any) -> Envelope:
        own = {"id": new_id(), "store_id": self.world.store_id, "environment": Environment.SANDBOX, "correlation_id": "forged"}
        return Envelope(**{**own, "source": "webhooks", "actor": "webhook:forged", **facts})

    async def send(self, message: Message) -> Reply:
        """Send a message and wait for its reply."""
        envelope = self.envelope()
        future = self.replies.expect(envelope.id)
        await self.replies.send(envelope, type_of(type(message)), encode(message))
        return await self.replies.wait(future, timeout_seconds=10)

    async def tell(self, told: Told, kind: type[payments.TakeEvent] | type[shipping.TakeEvent], provider: str) -> Reply:
        """Hand an event on that nobody has verified."""
        event = kind(
            provider=provider,
            provider_account=f"{provider}:default",
            event_id=told.id,
            event_type=told.type,
            payload=told.body.decode(),
            received_at=datetime.now(UTC),
        )
        return await self.send(event)


@pytest.fixture(scope="module", params=["sandbox", "stripe"])
async def hijacked(place: Place, request: pytest.FixtureRequest) -> AsyncIterator[Hijacked]:
    url = place.amqp_of("webhooks")
    # No webhook of the sandbox goes out by itself, and nobody else finds out what it did.
    async with (
        a_world(place, webhooks={}, fulfillment={"track_every_seconds": 3_600.0}, provider=request.param) as world,
        Publisher(url, name="hijacked") as publisher,
        Replies(url, publisher, name="webhooks") as replies,
    ):
        await shop.set_up(world, carriers=["sandbox"])
        world.outgoing.moods = world.sandbox.parcels.moods = Moods(lost=1.0)
        yield Hijacked(world, publisher, replies)


def news(outgoing: Any, before: set[str]) -> list[Told]:
    """What a provider has told since, to nobody."""
    return [told for event_id, told in outgoing.events.items() if event_id not in before]


def untold(hijacked: Hijacked, payment: Payment, kind: str, amount: int) -> list[Told]:
    """The events of a change to a payment that was never made."""
    there, outgoing = payment.at_the_provider(), hijacked.world.outgoing
    before = set(outgoing.events)
    operation = hijacked.world.sandbox.books.add(there, kind, amount)
    told = news(outgoing, before)
    there.operations.remove(operation)
    assert told
    return told


def outcome(reply: Reply) -> str:
    if isinstance(reply, Refused):
        return reply.problem.code
    assert isinstance(reply, Done)
    return str(msgspec.json.decode(reply.body)["result"])


@pytest.mark.parametrize(("kind", "amount"), [("capture", 10_000), ("capture", 1), ("void", 10_000)])
async def test_forged_news_of_an_unpaid_payment_books_nothing(hijacked: Hijacked, kind: str, amount: int) -> None:
    payment = await hijacked.world.a_payment()
    before = await hijacked.world.ledger(payment.order_id)

    outcomes = [
        outcome(await hijacked.tell(told, payments.TakeEvent, hijacked.world.provider)) for told in untold(hijacked, payment, kind, amount)
    ]

    assert await hijacked.world.ledger(payment.order_id) == before
    assert "event-unconfirmed" in outcomes
    # What only hints at the payment is read from the provider's books, where nothing has changed.
    assert set(outcomes) <= {"event-unconfirmed", "unchanged"}


async def test_a_forged_refund_books_nothing(hijacked: Hijacked) -> None:
    payment = await hijacked.world.a_captured_payment()
    before = await hijacked.world.ledger(payment.order_id)

    outcomes = [
        outcome(await hijacked.tell(told, payments.TakeEvent, hijacked.world.provider)) for told in untold(hijacked, payment, "refund", 500)
    ]

    assert await hijacked.world.ledger(payment.order_id) == before
    assert set(outcomes) <= {"event-unconfirmed", "unchanged"}


async def test_anothers_captured_payment_pays_no_order(hijacked: Hijacked) -> None:
    """An event that names our unpaid payment by its reference, and by its name one that is paid in the provider's books and not ours."""
    payment = await hijacked.world.a_payment()
    before = await hijacked.world.ledger(payment.order_id)
    there, books = payment.at_the_provider(), hijacked.world.sandbox.books
    told = untold(hijacked, payment, "capture", 10_000)
    paid = msgspec.structs.replace(there, id=f"{there.id[:-4]}paid", reference=None, order_id=None, operations=[*there.operations])
    books.payments[paid.id] = paid
    books.add(paid, "capture", 10_000)

    for each in told:
        mixed = msgspec.structs.replace(each, body=each.body.replace(there.id.encode(), paid.id.encode()))
        await hijacked.tell(mixed, payments.TakeEvent, hijacked.world.provider)

    assert await hijacked.world.ledger(payment.order_id) == before


async def test_true_news_is_booked_from_the_providers_books(hijacked: Hijacked) -> None:
    payment = await hijacked.world.a_payment()
    before = set(hijacked.world.outgoing.events)
    hijacked.world.sandbox.books.add(payment.at_the_provider(), "capture", 4_000)

    for told in news(hijacked.world.outgoing, before):
        assert outcome(await hijacked.tell(told, payments.TakeEvent, hijacked.world.provider)) in ("applied", "unchanged")

    assert (await payment.intent())["captured_amount"] == 4_000
    await hijacked.world.books_agree(payment.order_id)


async def test_news_that_is_known_asks_nobody(hijacked: Hijacked) -> None:
    """Most events repeat what our own call was answered, and cost no look at the provider's books."""
    before = set(hijacked.world.outgoing.events)
    payment = await hijacked.world.a_captured_payment()
    [captured] = [
        told for told in news(hijacked.world.outgoing, before) if told.type in ("payment.capture.succeeded", "payment_intent.succeeded")
    ]
    calls = dict(hijacked.world.sandbox.calls)

    assert outcome(await hijacked.tell(captured, payments.TakeEvent, hijacked.world.provider)) == "unchanged"

    assert hijacked.world.sandbox.calls == calls
    await hijacked.world.books_agree(payment.order_id)


async def test_an_events_key_sends_no_refund(hijacked: Hijacked) -> None:
    """The broker checks the routing key, so the type must not say otherwise."""
    payment = await hijacked.world.a_captured_payment()
    before = await hijacked.world.ledger(payment.order_id)
    envelope = hijacked.envelope(source="gateway", actor="admin:forged")
    refund = Refund(order_id=payment.order_id, intent_id=payment.id, amount=500, idempotency_key="forged")
    letter = Letter(
        exchange=topology.COMMANDS,
        routing_key=type_of(payments.TakeEvent),
        body=encode(refund),
        headers=headers_of(envelope),
        type=type_of(Refund),
    )

    await hijacked.publisher.publish(letter)

    parked = await until(lambda: take(hijacked.world.place, topology.dead_queue("payments")))
    assert "says that it is payments.refund.v1" in parked.headers["dead_reason"]
    assert await hijacked.world.ledger(payment.order_id) == before


async def test_a_forged_scan_delivers_no_parcel(hijacked: Hijacked) -> None:
    world = hijacked.world
    order_id = await an_order(world)
    await ok(await quote(world, order_id, shipping_service="ground"))
    bought = await ok(await world.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels", {}))
    [number] = bought["label"]["tracking_numbers"]
    before = set(world.sandbox.parcels.events)
    scan = world.sandbox.carrier.move(number, {"status": "delivered"})
    [told] = news(world.sandbox.parcels, before)
    _, parcel = world.sandbox.carrier.parcel(number)
    parcel.scans.remove(scan)

    forged = outcome(await hijacked.tell(told, shipping.TakeEvent, "sandbox-carrier"))
    shown = (await world.send("GET", f"/api/v1/checkout/orders/{order_id}/shipping/tracking")).json
    parcel.scans.append(scan)
    genuine = outcome(await hijacked.tell(told, shipping.TakeEvent, "sandbox-carrier"))

    assert (forged, genuine) == ("event-unconfirmed", "applied")
    assert shown["parcels"][0]["status"] != "delivered"
