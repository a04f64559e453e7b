"""The sandbox's carrier with the face of EasyPost (docs.easypost.com), as far as our adapter and EasyPost's own library look."""

import hashlib
import hmac
import unicodedata
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from litestar import Response, Router, get, post
from litestar.params import FromPath, FromQuery

from deploy.sandbox.books import Refused, now
from deploy.sandbox.faces.carrier import at_city, in_words
from deploy.sandbox.faces.customs import easypost_faults, easypost_refusals
from deploy.sandbox.parcels import Label, Parcel, Rate, Scan
from deploy.sandbox.printing import picture, printed
from deploy.sandbox.server import Fields, HttpRequest, Sandbox, json_response, sandbox_of
from deploy.sandbox.tokens import Act
from deploy.sandbox.webhooks import Told
from shared.ids import new_id
from shared.money import Money, decimal_text

FACE = "easypost"
CARRIER = "Sandbox"
GRAMS_PER_OUNCE = Decimal("28.349523125")
MILLIMETRES_PER_INCH = Decimal("25.4")
REFUNDS = {"void_requested": "submitted", "refunded": "refunded", "rejected": "rejected", "not_applicable": "not_applicable"}
STATUSES = {"picked_up": "in_transit", "exception": "failure"}
# What it adds to a status (docs.easypost.com/docs/trackers, status_detail).
STATUS_DETAILS = {
    "unknown": "unknown",
    "pre_transit": "label_created",
    "picked_up": "received_at_origin_facility",
    "in_transit": "departed_facility",
    "out_for_delivery": "out_for_delivery",
    "available_for_pickup": "arrived_at_pickup_location",
    "exception": "delivery_exception",
    "delivered": "arrived_at_destination",
    "return_to_sender": "return",
    "cancelled": "cancelled",
}
OTHER_DETAIL = "status_update"
# What a label that was made as a PNG is converted to, and where that lies (docs.easypost.com/docs/shipments, convert).
CONVERSIONS = {"PDF": "label_pdf_url", "ZPL": "label_zpl_url"}
PNG, PNG_TYPE = "PNG", "image/png"
FILE_TYPES = {PNG: PNG_TYPE, "PDF": "application/pdf", "ZPL": "application/zpl"}
PAGE_ROWS_MAX = 100
SIZES = ("length", "width", "height")
# How it refuses (docs.easypost.com/guides/errors-guide).
REFUSALS = {
    "address_invalid": (422, "ADDRESS.PARAMETERS.INVALID"),
    "customs_needed": (422, "SHIPMENT.CUSTOMS_INFO.REQUIRED"),
    "parcels_invalid": (422, "PARCEL.PARAMETERS.INVALID"),
    "rate_expired": (422, "SHIPMENT.MISSING_RATE"),
    "rate_not_found": (422, "SHIPMENT.MISSING_RATE"),
}
CODES = {401: "UNAUTHORIZED", 429: "RATE_LIMITED", 500: "INTERNAL_SERVER_ERROR"}


class Shipment(msgspec.Struct, kw_only=True):
    """What a label is bought for."""

    id: str
    said: dict[str, Any]
    rates: list[Rate]
    created_at: str
    label_id: str | None = None
    chosen: Rate | None = None
    insurance: str | None = None
    # The label's address in each format that it was converted to.
    converted: dict[str, str] = {}

    @property
    def label_format(self) -> str:
        """Tell which format its label is made in."""
        return str((self.said.get("options") or {}).get("label_format") or PNG)


class EasyPostFace:
    """JSON in, and errors as EasyPost writes them."""

    remembers_failures = False

    def read(self, raw: bytes) -> Fields:
        """Read an object."""
        try:
            value = msgspec.json.decode(raw) if raw else {}
        except msgspec.DecodeError:
            raise Refused(400, "BAD_REQUEST", "The body is not JSON") from None
        if not isinstance(value, dict):
            raise Refused(400, "BAD_REQUEST", "The body is not a JSON object")
        return value

    def error(self, refused: Refused) -> bytes:
        """Write an error."""
        code = CODES.get(refused.status, refused.code)
        return msgspec.json.encode({"error": {"code": code, "message": str(refused), "errors": []}})


EASYPOST = EasyPostFace()


class EasyPostEvents:
    """Events as EasyPost writes them, with an `X-Hmac-Signature` (easypost-python, util.py)."""

    def event(self, event_id: str, kind: str, data: Any, at: str) -> bytes:
        """Write an event."""
        said = {"id": event_id, "object": "Event", "mode": "test", "description": kind, "created_at": at, "updated_at": at, "result": data}
        return msgspec.json.encode(
            {**said, "user_id": "user_sandbox", "previous_attributes": {}, "pending_urls": [], "completed_urls": [], "status": "pending"}
        )

    def headers(self, told: Told, secret: str) -> dict[str, str]:
        """Sign an event."""
        key = unicodedata.normalize("NFKD", secret).encode()
        mac = hmac.new(key, told.body, hashlib.sha256).hexdigest()
        return {"Content-Type": "application/json", "X-Hmac-Signature": f"hmac-sha256-hex={mac}"}


@post("/v2/shipments")
async def create(request: HttpRequest) -> Response[bytes]:
    sandbox = sandbox_of(request)

    def made(body: Fields) -> dict[str, Any]:
        said = body.get("shipment")
        if not isinstance(said, dict):
            raise Refused(422, "PARAMETER.REQUIRED", "shipment is missing")
        for name in ("from_address", "to_address", "parcel"):
            if not isinstance(said.get(name), dict):
                raise Refused(422, "SHIPMENT.INVALID_PARAMS", f"Unable to create shipment, {name} is missing")
        _check(said)
        with in_words(REFUSALS):
            rates = sandbox.carrier.quote(_translated(said))
        shipment = Shipment(id=f"shp_{new_id().hex}", said=said, rates=rates, created_at=_moment(now().isoformat()))
        sandbox.shipments[shipment.id] = shipment
        return shown(sandbox, shipment)

    answer = await sandbox.keyed(request, EASYPOST, "rates", lambda body: at_city("rates", _to(body)), made)
    answer.status_code = 201 if answer.status_code == 200 else answer.status_code
    return answer


@get("/v2/shipments")
async def list_all(
    request: HttpRequest,
    start_datetime: FromQuery[str] = "",
    end_datetime: FromQuery[str] = "",
    before_id: FromQuery[str] = "",
    page_size: FromQuery[int] = 20,
) -> Response[bytes]:
    """List the shipments that were bought, the newest first."""
    sandbox = sandbox_of(request)
    sandbox.read(request)
    by_label = {each.label_id: each for each in sandbox.shipments.values() if isinstance(each, Shipment) and each.label_id}
    before = sandbox.shipments[before_id].label_id if before_id else ""
    rows = min(page_size, PAGE_ROWS_MAX)
    page, following = sandbox.carrier.sold(since=start_datetime, until=end_datetime, after=before, limit=rows, face=FACE, newest_first=True)
    shipments = [shown(sandbox, by_label[label.id]) for label in page]
    return json_response(msgspec.json.encode({"shipments": shipments, "has_more": following is not None}))


@get("/v2/shipments/{shipment_id:str}")
async def retrieve(request: HttpRequest, shipment_id: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    return json_response(msgspec.json.encode(shown(sandbox, _find(sandbox, shipment_id))))


@post("/v2/shipments/{shipment_id:str}/buy", status_code=200)
async def buy(request: HttpRequest, shipment_id: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)

    def bought(body: Fields) -> dict[str, Any]:
        shipment = _find(sandbox, shipment_id)
        if shipment.label_id is not None:
            raise Refused(422, "SHIPMENT.POSTAGE.EXISTS", "Postage already exists for this shipment")
        wanted = body.get("rate") or {}
        rate = next((each for each in shipment.rates if each.id == wanted.get("id")), None)
        if rate is None:
            raise Refused(422, "SHIPMENT.MISSING_RATE", "The requested rate could not be found")
        for refusal in easypost_refusals(shipment.said):
            # What a carrier says no to (EasyPost/easypost-csharp issue 80).
            raise Refused(422, "SHIPMENT.POSTAGE.FAILURE", refusal)
        said = {**_translated(shipment.said), "rate_id": rate.id, "document": "pdf", "face": FACE}
        with in_words(REFUSALS):
            label = sandbox.carrier.buy(said)
        insurance = body.get("insurance")
        shipment.label_id, shipment.chosen, shipment.insurance = label.id, rate, None if insurance is None else str(insurance)
        return shown(sandbox, shipment)

    city = _to({"shipment": _find(sandbox, shipment_id).said})
    return await sandbox.keyed(request, EASYPOST, "label", lambda _: at_city("labels", city), bought)


@get("/v2/shipments/{shipment_id:str}/label")
async def convert(request: HttpRequest, shipment_id: FromPath[str], file_format: FromQuery[str] = "PDF") -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    shipment = _find(sandbox, shipment_id)
    if shipment.label_id is None:
        raise Refused(422, "SHIPMENT.POSTAGE.REQUIRED", "The shipment has no postage label")
    if file_format not in FILE_TYPES:
        raise Refused(422, "SHIPMENT.POSTAGE.INVALID_FORMAT", f"{file_format} is no format of a label")
    if file_format != shipment.label_format and shipment.label_format != PNG:
        raise Refused(422, "SHIPMENT.POSTAGE.FORMAT_UNAVAILABLE", f"A label made as {shipment.label_format} cannot be converted")
    if file_format in CONVERSIONS:
        shipment.converted[CONVERSIONS[file_format]] = _file(sandbox, shipment.label_id, file_format)
    return json_response(msgspec.json.encode(shown(sandbox, shipment)))


@post("/v2/shipments/{shipment_id:str}/refund", status_code=200)
async def refund(request: HttpRequest, shipment_id: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)

    def refunded(_: Fields) -> dict[str, Any]:
        shipment = _find(sandbox, shipment_id)
        if shipment.label_id is None:
            raise Refused(422, "SHIPMENT.REFUND.UNAVAILABLE", "The shipment was not bought")
        sandbox.carrier.void(sandbox.carrier.get(shipment.label_id))
        return shown(sandbox, shipment)

    return await sandbox.keyed(request, EASYPOST, "label_void", lambda _: Act.SUCCEED, refunded)


@get("/v2/trackers")
async def trackers(request: HttpRequest, tracking_code: FromQuery[str] = "") -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    found = [
        tracker(sandbox, label, parcel)
        for label in sandbox.carrier.labels.values()
        for parcel in label.parcels
        if parcel.tracking_number == tracking_code
    ]
    return json_response(msgspec.json.encode({"trackers": found, "has_more": False}))


@get("/v2/files/{label_id:str}")
async def file(request: HttpRequest, label_id: FromPath[str]) -> Response[bytes]:
    """Give a label to whoever knows its address, as a file store does."""
    name, _, ending = label_id.partition(".")
    label = sandbox_of(request).carrier.get(name)
    if ending == PNG.lower():
        return Response(picture(label, label.parcels[0]), media_type=PNG_TYPE)
    label = msgspec.structs.replace(label, document=ending)
    media_type, content = printed(label, label.parcels[0])
    return Response(content, media_type=media_type)


def shown(sandbox: Sandbox, shipment: Shipment) -> dict[str, Any]:
    """Write a shipment."""
    label = None if shipment.label_id is None else sandbox.carrier.get(shipment.label_id)
    parcel = None if label is None else label.parcels[0]
    said = shipment.said
    start, end = _address(shipment, "adr_from", said["from_address"]), _address(shipment, "adr_to", said["to_address"])
    return {
        "id": shipment.id,
        "object": "Shipment",
        "mode": "test",
        **_made(shipment),
        "is_return": bool(said.get("is_return")),
        "reference": said.get("reference"),
        "status": "unknown" if parcel is None else _status(parcel),
        "tracking_code": None if parcel is None else parcel.tracking_number,
        "from_address": start,
        "to_address": end,
        "return_address": start,
        "buyer_address": end,
        "parcel": _parcel(shipment),
        "customs_info": _customs_info(shipment),
        "tax_identifiers": said.get("tax_identifiers"),
        "options": {"currency": "USD", "payment": {"type": "SENDER"}, "date_advance": 0, **(said.get("options") or {})},
        "messages": [],
        "rates": [_rate(shipment, rate) for rate in shipment.rates],
        "selected_rate": None if shipment.chosen is None else _rate(shipment, shipment.chosen),
        "postage_label": None if label is None else _label(sandbox, shipment, label),
        "tracker": None if label is None or parcel is None else tracker(sandbox, label, parcel),
        "insurance": shipment.insurance,
        "refund_status": None if label is None else REFUNDS.get(label.status),
        "order_id": None,
        "scan_form": None,
        **dict.fromkeys(("batch_id", "batch_status", "batch_message")),
        "fees": [],
        "forms": [],
    }


def event_of(sandbox: Sandbox, label: Label, parcel: Parcel | None, scan: Scan | None) -> tuple[str, Any] | None:
    """Say what happened, by its name; of a refund it tells only when one that took its time succeeded (docs.easypost.com/docs/events)."""
    if parcel is not None:
        return "tracker.updated", tracker(sandbox, label, parcel)
    shipment = _bought_as(sandbox, label)
    if shipment is None or not label.void_was_pending or label.status != "refunded":
        return None
    return "refund.successful", {
        "id": f"rfnd_{new_id().hex}",
        "object": "Refund",
        **_made(shipment),
        "tracking_code": label.parcels[0].tracking_number,
        "confirmation_number": None,
        "status": REFUNDS[label.status],
        "carrier": CARRIER,
        "shipment_id": shipment.id,
    }


def tracker(sandbox: Sandbox, label: Label, parcel: Parcel) -> dict[str, Any]:
    """Write a tracker with its history."""
    details = [_detail(scan) for scan in sorted(parcel.scans, key=lambda scan: scan.occurred_at)]
    estimated = next((scan.estimated_delivery for scan in reversed(parcel.scans) if scan.estimated_delivery), None)
    shipment = _bought_as(sandbox, label)
    return {
        "id": f"trk_{parcel.tracking_number.lower()}",
        "object": "Tracker",
        "mode": "test",
        "tracking_code": parcel.tracking_number,
        "status": _status(parcel),
        "status_detail": details[-1]["status_detail"] if details else "unknown",
        "created_at": _moment(label.created_at),
        "updated_at": _moment(label.created_at),
        "signed_by": None,
        "weight": None,
        "est_delivery_date": estimated and _moment(estimated),
        "shipment_id": shipment and shipment.id,
        "carrier": CARRIER,
        "tracking_details": details,
        "fees": [],
        "carrier_detail": None,
        "public_url": f"{sandbox.base_url}/v2/public/{parcel.tracking_number}",
    }


def _bought_as(sandbox: Sandbox, label: Label) -> Shipment | None:
    shipments = (each for each in sandbox.shipments.values() if isinstance(each, Shipment))
    return next((each for each in shipments if each.label_id == label.id), None)


def _detail(scan: Scan) -> dict[str, Any]:
    return {
        "object": "TrackingDetail",
        "message": scan.detail,
        "description": "",
        "status": STATUSES.get(scan.status, scan.status),
        "status_detail": STATUS_DETAILS.get(scan.status, OTHER_DETAIL),
        "datetime": _moment(scan.occurred_at) if scan.occurred_at else None,
        "source": CARRIER,
        "carrier_code": scan.code,
        "tracking_location": {"object": "TrackingLocation", "city": scan.location, "state": None, "country": None, "zip": None},
    }


def _status(parcel: Parcel) -> str:
    if not parcel.scans:
        return "unknown"
    last = max(parcel.scans, key=lambda scan: scan.occurred_at)
    return STATUSES.get(last.status, last.status)


def _made(shipment: Shipment) -> dict[str, str]:
    return {"created_at": shipment.created_at, "updated_at": shipment.created_at}


def _rate(shipment: Shipment, rate: Rate) -> dict[str, Any]:
    price = decimal_text(Money(rate.amount, rate.currency))
    return {
        "id": rate.id,
        "object": "Rate",
        "mode": "test",
        "service": rate.service.title(),
        "carrier": CARRIER,
        **{f"{kind}rate": price for kind in ("", "retail_", "list_")},
        **{f"{kind}currency": rate.currency for kind in ("", "retail_", "list_")},
        "billing_type": "easypost",
        "delivery_days": rate.transit_days,
        "delivery_date": None,
        "delivery_date_guaranteed": False,
        "est_delivery_days": rate.transit_days,
        "shipment_id": shipment.id,
        "carrier_account_id": "ca_sandbox",
        **_made(shipment),
    }


def _label(sandbox: Sandbox, shipment: Shipment, label: Label) -> dict[str, Any]:
    made = _moment(label.created_at)
    return {
        "id": f"pl_{label.id[4:]}",
        "object": "PostageLabel",
        "created_at": made,
        "updated_at": made,
        "date_advance": 0,
        "integrated_form": "none",
        "label_date": made,
        "label_resolution": 300,
        "label_size": "4x6",
        "label_type": "default",
        "label_file_type": FILE_TYPES.get(shipment.label_format, PNG_TYPE),
        "label_url": _file(sandbox, label.id, shipment.label_format),
        **dict.fromkeys(("label_pdf_url", "label_zpl_url", "label_epl2_url", "label_file")),
        **shipment.converted,
    }


def _file(sandbox: Sandbox, label_id: str, label_format: str) -> str:
    return f"{sandbox.base_url}/v2/files/{label_id}.{label_format.lower()}"


def _parcel(shipment: Shipment) -> dict[str, Any]:
    parcel = shipment.said["parcel"]
    figures = {name: None if parcel.get(name) is None else float(parcel[name]) for name in (*SIZES, "weight")}
    object_id = f"prcl_{shipment.id[4:]}"
    return {"id": object_id, "object": "Parcel", "mode": "test", **_made(shipment), "predefined_package": None, **figures}


def _customs_info(shipment: Shipment) -> dict[str, Any] | None:
    said = shipment.said.get("customs_info")
    if not said:
        return None
    items = [_customs_item(shipment, item) for item in said.get("customs_items") or ()]
    return {
        "id": f"cstinfo_{shipment.id[4:]}",
        "object": "CustomsInfo",
        "mode": "test",
        **_made(shipment),
        "contents_explanation": "",
        "eel_pfc": "",
        "restriction_comments": None,
        "declaration": None,
        **said,
        "customs_items": items,
    }


def _customs_item(shipment: Shipment, item: dict[str, Any]) -> dict[str, Any]:
    unsaid = dict.fromkeys(("code", "currency", "eccn", "manufacturer", "printed_commodity_identifier"))
    made = {"id": f"cstitem_{new_id().hex}", "object": "CustomsItem", "mode": "test", **_made(shipment)}
    return {**made, **unsaid, **item, "value": str(item["value"]), "weight": float(item["weight"])}


def _address(shipment: Shipment, prefix: str, said: dict[str, Any]) -> dict[str, Any]:
    names = ("name", "company", "street1", "street2", "city", "state", "zip", "country", "phone", "email")
    unsaid = dict.fromkeys((*names, "carrier_facility", "residential", "federal_tax_id", "state_tax_id"))
    made = {"id": f"{prefix}_{shipment.id[4:]}", "object": "Address", "mode": "test", **_made(shipment)}
    return {**made, **unsaid, **said, "verifications": {}}


def _check(said: dict[str, Any]) -> None:
    """Refuse a parcel of which some sizes are there and others are not (docs.easypost.com/docs/parcels), and customs that cannot be."""
    there = [name for name in SIZES if said["parcel"].get(name)]
    if there and len(there) < len(SIZES):
        raise Refused(422, "PARCEL.PARAMETERS.INVALID", "length, width and height are required together")
    for fault in easypost_faults(said):
        raise Refused(422, "SHIPMENT.INVALID_PARAMS", f"Unable to create shipment, {fault}")


def _translated(said: dict[str, Any]) -> dict[str, Any]:
    parcel = said["parcel"]
    sizes = {f"{name}_mm": int(Decimal(str(parcel.get(name) or 0)) * MILLIMETRES_PER_INCH) for name in ("length", "width", "height")}
    return {
        "from": _plain(said["from_address"]),
        "to": _plain(said["to_address"]),
        "parcels": [{"weight_grams": int(Decimal(str(parcel.get("weight") or 0)) * GRAMS_PER_OUNCE), **sizes}],
        "customs": (said.get("customs_info") or {}).get("customs_items"),
        "currency": (said.get("options") or {}).get("currency", "USD"),
        "reference": said.get("reference"),
    }


def _plain(address: dict[str, Any]) -> dict[str, Any]:
    names = {"street1": "street_address", "city": "city", "zip": "postal_code", "state": "country_area", "country": "country_code"}
    plain = {ours: address.get(theirs) or "" for theirs, ours in names.items()}
    return {**plain, "name": address.get("name") or "", "company_name": address.get("company") or ""}


def _to(body: Fields) -> Fields:
    said = body.get("shipment")
    return said.get("to_address") or {} if isinstance(said, dict) else {}


def _find(sandbox: Sandbox, shipment_id: str) -> Shipment:
    found = sandbox.shipments.get(shipment_id)
    # With its label the books have lost the shipment, too.
    if not isinstance(found, Shipment) or (found.label_id is not None and found.label_id not in sandbox.carrier.labels):
        raise Refused(404, "NOT_FOUND", "The requested resource could not be found.")
    return found


def _moment(text: str) -> str:
    return datetime.fromisoformat(text).isoformat().replace("+00:00", "Z")


router = Router(
    path="/",
    route_handlers=[create, list_all, retrieve, buy, convert, refund, trackers, file],
    exception_handlers={Refused: lambda _, refused: json_response(EASYPOST.error(refused), refused.status)},
)
