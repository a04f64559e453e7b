"""What others build on: the API, the messages and the states. A difference is explained in the commit that makes it.

Write the snapshots anew with TENDER_WRITE_SNAPSHOTS=1 ./tender test tests/snapshots.
"""

import os
from pathlib import Path
from typing import Any

import msgspec

from deploy import asyncapi
from services.payments.domain.guards import CAPTURABLE, REFUNDABLE, VOIDABLE
from services.payments.domain.intents import INACTIVE, RANK, IntentStatus
from services.payments.domain.orders import OrderStatus
from shared.contracts import (
    actions,
    books,
    calls,
    credentials,
    dead_letters,
    fulfillment,
    payments,
    reconciler,
    settlements,
    timeline,
    traces,
    vitals,
    webhooks,
)
from shared.messages import Event, type_of
from tests.world import World

FOLDER = Path(__file__).parent
MESSAGES = (
    *(*payments.MESSAGES, *webhooks.MESSAGES, *fulfillment.MESSAGES, *books.MESSAGES),
    *(*reconciler.MESSAGES, *credentials.MESSAGES, *settlements.MESSAGES, *dead_letters.MESSAGES, *timeline.MESSAGES),
    *(*vitals.MESSAGES, *traces.MESSAGES, *calls.MESSAGES, *actions.MESSAGES),
)


def _compare(name: str, now: Any) -> None:
    file = FOLDER / name
    text = msgspec.json.format(msgspec.json.encode(now, order="sorted"), indent=2).decode() + "\n"
    if os.environ.get("TENDER_WRITE_SNAPSHOTS"):
        file.write_text(text)
    assert file.read_text() == text, f"{name} differs; if that is meant, write it anew and say why in the commit"


async def test_the_served_openapi_document(world: World) -> None:
    document = (await world.http.get("/openapi/openapi.json")).json()

    _compare("openapi.json", document)


# RFC 9110, section 15.5 and 15.6, and RFC 6585, section 4 (429).
REASON_PHRASES = {
    "400": "Bad Request",
    "401": "Unauthorized",
    "402": "Payment Required",
    "403": "Forbidden",
    "404": "Not Found",
    "409": "Conflict",
    "412": "Precondition Failed",
    "413": "Content Too Large",
    "422": "Unprocessable Content",
    "429": "Too Many Requests",
    "503": "Service Unavailable",
}


async def test_documented_errors_bear_the_reason_phrases_of_rfc_9110(world: World) -> None:
    """Python's own phrases depend on its version, and Litestar documents a 400 of its own where we document none."""
    document = (await world.http.get("/openapi/openapi.json")).json()
    ours = [each for path, each in document["paths"].items() if not path.startswith("/api/v1/webhooks/")]

    documented = {
        (status, answer["description"])
        for path in ours
        for operation in path.values()
        for status, answer in operation["responses"].items()
        if status >= "400"
    }

    assert documented == set(REASON_PHRASES.items())


def test_messages() -> None:
    _, components = msgspec.json.schema_components(MESSAGES, ref_template="#/components/schemas/{name}")

    _compare("messages.json", {"types": sorted(type_of(m) for m in MESSAGES), "schemas": components})


def test_the_bus_as_an_asyncapi_document() -> None:
    described = asyncapi.document()

    _compare("asyncapi.json", described)
    assert [each for each in sorted(_references(described)) if not _leads_somewhere(described, each)] == []
    # Everything that has a name on the bus is in it, and nobody is told what nobody takes.
    assert {type_of(m) for m in MESSAGES} <= set(described["channels"])
    taken = {name.partition(".receives.")[2] for name in described["operations"] if ".receives." in name}
    commands = {type_of(m) for m in MESSAGES if not issubclass(m, Event)}
    assert commands - taken == set()


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(_references(inner) for inner in value.values()))
    return set().union(*(_references(inner) for inner in value)) if isinstance(value, list) else set()


def _leads_somewhere(document: Any, reference: str) -> bool:
    found = document
    for part in reference.removeprefix("#/").split("/"):
        if part not in found:
            return False
        found = found[part]
    return True


def test_states() -> None:
    states = {
        "order": sorted(OrderStatus),
        "intent": {
            status.value: {
                "active": status not in INACTIVE,
                "can_be_captured": status in CAPTURABLE,
                "can_be_refunded": status in REFUNDABLE,
                "can_be_voided": status in VOIDABLE,
            }
            for status in IntentStatus
        },
        "transaction_moves_on_in_this_order": [status.value for status in RANK],
    }

    _compare("states.json", states)
