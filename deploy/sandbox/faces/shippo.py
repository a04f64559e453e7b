"""The sandbox's carrier with the face of Shippo (docs.goshippo.com), as far as our adapter and Shippo's own library look."""

import hashlib
import hmac
import re
import time
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from litestar import Response, Router, get, post
from litestar.params import FromPath, FromQuery

from deploy.sandbox.books import Refused, now
from deploy.sandbox.faces.carrier import at_city, in_words
from deploy.sandbox.faces.customs import shippo_faults
from deploy.sandbox.faces.own import Own
from deploy.sandbox.parcels import Label, Parcel, Rate, Scan
from deploy.sandbox.printing import printed
from deploy.sandbox.server import Fields, HttpRequest, Sandbox, json_response, sandbox_of
from deploy.sandbox.tokens import Act
from deploy.sandbox.webhooks import Told
from shared.ids import new_id
from shared.money import Money, decimal_text

FACE = "shippo"
CARRIER = "Sandbox"
# Units, formats and limits are those of its library (shippo-python-sdk 3.9.0, src/shippo/models/components).
MILLIMETRES = {
    "cm": Decimal(10),
    "mm": Decimal(1),
    "m": Decimal(1000),
    "in": Decimal("25.4"),
    "ft": Decimal("304.8"),
    "yd": Decimal("914.4"),
}
GRAMS = {"g": Decimal(1), "kg": Decimal(1000), "oz": Decimal("28.349523125"), "lb": Decimal("453.59237")}
STATUSES = {
    "unknown": ("UNKNOWN", "other"),
    "pre_transit": ("PRE_TRANSIT", "information_received"),
    "picked_up": ("TRANSIT", "package_accepted"),
    "in_transit": ("TRANSIT", "package_departed"),
    "out_for_delivery": ("TRANSIT", "out_for_delivery"),
    "available_for_pickup": ("TRANSIT", "pickup_available"),
    "exception": ("FAILURE", "package_undeliverable"),
    "delivered": ("DELIVERED", "delivered"),
    "return_to_sender": ("RETURNED", "return_to_sender"),
}
# Which of those ask somebody to act (docs.goshippo.com/docs/tracking/tracking, event definitions).
ACTIONS = frozenset({"pickup_available", "package_undeliverable"})
LABELS = {
    "purchased": "SUCCESS",
    "void_requested": "REFUNDPENDING",
    "refunded": "REFUNDED",
    "rejected": "REFUNDREJECTED",
    "not_applicable": "REFUNDREJECTED",
}
REFUNDS = {"void_requested": "PENDING", "refunded": "SUCCESS", "rejected": "ERROR", "not_applicable": "ERROR"}
# How it refuses: each field of the request with what is wrong with it (goshippo/shippo-ruby-client issue 28).
REFUSALS = {
    "address_invalid": (400, "address_to"),
    "customs_needed": (400, "customs_declaration"),
    "parcels_invalid": (400, "parcels"),
    "rate_expired": (400, "rate"),
    "rate_not_found": (400, "rate"),
}
FIELDS = frozenset({"address_from", "extra", "transaction", "label_file_type", "metadata", *(field for _, field in REFUSALS.values())})
FILE_TYPES = frozenset(
    {"PNG", "PNG_2.3x7.5", "PDF", "PDF_2.3x7.5", "PDF_4x6", "PDF_4x8", "PDF_A4", "PDF_A5", "PDF_A6", "ZPLII"},
)
METADATA_MAX_CHARACTERS = 100
STREET_LINE_MAX_CHARACTERS = 35
PAGE_ROWS_MAX = 100
# A figure of a parcel: up to six digits before the point, and four behind it.
FIGURE = re.compile(r"[0-9]{1,6}(\.[0-9]{1,4})?", re.ASCII)
# A label to this city is bought a while after its request, also where the request would wait for it.
QUEUEING_CITY = "Queueing Harbour"


class Shipment(msgspec.Struct, kw_only=True):
    """What rates were asked for."""

    id: str
    said: dict[str, Any]
    rates: list[Rate]
    created_at: str


class Transaction(msgspec.Struct, kw_only=True):
    """A label that was asked for."""

    id: str
    rate_id: str
    label_id: str | None
    metadata: str
    file_type: str
    created_at: str
    # Whether it is still under way; the next one who reads it finds it done.
    queued: bool = False
    # A second request for its refund is refused.
    refund_exists: bool = False
    messages: list[dict[str, str]] = []


class ShippoFace(Own):
    """JSON in, and errors as Shippo writes them."""

    def error(self, refused: Refused) -> bytes:
        """Write an error."""
        if refused.code in FIELDS:
            return msgspec.json.encode({refused.code: [str(refused)]})
        # goshippo/shippo-node-client issue 78.
        return msgspec.json.encode({"detail": "Not found" if refused.status == 404 else str(refused)})


SHIPPO = ShippoFace()


class ShippoEvents:
    """Events as Shippo writes them, with a `Shippo-Auth-Signature` (docs.goshippo.com/tracking/webhook-security)."""

    def event(self, event_id: str, kind: str, data: Any, at: str) -> bytes:
        """Write an event, which has no name of its own."""
        return msgspec.json.encode({"event": kind, "test": True, "data": data})

    def headers(self, told: Told, secret: str) -> dict[str, str]:
        """Sign an event as of now."""
        timestamp = str(int(time.time()))
        mac = hmac.new(secret.encode(), f"{timestamp}.".encode() + told.body, hashlib.sha256).hexdigest()
        return {"Content-Type": "application/json", "Shippo-Auth-Signature": f"t={timestamp},v1={mac}"}


@post("/shipments", status_code=201)
async def create_shipment(request: HttpRequest) -> Response[bytes]:
    sandbox = sandbox_of(request)

    def made(body: Fields) -> dict[str, Any]:
        for name in ("address_from", "address_to", "parcels"):
            if not body.get(name):
                raise Refused(400, name, "This field is required.")
        _check(body)
        with in_words(REFUSALS):
            rates = sandbox.carrier.quote(_translated(body))
        shipment = Shipment(id=new_id().hex, said=body, rates=rates, created_at=_moment(now()))
        sandbox.shipments[shipment.id] = shipment
        shown = _shipment(shipment)
        # Rates come later, unless the request waits for them.
        return {**shown, "status": "QUEUED", "rates": []} if body.get("async") else shown

    return _created(await sandbox.keyed(request, SHIPPO, "rates", lambda body: at_city("rates", body.get("address_to")), made))


@get("/rates/{rate_id:str}")
async def get_rate(request: HttpRequest, rate_id: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    shipment, rate = _rate_of(sandbox, rate_id, Refused(404, "not_found", "Rate not found"))
    return json_response(msgspec.json.encode(_rate(shipment, rate)))


@post("/transactions", status_code=201)
async def create_transaction(request: HttpRequest) -> Response[bytes]:
    sandbox = sandbox_of(request)

    def chosen(body: Fields) -> tuple[Shipment, Rate]:
        return _rate_of(sandbox, str(body.get("rate")), Refused(400, "rate", "Rate with supplied object_id not found."))

    def bought(body: Fields) -> dict[str, Any]:
        shipment, rate = chosen(body)
        transaction = _new_transaction(body, rate)
        try:
            label = sandbox.carrier.buy(
                {
                    **_translated(shipment.said),
                    "rate_id": rate.id,
                    "document": "zpl" if transaction.file_type == "ZPLII" else "pdf",
                    "face": FACE,
                    "reference": body.get("metadata"),
                }
            )
        except Refused as refused:
            # What the carrier refuses is a transaction all the same.
            transaction.messages = [{"source": CARRIER, "code": refused.code, "text": str(refused)}]
        else:
            transaction.label_id = label.id
        waits = body.get("async", True) is False and (shipment.said["address_to"].get("city") != QUEUEING_CITY)
        transaction.queued = not waits
        sandbox.shipments[transaction.id] = transaction
        return _transaction(sandbox, transaction)

    def act(body: Fields) -> Act:
        shipment, _ = chosen(body)
        return at_city("labels", shipment.said.get("address_to"))

    return _created(await sandbox.keyed(request, SHIPPO, "label", act, bought))


@get("/transactions")
async def list_transactions(
    request: HttpRequest, rate: FromQuery[str] = "", results: FromQuery[int] = 25, page: FromQuery[int] = 1
) -> Response[bytes]:
    """List transactions, the newest first."""
    sandbox = sandbox_of(request)
    sandbox.read(request)
    known = [each for each in reversed(sandbox.shipments.values()) if isinstance(each, Transaction) and rate in ("", each.rate_id)]
    known = [each for each in known if each.label_id is None or each.label_id in sandbox.carrier.labels]
    rows = min(results, PAGE_ROWS_MAX)
    found = known[(page - 1) * rows : page * rows]
    following = f"{sandbox.base_url}/transactions/?page={page + 1}" if len(known) > page * rows else None
    answer = {"next": following, "previous": None, "results": [_transaction(sandbox, _ended(each)) for each in found]}
    return json_response(msgspec.json.encode(answer))


@get("/transactions/{transaction_id:str}")
async def get_transaction(request: HttpRequest, transaction_id: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    return json_response(msgspec.json.encode(_transaction(sandbox, _ended(_find(sandbox, transaction_id)))))


@post("/refunds", status_code=201)
async def create_refund(request: HttpRequest) -> Response[bytes]:
    sandbox = sandbox_of(request)

    def refunded(body: Fields) -> dict[str, Any]:
        transaction = sandbox.shipments.get(str(body.get("transaction")))
        if not isinstance(transaction, Transaction) or transaction.label_id is None:
            raise Refused(400, "transaction", "Transaction with supplied object_id not found.")
        if transaction.refund_exists:
            # shippo-java-client at c97b998, DuplicateRefundRequestException.
            raise Refused(400, "transaction", "Refund with this Transaction already exists.")
        transaction.refund_exists = True
        label = sandbox.carrier.void(sandbox.carrier.get(transaction.label_id))
        made = {"object_id": new_id().hex, "object_owner": "sandbox", "object_created": _moment(now()), "object_updated": _moment(now())}
        # "QUEUED: the request is being processed" (docs.goshippo.com/docs/billing_and_invoices/refundinglabels), unless it waits.
        status = REFUNDS[label.status] if body.get("async", True) is False else "QUEUED"
        return {**made, "status": status, "transaction": transaction.id, "test": True}

    return _created(await sandbox.keyed(request, SHIPPO, "label_void", lambda _: Act.SUCCEED, refunded))


@get("/tracks/{carrier:str}/{tracking_number:str}")
async def get_track(request: HttpRequest, carrier: FromPath[str], tracking_number: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    if carrier != CARRIER.lower():
        raise Refused(400, "carrier", f"Carrier with name '{carrier}' is not supported.")
    return json_response(msgspec.json.encode(track(sandbox, *sandbox.carrier.parcel(tracking_number))))


@get("/labels/{name:str}")
async def file(request: HttpRequest, name: FromPath[str]) -> Response[bytes]:
    """Give a label to whoever knows its address, as a file store does."""
    label_id, _, ending = name.partition(".")
    label = msgspec.structs.replace(sandbox_of(request).carrier.get(label_id), document=ending)
    media_type, content = printed(label, label.parcels[0])
    return Response(content, media_type=media_type)


def event_of(sandbox: Sandbox, label: Label, parcel: Parcel | None, scan: Scan | None) -> tuple[str, Any]:
    """Say what happened, by its name."""
    if parcel is not None:
        return "track_updated", track(sandbox, label, parcel)
    found = _bought_by(sandbox, label)
    assert found is not None, "a label is bought by a transaction"
    return "transaction_updated", _transaction(sandbox, found)


def _bought_by(sandbox: Sandbox, label: Label) -> Transaction | None:
    transactions = (each for each in sandbox.shipments.values() if isinstance(each, Transaction))
    return next((each for each in transactions if each.label_id == label.id), None)


def track(sandbox: Sandbox, label: Label, parcel: Parcel) -> dict[str, Any]:
    """Write a track with its history."""
    transaction = _bought_by(sandbox, label)
    history = [_seen(scan) for scan in sorted(parcel.scans, key=lambda scan: scan.occurred_at)]
    estimated = next((scan.estimated_delivery for scan in reversed(parcel.scans) if scan.estimated_delivery), None)
    return {
        "carrier": CARRIER.lower(),
        "tracking_number": parcel.tracking_number,
        "messages": [],
        "eta": estimated,
        "servicelevel": {"token": f"sandbox_{label.service}", "name": label.service.title()},
        "tracking_status": history[-1] if history else None,
        "tracking_history": history,
        "metadata": label.reference or "",
        **({} if transaction is None else {"transaction": transaction.id}),
    }


def _seen(scan: Scan) -> dict[str, Any]:
    status, finer = STATUSES.get(scan.status, ("UNKNOWN", "other"))
    # An entry of a label that was not used yet has no time (goshippo/shippo-javascript-sdk issue 18).
    at = {"status_date": _moment(datetime.fromisoformat(scan.occurred_at))} if scan.occurred_at else {}
    made = at.get("status_date") or _moment(now())
    return {
        "object_id": scan.id,
        "object_created": made,
        "object_updated": made,
        "status": status,
        "status_details": scan.detail,
        **at,
        "substatus": {"code": finer, "text": scan.detail, "action_required": finer in ACTIONS},
        "location": {"city": scan.location, "state": "", "zip": "", "country": ""},
    }


def _shipment(shipment: Shipment) -> dict[str, Any]:
    said = shipment.said
    parcel = {"object_id": new_id().hex, "object_owner": "sandbox", "object_created": shipment.created_at, "object_state": "VALID"}
    return {
        "object_id": shipment.id,
        "object_owner": "sandbox",
        "object_created": shipment.created_at,
        "object_updated": shipment.created_at,
        "status": "SUCCESS",
        "address_from": said["address_from"],
        "address_to": said["address_to"],
        "parcels": [{**parcel, "object_updated": shipment.created_at, **each} for each in said["parcels"]],
        "carrier_accounts": [],
        "metadata": str(said.get("metadata") or ""),
        "messages": [],
        "rates": [_rate(shipment, rate) for rate in shipment.rates],
        "test": True,
    }


def _rate(shipment: Shipment, rate: Rate) -> dict[str, Any]:
    amount = decimal_text(Money(rate.amount, rate.currency))
    return {
        "object_id": rate.id,
        "object_owner": "sandbox",
        "object_created": shipment.created_at,
        "shipment": shipment.id,
        "amount": amount,
        "amount_local": amount,
        "currency": rate.currency,
        "currency_local": rate.currency,
        "attributes": [],
        "provider": CARRIER,
        "carrier_account": "sandbox",
        "servicelevel": {"token": f"sandbox_{rate.service}", "name": rate.service.title(), "terms": ""},
        "estimated_days": rate.transit_days,
        "messages": [],
        "test": True,
    }


def _transaction(sandbox: Sandbox, transaction: Transaction) -> dict[str, Any]:
    label = None if transaction.label_id is None or transaction.queued else sandbox.carrier.get(transaction.label_id)
    parcel = label.parcels[0] if label else None
    last = max(parcel.scans, key=lambda scan: scan.occurred_at, default=None) if parcel else None
    ended = LABELS.get(label.status, "SUCCESS") if label else "ERROR"
    return {
        "object_id": transaction.id,
        "object_owner": "sandbox",
        "object_created": transaction.created_at,
        "object_updated": transaction.created_at,
        "object_state": "VALID",
        "status": "QUEUED" if transaction.queued else ended,
        "rate": transaction.rate_id,
        "created_by": None,
        "metadata": transaction.metadata,
        "label_file_type": transaction.file_type,
        "label_url": f"{sandbox.base_url}/labels/{label.id}.{label.document}" if label else "",
        "tracking_number": parcel.tracking_number if parcel else "",
        "tracking_status": STATUSES.get(last.status, ("UNKNOWN", ""))[0] if last else "UNKNOWN",
        "messages": [] if transaction.queued else transaction.messages,
        "test": True,
    }


def _new_transaction(body: Fields, rate: Rate) -> Transaction:
    file_type, metadata = str(body.get("label_file_type") or "PDF"), str(body.get("metadata") or "")
    if file_type not in FILE_TYPES:
        raise Refused(400, "label_file_type", f'"{file_type}" is not a valid choice.')
    if len(metadata) > METADATA_MAX_CHARACTERS:
        raise Refused(400, "metadata", f"Ensure this field has no more than {METADATA_MAX_CHARACTERS} characters.")
    return Transaction(id=new_id().hex, rate_id=rate.id, label_id=None, metadata=metadata, file_type=file_type, created_at=_moment(now()))


def _ended(transaction: Transaction) -> Transaction:
    transaction.queued = False
    return transaction


def _check(body: Fields) -> None:
    """Refuse streets that are too long, parcels whose figures or units are none, and customs that cannot be."""
    for side in ("address_from", "address_to"):
        if any(len(str(body[side].get(line) or "")) > STREET_LINE_MAX_CHARACTERS for line in ("street1", "street2", "street3")):
            raise Refused(400, side, f"Ensure this field has no more than {STREET_LINE_MAX_CHARACTERS} characters.")
    for parcel in body["parcels"]:
        figures = [parcel.get(name) for name in ("length", "width", "height", "weight")]
        if not all(FIGURE.fullmatch(str(figure)) for figure in figures):
            raise Refused(400, "parcels", "A valid number is required.")
        if parcel.get("distance_unit") not in MILLIMETRES or parcel.get("mass_unit") not in GRAMS:
            raise Refused(400, "parcels", "A unit is not a valid choice.")
    for field, fault in shippo_faults(body):
        raise Refused(400, field, fault)


def _translated(said: dict[str, Any]) -> dict[str, Any]:
    parcels = []
    for parcel in said["parcels"]:
        unit, mass = MILLIMETRES[parcel["distance_unit"]], GRAMS[parcel["mass_unit"]]
        sizes = {f"{name}_mm": int(Decimal(str(parcel.get(name) or 0)) * unit) for name in ("length", "width", "height")}
        parcels.append({"weight_grams": int(Decimal(str(parcel.get("weight") or 0)) * mass), **sizes})
    return {
        "from": _plain(said["address_from"]),
        "to": _plain(said["address_to"]),
        "parcels": parcels,
        "customs": (said.get("customs_declaration") or {}).get("items"),
        "currency": "EUR" if said["address_from"].get("country") == "DE" else "USD",
    }


def _plain(address: dict[str, Any]) -> dict[str, Any]:
    names = {"street1": "street_address", "city": "city", "zip": "postal_code", "state": "country_area", "country": "country_code"}
    plain = {ours: address.get(theirs) or "" for theirs, ours in names.items()}
    return {**plain, "name": address.get("name") or "", "company_name": address.get("company") or ""}


def _rate_of(sandbox: Sandbox, rate_id: str, missing: Refused) -> tuple[Shipment, Rate]:
    for shipment in sandbox.shipments.values():
        for rate in shipment.rates if isinstance(shipment, Shipment) else ():
            if rate.id == rate_id:
                return shipment, rate
    raise missing


def _find(sandbox: Sandbox, transaction_id: str) -> Transaction:
    found = sandbox.shipments.get(transaction_id)
    if not isinstance(found, Transaction):
        raise Refused(404, "not_found", "Transaction not found.")
    return found


def _created(answer: Response[bytes]) -> Response[bytes]:
    answer.status_code = 201 if answer.status_code == 200 else answer.status_code
    return answer


def _moment(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


router = Router(
    path="/",
    route_handlers=[
        create_shipment,
        get_rate,
        create_transaction,
        list_transactions,
        get_transaction,
        create_refund,
        get_track,
        file,
    ],
    exception_handlers={Refused: lambda _, refused: json_response(SHIPPO.error(refused), refused.status)},
)
