"""What buying, converting and refunding a label comes to, and with which codes EasyPost refuses it.

Codes: docs.easypost.com/docs/errors (errors of shipments, parcels, refunds); recorded ones say so.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from services.fulfillment.domain.shipping.labels import LabelStatus
from services.fulfillment.providers import CarrierRefused
from services.fulfillment.providers.easypost import ANSWERS, PAGE_ROWS, EasyPost
from shared.http_client import Answer, recorded
from shared.ids import new_id
from tests.provider_facts.easypost.conftest import EasyPostApi
from tests.provider_facts.shipments import PACKAGE, TOKYO, UNDECLARED, a_label_request, a_rates_request

MISSING_RATE = {"rate": {"id": "rate_0"}}
NOW_OR_BEFORE, MUCH_LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


async def a_label_of(carrier: EasyPost, **changes: Any) -> Any:
    rate = (await carrier.rates(a_rates_request()))[1]
    return await carrier.buy(a_label_request(rate.provider_rate_id, **changes), reference=new_id())


class TestStatusCodes:
    """Recorded: easypost-python, tests/cassettes/test_shipment_{create,buy,retrieve,refund,convert_label}.yaml, test_tracker_all.yaml."""

    async def test_simulation_answers_as_recorded(self, api: EasyPostApi) -> None:
        created = await api.post("shipments", {"shipment": (await api.create())})
        shipment = created.json()
        bought = await api.post(f"shipments/{shipment['id']}/buy", {"rate": {"id": shipment["rates"][1]["id"]}})
        read = [
            await api.http.get(f"/v2/{path}") for path in (f"shipments/{shipment['id']}", f"shipments/{shipment['id']}/label", "trackers")
        ]
        refunded = await api.post(f"shipments/{shipment['id']}/refund", {})

        assert [answer.status_code for answer in (created, bought, *read, refunded)] == [201, 200, 200, 200, 200, 200]


class TestRefusals:
    """A refusal's status and code, and whether it proves that nothing was bought."""

    async def test_requests_without_a_shipment(self, api: EasyPostApi) -> None:
        """Recorded: easypost-python, tests/cassettes/test_error.yaml and test_error_alternative_format.yaml."""
        await self._refuses(await api.post("shipments", {}), 422, "PARAMETER.REQUIRED", True)
        await self._refuses(await api.post("shipments/shp_0/buy", MISSING_RATE), 404, "NOT_FOUND", True)

    async def test_unbought_shipments(self, api: EasyPostApi) -> None:
        path = f"shipments/{(await api.create())['id']}"

        await self._refuses(await api.post(f"{path}/buy", MISSING_RATE), 422, "SHIPMENT.MISSING_RATE", True)
        await self._refuses(await api.post(f"{path}/refund"), 422, "SHIPMENT.REFUND.UNAVAILABLE", True)
        await self._refuses(await api.http.get(f"/v2/{path}/label"), 422, "SHIPMENT.POSTAGE.REQUIRED", True)

    async def test_bought_shipments(self, api: EasyPostApi) -> None:
        """A second purchase says that the first happened, so it proves the contrary."""
        bought = await api.a_label()
        rate = {"rate": {"id": bought["selected_rate"]["id"]}}

        await self._refuses(await api.post(f"shipments/{bought['id']}/buy", rate), 422, "SHIPMENT.POSTAGE.EXISTS", False)

    async def test_missing_customs(self, api: EasyPostApi) -> None:
        abroad = await api.create(ship_to=TOKYO, content=UNDECLARED)
        answer = await api.post(f"shipments/{abroad['id']}/buy", {"rate": {"id": abroad["rates"][0]["id"]}})

        await self._refuses(answer, 422, "SHIPMENT.CUSTOMS_INFO.REQUIRED", True)

    async def _refuses(self, answer: Any, status: int, code: str, proves: bool) -> None:
        body = answer.json()
        refusal = ANSWERS.refusal(Answer(answer.status_code, body, {}))

        assert (answer.status_code, body["error"]["code"], body["error"].keys()) == (status, code, {"code", "message", "errors"})
        assert (refusal is not None) is proves


class TestPrintedLabels:
    """A label is a PNG by default and can be converted; one made otherwise cannot be (docs.easypost.com/docs/shipments, convert)."""

    @pytest.mark.parametrize(
        ("made_as", "file_format", "outcome"),
        [
            ("PNG", "PDF", "label_pdf_url"),
            ("PNG", "ZPL", "label_zpl_url"),
            (None, "PDF", "label_pdf_url"),
            ("PDF", "ZPL", "SHIPMENT.POSTAGE.FORMAT_UNAVAILABLE"),
            ("ZPL", "PDF", "SHIPMENT.POSTAGE.FORMAT_UNAVAILABLE"),
            ("PNG", "GIF", "SHIPMENT.POSTAGE.INVALID_FORMAT"),
        ],
        ids=lambda value: str(value),
    )
    async def test_simulation_converts_pictures_alone(self, api: EasyPostApi, made_as: str | None, file_format: str, outcome: str) -> None:
        made = await api.create()
        options = {"label_format": made_as} if made_as else {}
        shipment = (await api.post("shipments", {"shipment": {**made, "options": options}})).json()
        bought = await api.buy(shipment)

        answer = await api.get(f"shipments/{bought['id']}/label", file_format=file_format)

        error = answer.get("error", {}).get("code")
        assert outcome == error or answer["postage_label"][outcome].endswith(file_format.lower())
        assert bought["postage_label"]["label_file_type"] == {"PDF": "application/pdf", "ZPL": "application/zpl"}.get(
            str(made_as), "image/png"
        )

    async def test_unconverted_labels_are_pictures(self, api: EasyPostApi) -> None:
        label = (await api.a_label())["postage_label"]

        assert (label["label_pdf_url"], label["label_zpl_url"]) == (None, None)
        assert (await api.http.get(label["label_url"])).content.startswith(b"\x89PNG\r\n\x1a\n")

    @pytest.mark.parametrize(("document", "start"), [("pdf", b"%PDF-"), ("zpl", b"^XA")])
    async def test_adapter_prints_the_wanted_document(self, carrier: EasyPost, document: str, start: bytes) -> None:
        bought = await a_label_of(carrier, document=document)

        assert bought.packages[0].document.startswith(start)


class TestInsurance:
    """ "The currency of all insurance is USD", and the amount is a text (docs.easypost.com/docs/shipments, buy)."""

    async def test_adapter_writes_dollars_as_text(self, api: EasyPostApi, carrier: EasyPost) -> None:
        bought = await a_label_of(carrier, insured_amount=24_999)

        assert (await api.get(f"shipments/{bought.provider_label_id}"))["insurance"] == "249.99"
        assert carrier.capabilities.insurance_currencies == {"USD"}


class TestPurchasedElsewhere:
    """`selected_rate` is null where the label was bought through another mechanism (docs.easypost.com/docs/shipments, object)."""

    async def test_such_a_label_is_no_label_of_ours(self, api: EasyPostApi, carrier: EasyPost) -> None:
        ours, theirs = await a_label_of(carrier), await api.a_label()
        api.sandbox.shipments[theirs["id"]].chosen = None

        page = await carrier.list_labels(since=NOW_OR_BEFORE, until=MUCH_LATER, cursor=None)

        assert ours.provider_label_id in {label.provider_label_id for label in page.labels}
        assert theirs["id"] not in {label.provider_label_id for label in page.labels}
        assert await carrier.get_label(theirs["id"]) is None
        del api.sandbox.shipments[theirs["id"]], api.sandbox.carrier.labels[api.sandbox.carrier.parcel(theirs["tracking_code"])[0].id]


class TestRefunds:
    """docs.easypost.com/docs/shipments/shipping-refund: what `refund_status` can be, and which refund can be requested again."""

    @pytest.mark.parametrize(
        ("refund_status", "status"),
        [
            (None, LabelStatus.PURCHASED),
            ("submitted", LabelStatus.VOID_REQUESTED),
            ("refunded", LabelStatus.REFUNDED),
            ("rejected", LabelStatus.REJECTED),
            ("not_applicable", LabelStatus.NOT_APPLICABLE),
        ],
        ids=str,
    )
    async def test_each_status_is_simulated_and_read(
        self, api: EasyPostApi, carrier: EasyPost, refund_status: str | None, status: LabelStatus
    ) -> None:
        bought = await api.a_label("Economy" if refund_status == "not_applicable" else "Ground")
        if refund_status == "rejected":
            api.move(bought, status="in_transit")
        api.sandbox.carrier.grants_voids = refund_status != "submitted"
        answer = (await api.post(f"shipments/{bought['id']}/refund")).json() if refund_status else bought
        api.sandbox.carrier.grants_voids = True

        assert answer["refund_status"] == refund_status
        assert await carrier.status(bought["id"]) is status

    async def test_a_rejected_refund_can_be_requested_again(self, api: EasyPostApi, carrier: EasyPost) -> None:
        bought = await a_label_of(carrier)
        _, parcel = api.sandbox.carrier.parcel(bought.packages[0].tracking_number)
        api.sandbox.carrier.move(parcel.tracking_number, {"status": "in_transit"})
        first = await carrier.void(bought.provider_label_id, reference=new_id())
        parcel.scans.clear()

        assert first is LabelStatus.REJECTED
        assert await carrier.void(bought.provider_label_id, reference=new_id()) is LabelStatus.REFUNDED


class TestPages:
    """`has_more` says whether a page follows, `before_id` where it begins; 100 rows at most (docs.easypost.com/docs/shipments)."""

    async def test_pages_follow_each_other(self, api: EasyPostApi, carrier: EasyPost) -> None:
        bought = [(await api.a_label())["id"] for _ in range(3)]
        first = await api.get("shipments", page_size="2")
        second = await api.get("shipments", page_size="2", before_id=first["shipments"][-1]["id"])

        assert [each["id"] for each in (*first["shipments"], *second["shipments"])][:3] == bought[::-1]
        assert (first["has_more"], PAGE_ROWS) == (True, 100)


class TestParcels:
    """Ounces and inches to one decimal; a size is required once another is there (docs.easypost.com/docs/parcels)."""

    @pytest.mark.parametrize(("sizes", "status"), [({}, 201), ({"length": 5.0}, 422), ({"length": 5.0, "width": 5.0, "height": 5.0}, 201)])
    async def test_simulation_wants_all_sizes_or_none(self, api: EasyPostApi, sizes: dict[str, float], status: int) -> None:
        made = await api.create()
        answer = await api.post("shipments", {"shipment": {**made, "parcel": {"weight": 15.4, **sizes}}})

        assert answer.status_code == status

    @pytest.mark.parametrize("length", [0, 300], ids=["weight_alone", "one_size"])
    async def test_adapter_prices_packages_of_unknown_size(self, carrier: EasyPost, length: int) -> None:
        package = msgspec.structs.replace(PACKAGE, length_mm=length, width_mm=0, height_mm=0)

        with recorded() as calls:
            assert len(await carrier.rates(a_rates_request(packages=(package,)))) == 3
        assert calls[0].request["shipment"]["parcel"] == {"weight": 15.4}

    async def test_several_packages_are_refused_before_a_call(self, carrier: EasyPost) -> None:
        """docs.easypost.com/docs/shipments: a shipment has one parcel; several are an Order."""
        with recorded() as calls, pytest.raises(CarrierRefused):
            await carrier.rates(a_rates_request(packages=(PACKAGE, PACKAGE)))
        assert calls == []
