"""Every field that is simulated and sent is of the library's types, and every enumeration has a meaning to us."""

from enum import Enum
from typing import Any

import msgspec
import pytest
from shippo.models import components, operations

from deploy.sandbox.faces import shippo as face
from services.fulfillment.domain.shipping.labels import LabelStatus
from services.fulfillment.domain.shipping.tracking import TrackingStatus
from services.fulfillment.providers import shippo as adapter
from services.fulfillment.providers.shippo import shipment_body
from services.fulfillment.providers.shippo_carriers import CARRIER_TOKENS
from tests.provider_facts.shipments import TOKYO, UNDECLARED, a_rates_request
from tests.provider_facts.shippo.conftest import ShippoApi
from tests.provider_facts.shippo.sdk_types import unfit

# What each status is to us; a transaction under way, or of which nothing came, is no label.
TRANSACTION_STATUSES: dict[str, LabelStatus | None] = {
    **dict.fromkeys(("WAITING", "QUEUED", "ERROR")),
    "SUCCESS": LabelStatus.PURCHASED,
    "REFUNDPENDING": LabelStatus.VOID_REQUESTED,
    "REFUNDED": LabelStatus.REFUNDED,
    "REFUNDREJECTED": LabelStatus.REJECTED,
}
# docs.goshippo.com/docs/billing_and_invoices/refundinglabels: "QUEUED: the request is being processed by Shippo", "PENDING: waiting for
# more tracking data from carriers", "ERROR: refund rejected, the shipment was found to be used", "SUCCESS: refund accepted".
REFUND_STATUSES = {
    "QUEUED": LabelStatus.VOID_REQUESTED,
    "PENDING": LabelStatus.VOID_REQUESTED,
    "SUCCESS": LabelStatus.REFUNDED,
    "ERROR": LabelStatus.REJECTED,
}
# docs.goshippo.com/docs/tracking/tracking, event definitions.
TRACKING_STATUSES = {
    "UNKNOWN": TrackingStatus.UNKNOWN,
    "PRE_TRANSIT": TrackingStatus.PRE_TRANSIT,
    "TRANSIT": TrackingStatus.IN_TRANSIT,
    "DELIVERED": TrackingStatus.DELIVERED,
    "RETURNED": TrackingStatus.RETURN_TO_SENDER,
    "FAILURE": TrackingStatus.EXCEPTION,
}


def values(kind: type[Enum]) -> set[str]:
    return {member.value for member in kind}


class TestEnumerations:
    def test_every_status_has_a_meaning(self) -> None:
        assert TRANSACTION_STATUSES.keys() == values(components.TransactionStatusEnum)
        assert {name: status for name, status in TRANSACTION_STATUSES.items() if status} == adapter.TRANSACTIONS
        assert REFUND_STATUSES.keys() == values(components.RefundStatus)
        assert REFUND_STATUSES == adapter.REFUNDS
        assert TRACKING_STATUSES.keys() == values(components.TrackingStatusEnum)
        assert TRACKING_STATUSES == adapter.STATUSES

    def test_units_formats_and_carriers_are_the_librarys(self) -> None:
        assert face.MILLIMETRES.keys() == values(components.DistanceUnitEnum)
        assert face.GRAMS.keys() == values(components.WeightUnitEnum)
        assert values(components.LabelFileTypeEnum) == face.FILE_TYPES
        assert set(adapter.FILE_TYPES.values()) <= face.FILE_TYPES
        assert values(components.CarriersEnum) == CARRIER_TOKENS

    def test_simulation_says_words_of_the_library_alone(self) -> None:
        assert set(face.LABELS.values()) <= TRANSACTION_STATUSES.keys()
        assert set(face.REFUNDS.values()) <= REFUND_STATUSES.keys()
        assert {status for status, _ in face.STATUSES.values()} <= TRACKING_STATUSES.keys()


class TestSimulated:
    async def test_shipments_rates_and_transactions(self, api: ShippoApi) -> None:
        shipment, bought = await api.a_shipment(), await api.a_transaction()
        failed = await api.a_transaction(await api.a_rate(ship_to=TOKYO, content=UNDECLARED))
        queued = await api.a_transaction(waits=False)
        listed = await api.get("transactions/", results=3)

        assert unfit(shipment, components.Shipment) == []
        assert unfit(await api.get(f"rates/{bought['rate']}"), components.Rate) == []
        assert [unfit(each, components.Transaction) for each in (bought, failed, queued)] == [[], [], []]
        assert [each["status"] for each in (bought, failed, queued)] == ["SUCCESS", "ERROR", "QUEUED"]
        assert unfit(listed, components.TransactionPaginatedList) == []

    async def test_tracks_refunds_and_events(self, api: ShippoApi) -> None:
        bought = await api.a_transaction()
        for _ in range(5):
            api.move(bought)
        track = await api.get(f"tracks/sandbox/{bought['tracking_number']}")
        refund = (await api.post("refunds", {"transaction": bought["object_id"], "async": False})).json()
        events = [(event.type, msgspec.json.decode(event.body)) for event in api.sandbox.shippo.events.values()]

        assert unfit(track, components.Track) == []
        assert unfit(refund, components.Refund) == []
        assert {kind for kind, _ in events} == {"track_updated", "transaction_updated"}
        assert {kind for kind, _ in events} <= values(components.WebhookEventTypeEnum)
        kinds = {"track_updated": components.WebhookPayloadTrack, "transaction_updated": components.WebhookPayloadTransaction}
        assert [unfit(body, kinds[kind]) for kind, body in events] == [[]] * len(events)

    @pytest.mark.parametrize(
        ("changes", "wrong"),
        [
            ({"colour": "red"}, [".colour is unknown"]),
            ({"amount": 5.1}, [".amount = 5.1"]),
            ({"servicelevel": {"tokens": ""}}, [".servicelevel.tokens is unknown"]),
            ({"object_created": "2026-01-01T00:00:00"}, [".object_created = '2026-01-01T00:00:00'"]),
        ],
        ids=["unknown", "type", "nested", "zone"],
    )
    async def test_the_judge_names_what_is_wrong(self, api: ShippoApi, changes: dict[str, Any], wrong: list[str]) -> None:
        rate = (await api.a_shipment())["rates"][0]

        assert unfit({**rate, **changes}, components.Rate) == wrong
        assert unfit({name: value for name, value in rate.items() if name != "amount"}, components.Rate) == [".amount is missing"]


class TestSent:
    def test_shipments_are_of_the_librarys_types(self) -> None:
        for request in (a_rates_request(), a_rates_request(ship_to=TOKYO)):
            assert unfit(shipment_body(request), components.ShipmentCreateRequest) == []

    def test_customs_declare_totals_as_text(self) -> None:
        """ "Total value of this item, i.e. quantity * value per item", and the same of its weight (CustomsItemCreateRequest)."""
        [item] = shipment_body(a_rates_request(ship_to=TOKYO))["customs_declaration"]["items"]

        assert (item["quantity"], item["value_amount"], item["net_weight"], item["mass_unit"]) == (2, "46.50", "312", "g")

    def test_pages_are_as_large_as_they_may_be(self) -> None:
        """ "The number of results to return per page (max 100)" (ListTransactionsRequest)."""
        assert adapter.PAGE_ROWS == face.PAGE_ROWS_MAX == 100
        assert operations.ListTransactionsRequest().results == 25
