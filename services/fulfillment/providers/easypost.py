"""EasyPost: many carriers behind one API (docs.easypost.com); one shipment there is one package here."""

import base64
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import ROUND_UP, Decimal
from typing import Any
from uuid import UUID

import msgspec

from services.fulfillment.domain.shipping.labels import LabelStatus
from services.fulfillment.domain.shipping.tracking import TrackingEvent, TrackingStatus
from services.fulfillment.providers import (
    Bought,
    BoughtPackage,
    CarrierCapabilities,
    CarrierNews,
    CarrierRate,
    CarrierRefused,
    LabelPage,
    LabelRecord,
    LabelRequest,
    RatesRequest,
    changed,
    tracker_of,
)
from services.fulfillment.providers.downloads import FORMS, fetched
from services.fulfillment.providers.easypost_customs import GRAMS_PER_OUNCE, shipment_terms
from services.fulfillment.providers.tracking_feeds import estimate_of, events_of, label_of, moment_of, number_of, place_in, text_in
from shared.contracts.fulfillment.pricing import PackageBody
from shared.contracts.orders import Address
from shared.http_client import Answer, ProviderClient
from shared.money import Money, decimal_text, from_decimal_text
from shared.provider_answers import AnswerFormat, ProviderError, text_of
from shared.provider_values import UNFIT

# Weights are ounces and sizes inches, each to one decimal (docs.easypost.com/docs/parcels).
MILLIMETRES_PER_INCH = Decimal("25.4")
TENTH = Decimal("0.1")
# Whole grams and millimetres are right to half of one: a pound is 453.592 g, 454 g to its shop, and 16.0 oz to its carrier.
HALF = Decimal("0.5")
# Rates that were not bought are kept for 28 days (easypost.com/blog/2020-04-15-rate-retention-change); prices change before that.
RATE_LIFETIME = timedelta(days=7)
# A purchase that is still under way at a carrier does not show on the shipment; it takes no longer than this.
ABSENCE_IS_PROOF_AFTER_SECONDS = 60.0
PAGE_ROWS = 100
# Where labels are: EasyPost's bucket, by the names that S3 gives it (easypost-python, tests/cassettes/test_shipment_buy.yaml and
# test_shipment_convert_label.yaml have the first two).
LABEL_HOSTS = frozenset(f"easypost-files.{each}.amazonaws.com" for each in ("s3.us-west-2", "s3-us-west-2", "s3"))
# "The currency of all insurance is USD" (docs.easypost.com/docs/shipments, buy).
INSURANCE_CURRENCIES = frozenset({"USD"})
# A label is made as a PNG and then converted; one that was made otherwise cannot be (docs.easypost.com/docs/shipments, convert).
LABEL_FORMAT = "PNG"
CONVERSIONS = {"pdf": ("PDF", "label_pdf_url"), "zpl": ("ZPL", "label_zpl_url")}
# Families of codes, and codes, of EasyPost's errors, as far as our calls meet them (docs.easypost.com/guides/errors-guide).
CODE_FAMILIES = frozenset({"ADDRESS", "CARRIER_ACCOUNT", "CUSTOMS_INFO", "CUSTOMS_ITEM", "INSURANCE", "PARAMETER", "PARCEL", "SHIPMENT"})
CODES = frozenset(
    {"BAD_REQUEST", "NOT_ACCEPTABLE", "NOT_FOUND", "PAYMENT_REQUIRED", "MODE.CONFLICT", "MODE.UNAUTHORIZED", "TRACKER.NOT_FOUND"}
)
POSTAGE_EXISTS = "SHIPMENT.POSTAGE.EXISTS"
# A carrier may have sold the label all the same, has sold it, or is about to.
UNDECIDED_CODES = frozenset(
    {POSTAGE_EXISTS, *("SHIPMENT.POSTAGE.NO_RESPONSE", "SHIPMENT.POSTAGE.TIMED_OUT", "SHIPMENT.PURCHASE.IN_PROGRESS")}
)

STATUSES = {
    "unknown": TrackingStatus.UNKNOWN,
    "pre_transit": TrackingStatus.PRE_TRANSIT,
    "in_transit": TrackingStatus.IN_TRANSIT,
    "out_for_delivery": TrackingStatus.OUT_FOR_DELIVERY,
    "delivered": TrackingStatus.DELIVERED,
    "available_for_pickup": TrackingStatus.AVAILABLE_FOR_PICKUP,
    "return_to_sender": TrackingStatus.RETURN_TO_SENDER,
    "failure": TrackingStatus.EXCEPTION,
    "error": TrackingStatus.EXCEPTION,
    "cancelled": TrackingStatus.CANCELLED,
}
VOIDS = {
    "submitted": LabelStatus.VOID_REQUESTED,
    "refunded": LabelStatus.REFUNDED,
    "rejected": LabelStatus.REJECTED,
    "not_applicable": LabelStatus.NOT_APPLICABLE,
}

# What the audit may keep: neither addresses nor where labels lie.
AUDITED = frozenset(
    {
        *("id", "object", "mode", "shipment", "rates", "rate", "carrier", "service", "currency", "delivery_days", "reference", "status"),
        *("tracking_code", "refund_status", "selected_rate", "parcel", "weight", "length", "width", "height", "insurance", "options"),
        *("label_format", "trackers", "tracking_details", "status_detail", "datetime", "messages", "message", "type"),
        *("error", "code", "country", "is_return"),
    }
)


class EasyPost:
    """Speaks EasyPost's API, version 2."""

    name = "easypost"
    # Whose numbers they are, EasyPost says with each; here they are told apart by the label.
    carrier = "easypost"
    absence_is_proof_after_seconds = ABSENCE_IS_PROOF_AFTER_SECONDS
    capabilities = CarrierCapabilities(
        labels=True,
        documents=("pdf", "zpl"),
        returns=True,
        insurance=True,
        insurance_currencies=INSURANCE_CURRENCIES,
        multiple_packages=False,
        tracking=True,
        rates_buy_once=True,
        rates_bind_terms=True,
    )

    def __init__(self, *, base_url: str, api_key: str, timeout_seconds: float, label_hosts: Collection[str] = ()) -> None:
        credential = base64.b64encode(f"{api_key}:".encode()).decode()
        self._base_url = base_url
        self._label_hosts = LABEL_HOSTS.union(label_hosts)
        self._client = ProviderClient(
            service="fulfillment",
            provider=self.name,
            base_url=base_url,
            headers={"Authorization": f"Basic {credential}", "Content-Type": "application/json"},
            timeout_seconds=timeout_seconds,
            audited=AUDITED,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def rates(self, request: RatesRequest) -> list[CarrierRate]:
        """Make a shipment, which is what prices come of."""
        if len(request.packages) != 1:
            raise CarrierRefused("one_package", f"EasyPost takes one package a label here, and this order goes in {len(request.packages)}")
        body = msgspec.json.encode(shipment_body(request))
        shipment = changed(ANSWERS, await self._client.call("create_shipment", "POST", "/v2/shipments", body=body))
        with ANSWERS.reading():
            _of_kind(shipment, "Shipment")
            found = _rates(shipment)
            if not found and shipment.get("messages"):
                first = shipment["messages"][0]
                raise CarrierRefused(str(first.get("type", "no_rates")), str(first.get("message", "")))
            return found

    async def buy(self, request: LabelRequest, *, reference: UUID) -> Bought:
        """Buy a shipment's label; a shipment is bought once, so a repeat finds it bought."""
        shipment_id, rate_id = _split(request.provider_rate_id)
        body: dict[str, Any] = {"rate": {"id": rate_id}}
        if request.insured_amount is not None:
            body["insurance"] = decimal_text(Money(request.insured_amount, request.content.currency))
        answer = await self._client.call("buy_shipment", "POST", f"/v2/shipments/{shipment_id}/buy", body=msgspec.json.encode(body))
        if _postage_exists(answer) and (found := await self.find(request, reference=reference)) is not None:
            return found
        shipment = changed(ANSWERS, answer)
        with ANSWERS.reading():
            return await self._bought(_shipment(shipment, shipment_id), request)

    async def find(self, request: LabelRequest, *, reference: UUID) -> Bought | None:
        """Read the shipment, which shows its label once it is bought."""
        shipment_id, _ = _split(request.provider_rate_id)
        shipment = await self._read(shipment_id)
        with ANSWERS.reading():
            return await self._bought(shipment, request) if shipment["postage_label"] else None

    async def void(self, provider_label_id: str, *, reference: UUID) -> LabelStatus:
        """Ask for a refund of the label."""
        answer = await self._client.call("refund_shipment", "POST", f"/v2/shipments/{provider_label_id}/refund")
        shipment = changed(ANSWERS, answer)
        with ANSWERS.reading():
            return _void_status(_shipment(shipment, provider_label_id))

    async def status(self, provider_label_id: str) -> LabelStatus:
        """Read how a refund stands."""
        shipment = await self._read(provider_label_id)
        with ANSWERS.reading():
            return _void_status(shipment)

    async def track(self, tracking_number: str, *, provider_label_id: str) -> list[TrackingEvent]:
        """Read all that was seen of a parcel."""
        answer = await self._client.call("list_trackers", "GET", "/v2/trackers", query={"tracking_code": tracking_number})
        with ANSWERS.reading():
            trackers = ANSWERS.shown(answer)["trackers"]
            tracker = tracker_for(trackers, tracking_number, provider_label_id)
            return [] if tracker is None else _events(tracker)

    async def list_labels(self, *, since: datetime, until: datetime, cursor: str | None) -> LabelPage:
        """Page through the shipments that were bought, the newest first (docs.easypost.com/docs/shipments, list all)."""
        query = {
            "purchased": "true",
            "start_datetime": since.isoformat(),
            "end_datetime": until.isoformat(),
            "page_size": str(PAGE_ROWS),
            **({"before_id": cursor} if cursor else {}),
        }
        answer = await self._client.call("list_shipments", "GET", "/v2/shipments", query=query)
        with ANSWERS.reading():
            shipments = ANSWERS.shown(answer)["shipments"]
            following = shipments[-1]["id"] if answer.body["has_more"] and shipments else None
            return LabelPage(labels=tuple(_record(each) for each in shipments if _has_rate(each)), next=following)

    async def get_label(self, provider_label_id: str) -> LabelRecord | None:
        """Read a shipment; one that was not bought is no label."""
        answer = await self._retrieve(provider_label_id)
        if ANSWERS.says_absent(answer):
            return None
        with ANSWERS.reading():
            shipment = _shipment(ANSWERS.shown(answer), provider_label_id)
            return _record(shipment) if _has_rate(shipment) else None

    def read_event(self, event_type: str, payload: bytes) -> CarrierNews:
        """Read a webhook: a tracker with all its history, or a refund; raises ValueError."""
        try:
            event = msgspec.json.decode(payload)
            result = event.get("result") or {}
            if result.get("object") == "Tracker":
                return CarrierNews(events=tuple(_events(result)), provider_label_id=label_of(result.get("shipment_id")))
            if result.get("object") == "Refund":
                return CarrierNews(provider_label_id=result["shipment_id"], label_status=VOIDS[result["status"]])
            if result.get("object") == "Shipment" and result["refund_status"]:
                return CarrierNews(provider_label_id=result["id"], label_status=VOIDS[result["refund_status"]])
        except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError) as unfit:
            raise ValueError(f"{type(unfit).__name__}: {unfit}") from unfit
        return CarrierNews()

    async def _retrieve(self, shipment_id: str) -> Answer:
        return await self._client.call("retrieve_shipment", "GET", f"/v2/shipments/{shipment_id}")

    async def _read(self, shipment_id: str) -> Mapping[str, Any]:
        answer = await self._retrieve(shipment_id)
        with ANSWERS.reading():
            return _shipment(ANSWERS.shown(answer), shipment_id)

    async def _bought(self, shipment: Mapping[str, Any], request: LabelRequest) -> Bought:
        file_format, url_field = CONVERSIONS[request.document]
        path = f"/v2/shipments/{shipment['id']}/label"
        answer = await self._client.call("convert_label", "GET", path, query={"file_format": file_format})
        converted = _shipment(ANSWERS.shown(answer), shipment["id"])
        url = converted["postage_label"][url_field]
        price = _money(shipment["selected_rate"])
        package = BoughtPackage(
            tracking_number=shipment["tracking_code"],
            media_type=FORMS[request.document].media_type,
            document=await fetched(url, form=request.document, hosts=self._label_hosts, carrier_url=self._base_url),
        )
        status = _void_status(shipment)
        return Bought(provider_label_id=shipment["id"], amount=price.amount, currency=price.currency, packages=(package,), status=status)


def _error(answer: Answer) -> ProviderError | None:
    error = answer.body["error"]
    code = error["code"]
    known = (code in CODES or code.partition(".")[0] in CODE_FAMILIES) and code not in UNDECIDED_CODES
    return ProviderError(code=code, message=text_of(error.get("message"))) if known else None


def _postage_exists(answer: Answer) -> bool:
    error = answer.body.get("error")
    return isinstance(error, dict) and error.get("code") == POSTAGE_EXISTS


# The statuses are the guide's; 401, 403, 405 and 429 say nothing of an earlier copy of the request, 408 and 5xx nothing at all.
ANSWERS = AnswerFormat(
    provider="easypost", read_error=_error, refusing_statuses=frozenset({400, 402, 404, 422}), absence_codes=frozenset({"NOT_FOUND"})
)


def _of_kind(thing: Mapping[str, Any], kind: str) -> None:
    if thing["object"] != kind:
        raise ValueError(f"it is no {kind}")


def _shipment(thing: dict[str, Any], shipment_id: str) -> dict[str, Any]:
    """Insist that an answer is this shipment."""
    _of_kind(thing, "Shipment")
    if thing["id"] != shipment_id:
        raise ValueError("it is another shipment")
    return thing


def _rates(shipment: Mapping[str, Any]) -> list[CarrierRate]:
    until = moment_of(shipment["created_at"]).at + RATE_LIFETIME
    found = []
    for rate in shipment["rates"]:
        price = _money(rate)
        found.append(
            CarrierRate(
                provider_rate_id=f"{shipment['id']}/{rate['id']}",
                service=f"{rate['carrier']} {rate['service']}",
                amount=price.amount,
                currency=price.currency,
                transit_days=rate.get("delivery_days"),
                expires_at=until,
            )
        )
    return found


def shipment_body(request: RatesRequest) -> dict[str, Any]:
    """Write the request that makes a shipment."""
    [package] = request.packages
    shipment: dict[str, Any] = {
        "from_address": _address(request.ship_from),
        "to_address": _address(request.ship_to),
        "parcel": _parcel(package),
        "options": {"label_format": LABEL_FORMAT, "currency": request.content.currency},
    }
    terms = shipment_terms(request.terms)
    return {"shipment": {**shipment, **terms, "options": {**shipment["options"], **terms.get("options", {})}}}


def _address(address: Address) -> dict[str, Any]:
    return {
        "name": address.name,
        "company": address.company_name or None,
        "street1": address.street_address,
        "city": address.city,
        "state": address.country_area or None,
        "zip": address.postal_code,
        "country": address.country_code,
        "phone": address.phone or None,
    }


def _parcel(package: PackageBody) -> dict[str, float]:
    sizes = {"length": package.length_mm, "width": package.width_mm, "height": package.height_mm}
    # A size is required once another one is there; the weight alone will do (docs.easypost.com/docs/parcels).
    known = sizes if all(sizes.values()) else {}
    inches = {name: float(_tenths(size, MILLIMETRES_PER_INCH)) for name, size in known.items()}
    return {**inches, "weight": float(_ounces(package.weight_grams))}


def _ounces(grams: int) -> Decimal:
    return _tenths(grams, GRAMS_PER_OUNCE)


def _tenths(value: int, unit: Decimal) -> Decimal:
    # A parcel that is heavier or larger than was said costs extra, so the tenths go up; what is a tenth to begin with stays one.
    return max(TENTH, ((value - HALF) / unit).quantize(TENTH, rounding=ROUND_UP))


def _split(provider_rate_id: str) -> tuple[str, str]:
    shipment_id, _, rate_id = provider_rate_id.partition("/")
    return shipment_id, rate_id


def _money(rate: Mapping[str, Any]) -> Money:
    return from_decimal_text(rate["rate"], rate["currency"])


def _has_rate(shipment: Mapping[str, Any]) -> bool:
    # One that was bought through another mechanism has no selected rate (docs.easypost.com/docs/shipments); ours always have.
    return bool(shipment["postage_label"] and shipment["selected_rate"])


def _record(shipment: Mapping[str, Any]) -> LabelRecord:
    price = _money(shipment["selected_rate"])
    return LabelRecord(
        provider_label_id=shipment["id"],
        amount=price.amount,
        currency=price.currency,
        status=_void_status(shipment),
        made_at=moment_of(shipment["created_at"]).at,
    )


def _void_status(shipment: Mapping[str, Any]) -> LabelStatus:
    said = shipment["refund_status"]
    return LabelStatus.PURCHASED if not said else VOIDS.get(str(said), LabelStatus.VOID_REQUESTED)


def tracker_for(trackers: Collection[Any], tracking_number: str, shipment_id: str) -> Mapping[str, Any] | None:
    """Choose the shipment's own tracker, else one of no shipment: that of another shipment is another parcel's with the same number."""
    found = []
    for each in trackers:
        with suppress(*UNFIT):
            found.append(tracker_of(each, "tracking_code", tracking_number))
    if trackers and not found:
        raise ValueError("they are another tracking number's")
    by_label = {label_of(each.get("shipment_id")): each for each in reversed(found)}
    return by_label.get(shipment_id) or by_label.get(None)


def _events(tracker: Mapping[str, Any]) -> list[TrackingEvent]:
    """Read a tracker's whole history, which each of its events bears."""
    number = number_of(tracker["tracking_code"])
    estimated = estimate_of(tracker.get("est_delivery_date"), carrier=EasyPost.carrier, number=number)

    def event(detail: Mapping[str, Any]) -> TrackingEvent:
        moment = moment_of(detail["datetime"])
        return TrackingEvent(
            carrier=EasyPost.carrier,
            tracking_number=number,
            occurred_at=moment.at,
            zone_assumed=moment.zone_assumed,
            status=STATUSES.get(text_in(detail.get("status")), TrackingStatus.UNKNOWN),
            code=text_in(detail.get("status_detail")),
            detail=text_in(detail.get("message")),
            location=place_in(detail.get("tracking_location")),
            estimated_delivery=estimated,
        )

    return events_of(tracker.get("tracking_details"), event, carrier=EasyPost.carrier, number=number)
