"""What is secret or personal is planted and looked for: in commands, rows of keys, logs, audits and errors there is none of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aio_pika
import msgspec
import pytest

from deploy.sandbox.webhooks import Told
from services.gateway.domain import Role
from shared import topology
from shared.ids import new_id
from tests.fulfillment import shop
from tests.planted import API_KEY_HEADER, ENDPOINT_TOKEN
from tests.world import SANDBOX_KEY, Place, World, a_world, patiently

TOKEN = f"pm_card_visa_{new_id().hex}"
NAME, STREET, VAT_ID = f"Planted {new_id().hex}", f"Hidden Lane {new_id().hex}", "DE123456788"
SECRET = f"sk_test_{new_id().hex}"
PLANTED = {"token": TOKEN, "name": NAME, "street": STREET, "vat id": VAT_ID, "credential": SECRET, "provider key": SANDBOX_KEY}
ADDRESS = {**shop.MUNICH, "name": NAME, "street_address": STREET}


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}, webhooks={}, reconciler={}) as made:
        await shop.set_up(made)
        yield made


@contextlib.asynccontextmanager
async def tapped(place: Place) -> AsyncIterator[list[tuple[str, bytes, str]]]:
    """Every command, query and event that is sent while inside: type, body, headers."""
    seen: list[tuple[str, bytes, str]] = []
    connection = await aio_pika.connect(place.amqp_url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(f"tap-{new_id().hex}", exclusive=True)
        for exchange in (topology.COMMANDS, topology.EVENTS):
            await queue.bind(exchange, routing_key="#")

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            seen.append((message.type or "", message.body, str(message.headers)))

        await queue.consume(take, no_ack=True)
        yield seen


async def a_life(world: World) -> None:
    """An order, its quote, a payment that is refused and one that is made, a label's rates, a credential, and requests gone wrong."""
    order_id = new_id()
    content = {"currency": "EUR", "items": [shop.MUG], "shipping_address": ADDRESS, "billing_address": ADDRESS, "vat_id": VAT_ID}
    assert (await world.put_order(order_id, content)).status == 200
    snapshot_id = await world.a_snapshot(order_id)
    refused = await patiently(lambda: world.authorize(order_id, snapshot_id, TOKEN, key="planted"))
    assert refused.status >= 400, refused
    submitted = {"payment_method": TOKEN}
    await world.send("POST", f"/api/v1/checkout/orders/{order_id}/submit-payment", submitted)
    assert (await world.authorize(order_id, await world.a_snapshot(order_id))).status == 201
    await world.send("POST", f"/api/v1/checkout/orders/{order_id}/shipping/rates", {"packages": []})
    given = {"fields": {"api_key": SECRET}}
    assert (await world.send("PUT", "/api/v1/admin/providers/stripe/credentials", given)).status == 200
    await world.send("POST", "/api/v1/admin/providers/stripe/credentials/verify", {})
    await world.send("PUT", "/api/v1/admin/providers/stripe/credentials", {"fields": {"api_key": SECRET, "colour": "red"}})
    await world.send("PUT", "/api/v1/admin/providers/stripe/credentials", content=b'{"fields": {"api_key": "' + SECRET.encode() + b'"')


def found(text: str | bytes, *names: str) -> list[str]:
    """Which of what was planted is in a text, as it is or as rows show bytes."""
    raw = text if isinstance(text, bytes) else text.encode()
    return [name for name in names or PLANTED if PLANTED[name].encode() in raw or PLANTED[name].encode().hex().encode() in raw]


async def rows_of(world: World, *schemas: str) -> Iterator[tuple[str, str]]:
    tables = await world.rows("SELECT schemaname AS s, tablename AS t FROM pg_tables WHERE schemaname = ANY($1)", list(schemas))
    kept = [(f"{each['s']}.{each['t']}", await world.rows(f"SELECT t::text AS row FROM {each['s']}.{each['t']} t")) for each in tables]
    return iter([(name, row["row"]) for name, rows in kept for row in rows])


async def test_nothing_that_was_planted_lies_anywhere_in_the_clear(
    world: World, place: Place, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async with tapped(place) as messages:
        await a_life(world)
        await asyncio.sleep(0)

    assert [kind for kind, body, headers in messages if found(body) or found(headers)] == []
    assert {"payments.authorize.v1", "fulfillment.price.v1", "fulfillment.quote_rates.v1"} <= {kind for kind, _, _ in messages}
    # Keys with their commands and answers, and what the reconciler and webhooks keep.
    in_rows = [(table, found(row)) for table, row in await rows_of(world, "gateway", "webhooks", "reconciler") if found(row)]
    assert in_rows == []
    # Payments and fulfillment know whom they ship to; of tokens and keys they keep nothing in the clear either.
    secrets = ("token", "credential", "provider key")
    in_rows = [(table, found(row, *secrets)) for table, row in await rows_of(world, "payments", "fulfillment") if found(row, *secrets)]
    assert in_rows == []
    out, err = capfd.readouterr()
    assert found(caplog.text + out + err) == []


async def test_a_token_in_an_endpoints_url_is_sealed_on_its_way(world: World, place: Place) -> None:
    """Red team 120: in the inbox, the audit and the broker's files; the scan after this module looks there."""
    url = f"https://user-agent.shop-of-the-tests.com/hook/{ENDPOINT_TOKEN}?token={ENDPOINT_TOKEN}"
    async with tapped(place) as messages:
        made = await world.send("POST", "/api/v1/admin/webhook-endpoints", {"url": url})
        changed = await world.send("PUT", f"/api/v1/admin/webhook-endpoints/{made.json['id']}", {"url": url, "enabled": False})

    assert (made.status, changed.status, changed.json["url"]) == (200, 200, url)
    assert [kind for kind, body, _ in messages if ENDPOINT_TOKEN.encode() in body] == []
    [audited, _] = await world.rows("SELECT after::text FROM webhooks.admin_audit WHERE subject = $1", made.json["id"])
    assert "https://user-agent.shop-of-the-tests.com" in audited["after"]


async def test_other_headers_of_a_webhook_are_not_kept(world: World) -> None:
    body = msgspec.json.encode({"id": new_id().hex, "type": "customer.created", "data": {}})
    told = Told(id=new_id().hex, type="customer.created", body=body)
    headers = {**world.outgoing.headers(told), "X-Api-Key": API_KEY_HEADER, "Webhook-Token": API_KEY_HEADER}

    genuine = await world.http.post(f"{world.webhooks_url}/api/v1/webhooks/sandbox", content=body, headers=headers)
    forged = await world.http.post(f"{world.webhooks_url}/api/v1/webhooks/sandbox", content=b"{}", headers=headers)

    assert (genuine.status_code, forged.status_code) == (200, 401)
    [kept] = await world.rows("SELECT headers::text FROM webhooks.webhook_payloads WHERE body = $1", body)
    assert "webhook-signature" in kept["headers"]
    assert API_KEY_HEADER not in kept["headers"]


async def test_a_replay_is_still_byte_for_byte_the_same(world: World) -> None:
    order_id, key = new_id(), new_id().hex
    content = {"currency": "EUR", "items": [shop.MUG], "shipping_address": ADDRESS}

    first = await world.put_order(order_id, content, key=key)
    second = await world.put_order(order_id, content, key=key)

    assert (first.status, second.headers["idempotent-replayed"]) == (200, "true")
    assert first.content == second.content
    assert first.json["content"]["shipping_address"]["street_address"] == STREET
    operation = await world.send("GET", f"/api/v1/operations/{first.headers['operation-id']}")
    assert operation.json["response"]["body"] == msgspec.json.decode(first.content)


async def test_answers_open_with_the_secret_before(own_place: Place) -> None:
    order_id, key = new_id(), new_id().hex
    content = {"currency": "EUR", "items": [shop.MUG], "shipping_address": ADDRESS, "shipping_amount": 0, "tax_lines": []}
    async with a_world(own_place) as world:
        first = await world.put_order(order_id, content, key=key)
        keys, token = world.keys, await _a_token(world, order_id)
    before = {"token_secret": "another", "token_secret_before": "what-the-tests-sign-their-tokens-with"}
    async with a_world(own_place, gateway=before) as again:
        again.keys = keys
        second = await again.put_order(order_id, content, key=key)
        read = await again.send("POST", "/api/v1/checkout/quote", {"order_id": str(order_id)}, token=token)

    assert first.content == second.content
    assert read.status == 201


async def _a_token(world: World, order_id: Any) -> str:
    answer = await world.send("POST", f"/api/v1/admin/orders/{order_id}/checkout-token", role=Role.ADMIN)
    assert answer.status == 201, answer
    return str(answer.json["token"])
