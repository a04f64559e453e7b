"""What the simulation refuses of customs, as EasyPost documents it (docs.easypost.com: customs-infos, customs-items, shipments/options)."""

from typing import Any

import pytest

from deploy.sandbox.faces import customs as face
from services.fulfillment.providers import easypost_customs as adapter
from services.fulfillment.providers.easypost import ANSWERS, shipment_body
from shared.contracts.customs import CustomsContents, Incoterm, NonDelivery
from shared.http_client import Answer
from tests.provider_facts.easypost.conftest import EasyPostApi
from tests.provider_facts.shipments import TOKYO, a_rates_request


def a_shipment(**changes: Any) -> Any:
    shipment = shipment_body(a_rates_request(ship_to=TOKYO))["shipment"]
    return {**shipment, "customs_info": {**shipment["customs_info"], **changes}}


def an_item(**changes: Any) -> list[Any]:
    return [{**a_shipment()["customs_info"]["customs_items"][0], **changes}]


def test_words_are_the_documented_ones() -> None:
    assert {each.value for each in CustomsContents} <= face.EASYPOST_CONTENTS
    assert {each.value for each in NonDelivery} == face.EASYPOST_NON_DELIVERY
    assert {each.value for each in Incoterm} <= face.EASYPOST_OPTIONS["incoterm"]
    assert set(adapter.CONFIRMATIONS.values()) <= face.EASYPOST_OPTIONS["delivery_confirmation"]
    assert set(adapter.HAZMAT.values()) <= face.EASYPOST_OPTIONS["hazmat"]


@pytest.mark.parametrize(
    "changes",
    [
        {"customs_items": an_item(value="0.00")},
        {"customs_items": an_item(weight=0.0)},
        {"customs_items": an_item(quantity=0)},
        {"customs_signer": ""},
        {"contents_type": "MERCHANDISE"},
        {"contents_type": "other", "contents_explanation": ""},
        {"contents_explanation": "x" * 256},
        {"restriction_type": "quarantine"},
    ],
    ids=["value", "weight", "quantity", "unsigned", "contents", "unexplained", "explanation", "restriction"],
)
async def test_shipments_with_faults_are_refused(api: EasyPostApi, changes: dict[str, Any]) -> None:
    answer = await api.post("shipments", {"shipment": a_shipment(**changes)})

    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "SHIPMENT.INVALID_PARAMS")
    assert ANSWERS.refusal(Answer(answer.status_code, answer.json(), {})) is not None


@pytest.mark.parametrize(
    "changes", [{"eel_pfc": ""}, {"customs_items": an_item(weight=99.0)}], ids=["without_legend", "heavier_than_the_parcel"]
)
async def test_carriers_sell_no_label_for_it(api: EasyPostApi, changes: dict[str, Any]) -> None:
    shipment = (await api.post("shipments", {"shipment": a_shipment(**changes)})).json()
    answer = await api.post(f"shipments/{shipment['id']}/buy", {"rate": {"id": shipment["rates"][0]["id"]}})

    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "SHIPMENT.POSTAGE.FAILURE")
    assert ANSWERS.refusal(Answer(answer.status_code, answer.json(), {})) is not None


async def test_what_was_declared_is_shown(api: EasyPostApi) -> None:
    identifier = {"entity": "SENDER", "tax_id": "12345", "tax_id_type": "EORI", "issuing_country": "GB"}
    shown = (await api.post("shipments", {"shipment": {**a_shipment(), "tax_identifiers": [identifier]}})).json()

    assert (shown["tax_identifiers"], shown["options"]["incoterm"]) == ([identifier], "DAP")
