"""The sandbox's carrier over HTTP: rates, labels and parcels as plain as can be."""

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from litestar import Response, Router, get, post
from litestar.params import FromPath, FromQuery

from deploy.sandbox.books import Refused
from deploy.sandbox.faces.own import OWN
from deploy.sandbox.parcels import Label, Parcel, Scan
from deploy.sandbox.printing import printed
from deploy.sandbox.server import PAGE_ROWS_MAX, HttpRequest, json_response, sandbox_of
from deploy.sandbox.tokens import Act

# What befalls a call is said by the city that the parcel goes to.
CITIES_OF_RATES = {"Slowville": Act.SLOW, "Silent Hill": Act.SILENT}
CITIES_OF_LABELS = {
    "Silent Once": Act.SILENT_ONCE,
    "Silent Harbour": Act.SILENT,
    "Late Harbour": Act.SUCCEED_SILENTLY,
    "Failing Once": Act.FAIL_ONCE,
    "Busytown": Act.BUSY_ONCE,
}


def at_city(what: str, to: Any) -> Act:
    """Tell what befalls a call for rates or for a label to a place."""
    city = str(to.get("city")) if isinstance(to, dict) else ""
    return (CITIES_OF_RATES if what == "rates" else CITIES_OF_LABELS).get(city, Act.SUCCEED)


@contextmanager
def in_words(words: Mapping[str, tuple[int, str]]) -> Iterator[None]:
    """Have the carrier refuse with the statuses and codes of another face."""
    try:
        yield
    except Refused as refused:
        status, code = words[refused.code]
        raise Refused(status, code, str(refused)) from refused


@post("/v1/shipping/rates", status_code=200)
async def rates(request: HttpRequest) -> Response[bytes]:
    sandbox = sandbox_of(request)
    return await sandbox.keyed(
        request, OWN, "rates", lambda body: at_city("rates", body.get("to")), lambda body: {"rates": sandbox.carrier.quote(body)}
    )


@post("/v1/shipping/labels", status_code=200)
async def buy(request: HttpRequest) -> Response[bytes]:
    sandbox = sandbox_of(request)
    return await sandbox.keyed(
        request, OWN, "label", lambda body: at_city("labels", body.get("to")), lambda body: shown(sandbox.carrier.buy(body))
    )


@get("/v1/shipping/labels")
async def find(
    request: HttpRequest,
    reference: FromQuery[str] = "",
    since: FromQuery[str] = "",
    until: FromQuery[str] = "",
    cursor: FromQuery[str] = "",
    limit: FromQuery[int] = PAGE_ROWS_MAX,
) -> Response[bytes]:
    """Find labels by the reference they bear, or list those of a time, without their printed forms."""
    sandbox = sandbox_of(request)
    sandbox.read(request)
    if reference:
        return json_response(
            msgspec.json.encode({"data": [shown(label) for label in sandbox.carrier.find(reference)], "next_cursor": None})
        )
    page, following = sandbox.carrier.sold(since=since, until=until, after=cursor, limit=limit, face="")
    return json_response(msgspec.json.encode({"data": [_said(label) for label in page], "next_cursor": following}))


@get("/v1/shipping/labels/{label_id:str}")
async def read(request: HttpRequest, label_id: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    return json_response(msgspec.json.encode(shown(sandbox.carrier.get(label_id))))


@post("/v1/shipping/labels/{label_id:str}/void", status_code=200)
async def void(request: HttpRequest, label_id: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)
    return await sandbox.keyed(
        request, OWN, "label_void", lambda _: Act.SUCCEED, lambda _: shown(sandbox.carrier.void(sandbox.carrier.get(label_id)))
    )


@get("/v1/shipping/parcels/{tracking_number:str}")
async def track(request: HttpRequest, tracking_number: FromPath[str]) -> Response[bytes]:
    sandbox = sandbox_of(request)
    sandbox.read(request)
    _, parcel = sandbox.carrier.parcel(tracking_number)
    return json_response(msgspec.json.encode(parcel))


# What happens at the carrier without us


@post("/control/parcels/{tracking_number:str}/move", status_code=200)
async def control_move(request: HttpRequest, tracking_number: FromPath[str]) -> Response[bytes]:
    """Have a parcel seen at its next stop, or as the body says."""
    scan = sandbox_of(request).carrier.move(tracking_number, OWN.read(await request.body()))
    return json_response(msgspec.json.encode(scan))


@post("/control/labels/{label_id:str}/{decision:str}", status_code=200)
async def control_void(request: HttpRequest, label_id: FromPath[str], decision: FromPath[str]) -> Response[bytes]:
    """Grant or reject a void that was asked for."""
    if decision not in ("grant", "reject"):
        raise Refused(404, "unknown_decision", "grant or reject")
    carrier = sandbox_of(request).carrier
    return json_response(msgspec.json.encode(shown(carrier.decide_void(carrier.get(label_id), granted=decision == "grant"))))


class CarrierControl(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What can be changed of the carrier."""

    rate_lifetime_seconds: float | None = None
    grants_voids: bool | None = None


@post("/control/carrier", status_code=200)
async def control_carrier(request: HttpRequest) -> dict[str, Any]:
    carrier = sandbox_of(request).carrier
    wanted = msgspec.json.decode(await request.body(), type=CarrierControl)
    if wanted.rate_lifetime_seconds is not None:
        carrier.rate_lifetime_seconds = wanted.rate_lifetime_seconds
    if wanted.grants_voids is not None:
        carrier.grants_voids = wanted.grants_voids
    return {"rate_lifetime_seconds": carrier.rate_lifetime_seconds, "grants_voids": carrier.grants_voids, "labels": len(carrier.labels)}


def shown(label: Label) -> dict[str, Any]:
    """Show a label with its printed forms."""
    packages = []
    for parcel in label.parcels:
        media_type, document = printed(label, parcel)
        packages.append(
            {"tracking_number": parcel.tracking_number, "media_type": media_type, "document": base64.b64encode(document).decode()}
        )
    return {**_said(label), "packages": packages}


def _said(label: Label) -> dict[str, Any]:
    said = ("id", "reference", "service", "amount", "currency", "status", "is_return", "created_at")
    return {name: getattr(label, name) for name in said}


def event_of(label: Label, parcel: Parcel | None, scan: Scan | None) -> dict[str, Any]:
    """Say what happened, as a webhook does."""
    return {
        "label_id": label.id,
        "reference": label.reference,
        "status": label.status,
        "tracking_number": None if parcel is None else parcel.tracking_number,
        "scan": None if scan is None else msgspec.to_builtins(scan),
    }


router = Router(
    path="/",
    route_handlers=[rates, buy, find, read, void, track, control_move, control_void, control_carrier],
    exception_handlers={Refused: lambda _, refused: json_response(OWN.error(refused), refused.status)},
)
