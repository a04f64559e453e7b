"""Every amount up to 10^15 minor units passes through the whole life of a payment (public report: iZettle/sdk-android issue 4).

2^31 is the first that 32 bits do not hold: 21 474 836.48 of a currency with two decimals, a day's ordinary purchase in Indonesian rupiah.
"""

import csv
import io
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from deploy.sandbox.parcels import Rate
from services.gateway.domain import Role
from shared.ids import new_id
from tests.fulfillment import shop
from tests.reconciler.books import a_run, drift, make_drift
from tests.world import Payment, Place, World, a_world, until

# The first over 32 bits; the most that Stripe takes of rupiah (docs.stripe.com/currencies: twelve digits); the most that the API takes.
LARGE = (2**31, 10**12 - 1, 10**15)


def an_item(amount: int) -> dict[str, object]:
    return {"product_variant_id": "0192f0c1-7e00-7000-8000-000000000001", "name": "House", "quantity": 1, "unit_price": amount}


@pytest.mark.parametrize("amount", LARGE)
class TestALargeAmount:
    async def test_is_captured_and_refunded_whole(self, world: World, amount: int) -> None:
        payment = await world.a_payment(items=[an_item(amount)])

        assert (await payment.capture()).status == 201
        assert (await payment.refund()).status == 201

        intent = await payment.intent()
        assert (intent["captured_amount"], intent["refunded_amount"], intent["status"]) == (amount, amount, "refunded")
        await world.books_agree(payment.order_id)

    async def test_is_captured_and_refunded_in_parts(self, world: World, amount: int) -> None:
        payment = await world.a_payment(items=[an_item(amount)])

        assert (await payment.capture(amount - 1)).status == 201
        assert (await payment.capture(1)).status == 201
        assert (await payment.refund(1)).status == 201
        assert (await payment.refund(amount - 1)).status == 201

        assert (await payment.intent())["refunded_amount"] == amount
        await world.books_agree(payment.order_id)

    async def test_is_never_more_than_there_is(self, world: World, amount: int) -> None:
        payment = await world.a_payment(items=[an_item(amount)])

        assert (await payment.capture(amount)).status == 201
        assert (await payment.refund(amount - 1)).status == 201
        assert (await payment.refund(2)).status == 409
        await world.books_agree(payment.order_id)

    async def test_is_voided(self, world: World, amount: int) -> None:
        payment = await world.a_payment(items=[an_item(amount)])

        assert (await payment.void()).status == 201

        assert (await payment.intent())["status"] == "voided"

    async def test_is_submitted_at_once(self, world: World, amount: int) -> None:
        order_id = await world.an_order(items=[an_item(amount)])

        answer = await world.send("POST", f"/api/v1/checkout/orders/{order_id}/submit-payment", {"payment_method": "tok_success"})

        assert answer.status == 201
        await world.books_agree(order_id)


MOST = 10**15
# Of a quarter of the most, so that an order's items, shipping and tax together stay below it.
PART = MOST // 4
# Columns of 64 bits that hold no money: numbers of things and of changes.
COUNTS = {"revision", "row_id", "row_count", "count", "compared", "elsewhere", "pages", "drift_found", "drift_healed", "token", "letters"}
COUNTS |= {"done", "skipped", "duration_us"}
# Full only while a call is out; the capture and the refund of the most wrote them.
FOR_A_MOMENT = {"capture_reserved", "refund_reserved"}
WRITTEN_DECIMAL = f"{MOST // 100:,}.00".replace(",", "")


@pytest.fixture(scope="module")
async def whole(second_place: Place) -> AsyncIterator[World]:
    """Every service, and a carrier that asks a fortune."""
    async with a_world(second_place, webhooks={}, fulfillment={}, reconciler={}) as made:
        priced = made.sandbox.carrier.quote

        def dear(body: dict[str, Any]) -> list[Rate]:
            rates = [msgspec.structs.replace(rate, amount=PART) for rate in priced(body)]
            made.sandbox.carrier.rates.update({rate.id: rate for rate in rates})
            return rates

        made.sandbox.carrier.quote = dear  # type: ignore[method-assign]
        await shop.set_up(made, carriers=["sandbox"])
        yield made


async def the_most(world: World, method: str = "tok_success") -> Payment:
    return await world.a_payment(method, items=[an_item(MOST)])


async def at_the_provider(world: World, payment: Payment, kind: str, amount: int) -> None:
    url = f"{world.sandbox.base_url}/control/payments/{payment.at_the_provider().id}/{kind}"
    (await world.http.post(url, json={"amount": amount})).raise_for_status()


async def has(payment: Payment, **facts: Any) -> bool:
    intent = await payment.intent()
    return all(intent[name] == value for name, value in facts.items())


class TestTheMostThereIs:
    """F1: through every job and report, to the unit."""

    async def test_more_is_refused_before_anything_is_written(self, whole: World) -> None:
        for amount in (MOST + 1, 2**53 - 1, 2**63):
            answer = await whole.put_order(new_id(), {"currency": "EUR", "items": [an_item(amount)], "shipping_amount": 0, "tax_lines": []})
            assert answer.status == 422, answer

    async def test_is_charged_back_and_won(self, whole: World) -> None:
        payment = await the_most(whole)
        assert (await payment.capture()).status == 201

        await at_the_provider(whole, payment, "chargeback", MOST)
        await until(lambda: has(payment, charged_back_amount=MOST))
        await at_the_provider(whole, payment, "chargeback_reversal", MOST)

        await until(lambda: has(payment, charged_back_amount=0))
        await whole.books_agree(payment.order_id)

    async def test_is_refunded_in_the_dashboard(self, whole: World) -> None:
        payment = await the_most(whole)
        assert (await payment.capture()).status == 201

        await at_the_provider(whole, payment, "refund", MOST)

        await until(lambda: has(payment, refunded_amount=MOST, status="refunded"))

    async def test_is_taken_after_all_and_given_back(self, whole: World) -> None:
        payment = await the_most(whole)
        assert (await payment.void()).status == 201
        other = await whole.authorize(payment.order_id, await whole.a_snapshot(payment.order_id))

        await at_the_provider(whole, payment, "capture", MOST)

        await until(lambda: has(payment, overpaid_amount=MOST))
        assert other.status == 201

    async def test_is_charged_back_in_the_end(self, whole: World) -> None:
        payment = await the_most(whole)
        assert (await payment.capture()).status == 201

        await at_the_provider(whole, payment, "chargeback", MOST)

        await until(lambda: has(payment, charged_back_amount=MOST))

    async def test_is_given_back_when_it_was_abandoned_and_when_it_lapses(self, whole: World) -> None:
        abandoned, lapsed = await the_most(whole, "tok_3ds"), await the_most(whole)
        await whole.change("UPDATE payments.payment_intents SET created_at = now() - interval '2 hours' WHERE id = $1", abandoned.id)
        await until(lambda: has(abandoned, status="abandoned"))
        whole.sandbox.books.decide(abandoned.at_the_provider(), passed=True)
        await whole.change("UPDATE payments.payment_intents SET authorization_expires_at = now() WHERE id = $1", lapsed.id)

        await until(lambda: has(abandoned, voided_amount=MOST))
        await until(lambda: has(lapsed, voided_amount=MOST, status="expired"))

    async def test_is_refunded_when_it_was_abandoned_and_taken_all_the_same(self, whole: World) -> None:
        payment = await the_most(whole, "tok_3ds")
        await whole.change("UPDATE payments.payment_intents SET created_at = now() - interval '2 hours' WHERE id = $1", payment.id)
        await until(lambda: has(payment, status="abandoned"))
        theirs = payment.at_the_provider()
        theirs.capture_method = "automatic"

        whole.sandbox.books.decide(theirs, passed=True)

        await until(lambda: has(payment, refunded_amount=MOST))
        await whole.books_agree(payment.order_id)

    async def test_is_settled_and_listed_where_it_is_not(self, whole: World) -> None:
        paid_out, forgotten = await the_most(whole), await the_most(whole)
        assert [(await each.capture()).status for each in (paid_out, forgotten)] == [201, 201]
        line = {"key": new_id().hex, "category": "charge", "operation": "capture", "payment": paid_out.at_the_provider().id}
        amounts = {"gross": MOST, "fee": MOST // 100, "net": MOST - MOST // 100, "currency": "EUR"}
        body = {"provider": "sandbox", "file_sha256": "0" * 64, "lines": [{**line, **amounts}]}

        answer = await whole.send("POST", "/api/v1/admin/reconciliation/settlements", body)

        assert (answer.status, answer.json["matched"], answer.json["differing"]) == (200, 1, []), answer
        [shown] = (await whole.ledger(paid_out.order_id))["payments"][0]["settlements"]
        assert (shown["gross"], shown["fee"], shown["net"]) == (MOST, MOST // 100, MOST - MOST // 100)
        times = "since=2020-01-01T00:00:00Z&until=2100-01-01T00:00:00Z&limit=200"
        listed = (await whole.send("GET", f"/api/v1/admin/reconciliation/unsettled?provider=sandbox&{times}")).json["transactions"]
        assert [t["amount"] for t in listed if t["order_id"] == str(forgotten.order_id)] == [MOST]

    async def test_is_a_difference_between_the_books(self, whole: World) -> None:
        more, gone = await the_most(whole), await the_most(whole)
        assert [(await each.capture()).status for each in (more, gone)] == [201, 201]
        await make_drift(whole, "payments", more.at_the_provider().id, kind="capture", amount=MOST - 1)
        key = gone.at_the_provider().id
        await make_drift(whole, "payments", key, forget=True)

        await a_run(whole)

        found = {item["key"]: item for item in await drift(whole, status="open")}
        assert found[key]["ours"]["amount"] == MOST
        differing = found[next(p for p in whole.sandbox.books.payments.values() if p.order_id == str(more.order_id)).id]
        assert (differing["ours"]["amount"], differing["theirs"]["amount"]) == (MOST, MOST - 1)

    async def test_is_shown_to_the_unit(self, whole: World) -> None:
        payment = await the_most(whole)
        assert (await payment.capture()).status == 201
        await whole.change("UPDATE payments.payment_intents SET attention = 'tests' WHERE id = $1", payment.id)
        order = f"/api/v1/admin/orders/{payment.order_id}"

        for path in (f"{order}/payments", "/api/v1/admin/orders?limit=100", "/api/v1/admin/payments/attention"):
            answer = await whole.send("GET", path)
            assert answer.status == 200, answer
            assert re.search(rf"[:\[ ]{MOST}[,}}\]]", answer.content.decode()), path
        for path in (f"{order}/timeline", "/api/v1/admin/overview"):
            assert (await whole.send("GET", path)).status == 200, path
        async with httpx.AsyncClient(base_url=whole.gateway_url, timeout=30) as browser:
            await browser.post("/console/sign-in", data={"access_key": whole.keys[Role.OPERATOR]})
            for page in (f"/console/orders/{payment.order_id}", "/console/orders", "/console/attention"):
                shown = await browser.get(page)
                assert (shown.status_code, f"{WRITTEN_DECIMAL}\u00a0EUR" in shown.text) == (200, True), page
        await whole.change("UPDATE payments.payment_intents SET attention = NULL WHERE id = $1", payment.id)

    async def test_is_shipped_taxed_and_reported(self, whole: World) -> None:
        houses = {"tax_code": "houses", "taxed_above": MOST - 1, "taxed_up_to": MOST, "valid_to": "2021-01-02"}
        await shop.ok(await whole.send("POST", "/api/v1/admin/tax/rules", shop.a_rule("DE", "Grunderwerb", "6", **houses)))
        within = [{"applies_from": MOST - 1, "applies_below": MOST}, {"applies_above": MOST - 1, "applies_up_to": MOST}]
        for name, bounds in zip(("One price", "Another price"), within, strict=True):
            castles = {"tax_code": "castles", **bounds, "valid_to": "2021-01-02"}
            await shop.ok(await whole.send("POST", "/api/v1/admin/tax/rules", shop.a_rule("DE", name, "6", **castles)))
        fee = {"tax_code": "castles", "flat_amount": MOST, "valid_to": "2021-01-02"}
        await shop.ok(await whole.send("POST", "/api/v1/admin/tax/rules", shop.a_rule("DE", "Fee", "0", **fee)))
        item = {**shop.MUG, "quantity": 1, "unit_price": 2 * PART, "tax_behavior": "inclusive"}
        gift = {"label": "Gift", "amount": PART, "kind": "campaign", "funded_by": "merchant"}
        order_id = await shop.an_order(whole, items=[{**item, "adjustments": [gift]}])
        quoted = await shop.ok(await shop.quote(whole, order_id, shipping_service="ground", payment_provider="sandbox"))
        assert quoted["totals"]["shipping"] == PART
        authorized = await shop.ok(await whole.authorize(order_id, quoted["snapshot_id"]))
        payment = Payment(whole, order_id, UUID(authorized["intent"]["id"]))
        assert (await payment.capture()).status == 201
        label = (await shop.ok(await whole.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels", {})))["label"]
        assert label["amount"] == PART
        await shop.ok(await shop.finalize(whole, order_id, quoted["snapshot_id"]))
        total = (await payment.intent())["captured_amount"]
        assert (await payment.refund(total - 1)).status == 201

        async def both() -> Any:
            rows = await self._itemized(whole)
            return rows if any(row["taxable_amount"].startswith("-") for row in rows) else None

        rows = await until(both)
        sold = [row for row in rows if not row["taxable_amount"].startswith("-")]
        # 19 % are in the price of the item, and come on top of the shipping or are in it; rounded half-up to the cent.
        assert sum(_minor(row["taxable_amount"]) + _minor(row["tax_amount"]) for row in sold) == total
        assert max(_minor(row["taxable_amount"]) for row in sold) > 2**31
        back = [row for row in rows if row["taxable_amount"].startswith("-")]
        assert abs(sum(_minor(row["taxable_amount"]) + _minor(row["tax_amount"]) for row in back)) in (total - 1, total, total - 2)

    async def test_is_exported_untaxed(self, whole: World) -> None:
        item = {**shop.MUG, "quantity": 1, "unit_price": 2 * PART}
        order_id = await shop.an_order(whole, items=[item], shipping_address=shop.ZURICH)
        quoted = await shop.ok(await shop.quote(whole, order_id, shipping_service="ground"))

        await shop.ok(await shop.finalize(whole, order_id, quoted["snapshot_id"]))

        assert quoted["totals"]["total"] == 3 * PART

    async def _itemized(self, world: World) -> list[dict[str, str]]:
        today = datetime.now(UTC).date()
        answer = await world.http.get(
            "/api/v1/admin/tax/reports/export",
            params={"from": str(today - timedelta(days=1)), "to": str(today), "format": "itemized"},
            headers={"Authorization": f"Bearer {world.keys[Role.ADMIN]}"},
        )
        assert answer.status_code == 200, answer.text
        return list(csv.DictReader(io.StringIO(answer.text)))

    async def test_every_column_of_money_was_written(self, whole: World) -> None:
        """What no test above drives to it could be of 32 bits somewhere on its way."""
        columns = await whole.rows(
            """
            SELECT table_schema, table_name, column_name
              FROM information_schema.columns
             WHERE table_schema IN ('payments', 'fulfillment', 'reconciler', 'webhooks') AND data_type = 'bigint'
            """
        )
        money = [each for each in columns if each["column_name"] not in COUNTS | FOR_A_MOMENT]
        small = []
        for schema, table, column in money:
            [row] = await whole.rows(f"SELECT coalesce(max(abs({column})), 0) AS most FROM {schema}.{table}")
            if row["most"] <= 2**32:
                small.append(f"{schema}.{table}.{column}")

        assert len(money) > 25
        assert small == []


def _minor(text: str) -> int:
    return int(text.replace(".", ""))
