"""What staff do leaves a row each: who, what, when, and how it was before and after; and nothing secret."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import pytest

from services.gateway.domain import Role
from shared.ids import new_id
from tests.fulfillment import shop
from tests.fulfillment.shop import an_order, finalize, ok, quote
from tests.reconciler.books import a_run
from tests.world import Payment, Place, World, a_world

SCHEMAS = ("gateway", "payments", "fulfillment", "webhooks", "reconciler")
SECRET = f"sk_test_{new_id().hex}"


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}, webhooks={"allow_private_endpoints": True}, reconciler={}) as made:
        await shop.set_up(made, carriers=["sandbox"])
        yield made


async def audited(world: World) -> dict[UUID, Any]:
    """Every row that staff have left, by the operation's id."""
    found = [row for schema in SCHEMAS for row in await world.rows(f"SELECT * FROM {schema}.admin_audit")]
    return {row["id"]: row for row in found}


async def a_busy_day(world: World) -> None:
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
    await send("POST", f"webhook-endpoints/{endpoint['id']}/rotate-secret")
    await send("DELETE", f"webhook-endpoints/{endpoint['id']}")
    await send("PUT", "providers/stripe/credentials", {"fields": {"api_key": SECRET}})
    await send("DELETE", "providers/stripe/credentials")
    await a_run(world)


async def test_whatever_staff_had_carried_out_left_a_row(world: World) -> None:
    await a_busy_day(world)

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
