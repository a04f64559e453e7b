"""A shop with something of everything that the console shows."""

from typing import Any
from uuid import UUID

import msgspec

from tests.fulfillment import shop as tax_shop
from tests.fulfillment.shop import MUNICH, ok
from tests.reconciler.books import a_run, make_drift
from tests.reconciler.letters import an_envelope, send, the_letter
from tests.world import TOTAL, Payment, World, until

TRACE_ID = "0123456789abcdef" * 2


class Shop(msgspec.Struct, frozen=True, kw_only=True):
    """What was put there."""

    captured: Payment
    held: Payment
    declined: UUID
    shipped: UUID
    unknown: str
    letter: str
    event: str


async def furnish(world: World) -> Shop:
    """Have payments, parcels, events, differences and a dead letter."""
    captured = await world.a_payment()
    assert (await captured.capture(6_000)).status == 201
    assert (await captured.refund(1_500)).status == 201
    held = await world.a_payment()
    declined = await world.an_order()
    assert (await world.authorize(declined, await world.a_snapshot(declined), "tok_declined_insufficient_funds")).status == 402
    await drifted(world)
    return Shop(
        captured=captured,
        held=held,
        declined=declined,
        shipped=await a_shipped_order(world),
        unknown=await an_unknown_outcome(world),
        letter=(await a_poisoned_capture(world, held))["id"],
        event=(await until(lambda: _events(world)))[0]["id"],
    )


async def a_poisoned_capture(world: World, payment: Payment) -> Any:
    """A capture whose amount is a text: payments can never read it."""
    envelope = an_envelope(world)
    body = {"order_id": payment.order_id, "intent_id": payment.id, "idempotency_key": f"poison {envelope.id}", "amount": str(TOTAL)}
    await send(world, "payments.capture.v1", body, envelope)
    return await the_letter(world, envelope.id)


async def an_unknown_outcome(world: World) -> str:
    """An authorization whose provider never says what became of it; returns the order's id."""
    order_id = await world.an_order()
    snapshot_id = await world.a_snapshot(order_id)
    await world.authorize(order_id, snapshot_id, "tok_silent", headers={"Prefer": "respond-async"})
    await until(lambda: _unknown(world, order_id))
    return str(order_id)


async def a_trace(world: World) -> None:
    """A trace as two services keep it; that they do is tried where they are processes."""
    spans = (
        ("gateway", "a" * 16, "", 0, 50_000),
        ("payments", "b" * 16, "a" * 16, 10, 30_000),
        ("payments", "c" * 16, "b" * 16, 15, 9_000),
    )
    for service, span_id, parent_id, after_ms, took_us in spans:
        await world.change(
            f"""
            INSERT INTO {service}.spans (trace_id, span_id, parent_id, name, kind, started_at, duration_us, failed, attributes, store_id,
                                         environment)
            VALUES ($1, $2, $3, $4, 'server', now() + make_interval(secs => $5::float8 / 1000), $6, $7, '{{"retries": 1}}', $8, 'sandbox')
            """,
            TRACE_ID,
            span_id,
            parent_id,
            f"{service} works",
            float(after_ms),
            took_us,
            service == "payments",
            world.store_id,
        )


async def a_shippable_order(world: World, **place: str) -> UUID:
    """An order that is paid, to be shipped by the sandbox's carrier."""
    order_id = await tax_shop.an_order(world, shipping_address={**MUNICH, **place})
    quoted = await ok(await tax_shop.quote(world, order_id, shipping_service="ground"))
    assert (await world.authorize(order_id, quoted["snapshot_id"])).status == 201
    return order_id


async def a_shipped_order(world: World) -> UUID:
    """One whose parcel has a label."""
    order_id = await a_shippable_order(world)
    await ok(await world.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels", {}))
    return order_id


async def drifted(world: World) -> None:
    """A payment of which the provider's books say something that ours will not learn by themselves."""
    payment = await world.a_captured_payment()
    await make_drift(world, "payments", payment.at_the_provider().id, kind="capture", amount=9_999)
    await a_run(world)


async def _events(world: World) -> Any:
    return (await world.send("GET", "/api/v1/admin/webhooks/events?limit=1")).json["events"]


async def _unknown(world: World, order_id: UUID) -> bool:
    found = (await world.send("GET", "/api/v1/admin/unknown-outcomes")).json["operations"]
    return str(order_id) in [each["order_id"] for each in found]
