"""What EasyPost says of a parcel, and which events it sends."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.fulfillment.domain.shipping.labels import LabelStatus
from services.fulfillment.domain.shipping.tracking import TrackingStatus
from services.fulfillment.providers.easypost import STATUSES, VOIDS, EasyPost
from services.webhooks.domain import Account, Incoming
from services.webhooks.providers.plain import EASYPOST
from shared.ids import new_id
from shared.messages import Environment
from tests.provider_facts.easypost.conftest import EasyPostApi
from tests.world import WEBHOOK_SECRET

# docs.easypost.com/docs/trackers: "Possible values" of `status`, and what each is to us.
TRACKER_STATUSES = {
    "unknown": TrackingStatus.UNKNOWN,
    "pre_transit": TrackingStatus.PRE_TRANSIT,
    "in_transit": TrackingStatus.IN_TRANSIT,
    "out_for_delivery": TrackingStatus.OUT_FOR_DELIVERY,
    "delivered": TrackingStatus.DELIVERED,
    "available_for_pickup": TrackingStatus.AVAILABLE_FOR_PICKUP,
    "return_to_sender": TrackingStatus.RETURN_TO_SENDER,
    "failure": TrackingStatus.EXCEPTION,
    "cancelled": TrackingStatus.CANCELLED,
    "error": TrackingStatus.EXCEPTION,
}
# The same page: "Possible values" of `status_detail`.
STATUS_DETAILS = {
    *("address_correction", "arrived_at_destination", "arrived_at_facility", "arrived_at_pickup_location", "awaiting_information"),
    *(
        "cancelled",
        "damaged",
        "delayed",
        "delivery_exception",
        "departed_facility",
        "departed_origin_facility",
        "expired",
        "failure",
        "held",
    ),
    *("in_transit", "label_created", "lost", "missorted", "out_for_delivery", "received_at_destination_facility"),
    *("received_at_origin_facility", "refused", "return", "status_update", "transferred_to_destination_carrier", "transit_exception"),
    *("unknown", "weather_delay"),
}
# EasyPost/examples at 112a6d1 (MIT), official/fixtures/event-body.json, with its signature by the secret of client-library-fixtures.json.
RECORDED_EVENT = (Path(__file__).parent / "recorded_event.json").read_bytes()
NOW = datetime(2024, 8, 2, 19, 26, 52, tzinfo=UTC)
SECRET = "s\u00e9cret"
SIGNATURE = "hmac-sha256-hex=38f3f53c103713df81616a0a186d77141957323ec21d5fe9363db93840f527db"


def an_account(secret: str) -> Account:
    return Account(provider="easypost", store_id=new_id(), environment=Environment.SANDBOX, account="tests", secrets=(secret,), url="")


class TestStatuses:
    def test_adapter_knows_every_status(self) -> None:
        assert STATUSES == TRACKER_STATUSES

    @pytest.mark.parametrize("status", TrackingStatus)
    async def test_simulation_says_documented_words_alone(self, api: EasyPostApi, carrier: EasyPost, status: TrackingStatus) -> None:
        bought = await api.a_label()
        api.move(bought, status=status.value, code="own_word")

        tracker = (await api.get("trackers", tracking_code=bought["tracking_code"]))["trackers"][0]
        [event] = await carrier.track(bought["tracking_code"], provider_label_id=bought["id"])

        [detail] = tracker["tracking_details"]
        assert {tracker["status"], detail["status"]} <= TRACKER_STATUSES.keys()
        assert {tracker["status_detail"], detail["status_detail"]} <= STATUS_DETAILS
        # It has no word for picked up.
        assert event.status is (TrackingStatus.IN_TRANSIT if status is TrackingStatus.PICKED_UP else status)

    async def test_a_tracker_begins_unknown_and_names_its_shipment(self, api: EasyPostApi) -> None:
        """Recorded: tests/cassettes/test_shipment_refund.yaml of easypost-python."""
        bought = await api.a_label()

        tracker = bought["tracker"]
        assert (tracker["status"], tracker["status_detail"], tracker["tracking_details"]) == ("unknown", "unknown", [])
        assert (tracker["shipment_id"], bought["status"]) == (bought["id"], "unknown")


class TestRefundEvents:
    """ "Created whenever a non-instantaneous Refund request is completed" (docs.easypost.com/docs/events); no event says anything else."""

    @pytest.mark.parametrize(
        ("later", "granted", "events"),
        [(False, True, []), (True, True, ["refund.successful"]), (True, False, [])],
        ids=["at_once", "granted_later", "rejected_later"],
    )
    async def test_simulation_tells_of_refunds_that_took_time(
        self, api: EasyPostApi, carrier: EasyPost, later: bool, granted: bool, events: list[str]
    ) -> None:
        bought = await api.a_label()
        before = set(api.sandbox.easypost.events)
        api.sandbox.carrier.grants_voids = not later
        await api.post(f"shipments/{bought['id']}/refund")
        api.sandbox.carrier.grants_voids = True
        label, _ = api.sandbox.carrier.parcel(bought["tracking_code"])
        if later:
            api.sandbox.carrier.decide_void(label, granted=granted)

        sent = [event for event_id, event in api.sandbox.easypost.events.items() if event_id not in before]
        news = [carrier.read_event(event.type, event.body) for event in sent]
        assert [event.type for event in sent] == events
        assert [(each.provider_label_id, each.label_status) for each in news] == [(bought["id"], LabelStatus.REFUNDED)] * len(events)

    @pytest.mark.parametrize("status", ["submitted", "refunded", "rejected", "not_applicable"])
    def test_adapter_reads_a_refund_or_its_shipment(self, status: str) -> None:
        """The result is a Refund in EasyPost/examples (community/golang/webhook_handler), a Shipment in what others received."""
        refund = {"object": "Refund", "id": "rfnd_1", "shipment_id": "shp_1", "status": status}
        shipment = {"object": "Shipment", "id": "shp_1", "refund_status": status}

        assert [self._read(each) for each in (refund, shipment)] == [("shp_1", VOIDS[status])] * 2

    @pytest.mark.parametrize("kind", ["Batch", "Insurance", "Payment", "Report", "ScanForm", "ShipmentInvoice", "Claim"])
    def test_adapter_has_no_use_for_other_events(self, kind: str) -> None:
        assert self._read({"object": kind, "id": "x_1", "status": "new"}) == (None, None)
        assert self._read({"object": "Shipment", "id": "shp_1", "refund_status": None}) == (None, None)

    def _read(self, result: Any) -> tuple[str | None, LabelStatus | None]:
        carrier = EasyPost(base_url="https://api.easypost.com", api_key="x", timeout_seconds=1.0)
        news = carrier.read_event("refund.successful", msgspec.json.encode({"id": "evt_1", "object": "Event", "result": result}))
        return news.provider_label_id, news.label_status


class TestRecordedEvent:
    """The event that EasyPost's own libraries are tested with."""

    async def test_its_signature_is_genuine_and_of_its_bytes(self) -> None:
        account, headers = an_account(SECRET), {"x-hmac-signature": SIGNATURE}

        opened = await EASYPOST.open(Incoming(headers=headers, body=RECORDED_EVENT), [account], now=NOW)
        forged = await EASYPOST.open(Incoming(headers=headers, body=RECORDED_EVENT + b"\n"), [account], now=NOW)

        [(_, event)] = opened.genuine
        assert (event.id, event.type, event.happened_at) == ("evt_1", "tracker.updated", NOW)
        assert forged.genuine == ()

    async def test_simulated_events_are_signed_and_named_alike(self, api: EasyPostApi) -> None:
        api.move(await api.a_label())
        sent = list(api.sandbox.easypost.events.values())[-1]
        headers = {name.lower(): value for name, value in api.sandbox.easypost.headers(sent).items()}

        opened = await EASYPOST.open(Incoming(headers=headers, body=sent.body), [an_account(WEBHOOK_SECRET)], now=NOW)

        assert [(event.id, event.type) for _, event in opened.genuine] == [(sent.id, "tracker.updated")]

    def test_adapter_reads_its_history(self, carrier: EasyPost) -> None:
        events = carrier.read_event("tracker.updated", RECORDED_EVENT).events

        assert {event.tracking_number for event in events} == {"1"}
        assert [event.status for event in events] == [TrackingStatus.PRE_TRANSIT, *[TrackingStatus.IN_TRANSIT] * 6]
        assert [event.location for event in events][:3] == ["US", "ORLANDO, FL, US", "ORLANDO, FL, US"]
