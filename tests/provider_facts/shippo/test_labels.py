"""What buying and refunding a label comes to at Shippo, and what it refuses."""

from typing import Any

import msgspec
import pytest

from services.fulfillment.domain.shipping.labels import LabelStatus
from services.fulfillment.providers import CarrierRefused
from services.fulfillment.providers.shippo import STREET_LINE_MAX_CHARACTERS, WEIGHT_MAX_GRAMS, Shippo, shipment_body
from shared.http_client import recorded
from shared.ids import new_id
from shared.provider_answers import IndeterminateResponse
from tests.provider_facts.shipments import AWAY, HOME, PACKAGE, TOKYO, UNDECLARED, a_label_request, a_rates_request
from tests.provider_facts.shippo.conftest import ShippoApi

QUEUEING = msgspec.structs.replace(AWAY, city="Queueing Harbour")
# A street of 38 characters, as documentation allows none on one line.
LONG_STREET = "1600 Amphitheatre Parkway, Building 43"


class TestStatusCodes:
    """shippo-python-sdk 3.9.0, src/shippo/{shipments,transactions,refunds,rates,tracking_status}.py: what each call takes for success."""

    async def test_simulation_answers_as_the_library_expects(self, api: ShippoApi) -> None:
        shipment = await api.post("shipments", shipment_body(a_rates_request()))
        rate = shipment.json()["rates"][1]["object_id"]
        transaction = await api.post("transactions", {"rate": rate, "async": False})
        transaction_id, number = transaction.json()["object_id"], transaction.json()["tracking_number"]
        paths = ("transactions", f"transactions/{transaction_id}", f"rates/{rate}", f"tracks/sandbox/{number}")
        read = [await api.http.get(f"/{path}") for path in paths]
        refund = await api.post("refunds", {"transaction": transaction_id})

        assert [answer.status_code for answer in (shipment, transaction, refund, *read)] == [201, 201, 201, 200, 200, 200, 200]


class TestUnderWay:
    """`async` is true by default, and a request that waits may be answered QUEUED too (goshippo/ai, skills/label-purchase/SKILL.md)."""

    async def test_simulation_queues_what_does_not_wait(self, api: ShippoApi) -> None:
        rates = [await api.a_rate() for _ in range(2)]
        bodies = [{"rate": rates[0]}, {"rate": rates[1], "async": False}]
        answers = [(await api.post("transactions", body)).json() for body in bodies]
        later = await api.get(f"transactions/{answers[0]['object_id']}")

        assert [(each["status"], bool(each["label_url"]), bool(each["tracking_number"])) for each in (*answers, later)] == [
            ("QUEUED", False, False),
            ("SUCCESS", True, True),
            ("SUCCESS", True, True),
        ]

    async def test_simulation_rates_later_what_does_not_wait(self, api: ShippoApi) -> None:
        """shippo 3.9.0, Shipment.rates: "Otherwise rates will be created asynchronously and this array will initially be empty"."""
        answer = (await api.post("shipments", {**shipment_body(a_rates_request()), "async": True})).json()

        assert (answer["status"], answer["rates"]) == ("QUEUED", [])
        assert shipment_body(a_rates_request())["async"] is False

    async def test_adapter_finds_a_queued_label(self, api: ShippoApi, carrier: Shippo) -> None:
        rate, reference = (await carrier.rates(a_rates_request(ship_to=QUEUEING)))[1], new_id()
        request, before = a_label_request(rate.provider_rate_id, ship_to=QUEUEING), len(api.sandbox.carrier.labels)

        with pytest.raises(IndeterminateResponse, match="QUEUED"):
            await carrier.buy(request, reference=reference)
        found = await carrier.find(request, reference=reference)

        assert found is not None
        assert (found.status, len(api.sandbox.carrier.labels)) == (LabelStatus.PURCHASED, before + 1)


class TestRefusedByTheCarrier:
    """What a carrier refuses is a transaction with the status ERROR and messages (shippo 3.9.0, TransactionStatusEnum, ResponseMessage)."""

    async def test_simulation_makes_a_transaction(self, api: ShippoApi) -> None:
        rate = await api.a_rate(ship_to=TOKYO, content=UNDECLARED)
        answer = await api.post("transactions", {"rate": rate, "async": False})
        listed = await api.get("transactions/", rate=rate)

        shown = answer.json()
        assert (answer.status_code, shown["status"], shown["label_url"], shown["tracking_number"]) == (201, "ERROR", "", "")
        assert shown["messages"][0].keys() == {"source", "code", "text"}
        assert [each["object_id"] for each in listed["results"]] == [shown["object_id"]]

    @pytest.mark.parametrize("queued", [False, True], ids=["at_once", "queued"])
    async def test_adapter_reads_it_as_a_refusal(self, api: ShippoApi, carrier: Shippo, queued: bool) -> None:
        there = msgspec.structs.replace(TOKYO, city=QUEUEING.city if queued else TOKYO.city)
        rate, reference = (await carrier.rates(a_rates_request(ship_to=there, content=UNDECLARED)))[1], new_id()
        request = a_label_request(rate.provider_rate_id, ship_to=there, content=UNDECLARED)

        with pytest.raises(IndeterminateResponse if queued else CarrierRefused):
            await carrier.buy(request, reference=reference)
        with pytest.raises(CarrierRefused, match="customs_needed"):
            await carrier.find(request, reference=reference)


class TestRepeats:
    """There are no idempotency keys: each request for a transaction buys a label; `metadata` is what tells them apart."""

    async def test_simulation_sells_a_label_for_each_request(self, api: ShippoApi) -> None:
        rate = await api.a_rate()
        answers = [await api.a_transaction(rate, metadata="the same") for _ in range(2)]
        listed = await api.get("transactions/", rate=rate)

        assert len({answer["tracking_number"] for answer in answers}) == 2
        assert {each["metadata"] for each in listed["results"]} == {"the same"}

    async def test_metadata_holds_100_characters(self, api: ShippoApi) -> None:
        """shippo 3.9.0, Transaction.metadata: "A string of up to 100 characters"; our reference has 36."""
        rate = await api.a_rate()
        fits = await api.post("transactions", {"rate": rate, "metadata": "x" * 100, "async": False})
        too_long = await api.post("transactions", {"rate": rate, "metadata": "x" * 101, "async": False})

        assert (fits.status_code, too_long.status_code, list(too_long.json())) == (201, 400, ["metadata"])
        assert len(str(new_id())) <= 100

    async def test_unknown_file_types_are_refused(self, api: ShippoApi) -> None:
        answer = await api.post("transactions", {"rate": await api.a_rate(), "label_file_type": "GIF", "async": False})

        assert (answer.status_code, list(answer.json())) == (400, ["label_file_type"])


class TestPages:
    """`next` is the address of another page or null, `results` the rows, 100 at most (shippo 3.9.0, TransactionPaginatedList)."""

    async def test_pages_follow_each_other(self, api: ShippoApi) -> None:
        rate = await api.a_rate()
        bought = [(await api.a_transaction(rate))["object_id"] for _ in range(3)]
        pages = [await api.get("transactions/", rate=rate, results=2, page=page) for page in (1, 2)]

        assert [each["object_id"] for page in pages for each in page["results"]] == bought[::-1]
        assert [bool(page["next"]) for page in pages] == [True, False]


class TestRefunds:
    """docs.goshippo.com/docs/billing_and_invoices/refundinglabels; a transaction says what became of its refund."""

    @pytest.mark.parametrize(
        ("service", "granted", "used", "refund", "transaction", "status"),
        [
            ("Ground", True, False, "SUCCESS", "REFUNDED", LabelStatus.REFUNDED),
            ("Ground", False, False, "PENDING", "REFUNDPENDING", LabelStatus.VOID_REQUESTED),
            ("Ground", True, True, "ERROR", "REFUNDREJECTED", LabelStatus.REJECTED),
            ("Economy", True, False, "ERROR", "REFUNDREJECTED", LabelStatus.REJECTED),
        ],
        ids=["granted", "pending", "used", "billed_on_scan"],
    )
    async def test_each_status_is_simulated_and_read(
        self, api: ShippoApi, carrier: Shippo, service: str, granted: bool, used: bool, refund: str, transaction: str, status: LabelStatus
    ) -> None:
        bought = await api.a_transaction(await api.a_rate(service))
        if used:
            api.move(bought, status="in_transit")
        api.sandbox.carrier.grants_voids = granted
        answer = (await api.post("refunds", {"transaction": bought["object_id"], "async": False})).json()
        api.sandbox.carrier.grants_voids = True

        assert (answer["status"], (await api.get(f"transactions/{bought['object_id']}"))["status"]) == (refund, transaction)
        assert await carrier.status(bought["object_id"]) is status

    async def test_one_that_does_not_wait_is_queued(self, api: ShippoApi) -> None:
        """shippo-java-client at c97b998: RefundTest.testValidCreate."""
        bought = await api.a_transaction()

        assert (await api.post("refunds", {"transaction": bought["object_id"]})).json()["status"] == "QUEUED"

    async def test_a_second_request_is_refused(self, api: ShippoApi, carrier: Shippo) -> None:
        """shippo-java-client at c97b998: RefundTest.testDoubleRefundRequest, DuplicateRefundRequestException."""
        bought = await api.a_transaction()
        await api.post("refunds", {"transaction": bought["object_id"]})
        answer = await api.post("refunds", {"transaction": bought["object_id"]})

        # While a refund is queued, its transaction may not show it yet.
        api.sandbox.carrier.parcel(bought["tracking_number"])[0].status = "purchased"
        assert await carrier.status(bought["object_id"]) is LabelStatus.PURCHASED
        assert (answer.status_code, answer.json()) == (400, {"transaction": ["Refund with this Transaction already exists."]})
        assert await carrier.void(bought["object_id"], reference=new_id()) is LabelStatus.VOID_REQUESTED

    async def test_adapter_waits_and_requests_once(self, carrier: Shippo) -> None:
        rate = (await carrier.rates(a_rates_request()))[1]
        bought = await carrier.buy(a_label_request(rate.provider_rate_id), reference=new_id())

        with recorded() as calls:
            statuses = [await carrier.void(bought.provider_label_id, reference=new_id()) for _ in range(2)]

        assert statuses == [LabelStatus.REFUNDED] * 2
        # One that did not wait would be answered QUEUED.
        assert [call.operation for call in calls].count("create_refund") == 1


class TestParcels:
    """shippo 3.9.0, ParcelCreateRequest: all sizes, "up to six digits in front and four digits after the decimal separator"."""

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({}, 201),
            ({"weight": "999999"}, 201),
            ({"weight": "1000000"}, 400),
            ({"length": "1.23456"}, 400),
            ({"height": ""}, 400),
            ({"distance_unit": "yd", "length": "1", "width": "1", "height": "1"}, 201),
            ({"distance_unit": "km"}, 400),
            ({"mass_unit": "st"}, 400),
        ],
        ids=["fit", "heaviest", "too_heavy", "too_fine", "no_height", "yards", "kilometres", "stones"],
    )
    async def test_simulation_accepts_documented_figures(self, api: ShippoApi, changes: dict[str, Any], status: int) -> None:
        body = shipment_body(a_rates_request())
        answer = await api.post("shipments", {**body, "parcels": [{**body["parcels"][0], **changes}]})

        assert answer.status_code == status
        assert status == 201 or list(answer.json()) == ["parcels"]

    async def test_adapter_refuses_heavier_ones_before_a_call(self, carrier: Shippo) -> None:
        heaviest, heavier = (msgspec.structs.replace(PACKAGE, weight_grams=WEIGHT_MAX_GRAMS + more) for more in (0, 1))

        assert len(await carrier.rates(a_rates_request(packages=(heaviest,)))) == 3
        with recorded() as calls, pytest.raises(CarrierRefused, match="999999 g"):
            await carrier.rates(a_rates_request(packages=(heavier,)))
        assert calls == []

    def test_adapter_measures_up_to_the_next_millimetre(self) -> None:
        [parcel] = shipment_body(a_rates_request())["parcels"]

        assert parcel == {"length": "25.4", "width": "20.4", "height": "10.1", "distance_unit": "cm", "weight": "437", "mass_unit": "g"}


class TestStreets:
    """shippo 3.9.0, AddressCreateRequest: "First street line, 35 character limit", and the same of the second."""

    @pytest.mark.parametrize(
        ("street", "lines"),
        [
            ("388 Townsend St", ["388 Townsend St"]),
            ("x" * 35, ["x" * 35]),
            (LONG_STREET, ["1600 Amphitheatre Parkway, Building", "43"]),
            ("x" * 70, ["x" * 35, "x" * 35]),
            (f"388 Townsend St{' ' * 30}", ["388 Townsend St"]),
        ],
        ids=["short", "longest", "two_lines", "one_word", "blanks"],
    )
    async def test_adapter_writes_lines_that_fit(self, api: ShippoApi, street: str, lines: list[str]) -> None:
        there = msgspec.structs.replace(AWAY, street_address=street)
        body = shipment_body(a_rates_request(ship_to=there))

        written = body["address_to"]
        assert [written[line] for line in ("street1", "street2") if line in written] == lines
        assert (await api.post("shipments", body)).status_code == 201

    async def test_simulation_refuses_longer_lines(self, api: ShippoApi) -> None:
        body = shipment_body(a_rates_request())
        answer = await api.post("shipments", {**body, "address_to": {**body["address_to"], "street1": LONG_STREET}})

        assert (answer.status_code, list(answer.json())) == (400, ["address_to"])

    async def test_adapter_refuses_what_no_two_lines_hold(self, carrier: Shippo) -> None:
        here = msgspec.structs.replace(HOME, street_address="x" * (2 * STREET_LINE_MAX_CHARACTERS + 1))

        with recorded() as calls, pytest.raises(CarrierRefused, match="two lines"):
            await carrier.rates(a_rates_request(ship_from=here))
        assert calls == []
