"""Bad input of every kind gets a problem+json that says which field and why, and nothing is written."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
import pytest

from services.gateway.domain import Role
from shared.ids import new_id
from tests.leaks import kept_in
from tests.world import MUG, ORDER, Answer, World

FIELDS: list[tuple[str, Any, str]] = [
    ("unknown field", {**ORDER, "colour": "red"}, "colour"),
    ("a float for money", {**ORDER, "shipping_amount": 4.9}, "shipping_amount"),
    ("a string for money", {**ORDER, "shipping_amount": "490"}, "shipping_amount"),
    ("a negative amount", {**ORDER, "shipping_amount": -1}, "shipping_amount"),
    ("an amount beyond all sense", {**ORDER, "shipping_amount": 10**16}, "shipping_amount"),
    ("no items", {**ORDER, "items": []}, "items"),
    ("an item without a price", {**ORDER, "items": [{k: v for k, v in MUG.items() if k != "unit_price"}]}, "unit_price"),
    ("a quantity of nothing", {**ORDER, "items": [{**MUG, "quantity": 0}]}, "quantity"),
    ("a variant that is no UUID", {**ORDER, "items": [{**MUG, "product_variant_id": "mug"}]}, "product_variant_id"),
    ("a currency in small letters", {**ORDER, "currency": "eur"}, "currency"),
    ("a tax rate that is no decimal", {**ORDER, "tax_lines": [{"jurisdiction": "DE", "rate_percent": "x", "amount": 1}]}, "rate_percent"),
]


class TestFields:
    @pytest.mark.parametrize(("what", "content", "field"), FIELDS, ids=[f[0] for f in FIELDS])
    async def test_names_the_field_and_why(self, world: World, what: str, content: Any, field: str) -> None:
        order_id = new_id()

        answer = await world.put_order(order_id, content)

        assert (answer.status, answer.code, answer.json["outcome"]) == (422, "invalid-request", "not_attempted")
        assert field in answer.json["detail"], answer
        assert answer.json["errors"][0]["reason"]
        assert await _written(world, order_id) == (0, 0)

    async def test_refuses_a_currency_that_is_none(self, world: World) -> None:
        answer = await world.put_order(new_id(), {**ORDER, "currency": "XQZ"})

        assert (answer.status, answer.code) == (422, "unknown-currency")

    async def test_refuses_a_currency_without_minor_units(self, world: World) -> None:
        answer = await world.put_order(new_id(), {**ORDER, "currency": "XAU"})

        assert (answer.status, answer.code) == (422, "unknown-currency")

    async def test_refuses_more_discount_than_price(self, world: World) -> None:
        answer = await world.put_order(new_id(), {**ORDER, "items": [{**MUG, "adjustments": [{"label": "x", "amount": 10_001}]}]})

        assert (answer.status, answer.json["field"]) == (422, "$.items[0].adjustments")

    async def test_refuses_tax_on_a_line_that_is_not_there(self, world: World) -> None:
        tax = {"jurisdiction": "DE", "rate_percent": "19", "amount": 1, "line": 7}

        answer = await world.put_order(new_id(), {**ORDER, "tax_lines": [tax]})

        assert (answer.status, answer.json["field"]) == (422, "$.tax_lines[0].line")

    @pytest.mark.parametrize("token", ["4242424242424242", "4242 4242 4242 4242", "5555-5555-5555-4444"])
    async def test_refuses_a_card_number_and_keeps_it_nowhere(self, world: World, token: str) -> None:
        """A kept command is sealed: the number is not found in it, so there must be no command."""
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)

        key = new_id().hex
        answer = await world.authorize(order_id, snapshot_id, token, key=key)

        assert (answer.status, answer.code) == (422, "card-number-refused")
        assert await world.rows("SELECT FROM gateway.idempotency_keys WHERE idempotency_key = $1", key) == []
        assert await kept_in(world.place, token) == []


_MUG = msgspec.json.encode(MUG)

BODIES = [
    ("truncated JSON", b'{"currency":'),
    ("no JSON at all", b"currency=EUR"),
    ("NaN", b'{"currency":"EUR","items":[],"shipping_amount":NaN}'),
    ("a wrong charset", '{"currency":"EUR","note":"é"}'.encode("latin-1")),
    ("an empty body", b""),
    ("a list", b"[]"),
    ("deep nesting", b'{"items":' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
    ("a key twice", b'{"currency":"EUR","currency":"USD","items":[%s]}' % _MUG),
    ("a key twice, further in", b'{"currency":"EUR","items":[%s]}' % _MUG.replace(b'"name"', b'"quantity":1,"name"')),
    ("a key twice, spelt otherwise", b'{"currency":"EUR","c\\u0075rrency":"USD","items":[%s]}' % _MUG),
    ("NUL in a text", msgspec.json.encode({**ORDER, "items": [{**MUG, "name": "M\x00g"}]})),
    ("half a character", b'{"currency":"EUR","items":[%s]}' % _MUG.replace(b'"Mug"', b'"M\\ud800g"')),
    ("a number without end", b'{"currency":"EUR","items":[],"shipping_amount":1e400}'),
    ("a number of thousands of digits", b'{"currency":"EUR","items":[],"shipping_amount":' + b"9" * 5_000 + b"}"),
    ("compressed", gzip.compress(msgspec.json.encode(ORDER))),
]


class TestBodies:
    @pytest.mark.parametrize(("what", "content"), BODIES, ids=[b[0] for b in BODIES])
    async def test_is_refused_as_what_it_is(self, world: World, what: str, content: bytes) -> None:
        order_id = new_id()

        answer = await world.send("PUT", f"/api/v1/admin/orders/{order_id}", content=content)

        assert answer.status in (400, 422), answer
        assert answer.json["detail"]
        assert answer.json["outcome"] == "not_attempted"
        assert await _written(world, order_id) == (0, 0)

    @pytest.mark.parametrize(("what", "content"), [b for b in BODIES if b[1]], ids=[b[0] for b in BODIES if b[1]])
    async def test_is_refused_or_left_alone_where_none_is_asked_for(self, world: World, what: str, content: bytes) -> None:
        payment = await world.a_payment()
        headers = {"Authorization": f"Bearer {world.keys[Role.ADMIN]}", "Idempotency-Key": new_id().hex, "Content-Type": "application/json"}

        url = f"{world.gateway_url}/api/v1/admin/orders/{payment.order_id}/payments/{payment.id}/void"
        answer = Answer(await world.http.post(url, content=content, headers=headers))

        assert answer.status in (201, 400, 422), answer
        assert (await payment.intent())["status"] == ("voided" if answer.status == 201 else "authorized")

    @pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/json; charset=iso-8859-1", ""])
    async def test_of_another_kind_is_refused_or_read_as_the_json_it_is(self, world: World, kind: str) -> None:
        order_id = new_id()

        answer = await world.send(
            "PUT", f"/api/v1/admin/orders/{order_id}", content=msgspec.json.encode(ORDER), headers={"Content-Type": kind}
        )

        assert answer.status in (200, 400, 415, 422), answer

    async def test_ten_mebibytes_are_413_whether_told_or_not(self, world: World) -> None:
        whole = b"[" + b" " * (10 * 1024 * 1024) + b"]"

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(whole), 64 * 1024):
                yield whole[start : start + 64 * 1024]

        told = await world.send("PUT", f"/api/v1/admin/orders/{new_id()}", content=whole)
        untold = await world.send("PUT", f"/api/v1/admin/orders/{new_id()}", content=chunks())

        assert [(a.status, a.code) for a in (told, untold)] == [(413, "body-too-large")] * 2
        # The framework has no words for it but Python's phrase, which depends on the version; this is RFC 9110's (15.5.14).
        assert {(a.json["title"], a.json["detail"]) for a in (told, untold)} == {("Content Too Large", "Content Too Large")}

    async def test_a_body_over_the_limit_is_413(self, world: World) -> None:
        answer = await world.send("PUT", f"/api/v1/admin/orders/{new_id()}", content=b"[" + b" " * 300_000 + b"]")

        assert (answer.status, answer.code) == (413, "body-too-large")

    @pytest.mark.parametrize("length", ["ten", "-1", "+2", "1.5", "0x2", "99999999999999999999999", ""])
    async def test_whose_length_is_no_number_is_refused_before_it_is_read(self, world: World, length: str) -> None:
        url = urlsplit(world.gateway_url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)

        writer.write(f"PUT /api/v1/admin/orders/{new_id()} HTTP/1.1\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n{{}}".encode())
        answer = await reader.read()
        writer.close()

        assert answer.startswith(b"HTTP/1.1 400 "), answer


class TestRoutes:
    async def test_an_unknown_route_is_404(self, world: World) -> None:
        answer = await world.send("GET", "/api/v1/nothing")

        assert (answer.status, answer.code) == (404, "no-such-route")
        assert answer.headers["content-type"] == "application/problem+json"

    async def test_a_wrong_method_is_405_and_says_which_are_right(self, world: World) -> None:
        answer = await world.send("DELETE", "/api/v1/checkout/quote")

        assert (answer.status, answer.code) == (405, "method-not-allowed")
        assert "POST" in answer.headers["Allow"]

    async def test_an_id_that_is_no_uuid_is_404(self, world: World) -> None:
        answer = await world.put_order("mug", ORDER)  # type: ignore[arg-type]

        assert answer.status == 404

    async def test_a_limit_that_is_no_number_is_named(self, world: World) -> None:
        token = (await world.send("POST", f"/api/v1/admin/customers/{new_id()}/token")).json["token"]

        answer = await world.send("GET", "/api/v1/me/orders?limit=many", token=token)

        assert answer.status == 422
        assert "limit" in answer.json["detail"]

    async def test_every_answer_bears_the_correlation_id(self, world: World) -> None:
        given = await world.send("GET", "/api/v1/nothing", headers={"X-Correlation-Id": "checkout-42"})
        made = await world.send("GET", "/api/v1/nothing", headers={"X-Correlation-Id": "c" * 129})

        assert (given.headers["X-Correlation-Id"], given.json["correlation_id"]) == ("checkout-42", "checkout-42")
        assert made.json["correlation_id"] not in ("", "c" * 129)

    async def test_the_documentation_needs_nothing_from_elsewhere(self, world: World) -> None:
        page = await world.http.get("/docs")

        assert page.status_code == 200
        assert "authorize" in page.text
        assert "http://" not in page.text.replace(world.gateway_url, "")
        assert "https://" not in page.text
        assert "<script" not in page.text


async def _written(world: World, order_id: object) -> tuple[int, int]:
    orders = await world.rows("SELECT FROM payments.orders WHERE id = $1", order_id)
    keys = await world.rows("SELECT FROM gateway.idempotency_keys WHERE position($1::bytea in command) > 0", str(order_id).encode())
    return len(orders), len(keys)


HEADERS = [
    ("Idempotency-Key", "k" * 300, 400, "idempotency-key-malformed"),
    ("Idempotency-Key", "tab\tin it", 400, "idempotency-key-malformed"),
    ("Idempotency-Key", "ключ".encode(), 400, "idempotency-key-malformed"),
    ("Idempotency-Key", '""', 400, "idempotency-key-malformed"),
    ("If-Match", '"seven"', 400, "header-malformed"),
    ("If-Match", "99999999999999999999", 400, "header-malformed"),
    ("If-Match", "٣".encode(), 400, "header-malformed"),
    ("Prefer", "wait=-1", 400, "header-malformed"),
    ("Prefer", "wait=1.5", 400, "header-malformed"),
    ("Prefer", "wait=²".encode(), 400, "header-malformed"),
    ("Authorization", "Bearer", 401, "unauthenticated"),
    ("Authorization", "Basic dXNlcjpwYXNz", 401, "unauthenticated"),
    ("Authorization", "Bearer " + "x" * 5_000, 401, "unauthenticated"),
    ("Authorization", "Bearer tok_e30.AAAA", 401, "unauthenticated"),
    ("Authorization", "Bearer tok_ÿ.ÿ".encode(), 401, "unauthenticated"),
    ("Authorization", "Bearer tender_sandbox_0192f0c17e0070008000000000000001_x", 401, "unauthenticated"),
]


class TestHeaders:
    @pytest.mark.parametrize(("name", "value", "status", "code"), HEADERS, ids=[f"{h[0]} {h[1]!r:.24}" for h in HEADERS])
    async def test_that_cannot_be_read_are_said(self, world: World, name: str, value: Any, status: int, code: str) -> None:
        order_id = new_id()

        answer = await world.send("PUT", f"/api/v1/admin/orders/{order_id}", ORDER, headers={name: value})

        assert (answer.status, answer.code, answer.json["outcome"]) == (status, code, "not_attempted")
        assert await _written(world, order_id) == (0, 0)


# Without their offsets before the year 1 and after 9999, which neither Python nor the services' databases can say in UTC.
TIMELESS = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]


class TestMoments:
    @pytest.mark.parametrize("moment", TIMELESS)
    async def test_that_no_clock_shows_are_refused_wherever_they_are_given(self, world: World, moment: str) -> None:
        query = urlencode({"since": moment, "until": moment})
        period = {"since": moment, "until": moment}

        answers = [
            await world.send("GET", f"/api/v1/admin/webhooks/events?{query}"),
            await world.send("GET", f"/api/v1/admin/reconciliation/unsettled?provider=sandbox&{query}"),
            await world.send("POST", "/api/v1/admin/reconciliation/runs", {"domain": "payments", "provider": "sandbox", **period}),
            await world.send("POST", "/api/v1/admin/webhooks/events/replay", period),
            await world.send("POST", f"/api/v1/admin/webhook-endpoints/{new_id()}/recover", {"since": moment}),
        ]

        assert [(answer.status, answer.json.get("field")) for answer in answers] == [(422, "since")] * len(answers), answers
