"""From the quote to the refund (roadmap P0 and P1), through HTTP."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from deploy import setup
from services.payments.store import intents as intent_rows
from shared.contracts.payments import SnapshotView
from shared.ids import new_id
from shared.messages import Environment
from tests.world import ORDER, TOTAL, World


class TestQuote:
    async def test_freezes_lines_totals_and_providers(self, world: World) -> None:
        order_id = await world.an_order(shipping_amount=490)

        answer = await world.quote(order_id)

        assert answer.status == 201
        assert answer.json["totals"]["total"] == TOTAL + 490
        assert answer.json["lines"][0]["amount"] == TOTAL
        assert answer.json["providers"]["payment"]["name"] == "sandbox"
        assert answer.json["providers"]["payment"]["capabilities"]["multiple_captures"] is True
        assert answer.json["selected_shipping_rate"]["amount"] == 490

    async def test_normalises_the_address_and_keeps_what_was_typed(self, world: World) -> None:
        typed = {"name": "Ada", "street_address": "Lange Reihe 27", "postal_code": " 20099", "city": "hamburg", "country_code": "DE"}
        order_id = await world.an_order(shipping_address=typed)

        answer = await world.quote(order_id)

        assert answer.json["shipping_address"]["typed"]["postal_code"] == " 20099"
        assert answer.json["shipping_address"]["normalized"]["postal_code"] == "20099"

    async def test_adds_up_discounts_and_mixed_tax(self, world: World) -> None:
        shoes = {**ORDER["items"][0], "quantity": 1, "unit_price": 12900, "adjustments": [{"label": "Autumn", "amount": 1900}]}
        taxes = [
            {"jurisdiction": "US-WA", "rate_percent": "6.5", "amount": 715, "line": 0},
            {"jurisdiction": "US-WA", "rate_percent": "6.5", "amount": 92, "behavior": "inclusive"},
        ]
        order_id = await world.an_order(currency="USD", items=[shoes], tax_lines=taxes)

        totals = (await world.quote(order_id)).json["totals"]

        assert totals == {"items": 12900, "discounts": 1900, "shipping": 0, "tax_exclusive": 715, "tax_inclusive": 92, "total": 11715}

    async def test_holds_as_long_as_the_store_decided(self, world: World) -> None:
        order_id = await world.an_order()
        await setup.set_store(
            world.place.database_url,
            store_id=world.store_id,
            environment=Environment.SANDBOX,
            quote_lifetime_seconds=60,
            reporting_currency="EUR",
        )

        snapshot = msgspec.json.decode((await world.quote(order_id)).content, type=SnapshotView)

        assert (snapshot.expires_at - snapshot.created_at).total_seconds() == 60
        await world.change("DELETE FROM payments.stores WHERE store_id = $1", world.store_id)

    async def test_says_at_which_rate_it_would_be_reported(self, world: World) -> None:
        today = datetime.now(UTC).date()
        await world.change("INSERT INTO payments.fx_reference_rates VALUES ('USD', 'EUR', 0.9, 'ECB', $1)", today)

        dollars = await world.quote(await world.an_order(currency="USD"))
        euros = await world.quote(await world.an_order())

        assert dollars.json["fx_reference"] == {
            "base": "USD",
            "quote": "EUR",
            "rate": "0.9000000000",
            "source": "ECB",
            "date": str(today),
        }
        assert euros.json["fx_reference"] is None
        assert (dollars.json["reported"], euros.json["reported"]) == (
            {"amount": 9_000, "currency": "EUR"},
            {"amount": 10_000, "currency": "EUR"},
        )

    async def test_a_rate_that_is_too_old_is_no_reference_and_that_is_said(self, world: World) -> None:
        await world.change("INSERT INTO payments.fx_reference_rates VALUES ('CHF', 'EUR', 1.05, 'ECB', '2024-01-02')")

        snapshot = (await world.quote(await world.an_order(currency="CHF"))).json

        assert (snapshot["fx_reference"], snapshot["reported"]) == (None, None)
        assert [notice["code"] for notice in snapshot["notices"]] == ["fx-rate-stale"]

    async def test_refuses_an_order_that_is_not_there(self, world: World) -> None:
        answer = await world.quote(new_id())

        assert (answer.status, answer.code) == (404, "not-found")


class TestOrders:
    async def test_every_change_bumps_the_version(self, world: World) -> None:
        order_id = await world.an_order()

        answer = await world.put_order(order_id, {**ORDER, "shipping_amount": 1}, headers={"If-Match": '"1"'})

        assert answer.json["version"] == 2
        assert answer.headers["etag"] == '"2"'

    async def test_refuses_a_stale_version(self, world: World) -> None:
        order_id = await world.an_order()

        answer = await world.put_order(order_id, {**ORDER, "shipping_amount": 1}, headers={"If-Match": '"7"'})

        assert (answer.status, answer.code) == (412, "stale-version")

    async def test_refuses_to_change_prices_while_a_payment_is_active(self, world: World) -> None:
        payment = await world.a_payment()

        answer = await world.put_order(payment.order_id, {**ORDER, "shipping_amount": 1})

        assert (answer.status, answer.code) == (409, "order-locked")
        assert answer.json["differing_fields"] == ["shipping_amount"]

    async def test_may_change_what_is_not_priced_while_a_payment_is_active(self, world: World) -> None:
        payment = await world.a_payment()

        answer = await world.put_order(payment.order_id, {**ORDER, "customer_id": str(new_id())})

        assert answer.status == 200


class TestAuthorize:
    async def test_holds_the_money(self, world: World) -> None:
        payment = await world.a_payment()

        intent = await payment.intent()

        assert (intent["status"], intent["authorized_amount"], intent["captured_amount"]) == ("authorized", TOTAL, 0)
        assert intent["authorization_expires_at"] is not None
        await world.books_agree(payment.order_id)

    async def test_refuses_an_expired_snapshot(self, world: World) -> None:
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)
        await world.change("UPDATE payments.order_checkout_snapshots SET expires_at = now() WHERE id = $1", UUID(snapshot_id))

        answer = await world.authorize(order_id, snapshot_id)

        assert (answer.status, answer.code) == (409, "snapshot-expired")

    async def test_refuses_an_order_that_changed_and_names_the_fields(self, world: World) -> None:
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)
        await world.put_order(order_id, {**ORDER, "shipping_amount": 100})

        answer = await world.authorize(order_id, snapshot_id)

        assert (answer.status, answer.code) == (409, "order-changed")
        assert answer.json["differing_fields"] == ["shipping_amount"]

    async def test_refuses_another_amount(self, world: World) -> None:
        order_id = await world.an_order()

        answer = await world.authorize(order_id, await world.a_snapshot(order_id), more={"amount": 1})

        assert (answer.status, answer.code) == (409, "amount-mismatch")
        assert answer.json["quoted"] == {"amount": TOTAL, "currency": "EUR"}

    async def test_refuses_another_currency(self, world: World) -> None:
        order_id = await world.an_order()

        answer = await world.authorize(order_id, await world.a_snapshot(order_id), more={"currency": "USD"})

        assert (answer.status, answer.code) == (409, "amount-mismatch")

    async def test_refuses_a_second_active_payment(self, world: World) -> None:
        payment = await world.a_payment()

        answer = await world.authorize(payment.order_id, await world.a_snapshot(payment.order_id))

        assert (answer.status, answer.code) == (409, "payment-already-active")
        assert answer.json["intent_id"] == str(payment.id)

    async def test_refuses_a_cancelled_order(self, world: World) -> None:
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)
        await world.put_order(order_id, {**ORDER, "cancelled": True})

        answer = await world.authorize(order_id, snapshot_id)

        assert (answer.status, answer.code) == (409, "order-cancelled")

    async def test_may_be_tried_again_after_a_decline(self, world: World) -> None:
        order_id = await world.an_order()
        declined = await world.authorize(order_id, await world.a_snapshot(order_id), "tok_declined_insufficient_funds")

        answer = await world.authorize(order_id, await world.a_snapshot(order_id))

        assert (declined.status, answer.status) == (402, 201)
        assert len((await world.ledger(order_id))["payments"]) == 2
        await world.books_agree(order_id)

    async def test_works_in_a_currency_without_decimals(self, world: World) -> None:
        payment = await world.a_payment(currency="JPY")

        assert (await payment.intent())["currency"] == "JPY"


class TestCapture:
    async def test_takes_everything_by_default(self, world: World) -> None:
        payment = await world.a_payment()

        answer = await payment.capture()

        assert answer.status == 201
        assert answer.json["intent"]["status"] == "captured"
        assert (await world.ledger(payment.order_id))["order_status"] == "paid"

    async def test_takes_parts(self, world: World) -> None:
        payment = await world.a_payment()

        first, second = await payment.capture(3_000), await payment.capture(2_000)

        assert (first.json["intent"]["status"], second.json["intent"]["captured_amount"]) == ("partially_captured", 5_000)
        assert (await world.ledger(payment.order_id))["order_status"] == "partially_paid"
        await world.books_agree(payment.order_id)

    async def test_refuses_more_than_is_held(self, world: World) -> None:
        payment = await world.a_payment()
        await payment.capture(6_000)

        answer = await payment.capture(4_001)

        assert (answer.status, answer.code) == (409, "amount-exceeds-available")
        assert (answer.json["available"], answer.json["requested"]) == (4_000, 4_001)
        assert len(await payment.transactions()) == 2

    async def test_final_releases_the_rest(self, world: World) -> None:
        payment = await world.a_payment()

        answer = await payment.capture(6_000, final=True)

        assert answer.json["intent"]["status"] == "captured"
        assert answer.json["intent"]["voided_amount"] == 4_000
        assert payment.at_the_provider().held == 0

    async def test_refuses_a_payment_of_another_order(self, world: World) -> None:
        payment, other = await world.a_payment(), await world.an_order()

        answer = await world.send("POST", f"/api/v1/admin/orders/{other}/payments/{payment.id}/capture", {})

        assert (answer.status, answer.code) == (404, "not-found")

    async def test_refuses_another_currency(self, world: World) -> None:
        payment = await world.a_payment()

        answer = await payment._do("capture", {"amount": 1, "currency": "USD"})

        assert (answer.status, answer.json["field"]) == (422, "$.currency")


class TestVoid:
    async def test_releases_everything(self, world: World) -> None:
        payment = await world.a_payment()

        answer = await payment.void()

        assert (answer.status, answer.json["intent"]["status"]) == (201, "voided")
        assert (await world.ledger(payment.order_id))["order_status"] == "open"

    async def test_releases_the_rest_after_a_partial_capture(self, world: World) -> None:
        payment = await world.a_payment()
        await payment.capture(2_500)

        answer = await payment.void()

        assert (answer.json["intent"]["status"], answer.json["intent"]["voided_amount"]) == ("captured", 7_500)
        assert payment.at_the_provider().held == 0

    async def test_refuses_what_is_captured(self, world: World) -> None:
        payment = await world.a_captured_payment()

        answer = await payment.void()

        assert (answer.status, answer.code) == (409, "invalid-payment-state")

    async def test_lets_the_order_be_paid_anew(self, world: World) -> None:
        payment = await world.a_payment()
        await payment.void()

        answer = await world.authorize(payment.order_id, await world.a_snapshot(payment.order_id))

        assert answer.status == 201


class TestRefund:
    async def test_gives_back_parts_and_then_all(self, world: World) -> None:
        payment = await world.a_captured_payment()

        first, second = await payment.refund(4_000), await payment.refund()

        assert (first.json["intent"]["status"], second.json["intent"]["status"]) == ("partially_refunded", "refunded")
        assert (await world.ledger(payment.order_id))["order_status"] == "refunded"
        await world.books_agree(payment.order_id)

    async def test_refuses_more_than_was_captured(self, world: World) -> None:
        payment = await world.a_captured_payment()
        await payment.refund(9_999)

        answer = await payment.refund(2)

        assert (answer.status, answer.code, answer.json["available"]) == (409, "amount-exceeds-available", 1)

    async def test_refuses_what_was_never_captured(self, world: World) -> None:
        payment = await world.a_payment()

        answer = await payment.refund()

        assert (answer.status, answer.code) == (409, "invalid-payment-state")

    async def test_a_refunded_order_takes_no_second_payment(self, world: World) -> None:
        payment = await world.a_captured_payment()
        snapshot_id = await world.a_snapshot(payment.order_id)
        await payment.refund()

        answers = [await world.quote(payment.order_id), await world.authorize(payment.order_id, snapshot_id)]

        assert [(answer.status, answer.code) for answer in answers] == [(409, "order-already-paid")] * 2


class TestLedger:
    async def test_tells_everything_in_order(self, world: World) -> None:
        payment = await world.a_payment()
        await payment.capture(6_000)
        await payment.refund(1_000)

        ledger = await world.ledger(payment.order_id)

        rows = [(t["operation"], t["status"], t["amount"], t["source"]) for t in ledger["payments"][0]["transactions"]]
        assert rows == [
            ("authorize", "succeeded", TOTAL, "api"),
            ("capture", "succeeded", 6_000, "api"),
            ("refund", "succeeded", 1_000, "api"),
        ]
        statuses = [(h["from_status"], h["to_status"]) for h in ledger["history"]]
        assert statuses == [
            (None, "open"),
            ("open", "payment_pending"),
            ("payment_pending", "authorized"),
            ("authorized", "partially_paid"),
            ("partially_paid", "partially_refunded"),
        ]
        assert all(h["actor"].split(":")[0] == "admin" and h["correlation_id"] for h in ledger["history"])

    async def test_every_provider_call_is_audited_without_secrets(self, world: World) -> None:
        payment = await world.a_payment()

        calls = await world.rows(
            """
            SELECT c.* FROM payments.provider_call_audit c JOIN payments.payment_transactions t ON t.id = c.transaction_id
             WHERE t.payment_intent_id = $1
            """,
            payment.id,
        )

        assert [(c["operation"], c["classification"], c["status"]) for c in calls] == [("authorize", "answered", 200)]
        assert "tok_success" not in calls[0]["request"] + calls[0]["response"]


class TestReadingTheLedger:
    async def test_shows_one_moment_though_a_payment_goes_on_meanwhile(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        payment = await world.a_payment()
        read = intent_rows.whole_ledger

        async def captured_meanwhile(*arguments: Any) -> Any:
            monkeypatch.setattr(intent_rows, "whole_ledger", read)
            assert (await payment.capture()).status == 201
            return await read(*arguments)

        monkeypatch.setattr(intent_rows, "whole_ledger", captured_meanwhile)
        before = await world.ledger(payment.order_id)
        after = await world.ledger(payment.order_id)

        assert [(seen["order_status"], seen["payments"][0]["intent"]["status"]) for seen in (before, after)] == [
            ("authorized", "authorized"),
            ("paid", "captured"),
        ]
        assert len(after["history"]) > len(before["history"])
