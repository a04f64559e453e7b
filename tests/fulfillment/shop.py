"""A shop in Berlin that ships by its own table and collects German VAT, and that of the whole EU by the One-Stop-Shop."""

from typing import Any
from uuid import UUID

from shared.ids import new_id
from tests.planted import BUYER
from tests.world import Answer, Payment, World, until

BERLIN = {"name": "Shop", "street_address": "Karl-Marx-Allee 1", "city": "Berlin", "postal_code": "10178", "country_code": "DE"}
MUNICH = {**BUYER, "city": "München", "postal_code": "80331", "country_code": "DE"}
PARIS = {"name": "Jean", "street_address": "1 Rue de Rivoli", "city": "Paris", "postal_code": "75001", "country_code": "FR"}
ZURICH = {"name": "Beat", "street_address": "Bahnhofstrasse 1", "city": "Zürich", "postal_code": "8001", "country_code": "CH"}

TABLE: dict[str, Any] = {
    "zones": [{"name": "home", "country": "DE"}, {"name": "france", "country": "FR"}, {"name": "swiss", "country": "CH"}],
    "tariffs": [
        {"service": "post", "zone": "home", "currency": "EUR", "bands": [{"up_to_grams": 2000, "amount": 490}], "transit_days": 2},
        {"service": "courier", "zone": "home", "currency": "EUR", "bands": [{"up_to_grams": 30000, "amount": 990}], "transit_days": 1},
        {"service": "post", "zone": "france", "currency": "EUR", "bands": [{"up_to_grams": 2000, "amount": 1290}]},
        {"service": "post", "zone": "swiss", "currency": "EUR", "bands": [{"up_to_grams": 2000, "amount": 1990}]},
    ],
}
SETTINGS: dict[str, Any] = {"home_country": "DE", "ship_from": BERLIN, "carriers": ["table_rate"], "table": TABLE}

MUG = {
    "product_variant_id": "0192f0c1-7e00-7000-8000-000000000001",
    "name": "Mug",
    "quantity": 2,
    "unit_price": 1490,
    "weight_grams": 400,
    "tax_behavior": "inclusive",
}
SINCE = "2021-01-01"


def a_rule(country: str, name: str, rate: str, **more: Any) -> dict[str, Any]:
    """Say a rule as the API takes it."""
    return {"country": country, "name": name, "rate_percent": rate, "valid_from": SINCE, "source": "tests", **more}


RULES = (
    a_rule("DE", "MwSt", "19"),
    a_rule("DE", "MwSt", "7", tax_code="books", reason="reduced_rated"),
    a_rule("FR", "TVA", "20"),
    a_rule("FR", "TVA", "5.5", tax_code="books", reason="reduced_rated"),
)


async def ok(answer: Answer) -> Any:
    """Insist that a request was carried out, and give what it says."""
    assert answer.status in (200, 201), answer
    return answer.json


async def set_up(world: World, **settings: Any) -> None:
    """Give the store its settings, rules and registration for the One-Stop-Shop."""
    await ok(await world.send("PUT", "/api/v1/admin/fulfillment/settings", {**SETTINGS, **settings}))
    for rule in RULES:
        await ok(await world.send("POST", "/api/v1/admin/tax/rules", rule))
    await ok(await world.send("POST", "/api/v1/admin/tax/nexus", {"oss": True, "valid_from": SINCE}))


async def an_order(world: World, **changes: Any) -> UUID:
    """Push an order that leaves shipping and tax to be worked out."""
    order_id = new_id()
    content = {"currency": "EUR", "items": [MUG], "shipping_address": MUNICH, **changes}
    await ok(await world.put_order(order_id, content))
    return order_id


async def quote(world: World, order_id: UUID, **more: Any) -> Answer:
    """Quote an order, shipped in a way."""
    return await world.send("POST", "/api/v1/checkout/quote", {"order_id": order_id, **more})


async def pay(world: World, order_id: UUID, snapshot_id: str) -> None:
    """Pay a snapshot that is not paid yet, and wait until fulfillment knows of its payments."""
    if not await world.rows("SELECT FROM payments.payment_intents WHERE snapshot_id = $1", UUID(snapshot_id)):
        paid = await world.authorize(order_id, snapshot_id)
        if paid.status == 201 and paid.json["intent"]["status"] == "authorized":
            await ok(await Payment(world, order_id, UUID(paid.json["intent"]["id"])).capture())
    await until(lambda: told(world, order_id))


async def told(world: World, order_id: UUID) -> bool:
    """Tell whether fulfillment knows how an order's payments stand."""
    return not await world.rows(
        """
        SELECT FROM payments.payment_intents i
         WHERE i.order_id = $1 AND i.status <> 'processing' AND NOT i.superseded
           AND NOT EXISTS (SELECT FROM fulfillment.order_payments p
                            WHERE p.order_id = $1 AND p.intent_id = i.id AND p.version >= i.version)
        """,
        order_id,
    )


async def finalize(world: World, order_id: UUID, snapshot_id: str, **more: Any) -> Answer:
    """Finalize the tax of a snapshot that is paid, or is now."""
    await pay(world, order_id, snapshot_id)
    return await finalize_as_it_is(world, order_id, snapshot_id, **more)


async def finalize_as_it_is(world: World, order_id: UUID, snapshot_id: str, **more: Any) -> Answer:
    """Finalize a snapshot's tax, paid or not."""
    return await world.send("POST", f"/api/v1/checkout/orders/{order_id}/tax/finalize", {"snapshot_id": snapshot_id, **more})
