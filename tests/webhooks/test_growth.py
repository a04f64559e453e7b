"""A long past costs nothing: what is told by providers and to merchants reads only the rows it is about."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from shared.ids import first_id_at
from tests.counting import still
from tests.webhooks.test_ingest import all_processed
from tests.webhooks.test_merchants import Merchant, a_merchant, an_endpoint, told
from tests.world import Payment, Place, World, a_world, until

EVENTS = 40_000
LONG_AGO = timedelta(days=500)
# What all the statements of the story below may read of any one index or table, rows or pages, with the jobs that run beside it.
READ_MAX = 250

# Events of providers that were taken in and events that a merchant was told of, half of each later than what the story is about.
PAST = """
    WITH past AS (SELECT n.id, gen_random_uuid() AS order_id, now() + greatest(n.position - $3 / 2, 0) * interval '1 second' AS at
                    FROM unnest($2::uuid[]) WITH ORDINALITY AS n (id, position)),
    events AS (INSERT INTO webhooks.webhook_events (id, store_id, received_for, environment, provider, account, provider_event_id,
                                                    event_type, status, order_id, received_at, processed_at)
               SELECT id, $1, $1, 'sandbox', 'sandbox', one.account, id::text, 'payment.authorize.succeeded', 'processed', order_id, at, at
                 FROM past, (SELECT account FROM webhooks.webhook_events LIMIT 1) AS one
               RETURNING id),
    bodies AS (INSERT INTO webhooks.webhook_payloads SELECT id, at, '{}', '' FROM past),
    tries AS (INSERT INTO webhooks.webhook_attempts (id, event_id, command_id, actor, outcome)
              SELECT id, id, id, '', 'processed' FROM events),
    numbers AS (INSERT INTO webhooks.order_sequences SELECT $1, 'sandbox', order_id, 1 FROM past),
    happened AS (INSERT INTO webhooks.merchant_events (id, store_id, environment, type, order_id, sequence, subject_id, version, body,
                                                       created_at)
                 SELECT id, $1, 'sandbox', 'payment.authorized', order_id, 1, id, 1, one.body, at
                   FROM past, (SELECT body FROM webhooks.merchant_events LIMIT 1) AS one
                 RETURNING id)
    INSERT INTO webhooks.webhook_deliveries (id, endpoint_id, event_id, store_id, environment, status, attempt_count, delivered_at)
    SELECT happened.id, one.id, happened.id, $1, 'sandbox', 'delivered', 1, now()
      FROM happened, (SELECT id FROM webhooks.webhook_endpoints LIMIT 1) AS one
"""


@pytest.fixture(scope="module")
async def merchant() -> AsyncIterator[Merchant]:
    async with a_merchant() as made:
        yield made


@pytest.fixture(scope="module")
async def old_world(place: Place, merchant: Merchant) -> AsyncIterator[World]:
    """A world whose statements were planned while its tables were empty, and whose tables then filled."""
    async with a_world(place, webhooks={"allow_private_endpoints": True, "deliver_every_seconds": 1.0}) as world:
        await an_endpoint(world, merchant.url)
        await _everything(world, merchant)
        now = datetime.now(UTC)
        ids = [first_id_at(now + timedelta(seconds=number - EVENTS // 2)) for number in range(EVENTS)]
        await world.change(PAST, world.store_id, ids, EVENTS)
        yield world


async def _everything(world: World, merchant: Merchant) -> None:
    """Everything that is told and looked at, once."""
    before = len(merchant.told)
    payment = await world.a_captured_payment()
    assert (await payment.refund(1_000)).status == 201
    await told(merchant, before + 3)
    await all_processed(world)
    await until(lambda: _taken_in(world, payment))
    [event, *_] = (await _shown(world, f"/admin/webhooks/events?order_id={payment.order_id}"))["events"]
    await _shown(world, f"/admin/webhooks/events/{event['id']}")
    await _shown(world, f"/admin/webhooks/events?since={event['received_at']}&until={event['received_at']}")
    assert (await world.send("POST", f"/api/v1/admin/webhooks/events/{event['id']}/replay")).status < 300
    for listed in ("/admin/webhooks/events?limit=10", "/admin/webhook-endpoints", "/admin/webhook-deliveries?limit=10", "/events?limit=10"):
        await _shown(world, listed)
    delivery = (await _shown(world, "/admin/webhook-deliveries?limit=1"))["deliveries"][0]
    assert (await world.send("POST", f"/api/v1/admin/webhook-deliveries/{delivery['id']}/redeliver")).status < 300
    await told(merchant, before + 4)
    recovery = {"since": (datetime.now(UTC) + LONG_AGO).isoformat()}
    answer = await world.send("POST", f"/api/v1/admin/webhook-endpoints/{delivery['endpoint_id']}/recover", recovery)
    assert (answer.status, answer.json["count"]) == (200, 0)
    await _shown(world, f"/admin/orders/{payment.order_id}/timeline")
    page = await _shown(world, "/events?limit=1")
    await _shown(world, f"/events?limit=1&after={page['events'][0]['id']}")


async def _taken_in(world: World, payment: Payment) -> bool:
    found = (await _shown(world, f"/admin/webhooks/events?order_id={payment.order_id}"))["events"]
    return len(found) == 3 and {event["status"] for event in found} == {"processed"}


async def _shown(world: World, path: str) -> dict[str, list[dict[str, object]]]:
    answer = await world.send("GET", f"/api/v1{path}")
    assert answer.status == 200, answer
    found: dict[str, list[dict[str, object]]] = answer.json
    return found


async def test_what_is_told_reads_only_the_rows_it_is_about(old_world: World, merchant: Merchant) -> None:
    before = await still(old_world, within=READ_MAX)

    await _everything(old_world, merchant)

    after = await still(old_world, within=READ_MAX)
    read = {name: after[name] - before.get(name, 0) for name in after}
    assert {name: rows for name, rows in read.items() if rows > READ_MAX} == {}
    assert sum(rows for name, rows in read.items() if name.startswith("webhooks.")) > 0


async def test_what_is_past_its_time_is_forgotten_and_nothing_else(old_world: World) -> None:
    old = first_id_at(datetime.now(UTC) - LONG_AGO)
    await old_world.change(PAST, old_world.store_id, [old], 1)

    async def forgotten() -> bool:
        left = await old_world.rows(
            """
            SELECT FROM webhooks.webhook_events WHERE id = $1 UNION ALL SELECT FROM webhooks.webhook_attempts WHERE event_id = $1
             UNION ALL
            SELECT FROM webhooks.merchant_events WHERE id = $1 UNION ALL SELECT FROM webhooks.webhook_deliveries WHERE event_id = $1
            """,
            old,
        )
        return not left

    await until(forgotten)
    for table in ("webhook_events", "webhook_attempts", "merchant_events", "webhook_deliveries"):
        [counted] = await old_world.rows(f"SELECT count(*) AS rows FROM webhooks.{table}")
        assert counted["rows"] >= EVENTS
