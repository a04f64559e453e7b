"""What Shippo says of a parcel, how its carriers are named, and which events it sends."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from shippo.models import components

from deploy.sandbox.faces import shippo as face
from services.fulfillment.domain.shipping.labels import LabelStatus
from services.fulfillment.domain.shipping.tracking import TrackingStatus
from services.fulfillment.providers.shippo import Shippo
from services.fulfillment.providers.shippo_carriers import carrier_token
from services.webhooks.domain import Account, Incoming
from services.webhooks.providers import digest
from services.webhooks.providers.shippo import SHIPPO
from shared.ids import new_id
from shared.messages import Environment
from tests.provider_facts.shippo.conftest import ShippoApi
from tests.provider_facts.shippo.sdk_types import unfit
from tests.world import WEBHOOK_SECRET

IN_TRANSIT, RETURN, EXCEPTION = TrackingStatus.IN_TRANSIT, TrackingStatus.RETURN_TO_SENDER, TrackingStatus.EXCEPTION
# docs.goshippo.com/docs/tracking/tracking, event definitions: the status, the code within it, whether somebody must act, and our status.
EVENTS = [
    ("PRE_TRANSIT", "information_received", False, TrackingStatus.PRE_TRANSIT),
    ("TRANSIT", "address_issue", True, IN_TRANSIT),
    ("TRANSIT", "contact_carrier", True, IN_TRANSIT),
    ("TRANSIT", "delayed", False, IN_TRANSIT),
    ("TRANSIT", "delivery_attempted", True, IN_TRANSIT),
    ("TRANSIT", "delivery_rescheduled", False, IN_TRANSIT),
    ("TRANSIT", "delivery_scheduled", False, IN_TRANSIT),
    ("TRANSIT", "location_inaccessible", True, IN_TRANSIT),
    ("TRANSIT", "notice_left", True, IN_TRANSIT),
    ("TRANSIT", "out_for_delivery", False, TrackingStatus.OUT_FOR_DELIVERY),
    ("TRANSIT", "package_accepted", False, TrackingStatus.PICKED_UP),
    ("TRANSIT", "package_arrived", False, IN_TRANSIT),
    ("TRANSIT", "package_damaged", True, IN_TRANSIT),
    ("TRANSIT", "package_departed", False, IN_TRANSIT),
    ("TRANSIT", "package_forwarded", False, IN_TRANSIT),
    ("TRANSIT", "package_held", True, IN_TRANSIT),
    ("TRANSIT", "package_processed", False, IN_TRANSIT),
    ("TRANSIT", "package_processing", False, IN_TRANSIT),
    ("TRANSIT", "pickup_available", True, TrackingStatus.AVAILABLE_FOR_PICKUP),
    ("TRANSIT", "reschedule_delivery", True, IN_TRANSIT),
    ("DELIVERED", "delivered", False, TrackingStatus.DELIVERED),
    ("RETURNED", "return_to_sender", False, RETURN),
    ("RETURNED", "package_unclaimed", True, RETURN),
    ("FAILURE", "package_undeliverable", True, EXCEPTION),
    ("FAILURE", "package_disposed", False, EXCEPTION),
    ("FAILURE", "package_lost", True, EXCEPTION),
    ("UNKNOWN", "other", False, TrackingStatus.UNKNOWN),
]
# A rate's service, its provider, and the carrier's token. shippo-python-sdk 3.9.0, docs/models/components/carriersenum.md and rate.md, and
# the services of each carrier (src/shippo/models/components/servicelevel*enum.py).
CARRIERS = [
    ("usps_priority", "USPS", "usps"),
    ("fedex_ground", "FedEx", "fedex"),
    ("dhl_express_worldwide", "DHL Express", "dhl_express"),
    ("dhl_germany_paket", "DHL Germany", "dhl_germany"),
    ("deutsche_post_postpaket", "Deutsche Post DHL", "deutsche_post"),
    ("hermes_uk_postable", "Evri UK", "hermes_uk"),
    ("fastway_australia_parcel", "Aramex", "fastway_australia"),
    ("dpd_de_classic", "DPD GERMANY", "dpd_de"),
    ("axlehire_same_day", "Jitsu", "axlehire"),
    ("correos_standard_home", "Correos España", "correos_espana"),
    ("same_day", "Swyft", "swyft"),
    ("epacket", "APG", "apg"),
    ("", "Canada Post", "canada_post"),
    ("", "CollectPlus", "collect_plus"),
    ("", "ePost Global", "rr_donnelley"),
]


def a_track(status: str, code: str | None, *, action: bool = False) -> dict[str, Any]:
    at = "2026-07-22T14:36:50.943Z"
    substatus = None if code is None else {"code": code, "text": "A text.", "action_required": action}
    scan = {"object_created": at, "object_updated": at, "object_id": "s1", "status": status, "status_details": "", "status_date": at}
    history = [{**scan, "substatus": substatus, "location": None}]
    return {"carrier": "usps", "tracking_number": "9205", "messages": [], "tracking_history": history}


def read(event: str, data: Any) -> Any:
    carrier = Shippo(base_url="https://api.goshippo.com", api_key="x", timeout_seconds=1.0)
    return carrier.read_event("", msgspec.json.encode({"event": event, "test": True, "data": data}))


class TestEvents:
    @pytest.mark.parametrize(("status", "code", "action", "expected"), EVENTS, ids=[code for _, code, *_ in EVENTS])
    def test_adapter_reads_every_definition(self, status: str, code: str, action: bool, expected: TrackingStatus) -> None:
        track = a_track(status, code, action=action)
        [event] = read("track_updated", track).events

        assert unfit(track, components.Track) == []
        assert (event.status, event.code) == (expected, code)

    @pytest.mark.parametrize("status", [member.value for member in components.TrackingStatusEnum])
    def test_adapter_reads_events_without_a_finer_code(self, status: str) -> None:
        """`substatus` is null in the documentation's own example of a test mode track."""
        expected = {state: ours for state, _, _, ours in reversed(EVENTS)} | {"TRANSIT": IN_TRANSIT}

        [event] = read("track_updated", a_track(status, None)).events
        assert (event.status, event.code) == (expected[status], status)

    def test_simulation_says_documented_words_alone(self) -> None:
        definitions = {(status, code): action for status, code, action, _ in EVENTS}

        assert set(face.STATUSES.values()) <= definitions.keys()
        assert {code: code in face.ACTIONS for _, code in face.STATUSES.values()} == {
            code: definitions[status, code] for status, code in face.STATUSES.values()
        }

    async def test_a_parcel_begins_without_history(self, api: ShippoApi, carrier: Shippo) -> None:
        bought = await api.a_transaction()
        track = await api.get(f"tracks/sandbox/{bought['tracking_number']}")

        assert (track["tracking_status"], track["tracking_history"], bought["tracking_status"]) == (None, [], "UNKNOWN")
        assert await carrier.track(bought["tracking_number"], provider_label_id=bought["object_id"]) == []


class TestWebhooks:
    """docs.goshippo.com/docs/tracking/webhooks, event types (WebhookEventTypeEnum)."""

    async def test_events_have_a_type_and_no_id(self, api: ShippoApi) -> None:
        """`event`, `test` and `data` are all there is (WebhookPayloadTrack), so that a repeat is known by its content alone."""
        api.move(await api.a_transaction())
        sent = list(api.sandbox.shippo.events.values())[-1]
        headers = {name.lower(): value for name, value in api.sandbox.shippo.headers(sent).items()}
        account = Account(
            provider="shippo", store_id=new_id(), environment=Environment.SANDBOX, account="tests", secrets=(WEBHOOK_SECRET,), url=""
        )

        opened = await SHIPPO.open(Incoming(headers=headers, body=sent.body), [account], now=datetime.now(UTC))

        assert msgspec.json.decode(sent.body).keys() == {"event", "test", "data"}
        assert [(event.id, event.type) for _, event in opened.genuine] == [(digest(sent.body), "track_updated")]

    @pytest.mark.parametrize("status", [member.value for member in components.TransactionStatusEnum])
    def test_a_transactions_status_is_read(self, status: str) -> None:
        expected = {
            "SUCCESS": LabelStatus.PURCHASED,
            "REFUNDED": LabelStatus.REFUNDED,
            "REFUNDPENDING": LabelStatus.VOID_REQUESTED,
            "REFUNDREJECTED": LabelStatus.REJECTED,
        }
        news = read("transaction_updated", {"object_id": "t1", "status": status})

        assert (news.provider_label_id, news.label_status) == (("t1", expected[status]) if status in expected else (None, None))

    @pytest.mark.parametrize(
        ("event", "data"),
        [
            ("transaction_created", {"object_id": "t1", "status": "QUEUED"}),
            # "A string containing the batch object ID" (WebhookPayloadBatch).
            ("batch_created", "batch b1 created"),
            ("batch_purchased", "batch b1 processing complete"),
        ],
    )
    def test_other_events_are_of_no_use(self, event: str, data: Any) -> None:
        news = read(event, data)

        assert event in {member.value for member in components.WebhookEventTypeEnum}
        assert (news.events, news.provider_label_id, news.label_status) == ((), None, None)


class TestCarriers:
    """A tracking address has the carrier's token, not its name."""

    @pytest.mark.parametrize(("service", "provider", "token"), CARRIERS, ids=[f"{provider}_{token}" for _, provider, token in CARRIERS])
    def test_adapter_names_the_carrier(self, service: str, provider: str, token: str) -> None:
        assert token in {member.value for member in components.CarriersEnum}
        # A rate as such, and as a transaction may have it (CoreRate).
        assert carrier_token({"provider": provider, "servicelevel": {"token": service}}) == token
        assert carrier_token({"provider": provider, "servicelevel_token": service}) == token

    def test_adapter_reads_the_carrier_of_every_service(self) -> None:
        """But for services that do not begin with their carrier's token, where the name decides."""
        enums = [each for name, each in vars(components).items() if name.startswith("ServiceLevel") and name.endswith("Enum")]
        services = [member.value for each in enums for member in each]
        nameless = {service for service in services if carrier_token({"provider": "?", "servicelevel": {"token": service}}) == "?"}

        assert len(services) > 200
        assert nameless == {
            *("correos_standard_home", "correos_premium_home", "epacket", "epacket_plus", "eparcel_premium", "next_day", "same_day")
        }
