"""Every object that is simulated has the shape of the recorded ones, and the adapter reads objects that have the least that any has."""

from typing import Any

import msgspec
import pytest

from services.fulfillment.domain.shipping.tracking import TrackingStatus
from services.fulfillment.providers.easypost import EasyPost
from tests.answers.scripted import Reply, a_scripted_server
from tests.provider_facts.easypost.conftest import EasyPostApi
from tests.provider_facts.easypost.shapes import least, unfit
from tests.provider_facts.shipments import TOKYO, a_rates_request


async def test_simulated_shipments_have_the_recorded_shape(api: EasyPostApi) -> None:
    made, abroad = await api.create(), await api.create(ship_to=TOKYO)
    bought = await api.buy(abroad, insurance="249.99")
    api.move(bought)
    converted = await api.get(f"shipments/{bought['id']}/label", file_format="ZPL")
    refunded = (await api.post(f"shipments/{bought['id']}/refund")).json()
    listed = await api.get("shipments")

    assert list(unfit([made, bought, converted, refunded, listed, await api.get(f"shipments/{bought['id']}")])) == []
    assert (bought["insurance"], bought["customs_info"]["customs_items"][0]["value"]) == ("249.99", "46.50")
    assert listed.keys() == {"shipments", "has_more"}


async def test_simulated_trackers_and_events_have_the_recorded_shape(api: EasyPostApi) -> None:
    bought = await api.a_label()
    for _ in range(5):
        api.move(bought)

    trackers = await api.get("trackers", tracking_code=bought["tracking_code"])
    events = [msgspec.json.decode(event.body) for event in api.sandbox.easypost.events.values()]

    assert trackers.keys() == {"trackers", "has_more"}
    assert len(trackers["trackers"][0]["tracking_details"]) == 5
    assert list(unfit([trackers, events])) == []
    assert {event["result"]["object"] for event in events} >= {"Tracker"}


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"colour": "red"}, "Rate.colour is unknown"),
        ({"rate": 5.1}, "Rate.rate = 5.1"),
        ({"delivery_days": None}, "Rate.delivery_days = None"),
    ],
    ids=["unknown", "type", "null"],
)
async def test_the_judge_names_what_is_wrong(api: EasyPostApi, changes: dict[str, Any], wrong: str) -> None:
    rate = (await api.create())["rates"][0]

    assert list(unfit({**rate, **changes})) == [wrong]
    assert list(unfit({name: value for name, value in rate.items() if name != "currency"})) == ["Rate.currency is missing"]


async def test_adapter_reads_rates_with_the_least_fields(api: EasyPostApi) -> None:
    shipment = least(await api.create())

    async with a_scripted_server() as server:
        server.reply = Reply(201, msgspec.json.encode(shipment))
        carrier = EasyPost(base_url=server.url, api_key="x", timeout_seconds=2.0)
        rates = await carrier.rates(a_rates_request())
        await carrier.close()

    assert [rate.service for rate in rates] == ["Sandbox Economy", "Sandbox Ground", "Sandbox Express"]


async def test_adapter_reads_trackers_with_the_least_fields(api: EasyPostApi, carrier: EasyPost) -> None:
    bought = await api.a_label()
    api.move(bought)
    tracker = least((await api.get("trackers", tracking_code=bought["tracking_code"]))["trackers"][0])

    news = carrier.read_event("tracker.updated", msgspec.json.encode({"id": "evt_1", "object": "Event", "result": tracker}))

    assert tracker["est_delivery_date"] is None
    assert [(event.status, event.location) for event in news.events] == [(TrackingStatus.PRE_TRANSIT, "")]
