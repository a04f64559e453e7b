"""Shippo: many carriers behind one API (docs.goshippo.com); each request for a transaction buys a label, whoever asks again."""

import textwrap
from collections.abc import Collection, Mapping
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
from services.fulfillment.providers.shippo_carriers import carrier_token
from services.fulfillment.providers.shippo_customs import shipment_terms
from services.fulfillment.providers.tracking_feeds import estimate_of, events_of, label_of, moment_of, number_of, place_in, text_in
from shared.contracts.fulfillment.pricing import PackageBody
from shared.contracts.orders import Address
from shared.http_client import Answer, ProviderClient
from shared.money import Money, from_decimal_text
from shared.provider_answers import AnswerFormat, IndeterminateResponse, ProviderError, text_of

# docs.goshippo.com: rates hold for seven days.
RATE_LIFETIME = timedelta(days=7)
ABSENCE_IS_PROOF_AFTER_SECONDS = 60.0
MILLIMETRES_PER_CENTIMETRE = 10
API_VERSION = "2018-02-08"
PAGE_ROWS = 100
# Where labels are: the first as Shippo answers now, the second by docs.goshippo.com/api-reference/transactions/create-a-shipping-label, the
# third by an earlier edition of it.
LABEL_HOSTS = frozenset({"deliver.goshippo.com", "shippo-delivery.s3.amazonaws.com", "shippo-delivery-east.s3.amazonaws.com"})
# How long a line of a street may be (shippo 3.9.0, AddressCreateRequest).
STREET_LINE_MAX_CHARACTERS = 35
# "Up to six digits in front and four digits after the decimal separator" (shippo 3.9.0, ParcelCreateRequest).
WEIGHT_MAX_GRAMS = 999_999
FILE_TYPES = {"pdf": "PDF_4x6", "zpl": "ZPLII"}
# What errors about a request are about: its fields, as we write them, or all of it (goshippo/shippo-ruby-client issue 28).
REFUSED_FIELDS = frozenset(
    {
        *("address_from", "address_to", "parcels", "customs_declaration", "async", "rate", "label_file_type", "metadata", "transaction"),
        *("extra", "__all__", "non_field_errors"),
    }
)
INVALID, MISSING = "invalid", "not_found"
# A transaction has one refund; this is the answer to a second request (shippo-java-client, DuplicateRefundRequestException).
REFUND_EXISTS = {"transaction": ["Refund with this Transaction already exists."]}
# Word for word (goshippo/shippo-node-client issue 78, and as Django's REST framework, of which Shippo's API is made, writes it now).
MISSING_TEXTS = frozenset({"Not found", "Not found."})

STATUSES = {
    "UNKNOWN": TrackingStatus.UNKNOWN,
    "PRE_TRANSIT": TrackingStatus.PRE_TRANSIT,
    "TRANSIT": TrackingStatus.IN_TRANSIT,
    "DELIVERED": TrackingStatus.DELIVERED,
    "RETURNED": TrackingStatus.RETURN_TO_SENDER,
    "FAILURE": TrackingStatus.EXCEPTION,
}
# Some of what the six words leave out is in the finer ones (docs.goshippo.com/docs/Tracking/Tracking).
SUBSTATUSES = {
    "out_for_delivery": TrackingStatus.OUT_FOR_DELIVERY,
    "package_accepted": TrackingStatus.PICKED_UP,
    "pickup_available": TrackingStatus.AVAILABLE_FOR_PICKUP,
}
TRANSACTIONS = {
    "SUCCESS": LabelStatus.PURCHASED,
    "REFUNDPENDING": LabelStatus.VOID_REQUESTED,
    "REFUNDED": LabelStatus.REFUNDED,
    "REFUNDREJECTED": LabelStatus.REJECTED,
}
REFUNDS = {
    "QUEUED": LabelStatus.VOID_REQUESTED,
    "PENDING": LabelStatus.VOID_REQUESTED,
    "SUCCESS": LabelStatus.REFUNDED,
    "ERROR": LabelStatus.REJECTED,
}

AUDITED = frozenset(
    {
        *("object_id", "status", "rates", "rate", "amount", "currency", "provider", "servicelevel", "token", "estimated_days", "parcels"),
        *("weight", "mass_unit", "length", "width", "height", "distance_unit", "metadata", "label_file_type", "tracking_number"),
        *(
            "tracking_status",
            "tracking_history",
            "status_date",
            "substatus",
            "code",
            "messages",
            "text",
            "source",
            "results",
            "transaction",
        ),
        *("country", "detail", "object_created"),
    }
)


class Shippo:
    """Speaks Shippo's API."""

    name = "shippo"
    carrier = "shippo"
    absence_is_proof_after_seconds = ABSENCE_IS_PROOF_AFTER_SECONDS
    capabilities = CarrierCapabilities(
        labels=True,
        documents=("pdf", "zpl"),
        returns=True,
        # It would have to be said before the prices are asked.
        insurance=False,
        multiple_packages=False,
        tracking=True,
        rates_buy_once=True,
        rates_bind_terms=True,
    )

    def __init__(self, *, base_url: str, api_key: str, timeout_seconds: float, label_hosts: Collection[str] = ()) -> None:
        self._base_url = base_url
        self._label_hosts = LABEL_HOSTS.union(label_hosts)
        self._client = ProviderClient(
            service="fulfillment",
            provider=self.name,
            base_url=base_url,
            headers={"Authorization": f"ShippoToken {api_key}", "Content-Type": "application/json", "SHIPPO-API-VERSION": API_VERSION},
            timeout_seconds=timeout_seconds,
            audited=AUDITED,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def rates(self, request: RatesRequest) -> list[CarrierRate]:
        """Make a shipment, which is what prices come of."""
        if len(request.packages) != 1:
            raise CarrierRefused("one_package", f"Shippo takes one package a label here, and this order goes in {len(request.packages)}")
        body = msgspec.json.encode(shipment_body(request))
        shipment = changed(ANSWERS, await self._client.call("create_shipment", "POST", "/shipments/", body=body))
        with ANSWERS.reading():
            rates = [_rate(rate) for rate in shipment["rates"]]
            if not rates and shipment.get("messages"):
                raise _failed(shipment)
            return rates

    async def buy(self, request: LabelRequest, *, reference: UUID) -> Bought:
        """Buy a label; only ever asked for when none was bought under the reference."""
        body = {
            "rate": request.provider_rate_id,
            "label_file_type": FILE_TYPES[request.document],
            "metadata": str(reference),
            "async": False,
        }
        answer = await self._client.call("create_transaction", "POST", "/transactions/", body=msgspec.json.encode(body))
        transaction = changed(ANSWERS, answer)
        with ANSWERS.reading():
            return await self._bought(transaction, request, reference)

    async def find(self, request: LabelRequest, *, reference: UUID) -> Bought | None:
        """Look through the rate's transactions for our reference."""
        query = {"rate": request.provider_rate_id}
        answer = await self._client.call("list_transactions", "GET", "/transactions/", query=query)
        with ANSWERS.reading():
            ours = [each for each in _results(answer) if each.get("metadata") == str(reference)]
            # One that came to nothing says nothing of another that did not.
            ours.sort(key=lambda transaction: transaction["status"] == "ERROR")
            return await self._bought(ours[0], request, reference) if ours else None

    async def void(self, provider_label_id: str, *, reference: UUID) -> LabelStatus:
        """Request a refund of the label, once; a repeat that its status does not show yet is refused as one, so it was requested."""
        known = await self.status(provider_label_id)
        if known is not LabelStatus.PURCHASED:
            return known
        body = msgspec.json.encode({"transaction": provider_label_id, "async": False})
        answer = await self._client.call("create_refund", "POST", "/refunds/", body=body)
        if answer.status in ANSWERS.refusing_statuses and answer.body == REFUND_EXISTS:
            return LabelStatus.VOID_REQUESTED
        refund = changed(ANSWERS, answer)
        with ANSWERS.reading():
            if refund["transaction"] != provider_label_id:
                raise ValueError("it is another refund")
            return REFUNDS.get(str(refund["status"]), LabelStatus.VOID_REQUESTED)

    async def status(self, provider_label_id: str) -> LabelStatus:
        """Read how a label stands."""
        with ANSWERS.reading():
            transaction = await self._transaction(provider_label_id)
            return TRANSACTIONS.get(str(transaction["status"]), LabelStatus.PURCHASED)

    async def track(self, tracking_number: str, *, provider_label_id: str) -> list[TrackingEvent]:
        """Read all that was seen of a parcel; the carrier's name is the rate's."""
        with ANSWERS.reading():
            rate = await self._rate_of(await self._transaction(provider_label_id))
            path = f"/tracks/{carrier_token(rate)}/{tracking_number}"
            answer = await self._client.call("track", "GET", path)
            track = tracker_of(ANSWERS.shown(answer), "tracking_number", tracking_number)
            return _events(track) if _own(track, provider_label_id) else []

    async def list_labels(self, *, since: datetime, until: datetime, cursor: str | None) -> LabelPage:
        """Page through transactions, the newest first; Shippo lists by no time, so reading ends where they are too old."""
        query = {"results": str(PAGE_ROWS), "page": cursor or "1"}
        answer = await self._client.call("list_transactions", "GET", "/transactions/", query=query)
        with ANSWERS.reading():
            found = _results(answer)
            made = [moment_of(each["object_created"]).at for each in found]
            wanted = [each for each, at in zip(found, made, strict=True) if since <= at < until and str(each["status"]) in TRANSACTIONS]
            more = bool(answer.body["next"]) and bool(made) and min(made) >= since
            labels = tuple([await self._record(each) for each in wanted])
        return LabelPage(labels=labels, next=str(int(cursor or "1") + 1) if more else None)

    async def get_label(self, provider_label_id: str) -> LabelRecord | None:
        """Read a transaction; one that came to nothing is no label."""
        answer = await self._retrieve(provider_label_id)
        if ANSWERS.says_absent(answer):
            return None
        with ANSWERS.reading():
            transaction = _transaction(ANSWERS.shown(answer), provider_label_id)
            return await self._record(transaction) if str(transaction["status"]) in TRANSACTIONS else None

    async def _record(self, transaction: Mapping[str, Any]) -> LabelRecord:
        price = _money(await self._rate_of(transaction))
        return LabelRecord(
            provider_label_id=transaction["object_id"],
            amount=price.amount,
            currency=price.currency,
            status=TRANSACTIONS[str(transaction["status"])],
            made_at=moment_of(transaction["object_created"]).at,
            reference=_uuid(transaction.get("metadata")),
        )

    def read_event(self, event_type: str, payload: bytes) -> CarrierNews:
        """Read a webhook: a track with all its history, or a transaction; raises ValueError."""
        try:
            event = msgspec.json.decode(payload)
            data = event.get("data") or {}
            if event.get("event") == "track_updated":
                return CarrierNews(events=tuple(_events(data)), provider_label_id=label_of(data.get("transaction")))
            if event.get("event") == "transaction_updated" and data["status"] in TRANSACTIONS:
                return CarrierNews(provider_label_id=data["object_id"], label_status=TRANSACTIONS[data["status"]])
        except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError) as unfit:
            raise ValueError(f"{type(unfit).__name__}: {unfit}") from unfit
        return CarrierNews()

    async def _retrieve(self, transaction_id: str) -> Answer:
        return await self._client.call("get_transaction", "GET", f"/transactions/{transaction_id}")

    async def _transaction(self, transaction_id: str) -> Mapping[str, Any]:
        return _transaction(ANSWERS.shown(await self._retrieve(transaction_id)), transaction_id)

    async def _rate_of(self, transaction: Mapping[str, Any]) -> Mapping[str, Any]:
        rate = transaction["rate"]
        if isinstance(rate, Mapping):
            return rate
        return ANSWERS.shown(await self._client.call("get_rate", "GET", f"/rates/{rate}"))

    async def _bought(self, transaction: Mapping[str, Any], request: LabelRequest, reference: UUID) -> Bought:
        if transaction.get("metadata") != str(reference):
            raise ValueError("it is another transaction")
        status = str(transaction["status"])
        if status == "ERROR":
            raise _failed(transaction)
        if status not in TRANSACTIONS:
            raise IndeterminateResponse(f"the transaction is {status}")
        price = _money(await self._rate_of({**transaction, "rate": request.provider_rate_id}))
        package = BoughtPackage(
            tracking_number=transaction["tracking_number"],
            media_type=FORMS[request.document].media_type,
            document=await fetched(transaction["label_url"], form=request.document, hosts=self._label_hosts, carrier_url=self._base_url),
        )
        return Bought(
            provider_label_id=transaction["object_id"],
            amount=price.amount,
            currency=price.currency,
            packages=(package,),
            status=TRANSACTIONS[status],
        )


def _error(answer: Answer) -> ProviderError | None:
    """Read an error: nothing is there, or fields of the request, each with what is wrong with it."""
    if answer.body.keys() == {"detail"} and answer.body["detail"] in MISSING_TEXTS:
        return ProviderError(code=MISSING, message=answer.body["detail"])
    about = answer.body.items()
    if about and all(name in REFUSED_FIELDS and isinstance(texts, list) and texts for name, texts in about):
        return ProviderError(code=INVALID, message=text_of(msgspec.json.encode(answer.body).decode()))
    return None


# docs.goshippo.com/api-concepts/apihttp-status-codes; 401, 409 and 429 say nothing of an earlier copy of the request, 5xx nothing at all.
ANSWERS = AnswerFormat(
    provider="shippo", read_error=_error, refusing_statuses=frozenset({400, 404, 422}), absence_codes=frozenset({MISSING})
)


def _transaction(thing: dict[str, Any], transaction_id: str) -> dict[str, Any]:
    """Insist that an answer is this transaction."""
    if thing["object_id"] != transaction_id:
        raise ValueError("it is another transaction")
    return thing


def _results(answer: Answer) -> list[dict[str, Any]]:
    """Take the page of an answer, which says whether there is another."""
    page = ANSWERS.shown(answer)
    _ = page["next"]
    found: list[dict[str, Any]] = page["results"]
    return found


def _failed(thing: Mapping[str, Any]) -> CarrierRefused:
    """Say why a carrier did nothing, as Shippo passes it on."""
    message = (thing.get("messages") or [{}])[0]
    return CarrierRefused(str(message.get("code") or "error"), str(message.get("text") or ""))


def _uuid(text: Any) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def shipment_body(request: RatesRequest) -> dict[str, Any]:
    """Write the request that makes a shipment; refuses a package of unknown size, which Shippo does not take."""
    [package] = request.packages
    return {
        "address_from": _address(request.ship_from),
        "address_to": _address(request.ship_to),
        "parcels": [_parcel(package)],
        "async": False,
        **shipment_terms(request.terms),
    }


def _address(address: Address) -> dict[str, Any]:
    return {
        "name": address.name,
        "company": address.company_name,
        **_street(address.street_address),
        "city": address.city,
        "state": address.country_area,
        "zip": address.postal_code,
        "country": address.country_code,
        "phone": address.phone,
    }


def _street(text: str) -> dict[str, str]:
    """Write a street on one line, or on two that break between words; refuses what no two lines can hold."""
    if len(text) <= STREET_LINE_MAX_CHARACTERS:
        return {"street1": text}
    lines = textwrap.wrap(text, STREET_LINE_MAX_CHARACTERS, break_on_hyphens=False)
    if len(lines) > 2:
        raise CarrierRefused("street_too_long", f"Shippo allows a street two lines of {STREET_LINE_MAX_CHARACTERS} characters")
    return dict(zip(("street1", "street2"), lines, strict=False))


def _parcel(package: PackageBody) -> dict[str, str]:
    sizes = {"length": package.length_mm, "width": package.width_mm, "height": package.height_mm}
    if not all(sizes.values()):
        raise CarrierRefused("size_needed", "Shippo prices no package without its length, width and height")
    if package.weight_grams > WEIGHT_MAX_GRAMS:
        raise CarrierRefused("too_heavy", f"Shippo ships packages of {WEIGHT_MAX_GRAMS} g at most")
    said = {name: _text(Decimal(size) / MILLIMETRES_PER_CENTIMETRE) for name, size in sizes.items()}
    return {**said, "distance_unit": "cm", "weight": str(package.weight_grams), "mass_unit": "g"}


def _text(value: Decimal) -> str:
    return f"{value.quantize(Decimal('0.1'), rounding=ROUND_UP):f}"


def _rate(rate: Mapping[str, Any]) -> CarrierRate:
    price = _money(rate)
    return CarrierRate(
        provider_rate_id=rate["object_id"],
        service=f"{rate['provider']} {rate['servicelevel']['name']}",
        amount=price.amount,
        currency=price.currency,
        transit_days=rate.get("estimated_days"),
        expires_at=moment_of(rate["object_created"]).at + RATE_LIFETIME,
    )


def _money(rate: Mapping[str, Any]) -> Money:
    return from_decimal_text(str(rate["amount"]), str(rate["currency"]))


def _own(track: Mapping[str, Any], transaction_id: str) -> bool:
    """Tell whether a track is of a transaction; one of another is another parcel's with the same number (Track.transaction)."""
    return label_of(track.get("transaction")) in (transaction_id, None)


def _events(track: Mapping[str, Any]) -> list[TrackingEvent]:
    """Read a track's whole history, which each of its events bears."""
    number = number_of(track["tracking_number"])
    estimated = estimate_of(track.get("eta"), carrier=Shippo.carrier, number=number)

    def event(seen: Mapping[str, Any]) -> TrackingEvent:
        moment = moment_of(seen["status_date"])
        substatus, status = seen.get("substatus"), text_in(seen.get("status"))
        finer = text_in(substatus.get("code")) if isinstance(substatus, Mapping) else ""
        return TrackingEvent(
            carrier=Shippo.carrier,
            tracking_number=number,
            occurred_at=moment.at,
            zone_assumed=moment.zone_assumed,
            status=SUBSTATUSES.get(finer) or STATUSES.get(status, TrackingStatus.UNKNOWN),
            code=finer or status,
            detail=text_in(seen.get("status_details")),
            location=place_in(seen.get("location")),
            estimated_delivery=estimated,
        )

    return events_of(track.get("tracking_history"), event, carrier=Shippo.carrier, number=number)
