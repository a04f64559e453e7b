"""Runbooks: each trouble is caused, and every command of its runbook is typed as it stands."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy import keys
from deploy.state import ROOT
from services.gateway.domain import Role
from shared import telemetry
from shared.ids import new_id
from tests.deploy.test_keys import a_shop
from tests.faults.ground import Ground, a_ground
from tests.faults.nursery import Nursery
from tests.fulfillment import shop
from tests.reconciler.books import a_run, drift, make_drift
from tests.reconciler.letters import an_envelope, send, the_letter
from tests.webhooks.test_ingest import an_event, post, stands
from tests.world import PASSWORD, SANDBOX_KEY, TOTAL, Place, World, management, until

RUNBOOKS = ROOT / "deploy" / "runbooks"
BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
METRIC = re.compile(r"`(tender_[a-z_]+)")
COMMAND_TIMEOUT_SECONDS = 120.0
# What was typed, by runbook.
typed: dict[str, set[str]] = {}


def commands_of(name: str) -> list[str]:
    """Every command of a runbook, in order."""
    text = (RUNBOOKS / f"{name}.md").read_text()
    return [line.strip() for block in BLOCK.findall(text) for line in block.splitlines() if line.strip()]


class Terminal:
    """Where an operator types what a runbook says."""

    def __init__(self, runbook: str, world: World, **words: str) -> None:
        self._commands = commands_of(runbook)
        self._typed = typed.setdefault(runbook, set())
        self._words = {"TENDER_URL": world.gateway_url, "TENDER_KEY": world.keys[Role.OPERATOR], **words}

    def knows(self, **words: str) -> None:
        """Remember what a word of the runbook stands for from now on."""
        self._words.update(words)

    async def type(self, beginning: str, *, well: bool = True) -> str:
        """Type the command that is this, or every one that begins like this; gives what the last one showed."""
        found = [command for command in self._commands if command == beginning or beginning not in self._commands]
        found = [command for command in found if command.startswith(beginning)]
        assert found, f"the runbook has no command that begins with {beginning!r}"
        shown = ""
        for command in dict.fromkeys(found):
            self._typed.add(command)
            code, shown = await self._run(command)
            assert (code == 0) is well, (command, code, shown)
        return shown

    async def _run(self, command: str) -> tuple[int, str]:
        usual = {name: os.environ[name] for name in ("PATH", "HOME", "TENDER_HOME", "LANG") if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", command, cwd=ROOT, env={**usual, **self._words}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(COMMAND_TIMEOUT_SECONDS):
            output, _ = await process.communicate()
        assert process.returncode is not None, "it has ended"
        return process.returncode, output.decode()


@pytest.fixture(scope="module")
async def ground(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    folder = tmp_path_factory.mktemp("ground")
    async with a_ground(nursery, folder, retry_tiers_bug="1s,1s", asks_per_second="500") as made:
        await made.system.start("reconciler")
        await made.system.start("fulfillment")
        yield made


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_webhook_outage(ground: Ground) -> None:
    world, began = ground.world, now()
    terminal = Terminal(
        "webhook-outage",
        world,
        OUTAGE_BEGAN=began,
        PROVIDER="sandbox",
        WEBHOOKS_MONITORING_URL=world.monitoring["webhooks"],
        NEW_SECRET=f"whsec_{new_id().hex}",
    )
    payment = await world.a_captured_payment()
    # An event that this release cannot read, so it dies; then the service itself.
    unreadable = an_event(world, {"nonsense": True})
    assert (await post(world, unreadable)).status == 200
    await stands(world, unreadable, "dead")
    await ground.system.kill("webhooks")
    # What the provider tells meanwhile does not arrive.
    await _dashboard(world, payment, "refund", amount=1000)

    assert "does not answer" in await terminal.type("./tender api GET $WEBHOOKS_MONITORING_URL", well=False)
    await ground.system.start("webhooks")
    assert '"ready"' in await terminal.type("./tender api GET $WEBHOOKS_MONITORING_URL")
    assert unreadable.type in await terminal.type("./tender webhooks list")
    mended = msgspec.json.encode({"id": unreadable.id, "type": "customer.created", "data": {}})
    await world.change(
        """
        UPDATE webhooks.webhook_payloads
           SET body = $2
         WHERE event_id = (SELECT id FROM webhooks.webhook_events WHERE provider_event_id = $1)
        """,
        unreadable.id,
        mended,
    )
    await world.change("UPDATE webhooks.webhook_events SET event_type = 'customer.created' WHERE provider_event_id = $1", unreadable.id)
    await terminal.type("./tender webhooks replay")
    await stands(world, unreadable, "ignored", "processed")
    assert "completed" in await terminal.type("./tender reconcile run")
    terminal.knows(TENDER_KEY=world.keys[Role.ADMIN])
    assert '"active":true' in await terminal.type("./tender api PUT")

    assert unreadable.type not in await terminal.type("./tender webhooks list --status dead")
    assert "missing" not in await terminal.type("./tender reconcile drift")
    assert (await payment.intent())["refunded_amount"] == 1000


async def _dashboard(world: World, payment: Any, kind: str, **body: Any) -> None:
    path = f"{world.sandbox.base_url}/control/payments/{payment.at_the_provider().id}/{kind}"
    assert (await world.http.post(path, json=body)).status_code == 200


async def test_reconciliation_mismatch(ground: Ground) -> None:
    world = ground.world
    more, gone = await world.a_captured_payment(), await world.a_captured_payment()
    await make_drift(world, "payments", more.at_the_provider().id, kind="capture", amount=11_000)
    key = gone.at_the_provider().id
    await make_drift(world, "payments", key, forget=True)
    await a_run(world)
    items = {item["type"]: item for item in await drift(world, status="open")}
    terminal = Terminal(
        "reconciliation-mismatch",
        world,
        PROVIDER="sandbox",
        ORDER_ID=str(more.order_id),
        DRIFT_ID=items["amount"]["id"],
        OTHER_DRIFT_ID=items["missing_at_provider"]["id"],
    )

    shown = await terminal.type("./tender reconcile drift --status open --evidence")
    assert "11000" in shown
    assert key in shown
    assert str(more.id) in await terminal.type("./tender api GET")
    assert "provider_is_right" in await terminal.type("./tender reconcile resolve $DRIFT_ID")
    assert "accepted" in await terminal.type("./tender reconcile resolve $OTHER_DRIFT_ID")

    assert "completed" in await terminal.type("./tender reconcile run")
    assert key not in await terminal.type("./tender reconcile drift --status open")
    assert (await more.intent())["status"] == "conflicted"


async def test_conflicted_payments(ground: Ground) -> None:
    world = ground.world
    lost, first = await world.a_captured_payment(), await world.a_payment()
    assert (await lost.refund(4_000)).status == 201
    await _dashboard(world, lost, "chargeback", amount=TOTAL)
    there = first.at_the_provider()
    assert (await first.void()).status == 201
    assert (await world.authorize(first.order_id, await world.a_snapshot(first.order_id))).status == 201
    world.sandbox.books.add(there, "capture", TOTAL, reason="dashboard")
    await a_run(world)
    frozen = await until(lambda: _needing(world, "conflicted", lost))
    terminal = Terminal(
        "conflicted-payments",
        world,
        ORDER_ID=str(lost.order_id),
        PAYMENT_ID=str(lost.id),
        VERSION=str(frozen["version"]),
        OTHER_ORDER_ID=str(first.order_id),
        OTHER_PAYMENT_ID=str(first.id),
    )

    shown = await terminal.type("./tender attention")
    assert f"{TOTAL + 4_000} given back of {TOTAL} captured" in shown
    assert str(first.id) in shown
    assert "conflicted" in await terminal.type("./tender api GET")
    assert " refunded " in await terminal.type("./tender payments accept")
    assert " refunded " in await terminal.type("./tender payments give-back")

    shown = await terminal.type("./tender attention")
    assert [each for each in (lost, first) if str(each.id) in shown] == []
    assert "ticket 4711" in await terminal.type("./tender audit")


async def _needing(world: World, part: str, payment: Any) -> Any:
    found = (await world.send("GET", "/api/v1/admin/payments/attention")).json[part]
    return next((each for each in found if each["id"] == str(payment.id)), None)


async def _an_unknown_capture(world: World) -> tuple[Any, str]:
    """A payment by Stripe whose key is refused when it is captured."""
    world.provider = "stripe"
    payment = await world.a_payment()
    world.sandbox.api_key = "another"
    assert (await payment.capture(headers={"Prefer": "wait=0"})).status == 202

    async def listed() -> Any:
        answer = await world.send("GET", "/api/v1/admin/unknown-outcomes")
        return next((each["transaction_id"] for each in answer.json["operations"] if each["intent_id"] == str(payment.id)), None)

    return payment, str(await until(listed))


@pytest.fixture
def _stripe_for_a_while(ground: Ground) -> Any:
    yield
    ground.world.provider, ground.world.sandbox.api_key = "sandbox", SANDBOX_KEY


@pytest.mark.usefixtures("_stripe_for_a_while")
async def test_unknown_outcomes(ground: Ground) -> None:
    label_id = await _an_unknown_label(ground)
    payment, transaction_id = await _an_unknown_capture(ground.world)
    terminal = Terminal("unknown-outcomes", ground.world, TRANSACTION_ID=transaction_id, LABEL_ID=label_id)

    shown = await terminal.type("./tender outcomes list")
    assert "capture 401" in shown
    assert label_id in shown
    # The resolver may be at it this very moment.
    decided = await until(lambda: _well(terminal, "./tender outcomes decide $"))
    given_up = await until(lambda: _well(terminal, "./tender outcomes decide-label"))

    assert "captured" in decided
    assert "decided_by_operator" in given_up
    assert transaction_id not in await terminal.type("./tender outcomes list")
    assert (await payment.intent())["status"] == "captured"


async def _an_unknown_label(ground: Ground) -> str:
    """A label at a carrier that never answers."""
    world = ground.world
    await shop.set_up(world, carriers=["sandbox"])
    order_id = await shop.an_order(world, shipping_address={**shop.MUNICH, "city": "Silent Harbour"})
    await shop.ok(await shop.quote(world, order_id, shipping_service="ground", payment_provider="sandbox"))
    bought = await world.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels", {}, headers={"Prefer": "wait=0"})
    assert bought.status == 202

    async def listed() -> Any:
        labels = (await world.send("GET", "/api/v1/admin/unknown-outcomes/labels")).json["labels"]
        return next((each["label_id"] for each in labels if each["order_id"] == str(order_id)), None)

    return str(await until(listed))


async def _well(terminal: Terminal, beginning: str) -> str | None:
    try:
        return await terminal.type(beginning)
    except AssertionError:
        return None


@pytest.mark.usefixtures("_stripe_for_a_while")
async def test_provider_outage(ground: Ground) -> None:
    world, began = ground.world, now()
    given = await world.send(
        "PUT", "/api/v1/admin/providers/stripe/credentials", {"fields": {"api_key": SANDBOX_KEY, "multicapture": "true"}}
    )
    assert given.status == 200
    payment, transaction_id = await _an_unknown_capture(world)
    terminal = Terminal("provider-outage", world, PROVIDER="stripe", OUTAGE_BEGAN=began)

    assert '"rejected"' in await terminal.type("./tender api POST")
    assert transaction_id in await terminal.type("./tender outcomes list")
    # The provider takes the key again.
    world.sandbox.api_key = SANDBOX_KEY

    assert '"accepted"' in await terminal.type("./tender api POST")
    await until(lambda: _is_captured(payment))
    assert transaction_id not in await terminal.type("./tender outcomes list")
    assert "completed" in await terminal.type("./tender reconcile run")


async def _is_captured(payment: Any) -> bool:
    return bool((await payment.intent())["status"] == "captured")


async def test_dead_letters(ground: Ground) -> None:
    world, payment = ground.world, await ground.world.a_payment()
    order_ids = [await world.an_order() for _ in range(3)]
    await world.change("ALTER TABLE payments.order_checkout_snapshots RENAME TO elsewhere")
    asked = [await world.quote(each, headers={"Prefer": "respond-async"}) for each in order_ids]
    failed = [await the_letter(world, each.json["operation_id"]) for each in asked]
    poisoned, useless = an_envelope(world), an_envelope(world)
    capture = {"order_id": payment.order_id, "intent_id": payment.id, "idempotency_key": "poisoned"}
    await send(world, "payments.capture.v1", {**capture, "amount": "all"}, poisoned)
    await send(world, "payments.capture.v1", {"amount": "nothing"}, useless)
    terminal = Terminal(
        "dead-letters",
        world,
        GROUP=failed[0]["fingerprint"],
        LETTER_ID=failed[0]["id"],
        POISONED_ID=(await the_letter(world, poisoned.id))["id"],
        USELESS_ID=(await the_letter(world, useless.id))["id"],
        AMOUNT=str(TOTAL),
    )

    assert "payments.quote.v1" in await terminal.type("./tender dlq ls --groups")
    assert failed[2]["id"] in await terminal.type("./tender dlq ls --group")
    assert "order_checkout_snapshots" in await terminal.type("./tender dlq show")
    await world.change("ALTER TABLE payments.elsewhere RENAME TO order_checkout_snapshots")
    assert "3 letters are meant" in await terminal.type("./tender dlq retry --group $GROUP --dry-run")
    assert "completed" in await terminal.type("./tender dlq retry --group $GROUP --rate")
    assert "replaced" in await terminal.type("./tender dlq edit")
    assert "discarded" in await terminal.type("./tender dlq discard")

    await until(lambda: _is_captured(payment))
    left = await terminal.type("./tender dlq ls")
    assert [each["id"] for each in failed if each["id"] in left] == []
    assert "its service:    done" in await until(lambda: _shows_done(terminal))


async def _shows_done(terminal: Terminal) -> str | None:
    shown = await terminal.type("./tender dlq show")
    return shown if "done" in shown else None


async def test_broker_down(ground: Ground) -> None:
    """Its disk is lost with its queues and users, which only this runbook brings back."""
    world, broker = ground.world, ground.broker
    terminal = Terminal(
        "broker-down",
        world,
        MONITORING_URL=world.monitoring["gateway"],
        AMQP_URL=broker.amqp_url,
        RABBITMQ_MANAGEMENT_URL=broker.management_url,
        SERVICES_PASSWORD=PASSWORD,
    )
    order_id = await world.an_order()

    await asyncio.to_thread(broker.stop)
    await until(lambda: _not_ready(world))
    assert "broker" in await terminal.type("./tender api GET $MONITORING_URL/health/ready", well=False)
    assert (await world.quote(order_id)).status == 503

    ground.lose_broker_disk()
    await asyncio.to_thread(broker.start)
    assert "Declared" in await terminal.type("./tender topology")
    assert await _users(broker.management_url) == {"tender"}
    assert await _not_ready(world)
    assert "tender_payments" in await terminal.type("./tender broker-users")
    assert '"ready"' in await terminal.type("./tender api GET $MONITORING_URL/health/ready --wait")
    await until(lambda: _all_are_ready(ground))
    assert await _is_quoted(world, order_id)
    assert (await (await world.a_payment()).capture()).status == 201
    await terminal.type("./tender outcomes list")


async def _users(management_url: str) -> set[str]:
    async with management(management_url) as http:
        return {user["name"] for user in (await http.get("/api/users")).json()}


async def _all_are_ready(ground: Ground) -> bool:
    urls = [
        f"{ground.system.monitoring_url(name)}/health/ready" for name in ("gateway", "payments", "webhooks", "fulfillment", "reconciler")
    ]
    return [(await ground.world.http.get(url)).status_code for url in urls] == [200] * len(urls)


async def _not_ready(world: World) -> bool:
    return (await world.http.get(f"{world.monitoring['gateway']}/health/ready")).status_code == 503


async def _is_quoted(world: World, order_id: Any) -> bool:
    return (await world.quote(order_id)).status == 201


async def test_database_down(ground: Ground) -> None:
    world, began = ground.world, now()
    terminal = Terminal(
        "database-down",
        world,
        MONITORING_URL=world.monitoring["gateway"],
        DATABASE_URL=world.place.database_url,
        AMQP_URL=ground.broker.amqp_url,
        SERVICES_PASSWORD=PASSWORD,
        PROVIDER="sandbox",
        OUTAGE_BEGAN=began,
    )
    order_id = await world.an_order()

    await asyncio.to_thread(ground.database.stop)
    await until(lambda: _not_ready(world))
    assert "database" in await terminal.type("./tender api GET $MONITORING_URL/health/ready", well=False)

    await asyncio.to_thread(ground.database.start)
    assert "Nothing to do" in await terminal.type("./tender migrate")
    assert '"ready"' in await terminal.type("./tender api GET $MONITORING_URL/health/ready --wait")
    await until(lambda: _is_quoted(world, order_id))
    assert "completed" in await terminal.type("./tender reconcile run")
    await terminal.type("./tender reconcile drift")
    await terminal.type("./tender outcomes list")


async def test_key_rotation(own_place: Place, tmp_path: Path) -> None:
    keys.make(tmp_path)
    async with a_shop(own_place, tmp_path) as world:
        path = "/api/v1/admin/providers/easypost/credentials"
        assert (await world.send("PUT", path, {"fields": {"api_key": "EZTK_old"}})).status == 200
        words = {"PROVIDER": "easypost", "NEW_KEY": SANDBOX_KEY, "OLD_VERSION": "1"}
        terminal = Terminal("key-rotation", world, VAULT_FOLDER=str(tmp_path), DATABASE_URL=own_place.database_url, **words)
        terminal.knows(TENDER_KEY=world.keys[Role.ADMIN])

        assert "everything is sealed with version 2" in await terminal.type("./tender keys rotate")
        assert '"version":2' in await terminal.type("./tender api PUT")
        assert '"accepted"' in await terminal.type("./tender api POST")
        await terminal.type("./tender api DELETE")

        shown = _as_json(await terminal.type("./tender api GET"))
    assert [(c["version"], c["key_version"]) for c in shown["credentials"] if c["active"]] == [(2, 2)]


def _as_json(shown: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = msgspec.json.decode(shown)
    return found


def test_every_command_of_every_runbook_was_typed() -> None:
    runbooks = sorted(file.stem for file in RUNBOOKS.glob("*.md") if file.stem != "README")

    assert {name: [c for c in commands_of(name) if c not in typed.get(name, set())] for name in runbooks} == {name: [] for name in runbooks}


def test_every_metric_that_a_runbook_names_is_there() -> None:
    shown = telemetry.shown_metrics()
    named = {metric for file in RUNBOOKS.glob("*.md") for metric in METRIC.findall(file.read_text())}

    assert named
    assert [metric for metric in sorted(named) if metric.removesuffix("_total") not in shown] == []
