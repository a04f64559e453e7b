"""How EasyPost and Shippo check what a shipment says of customs, before they pass it on."""

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from deploy.sandbox.server import Fields

# docs.easypost.com: docs/customs-infos, docs/customs-items, docs/shipments/options, docs/shipments/tax-identifiers.
EASYPOST_CONTENTS = frozenset(
    {"documents", "gift", "merchandise", "returned_goods", "sample", "dangerous_goods", "humanitarian_donation", "other"}
)
EASYPOST_NON_DELIVERY = frozenset({"return", "abandon"})
EASYPOST_RESTRICTIONS = frozenset({"none", "other", "quarantine", "sanitary_phytosanitary_inspection"})
EASYPOST_OPTIONS = {
    "incoterm": frozenset({"EXW", "FCA", "CPT", "CIP", "DAT", "DAP", "DDP", "FAS", "FOB", "CFR", "CIF"}),
    "delivery_confirmation": frozenset({"ADULT_SIGNATURE", "SIGNATURE", "NO_SIGNATURE"}),
    "hazmat": frozenset(
        {
            *("PRIMARY_CONTAINED", "PRIMARY_PACKED", "PRIMARY", "SECONDARY_CONTAINED", "SECONDARY_PACKED", "SECONDARY"),
            *("ORMD", "LIMITED_QUANTITY", "LITHIUM"),
        }
    ),
}
TAX_IDENTIFIERS_MAX = 8
EXPLANATION_MAX_CHARACTERS = 255

# shippo-python-sdk 3.9.0, src/shippo/models/components.
SHIPPO_CONTENTS = frozenset({"DOCUMENTS", "GIFT", "SAMPLE", "MERCHANDISE", "HUMANITARIAN_DONATION", "RETURN_MERCHANDISE", "OTHER"})
SHIPPO_NON_DELIVERY = frozenset({"ABANDON", "RETURN"})
SHIPPO_INCOTERMS = frozenset({"DDP", "DDU", "FCA", "DAP", "eDAP"})
SHIPPO_EEL_PFC = frozenset({"NOEEI_30_37_a", "NOEEI_30_37_h", "NOEEI_30_37_f", "NOEEI_30_36", "AES_ITN"})
SHIPPO_TAX_IDS = frozenset({"EIN", "VAT", "IOSS", "ARN"})
SHIPPO_SIGNATURES = frozenset({"STANDARD", "ADULT", "CERTIFIED", "INDIRECT", "CARRIER_CONFIRMATION"})
SHIPPO_DECLARATION = ("certify", "certify_signer", "contents_type", "items", "non_delivery_option")
SHIPPO_ITEM = ("description", "mass_unit", "net_weight", "origin_country", "quantity", "value_amount", "value_currency")
EORI_CHARACTERS = range(8, 20)


def easypost_faults(shipment: Fields) -> Iterator[str]:
    """Name what EasyPost's documentation does not allow of a shipment's customs and options."""
    for name, values in EASYPOST_OPTIONS.items():
        given = (shipment.get("options") or {}).get(name)
        if given is not None and given not in values:
            yield f"options.{name}: {given} is not supported"
    identifiers = shipment.get("tax_identifiers") or []
    if len(identifiers) > TAX_IDENTIFIERS_MAX:
        yield f"tax_identifiers: at most {TAX_IDENTIFIERS_MAX}"
    for each in identifiers:
        if each.get("entity") not in ("SENDER", "RECEIVER") or not each.get("tax_id") or not each.get("tax_id_type"):
            yield "tax_identifiers: entity, tax_id and tax_id_type are required"
    if info := shipment.get("customs_info"):
        yield from _easypost_customs_info(info)


def _easypost_customs_info(info: Fields) -> Iterator[str]:
    if info.get("contents_type") not in EASYPOST_CONTENTS:
        yield "customs_info.contents_type is not supported"
    explanation = str(info.get("contents_explanation") or "")
    if len(explanation) > EXPLANATION_MAX_CHARACTERS or (info.get("contents_type") == "other" and not explanation):
        yield "customs_info.contents_explanation is missing or too long"
    if info.get("non_delivery_option", "return") not in EASYPOST_NON_DELIVERY:
        yield "customs_info.non_delivery_option is not supported"
    restriction = info.get("restriction_type", "none")
    if restriction not in EASYPOST_RESTRICTIONS or (restriction != "none" and not info.get("restriction_comments")):
        yield "customs_info.restriction_type needs restriction_comments"
    if info.get("customs_certify") and not info.get("customs_signer"):
        yield "customs_info.customs_signer is required if customs_certify is true"
    for item in info.get("customs_items") or ():
        for name in ("quantity", "value", "weight"):
            if _figure(item.get(name)) <= 0:
                yield f"customs_items.{name} must be greater than zero"


def easypost_refusals(shipment: Fields) -> Iterator[str]:
    """Name what a carrier does not sell a label for."""
    info = shipment.get("customs_info") or {}
    items = info.get("customs_items") or ()
    if sum(_figure(item.get("weight")) for item in items) > _figure(shipment["parcel"].get("weight")):
        yield "The customs items weigh more than the parcel"
    here, there = (shipment[side].get("country") for side in ("from_address", "to_address"))
    if items and here == "US" and there != "US" and not info.get("eel_pfc"):
        yield "eel_pfc is required for shipments that leave the US"


def shippo_faults(body: Fields) -> Iterator[tuple[str, str]]:
    """Name, by field of the shipment, what Shippo's types do not allow."""
    extra = body.get("extra") or {}
    if extra.get("signature_confirmation") not in (None, *SHIPPO_SIGNATURES):
        yield "extra", "signature_confirmation is not a valid choice."
    declaration = body.get("customs_declaration")
    if isinstance(declaration, dict):
        for text in _shippo_declaration(declaration):
            yield "customs_declaration", text


def _shippo_declaration(declaration: Fields) -> Iterator[str]:
    for name in SHIPPO_DECLARATION:
        if not declaration.get(name):
            yield f"{name}: This field is required."
    choices = {"contents_type": SHIPPO_CONTENTS, "non_delivery_option": SHIPPO_NON_DELIVERY, "incoterm": SHIPPO_INCOTERMS}
    for name, values in {**choices, "eel_pfc": SHIPPO_EEL_PFC}.items():
        if declaration.get(name) is not None and declaration[name] not in values:
            yield f'{name}: "{declaration[name]}" is not a valid choice.'
    if declaration.get("eel_pfc") == "AES_ITN" and not declaration.get("aes_itn"):
        yield "aes_itn: This field is required if eel_pfc is AES_ITN."
    if declaration.get("contents_type") == "OTHER" and not declaration.get("contents_explanation"):
        yield "contents_explanation: This field is required if contents_type is OTHER."
    yield from _shippo_identification(declaration.get("exporter_identification") or {})
    for item in declaration.get("items") or ():
        yield from (f"items: {name} is required." for name in SHIPPO_ITEM if not item.get(name))
        if _figure(item.get("quantity")) <= 0:
            yield "items: quantity must be greater than 0."


def _shippo_identification(identification: Fields) -> Iterator[str]:
    eori, tax_id = identification.get("eori_number"), identification.get("tax_id")
    if eori and len(eori) not in EORI_CHARACTERS:
        yield "eori_number: a country code and 6 to 17 characters."
    if tax_id and tax_id.get("type") not in SHIPPO_TAX_IDS:
        yield "tax_id: type is not a valid choice."


def _figure(value: Any) -> Decimal:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return Decimal(0)
