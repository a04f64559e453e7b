"""Credentials over the API: taken in sealed, used, rotated and retired; of the secret itself nobody sees anything again."""

import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from services.gateway.domain import Role
from shared.contracts.credentials import place_of
from shared.ids import new_id
from shared.messages import Environment
from shared.vault import BrokenSeal, Sealed, Vault
from tests.fulfillment import shop
from tests.world import (
    PRIVATE_KEYS,
    SANDBOX_KEY,
    Answer,
    Place,
    World,
    a_key,
    a_world,
    until,
)

PATH = "/api/v1/admin/providers"


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}, webhooks={}) as made:
        await shop.set_up(made)
        yield made


async def put(world: World, provider: str, fields: Any, **how: Any) -> Answer:
    use = {"use": how.pop("use")} if "use" in how else {}
    return await world.send("PUT", f"{PATH}/{provider}/credentials", {"fields": fields, **use}, **how)


async def there(world: World, provider: str, **how: Any) -> list[Any]:
    answer = await world.send("GET", f"{PATH}/{provider}/credentials", **how)
    assert answer.status == 200, answer
    return list(answer.json["credentials"])


async def verify(world: World, provider: str, **body: Any) -> Any:
    answer = await world.send("POST", f"{PATH}/{provider}/credentials/verify", body)
    assert answer.status == 200, answer
    return answer.json


async def whole_database(world: World) -> str:
    """Everything that every table holds, as text."""
    tables = await world.rows(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('gateway', 'payments', 'webhooks', 'fulfillment', 'reconciler')"
    )
    texts = []
    for table in tables:
        rows = await world.rows(f"SELECT t::text AS row FROM {table['schemaname']}.{table['tablename']} t")
        texts += [row["row"] for row in rows]
    return "\n".join(texts)


async def test_given_shown_tried_and_retired_without_the_secret_being_seen(world: World, caplog: pytest.LogCaptureFixture) -> None:
    secret = f"sk_test_{new_id().hex}{new_id().hex}"

    given = await put(world, "stripe", {"api_key": secret, "multicapture": "true"})
    tried = await verify(world, "stripe")
    shown = await there(world, "stripe")
    retired = await world.send("DELETE", f"{PATH}/stripe/credentials")

    assert (given.status, given.json["version"], given.json["active"]) == (200, 1, True)
    # The sandbox knows no such key.
    assert (tried["result"], tried["fingerprint"]) == ("rejected", given.json["fingerprint"])
    assert [(c["use"], c["version"], c["fingerprint"], c["active"]) for c in shown] == [("payments", 1, given.json["fingerprint"], True)]
    assert [c["active"] for c in retired.json["credentials"]] == [False]
    seen = [given.content, str(tried).encode(), str(shown).encode(), retired.content]
    # As it is, and as rows show bytes.
    for form in (secret, secret.encode().hex()):
        assert not [text for text in seen if form.encode() in text]
        assert form not in caplog.text
        assert form not in await whole_database(world)
    audit = await world.rows("SELECT action, before, after FROM payments.admin_audit WHERE subject = 'payments/stripe' ORDER BY id")
    assert [row["action"] for row in audit] == ["credential.put", "credential.verify", "credential.retire"]


async def test_a_store_pays_with_its_own_account_and_what_began_before_ends_with_the_other(world: World) -> None:
    before = await world.a_payment()

    given = await put(world, "sandbox", {"api_key": SANDBOX_KEY}, use="payments")
    tried = await verify(world, "sandbox", use="payments")
    after = await world.a_payment()
    captured = [await payment.capture() for payment in (before, after)]
    await world.send("DELETE", f"{PATH}/sandbox/credentials?use=payments")

    assert (given.status, tried["result"]) == (200, "accepted")
    assert [answer.status for answer in captured] == [201, 201]
    rows = await world.rows(
        "SELECT id, provider_account FROM payments.payment_intents WHERE id = ANY($1) ORDER BY created_at", [before.id, after.id]
    )
    assert [row["provider_account"] for row in rows] == ["sandbox:default", f"sandbox:sandbox:{world.store_id}"]


async def test_two_are_active_while_one_replaces_the_other(world: World) -> None:
    versions = [(await put(world, "shippo", {"api_key": f"shippo_test_{n}"})).json["version"] for n in range(3)]

    shown = await there(world, "shippo")

    assert versions == [1, 2, 3]
    assert [(c["version"], c["active"]) for c in shown if c["use"] == "shipping"] == [(3, True), (2, True), (1, False)]


async def test_webhooks_are_taken_with_the_old_secret_and_the_new(world: World) -> None:
    """A provider goes over to a new secret at a moment of its own."""
    first, second = f"whsec_{new_id().hex}", f"whsec_{new_id().hex}"
    path = f"/api/v1/webhooks/stripe/{world.store_id}"

    async def taken(secret: str) -> int:
        body, at = f'{{"id": "evt_{new_id().hex}", "type": "customer.created", "data": {{}}}}', int(time.time())
        # docs.stripe.com/webhooks/signatures
        signature = hmac.new(secret.encode(), f"{at}.{body}".encode(), hashlib.sha256).hexdigest()
        headers = {"Stripe-Signature": f"t={at},v1={signature}"}
        return (await world.http.post(f"{world.webhooks_url}{path}", content=body, headers=headers)).status_code

    assert await taken(first) == 401
    await put(world, "stripe", {"secret": first}, use="webhooks")
    await until(lambda: _is(taken(first), 200))
    await put(world, "stripe", {"secret": second}, use="webhooks")
    await until(lambda: _is(taken(second), 200))
    assert await taken(first) == 200
    await world.send("DELETE", f"{PATH}/stripe/credentials?use=webhooks&version=1")
    await until(lambda: _is(taken(first), 401))
    assert await taken(second) == 200


async def _is(asked: Any, status: int) -> bool:
    return bool(await asked == status)


@pytest.mark.parametrize(
    ("provider", "fields", "more", "code", "field"),
    [
        ("stripe", {"secret_key": "x"}, {}, "credential-unfit", "fields.api_key"),
        ("stripe", {"api_key": "sk_test_x", "colour": "red"}, {}, "credential-unfit", "fields.colour"),
        ("stripe", {"api_key": "sk_live_x"}, {}, "wrong-environment", None),
        ("easypost", {"api_key": "EZAKx"}, {}, "wrong-environment", None),
        ("sandbox", {"api_key": "x"}, {}, "invalid-request", "use"),
        ("stripe", {"api_key": "x"}, {"use": "tax"}, "invalid-request", "use"),
    ],
)
async def test_what_is_no_credential_is_refused(world: World, provider: str, fields: Any, more: Any, code: str, field: str | None) -> None:
    answer = await put(world, provider, fields, **more)

    assert (answer.status, answer.code, answer.json.get("field")) == (422, code, field)


async def test_providers_that_need_none_are_not_there(world: World) -> None:
    assert (await put(world, "table_rate", {"api_key": "x"})).status == 404
    assert (await world.send("GET", f"{PATH}/nobody/credentials")).status == 404
    assert (await world.send("DELETE", f"{PATH}/avalara/credentials")).status == 404


class TestTheSandboxTouchesNothingOfProduction:
    async def test_over_the_api(self, world: World, place: Place) -> None:
        live = await a_key(place, world.store_id, Role.ADMIN, Environment.PRODUCTION)
        given = await put(world, "easypost", {"api_key": "EZAK_live"}, token=live)
        refused = await put(world, "easypost", {"api_key": "EZTK_test"}, token=live)
        sandboxed = await put(world, "sandbox", {"api_key": "x"}, use="shipping", token=live)

        assert (given.status, refused.code, sandboxed.code) == (200, "wrong-environment", "wrong-environment")
        assert len(await there(world, "easypost", token=live)) == 1
        assert await there(world, "easypost") == []
        assert (await world.send("DELETE", f"{PATH}/easypost/credentials")).status == 404
        assert (await world.send("POST", f"{PATH}/easypost/credentials/verify", {})).status == 404

    async def test_in_messages(self, world: World, place: Place) -> None:
        """A command of the sandbox finds no adapter made of a production credential, nor the other way round."""
        live = await a_key(place, world.store_id, Role.ADMIN, Environment.PRODUCTION)
        await put(world, "stripe", {"api_key": "sk_live_real"}, token=live)
        order_id = new_id()
        await world.put_order(order_id, {"currency": "EUR", "items": [shop.MUG], "shipping_amount": 0, "tax_lines": []}, token=live)

        by_stripe = await world.quote(order_id, token=live)
        named = await world.send("POST", "/api/v1/checkout/quote", {"order_id": str(order_id), "payment_provider": "stripe"}, token=live)

        # The sandbox provider is configured for the sandbox environment alone.
        assert (by_stripe.status, by_stripe.code) == (422, "provider-not-configured")
        assert named.status == 201
        calls = await world.rows("SELECT environment FROM payments.provider_call_audit WHERE environment = 'production'")
        assert calls == []

    async def test_in_the_database(self, world: World) -> None:
        """A row that is moved to another place does not open there."""
        await put(world, "taxjar", {"api_key": "taxjar-secret"})
        [row] = await world.rows("SELECT * FROM fulfillment.provider_credentials WHERE provider = 'taxjar'")
        vault, sealed = Vault(PRIVATE_KEYS["fulfillment"]), Sealed(row["key_version"], row["sealed"])
        own = (row["store_id"], "sandbox", "taxjar", "tax")

        assert b"taxjar-secret" in vault.open(sealed, info=place_of(*own))
        for elsewhere in ((new_id(), *own[1:]), (own[0], "production", *own[2:]), (*own[:2], "avalara", "tax"), (*own[:3], "shipping")):
            with pytest.raises(BrokenSeal):
                vault.open(sealed, info=place_of(*elsewhere))


class TestKeyMaterial:
    async def test_the_sandbox_alone_keeps_no_credentials_and_knows_no_production(self, own_place: Place) -> None:
        alone = {"vault_keys": "", "sandbox_only": True}
        async with a_world(own_place, payments=alone, gateway={"sandbox_only": True, "vault_public_keys": ""}) as world:
            live = await a_key(own_place, world.store_id, Role.ADMIN, Environment.PRODUCTION)

            refused = await put(world, "stripe", {"api_key": "sk_test_x"})
            turned_away = await world.send("GET", f"/api/v1/admin/orders/{new_id()}/payments", token=live)
            captured = await (await world.a_payment()).capture()

        assert (refused.status, refused.code) == (422, "vault-not-configured")
        assert turned_away.status == 403
        assert captured.status == 201

    async def test_a_command_prints_them(self, own_place: Place) -> None:
        printed = msgspec.json.encode(PRIVATE_KEYS["payments"]).decode()
        async with a_world(own_place, payments={"vault_keys": "", "vault_keys_command": f"echo '{printed}'"}) as world:
            assert (await put(world, "stripe", {"api_key": "sk_test_x"})).status == 200
