"""Tax follows the money over the API: recorded once paid, reversed as it goes back, by line where that is said, and again if it comes."""

import asyncio
import random
from collections.abc import AsyncIterator
from fractions import Fraction
from typing import Any
from uuid import UUID

import msgspec
import pytest

from services.fulfillment.domain.tax.amounts import RoundingMode, rounded
from services.fulfillment.domain.tax.kept import not_kept, payment_of
from services.payments.domain.intents import Operation
from services.payments.store.intents import view
from shared.bus import Publisher
from shared.ids import new_id
from shared.messages import Envelope, Environment
from shared.outbox import parcel
from tests.fulfillment import shop
from tests.fulfillment.shop import MUG, an_order, finalize, finalize_as_it_is, ok, quote, told
from tests.fulfillment.test_kept_tax import Ledger, happens_to
from tests.world import Payment, Place, World, a_world, until

BOOK = {**MUG, "name": "Book", "tax_code": "books", "quantity": 1, "unit_price": 10_700}
CUP = {**MUG, "quantity": 1, "unit_price": 11_900}


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}, webhooks={}) as made:
        await shop.set_up(made)
        yield made


@pytest.fixture(scope="module")
async def publisher(place: Place) -> AsyncIterator[Publisher]:
    async with Publisher(place.amqp_url, name="tests") as publisher:
        yield publisher


async def held(world: World, method: str = "tok_success", **changes: Any) -> tuple[Payment, Any]:
    """An order of a cup for 119.00 with 19 % in it, nothing to ship, that is authorized."""
    order_id = await an_order(world, **{"items": [CUP], "shipping_amount": 0, **changes})
    snapshot = await ok(await quote(world, order_id))
    paid = await ok(await world.authorize(order_id, snapshot["snapshot_id"], method))
    return Payment(world, order_id, UUID(paid["intent"]["id"])), snapshot


async def sold(world: World, method: str = "tok_success", **changes: Any) -> Payment:
    """One that is captured and whose tax is recorded."""
    payment, snapshot = await held(world, method, **changes)
    await ok(await payment.capture())
    await ok(await finalize(world, payment.order_id, snapshot["snapshot_id"]))
    return payment


async def documents(payment: Payment) -> list[Any]:
    """What is recorded, once fulfillment knows of the payment."""
    await until(lambda: told(payment.world, payment.order_id))
    found = await ok(await payment.world.send("GET", f"/api/v1/admin/orders/{payment.order_id}/tax"))
    return list(found["documents"])


async def left(payment: Payment) -> int:
    """What is left of the recorded tax."""
    return sum(document["tax_amount"] for document in await documents(payment))


def kinds(found: list[Any]) -> list[tuple[str, int]]:
    return [(each["kind"], each["tax_amount"]) for each in found]


async def happens(payment: Payment, kind: str, amount: int) -> None:
    """Something happens in the provider's dashboard; only its webhook tells."""
    before = (await payment.intent())["version"]
    books = payment.world.sandbox.books
    books.add(books.payments[(await payment.intent())["provider_payment_id"]], kind, amount, reason="dashboard")

    async def newer() -> bool:
        return bool((await payment.intent())["version"] > before)

    await until(newer)


class TestOnlyWhatIsPaid:
    async def test_finalizing_waits_for_the_capture(self, world: World) -> None:
        """G5, G7: VAT becomes chargeable when the payment is received (Directive 2006/112/EC, Article 65), not when it is held."""
        payment, snapshot = await held(world)

        first = await ok(await finalize_as_it_is(world, payment.order_id, snapshot["snapshot_id"], tax_hash=snapshot["tax_hash"]))
        again = await ok(await finalize_as_it_is(world, payment.order_id, snapshot["snapshot_id"]))
        before = await documents(payment)
        await ok(await payment.capture())
        [sale] = await documents(payment)

        assert (first["recorded"], first["tax_amount"], again, before) == (False, 1_900, first, [])
        assert sale == {**first, "recorded": True}
        assert await ok(await finalize_as_it_is(world, payment.order_id, snapshot["snapshot_id"])) == sale

    @pytest.mark.parametrize("end", ["void", "expiry", "cancelled"])
    async def test_what_was_never_paid_is_never_recorded(self, world: World, end: str) -> None:
        """G5, G7: authorized and voided or lapsed, or never paid and cancelled."""
        if end == "cancelled":
            order_id = await an_order(world, items=[CUP], shipping_amount=0)
            snapshot = await ok(await quote(world, order_id))
            payment = Payment(world, order_id, new_id())
        else:
            payment, snapshot = await held(world, "tok_authorization_expires" if end == "expiry" else "tok_success")
        await ok(await finalize_as_it_is(world, payment.order_id, snapshot["snapshot_id"]))

        if end == "void":
            await ok(await payment.void())
        elif end == "expiry":
            await until(lambda: _is(payment, "expired"))
        else:
            content = {"currency": "EUR", "items": [CUP], "shipping_amount": 0, "shipping_address": shop.MUNICH, "cancelled": True}
            await ok(await world.put_order(payment.order_id, content))

        assert await documents(payment) == []

    async def test_one_paid_after_another_was_voided_is_recorded(self, world: World) -> None:
        first, snapshot = await held(world)
        await ok(await finalize_as_it_is(world, first.order_id, snapshot["snapshot_id"]))
        await ok(await first.void())
        paid = await ok(await world.authorize(first.order_id, snapshot["snapshot_id"]))

        await ok(await Payment(world, first.order_id, UUID(paid["intent"]["id"])).capture())

        assert kinds(await documents(first)) == [("sale", 1_900)]

    async def test_a_part_that_is_captured_is_what_is_recorded(self, world: World) -> None:
        """A further capture is recorded when it comes, and what is released never."""
        payment, snapshot = await held(world)
        await ok(await payment.capture(5_950))
        await ok(await finalize(world, payment.order_id, snapshot["snapshot_id"]))
        half = await left(payment)
        await ok(await payment.capture(2_975))
        more = await left(payment)

        await ok(await payment.void())

        assert (half, more) == (950, 1_425)
        assert kinds(await documents(payment)) == [("sale", 1_900), ("reversal", -950), ("reinstatement", 475)]

    async def test_what_is_given_back_before_it_is_asked_for(self, world: World) -> None:
        """G1, G9: the refund came before the recording, which knows its lines all the same."""
        payment, snapshot = await held(world, items=[BOOK, CUP])
        await ok(await payment.capture())
        await ok(await refund(payment, lines=[line(1, 5_950)]))

        await ok(await finalize(world, payment.order_id, snapshot["snapshot_id"]))

        assert kinds(await documents(payment)) == [("sale", 2_600), ("reversal", -950)]


async def _is(payment: Payment, status: str) -> bool:
    return bool((await payment.intent())["status"] == status)


class TestWhatGoesBack:
    async def test_a_chargeback_reverses_and_a_won_dispute_reinstates(self, world: World) -> None:
        """G8: total or partial non-payment reduces the taxable amount (Directive 2006/112/EC, Article 90(1))."""
        payment = await sold(world)

        await happens(payment, "chargeback", 11_900)
        lost = await left(payment)
        await happens(payment, "chargeback_reversal", 5_950)

        assert lost == 0
        assert kinds(await documents(payment)) == [("sale", 1_900), ("reversal", -1_900), ("reinstatement", 950)]
        again = (await documents(payment))[-1]
        assert [(row["taxable_amount"], row["rate_percent"], row["tax_code"]) for row in again["lines"]] == [(5_000, "19", "")]

    async def test_a_refund_that_fails_is_undone(self, world: World) -> None:
        """docs.stripe.com/refunds#failed-refunds: the money is with the shop again, and the sale with it."""
        payment = await sold(world)
        await ok(await payment.refund(5_950))
        reversed_tax = await left(payment)

        failing = f"{world.sandbox.base_url}/control/payments/{payment.at_the_provider().id}/refund_fail"
        assert (await world.http.post(failing, json={})).status_code == 200

        await until(lambda: _refunded(payment, 0))
        assert reversed_tax == 950
        assert kinds(await documents(payment)) == [("sale", 1_900), ("reversal", -950), ("reinstatement", 950)]

    async def test_a_refund_in_the_dashboard(self, world: World) -> None:
        """G9: it names no lines, and is shared by value over what is left."""
        payment = await sold(world)

        await happens(payment, "refund", 5_950)

        assert kinds(await documents(payment)) == [("sale", 1_900), ("reversal", -950)]

    async def test_a_coupon_that_others_pay(self, world: World) -> None:
        """G10: taxed on its full value, paid by its customer in part, and given back whole (Directive 2006/112/EC, Article 73)."""
        coupon = {"label": "Voucher", "amount": 5_000, "funded_by": "third_party"}
        payment = await sold(world, items=[{**CUP, "adjustments": [coupon]}])

        await ok(await payment.refund())

        assert kinds(await documents(payment)) == [("sale", 1_900), ("reversal", -1_900)]


async def _refunded(payment: Payment, amount: int) -> bool:
    return bool((await payment.intent())["refunded_amount"] == amount)


async def refund(payment: Payment, **body: Any) -> Any:
    """Give something back, and wait until fulfillment knows: news that overtakes news is recorded as one."""
    path = f"/api/v1/admin/orders/{payment.order_id}/payments/{payment.id}/refund"
    answer = await payment.world.send("POST", path, body)
    await until(lambda: told(payment.world, payment.order_id))
    return answer


def line(n: int, amount: int) -> dict[str, int]:
    return {"line": n, "amount": amount}


@pytest.mark.parametrize("seed", range(4))
async def test_any_story_in_any_order_leaves_the_tax_of_what_is_kept(world: World, publisher: Publisher, seed: int) -> None:
    """Each news twice, none in its order, together with the request to finalize."""
    rng = random.Random(seed)
    order_id = await an_order(world, items=[BOOK, CUP], shipping_amount=1_000)
    snapshot = await ok(await quote(world, order_id))
    ledger = Ledger(10_700 + 11_900 + 1_190)
    ledger.add(Operation.CAPTURE, rng.choice([9_000, 23_790]))
    for _ in range(12):
        happens_to(ledger, rng, {0: 10_700, 1: 11_900, None: 1_190})
    intent = msgspec.structs.replace(view(ledger.intent), order_id=order_id, snapshot_id=UUID(snapshot["snapshot_id"]))
    cause = Envelope(
        id=new_id(), store_id=world.store_id, environment=Environment.SANDBOX, source="payments", actor="tests", correlation_id="tests"
    )
    letters = [
        parcel(
            msgspec.structs.replace(event, intent=msgspec.structs.replace(event.intent, order_id=order_id, snapshot_id=intent.snapshot_id)),
            cause,
        ).letter()
        for event in ledger.events
    ] * 2
    rng.shuffle(letters)

    await asyncio.gather(finalize_as_it_is(world, order_id, snapshot["snapshot_id"]), *(publisher.publish(letter) for letter in letters))

    async def all_told() -> bool:
        rows = await world.rows("SELECT version FROM fulfillment.order_payments WHERE order_id = $1", order_id)
        return [row["version"] for row in rows] == [intent.version]

    await until(all_told)
    await ok(await finalize_as_it_is(world, order_id, snapshot["snapshot_id"]))
    found = (await ok(await world.send("GET", f"/api/v1/admin/orders/{order_id}/tax")))["documents"]
    back = not_kept({0: 10_700, 1: 11_900, None: 1_190}, [payment_of(intent, ledger.events[-1].returned)])
    for n, price, tax in ((0, 10_700, 700), (1, 11_900, 1_900), (None, 1_190, 190)):
        recorded = sum(row["amount"] for document in found for row in document["lines"] if row["line"] == n)
        assert recorded == tax - rounded(Fraction(tax * back[n], price), RoundingMode.HALF_UP)


class TestLines:
    async def test_a_line_and_shipping_are_named(self, world: World) -> None:
        """G1, G2, G3: the mug returned gives back 19.00 at 19 %, shipping 1.90, and the rest takes what is left."""
        payment = await sold(world, items=[BOOK, CUP], shipping_amount=1_000)

        first = await ok(await refund(payment, lines=[line(1, 11_900)]))
        # News that come late or together are one document.
        for body in ({"shipping": 1_190, "amount": 1_190}, {"lines": [line(0, 5_350)], "reason": "torn"}, {}):
            await documents(payment)
            await ok(await refund(payment, **body))

        sale, *reversals = await documents(payment)
        rows = [[(row["line"], row["rate_percent"], row["amount"], row["taxable_amount"]) for row in each["lines"]] for each in reversals]
        assert rows == [
            [(1, "19", -1_900, -10_000)],
            [(None, "19", -190, -1_000)],
            [(0, "7", -350, -5_000)],
            [(0, "7", -350, -5_000)],
        ]
        assert sale["tax_amount"] == 700 + 1_900 + 190
        assert first["transaction"]["lines"] == [line(1, 11_900)]
        assert [row["lines"] for row in await payment.transactions() if row["operation"] == "refund"] == [
            [line(1, 11_900)],
            [{"line": None, "amount": 1_190}],
            [line(0, 5_350)],
            [],
        ]

    @pytest.mark.parametrize(
        ("body", "status", "field"),
        [
            ({"lines": [line(0, 5_000)], "amount": 4_999}, 422, "$.amount"),
            ({"lines": [line(0, 5_000)], "shipping": 100, "amount": 5_000}, 422, "$.amount"),
            ({"lines": [line(0, 5_000), line(0, 1)]}, 422, "$.lines[1].line"),
            ({"lines": [line(2, 5_000)]}, 422, "$.lines[0].line"),
            ({"lines": [line(0, 5_000)], "overpaid": True}, 422, "$.lines"),
            ({"lines": [line(0, 0)]}, 422, "lines[0].amount"),
            ({"lines": [line(-1, 5)]}, 422, "lines[0].line"),
            ({"lines": [{"line": 0, "amount": 5, "tax": 1}]}, 422, "lines[0]"),
            ({"shipping": 0}, 422, "shipping"),
            # A book of 107.00, of which half went back by its line, and of what is left of all by value.
            ({"lines": [line(0, 5_351)]}, 409, "$.lines[0]"),
            ({"lines": [line(0, 5_350), line(1, 11_901)]}, 409, "$.lines[1]"),
            ({"shipping": 1_191}, 409, "$.shipping"),
        ],
    )
    async def test_refused_with_its_field(self, half_returned: Payment, body: dict[str, Any], status: int, field: str) -> None:
        answer = await refund(half_returned, **body)

        [named] = [each["field"] for each in answer.json.get("errors", [answer.json])]
        assert (answer.status, named) == (status, field), answer

    async def test_a_key_is_for_its_lines(self, world: World) -> None:
        """The same key with other lines of the same amount is another request, also when the gateway has forgotten it."""
        payment = await sold(world, items=[BOOK, CUP])
        path, key = f"/api/v1/admin/orders/{payment.order_id}/payments/{payment.id}/refund", new_id().hex
        first = await world.send("POST", path, {"lines": [line(0, 100)]}, key=key)

        again = await world.send("POST", path, {"lines": [line(0, 100)]}, key=key)
        other = await world.send("POST", path, {"lines": [line(1, 100)]}, key=key)
        await world.change("DELETE FROM gateway.idempotency_keys WHERE idempotency_key LIKE $1", f"%{key}%")
        later = await world.send("POST", path, {"lines": [line(1, 100)]}, key=key)

        assert (first.status, again.content) == (201, first.content)
        assert (other.status, other.code) == (later.status, later.code) == (422, "idempotency-key-reused")


@pytest.fixture(scope="module")
async def half_returned(world: World) -> Payment:
    payment = await sold(world, items=[BOOK, CUP], shipping_amount=1_000)
    await ok(await refund(payment, lines=[line(0, 5_350)]))
    return payment
