"""F6, F18: what a provider may write into an event and no table can hold is refused by name, and nobody else's event waits for it.

What Postgres takes: text without NUL (postgresql.org/docs/current/datatype-character.html), bigint up to 2^63 - 1, an index entry of at
most 2704 bytes (src/include/access/nbtree.h, BTMaxItemSize). JSON may hold all of these (RFC 8259: any escape, numbers of any size).
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any

import msgspec
import pytest

from deploy.sandbox.books import Operation
from deploy.sandbox.faces.easypost import EasyPostEvents
from deploy.sandbox.faces.shippo import ShippoEvents
from deploy.sandbox.faces.stripe_events import StripeEvents
from deploy.sandbox.webhooks import Outgoing, StandardWebhooks, Told
from shared.ids import new_id
from tests.fulfillment import shop
from tests.world import WEBHOOK_SECRET, Payment, Place, World, a_world, until

STYLES: Mapping[str, Any] = {
    "sandbox": StandardWebhooks(),
    "stripe": StripeEvents(),
    "sandbox-carrier": StandardWebhooks(),
    "easypost": EasyPostEvents(),
    "shippo": ShippoEvents(),
}
RANDOM = random.Random(19)
LONG = "".join(RANDOM.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=10_000))
NUL = "a\0b"

# Amounts that are none: of minor units, whole, from 1 to 10^15.
AMOUNTS: Mapping[str, bytes] = {
    "negative": b"-5",
    "nothing": b"0",
    "half": b"1.5",
    "float": b"1.0",
    "exponent": b"1e3",
    "true": b"true",
    "text": b'"500"',
    "null": b"null",
    "over-the-most": b"1000000000000001",
    "over-bigint": b"9223372036854775808",
    "over-64-bits": b"10000000000000000000000000",
}
TEXTS: Mapping[str, bytes] = {
    "nul": msgspec.json.encode(NUL),
    "half-a-pair": b'"a\\ud800b"',
    "half-a-pair-at-the-end": b'"a\\udc00"',
    "long": msgspec.json.encode(LONG),
    "list": b'["a"]',
    "number": b"7",
}
CURRENCIES = {**TEXTS, "lower-case": b'"eur"', "two-letters": b'"EU"', "empty": b'""', "script": '"ЕUR"'.encode()}
MOMENTS = {
    **TEXTS,
    "before-christ": b'"-0044-03-15T12:00:00Z"',
    "year-1": b'"0001-01-01T00:00:00+23:59"',
    "year-9999": b'"9999-12-31T23:59:59-23:59"',
    "year-300000": b'"300000-01-01T00:00:00Z"',
    "without-a-zone": b'"2026-01-01T00:00:00"',
    "february-30": b'"2026-02-30T00:00:00Z"',
}
HERE = "«here»"
BY_NAME = "event-unreadable: "


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, webhooks={"retry_tiers_bug": "1s"}, fulfillment={}) as made:
        await shop.set_up(made, carriers=["sandbox", "easypost", "shippo"])
        yield made


@pytest.fixture(scope="module")
async def payment(world: World) -> Payment:
    return await world.a_captured_payment()


def variants(data: Any, fields: Mapping[str, Mapping[str, bytes]], *, inside: Callable[[Any], Any] = lambda data: data) -> dict[str, bytes]:
    """Write data once with each value of each field, in the part of it that `inside` finds."""
    written = {}
    for field, values in fields.items():
        copy = msgspec.json.decode(msgspec.json.encode(data))
        inside(copy)[field] = HERE
        for name, value in values.items():
            written[f"{field} {name}"] = msgspec.json.encode(copy).replace(msgspec.json.encode(HERE), value)
    return written


async def post(world: World, provider: str, body: bytes, *, event_id: str = "") -> None:
    """Post a genuine event of a provider."""
    headers = Outgoing(url="", secret=WEBHOOK_SECRET, style=STYLES[provider]).headers(Told(id=event_id or new_id().hex, type="", body=body))
    answer = await world.http.post(f"{world.webhooks_url}/api/v1/webhooks/{provider}", content=body, headers=headers)
    assert answer.status_code == 200, answer.text


async def outcomes(world: World, bodies: Collection[bytes]) -> dict[bytes, tuple[str, str]]:
    """Wait until events are settled or given up; gives how, and why, by what they were."""

    async def ended() -> dict[bytes, tuple[str, str]] | None:
        rows = await world.rows(
            """
            SELECT p.body, e.status, coalesce(e.last_error, '') AS last_error
              FROM webhooks.webhook_events e
              JOIN webhooks.webhook_payloads p ON p.event_id = e.id
             WHERE p.body = ANY($1) AND e.status IN ('processed', 'ignored', 'dead')
            """,
            list(bodies),
        )
        return {row["body"]: (row["status"], row["last_error"]) for row in rows} if len(rows) == len(bodies) else None

    found: dict[bytes, tuple[str, str]] = await until(ended)
    return found


async def all_end(world: World, provider: str, kind: str, data: Mapping[str, bytes]) -> dict[str, tuple[str, str]]:
    """Post events that hold these data all at once, and give how each ended."""
    bodies = {}
    for name, each in data.items():
        bodies[name] = STYLES[provider].event(f"evt_{new_id().hex}", kind, msgspec.Raw(each), "2026-01-01T00:00:00Z")
    await asyncio.gather(*(post(world, provider, body) for body in bodies.values()))
    found = await outcomes(world, set(bodies.values()))
    return {name: found[body] for name, body in bodies.items()}


def not_refused(found: Mapping[str, tuple[str, str]], *, or_else: str = "") -> dict[str, str]:
    """Those that were not refused by name, with what came of them instead."""
    return {
        name: f"{status}: {why}" for name, (status, why) in found.items() if status != or_else and (status != "dead" or BY_NAME not in why)
    }


def a_refund(payment: Payment, **changes: Any) -> Any:
    """A payment as the sandbox shows it, with a refund made in the dashboard besides."""
    shown = msgspec.to_builtins(payment.at_the_provider())
    refund = {"id": f"ref_{new_id().hex}", "kind": "refund", "status": "succeeded", "amount": 100, "created_at": shown["created_at"]}
    return {**shown, "operations": [*shown["operations"], {**refund, **changes}]}


def into_the_books(world: World, shown: Any) -> None:
    """Have the provider's books show what an event says, for news is read from there."""
    operation = msgspec.convert(shown["operations"][-1], Operation)
    world.sandbox.books.payments[shown["id"]].operations.append(operation)


class TestTheSandbox:
    async def test_an_operation_that_cannot_be_kept_is_refused(self, world: World, payment: Payment) -> None:
        fields = {
            "amount": AMOUNTS,
            "id": {**TEXTS, "empty": b'""', "null": b"null"},
            "reason": TEXTS,
            "decline_code": TEXTS,
            "kind": {**TEXTS, "unknown": b'"payout"'},
            "status": {**TEXTS, "unknown": b'"nearly"'},
            "next_action": {**TEXTS, "nul": b'{"type": "redirect", "url": "https://a\\u0000b"}'},
            # One that is only kept as it was told.
            "message": {"nul": TEXTS["nul"], "deep": b'[{"code": "a\\u0000b"}]', "over-64-bits": AMOUNTS["over-64-bits"]},
        }
        before = await world.ledger(payment.order_id)

        data = variants(a_refund(payment), fields, inside=lambda shown: shown["operations"][-1])
        found = await all_end(world, "sandbox", "payment.refund.succeeded", data)

        assert not_refused(found) == {}
        assert await world.ledger(payment.order_id) == before

    async def test_a_payment_that_cannot_be_kept_is_refused(self, world: World, payment: Payment) -> None:
        fields = {"currency": CURRENCIES, "created_at": MOMENTS, "authorization_expires_at": MOMENTS, "operations": TEXTS, "id": TEXTS}

        found = await all_end(world, "sandbox", "payment.refund.succeeded", variants(a_refund(payment), fields))

        assert not_refused(found) == {}

    async def test_a_refund_of_another_payment_is_parked_with_its_reason(self, world: World, payment: Payment) -> None:
        """What the provider names once is in the ledger once: only the database can tell."""
        refund, other = a_refund(payment), msgspec.to_builtins((await world.a_captured_payment()).at_the_provider())
        again = {**other, "operations": [*other["operations"], refund["operations"][-1]]}
        into_the_books(world, refund)
        into_the_books(world, again)

        first = await all_end(world, "sandbox", "payment.x", {"it": msgspec.json.encode(refund)})
        second = await all_end(world, "sandbox", "payment.x", {"it": msgspec.json.encode(again)})

        assert first["it"] == ("processed", "")
        assert second["it"][0] == "dead"
        assert "UniqueViolationError" in second["it"][1]

    async def test_the_most_there_is_is_taken(self, world: World, payment: Payment) -> None:
        most = a_refund(payment, amount=10**15, reason="r" * 1_000, id=f"{new_id().hex:r<255}")
        into_the_books(world, most)

        found = await all_end(world, "sandbox", "payment.x", {"it": msgspec.json.encode(most)})

        assert found["it"] == ("processed", "")
        assert (await payment.intent())["refunded_amount"] >= 10**15


class TestStripe:
    async def test_a_payment_that_cannot_be_kept_is_refused(self, world: World) -> None:
        """Where its own types (stripe-python, `PaymentIntent`) leave open what an integer or a text may be."""
        payment = await world.a_captured_payment()
        [reference, *_] = [t["id"] for t in await payment.transactions()]
        await world.change("UPDATE payments.payment_intents SET provider_account = 'stripe:default' WHERE id = $1", payment.id)
        shown = {
            "id": payment.at_the_provider().id,
            "object": "payment_intent",
            "amount": 10_000,
            "amount_received": 10_000,
            "currency": "eur",
            "status": "succeeded",
            "created": 1_767_225_600,
            "metadata": {"tender_reference": reference},
        }
        fields = {
            "amount": AMOUNTS,
            "amount_received": {name: value for name, value in AMOUNTS.items() if name != "nothing"},
            "currency": {name: value for name, value in CURRENCIES.items() if name != "lower-case"},
            "created": {**AMOUNTS, "nothing": b"-62135596801", "year-300000": b"9404000000000"},
        }

        found = await all_end(world, "stripe", "payment_intent.succeeded", variants(shown, fields))

        assert not_refused(found) == {}

    @pytest.mark.parametrize("kind", ["charge.dispute.created", "refund.created", "refund.failed", "charge.refund.updated"])
    async def test_strangers_refunds_and_disputes_are_ignored_at_once(self, world: World, kind: str) -> None:
        """C42, F15: whoever else uses the account is not waited for; before, for three days each."""
        thing = {"id": "re_1", "object": "refund", "amount": 500, "currency": "eur", "status": "succeeded", "created": 1_767_225_600}

        found = await all_end(world, "stripe", kind, {"it": msgspec.json.encode({**thing, "payment_intent": "pi_stranger"})})

        assert found["it"][0] == "ignored"


class TestCarriers:
    """A parcel that is not ours is ignored, one that is and cannot be kept is refused: neither is a crash."""

    async def test_a_scan_of_the_sandbox_that_cannot_be_kept_is_refused(self, world: World) -> None:
        scan = {"status": "in_transit", "code": "arrived", "detail": "Arrived", "location": "Berlin", "sequence": 1}
        data = {"tracking_number": "SB1", "scan": {**scan, "occurred_at": "2026-01-01T00:00:00Z"}}
        times = {name: value for name, value in MOMENTS.items() if name != "without-a-zone"}
        moments = variants(data, {"occurred_at": times}, inside=lambda shown: shown["scan"])

        found = await all_end(world, "sandbox-carrier", "parcel.moved", {**moments, **variants(data, {"tracking_number": TEXTS})})

        assert not_refused(found) == {}

    async def test_a_scan_is_read_without_what_cannot_be_kept(self, world: World) -> None:
        """F9 (d): a text that is too long, or an estimate that is no time, does not cost the scan."""
        scan = {"status": "in_transit", "code": "arrived", "detail": "Arrived", "location": "Berlin", "sequence": 1}
        data = {"tracking_number": "SB2", "scan": {**scan, "occurred_at": "2026-01-01T00:00:00Z"}}
        fields = {**dict.fromkeys(("code", "detail", "location"), TEXTS), "estimated_delivery": MOMENTS, "sequence": AMOUNTS}

        found = await all_end(world, "sandbox-carrier", "parcel.moved", variants(data, fields, inside=lambda shown: shown["scan"]))

        assert not_refused(found, or_else="ignored") == {}
        assert found["detail long"][0] == found["detail nul"][0] == found["estimated_delivery february-30"][0] == "ignored"

    async def test_an_easypost_tracker_never_fails_us(self, world: World) -> None:
        detail = {"object": "TrackingDetail", "message": "Arrived", "status": "in_transit", "datetime": "2026-01-01T00:00:00Z"}
        tracker = {"object": "Tracker", "tracking_code": "EZ1", "est_delivery_date": None, "tracking_details": [detail]}
        inner = {"datetime": MOMENTS, "status": TEXTS, "message": TEXTS}

        found = await all_end(
            world,
            "easypost",
            "tracker.updated",
            {
                **variants(tracker, inner, inside=lambda shown: shown["tracking_details"][0]),
                **variants(tracker, {"tracking_code": TEXTS, "est_delivery_date": MOMENTS}),
            },
        )

        assert not_refused(found, or_else="ignored") == {}

    async def test_a_shippo_track_never_fails_us(self, world: World) -> None:
        seen = {"status": "TRANSIT", "status_details": "Arrived", "status_date": "2026-01-01T00:00:00Z"}
        track = {"tracking_number": "SH1", "eta": None, "tracking_history": [seen]}
        inner = {"status_date": MOMENTS, "status": TEXTS, "status_details": TEXTS}

        found = await all_end(
            world,
            "shippo",
            "track_updated",
            {
                **variants(track, inner, inside=lambda shown: shown["tracking_history"][0]),
                **variants(track, {"tracking_number": TEXTS, "eta": MOMENTS}),
            },
        )

        assert not_refused(found, or_else="ignored") == {}


class TestTheEventItself:
    async def test_with_a_name_that_cannot_be_kept_is_kept_once(self, world: World) -> None:
        facts = {"id": "evt_x", "type": "customer.created"}
        bodies = [
            msgspec.json.encode({**facts, field: value, "data": {"object": {"id": new_id().hex}}})
            for field in ("id", "type")
            for value in (NUL, LONG, "é" * 10_000)
        ]

        # Those that differ in their type alone are one event, whose first telling is kept.
        for body in [*bodies, *bodies]:
            await post(world, "stripe", body)

        rows = await world.rows("SELECT body FROM webhooks.webhook_payloads WHERE body = ANY($1)", bodies)
        assert {row["body"] for row in rows} == set(bodies[:4])
        assert {status for status, _ in (await outcomes(world, set(bodies[:4]))).values()} == {"ignored"}

    async def test_whatever_it_holds_is_kept_and_parked_alone(self, world: World) -> None:
        begins = b'{"type": "payment.x", "data": '
        bodies = [
            begins + b'{}, "created_at": "9999-12-31T23:59:59-23:59"}',
            begins + b'{}, "created_at": "0001-01-01T00:00:00+23:59"}',
            begins + b'{}, "created": 1e300}',
            begins + b'{}, "created": -99999999999999999999}',
            begins + b"[" * 50_000 + b"]" * 50_000 + b"}",
            begins + b'"',
            b"\xff\xfe\x00",
            b"[]",
            b"null",
        ]

        for body in bodies:
            await post(world, "sandbox", body)

        found = await outcomes(world, bodies)
        assert not_refused({str(body[:80]): found[body] for body in bodies}) == {}
