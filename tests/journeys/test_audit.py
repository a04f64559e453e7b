"""What staff do leaves a row each: who, what, when, and how it was before and after; and nothing secret."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from services.gateway.domain import Role
from shared.contracts.dead_letters import Action
from shared.ids import new_id
from tests.fulfillment import shop
from tests.fulfillment.shop import an_order, finalize, ok, quote
from tests.reconciler.books import a_run, drift
from tests.reconciler.letters import an_envelope, park, the_letter
from tests.reconciler.test_settlements import a_line, a_report, brought_in
from tests.world import Payment, Place, World, a_world

SCHEMAS = ("gateway", "payments", "fulfillment", "webhooks", "reconciler")
SECRET = f"sk_test_{new_id().hex}"
REASON = "a busy day"
CAPTURE = {"order_id": str(new_id()), "intent_id": str(new_id()), "idempotency_key": "planted", "amount": 1}


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}, webhooks={"allow_private_endpoints": True}, reconciler={}) as made:
        await shop.set_up(made, carriers=["sandbox"])
        yield made


# What staff's commands say of themselves beyond that they were called for: the action, and which sides of the change they show.
WORDS: dict[str, set[str]] = {
    "fulfillment_settings.put": {"after"},
    "tax_rule.put": {"after"},
    "tax_rule.delete": {"before"},
    "nexus.put": {"after"},
    "nexus.delete": {"before"},
    "exemption.put": {"after"},
    "exemption.delete": {"before"},
    "webhook_endpoint.put": {"after"},
    "webhook_endpoint.recover": {"after"},
    "webhook_endpoint.delete": {"before"},
    "credential.put": {"after"},
    "credential.verify": {"after"},
    "credential.retire": {"before", "after"},
    "reconciliation.start": {"after"},
    "settlements.import": {"after"},
    "drift.resolve": {"before", "after", "reason"},
    "dead_letter.retry": {"before", "after", "reason"},
    "dead_letter.discard": {"before", "after", "reason"},
    "dead_letter.edit": {"before", "after", "reason"},
    "dead_letters.retry": {"after", "reason"},
    "dead_letters.discard": {"after", "reason"},
    "redrive.stop": {"before", "after", "reason"},
}
# These need a provider that does not answer or books that differ, and are looked at where such are made.
ELSEWHERE = {
    "label.decide": "tests/journeys/test_shipping.py",
    "outcome.decide": "tests/journeys/test_unknown.py",
    "payment.accept": "tests/payments/test_attention.py",
}
ROOT = Path(__file__).parents[2]
NAMED = re.compile(r'\.audit\(\s*f?"([^"]+)"')


async def audited(world: World) -> dict[UUID, Any]:
    """Every row that staff have left, by the operation's id."""
    found = [row for schema in SCHEMAS for row in await world.rows(f"SELECT * FROM {schema}.admin_audit")]
    return {row["id"]: row for row in found}


async def a_busy_day(world: World, folder: Path) -> None:
    """About everything that staff can do, as two of them."""

    async def send(method: str, path: str, body: Any = None, **how: Any) -> Any:
        return await ok(await world.send(method, f"/api/v1/admin/{path}", body, **how))

    order_id = await an_order(world)
    snapshot = await ok(await quote(world, order_id, shipping_service="ground"))
    paid = await ok(await world.authorize(order_id, snapshot["snapshot_id"], token=world.keys[Role.ADMIN]))
    payment = Payment(world, order_id, UUID(paid["intent"]["id"]))
    await ok(await payment.capture(token=world.keys[Role.OPERATOR]))
    await ok(await payment.refund(100))
    await ok(await (await world.a_payment()).void())
    await ok(await finalize(world, order_id, snapshot["snapshot_id"]))
    label = await send("POST", f"orders/{order_id}/shipping/labels", {})
    await send("POST", f"orders/{order_id}/shipping/labels/{label['label']['id']}/void")
    rule = await send("POST", "tax/rules", shop.a_rule("JP", "CT", "10"))
    await send("PUT", f"tax/rules/{rule['id']}", shop.a_rule("JP", "CT", "8"))
    await send("DELETE", f"tax/rules/{rule['id']}")
    nexus = await send("POST", "tax/nexus", {"country": "JP", "valid_from": "2024-01-01"})
    await send("DELETE", f"tax/nexus/{nexus['id']}")
    certificate = {"customer_id": str(new_id()), "certificate": "1", "country": "DE", "valid_from": "2024-01-01"}
    exemption = await send("POST", "tax/exemptions", certificate)
    await send("DELETE", f"tax/exemptions/{exemption['id']}")
    endpoint = await send("POST", "webhook-endpoints", {"url": "http://127.0.0.1:9/hook"})
    await send("POST", f"webhook-endpoints/{endpoint['id']}/recover", {"since": datetime.now(UTC).isoformat()})
    await send("POST", f"webhook-endpoints/{endpoint['id']}/rotate-secret")
    await send("DELETE", f"webhook-endpoints/{endpoint['id']}")
    await send("PUT", "providers/stripe/credentials", {"fields": {"api_key": SECRET}})
    await send("POST", "providers/stripe/credentials/verify", {})
    await send("DELETE", "providers/stripe/credentials")
    await a_run(world)
    await brought_in(world, a_report(folder, a_line("pi_strangers", "charge", "100.00")))
    [missing, *_] = await drift(world, provider="stripe")
    await send("POST", f"reconciliation/drift/{missing['id']}/resolve", {"action": "accepted", "reason": REASON})
    for what in ("retry", "discard", "edit"):
        dead = await a_letter(world)
        body = {"body": {**CAPTURE, "amount": 2}} if what == "edit" else {}
        await send("POST", f"dead-letters/{dead['id']}/{what}", {**body, "reason": REASON})
    left = (await a_letter(world))["id"]
    for action in ("discard", "retry"):
        redrive = await send("POST", "dead-letters/redrives", {"action": action, "ids": [left], "reason": REASON, "rate_per_second": 0.001})
    await world.change(STILL_RUNNING, UUID(redrive["id"]))
    await send("POST", f"dead-letters/redrives/{redrive['id']}/stop", {"reason": REASON})


# However slow the machine is: a process that was at it has lost its lease.
STILL_RUNNING = """
    UPDATE reconciler.redrives
       SET status = 'running', finished_at = NULL, lease_token = lease_token + 1, next_try_at = now() + interval '1 hour'
     WHERE id = $1
"""


async def a_letter(world: World) -> Any:
    """A capture among the dead letters."""
    envelope = an_envelope(world)
    await park(world, "payments", "payments.capture.v1", CAPTURE, envelope)
    return await the_letter(world, envelope.id)


def test_every_action_is_looked_at() -> None:
    """For an action that is added to the code and to no test."""
    sources = [path.read_text() for folder in ("services", "shared") for path in (ROOT / folder).rglob("*.py")]
    named = {name for text in sources for name in NAMED.findall(text)} - {"dead_letters.{command.action.value}"}

    assert named | {f"dead_letters.{action.value}" for action in Action} == WORDS.keys() | ELSEWHERE.keys()
    assert [name for name, place in ELSEWHERE.items() if name not in (ROOT / place).read_text()] == []


async def test_whatever_staff_had_carried_out_left_a_row(world: World, tmp_path: Path) -> None:
    await a_busy_day(world, tmp_path)

    done = await world.rows(
        """
        SELECT operation_id, actor, command_type
          FROM gateway.idempotency_keys
         WHERE status = 'completed' AND response_code < 300 AND (actor LIKE 'admin:%' OR actor LIKE 'operator:%')
        """
    )
    rows = await audited(world)
    assert len({row["command_type"] for row in done}) > 20
    assert [row["command_type"] for row in done if row["operation_id"] not in rows] == []
    assert [row["command_type"] for row in done if rows[row["operation_id"]]["actor"] != row["actor"]] == []
    assert SECRET not in str(rows)
    # A command that says nothing of itself leaves a row of its bare type.
    said = {(row["action"], side) for row in rows.values() for side in ("before", "after", "reason") if row[side]}
    assert {(action, side) for action, sides in WORDS.items() for side in sides} - said == set()
    assert {row["reason"] for row in rows.values() if "reason" in WORDS.get(row["action"], ())} == {REASON}


async def test_what_was_configured_is_told_before_and_after(world: World) -> None:
    rule = await ok(await world.send("POST", "/api/v1/admin/tax/rules", shop.a_rule("KR", "VAT", "10")))
    await ok(await world.send("PUT", f"/api/v1/admin/tax/rules/{rule['id']}", shop.a_rule("KR", "VAT", "12")))

    told = [row for row in (await audited(world)).values() if row["subject"] == rule["id"]]
    told.sort(key=lambda row: row["happened_at"])

    def rate(side: str | None) -> Any:
        return None if side is None else msgspec.json.decode(side).get("rate_percent") or msgspec.json.decode(side)["rule"]["rate_percent"]

    assert [(row["action"], rate(row["before"]), rate(row["after"])) for row in told] == [
        ("tax_rule.put", None, "10"),
        ("tax_rule.put", "10", "12"),
    ]


async def test_shoppers_leave_none(world: World) -> None:
    order_id = await an_order(world)
    before = set(await audited(world))

    snapshot = await ok(await world.quote(order_id, role=Role.CHECKOUT))
    await ok(await world.authorize(order_id, snapshot["snapshot_id"], role=Role.CHECKOUT))

    assert set(await audited(world)) == before
