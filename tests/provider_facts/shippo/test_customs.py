"""What is sent of customs is of the library's types, and the simulation refuses what those do not allow (shippo-python-sdk 3.9.0)."""

from enum import Enum
from typing import Any

import pytest
from shippo.models import components

from deploy.sandbox.faces import customs as face
from services.fulfillment.domain.shipping.customs import terms_of, way_of
from services.fulfillment.providers import shippo_customs as adapter
from services.fulfillment.providers.shippo import ANSWERS, shipment_body
from shared.contracts.customs import CustomsContents, CustomsTerms, DeliveryConfirmation, DutiesAccount, DutiesPayer, Incoterm
from shared.http_client import Answer
from tests.provider_facts.shipments import CONTENT, HOME, PACKAGE, TOKYO, a_rates_request
from tests.provider_facts.shippo.conftest import ShippoApi
from tests.provider_facts.shippo.sdk_types import unfit

DUTIES = DutiesAccount(payer=DutiesPayer.THIRD_PARTY, account="1", country="US", postal_code="94107")
SAID = CustomsTerms(
    contents=CustomsContents.OTHER, contents_explanation="a trophy", incoterm=Incoterm.DDP, duties_account=DUTIES, itn="X20261130123456"
)


def values(kind: type[Enum]) -> set[str]:
    return {member.value for member in kind}


def a_body(**changes: Any) -> Any:
    way = way_of(HOME, TOKYO)
    terms = terms_of(CONTENT, (PACKAGE,), way, said=(SAID,), confirmations=(DeliveryConfirmation.ADULT_SIGNATURE,))
    body = shipment_body(a_rates_request(ship_to=TOKYO, terms=terms))
    return {**body, "customs_declaration": {**body["customs_declaration"], **changes}}


class TestTypes:
    def test_enumerations_are_the_librarys(self) -> None:
        assert values(components.CustomsDeclarationContentsTypeEnum) == face.SHIPPO_CONTENTS == set(adapter.CONTENTS.values())
        assert values(components.CustomsDeclarationNonDeliveryOptionEnum) == face.SHIPPO_NON_DELIVERY == set(adapter.NON_DELIVERY.values())
        assert values(components.CustomsDeclarationIncotermEnum) == face.SHIPPO_INCOTERMS
        assert values(components.CustomsDeclarationEelPfcEnum) == face.SHIPPO_EEL_PFC == {*adapter.LEGENDS.values(), "AES_ITN"}
        assert values(components.CustomsTaxIdentificationType) == face.SHIPPO_TAX_IDS == {each.value for each in adapter.TAX_IDS}
        assert values(components.SignatureConfirmation) == face.SHIPPO_SIGNATURES >= set(adapter.CONFIRMATIONS.values())
        assert {each.value for each in DutiesPayer} <= values(components.CustomsDeclarationCreateRequestType)

    def test_whole_declaration_is_of_the_librarys_types(self) -> None:
        assert unfit(a_body(), components.ShipmentCreateRequest) == []


class TestRefusals:
    async def test_whole_declaration_is_taken(self, api: ShippoApi) -> None:
        assert (await api.post("shipments", a_body())).status_code == 201

    @pytest.mark.parametrize(
        "changes",
        [
            {"certify": False},
            {"certify_signer": ""},
            {"contents_type": "other"},
            {"contents_explanation": ""},
            {"incoterm": "EXW"},
            {"eel_pfc": "NOEEI 30.37(a)"},
            {"aes_itn": None},
            {"exporter_identification": {"eori_number": "DE123"}},
            {"exporter_identification": {"tax_id": {"number": "2000001", "type": "VOEC"}}},
            {"items": []},
            {"items": [{"description": "Mug"}]},
        ],
        ids=["uncertified", "unsigned", "contents", "explanation", "incoterm", "legend", "itn", "eori", "voec", "empty", "item"],
    )
    async def test_simulation_refuses_what_types_do_not_allow(self, api: ShippoApi, changes: dict[str, Any]) -> None:
        answer = await api.post("shipments", a_body(**changes))

        assert (answer.status_code, list(answer.json())) == (400, ["customs_declaration"])
        assert ANSWERS.refusal(Answer(answer.status_code, answer.json(), {})) is not None
