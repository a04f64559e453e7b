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
from tests.world import KEY_ROLES, TOKEN_SECRET, Answer, Place, World, a_key, a_world

STAFF = frozenset({Role.SUPPORT, Role.FINANCE, Role.ADMIN, Role.OPERATOR})
RETRIERS = STAFF - {Role.FINANCE}
FINANCIERS = STAFF - {Role.SUPPORT}
REPAIRERS = frozenset({Role.ADMIN, Role.OPERATOR})
ADMINS = frozenset({Role.ADMIN})
BUYERS = frozenset({Role.CHECKOUT, Role.ADMIN, Role.SHOPPER})
# Who may call what, by method and path, the first that fits: what only reads is every member's of the staff, and a route that changes
# something and is not listed here fails.
RULES: tuple[tuple[str, str, frozenset[Role]], ...] = (
    ("GET", "/admin/api-keys", ADMINS),
    ("GET", "/admin/webhook-endpoints/[^/]+/secrets", ADMINS),
    ("GET", "/admin/tax/reports/export", FINANCIERS),
    ("GET", "/admin/.*|/events", STAFF),
    ("PUT", "/admin/orders/[^/]+", ADMINS),
    ("POST", "/admin/(orders/[^/]+/checkout-token|customers/[^/]+/token)", ADMINS),
    ("POST", "/admin/api-keys/[^/]+/revoke", ADMINS),
    ("PUT|DELETE", "/admin/providers/[^/]+/credentials", ADMINS),
    ("POST", "/admin/providers/[^/]+/credentials/verify", RETRIERS),
    ("POST", "/admin/webhook-endpoints/[^/]+/recover", RETRIERS),
    ("POST|PUT|DELETE", "/admin/webhook-endpoints.*", ADMINS),
    ("PUT", "/admin/fulfillment/settings", ADMINS),
    ("POST|PUT|DELETE", "/admin/tax/(rules|nexus|exemptions).*", ADMINS),
    ("POST", "/admin/orders/[^/]+/payments/[^/]+/(capture|void|refund|accept)", FINANCIERS),
    ("POST", "/admin/orders/[^/]+/shipping/labels(/[^/]+/void)?", FINANCIERS),
    ("POST", "/admin/reconciliation/(runs|settlements|drift/[^/]+/resolve)", FINANCIERS),
    ("POST", "/admin/unknown-outcomes/(labels/)?[^/]+/decide", FINANCIERS),
    ("POST", "/admin/dead-letters/[^/]+/(edit|discard)", REPAIRERS),
    ("POST", "/admin/dead-letters/([^/]+/retry|redrives|redrives/[^/]+/stop)", RETRIERS),
    ("POST", "/admin/webhooks/events/([^/]+/)?replay", RETRIERS),
    ("POST", "/admin/webhook-deliveries/[^/]+/redeliver", RETRIERS),
    ("GET|POST", "/checkout/.*", BUYERS),
    ("GET", "/me/.*", frozenset({Role.CUSTOMER})),
    ("GET", "/operations/[^/]+", frozenset(Role)),
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


def rule_of(method: str, path: str) -> frozenset[Role] | None:
    """Who may call a route; nothing where no rule fits."""
    short = path.removeprefix("/api/v1")
    return next((roles for methods, pattern, roles in RULES if re.fullmatch(methods, method) and re.fullmatch(pattern, short)), None)


async def knock(world: World, method: str, path: str, token: str | None) -> Answer:
    """Ask for something that is not there, with nothing in hand that fits."""
    filled = PARAMETER.sub(lambda _: str(new_id()), path)
    headers = {"Authorization": f"Bearer {token}" if token else ""}
    return await world.send(method, filled, headers=headers, content=None if (method, path) in BODILESS else b"{}")


async def test_every_route_has_a_rule(routes: list[tuple[str, str]]) -> None:
    unruled = [(method, path) for method, path in routes if rule_of(method, path) is None and not path.startswith(PUBLIC)]

    assert unruled == []
    assert len(routes) > 50


@pytest.mark.parametrize("role", list(Role))
async def test_each_role_comes_in_where_it_may_and_nowhere_else(
    world: World, routes: list[tuple[str, str]], credentials: dict[Role, str], role: Role
) -> None:
    wrong = []
    for method, path in routes:
        roles = rule_of(method, path)
        if roles is None:
            continue
        answer = await knock(world, method, path, credentials[role])
        # A shopper's token opens one order, and these are others.
        own_order_only = role is Role.SHOPPER and "{order_id}" in path
        turned_away = answer.status == 403
        if turned_away is not (role not in roles or own_order_only) or answer.status == 401:
            wrong.append((method, path, answer.status))
    assert wrong == []


INVALID = (
    *("nobody", "a stranger", "another secret", "yesterday", "a customer whose token was altered", "revoked", "half a key"),
    *("another environment", "upper case", "no environment"),
)


@pytest.mark.parametrize("whose", INVALID)
async def test_whoever_has_nothing_valid_stays_outside(world: World, routes: list[tuple[str, str]], whose: str) -> None:
    """Rows 84 and L6 too: the environment that a key says is part of it."""
    key = world.keys[Role.ADMIN]
    token = {
        "nobody": None,
        "revoked": await a_revoked_key(world),
        "half a key": key[:-32],
        "another environment": key.replace("_sandbox_", "_production_"),
        "upper case": key.replace("_sandbox_", "_SANDBOX_"),
        "no environment": key.replace("_sandbox_", "__"),
        "a stranger": f"tender_sandbox_{new_id().hex}_{'0' * 64}",
        "another secret": a_token(world, Role.CUSTOMER, secret="not the gateway's"),
        "yesterday": a_token(world, Role.CUSTOMER, valid_seconds=-1),
        "a customer whose token was altered": a_token(world, Role.CUSTOMER)[:-2] + "xx",
    }[whose]
    answers = [(method, path, await knock(world, method, path, token)) for method, path in routes if rule_of(method, path) is not None]

    assert [(method, path, answer.status) for method, path, answer in answers if answer.status != 401] == []


async def a_revoked_key(world: World) -> str:
    key = await a_key(world.place, world.store_id, Role.ADMIN)
    await world.change("UPDATE gateway.api_keys SET revoked_at = now() WHERE id = $1", _id_of(key))
    return key


@pytest.fixture(scope="module")
async def theirs(world: World) -> dict[str, UUID | str]:
    return await _a_life(world)


@pytest.mark.parametrize("role", KEY_ROLES)
@pytest.mark.parametrize(
    ("other_store", "environment"),
    [(True, Environment.SANDBOX), (True, Environment.PRODUCTION), (False, Environment.PRODUCTION)],
    ids=["another store", "another store's production", "production"],
)
async def test_what_is_anothers_is_not_there(
    world: World, routes: list[tuple[str, str]], theirs: dict[str, UUID | str], other_store: bool, environment: Environment, role: Role
) -> None:
    """Of another store's or environment's a key sees in every role what it sees of nothing, and in no list anything."""
    stranger = await a_key(world.place, new_id() if other_store else world.store_id, role, environment)
    seen: list[tuple[Any, ...]] = []
    for method, path in routes:
        named = PARAMETER.findall(path)
        if path.startswith(("/api/v1/me/", *PUBLIC)) or role not in (rule_of(method, path) or ()):
            continue
        if not named and method == "GET":
            listed = await world.send("GET", path, token=stranger)
            seen += [(path, name) for name, known in theirs.items() if str(known) in _shown(world, listed)]
        if not named or not all(name[1:-1] in theirs for name in named):
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


def _shown(world: World, listed: Answer) -> str:
    """Give a list's text; of the audit what was done with this store's keys, for it shows strangers what they tried in vain."""
    if "actions" not in (listed.json or {}):
        return listed.response.text
    ours = {str(_id_of(key)) for key in world.keys.values()}
    return str([each for each in listed.json["actions"] if any(key_id in each["actor"] for key_id in ours)])


@pytest.mark.parametrize("role", KEY_ROLES)
async def test_only_an_operator_works_in_another_store(world: World, theirs: dict[str, UUID | str], role: Role) -> None:
    """What is done there is the other store's, also in the audit; secrets and keys stay its admins'."""
    stranger, there = await a_key(world.place, new_id(), role), {"Tender-Store": str(world.store_id)}
    order, release = (
        f"/api/v1/admin/orders/{theirs['order_id']}",
        f"/api/v1/admin/orders/{theirs['order_id']}/payments/{theirs['intent_id']}",
    )

    read = await world.send("GET", order, token=stranger, headers=there)
    secrets = await world.send("GET", f"/api/v1/admin/webhook-endpoints/{theirs['endpoint_id']}/secrets", token=stranger, headers=there)
    voided = await world.send("POST", f"{release}/void", token=stranger, headers=there)
    audited = await world.rows("SELECT store_id FROM payments.admin_audit WHERE actor LIKE $1", f"operator:{_id_of(stranger)}")

    allowed = role is Role.OPERATOR
    assert (read.status, secrets.status, voided.status) == ((200, 403, 201) if allowed else (403, 403, 403))
    assert [row["store_id"] for row in audited] == ([world.store_id] if allowed else [])


@pytest.mark.parametrize(("store", "status"), [("own", 200), ("", 400), ("*", 400), ("1", 400)])
async def test_a_store_that_cannot_be_read_is_refused(world: World, store: str, status: int) -> None:
    named = str(world.store_id) if store == "own" else store

    answer = await world.send("GET", "/api/v1/admin/orders", headers={"Tender-Store": named})

    assert answer.status == status


def _id_of(key: str) -> UUID:
    return UUID(key.split("_")[2])


BODIES: dict[str, Any] = {
    "authorize": {"snapshot_id": str(new_id()), "payment_method": "tok_success"},
    "finalize": {"snapshot_id": str(new_id())},
}


async def _a_life(world: World) -> dict[str, UUID | str]:
    """An order with everything that can belong to one, by the names that paths have for it."""
    order_id = await an_order(world)
    snapshot = await ok(await quote(world, order_id))
    answer = await world.authorize(order_id, snapshot["snapshot_id"])
    paid, operation = await ok(answer), answer.headers["Operation-Id"]
    await ok(await finalize(world, order_id, snapshot["snapshot_id"]))
    rule = await ok(await world.send("POST", "/api/v1/admin/tax/rules", shop.a_rule("JP", "CT", "10", tax_code=new_id().hex)))
    nexus = await ok(await world.send("POST", "/api/v1/admin/tax/nexus", {"country": "JP", "valid_from": "2024-01-01"}))
    certificate = {"customer_id": str(new_id()), "certificate": "1", "country": "DE", "valid_from": "2024-01-01"}
    exemption = await ok(await world.send("POST", "/api/v1/admin/tax/exemptions", certificate))
    endpoint = await ok(await world.send("POST", "/api/v1/admin/webhook-endpoints", {"url": "https://hooks.shop-of-the-tests.com/tender"}))
    return {
        "order_id": order_id,
        "endpoint_id": endpoint["id"],
        "key_id": UUID(world.keys[Role.CHECKOUT].split("_")[2]),
        "operation_id": operation,
        "transaction_id": paid["transaction"]["id"],
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
