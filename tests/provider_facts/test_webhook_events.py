"""Where providers write an event's name, type and time, by events that they publish; test_signatures has the signatures."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
import pytest

from services.webhooks.domain import Event, Incoming
from services.webhooks.providers import read_json
from services.webhooks.providers.adyen import ADYEN_PLATFORM
from services.webhooks.providers.adyen import _event as event_of_adyen
from services.webhooks.providers.adyen import _Item as AdyenItem
from services.webhooks.providers.braintree import BRAINTREE
from services.webhooks.providers.plain import CHECKOUT_COM, EASYPOST, MOLLIE, SQUARE


class Published(NamedTuple):
    """An event as it is published, without its data, and what is read of it; without a name its content names it."""

    source: str
    read: Callable[[Incoming], Event]
    body: dict[str, Any]
    name: str
    type: str
    at: datetime | None


EVENTS = {
    "paypal": Published(
        "paypal-rest-api-specifications at ec4d8f3, notifications_webhooks_v1.json, verify_webhook_signature",
        read_json,
        {
            "id": "8PT597110X687430LKGECATA",
            "create_time": "2013-06-25T21:41:28Z",
            "resource_type": "authorization",
            "event_type": "PAYMENT.AUTHORIZATION.CREATED",
            "summary": "A payment authorization was created",
        },
        "8PT597110X687430LKGECATA",
        "PAYMENT.AUTHORIZATION.CREATED",
        datetime(2013, 6, 25, 21, 41, 28, tzinfo=UTC),
    ),
    "adyen platform": Published(
        "adyen-openapi at aa014f0, ManagementNotificationService-v3.json, merchant.created",
        ADYEN_PLATFORM._read,
        {"type": "merchant.created", "environment": "test", "createdAt": "2022-08-12T10:50:01+02:00", "data": {"status": "PreActive"}},
        "sha256:",
        "merchant.created",
        datetime(2022, 8, 12, 8, 50, 1, tzinfo=UTC),
    ),
    "mollie": Published(
        "mollie-api-php at a6f097f, tests/Fixtures/Webhooks/payloads/payment-link-paid.simple.json",
        MOLLIE._read,
        {
            "resource": "event",
            "id": "event_GvJ8WHrp5isUdRub9CJyH",
            "type": "payment-link.paid",
            "entityId": "pl_qng5gbbv8NAZ5gpM5ZYgx",
            "createdAt": "2024-12-16T15:59:04.0Z",
        },
        "event_GvJ8WHrp5isUdRub9CJyH",
        "payment-link.paid",
        datetime(2024, 12, 16, 15, 59, 4, tzinfo=UTC),
    ),
    "mollie, before": Published(
        "docs.mollie.com, webhooks: the id of the payment alone", MOLLIE._read, {"id": "tr_1"}, "sha256:", "", None
    ),
    "square": Published(
        "developer.squareup.com/forums/t/webhook-payload-json-format/8178, reference/square/webhooks/payment.updated",
        SQUARE._read,
        {
            "merchant_id": "6SSW7HV8K2ST5",
            "type": "payment.updated",
            "event_id": "6a8f5f28-54a1-4eb0-a98a-3111513fd4fc",
            "created_at": "2020-02-06T21:27:34.308Z",
            "data": {"type": "payment", "id": "KkAkhdMsgzn59SM8A89WgKwekxLZY"},
        },
        "6a8f5f28-54a1-4eb0-a98a-3111513fd4fc",
        "payment.updated",
        datetime(2020, 2, 6, 21, 27, 34, 308_000, tzinfo=UTC),
    ),
    "checkout.com": Published(
        "checkout.com/docs, payment_captured",
        CHECKOUT_COM._read,
        {"id": "evt_6aznipgxbuaure3qen5qbzyswy", "type": "payment_captured", "version": "1.0.1", "created_on": "2019-06-07T08:25:22Z"},
        "evt_6aznipgxbuaure3qen5qbzyswy",
        "payment_captured",
        datetime(2019, 6, 7, 8, 25, 22, tzinfo=UTC),
    ),
    "easypost": Published(
        "EasyPost/examples at 112a6d1, official/docs/responses/events/retrieve.json",
        EASYPOST._read,
        {
            "description": "tracker.created",
            "created_at": "2025-05-09T20:39:17.000Z",
            "id": "evt_ad2365c22d1511f0b5364ffbb3e7a1f1",
            "status": "pending",
            "object": "Event",
        },
        "evt_ad2365c22d1511f0b5364ffbb3e7a1f1",
        "tracker.created",
        datetime(2025, 5, 9, 20, 39, 17, tzinfo=UTC),
    ),
}


@pytest.mark.parametrize("name", EVENTS)
def test_published_event_is_read(name: str) -> None:
    fact = EVENTS[name]

    event = fact.read(Incoming(headers={}, body=msgspec.json.encode(fact.body)))

    assert event.id.startswith(fact.name)
    assert (event.type if fact.type else "", event.happened_at) == (fact.type, fact.at)


def test_published_item_of_adyen_is_read() -> None:
    """adyen-openapi at aa014f0, Webhooks-v1.json, AUTHORISATION_ADJUSTMENT: `success` is text, the time has an offset."""
    body = {
        "amount": {"currency": "EUR", "value": 1000},
        "eventCode": "AUTHORISATION_ADJUSTMENT",
        "eventDate": "2021-01-01T01:00:00+01:00",
        "originalReference": "9913140798220028",
        "pspReference": "QFQTPCQ8HXSKGK82",
        "success": "true",
    }

    event = event_of_adyen(b"{}", msgspec.convert(body, AdyenItem))

    assert (event.id, event.type) == ("AUTHORISATION_ADJUSTMENT:QFQTPCQ8HXSKGK82:true", "AUTHORISATION_ADJUSTMENT")
    assert event.happened_at == datetime(2021, 1, 1, tzinfo=UTC)


def test_published_notification_of_braintree_is_read() -> None:
    """braintree_python, webhook_testing_gateway.py: the time has an attribute, the kind has words joined by underscores."""
    document = '<notification><timestamp type="datetime">2023-11-14T22:13:20Z</timestamp><kind>dispute_opened</kind></notification>'
    payload = base64.b64encode(document.encode()).decode()

    event = BRAINTREE._read(Incoming(headers={}, body=urlencode({"bt_signature": "public|00", "bt_payload": payload}).encode()))

    assert (event.type, event.happened_at) == ("dispute_opened", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC))
