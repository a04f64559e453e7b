"""Tax for good: finalized once, the same twice, reversed as money goes back, counted towards thresholds, and exported."""

import asyncio
import csv
import hashlib
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from services.gateway.domain import Role
from shared.bus import Publisher
from shared.ids import new_id
from tests.fulfillment import shop
from tests.fulfillment.shop import MUG, PARIS, an_order, finalize, finalize_as_it_is, ok, quote
from tests.payments.test_observations import observed, tell
from tests.world import Payment, Place, World, a_world, until


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}) as made:
        await shop.set_up(made)
        yield made


@pytest.fixture
async def fresh(own_place: Place) -> AsyncIterator[World]:
    async with a_world(own_place, fulfillment={}) as made:
        await shop.set_up(made)
        yield made


async def a_paid_order(world: World, **changes: Any) -> tuple[Payment, Any]:
    """Quote an order, pay it and capture the money."""
    order_id = await an_order(world, **changes)
    snapshot = await ok(await quote(world, order_id))
    paid = await ok(await world.authorize(order_id, snapshot["snapshot_id"]))
    payment = Payment(world, order_id, UUID(paid["intent"]["id"]))
    await ok(await payment.capture())
    return payment, snapshot


async def documents(world: World, order_id: UUID) -> Any:
    return (await ok(await world.send("GET", f"/api/v1/admin/orders/{order_id}/tax")))["documents"]


class TestFinalize:
    async def test_line_level_results_are_stored_and_tied_to_the_snapshot(self, world: World) -> None:
        order_id = await an_order(world)
        snapshot = await ok(await quote(world, order_id))

        done = await ok(await finalize(world, order_id, snapshot["snapshot_id"], tax_hash=snapshot["tax_hash"]))

        assert (done["snapshot_id"], done["tax_hash"]) == (snapshot["snapshot_id"], snapshot["tax_hash"])
        assert [(line["line"], line["amount"], line["taxable_amount"]) for line in done["lines"]] == [(0, 476, 2504), (None, 93, 490)]
        assert done["tax_amount"] == 569
        assert done["evidence"]["place"]["country"] == "DE"
        assert await documents(world, order_id) == [done]

    async def test_twice_is_the_same(self, world: World) -> None:
        order_id = await an_order(world)
        snapshot = await ok(await quote(world, order_id))

        first = await ok(await finalize(world, order_id, snapshot["snapshot_id"]))
        second = await ok(await finalize(world, order_id, snapshot["snapshot_id"]))

        assert first == second

    async def test_another_tax_is_a_mismatch(self, world: World) -> None:
        order_id = await an_order(world)
        snapshot = await ok(await quote(world, order_id))

        before = await finalize(world, order_id, snapshot["snapshot_id"], tax_hash="0" * 64)
        await ok(await finalize(world, order_id, snapshot["snapshot_id"]))
        after = await finalize(world, order_id, snapshot["snapshot_id"], tax_hash="0" * 64)

        assert (before.status, before.code, before.json["quoted"]) == (409, "tax-mismatch", snapshot["tax_hash"])
        assert (after.status, after.code) == (409, "tax-mismatch")

    async def test_a_snapshot_that_did_not_pay_is_a_mismatch(self, world: World) -> None:
        order_id = await an_order(world)
        other = await ok(await quote(world, order_id))
        snapshot = await ok(await quote(world, order_id))
        payment = await _authorized(world, order_id, snapshot, void=False)
        await until(lambda: world.rows("SELECT FROM fulfillment.order_payments WHERE order_id = $1 AND status = 'authorized'", order_id))

        refused = await finalize_as_it_is(world, order_id, other["snapshot_id"])
        await ok(await payment.capture())
        done = await ok(await finalize(world, order_id, snapshot["snapshot_id"]))

        assert (refused.status, refused.code, refused.json["paid_by"]) == (409, "tax-mismatch", [snapshot["snapshot_id"]])
        assert done["snapshot_id"] == snapshot["snapshot_id"]

    async def test_what_nobody_paid_while_it_held_is_refused(self, world: World) -> None:
        order_id = await an_order(world)
        snapshot = await ok(await quote(world, order_id))
        await world.change("UPDATE fulfillment.tax_quotes SET expires_at = now() WHERE order_id = $1", order_id)

        answer = await finalize_as_it_is(world, order_id, snapshot["snapshot_id"])

        assert (answer.status, answer.code) == (409, "tax-quote-expired")

    async def test_a_second_snapshot_of_an_order_is_refused(self, world: World) -> None:
        order_id = await an_order(world)
        first = await ok(await quote(world, order_id))
        second = await ok(await quote(world, order_id))
        await ok(await finalize(world, order_id, first["snapshot_id"]))

        answer = await finalize(world, order_id, second["snapshot_id"])

        assert (answer.status, answer.code) == (409, "tax-already-finalized")

    async def test_no_tax_was_worked_out(self, world: World) -> None:
        order_id = await an_order(world, tax_lines=[])
        snapshot = await ok(await quote(world, order_id))
        other = await an_order(world)
        theirs = await ok(await quote(world, other))

        stated = await finalize(world, order_id, snapshot["snapshot_id"])
        unknown = await finalize(world, order_id, str(new_id()))
        of_another_order = await finalize(world, order_id, theirs["snapshot_id"])

        assert [(a.status, a.code) for a in (stated, unknown, of_another_order)] == [(404, "no-tax-quoted")] * 3

    async def test_raced_it_is_recorded_once(self, world: World) -> None:
        order_id = await an_order(world)
        snapshot = await ok(await quote(world, order_id))

        answers = [await ok(each) for each in await _together(world, order_id, snapshot["snapshot_id"], 12)]

        assert all(answer == answers[0] for answer in answers)
        assert len(await documents(world, order_id)) == 1

    async def test_nothing_recorded_changes_in_sql(self, world: World) -> None:
        order_id = await an_order(world)
        snapshot = await ok(await quote(world, order_id))
        await ok(await finalize(world, order_id, snapshot["snapshot_id"]))

        for change in (
            "UPDATE fulfillment.tax_documents SET tax_amount = 0 WHERE order_id = $1",
            "DELETE FROM fulfillment.order_tax_lines WHERE order_id = $1",
            "UPDATE fulfillment.order_tax_lines SET amount = 0 WHERE order_id = $1",
        ):
            with pytest.raises(asyncpg.RestrictViolationError, match="never changed"):
                await world.change(change, order_id)


async def _together(world: World, order_id: UUID, snapshot_id: str, count: int) -> list[Any]:
    await shop.pay(world, order_id, snapshot_id)
    return await asyncio.gather(*(finalize_as_it_is(world, order_id, snapshot_id) for _ in range(count)))


async def _authorized(world: World, order_id: UUID, snapshot: Any, *, void: bool) -> Payment:
    paid = await ok(await world.authorize(order_id, snapshot["snapshot_id"]))
    payment = Payment(world, order_id, UUID(paid["intent"]["id"]))
    if void:
        await ok(await payment.void())
    return payment


async def _overpaid(payment: Payment) -> bool:
    return bool((await payment.intent())["overpaid_amount"] > 0)


class TestReversal:
    async def test_refunds_reverse_their_share_and_the_last_one_empties_it(self, world: World) -> None:
        payment, snapshot = await a_paid_order(world, items=[MUG, {**MUG, "tax_code": "books", "unit_price": 999, "quantity": 1}])
        await ok(await finalize(world, payment.order_id, snapshot["snapshot_id"]))
        total = snapshot["totals"]["total"]

        for n, amount in enumerate((1, 1234, total - 1235), start=1):
            await ok(await payment.refund(amount))
            await until(partial(_reversals, world, payment.order_id, n))

        sale, *reversals = await documents(world, payment.order_id)
        assert [r["reverses"] for r in reversals] == [sale["id"]] * 3
        for line in sale["lines"]:
            back = [each for r in reversals for each in r["lines"] if each["line"] == line["line"]]
            for amount in ("amount", "taxable_amount", "untaxed_amount"):
                assert line[amount] == -sum(each[amount] for each in back)
        assert sale["tax_amount"] == -sum(r["tax_amount"] for r in reversals)

    async def test_money_that_the_order_does_not_owe_goes_back_without_it(self, world: World) -> None:
        """F9: void one, pay the same quote with another, the first is captured after all and given back: the sale stays."""
        order_id = await an_order(world)
        snapshot = await ok(await quote(world, order_id))
        first, second = [await _authorized(world, order_id, snapshot, void=void) for void in (True, False)]
        await ok(await second.capture())
        await ok(await finalize(world, order_id, snapshot["snapshot_id"]))
        there = world.sandbox.books.add(first.at_the_provider(), "capture", 1_000, reason="dashboard")
        async with Publisher(world.place.amqp_url, name="tests") as publisher:
            await tell(world, publisher, observed(first, "capture", 1_000, provider_txn_id=there.id))
        await until(lambda: _overpaid(first))
        path = f"/api/v1/admin/orders/{order_id}/payments/{first.id}/refund"

        await ok(await world.send("POST", path, {"overpaid": True}))
        await ok(await second.refund(100))

        await until(lambda: _reversals(world, order_id, 1))
        _, reversal = await documents(world, order_id)
        # A share of 100, not of 1 100.
        assert sum(line["taxable_amount"] + line["untaxed_amount"] + line["amount"] for line in reversal["lines"]) == -100

    async def test_what_was_refunded_before_is_reversed_with_it(self, world: World) -> None:
        payment, snapshot = await a_paid_order(world)
        await ok(await payment.refund())
        await until(
            lambda: world.rows("SELECT FROM fulfillment.order_payments WHERE order_id = $1 AND refunded_amount > 0", payment.order_id)
        )

        done = await ok(await finalize(world, payment.order_id, snapshot["snapshot_id"]))

        sale, reversal = await documents(world, payment.order_id)
        assert (sale, reversal["tax_amount"]) == (done, -done["tax_amount"])

    async def test_each_refund_reverses_what_it_gave_back(self, world: World) -> None:
        payment, snapshot = await a_paid_order(world)
        await ok(await finalize(world, payment.order_id, snapshot["snapshot_id"]))
        await ok(await payment.refund(100))
        await until(lambda: _reversals(world, payment.order_id, 1))

        await ok(await payment.refund(200))
        await until(lambda: _reversals(world, payment.order_id, 2))

        sale, *reversals = await documents(world, payment.order_id)
        assert [sum(line["taxable_amount"] + line["amount"] for line in r["lines"]) for r in reversals] == [-100, -200]
        assert sale["kind"] == "sale"

    async def test_a_reference_is_reversed_once_for_ever(self, world: World) -> None:
        # tax_cases.md W36: the second use of a reference is rejected, here by the database itself.
        payment, snapshot = await a_paid_order(world)
        await ok(await finalize(world, payment.order_id, snapshot["snapshot_id"]))
        await ok(await payment.refund(100))
        await until(partial(_reversals, world, payment.order_id, 1))

        with pytest.raises(asyncpg.UniqueViolationError, match="one_reversal_a_reference"):
            await world.change(_REVERSED_AGAIN, payment.order_id, new_id())


_REVERSED_AGAIN = """
    INSERT INTO fulfillment.tax_documents (id, store_id, environment, kind, order_id, snapshot_id, tax_hash, provider, currency, tax_date,
                                           document_date, ship_from, ship_to, ship_to_region, tax_amount, line_amounts, reverses,
                                           reference, correlation_id)
    SELECT $2, store_id, environment, kind, order_id, snapshot_id, tax_hash, provider, currency, tax_date, document_date, ship_from,
           ship_to, ship_to_region, tax_amount, line_amounts, reverses, reference, correlation_id
      FROM fulfillment.tax_documents
     WHERE order_id = $1 AND kind = 'reversal'
"""


async def _reversals(world: World, order_id: UUID, count: int) -> bool:
    return len(await documents(world, order_id)) == count + 1


class TestThresholds:
    async def test_sales_are_counted_and_warn_at_80_and_at_100_percent(self, fresh: World) -> None:
        # Two mugs to Paris are 29.80 less 20 % VAT in it, and 12.90 for the post: 3773 net.
        watch = {"country": "FR", "registered": False, "valid_from": "2024-01-01", "threshold_amount": 4600, "threshold_currency": "EUR"}
        await ok(await fresh.send("POST", "/api/v1/admin/tax/nexus", watch))

        states = []
        for _ in range(2):
            order_id = await an_order(fresh, shipping_address=PARIS)
            snapshot = await ok(await quote(fresh, order_id))
            await ok(await finalize(fresh, order_id, snapshot["snapshot_id"]))
            states.append(await _watched(fresh))

        assert [(s["amount"], s["count"], s["percent"], s["state"]) for s in states] == [
            (3773, 1, 82, "near"),
            (7546, 2, 164, "reached"),
        ]

    @pytest.mark.parametrize(("both", "state"), [(False, "reached"), (True, "below")])
    async def test_either_or_both(self, fresh: World, both: bool, state: str) -> None:
        watch = {
            "country": "DE",
            "registered": False,
            "valid_from": "2024-01-01",
            "threshold_amount": 10**9,
            "threshold_currency": "EUR",
            "threshold_count": 1,
            "threshold_both": both,
        }
        await ok(await fresh.send("POST", "/api/v1/admin/tax/nexus", watch))
        order_id = await an_order(fresh)
        snapshot = await ok(await quote(fresh, order_id))
        await ok(await finalize(fresh, order_id, snapshot["snapshot_id"]))

        assert (await _watched(fresh))["state"] == state


async def _watched(world: World) -> Any:
    listed = (await ok(await world.send("GET", "/api/v1/admin/tax/nexus")))["nexus"]
    return next(each["threshold"] for each in listed if not each["nexus"]["registered"])


TODAY = datetime.now(UTC).date()


async def export(world: World, format: str, first: Any = TODAY, last: Any = TODAY) -> Any:
    return await world.http.get(
        "/api/v1/admin/tax/reports/export",
        params={"from": str(first), "to": str(last), "format": format},
        headers={"Authorization": f"Bearer {world.keys[Role.ADMIN]}"},
    )


class TestExport:
    async def test_itemized_holds_every_line_and_is_recorded_with_its_checksum(self, fresh: World) -> None:
        for address in (shop.MUNICH, PARIS):
            order_id = await an_order(fresh, shipping_address=address)
            await ok(await finalize(fresh, order_id, (await ok(await quote(fresh, order_id)))["snapshot_id"]))

        answer = await export(fresh, "itemized")

        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert [(r["destination_country"], r["line"], r["tax_rate"], r["taxable_amount"], r["tax_amount"]) for r in rows] == [
            ("DE", "0", "19", "25.04", "4.76"),
            ("DE", "shipping", "19", "4.90", "0.93"),
            ("FR", "0", "20", "24.83", "4.97"),
            ("FR", "shipping", "20", "12.90", "2.58"),
        ]
        assert answer.headers["Tender-Period"] == "open"
        exports = (await ok(await fresh.send("GET", "/api/v1/admin/tax/exports")))["exports"]
        assert [(e["rows"], e["sha256"], e["closed"]) for e in exports] == [(4, hashlib.sha256(answer.content).hexdigest(), False)]

    async def test_the_same_period_comes_out_the_same_and_is_locked_once_it_is_over(self, fresh: World) -> None:
        last_month = TODAY.replace(day=1) - timedelta(days=1)
        order_id = await an_order(fresh)
        await ok(await finalize(fresh, order_id, (await ok(await quote(fresh, order_id)))["snapshot_id"]))
        await _date_back(fresh, last_month)

        first = await export(fresh, "itemized", last_month, last_month)
        second = await export(fresh, "itemized", last_month, last_month)

        assert first.content == second.content
        assert (first.headers["Tender-Period"], first.text.count("\n")) == ("closed", 3)
        with pytest.raises(asyncpg.RestrictViolationError, match="exported and locked"):
            await fresh.change(_COPIED, new_id(), new_id(), last_month)

    async def test_a_closed_period_that_came_out_otherwise_is_refused(self, fresh: World) -> None:
        last_month = TODAY.replace(day=1) - timedelta(days=1)
        order_id = await an_order(fresh)
        await ok(await finalize(fresh, order_id, (await ok(await quote(fresh, order_id)))["snapshot_id"]))
        await _date_back(fresh, last_month)
        await export(fresh, "us_states", last_month, last_month)
        await fresh.change("UPDATE fulfillment.tax_exports SET sha256 = 'another'")

        # The answer has begun by then, so it breaks off.
        with pytest.raises(httpx.RemoteProtocolError):
            await export(fresh, "us_states", last_month, last_month)

    async def test_one_stop_shop_neutral_and_as_the_german_portal_takes_it(self, fresh: World) -> None:
        book = {**MUG, "tax_code": "books"}
        for _ in range(2):
            order_id = await an_order(fresh, shipping_address=PARIS, items=[MUG, book])
            await ok(await finalize(fresh, order_id, (await ok(await quote(fresh, order_id)))["snapshot_id"]))
        home = await an_order(fresh)
        await ok(await finalize(fresh, home, (await ok(await quote(fresh, home)))["snapshot_id"]))
        first, last = _quarter()

        neutral = await export(fresh, "oss", first, last)
        german = await export(fresh, "bzst", first, last)

        quarter = f"{first.year}-Q{(first.month - 1) // 3 + 1}"
        # Goods 2483 and shipping 1290 at 20 %, books 2825 at 5.5 %, twice.
        assert neutral.text.splitlines()[1:] == [
            f"FR,DE,REDUCED,5.5,EUR,{quarter},56.50,3.10",
            f"FR,DE,STANDARD,20,EUR,{quarter},75.46,15.10",
        ]
        assert german.text == "#v1.0\n3,FR,REDUCED,5.50,56.50,3.10\n3,FR,STANDARD,20.00,75.46,15.10\n"

    async def test_the_german_portal_takes_whole_quarters(self, world: World) -> None:
        answer = await export(world, "bzst", TODAY, TODAY + timedelta(days=1))

        assert (answer.status_code, answer.json()["code"]) == (422, "not-exportable")

    async def test_states_of_the_us(self, fresh: World) -> None:
        for name, rate, level, region in (("Washington", "6.5", "state", "US-WA"), ("Seattle", "3.85", "city", "US-WA")):
            await ok(await fresh.send("POST", "/api/v1/admin/tax/rules", shop.a_rule("US", name, rate, level=level, region=region)))
        await ok(await fresh.send("POST", "/api/v1/admin/tax/nexus", {"country": "US", "region": "US-WA", "valid_from": "2024-01-01"}))
        seattle = {"name": "J", "street_address": "415 Pine St", "city": "Seattle", "country_area": "WA", "postal_code": "98101"}
        item = {**MUG, "tax_behavior": "exclusive", "unit_price": 5000}
        order_id = await an_order(
            fresh, currency="USD", items=[item], shipping_amount=1000, shipping_address={**seattle, "country_code": "US"}
        )
        await ok(await finalize(fresh, order_id, (await ok(await quote(fresh, order_id)))["snapshot_id"]))

        rows = list(csv.DictReader(io.StringIO((await export(fresh, "us_states")).text)))

        assert [(r["state"], r["jurisdiction_name"], r["gross_amount"], r["taxable_shipping_amount"], r["tax_amount"]) for r in rows] == [
            ("WA", "Seattle", "110.00", "10.00", "4.24"),
            ("WA", "Washington", "110.00", "10.00", "7.15"),
        ]

    @pytest.mark.parametrize("query", ["from=2026-01-01", "from=yesterday&to=2026-01-01", "from=2026-02-01&to=2026-01-01&format=pdf"])
    async def test_what_makes_no_sense(self, world: World, query: str) -> None:
        answer = await world.send("GET", f"/api/v1/admin/tax/reports/export?{query}")

        assert answer.status in (400, 422)

    async def test_a_period_that_ends_before_it_begins(self, world: World) -> None:
        answer = await world.send("GET", "/api/v1/admin/tax/reports/export?from=2026-02-01&to=2026-01-01")

        assert (answer.status, answer.code) == (422, "invalid-request")


def _quarter() -> tuple[Any, Any]:
    first = TODAY.replace(month=(TODAY.month - 1) // 3 * 3 + 1, day=1)
    after = (first + timedelta(days=95)).replace(day=1)
    return first, after - timedelta(days=1)


_COPIED = """
    INSERT INTO fulfillment.tax_documents (id, store_id, environment, kind, order_id, snapshot_id, tax_hash, provider, currency, tax_date,
                                           document_date, ship_from, ship_to, ship_to_region, tax_amount, line_amounts, correlation_id)
    SELECT $1, store_id, environment, kind, $2, snapshot_id, tax_hash, provider, currency, tax_date, $3, ship_from, ship_to,
           ship_to_region, tax_amount, line_amounts, correlation_id
      FROM fulfillment.tax_documents
"""


async def _date_back(world: World, day: Any) -> None:
    # Only a superuser gets past the triggers, and a test must make time pass.
    await world.change("ALTER TABLE fulfillment.tax_documents DISABLE TRIGGER documents_stay")
    await world.change("ALTER TABLE fulfillment.order_tax_lines DISABLE TRIGGER lines_stay")
    await world.change("UPDATE fulfillment.tax_documents SET document_date = $1, tax_date = $1", day)
    await world.change("UPDATE fulfillment.order_tax_lines SET document_date = $1", day)
    await world.change("ALTER TABLE fulfillment.tax_documents ENABLE TRIGGER documents_stay")
    await world.change("ALTER TABLE fulfillment.order_tax_lines ENABLE TRIGGER lines_stay")
