"""Tax documents: recorded at the provider that worked them out, and reconciled with its books over the API."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from tests.fulfillment import shop
from tests.fulfillment.engines.test_providers import ITEM, SEATTLE
from tests.fulfillment.shop import an_order, finalize, ok, quote
from tests.locks import is_free, is_held, table_held
from tests.reconciler.books import a_run, brief, drift, make_drift
from tests.world import Payment, Place, World, a_world, until

# Of 49.90 and 7.95 in cents.
TAX = 599


@pytest.fixture(scope="module", params=["taxjar", "avalara"])
async def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
async def world(place: Place, engine: str) -> AsyncIterator[World]:
    async with a_shop(place, engine) as made:
        yield made


@contextlib.asynccontextmanager
async def a_shop(place: Place, engine: str) -> AsyncIterator[World]:
    """A shop in New Jersey whose tax a provider works out."""
    async with a_world(place, fulfillment={"file_every_seconds": 0.1}, reconciler={}) as made:
        ship_from = {**SEATTLE, "country_area": "NJ", "postal_code": "07446", "city": "Ramsey"}
        await shop.set_up(made, tax_provider=engine, home_country="US", ship_from=ship_from)
        yield made


async def a_sale(world: World, **address: str) -> Payment:
    """An order that is paid and whose tax is finalized."""
    payment, snapshot_id = await a_paid_order(world, **address)
    await ok(await finalize(world, payment.order_id, snapshot_id))
    return payment


async def a_paid_order(world: World, **address: str) -> tuple[Payment, str]:
    """An order that is paid, and the snapshot that was."""
    order_id = await an_order(world, currency="USD", items=[ITEM], shipping_amount=795, shipping_address={**SEATTLE, **address})
    snapshot = await ok(await quote(world, order_id))
    paid = await ok(await world.authorize(order_id, snapshot["snapshot_id"]))
    payment = Payment(world, order_id, UUID(paid["intent"]["id"]))
    await ok(await payment.capture())
    return payment, snapshot["snapshot_id"]


async def documents(world: World, order_id: UUID) -> list[Any]:
    return list((await ok(await world.send("GET", f"/api/v1/admin/orders/{order_id}/tax")))["documents"])


async def recorded(world: World, order_id: UUID, count: int) -> list[Any]:
    """Wait until so many documents of an order stand in the provider's books; gives them as these have them."""

    async def there() -> Any:
        ours = await documents(world, order_id)
        theirs = [world.sandbox.taxes.documents.get(document["id"]) for document in ours]
        rows = await world.rows("SELECT status FROM fulfillment.tax_filings WHERE document_id = ANY($1)", [UUID(d["id"]) for d in ours])
        return theirs if len(ours) == count and all(theirs) and {row["status"] for row in rows} == {"filed"} else None

    return list(await until(there))


async def found_of(world: World, order_id: UUID, **filters: str) -> list[Any]:
    return [item for item in await drift(world, domain="tax", **filters) if item["order_id"] == str(order_id)]


async def test_sales_and_reversals_are_recorded_once_and_agree(world: World, engine: str) -> None:
    payment = await a_sale(world)
    await recorded(world, payment.order_id, 1)
    await ok(await payment.refund(3192))
    sale, reversal = await recorded(world, payment.order_id, 2)

    run = await a_run(world, "tax", engine)

    assert (sale.kind, float(sale.amount), float(sale.tax)) == ("sale", 57.85, TAX / 100)
    # Half of what was paid goes back, and half of each tax with it.
    assert (reversal.kind, reversal.reference, float(reversal.tax)) == ("reversal", sale.key, -3.0)
    assert float(reversal.amount) + float(reversal.tax) == pytest.approx(-31.92)
    assert (run["compared"], run["drift_found"]) == (2, 0)


async def test_what_rounds_a_total_is_no_part_of_a_document(world: World, engine: str) -> None:
    """63.84 are rounded to 63.85; providers know of the sale and its tax alone."""
    settings = (await ok(await world.send("GET", "/api/v1/admin/fulfillment/settings")))["settings"]
    await ok(await world.send("PUT", "/api/v1/admin/fulfillment/settings", {**settings, "total_steps": {"USD": 5}}))
    payment = await a_sale(world)
    await ok(await world.send("PUT", "/api/v1/admin/fulfillment/settings", settings))
    await recorded(world, payment.order_id, 1)
    await ok(await payment.refund())
    sale, reversal = await recorded(world, payment.order_id, 2)

    await a_run(world, "tax", engine)

    assert (float(sale.amount), float(sale.tax)) == (57.85, TAX / 100)
    assert (float(reversal.amount), float(reversal.tax)) == (-57.85, -TAX / 100)
    assert not await found_of(world, payment.order_id)


@pytest.mark.parametrize("city", ["Late Harbour", "Failing Once", "Silent Once"])
async def test_whatever_befalls_the_call_a_document_is_recorded_once(world: World, engine: str, city: str) -> None:
    payment = await a_sale(world, city=city)

    [document] = await recorded(world, payment.order_id, 1)

    assert float(document.tax) == TAX / 100


async def test_what_the_provider_lost_or_changed_waits(world: World, engine: str) -> None:
    lost, changed = await a_sale(world), await a_sale(world)
    [first], [second] = await recorded(world, lost.order_id, 1), await recorded(world, changed.order_id, 1)
    await make_drift(world, "taxes", first.key, forget=True)
    await make_drift(world, "taxes", second.key, amount=600)

    await a_run(world, "tax", engine)
    await a_run(world, "tax", engine)

    assert brief(await found_of(world, lost.order_id)) == [("missing_at_provider", "", "open")]
    [item] = await found_of(world, changed.order_id)
    assert (item["type"], item["entry"].partition(" ")[0], item["ours"]["amount"], item["theirs"]["amount"]) == (
        "amount",
        "sale_tax",
        TAX,
        600,
    )


async def test_a_document_that_we_never_recorded_is_found(world: World, engine: str) -> None:
    payment = await a_sale(world)
    [document] = await recorded(world, payment.order_id, 1)
    twin = await make_drift(world, "taxes", document.key, duplicate=True)

    await a_run(world, "tax", engine)

    assert [item["type"] for item in await drift(world, status="open") if item["key"] == twin["id"]] == ["missing_locally"]


async def test_another_currency_or_a_document_struck_out_is_found_where_the_provider_says_such(second_place: Place) -> None:
    async with a_shop(second_place, "avalara") as world:
        other, struck_out = await a_sale(world), await a_sale(world)
        [first], [second] = await recorded(world, other.order_id, 1), await recorded(world, struck_out.order_id, 1)
        await make_drift(world, "taxes", first.key, currency="CAD")
        await make_drift(world, "taxes", second.key, status="Cancelled")

        await a_run(world, "tax", "avalara")

        assert {each[0] for each in brief(await found_of(world, other.order_id))} == {"currency"}
        assert {each[0] for each in brief(await found_of(world, struck_out.order_id))} == {"status"}


FILING = "SELECT * FROM fulfillment.tax_filings WHERE document_id IN (SELECT id FROM fulfillment.tax_documents WHERE order_id = $1)"
TAKEN_OVER = (
    "UPDATE fulfillment.tax_filings SET lease_token = lease_token + 1, lease_expires_at = now() + interval '1 hour' WHERE document_id = $1"
)
LEASE_ENDS = "UPDATE fulfillment.tax_filings SET lease_expires_at = now(), next_look_at = now() WHERE document_id = $1"


async def test_document_is_marked_by_the_one_that_has_it(world: World) -> None:
    """For a document that is written down as recorded by a process that lost it, while another process is at it."""
    payment, snapshot_id = await a_paid_order(world)
    await shop.pay(world, payment.order_id, snapshot_id)
    # The provider is called; what came of it cannot be written yet, with the audit of the call.
    async with table_held(world, "fulfillment.provider_call_audit") as let_go:
        await ok(await finalize(world, payment.order_id, snapshot_id))
        await until(partial(is_held, world))
        [filing] = await world.rows(FILING, payment.order_id)
        await world.change(TAKEN_OVER, filing["document_id"])
        await let_go()
        await until(partial(is_free, world))

    [lost] = await world.rows(FILING, payment.order_id)
    await world.change(LEASE_ENDS, filing["document_id"])

    assert (filing["lease_token"], lost["lease_token"], lost["status"]) == (1, 2, "pending")
    await recorded(world, payment.order_id, 1)
