"""EasyPost: what we send, by its recorded exchanges; its own library against the sandbox's face; and a parcel's whole life through it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import easypost
import msgspec
import pypdfium2
import pytest
from easypost.errors import InvalidRequestError, NotFoundError

from deploy.sandbox.server import Sandbox
from services.fulfillment.domain.shipping.labels import LabelStatus
from services.fulfillment.domain.shipping.tracking import TrackingStatus
from services.fulfillment.providers import CarrierRefused, LabelRequest, RatesRequest
from services.fulfillment.providers.easypost import EasyPost, shipment_body
from shared.contracts.fulfillment.pricing import PackageBody
from shared.contracts.orders import Address, OrderContent
from shared.ids import new_id
from tests.fulfillment import shop
from tests.fulfillment.shop import an_order, ok, quote
from tests.journeys.test_shipping import buy, document, is_at, void
from tests.provider_facts.shipments import a_rates_request
from tests.world import SANDBOX_KEY, Place, World, a_sandbox, a_world, until

HOME = Address(
    name="Jack Sparrow", street_address="388 Townsend St", city="San Francisco", country_area="CA", postal_code="94107", country_code="US"
)
AWAY = Address(
    name="Elizabeth Swan", street_address="179 N Harbor Dr", city="Redondo Beach", country_area="CA", postal_code="90277", country_code="US"
)
TOKYO = Address(
    name="Haruka", street_address="1-2-3 Ginza", city="Chuo-ku", country_area="Tokyo", postal_code="104-0061", country_code="JP"
)
SHIRTS: dict[str, Any] = {
    "product_variant_id": "0192f0c1-7e00-7000-8000-000000000001",
    "name": "Sweet shirts",
    "quantity": 2,
    "unit_price": 2325,
    "weight_grams": 156,
    "customs": {"hs_code": "654321", "origin_country": "US", "description": "Sweet shirts"},
}
CONTENT = msgspec.convert({"currency": "USD", "items": [SHIRTS]}, OrderContent)
PACKAGE = PackageBody(weight_grams=437, length_mm=254, width_mm=204, height_mm=101)
# The names in EasyPost's recorded request that bought a shipment (easypost-python, tests/cassettes/test_shipment_buy.yaml), and "company",
# which its address has (EasyPost/examples, official/docs/responses/addresses-create.json).
ADDRESS_NAMES = {"name", "company", "street1", "street2", "city", "state", "zip", "country", "email", "phone"}
CUSTOMS_NAMES = {
    *("eel_pfc", "customs_certify", "customs_signer", "contents_type", "contents_explanation", "restriction_type", "non_delivery_option"),
    "customs_items",
}
# "currency" is among those of the answer (shipments-buy.json).
CUSTOMS_ITEM_NAMES = {"description", "quantity", "weight", "value", "hs_tariff_number", "origin_country", "currency"}


def asked(there: Address = AWAY, **changes: Any) -> RatesRequest:
    return a_rates_request(**{"ship_from": HOME, "ship_to": there, "packages": (PACKAGE,), "content": CONTENT, **changes})


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
async def carrier(sandbox: Sandbox) -> AsyncIterator[EasyPost]:
    made = EasyPost(base_url=sandbox.base_url, api_key=SANDBOX_KEY, timeout_seconds=1.0)
    yield made
    await made.close()


async def a_rate(carrier: EasyPost, there: Address = AWAY) -> str:
    return next(rate.provider_rate_id for rate in await carrier.rates(asked(there)) if rate.service == "Sandbox Ground")


class TestWhatIsSent:
    def test_bears_the_names_of_the_recorded_request(self) -> None:
        shipment = shipment_body(asked(TOKYO))["shipment"]

        assert shipment.keys() <= {"from_address", "to_address", "parcel", "customs_info", "options", "reference"}
        for side in ("from_address", "to_address"):
            assert shipment[side].keys() <= ADDRESS_NAMES
        assert shipment["parcel"].keys() == {"length", "width", "height", "weight"}
        assert shipment["customs_info"].keys() <= CUSTOMS_NAMES
        assert shipment["customs_info"]["customs_items"][0].keys() <= CUSTOMS_ITEM_NAMES

    def test_weighs_in_ounces_and_measures_in_inches_rounded_up(self) -> None:
        # 437 g are 15.41 oz, but 15.4 oz are 437 g to the gram; 254 mm are 10 in, 204 mm 8.03 in, 101 mm 3.98 in.
        assert shipment_body(asked())["shipment"]["parcel"] == {"weight": 15.4, "length": 10.0, "width": 8.1, "height": 4.0}

    def test_values_goods_for_customs_in_the_currency(self) -> None:
        [item] = shipment_body(asked(TOKYO))["shipment"]["customs_info"]["customs_items"]

        assert (item["value"], item["currency"], item["quantity"]) == ("46.50", "USD", 2)

    def test_says_nothing_of_customs_at_home(self) -> None:
        assert "customs_info" not in shipment_body(asked())["shipment"]


class TestItsOwnLibrary:
    @pytest.fixture
    def client(self, sandbox: Sandbox) -> easypost.EasyPostClient:
        return easypost.EasyPostClient(SANDBOX_KEY, api_base=f"{sandbox.base_url}/v2")

    async def test_buys_tracks_and_refunds(self, client: easypost.EasyPostClient, sandbox: Sandbox) -> None:
        body = shipment_body(asked())["shipment"]

        def story() -> Any:
            shipment = client.shipment.create(**body)
            bought = client.shipment.buy(shipment.id, rate=shipment.lowest_rate())
            again = client.shipment.retrieve(shipment.id)
            tracker = client.tracker.all(tracking_code=bought.tracking_code).trackers[0]
            refunded = client.shipment.refund(shipment.id)
            return shipment, bought, again, tracker, refunded

        shipment, bought, again, tracker, refunded = await asyncio.to_thread(story)

        assert [type(each).__name__ for each in (shipment, shipment.rates[0], bought.postage_label, tracker)] == [
            "Shipment",
            "Rate",
            "PostageLabel",
            "Tracker",
        ]
        assert shipment.lowest_rate().service == "Economy"
        assert again.selected_rate.id == shipment.lowest_rate().id
        assert tracker.tracking_code == bought.tracking_code
        # The cheapest service is billed when it is scanned.
        assert refunded.refund_status == "not_applicable"

    async def test_hears_why_not(self, client: easypost.EasyPostClient) -> None:
        def twice() -> Any:
            shipment = client.shipment.create(**shipment_body(asked())["shipment"])
            client.shipment.buy(shipment.id, rate=shipment.lowest_rate())
            client.shipment.buy(shipment.id, rate=shipment.lowest_rate())

        with pytest.raises(InvalidRequestError, match="already exists"):
            await asyncio.to_thread(twice)
        with pytest.raises(NotFoundError):
            await asyncio.to_thread(lambda: client.shipment.retrieve("shp_0"))


class TestTheAdapter:
    async def test_rates(self, carrier: EasyPost) -> None:
        rates = await carrier.rates(asked())

        assert [(rate.service, rate.amount, rate.currency) for rate in rates] == [
            # By its volume it weighs a little over a kilogram.
            ("Sandbox Economy", 430, "USD"),
            ("Sandbox Ground", 570, "USD"),
            ("Sandbox Express", 1470, "USD"),
        ]
        assert all(rate.expires_at is not None and rate.expires_at > datetime.now(UTC) for rate in rates)

    async def test_takes_one_package(self, carrier: EasyPost) -> None:
        with pytest.raises(CarrierRefused, match="one package"):
            await carrier.rates(asked(packages=(PACKAGE, PACKAGE)))

    async def test_a_label_as_pdf_and_for_label_printers(self, carrier: EasyPost) -> None:
        pdf = await carrier.buy(wanted(await a_rate(carrier)), reference=new_id())
        zpl = await carrier.buy(wanted(await a_rate(carrier), document="zpl", insured_amount=5_000), reference=new_id())

        assert (pdf.amount, pdf.currency, pdf.status) == (570, "USD", LabelStatus.PURCHASED)
        assert len(pypdfium2.PdfDocument(pdf.packages[0].document)) == 1
        assert zpl.packages[0].document.startswith(b"^XA")

    async def test_bought_twice_it_is_the_same_label(self, carrier: EasyPost, sandbox: Sandbox) -> None:
        request, before = wanted(await a_rate(carrier)), len(sandbox.carrier.labels)

        first = await carrier.buy(request, reference=new_id())
        second = await carrier.buy(request, reference=new_id())

        assert (second, len(sandbox.carrier.labels)) == (first, before + 1)

    def test_a_published_tracker_is_read(self) -> None:
        # EasyPost/examples, official/docs/responses/trackers-retrieve.json.
        place = {"object": "TrackingLocation", "city": "HOUSTON", "state": "TX", "country": None, "zip": "77063"}
        detail = {
            "object": "TrackingDetail",
            "message": "Shipping Label Created",
            "status": "pre_transit",
            "status_detail": "status_update",
            "datetime": "2025-04-10T09:17:17Z",
            "tracking_location": place,
        }
        tracker = {
            "object": "Tracker",
            "tracking_code": "EZ1000000001",
            "status": "pre_transit",
            "est_delivery_date": "2025-05-09T20:40:17Z",
            "tracking_details": [detail],
        }
        carrier = EasyPost(base_url="https://api.easypost.com", api_key="k", timeout_seconds=1)

        news = carrier.read_event("tracker.updated", msgspec.json.encode({"id": "evt_1", "object": "Event", "result": tracker}))

        [event] = news.events
        assert (event.tracking_number, event.status, event.location) == ("EZ1000000001", TrackingStatus.PRE_TRANSIT, "HOUSTON, TX")

    @pytest.mark.parametrize("body", [b"{", b'{"result":{"object":"Tracker"}}', b'{"result":{"object":"Refund","status":"x"}}', b"[]"])
    def test_what_cannot_be_read(self, carrier: EasyPost, body: bytes) -> None:
        with pytest.raises(ValueError, match="Error"):
            carrier.read_event("tracker.updated", body)


class TestThroughTheSystem:
    async def test_quoted_bought_tracked_by_webhook_and_given_back(self, own_place: Place) -> None:
        async with a_world(own_place, fulfillment={}, webhooks={}) as world:
            await shop.set_up(world, carriers=["easypost"])
            order_id = await an_order(world)
            snapshot = await ok(await quote(world, order_id, shipping_service="Sandbox Ground"))
            uninsurable = await buy(world, order_id, insured_amount=5_000)
            label = (await ok(await buy(world, order_id)))["label"]
            for _ in range(5):
                number = label["tracking_numbers"][0]
                await world.http.post(f"{world.sandbox.base_url}/control/parcels/{number}/move", json={})
            await until(lambda: is_at(world, order_id, "delivered"))
            rejected = await ok(await void(world, order_id, label["id"]))
            printed = await document(world, order_id, label["id"])
            other = await self._given_back(world)

        # It insures in dollars alone.
        assert (uninsurable.status, uninsurable.code) == (422, "unsupported-by-provider")
        assert snapshot["providers"]["shipping"]["name"] == "easypost"
        assert (label["carrier"], label["status"], rejected["status"]) == ("easypost", "purchased", "rejected")
        assert printed.content.startswith(b"%PDF")
        assert other == ("refunded", 409, "rate-expired")

    async def _given_back(self, world: World) -> tuple[str, int, str]:
        order_id = await an_order(world)
        await ok(await quote(world, order_id, shipping_service="Sandbox Ground"))
        label = (await ok(await buy(world, order_id)))["label"]
        back = await ok(await void(world, order_id, label["id"]))
        again = await buy(world, order_id)
        return back["status"], again.status, again.code
