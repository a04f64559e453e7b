"""Shippo: its own library against the sandbox's face, the adapter, and a parcel's whole life through it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import shippo
from shippo.models import components, errors

from deploy.sandbox.server import Sandbox
from services.fulfillment.domain.shipping.labels import LabelStatus
from services.fulfillment.providers import CarrierRefused, LabelRequest, RatesRequest
from services.fulfillment.providers.shippo import Shippo, shipment_body
from shared.contracts.fulfillment.pricing import PackageBody
from shared.contracts.orders import Address, OrderContent
from shared.ids import new_id
from tests.fulfillment import shop
from tests.fulfillment.shop import MUG, an_order, ok, quote
from tests.journeys.test_shipping import buy, document, is_at, sold_under, void
from tests.world import SANDBOX_KEY, Place, World, a_sandbox, a_world, until

HOME = Address(name="Shop", street_address="Karl-Marx-Allee 1", city="Berlin", postal_code="10178", country_code="DE")
AWAY = Address(name="Erika", street_address="Marienplatz 1", city="München", postal_code="80331", country_code="DE")
CONTENT = msgspec.convert(
    {"currency": "EUR", "items": [{"product_variant_id": MUG["product_variant_id"], "name": "Mug", "quantity": 1, "unit_price": 1490}]},
    OrderContent,
)
PACKAGE = PackageBody(weight_grams=437, length_mm=120, width_mm=95, height_mm=101)
IN_A_BOX = {**MUG, "quantity": 1, "dimensions": {"length_mm": 120, "width_mm": 90, "height_mm": 100}}


def asked(there: Address = AWAY, **changes: Any) -> RatesRequest:
    return RatesRequest(**{"ship_from": HOME, "ship_to": there, "packages": (PACKAGE,), "content": CONTENT, **changes})


def wanted(rate_id: str, **changes: Any) -> LabelRequest:
    said: dict[str, Any] = {
        "provider_rate_id": rate_id,
        "service": "Sandbox Ground",
        "ship_from": HOME,
        "ship_to": AWAY,
        "packages": (PACKAGE,),
        "content": CONTENT,
        "document": "pdf",
        "insured_amount": None,
        "is_return": False,
    }
    return LabelRequest(**{**said, **changes})


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with a_sandbox() as made:
        yield made


@pytest.fixture(scope="module")
async def carrier(sandbox: Sandbox) -> AsyncIterator[Shippo]:
    made = Shippo(base_url=sandbox.base_url, api_key=SANDBOX_KEY, timeout_seconds=1.0)
    yield made
    await made.close()


async def a_rate(carrier: Shippo, there: Address = AWAY) -> str:
    return next(rate.provider_rate_id for rate in await carrier.rates(asked(there)) if rate.service == "Sandbox Ground")


class TestItsOwnLibrary:
    @pytest.fixture
    def client(self, sandbox: Sandbox) -> Any:
        return shippo.Shippo(api_key_header=f"ShippoToken {SANDBOX_KEY}", shippo_api_version="2018-02-08", server_url=sandbox.base_url)

    async def test_takes_our_requests_and_the_sandboxs_answers(self, client: Any, sandbox: Sandbox) -> None:
        said = shipment_body(asked())

        def story() -> Any:
            body = components.ShipmentCreateRequest(
                address_from=components.AddressCreateRequest(**said["address_from"]),
                address_to=components.AddressCreateRequest(**said["address_to"]),
                parcels=[
                    components.ParcelCreateRequest(
                        **{
                            **said["parcels"][0],
                            "distance_unit": components.DistanceUnitEnum.CM,
                            "mass_unit": components.WeightUnitEnum.G,
                        }
                    )
                ],
                async_=False,
            )
            shipment = client.shipments.create(body)
            rate = next(each for each in shipment.rates if each.servicelevel.name == "Ground")
            bought = client.transactions.create(
                components.TransactionCreateRequest(rate=rate.object_id, label_file_type=components.LabelFileTypeEnum.PDF_4X6, async_=False)
            )
            return shipment, bought, client.transactions.get(bought.object_id)

        shipment, bought, again = await asyncio.to_thread(story)
        number = bought.tracking_number
        sandbox.carrier.move(number, {})
        tracked = await asyncio.to_thread(lambda: client.tracking_status.get(tracking_number=number, carrier="sandbox"))

        assert [rate.amount for rate in shipment.rates] == ["3.90", "4.90", "12.90"]
        assert (bought.status.value, again.tracking_number) == ("SUCCESS", bought.tracking_number)
        assert tracked.tracking_history[0].status.value == "PRE_TRANSIT"

    async def test_refunds(self, client: Any, carrier: Shippo) -> None:
        bought = await carrier.buy(wanted(await a_rate(carrier)), reference=new_id())

        refund = await asyncio.to_thread(lambda: client.refunds.create(transaction=bought.provider_label_id))

        assert refund.status.value == "QUEUED"
        assert await carrier.status(bought.provider_label_id) is LabelStatus.REFUNDED

    async def test_hears_why_not(self, client: Any) -> None:
        with pytest.raises(errors.SDKError, match="404"):
            await asyncio.to_thread(lambda: client.transactions.get("0"))

    @pytest.mark.parametrize(
        ("packages", "why"), [((PACKAGE, PACKAGE), "one package"), ((PackageBody(weight_grams=1),), "length, width and height")]
    )
    async def test_what_it_does_not_take(self, carrier: Shippo, packages: Any, why: str) -> None:
        with pytest.raises(CarrierRefused, match=why):
            await carrier.rates(asked(packages=packages))

    async def test_what_was_bought_is_found_by_our_reference_and_no_other(self, carrier: Shippo) -> None:
        request, reference = wanted(await a_rate(carrier)), new_id()

        assert await carrier.find(request, reference=reference) is None
        bought = await carrier.buy(request, reference=reference)
        assert await carrier.find(request, reference=reference) == bought
        assert await carrier.find(request, reference=new_id()) is None

    async def test_a_void_is_asked_for_once(self, carrier: Shippo, sandbox: Sandbox) -> None:
        sandbox.carrier.grants_voids = False
        bought = await carrier.buy(wanted(await a_rate(carrier)), reference=new_id())
        before = sandbox.calls.get("label_void", 0)

        first = await carrier.void(bought.provider_label_id, reference=new_id())
        second = await carrier.void(bought.provider_label_id, reference=new_id())

        sandbox.carrier.grants_voids = True
        assert (first, second) == (LabelStatus.VOID_REQUESTED, LabelStatus.VOID_REQUESTED)
        assert sandbox.calls["label_void"] == before + 1

    @pytest.mark.parametrize(
        "body", [b"{", b'{"event":"track_updated","data":{"tracking_history":[{}]}}', b'{"event":"transaction_updated","data":{}}', b"[]"]
    )
    def test_what_cannot_be_read(self, carrier: Shippo, body: bytes) -> None:
        with pytest.raises(ValueError, match="Error"):
            carrier.read_event("", body)


class TestThroughTheSystem:
    async def test_quoted_bought_tracked_by_webhook_and_given_back(self, own_place: Place) -> None:
        async with a_world(own_place, fulfillment={}, webhooks={}) as world:
            await shop.set_up(world, carriers=["shippo"])
            order_id = await an_order(world, items=[IN_A_BOX])
            await ok(await quote(world, order_id, shipping_service="Sandbox Ground"))
            label = (await ok(await buy(world, order_id)))["label"]
            printed = await document(world, order_id, label["id"])
            for _ in range(5):
                number = label["tracking_numbers"][0]
                await world.http.post(f"{world.sandbox.base_url}/control/parcels/{number}/move", json={})
            await until(lambda: is_at(world, order_id, "delivered"))
            other = await an_order(world, items=[IN_A_BOX])
            await ok(await quote(world, other, shipping_service="Sandbox Ground"))
            back = (await ok(await buy(world, other)))["label"]
            refunded = await ok(await void(world, other, back["id"]))

        assert (label["carrier"], label["status"], refunded["status"]) == ("shippo", "purchased", "refunded")
        assert printed.content.startswith(b"%PDF")

    async def test_a_late_or_queued_label_is_found_and_bought_once(self, own_place: Place) -> None:
        async with a_world(own_place, fulfillment={}) as world:
            await shop.set_up(world, carriers=["shippo"])
            for city in ("Late Harbour", "Queueing Harbour"):
                label = await self._bought_for(world, city)

                assert label["status"] == "purchased"
                assert sold_under(world, label["id"]) == 1

    async def _bought_for(self, world: World, city: str) -> Any:
        order_id = await an_order(world, items=[IN_A_BOX], shipping_address={**shop.MUNICH, "city": city})
        await ok(await quote(world, order_id, shipping_service="Sandbox Ground"))
        answer = await buy(world, order_id)
        if answer.status == 201:
            return answer.json["label"]
        return (await until(lambda: _ended(world, answer)))["label"]


async def _ended(world: Any, answer: Any) -> Any:
    operation = await world.operation(answer.headers["Location"])
    return operation["response"] and operation["response"]["body"]
