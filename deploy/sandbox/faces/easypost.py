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
from deploy.sandbox.parcels import Label, Parcel, Rate, Scan
from deploy.sandbox.printing import printed
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
        said = {"id": event_id, "object": "Event", "mode": "test", "description": kind, "created_at": at, "result": data}
        return msgspec.json.encode({**said, "previous_attributes": {}, "pending_urls": [], "completed_urls": [], "status": "pending"})

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
        with in_words(REFUSALS):
            rates = sandbox.carrier.quote(_translated(said))
        shipment = Shipment(id=f"shp_{new_id().hex}", said=said, rates=rates, created_at=now().isoformat())
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
    page, following = sandbox.carrier.sold(
        since=start_datetime, until=end_datetime, after=before, limit=page_size, face=FACE, newest_first=True
    )
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
        said = {**_translated(shipment.said), "rate_id": rate.id, "document": "pdf", "face": FACE}
        with in_words(REFUSALS):
            label = sandbox.carrier.buy(said)
        shipment.label_id, shipment.chosen, shipment.insurance = label.id, rate, body.get("insurance")
        return shown(sandbox, shipment)

    city = _to({"shipment": _find(sandbox, shipment_id).said})
    return await sandbox.keyed(request, EASYPOST, "label", lambda _: at_city("labels", city), bought)


@get("/v2/shipments/{shipment_id:str}/label")
async def convert(request: HttpRequest, shipment_id: FromPath[str], file_format: FromQuery[str] = "PDF") -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    shipment = _find(sandbox, shipment_id)
    if shipment.label_id is None:
        raise Refused(422, "SHIPMENT.LABEL.MISSING", "The shipment has no label")
    return json_response(msgspec.json.encode(shown(sandbox, shipment, also=file_format.lower())))


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
        tracker(label, parcel)
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
    label = msgspec.structs.replace(label, document=ending)
    media_type, content = printed(label, label.parcels[0])
    return Response(content, media_type=media_type)


def shown(sandbox: Sandbox, shipment: Shipment, *, also: str = "") -> dict[str, Any]:
    """Write a shipment."""
    label = None if shipment.label_id is None else sandbox.carrier.get(shipment.label_id)
    parcel = None if label is None else label.parcels[0]
    said = shipment.said
    return {
        "id": shipment.id,
        "object": "Shipment",
        "mode": "test",
        "created_at": shipment.created_at,
        "updated_at": shipment.created_at,
        "is_return": bool(said.get("is_return")),
        "reference": said.get("reference"),
        "status": "unknown" if parcel is None else _status(parcel),
        "tracking_code": None if parcel is None else parcel.tracking_number,
        "from_address": _address("adr_from", said["from_address"]),
        "to_address": _address("adr_to", said["to_address"]),
        "parcel": {"id": f"prcl_{shipment.id[4:]}", "object": "Parcel", **said["parcel"]},
        "customs_info": said.get("customs_info"),
        "options": said.get("options", {}),
        "messages": [],
        "rates": [_rate(shipment, rate) for rate in shipment.rates],
        "selected_rate": None if shipment.chosen is None else _rate(shipment, shipment.chosen),
        "postage_label": None if label is None else _label(sandbox, label, also),
        "tracker": None if label is None or parcel is None else tracker(label, parcel),
        "insurance": shipment.insurance,
        "refund_status": None if label is None else REFUNDS.get(label.status),
        "fees": [],
        "forms": [],
    }


def event_of(sandbox: Sandbox, label: Label, parcel: Parcel | None, scan: Scan | None) -> tuple[str, Any]:
    """Say what happened, by its name."""
    if parcel is not None:
        return "tracker.updated", tracker(label, parcel)
    shipment = next(each for each in sandbox.shipments.values() if isinstance(each, Shipment) and each.label_id == label.id)
    said = {"id": f"rfnd_{new_id().hex}", "object": "Refund", "carrier": CARRIER, "status": REFUNDS[label.status]}
    return "refund.successful", {**said, "shipment_id": shipment.id, "tracking_code": label.parcels[0].tracking_number}


def tracker(label: Label, parcel: Parcel) -> dict[str, Any]:
    """Write a tracker with its history."""
    details = [
        {
            "object": "TrackingDetail",
            "message": scan.detail,
            "description": "",
            "status": STATUSES.get(scan.status, scan.status),
            "status_detail": scan.code,
            "datetime": _moment(scan.occurred_at),
            "source": CARRIER,
            "tracking_location": {"object": "TrackingLocation", "city": scan.location, "state": None, "country": None, "zip": None},
        }
        for scan in sorted(parcel.scans, key=lambda scan: scan.occurred_at)
    ]
    estimated = next((scan.estimated_delivery for scan in reversed(parcel.scans) if scan.estimated_delivery), None)
    return {
        "id": f"trk_{parcel.tracking_number.lower()}",
        "object": "Tracker",
        "mode": "test",
        "tracking_code": parcel.tracking_number,
        "status": _status(parcel),
        "status_detail": "status_update",
        "created_at": label.created_at,
        "updated_at": label.created_at,
        "est_delivery_date": estimated,
        "carrier": CARRIER,
        "tracking_details": details,
    }


def _status(parcel: Parcel) -> str:
    if not parcel.scans:
        return "unknown"
    last = max(parcel.scans, key=lambda scan: scan.occurred_at)
    return STATUSES.get(last.status, last.status)


def _rate(shipment: Shipment, rate: Rate) -> dict[str, Any]:
    return {
        "id": rate.id,
        "object": "Rate",
        "mode": "test",
        "service": rate.service.title(),
        "carrier": CARRIER,
        "rate": decimal_text(Money(rate.amount, rate.currency)),
        "currency": rate.currency,
        "delivery_days": rate.transit_days,
        "est_delivery_days": rate.transit_days,
        "shipment_id": shipment.id,
        "carrier_account_id": "ca_sandbox",
        "created_at": shipment.created_at,
        "updated_at": shipment.created_at,
    }


def _label(sandbox: Sandbox, label: Label, also: str) -> dict[str, Any]:
    url = f"{sandbox.base_url}/v2/files/{label.id}"
    return {
        "id": f"pl_{label.id[4:]}",
        "object": "PostageLabel",
        "label_date": label.created_at,
        "label_size": "4x6",
        "label_type": "default",
        "label_file_type": "application/pdf",
        "label_url": f"{url}.pdf",
        "label_pdf_url": f"{url}.pdf" if also == "pdf" else None,
        "label_zpl_url": f"{url}.zpl" if also == "zpl" else None,
    }


def _address(object_id: str, said: dict[str, Any]) -> dict[str, Any]:
    return {"id": object_id, "object": "Address", "mode": "test", **said}


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
