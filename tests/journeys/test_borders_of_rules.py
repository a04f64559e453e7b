"""Rules and jobs that compare times, on what a shop really has: on one side of the border they hold, on the other they do not."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest

from services.gateway.handlers.commands import MakeCustomerToken
from shared.ids import new_id
from shared.messages import encode
from tests.fulfillment import shop
from tests.fulfillment.shop import a_rule, ok
from tests.journeys.test_shipping import a_label
from tests.webhooks.test_ingest import all_processed
from tests.webhooks.test_merchants import Merchant, a_merchant, an_endpoint, endpoint_now
from tests.world import Payment, Place, World, a_neighbour, a_world, until

DECLINED = "tok_declined_insufficient_funds"
INTENTS, RELEASED = "payments.payment_intents", "status <> 'authorized'"
DECLINES_PER_ORDER, DECLINES_PER_STORE = 2, 3


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    payments = {"declines_per_order_max": DECLINES_PER_ORDER, "declines_per_store_max": DECLINES_PER_STORE}
    webhooks = {"allow_private_endpoints": True, "deliver_every_seconds": 0.2}
    # What is left unfinished is taken up by its caller only.
    gateway = {"redrive_after_seconds": 200.0, "sweep_every_seconds": 3600.0}
    async with a_world(place, gateway=gateway, payments=payments, webhooks=webhooks, fulfillment={}) as made:
        await shop.set_up(made, carriers=["sandbox"])
        yield made


@pytest.fixture(scope="module")
async def merchant() -> AsyncIterator[Merchant]:
    async with a_merchant() as made:
        yield made


async def of_either(
    world: World, table: str, column: str, past: UUID, before: UUID, times: tuple[str, str], *, acted: str, key: str = "id"
) -> None:
    """Set a time of two rows at once, so that no round of a job sees one without the other; none may have been acted upon."""
    rows = await world.rows(
        f"""
        UPDATE {table} SET {column} = now() + CASE WHEN {key} = $1 THEN $3::text ELSE $4 END::interval
         WHERE {key} IN ($1, $2)
        RETURNING {acted} AS acted
        """,
        past,
        before,
        *times,
    )
    assert [row["acted"] for row in rows] == [False, False]


class TestOperations:
    @pytest.mark.parametrize(("driven", "status"), [("190 seconds", 202), ("210 seconds", 201)])
    async def test_a_repeat_takes_up_what_is_not_driven(self, world: World, driven: str, status: int) -> None:
        """What another process is driving is not driven twice, and what one left behind is not left for good."""
        customer_id, key = new_id(), new_id().hex
        path = f"/api/v1/admin/customers/{customer_id}/token"
        assert (await world.send("POST", path, key=key)).status == 201
        await world.change(UNFINISHED, key, driven, encode(MakeCustomerToken(customer_id=customer_id)))

        again = await world.send("POST", path, key=key, headers={"Prefer": "wait=1"})

        assert again.status == status, again

    async def test_an_answer_is_kept_for_thirty_days(self, world: World) -> None:
        key = new_id().hex
        await ok(await world.send("POST", f"/api/v1/admin/customers/{new_id()}/token", key=key))

        sql = "SELECT expires_at - completed_at AS time FROM gateway.idempotency_keys WHERE idempotency_key = $1 AND status = 'completed'"
        [kept] = await until(lambda: world.rows(sql, key))
        assert kept["time"] == timedelta(days=30)


UNFINISHED = """
    UPDATE gateway.idempotency_keys
       SET status = 'in_progress', response_code = NULL, response_body = NULL, completed_at = NULL, expires_at = NULL,
           driven_at = now() - $2::text::interval, command = $3
     WHERE idempotency_key = $1
"""


class TestPayments:
    async def test_a_waiting_payment_is_looked_at_when_it_is_due(self, world: World) -> None:
        past, before = [(await world.a_payment("tok_3ds_passed")).id for _ in range(2)]
        table, times = "payments.payment_transactions", ("-1 second", "1 minute")

        await of_either(world, table, "next_look_at", past, before, times, key="payment_intent_id", acted="looks > 0")

        looks = f"SELECT payment_intent_id AS id FROM {table} WHERE looks > 0 AND payment_intent_id IN ($1, $2)"
        assert await until(lambda: world.rows(looks, past, before)) == [(past,)]

    async def test_a_payment_is_abandoned_after_its_hour(self, world: World) -> None:
        past, before, witness = [(await world.a_payment("tok_3ds_passed")).id for _ in range(3)]

        async def abandoned(payment: UUID) -> bool:
            return bool((await world.rows("SELECT abandoned FROM payments.payment_intents WHERE id = $1", payment))[0]["abandoned"])

        await of_either(world, INTENTS, "created_at", past, before, ("-61 minutes", "-55 minutes"), acted="abandoned")

        await until(lambda: abandoned(past))
        # By a later round: the first one has come to its end.
        await world.change(f"UPDATE {INTENTS} SET created_at = now() - interval '61 minutes' WHERE id = $1", witness)
        await until(lambda: abandoned(witness))
        assert not await abandoned(before)

    async def test_a_hold_is_released_when_it_has_lapsed(self, world: World) -> None:
        past, before, witness = [await world.a_payment() for _ in range(3)]

        await of_either(world, INTENTS, "authorization_expires_at", past.id, before.id, ("0", "5 minutes"), acted=RELEASED)

        await until(lambda: _is(past, "expired"))
        await _lapses(witness)
        assert (await before.intent())["status"] == "authorized"

    async def test_money_that_could_not_go_back_is_tried_in_an_hour(self, world: World) -> None:
        """A job's failed void or refund is not repeated at every round, nor left for good."""
        past, before, witness = [await world.a_payment() for _ in range(3)]
        for payment, ago in ((past, "61 minutes"), (before, "55 minutes")):
            await world.change(FAILED_VOID, payment.id, ago)

        await of_either(world, INTENTS, "authorization_expires_at", past.id, before.id, ("0", "0"), acted=RELEASED)

        await until(lambda: _is(past, "expired"))
        await _lapses(witness)
        assert (await before.intent())["status"] == "authorized"

    async def test_declines_of_an_order_count_for_ten_minutes(self, world: World) -> None:
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)
        older = "UPDATE payments.payment_intents SET updated_at = now() - $2::text::interval WHERE order_id = $1"
        for _ in range(DECLINES_PER_ORDER):
            assert (await world.authorize(order_id, snapshot_id, DECLINED)).status == 402

        await world.change(older, order_id, "9 minutes")
        refused = await world.authorize(order_id, snapshot_id)
        await world.change(older, order_id, "11 minutes")
        taken = await world.authorize(order_id, snapshot_id)

        assert (refused.status, refused.code, refused.json["of"]) == (429, "too-many-declines", "order")
        assert taken.status == 201

    async def test_declines_of_a_store_count_for_ten_minutes(self, world: World) -> None:
        other = await a_neighbour(world)
        older = "UPDATE payments.payment_transactions SET concluded_at = now() - $2::text::interval WHERE store_id = $1"
        for _ in range(DECLINES_PER_STORE):
            order_id = await other.an_order()
            assert (await other.authorize(order_id, await other.a_snapshot(order_id), DECLINED)).status == 402
        snapshot_id = await other.a_snapshot(order_id)

        await world.change(older, other.store_id, "9 minutes")
        refused = await other.authorize(order_id, snapshot_id)
        await world.change(older, other.store_id, "11 minutes")
        taken = await other.authorize(order_id, snapshot_id)
        await other.http.aclose()

        assert (refused.status, refused.code, refused.json["of"]) == (429, "too-many-declines", "store")
        assert taken.status == 201

    @pytest.mark.parametrize(("currency", "days", "used"), [("CHF", 7, True), ("SEK", 8, False), ("NOK", -2, None)])
    async def test_a_reference_rate_is_of_the_last_week(self, world: World, currency: str, days: int, used: bool | None) -> None:
        """One of a day to come is none; one that is too old is not used, and the quote says so."""
        rate_date = datetime.now(UTC).date() - timedelta(days=days)
        await world.change("INSERT INTO payments.fx_reference_rates VALUES ($1, 'EUR', 0.5, 'ECB', $2)", currency, rate_date)

        quoted = (await world.quote(await world.an_order(currency=currency))).json

        assert (quoted["fx_reference"] or {}).get("date") == (str(rate_date) if used else None)
        assert ("fx-rate-stale" in {notice["code"] for notice in quoted["notices"]}) is (used is False)


FAILED_VOID = """
    INSERT INTO payments.payment_transactions (id, payment_intent_id, store_id, environment, operation, idempotency_key, command_id,
                                               answers, command_type, command_digest, provider_idempotency_key, provider_account, amount,
                                               status, source, reason, request, actor, correlation_id, created_at, concluded_at)
    SELECT gen_random_uuid(), payment_intent_id, store_id, environment, 'void', gen_random_uuid()::text, gen_random_uuid(),
           gen_random_uuid(), 'job', '', 'k', provider_account, amount, 'failed', 'job', 'expired', 'null', actor, correlation_id,
           now() - $2::text::interval, now()
      FROM payments.payment_transactions WHERE payment_intent_id = $1 AND operation = 'authorize'
"""


async def _lapses(payment: Payment) -> None:
    """Have a later round of the job release this hold: the one before has come to its end."""
    await payment.world.change(f"UPDATE {INTENTS} SET authorization_expires_at = now() WHERE id = $1", payment.id)
    await until(lambda: _is(payment, "expired"))


async def _is(payment: Payment, status: str) -> bool:
    return bool((await payment.intent())["status"] == status)


class TestMerchants:
    async def test_an_endpoint_is_disabled_after_five_days(self, world: World, merchant: Merchant) -> None:
        past, before, witness = [await an_endpoint(world, merchant.url, "payment.conflicted") for _ in range(3)]
        ids, times = (UUID(past["id"]), UUID(before["id"])), ("-121 hours", "-119 hours")

        async def disabled(endpoint: Any) -> bool:
            return not (await endpoint_now(world, endpoint))["enabled"]

        await of_either(world, "webhooks.webhook_endpoints", "failing_since", *ids, times, acted="NOT enabled")

        await until(lambda: disabled(past))
        # By a later round: the first one has come to its end.
        failing = "UPDATE webhooks.webhook_endpoints SET failing_since = now() - interval '121 hours' WHERE id = $1"
        await world.change(failing, UUID(witness["id"]))
        await until(lambda: disabled(witness))
        assert not await disabled(before)

    async def test_a_delivery_is_made_when_due_and_no_pause_holds(self, world: World, merchant: Merchant) -> None:
        """A delivery that is not due yet, and an endpoint that asked for a pause, are left alone until then."""
        due, later, paused, over = [UUID((await an_endpoint(world, merchant.url, "payment.voided"))["id"]) for _ in range(4)]
        ids = [due, later, paused, over]
        await world.change("UPDATE webhooks.webhook_endpoints SET paused_until = now() + interval '1 hour' WHERE id = ANY($1)", ids)
        assert (await (await world.a_payment()).void()).status == 201
        sql = "SELECT endpoint_id FROM webhooks.webhook_deliveries WHERE endpoint_id = ANY($1)"

        async def all_wait() -> bool:
            return len(await world.rows(sql, ids)) == len(ids)

        await until(all_wait)
        assert await world.rows(f"{sql} AND {CLAIMED}", ids) == []
        when, pause = ("webhooks.webhook_deliveries", "next_attempt_at"), ("webhooks.webhook_endpoints", "paused_until")
        await of_either(world, *when, due, later, ("-1 second", "1 hour"), key="endpoint_id", acted=CLAIMED)
        await of_either(world, *pause, over, paused, ("-1 second", "1 hour"), acted="false")
        await world.change("UPDATE webhooks.webhook_endpoints SET paused_until = NULL WHERE id = ANY($1)", [due, later])

        async def both() -> bool:
            return {due, over} <= {row["endpoint_id"] for row in await world.rows(f"{sql} AND {CLAIMED}", ids)}

        await until(both)
        assert {row["endpoint_id"] for row in await world.rows(f"{sql} AND {CLAIMED}", ids)} == {due, over}

    async def test_what_was_missed_is_recovered_since_a_moment(self, world: World, merchant: Merchant) -> None:
        payment = await world.a_payment()
        sql = "SELECT created_at FROM webhooks.merchant_events WHERE order_id = $1"
        [event] = await until(lambda: world.rows(sql, payment.order_id))
        at = event["created_at"]
        endpoint = await an_endpoint(world, merchant.url)
        path = f"/api/v1/admin/webhook-endpoints/{endpoint['id']}/recover"

        after = await ok(await world.send("POST", path, {"since": (at + MOMENT).isoformat()}))
        since = await ok(await world.send("POST", path, {"since": at.isoformat()}))

        assert (after["count"], since["count"]) == (0, 1)


CLAIMED = "(status <> 'pending' OR lease_token IS NOT NULL)"
MOMENT = timedelta(microseconds=1)


class TestRanges:
    """A range takes its first moment and not its last."""

    @pytest.mark.parametrize(
        ("since", "until_", "taken"),
        [(-MOMENT, MOMENT, True), (timedelta(), MOMENT, True), (MOMENT, 2 * MOMENT, False), (-MOMENT, timedelta(), False)],
        ids=["within", "from its moment", "before it", "up to its moment"],
    )
    async def test_events_of_providers(self, world: World, since: timedelta, until_: timedelta, taken: bool) -> None:
        payment = await world.a_payment()
        await until(lambda: world.rows("SELECT FROM webhooks.webhook_events WHERE order_id = $1", payment.order_id))
        await all_processed(world)
        [row] = await world.rows("SELECT id, received_at FROM webhooks.webhook_events WHERE order_id = $1", payment.order_id)
        times = {name: (row["received_at"] + apart).isoformat() for name, apart in (("since", since), ("until", until_))}

        listed = await ok(await world.send("GET", f"/api/v1/admin/webhooks/events?{urlencode(times)}"))
        replayed = await ok(await world.send("POST", "/api/v1/admin/webhooks/events/replay", times))

        assert [each["id"] for each in listed["events"]] == [str(row["id"])] * taken
        assert replayed["count"] == taken


class TestShipping:
    async def test_a_parcel_is_looked_for_when_due(self, world: World) -> None:
        """Of four: one that is due, one that is not yet, one at its end that was looked for since, and one that is not due at its end."""
        orders = [(await a_label(world))[0] for _ in range(4)]
        past = orders[0]
        put_off_sql = """
            SELECT order_id FROM fulfillment.shipment_packages WHERE order_id = ANY($1) AND next_look_at > now() + interval '40 minutes'
        """
        await world.change(
            """
            UPDATE fulfillment.shipment_packages
               SET tracking_status = CASE WHEN order_id IN ($3, $4) THEN 'delivered' ELSE tracking_status END,
                   looked_after_end = order_id = $3,
                   next_look_at = now() + CASE WHEN order_id IN ($1, $3) THEN interval '-1 second' ELSE interval '30 minutes' END
             WHERE order_id IN ($1, $2, $3, $4)
            """,
            *orders,
        )

        async def put_off() -> list[UUID]:
            return [row["order_id"] for row in await world.rows(put_off_sql, orders)]

        await until(put_off)
        assert await put_off() == [past]

    async def test_a_voids_outcome_is_asked_for_when_due(self, world: World) -> None:
        past, before = [UUID((await a_label(world))[1]["id"]) for _ in range(2)]
        await world.change(
            """
            UPDATE fulfillment.shipment_labels
               SET status = 'void_requested', lease_expires_at = now(),
                   next_look_at = now() + CASE WHEN id = $1 THEN interval '-1 second' ELSE interval '1 hour' END
             WHERE id IN ($1, $2)
            """,
            past,
            before,
        )

        async def looked_at() -> list[UUID]:
            rows = await world.rows("SELECT id FROM fulfillment.shipment_labels WHERE looks > 0 AND id IN ($1, $2)", past, before)
            return [row["id"] for row in rows]

        await until(looked_at)
        assert await looked_at() == [past]


SALES = """
    INSERT INTO fulfillment.tax_sales_totals (store_id, environment, kind, distance_sale, country, region, currency, day, amount, count)
    VALUES ($1, 'sandbox', 'sale', false, 'JP', '', 'EUR', $2, $3, 1)
"""
FIRST, LAST = date(2026, 6, 1), date(2026, 6, 30)
DAY = timedelta(days=1)


class TestDays:
    async def test_rules_of_a_day_are_those_from_first_to_last(self, world: World) -> None:
        rule = a_rule("NL", "BTW", "21", valid_from=str(FIRST), valid_to=str(LAST))
        await ok(await world.send("POST", "/api/v1/admin/tax/rules", rule))

        async def listed(day: date) -> int:
            return len((await ok(await world.send("GET", f"/api/v1/admin/tax/rules?country=NL&on={day}")))["rules"])

        assert [await listed(day) for day in (FIRST - DAY, FIRST, LAST, LAST + DAY)] == [0, 1, 1, 0]

    async def test_sales_count_on_every_day_of_the_year(self, world: World) -> None:
        """The first of January and today, not the day before that and not tomorrow."""
        today = datetime.now(UTC).date()
        new_year = today.replace(month=1, day=1)
        for day, amount in ((new_year - DAY, 1), (today + DAY, 10), *{new_year: 100, today: 1_000}.items()):
            await world.change(SALES, world.store_id, day, amount)
        watch = {"country": "JP", "registered": False, "valid_from": shop.SINCE, "threshold_amount": 9_000, "threshold_currency": "EUR"}

        await ok(await world.send("POST", "/api/v1/admin/tax/nexus", watch))

        listed = (await ok(await world.send("GET", "/api/v1/admin/tax/nexus")))["nexus"]
        [counted] = [each["threshold"]["amount"] for each in listed if each["nexus"]["country"] == "JP"]
        assert counted == (1_000 if today == new_year else 1_100)

    @pytest.mark.parametrize(("last", "status"), [(FIRST, 200), (FIRST - DAY, 422)])
    @pytest.mark.parametrize("what", ["nexus", "exemptions", "rules"])
    async def test_one_day_is_a_time_and_an_end_before_it_is_none(self, world: World, what: str, last: date, status: int) -> None:
        facts: dict[str, dict[str, Any]] = {
            "nexus": {"country": "US", "region": "US-WA"},
            "exemptions": {"customer_id": str(new_id()), "certificate": "C", "country": "US"},
            "rules": a_rule("BE", "BTW", "21"),
        }

        answer = await world.send("POST", f"/api/v1/admin/tax/{what}", {**facts[what], "valid_from": str(FIRST), "valid_to": str(last)})

        assert answer.status // 100 == status // 100, answer
