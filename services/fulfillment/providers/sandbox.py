"""The sandbox's carrier: our own simulator over HTTP, which hangs, lies and repeats itself on request."""

import base64
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from services.fulfillment.domain.shipping.customs import Terms
from services.fulfillment.domain.shipping.labels import LabelStatus
from services.fulfillment.domain.shipping.tracking import TrackingEvent, TrackingStatus
from services.fulfillment.providers import (
    Bought,
    BoughtPackage,
    CarrierCapabilities,
    CarrierNews,
    CarrierRate,
    LabelPage,
    LabelRecord,
    LabelRequest,
    RatesRequest,
    changed,
)
from services.fulfillment.providers.tracking_feeds import estimate_of, events_of, moment_of, number_of, text_in
from shared.contracts.fulfillment.pricing import PackageBody
from shared.http_client import Answer, ProviderClient
from shared.provider_answers import AnswerFormat, ProviderError, text_of

PAGE_ROWS = 100
# Codes of the sandbox's errors that say that a request was not executed.
ABSENT = frozenset({"label_not_found", "parcel_not_found", "rate_not_found"})
NOT_EXECUTED = ABSENT | {"address_invalid", "customs_needed", "invalid_json", "parcels_invalid", "rate_expired"}
# What the audit may keep: neither addresses nor documents.
AUDITED = frozenset(
    {
        *("id", "rates", "service", "amount", "currency", "transit_days", "expires_at", "rate_id", "reference", "status", "is_return"),
        *("packages", "tracking_number", "media_type", "data", "scans", "code", "detail", "occurred_at", "created_at"),
        *("error", "message", "parcels", "weight_grams", "country_code", "from", "to", "document_type"),
    }
)


class SandboxCarrier:
    """Speaks the sandbox's carrier API."""

    name = "sandbox"
    carrier = "sandbox"
    absence_is_proof_after_seconds = 0.0
    capabilities = CarrierCapabilities(
        labels=True, documents=("pdf", "zpl"), returns=True, insurance=True, multiple_packages=True, tracking=True
    )

    def __init__(self, *, base_url: str, api_key: str, timeout_seconds: float) -> None:
        self._client = ProviderClient(
            service="fulfillment",
            provider=self.name,
            base_url=base_url,
            headers={"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"},
            timeout_seconds=timeout_seconds,
            audited=AUDITED,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def rates(self, request: RatesRequest) -> list[CarrierRate]:
        """Ask what it costs by each service."""
        body = {
            "from": msgspec.to_builtins(request.ship_from),
            "to": msgspec.to_builtins(request.ship_to),
            "parcels": _parcels(request.packages),
            "currency": request.content.currency,
        }
        call = self._client.call("rates", "POST", "/v1/shipping/rates", body=msgspec.json.encode(body))
        answer = changed(ANSWERS, await call)
        with ANSWERS.reading():
            return [
                CarrierRate(
                    provider_rate_id=rate["id"],
                    service=rate["service"],
                    amount=rate["amount"],
                    currency=rate["currency"],
                    transit_days=rate["transit_days"],
                    expires_at=moment_of(rate["expires_at"]).at,
                )
                for rate in answer["rates"]
            ]

    async def buy(self, request: LabelRequest, *, reference: UUID) -> Bought:
        """Buy a label; the reference is the key, too."""
        body = {
            "rate_id": request.provider_rate_id,
            "reference": str(reference),
            "from": msgspec.to_builtins(request.ship_from),
            "to": msgspec.to_builtins(request.ship_to),
            "parcels": _parcels(request.packages),
            "customs": _customs(request.terms),
            "terms": msgspec.to_builtins(request.terms),
            "document": request.document,
            "insured_amount": request.insured_amount,
            "is_return": request.is_return,
        }
        headers = {"Idempotency-Key": f"tender-{reference}"}
        call = self._client.call("buy_label", "POST", "/v1/shipping/labels", body=msgspec.json.encode(body), headers=headers)
        label = changed(ANSWERS, await call)
        with ANSWERS.reading():
            return _bought(_meant(label, "reference", str(reference)))

    async def find(self, request: LabelRequest, *, reference: UUID) -> Bought | None:
        """Find a label by our reference; of several the first."""
        call = self._client.call("find_label", "GET", "/v1/shipping/labels", query={"reference": str(reference)})
        answer = await call
        with ANSWERS.reading():
            found, _ = _page(answer)
            return _bought(_meant(found[0], "reference", str(reference))) if found else None

    async def void(self, provider_label_id: str, *, reference: UUID) -> LabelStatus:
        """Give a label back."""
        headers = {"Idempotency-Key": f"tender-void-{reference}"}
        call = self._client.call("void_label", "POST", f"/v1/shipping/labels/{provider_label_id}/void", headers=headers)
        label = changed(ANSWERS, await call)
        with ANSWERS.reading():
            return LabelStatus(_meant(label, "id", provider_label_id)["status"])

    async def status(self, provider_label_id: str) -> LabelStatus:
        """Ask how a label stands."""
        answer = await self._client.call("label_status", "GET", f"/v1/shipping/labels/{provider_label_id}")
        with ANSWERS.reading():
            return LabelStatus(_meant(ANSWERS.shown(answer), "id", provider_label_id)["status"])

    async def track(self, tracking_number: str, *, provider_label_id: str) -> list[TrackingEvent]:
        """Read all that was seen of a parcel."""
        answer = await self._client.call("track", "GET", f"/v1/shipping/parcels/{tracking_number}")
        with ANSWERS.reading():
            parcel = _meant(ANSWERS.shown(answer), "tracking_number", tracking_number)
            read = partial(_event, tracking_number)
            return events_of(parcel["scans"], read, carrier=self.carrier, number=tracking_number)

    async def list_labels(self, *, since: datetime, until: datetime, cursor: str | None) -> LabelPage:
        """Page through the labels sold to us, the oldest first."""
        query = {"since": since.isoformat(), "until": until.isoformat(), "cursor": cursor or "", "limit": str(PAGE_ROWS)}
        answer = await self._client.call("list_labels", "GET", "/v1/shipping/labels", query=query)
        with ANSWERS.reading():
            found, following = _page(answer)
            return LabelPage(labels=tuple(_record(each) for each in found), next=following)

    async def get_label(self, provider_label_id: str) -> LabelRecord | None:
        """Read a label."""
        answer = await self._client.call("get_label", "GET", f"/v1/shipping/labels/{provider_label_id}")
        if ANSWERS.says_absent(answer):
            return None
        with ANSWERS.reading():
            return _record(_meant(ANSWERS.shown(answer), "id", provider_label_id))

    def read_event(self, event_type: str, payload: bytes) -> CarrierNews:
        """Read a webhook: a sight of a parcel, or how a label stands; raises ValueError."""
        try:
            data = msgspec.json.decode(payload)["data"]
            if event_type == "parcel.moved":
                return CarrierNews(events=(_event(number_of(data["tracking_number"]), data["scan"]),))
            if event_type == "label.void":
                return CarrierNews(
                    provider_label_id=data["label_id"], label_status=LabelStatus(data["status"]), reference=UUID(data["reference"])
                )
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as unfit:
            raise ValueError(f"{type(unfit).__name__}: {unfit}") from unfit
        return CarrierNews()


def _error(answer: Answer) -> ProviderError | None:
    error = answer.body["error"]
    return ProviderError(code=error["code"], message=text_of(error["message"])) if error["code"] in NOT_EXECUTED else None


ANSWERS = AnswerFormat(provider="sandbox", read_error=_error, refusing_statuses=frozenset({400, 404, 409, 422}), absence_codes=ABSENT)


def _meant(thing: Mapping[str, Any], name: str, value: str) -> Mapping[str, Any]:
    """Insist that an answer shows what was asked about."""
    if thing[name] != value:
        raise ValueError(f"its {name} is another")
    return thing


def _page(answer: Answer) -> tuple[list[Mapping[str, Any]], str | None]:
    # Without a cursor it is some other list.
    page = ANSWERS.shown(answer)
    return page["data"], page["next_cursor"]


def _bought(label: Mapping[str, Any]) -> Bought:
    return Bought(
        provider_label_id=label["id"],
        amount=label["amount"],
        currency=label["currency"],
        status=LabelStatus(label["status"]),
        packages=tuple(
            BoughtPackage(
                tracking_number=package["tracking_number"],
                media_type=package["media_type"],
                document=base64.b64decode(package["document"]),
            )
            for package in label["packages"]
        ),
    )


def _record(label: Mapping[str, Any]) -> LabelRecord:
    reference = label.get("reference")
    return LabelRecord(
        provider_label_id=label["id"],
        amount=label["amount"],
        currency=label["currency"],
        status=LabelStatus(label["status"]),
        made_at=moment_of(label["created_at"]).at,
        reference=UUID(reference) if reference else None,
    )


def _event(tracking_number: str, scan: Mapping[str, Any]) -> TrackingEvent:
    try:
        status = TrackingStatus(text_in(scan["status"]))
    except ValueError:
        # A word that we do not know yet is kept as the carrier said it.
        status = TrackingStatus.UNKNOWN
    moment = moment_of(scan["occurred_at"])
    return TrackingEvent(
        carrier=SandboxCarrier.carrier,
        tracking_number=tracking_number,
        occurred_at=moment.at,
        zone_assumed=moment.zone_assumed,
        status=status,
        code=text_in(scan.get("code")),
        detail=text_in(scan.get("detail")),
        location=text_in(scan.get("location")),
        estimated_delivery=estimate_of(scan.get("estimated_delivery"), carrier=SandboxCarrier.carrier, number=tracking_number),
    )


def _parcels(packages: tuple[PackageBody, ...]) -> list[dict[str, int]]:
    return [{"weight_grams": p.weight_grams, "length_mm": p.length_mm, "width_mm": p.width_mm, "height_mm": p.height_mm} for p in packages]


def _customs(terms: Terms) -> list[dict[str, Any]]:
    return [] if terms.declaration is None else [msgspec.to_builtins(each) for each in terms.declaration.goods]
