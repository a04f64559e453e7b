"""Every route and command of staff leaves a row of who asked for what, also when it is refused; generated from what is served (M8)."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import click
import httpx
import pytest
from click.testing import CliRunner
from litestar.routes import HTTPRoute

from deploy import keys as vault
from deploy.cli import COMMANDS, cli
from services.gateway.console import ROUTES as CONSOLE
from services.gateway.domain import Role
from services.gateway.handlers.gateway import FAILED_SIGN_INS_MAX, Gateway
from services.gateway.routes import api
from shared.ids import NOBODY, new_id
from shared.owner import connect_as_owner
from tests.reconciler.letters import an_envelope, park, the_letter
from tests.world import Place, World, a_world, secret_of

SCHEMAS = ("gateway", "payments", "fulfillment", "webhooks", "reconciler")
EVERY_ROW = " UNION ALL ".join(f"SELECT * FROM {schema}.admin_audit" for schema in SCHEMAS)
SECRET_FIELDS = {"secret", "secrets", "token", "password", "api_key", "private_key"}
CSRF = re.compile(r'name="csrf" value="([^"]+)"')
UNKNOWN_KEY = f"tender_sandbox_{new_id().hex}_{'0' * 64}"

# What is no change by staff, and why.
EXEMPT = {
    "/api/v1/webhooks/": "a provider calls it, and what it sent is an event of its own",
    "/api/v1/me/": "it says where a route has moved",
    "/console/sign-in": "it has tests of its own below",
    "/console/sign-out": "it has tests of its own below",
}
# What a form needs beyond its keys to be carried out or refused by a service.
FORMS: dict[str, dict[str, str]] = {
    "dead-letters/{}/retry": {"reason": "a test"},
    "dead-letters/{}/discard": {"reason": "a test"},
    "dead-letters/{}/edit": {"reason": "a test", "body": "{}", "step": "send"},
    "dead-letters/redrives": {"reason": "a test", "action": "discard", "message_type": "none.v1"},
    "reconciliation/runs": {"domain": "payments", "provider": "sandbox", "since": "2026-01-01", "until": "2026-01-02"},
    "reconciliation/drift/{}/resolve": {"action": "accepted", "reason": "a test"},
    "attention/{}/decide": {"outcome": "failed", "evidence": "a test"},
    "attention/{}/payments/{}/accept": {"version": "1", "reason": "a test"},
    "attention/labels/{}/decide": {"evidence": "a test"},
    "events/replay": {"since": "2026-01-01T00:00", "until": "2026-01-02T00:00"},
    "keys/credentials/{}/{}": {"field_api_key": "sk_test_0123456789abcdef"},
    "keys/endpoints": {"url": "https://shop.example/hook"},
    "keys/endpoints/{}/recover": {"since": "2026-01-01T00:00"},
    "keys/endpoints/{}/enable": {"url": "https://shop.example/hook", "enabled": "true"},
}
# What a schema does not say of what is taken.
VALUES: dict[str, Any] = {
    "gross": 100,
    "fee": 0,
    "net": 100,
    "file_sha256": "0" * 64,
    "country_code": "DE",
    "outcome": "failed",
    "url": "https://shop.example/hook",
    "country": "DE",
    "home_country": "DE",
    "currency": "EUR",
    "rate_percent": "19",
    "fields": {"api_key": "sk_test_0123456789abcdef"},
    "body": {"order_id": 1},
    "provider": "stripe",
    "since": "2026-01-01T00:00:00Z",
    "until": "2026-01-02T00:00:00Z",
    "ids": [str(new_id())],
    "filter": None,
}


def the_routes() -> list[tuple[str, str]]:
    """Every route that the gateway serves."""
    gateway = cast(Gateway, SimpleNamespace(settings=SimpleNamespace(cors_origins="", api_docs=True)))
    routes = [route for route in api(gateway, CONSOLE).routes if isinstance(route, HTTPRoute)]
    return sorted((method, route.path) for route in routes for method in route.methods - {"OPTIONS", "HEAD"})


def _changing(prefix: str) -> list[tuple[str, str]]:
    found = [(method, path) for method, path in the_routes() if method != "GET" and path.startswith(prefix)]
    return [each for each in found if not each[1].startswith(tuple(EXEMPT))]


def test_documentation_is_served_by_a_setting() -> None:
    gateway = cast(Gateway, SimpleNamespace(settings=SimpleNamespace(cors_origins="", api_docs=False)))

    served = {path for _, path in the_routes()} - {route.path for route in api(gateway, CONSOLE).routes}

    assert {path.split("/")[1] for path in served} == {"docs", "openapi"}


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}, webhooks={}, reconciler={}) as made:
        yield made


@pytest.fixture(scope="module")
async def document(world: World) -> Any:
    return (await world.http.get("/openapi/openapi.json")).json()


@pytest.fixture(scope="module")
async def browser(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=world.gateway_url, timeout=30) as http:
        await http.post("/console/sign-in", data={"access_key": world.keys[Role.ADMIN]})
        yield http


async def rows_of(world: World, correlation_id: str) -> list[Any]:
    """The rows that one request left, in whichever schema."""
    return await world.rows(f"SELECT * FROM ({EVERY_ROW}) AS every WHERE correlation_id = $1", correlation_id)


async def a_letter(world: World) -> str:
    """Park a message, which a form about it reads first."""
    envelope = an_envelope(world)
    await park(world, "payments", "payments.capture.v1", {"order_id": 1}, envelope, dead_reason="Tests: one")
    return str((await the_letter(world, envelope.id))["id"])


def concrete(path: str) -> str:
    """Write a route's path with ids of nothing that is there."""
    named = re.sub(r"\{provider(:str)?\}", "stripe", re.sub(r"\{use:str\}", "payments", re.sub(r"\{what:str\}", "void", path)))
    return re.sub(r"\{\w+:int\}", "1", re.sub(r"\{\w+:uuid\}", lambda _: str(new_id()), named))


def a_value(document: Any, schema: Any, name: str = "") -> Any:
    """Make the least value that fits a schema of the OpenAPI document."""
    if name in VALUES:
        return VALUES[name]
    if "$ref" in schema:
        return a_value(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    choices = [each for each in schema.get("oneOf", schema.get("anyOf", [])) if each.get("type") != "null"]
    if choices:
        return a_value(document, choices[0], name)
    if "enum" in schema:
        return schema["enum"][0]
    made: Mapping[str, Any] = {"date": "2026-01-01", "date-time": "2026-01-01T00:00:00Z", "uuid": str(new_id())}
    match schema.get("type"):
        case "object":
            return {each: a_value(document, schema["properties"][each], each) for each in schema.get("required", [])}
        case "array":
            return [a_value(document, schema["items"])] * schema.get("minItems", 0)
        case "integer" | "number":
            return int(schema.get("minimum", 1))
        case "boolean":
            return False
    return made.get(schema.get("format", ""), "x" * max(1, schema.get("minLength", 1)))


def a_body(document: Any, method: str, path: str) -> Any:
    """Make the least body that a route takes."""
    operation = document["paths"][re.sub(r":\w+\}", "}", path)][method.lower()]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return None if content is None else a_value(document, content["schema"])


class TestApi:
    @pytest.mark.parametrize(("method", "path"), _changing("/api/"), ids=lambda part: str(part).removeprefix("/api/v1/"))
    async def test_change_leaves_a_row(self, world: World, document: Any, method: str, path: str) -> None:
        request_id = new_id().hex

        answer = await world.send(method, concrete(path), a_body(document, method, path), headers={"X-Correlation-Id": request_id})

        assert "Operation-Id" in answer.headers, f"no service was asked: {answer}"
        rows = await rows_of(world, request_id)
        # A composed operation's steps leave rows of their own.
        assert {(row["actor"].split(":")[0], row["store_id"]) for row in rows} == {("admin", world.store_id)}, answer
        assert UUID(answer.headers["Operation-Id"]) in [row["id"] for row in rows]

    async def test_reading_a_secret_leaves_a_row(self, world: World, document: Any) -> None:
        revealing = [path for path, item in document["paths"].items() if "get" in item and _reveals(document, item["get"])]

        assert revealing == ["/api/v1/admin/webhook-endpoints/{endpoint_id}/secrets"]
        for path in revealing:
            request_id = new_id().hex
            await world.send("GET", re.sub(r"\{\w+\}", str(new_id()), path), headers={"X-Correlation-Id": request_id})
            assert [row["action"] for row in await rows_of(world, request_id)] == ["webhooks.get_secrets.v1"]

    async def test_token_is_one_row_however_often_it_is_asked_for(self, world: World) -> None:
        path, key, request_id = f"/api/v1/admin/orders/{await world.an_order()}/checkout-token", new_id().hex, new_id().hex

        answers = [await world.send("POST", path, key=key, headers={"X-Correlation-Id": request_id}) for _ in range(2)]

        [row] = [row for row in await rows_of(world, request_id) if row["action"] == "gateway.make_checkout_token.v1"]
        assert [answer.status for answer in answers] == [201, 201]
        assert (row["after"], answers[0].json["token"] in str(dict(row))) == (None, False)
        listed = (await world.send("GET", "/api/v1/admin/audit?text=make_checkout_token")).json["actions"]
        assert str(row["id"]) in [each["id"] for each in listed]

    async def test_refusal_is_recorded_as_one(self, world: World) -> None:
        request_id = new_id().hex

        await world.send("POST", f"/api/v1/admin/orders/{new_id()}/checkout-token", headers={"X-Correlation-Id": request_id})

        assert [row["after"] for row in await rows_of(world, request_id)] == ['{"refused": "not-found"}']


def _reveals(document: Any, operation: Any) -> bool:
    """Tell whether an answer has a field that is named as a secret is."""
    found: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node and node["$ref"] not in found:
                found.add(node["$ref"])
                walk(document["components"]["schemas"][node["$ref"].rpartition("/")[2]])
            found.update(node.get("properties", {}))
            for each in node.values():
                walk(each)
        elif isinstance(node, list):
            for each in node:
                walk(each)

    walk(operation["responses"].get("200", {}))
    return bool(found & SECRET_FIELDS)


class TestConsole:
    @pytest.mark.parametrize("path", [path for _, path in _changing("/console/")], ids=lambda path: str(path).removeprefix("/console/"))
    async def test_form_leaves_a_row(self, world: World, browser: httpx.AsyncClient, path: str) -> None:
        csrf = CSRF.search((await browser.get("/console/orders")).text)
        assert csrf is not None
        bare = re.sub(r"\{[^}]*\}", "{}", path).removeprefix("/console/")
        form, request_id = {"csrf": csrf[1], "key": new_id().hex, **FORMS.get(bare, {})}, new_id().hex
        there = path.replace("{letter_id:uuid}", await a_letter(world)) if bare == "dead-letters/{}/edit" else path

        answer = await browser.post(concrete(there), data=form, headers={"X-Correlation-Id": request_id})

        rows = await rows_of(world, request_id)
        assert answer.status_code == 303, f"no service was asked: {answer.text}"
        assert [row["actor"].split(":")[0] for row in rows] == ["admin"]

    async def test_signing_in_and_out_leave_rows(self, world: World) -> None:
        ids = [new_id().hex for _ in range(2)]
        async with httpx.AsyncClient(base_url=world.gateway_url) as http:
            await http.post("/console/sign-in", data={"access_key": world.keys[Role.OPERATOR]}, headers={"X-Correlation-Id": ids[0]})
            csrf = CSRF.search((await http.get("/console/orders")).text)
            assert csrf is not None
            await http.post("/console/sign-out", data={"csrf": csrf[1]}, headers={"X-Correlation-Id": ids[1]})

        rows = [row for each in ids for row in await rows_of(world, each)]
        assert [row["action"] for row in rows] == ["console.sign_in", "console.sign_out"]
        assert [(row["actor"].split(":")[0], row["store_id"]) for row in rows] == [("operator", world.store_id)] * 2
        assert rows[0]["subject"] == rows[1]["subject"] == f"key_id={rows[0]['actor'].split(':')[1]}"

    async def test_failed_sign_ins_leave_rows_that_are_rationed(self, world: World) -> None:
        """Cases 94 and 95: what is typed is never kept, and a flood of tries is no flood of rows."""
        wrong = world.keys[Role.ADMIN][:-8] + "00000000"
        tried = {"known": wrong, "unknown": UNKNOWN_KEY, "role": world.keys[Role.CHECKOUT], "none": "hunter2"}
        rows: dict[str, list[Any]] = {}
        for name, key in tried.items():
            request_id = new_id().hex
            await world.http.post("/console/sign-in", data={"access_key": key}, headers={"X-Correlation-Id": request_id})
            rows[name] = await rows_of(world, request_id)
        for _ in range(FAILED_SIGN_INS_MAX + 20):
            await world.http.post("/console/sign-in", data={"access_key": "hunter2"})

        stores = {name: [(row["action"], row["actor"], row["store_id"]) for row in found] for name, found in rows.items()}
        ours, nobodys = [[("console.sign_in_failed", "anonymous", store)] for store in (world.store_id, NOBODY)]
        assert stores == {"known": ours, "unknown": nobodys, "role": ours, "none": nobodys}
        every = await world.rows("SELECT * FROM gateway.admin_audit WHERE action = 'console.sign_in_failed'")
        assert len(every) <= FAILED_SIGN_INS_MAX
        assert [key for key in ("hunter2", *map(secret_of, (wrong, UNKNOWN_KEY))) if key in str([dict(row) for row in every])] == []


# Commands that are no call of the API, which leaves its own rows.
LOCAL = {
    "keys create": ["--role", "admin", "--name", "a test"],
    "keys rotate": ["--folder", "{folder}"],
    "stores set": ["--quote-lifetime", "600"],
    "tax import": ["deploy/tax/starter.csv"],
    "fx import": ["{folder}/rates.csv"],
    "seed": ["--orders", "1"],
}
ACTIONS = {
    "keys create": ["api_key.create"],
    "keys rotate": ["vault_key.rotate"] * 3,
    "stores set": ["store.set"],
    "tax import": ["tax_rules.import"],
    "fx import": ["fx_rates.import"],
    "seed": ["orders.seed"],
}
EXEMPT_COMMANDS = {
    "migrate": "each migration is a row of schema_migrations, with its time",
    "topology": "the broker has no audit; what is declared is in the code",
    "broker-users": "the broker has no audit; what each may do is in the code",
    "keys make": "it writes files, before there is a database",
    "secrets create": "it writes files, before there is a database",
    "asyncapi": "it prints a document",
    "settings": "it prints a document",
    **dict.fromkeys(["demo", "up", "down", "status", "logs", "test", "check", "mutate", "bench", "soak"], "it runs the local system"),
}


def the_commands() -> dict[str, click.Command]:
    """Every command of the command line, by its full name."""
    found: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, name
        within = command.commands if isinstance(command, click.Group) else {"": command}
        found |= {f"{name} {each}".strip(): one for each, one in within.items()}
    return found


class TestCommands:
    def test_each_calls_the_api_or_is_known(self) -> None:
        """A new command is called here, or exempt for a reason."""
        others = {name for name, command in the_commands().items() if not {"url", "key"} <= {each.name for each in command.params}}

        assert others == LOCAL.keys() | EXEMPT_COMMANDS.keys()

    @pytest.mark.parametrize("name", LOCAL)
    async def test_change_leaves_a_row(self, second_place: Place, tmp_path: Path, name: str) -> None:
        vault.make(tmp_path)
        (tmp_path / "rates.csv").write_text("base,quote,rate,date,source\nEUR,USD,1.1,2026-01-02,a test\n")
        arguments = [each.format(folder=tmp_path) for each in LOCAL[name]]
        before = len(await self._rows(second_place))

        done = await self._typed(second_place, *name.split(), *arguments)

        rows = (await self._rows(second_place))[before:]
        assert (done.exit_code, [row["action"] for row in rows]) == (0, ACTIONS[name]), done.output
        assert [row for row in rows if not row["actor"].removeprefix("cli:")] == []

    async def test_what_changes_nothing_leaves_no_row(self, second_place: Place) -> None:
        before = await self._rows(second_place)

        done = await self._typed(second_place, "tax", "import", "deploy/tax/starter.csv", "--dry-run")

        assert done.exit_code == 0, done.output
        assert await self._rows(second_place) == before

    async def _typed(self, place: Place, *arguments: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, cli, [*arguments, "--database-url", place.database_url])

    async def _rows(self, place: Place) -> list[Any]:
        connection = await connect_as_owner(place.database_url)
        try:
            return [
                dict(row) for row in await connection.fetch(f"SELECT * FROM ({EVERY_ROW}) AS every WHERE actor LIKE 'cli:%' ORDER BY id")
            ]
        finally:
            await connection.close()
