"""Every route and everybody who might knock: the route table itself, so that a route nobody thought about fails."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.gateway.domain import Claims, Role, sign, unsigned_token
from shared.ids import new_id
from shared.messages import Environment
from tests.fulfillment import shop
from tests.fulfillment.shop import an_order, finalize, ok, quote
from tests.world import TOKEN_SECRET, Answer, Place, World, a_key, a_world

STAFF = frozenset({Role.ADMIN, Role.OPERATOR})
BUYERS = frozenset({Role.CHECKOUT, Role.ADMIN, Role.SHOPPER})
# Who may come in, by how a path begins; what is not here may nobody forget to put here.
RULES: tuple[tuple[str, frozenset[Role]], ...] = (
    ("/api/v1/admin/", STAFF),
    ("/api/v1/events", STAFF),
    ("/api/v1/checkout/", BUYERS),
    ("/api/v1/me/", frozenset({Role.CUSTOMER})),
    ("/api/v1/operations/", frozenset(Role)),
)
# Whoever knows a signature comes in without a key.
PUBLIC = ("/api/v1/webhooks/",)
METHODS = ("get", "put", "post", "delete", "patch")
# Routes that take no body; known once the table is read.
BODILESS: set[tuple[str, str]] = set()
PARAMETER = re.compile(r"\{[a-z_]+\}")


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}, webhooks={}, reconciler={}) as made:
        await shop.set_up(made)
        yield made


@pytest.fixture(scope="module")
async def routes(world: World) -> list[tuple[str, str]]:
    """The route table, as it is served."""
    document = (await world.http.get("/openapi/openapi.json")).json()
    paths = document["paths"].items()
    # What has moved says where to whoever asks, and nothing else.
    there = [(m, path, item[m]) for path, item in paths for m in METHODS if m in item and "308" not in item[m]["responses"]]
    BODILESS.update((method.upper(), path) for method, path, operation in there if "requestBody" not in operation)
    return [(method.upper(), path) for method, path, _ in there]


@pytest.fixture(scope="module")
async def credentials(world: World) -> dict[Role, str]:
    """One valid credential of each role; the shopper's is for an order that is not there."""
    return {**world.keys, Role.SHOPPER: a_token(world, Role.SHOPPER), Role.CUSTOMER: a_token(world, Role.CUSTOMER)}


def a_token(world: World, role: Role, *, valid_seconds: float = 60.0, order_id: UUID | None = None, secret: str = TOKEN_SECRET) -> str:
    claims = Claims(
        id=new_id(),
        store_id=world.store_id,
        environment=Environment.SANDBOX,
        role=role,
        expires_at=datetime.now(UTC) + timedelta(seconds=valid_seconds),
        order_id=(order_id or new_id()) if role is Role.SHOPPER else None,
        customer_id=new_id() if role is Role.CUSTOMER else None,
    )
    return sign(unsigned_token(claims), secret)


def rule_of(path: str) -> frozenset[Role] | None:
    """Who may come in by a path; nobody said anything, nothing."""
    return next((roles for beginning, roles in RULES if path.startswith(beginning)), None)


async def knock(world: World, method: str, path: str, token: str | None) -> Answer:
    """Ask for something that is not there, with nothing in hand that fits."""
    filled = PARAMETER.sub(lambda _: str(new_id()), path)
    headers = {"Authorization": f"Bearer {token}" if token else ""}
    return await world.send(method, filled, headers=headers, content=None if (method, path) in BODILESS else b"{}")


async def test_every_route_has_a_rule(routes: list[tuple[str, str]]) -> None:
    unruled = [path for _, path in routes if rule_of(path) is None and not path.startswith(PUBLIC)]

    assert unruled == []
    assert len(routes) > 50


@pytest.mark.parametrize("role", list(Role))
async def test_each_role_comes_in_where_it_may_and_nowhere_else(
    world: World, routes: list[tuple[str, str]], credentials: dict[Role, str], role: Role
) -> None:
    wrong = []
    for method, path in routes:
        roles = rule_of(path)
        if roles is None:
            continue
        answer = await knock(world, method, path, credentials[role])
        # A shopper's token opens one order, and these are others.
        own_order_only = role is Role.SHOPPER and "{order_id}" in path
        turned_away = answer.status == 403
        if turned_away is not (role not in roles or own_order_only) or answer.status == 401:
            wrong.append((method, path, answer.status))
    assert wrong == []


@pytest.mark.parametrize("whose", ["nobody", "a stranger", "another secret", "yesterday", "a customer whose token was altered"])
async def test_whoever_has_nothing_valid_stays_outside(world: World, routes: list[tuple[str, str]], whose: str) -> None:
    token = {
        "nobody": None,
        "a stranger": f"tender_sandbox_{new_id().hex}_{'0' * 64}",
        "another secret": a_token(world, Role.CUSTOMER, secret="not the gateway's"),
        "yesterday": a_token(world, Role.CUSTOMER, valid_seconds=-1),
        "a customer whose token was altered": a_token(world, Role.CUSTOMER)[:-2] + "xx",
    }[whose]
    answers = [(method, path, await knock(world, method, path, token)) for method, path in routes if rule_of(path) is not None]

    assert [(method, path, answer.status) for method, path, answer in answers if answer.status != 401] == []


@pytest.mark.parametrize(
    ("other_store", "environment"), [(True, Environment.SANDBOX), (False, Environment.PRODUCTION)], ids=["another store", "production"]
)
async def test_what_belongs_to_another_store_or_environment_is_not_there(
    world: World, place: Place, routes: list[tuple[str, str]], other_store: bool, environment: Environment
) -> None:
    stranger = await a_key(place, new_id() if other_store else world.store_id, Role.ADMIN, environment)
    theirs = await _a_life(world)
    seen = []
    for method, path in routes:
        named = PARAMETER.findall(path)
        if not named or not all(name[1:-1] in theirs for name in named) or path.startswith("/api/v1/me/"):
            continue
        if (method, path) == ("PUT", "/api/v1/admin/orders/{order_id}"):
            continue  # An id is free in every store; test_access.py looks at that.
        real = PARAMETER.sub(lambda found: str(theirs[found[0][1:-1]]), path)
        imagined = PARAMETER.sub(lambda _: str(new_id()), path)
        body = BODIES.get(path.rsplit("/", 1)[-1], {})
        there = await world.send(method, real, None if (method, path) in BODILESS else body, token=stranger)
        nowhere = await world.send(method, imagined, None if (method, path) in BODILESS else body, token=stranger)
        # Of what is theirs a stranger hears exactly what is heard of what does not exist.
        if (there.status, _without_ids(there)) != (nowhere.status, _without_ids(nowhere)):
            seen.append((method, path, there, nowhere))
    assert seen == []


BODIES: dict[str, Any] = {
    "authorize": {"snapshot_id": str(new_id()), "payment_method": "tok_success"},
    "finalize": {"snapshot_id": str(new_id())},
}


async def _a_life(world: World) -> dict[str, UUID | str]:
    """An order with everything that can belong to one, by the names that paths have for it."""
    order_id = await an_order(world)
    snapshot = await ok(await quote(world, order_id))
    paid = await ok(await world.authorize(order_id, snapshot["snapshot_id"]))
    await ok(await finalize(world, order_id, snapshot["snapshot_id"]))
    rule = await ok(await world.send("POST", "/api/v1/admin/tax/rules", shop.a_rule("JP", "CT", "10", tax_code=new_id().hex)))
    nexus = await ok(await world.send("POST", "/api/v1/admin/tax/nexus", {"country": "JP", "valid_from": "2024-01-01"}))
    certificate = {"customer_id": str(new_id()), "certificate": "1", "country": "DE", "valid_from": "2024-01-01"}
    exemption = await ok(await world.send("POST", "/api/v1/admin/tax/exemptions", certificate))
    return {
        "order_id": order_id,
        "intent_id": paid["intent"]["id"],
        "label_id": str(new_id()),
        "rule_id": rule["id"],
        "nexus_id": nexus["id"],
        "exemption_id": exemption["id"],
    }


def _without_ids(answer: Answer) -> Any:
    if not isinstance(answer.json, dict):
        return None
    said = {key: value for key, value in answer.json.items() if key not in ("correlation_id", "order_id")}
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "…", str(said))
