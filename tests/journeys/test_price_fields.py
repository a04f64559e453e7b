"""What a price is made of is the order's: every field of every route that a shopper or a checkout key reaches, from the served document."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from uuid import UUID

import pytest

from services.gateway.domain import Role
from shared.ids import new_id
from tests.fulfillment import shop
from tests.fulfillment.shop import MUG, an_order, ok
from tests.world import Answer, Place, World, a_world

METHODS = ("get", "put", "post", "delete", "patch")
RATES = "/api/v1/checkout/orders/{order_id}/shipping/rates"
QUOTE = "/api/v1/checkout/quote"
AUTHORIZE = "/api/v1/checkout/orders/{order_id}/payments/authorize"
SUBMIT = "/api/v1/checkout/orders/{order_id}/submit-payment"
FINALIZE = "/api/v1/checkout/orders/{order_id}/tax/finalize"
# Every field that those who pay may send, and why none of them makes a price. A field that is not listed fails the first test: say here
# why it may be sent, and try below what it does.
FIELDS: dict[str, dict[str, str]] = {
    RATES: {"packages": "refused to all but the shop's backend"},
    QUOTE: {
        "order_id": "a token is for one order",
        "payment_provider": "who is paid, never how much",
        "shipping_rate_id": "one of the rates that were shown for the order as it is",
        "shipping_service": "one of the services that are offered for the order",
    },
    AUTHORIZE: {
        "snapshot_id": "one of the order's own, as long as the order is what it was",
        "payment_method": "with what is paid, never how much",
        "amount": "must be the quoted one",
        "currency": "must be the quoted one",
        "return_url": "where the bank sends the shopper back to",
    },
    FINALIZE: {"snapshot_id": "one of the order's own", "tax_hash": "must be the quoted one"},
}
FIELDS[SUBMIT] = FIELDS[AUTHORIZE]
BUYERS = ("shopper", "checkout")
# Where the shop says what a price is made of, and some names that other systems have for it.
SAID_BY_SHOP = (
    ("put", "/api/v1/admin/orders/{order_id}"),
    ("post", "/api/v1/admin/orders/{order_id}/shipping/labels"),
    ("post", "/api/v1/admin/tax/exemptions"),
    ("post", RATES),
)
OTHER_NAMES = {
    *("weight_ounces", "discount", "declared_value", "insurance", "exemption_id", "ship_from", "price", "tax_amount", "priced_hash"),
    *("home_country", "carriers", "table", "fallback_rates", "package_limit_grams", "tax_provider", "fx_rate", "total", "is_exempt"),
}
TOKEN_BURST = 2_000

HEAVY = {**MUG, "weight_grams": 20_000}
# Economy at home is 390 and 20 for each half kilogram: two packages of 20 kg.
HEAVY_AMOUNT = 2 * (390 + 40 * 20)


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}, gateway={"token_rate_burst": TOKEN_BURST}) as made:
        await shop.set_up(made, carriers=["sandbox"])
        yield made


@pytest.fixture(scope="module")
async def document(world: World) -> Any:
    return (await world.http.get("/openapi/openapi.json")).json()


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Every operation but those that have moved."""
    for path, item in document["paths"].items():
        yield from ((method, path, item[method]) for method in METHODS if method in item and "308" not in item[method]["responses"])


def of_buyers(document: Any) -> dict[str, Any]:
    """The operations that change something and that those who pay may call, by path."""
    found = {path: op for method, path, op in operations(document) if method != "get" and "shopper" in op.get("description", "")}
    assert set(found) == {p for m, p, op in operations(document) if m != "get" and "checkout" in op.get("description", "")}
    return found


def names_in(document: Any, schema: Mapping[str, Any], *, deep: bool) -> set[str]:
    """The names of a schema's fields, of those within too if that is wanted."""
    if "$ref" in schema:
        return names_in(document, document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]], deep=deep)
    names = set(schema.get("properties", {}))
    parts = [*schema.get("oneOf", []), *schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])]
    parts += list(schema.get("properties", {}).values()) if deep else []
    return names.union(*(names_in(document, part, deep=deep) for part in parts))


def body_names(document: Any, operation: Any, *, deep: bool = False) -> set[str]:
    content = operation.get("requestBody", {}).get("content", {})
    return set().union(*(names_in(document, each["schema"], deep=deep) for each in content.values()))


async def buyer(world: World, who: str, order_id: UUID) -> str:
    """The token of an order, or the key of a shop's checkout."""
    if who == "checkout":
        return world.keys[Role.CHECKOUT]
    return str((await ok(await world.send("POST", f"/api/v1/admin/orders/{order_id}/checkout-token")))["token"])


async def send(world: World, path: str, order_id: UUID, body: Any, token: str) -> Answer:
    return await world.send("POST", path.format(order_id=order_id), body, token=token)


async def quoted(world: World, order_id: UUID, token: str, **more: Any) -> Answer:
    return await send(world, QUOTE, order_id, {"order_id": order_id, **more}, token)


def test_every_field_is_judged(document: Any) -> None:
    """F1: a new field of a route that those who pay reach must say above why it makes no price."""
    found = {path: body_names(document, operation) for path, operation in of_buyers(document).items()}

    assert {path: names for path, names in found.items() if names} == {path: set(fields) for path, fields in FIELDS.items()}
    for path, operation in of_buyers(document).items():
        sent = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] != "path"}
        assert sent == {"Idempotency-Key", "Prefer"}, path


@pytest.mark.parametrize("who", BUYERS)
async def test_what_the_shop_says_is_refused_of_buyers(world: World, document: Any, who: str) -> None:
    """F1: weights, sizes, units, prices, discounts, tax codes, certificates, numbers, addresses, insurance: each by its name."""
    order_id = await an_order(world, items=[HEAVY])
    token = await buyer(world, who, order_id)
    before = await ok(await quoted(world, order_id, token))
    names = OTHER_NAMES.union(*(body_names(document, document["paths"][path][method], deep=True) for method, path in SAID_BY_SHOP))
    ids = {
        QUOTE: {"order_id": order_id},
        AUTHORIZE: {"snapshot_id": before["snapshot_id"]},
        FINALIZE: {"snapshot_id": before["snapshot_id"]},
    }

    async def try_name(path: str, name: str) -> tuple[str, str, int] | None:
        answer = await send(world, path, order_id, {**ids.get(path, {}), name: 1}, token)
        return None if answer.status in (403, 422) else (path, name, answer.status)

    tried = [(path, name) for path in FIELDS for name in sorted(names - set(FIELDS[path]))]
    taken = [found for each in tried if (found := await try_name(*each))]

    assert taken == []
    assert len(names) > 60
    assert {"weight_grams", "units", "customer_id", "vat_id", "tax_code", "insured_amount", "shipping_amount", "amount"} <= names
    after = await ok(await quoted(world, order_id, token))
    assert (after["totals"], after["totals"]["shipping"]) == (before["totals"], HEAVY_AMOUNT)


LIGHT: tuple[Any, ...] = (
    [{"weight_grams": 1}],
    [{"weight_grams": 1, "units": {"0": 2}}],
    [{"weight_grams": 40_000, "units": {"0": 2}}],
    [{"weight_grams": 1, "units": {"7": 99}}],
    [{"weight_grams": 20_000, "length_mm": 1, "width_mm": 1, "height_mm": 1}],
)


@pytest.mark.parametrize("who", BUYERS)
async def test_a_buyer_names_no_packages(world: World, who: str) -> None:
    """H2, F1: the order weighs 40 kg, whatever its shopper says; the label is bought at what that costs."""
    order_id = await an_order(world, items=[HEAVY])
    token = await buyer(world, who, order_id)

    refused = [await send(world, RATES, order_id, {"packages": each}, token) for each in LIGHT]
    malformed = await send(world, RATES, order_id, {"packages": [{"weight_grams": 0}]}, token)
    in_query = await world.send("POST", f"{RATES.format(order_id=order_id)}?weight_grams=1&packages=1", {}, token=token)
    empty = await ok(await send(world, RATES, order_id, {"packages": []}, token))
    rate = min(empty["rates"], key=lambda each: each["amount"])
    snapshot = await ok(await quoted(world, order_id, token, shipping_rate_id=rate["id"]))
    paid = {"snapshot_id": snapshot["snapshot_id"], "payment_method": "tok_success"}
    await ok(await send(world, AUTHORIZE, order_id, paid, token))
    label = (await ok(await world.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels", {})))["label"]

    assert {(each.status, each.code) for each in refused} == {(403, "forbidden")}
    assert malformed.status in (403, 422)
    assert [each["amount"] for each in in_query.json["rates"]] == [each["amount"] for each in empty["rates"]]
    assert [each["weight_grams"] for each in empty["packages"]] == [20_000, 20_000]
    assert (rate["amount"], snapshot["totals"]["shipping"], label["amount"]) == (HEAVY_AMOUNT, HEAVY_AMOUNT, HEAVY_AMOUNT)


@pytest.mark.parametrize("who", BUYERS)
async def test_what_a_buyer_may_send_makes_no_price(world: World, who: str) -> None:
    """F1: rates and snapshots of another order, or of this one before it changed; amounts, currencies and services of one's own."""
    cheap = await an_order(world, items=[{**MUG, "weight_grams": 1}])
    order_id = await an_order(world, items=[{**MUG, "weight_grams": 1}])
    cheap_token, token = await buyer(world, who, cheap), await buyer(world, who, order_id)
    theirs = (await ok(await send(world, RATES, cheap, {}, cheap_token)))["rates"][0]["id"]
    their_snapshot = (await ok(await quoted(world, cheap, cheap_token)))["snapshot_id"]
    stale = (await ok(await send(world, RATES, order_id, {}, token)))["rates"][0]["id"]
    stale_snapshot = (await ok(await quoted(world, order_id, token)))["snapshot_id"]
    await ok(await world.put_order(order_id, {"currency": "EUR", "items": [HEAVY], "shipping_address": shop.MUNICH}))
    snapshot_id = (await ok(await quoted(world, order_id, token)))["snapshot_id"]
    method = {"payment_method": "tok_success"}

    answers = {
        "another order's rate": await quoted(world, order_id, token, shipping_rate_id=theirs),
        "a rate of what it was": await quoted(world, order_id, token, shipping_rate_id=stale),
        "no rate": await quoted(world, order_id, token, shipping_rate_id=new_id()),
        "no service": await quoted(world, order_id, token, shipping_service="free"),
        "no provider": await quoted(world, order_id, token, payment_provider="free"),
        **{
            f"{name} at {path.rsplit('/', 1)[-1]}": await send(world, path, order_id, {**method, **body}, token)
            for path in (AUTHORIZE, SUBMIT)
            for name, body in {
                "another order's snapshot": {"snapshot_id": their_snapshot},
                "a snapshot of what it was": {"snapshot_id": stale_snapshot},
                "an amount": {"snapshot_id": snapshot_id, "amount": 1},
                "a currency": {"snapshot_id": snapshot_id, "currency": "JPY"},
                "no payment method": {"snapshot_id": snapshot_id, "payment_method": None},
            }.items()
        },
        "another order's tax": await send(world, FINALIZE, order_id, {"snapshot_id": their_snapshot}, token),
        "another tax": await send(world, FINALIZE, order_id, {"snapshot_id": snapshot_id, "tax_hash": "0" * 64}, token),
    }

    assert {name: each.status for name, each in answers.items() if each.status not in (404, 409, 422)} == {}
    if who == "shopper":
        assert (await quoted(world, cheap, token)).status == 403
    assert (await world.ledger(order_id))["payments"] == []
    assert (await ok(await quoted(world, order_id, token)))["totals"]["shipping"] == HEAVY_AMOUNT


async def test_every_change_needs_a_key_and_says_so(world: World, document: Any) -> None:
    """F21: POST, PUT and DELETE alike; PATCH there is none. Providers' webhooks have their own ids."""
    changing = [(m, path, op) for m, path, op in operations(document) if m != "get" and not path.startswith("/api/v1/webhooks/")]
    wrong = []
    for method, path, operation in changing:
        said = any(each["name"] == "Idempotency-Key" and each.get("required") for each in operation.get("parameters", []))
        # A body that fits is not at hand for each; what does not fit is refused before, so only the bodiless are called.
        filled = path
        for parameter in operation.get("parameters", []):
            filled = filled.replace(f"{{{parameter['name']}}}", "stripe" if parameter["name"] == "provider" else str(new_id()))
        role = Role.OPERATOR if "operator" in operation["description"] else Role.ADMIN
        answer = await world.send(method.upper(), filled, key=None, role=role) if "requestBody" not in operation else None
        if not said or (answer is not None and (answer.status, answer.code) != (400, "idempotency-key-required")):
            wrong.append((method, path, said, answer))
    assert wrong == []
    assert {method for method, _, _ in changing} == {"post", "put", "delete"}
