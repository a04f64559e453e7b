"""What Shippo is sent of customs and of how a parcel is handed over, when a shipment is made.

shippo-python-sdk 3.9.0, src/shippo/models/components: CustomsDeclarationCreateRequest, CustomsItemCreateRequest, ShipmentExtra.
"""

from typing import Any

from services.fulfillment.domain.shipping.customs import Declaration, DeclaredGoods, DeclaredNumber, Terms
from services.fulfillment.providers import CarrierRefused
from shared.contracts.customs import (
    CustomsContents,
    DangerousGoods,
    DeliveryConfirmation,
    DutiesAccount,
    Incoterm,
    NonDelivery,
    TaxNumberKind,
)
from shared.money import Money, decimal_text

CONTENTS = {
    CustomsContents.MERCHANDISE: "MERCHANDISE",
    CustomsContents.GIFT: "GIFT",
    CustomsContents.SAMPLE: "SAMPLE",
    CustomsContents.RETURNED_GOODS: "RETURN_MERCHANDISE",
    CustomsContents.DOCUMENTS: "DOCUMENTS",
    CustomsContents.HUMANITARIAN_DONATION: "HUMANITARIAN_DONATION",
    CustomsContents.OTHER: "OTHER",
}
NON_DELIVERY = {NonDelivery.RETURN: "RETURN", NonDelivery.ABANDON: "ABANDON"}
# "If expecting DAP for other carriers, please use DDU" (CustomsDeclarationIncotermEnum), and a shipment is priced by all carriers at once.
INCOTERMS = {Incoterm.DAP: "DDU", Incoterm.DDP: "DDP"}
LEGENDS = {
    "NOEEI 30.37(a)": "NOEEI_30_37_a",
    "NOEEI 30.37(h)": "NOEEI_30_37_h",
    "NOEEI 30.37(f)": "NOEEI_30_37_f",
    "NOEEI 30.36": "NOEEI_30_36",
}
# One number besides the EORI number: that of the scheme by which import tax is paid, before those that name the shop.
TAX_IDS = (TaxNumberKind.IOSS, TaxNumberKind.ARN, TaxNumberKind.VAT, TaxNumberKind.EIN)
SCHEMES = frozenset({TaxNumberKind.IOSS, TaxNumberKind.ARN})
CONFIRMATIONS = {DeliveryConfirmation.SIGNATURE: "STANDARD", DeliveryConfirmation.ADULT_SIGNATURE: "ADULT"}


def shipment_terms(terms: Terms) -> dict[str, Any]:
    """Write what goes into a shipment with its addresses and its parcel; refuses what Shippo has no words for."""
    extra: dict[str, Any] = {}
    if terms.delivery_confirmation is not None:
        extra["signature_confirmation"] = CONFIRMATIONS[terms.delivery_confirmation]
    if terms.dangerous_goods:
        extra["dangerous_goods"] = {
            "contains": True,
            **({"lithium_batteries": {"contains": True}} if DangerousGoods.LITHIUM_BATTERIES in terms.dangerous_goods else {}),
        }
    declaration = {} if terms.declaration is None else {"customs_declaration": _declaration(terms.declaration)}
    return {**declaration, **({"extra": extra} if extra else {})}


def _declaration(declaration: Declaration) -> dict[str, Any]:
    explanation, account = declaration.contents_explanation, declaration.duties_account
    return {
        "contents_type": CONTENTS[declaration.contents],
        **({"contents_explanation": explanation} if explanation else {}),
        "non_delivery_option": NON_DELIVERY[declaration.non_delivery],
        "certify": True,
        "certify_signer": declaration.signer,
        "incoterm": INCOTERMS[declaration.incoterm],
        **({} if account is None else {"duties_payor": _payor(account, declaration.signer)}),
        **_filing(declaration),
        **_identification(declaration),
        "items": [_item(each, declaration.currency) for each in declaration.goods],
    }


def _payor(account: DutiesAccount, name: str) -> dict[str, Any]:
    return {
        "type": account.payer.value,
        "account": account.account,
        "address": {"name": name, "zip": account.postal_code, "country": account.country},
    }


def _filing(declaration: Declaration) -> dict[str, str]:
    if declaration.itn:
        return {"eel_pfc": "AES_ITN", "aes_itn": declaration.itn}
    if not declaration.eel_pfc:
        return {}
    if declaration.eel_pfc not in LEGENDS:
        raise CarrierRefused("eel_pfc_unknown", f"Shippo has no word for {declaration.eel_pfc}")
    return {"eel_pfc": LEGENDS[declaration.eel_pfc]}


def _identification(declaration: Declaration) -> dict[str, Any]:
    """Write the exporter's numbers; a VOEC number has no place, and without it the parcel would be taxed twice."""
    ours = [each for each in declaration.numbers if each.of_sender]
    if any(each.kind is TaxNumberKind.VOEC for each in ours):
        raise CarrierRefused("voec_unknown", "Shippo has no field for a VOEC number")
    found: dict[str, Any] = {}
    if eori := next((each.number for each in ours if each.kind is TaxNumberKind.EORI), None):
        found["eori_number"] = eori
    if tax_id := _tax_id(ours):
        found["tax_id"] = {"number": tax_id.number, "type": tax_id.kind.value}
        if tax_id.kind in SCHEMES:
            return {"exporter_identification": found, "is_vat_collected": True}
    return {"exporter_identification": found} if found else {}


def _tax_id(ours: list[DeclaredNumber]) -> DeclaredNumber | None:
    return min((each for each in ours if each.kind in TAX_IDS), key=lambda each: TAX_IDS.index(each.kind), default=None)


def _item(goods: DeclaredGoods, currency: str) -> dict[str, Any]:
    return {
        "description": goods.description,
        "quantity": goods.quantity,
        "net_weight": str(goods.weight_grams),
        "mass_unit": "g",
        "value_amount": decimal_text(Money(goods.value, currency)),
        "value_currency": currency,
        "origin_country": goods.origin_country,
        "hs_code": goods.hs_code,
    }
