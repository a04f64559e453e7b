"""The shapes of EasyPost's objects: every field that was ever recorded, and what it was.

Sources: EasyPost/examples at 112a6d1 (official/docs/responses, official/fixtures/event-body.json) and EasyPost/easypost-python at 8fcf5e4
(tests/cassettes): 69 answers with 56 shipments, 232 rates, 59 trackers, 8 refunds and 33 events. A field is written `name:types`, with `?`
when some object has it not; the types are s(tring), i(nteger), f(raction), b(oolean), [ (list), { (object) and - (null).
"""

from collections.abc import Iterator, Mapping
from typing import Any

RECORDED = {
    "Address": """id:s object:s created_at:s updated_at:s name:-s company:-s street1:-s street2:-s city:-s state:-s zip:-s country:-s
        phone:-s email:-s mode:s carrier_facility:-? residential:-b? federal_tax_id:-? state_tax_id:-? verifications:{?""",
    "CustomsInfo": """id:s object:s created_at:s updated_at:s contents_explanation:s contents_type:s customs_certify:b customs_signer:s
        eel_pfc:s non_delivery_option:s restriction_comments:- restriction_type:s mode:s declaration:- customs_items:[""",
    "CustomsItem": """id:s object:s created_at:s updated_at:s description:s hs_tariff_number:s origin_country:s quantity:i value:s weight:f
        code:-s mode:s manufacturer:- currency:- eccn:- printed_commodity_identifier:-""",
    "Event": """description:s id:s user_id:s status:s created_at:s mode:s object:s previous_attributes:{? pending_urls:[? completed_urls:[?
        updated_at:s? result:{?""",
    "Fee": "object:s type:s amount:s charged:b refunded:b",
    "Parcel": """id:s object:s created_at:s updated_at:s length:f width:f height:f predefined_package:- weight:f mode:s""",
    "PostageLabel": """object:s id:s created_at:s updated_at:s date_advance:i integrated_form:s label_date:s label_resolution:i label_size:s
        label_type:s label_file_type:-s label_url:-s label_pdf_url:- label_zpl_url:-s label_epl2_url:- label_file:-s""",
    "Rate": """id:s object:s created_at:s updated_at:s mode:s service:s carrier:s rate:s currency:s retail_rate:s retail_currency:s
        list_rate:s list_currency:s billing_type:s delivery_days:i delivery_date:- delivery_date_guaranteed:b est_delivery_days:i
        shipment_id:s carrier_account_id:s""",
    "Refund": """id:s object:s created_at:s updated_at:s tracking_code:s confirmation_number:- status:s carrier:s shipment_id:s""",
    "Shipment": """id:s created_at:s is_return:b messages:[ mode:s options:{ reference:-s status:s tracking_code:-s updated_at:s batch_id:-s
        batch_status:-s batch_message:- customs_info:-{ from_address:{ insurance:-s order_id:- parcel:{ postage_label:-{ rates:[
        refund_status:-s scan_form:-{ selected_rate:-{ tracker:-{ to_address:{ usps_zone:i? return_address:{ buyer_address:{ forms:[ fees:[
        object:s luma_info:{? tax_identifiers:-[?""",
    "Tracker": """id:s object:s mode:s tracking_code:s status:s status_detail:s created_at:s updated_at:s signed_by:-s weight:-f
        est_delivery_date:-s shipment_id:-s carrier:s tracking_details:[ fees:[? carrier_detail:-{ public_url:s finalized:b? is_return:b?
        delivery_evidence:[?""",
    "TrackingDetail": """object:s message:s description:-s status:s status_detail:s datetime:s source:s carrier_code:-s tracking_location:{
        est_delivery_date:-?""",
    "TrackingLocation": "object:s city:-s state:-s country:-s zip:-s",
}
# What the documentation says of fields that no recording happens to fill: that they can be left out when a shipment is made
# (docs.easypost.com/docs/parcels, /docs/customs-infos), or are filled by a conversion (/docs/shipments).
DOCUMENTED = {
    "CustomsItem": {"currency": "-s"},
    "Parcel": {"length": "-f", "width": "-f", "height": "-f"},
    "PostageLabel": {"label_pdf_url": "-s", "label_epl2_url": "-s"},
}
LETTERS: dict[type, str] = {str: "s", int: "i", float: "f", bool: "b", type(None): "-", list: "[", dict: "{"}


def fields_of(kind: str) -> dict[str, tuple[str, bool]]:
    """Read the fields of a kind of object: what types each has, and whether every object has it."""
    recorded = (field.partition(":")[::2] for field in RECORDED[kind].split())
    fields = {name: (types.removesuffix("?"), not types.endswith("?")) for name, types in recorded}
    return fields | {name: (types, True) for name, types in DOCUMENTED.get(kind, {}).items()}


def unfit(value: Any, where: str = "") -> Iterator[str]:
    """Name what an object has that was never recorded, what it lacks, and what is of another type, at every depth."""
    if isinstance(value, list):
        for item in value:
            yield from unfit(item, where)
    elif isinstance(value, Mapping):
        yield from _unfit_fields(value, f"{where}{value['object']}.") if value.get("object") in RECORDED else ()
        for name, inner in value.items():
            yield from unfit(inner, f"{where}{name}/")


def _unfit_fields(value: Mapping[str, Any], where: str) -> Iterator[str]:
    fields = fields_of(str(value["object"]))
    yield from (f"{where}{name} is missing" for name, (_, always) in fields.items() if always and name not in value)
    for name, inner in value.items():
        if name not in fields:
            yield f"{where}{name} is unknown"
        elif LETTERS[type(inner)] not in fields[name][0]:
            yield f"{where}{name} = {inner!r}"


def least(value: Any) -> Any:
    """Cut an object down to what every object of its kind has, with null wherever null was recorded."""
    if isinstance(value, list):
        return [least(item) for item in value]
    if not isinstance(value, Mapping) or value.get("object") not in RECORDED:
        return value
    fields = fields_of(value["object"])
    always = {name: inner for name, inner in value.items() if fields[name][1]}
    return {name: None if "-" in fields[name][0] else least(inner) for name, inner in always.items()}
