"""What others build on: the API, the messages and the states. A difference is explained in the commit that makes it.

Write the snapshots anew with TENDER_WRITE_SNAPSHOTS=1 ./tender test tests/snapshots.
"""

import os
from pathlib import Path
from typing import Any

import msgspec

from services.payments.domain.guards import CAPTURABLE, REFUNDABLE, VOIDABLE
from services.payments.domain.intents import INACTIVE, RANK, IntentStatus
from services.payments.domain.orders import OrderStatus
from shared.contracts import (
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
from shared.messages import type_of
from tests.world import World

FOLDER = Path(__file__).parent
MESSAGES = (
    *(*payments.MESSAGES, *webhooks.MESSAGES, *fulfillment.MESSAGES, *books.MESSAGES),
    *(*reconciler.MESSAGES, *credentials.MESSAGES, *settlements.MESSAGES, *dead_letters.MESSAGES, *timeline.MESSAGES),
    *(*vitals.MESSAGES, *traces.MESSAGES, *calls.MESSAGES),
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


def test_messages() -> None:
    _, components = msgspec.json.schema_components(MESSAGES, ref_template="#/components/schemas/{name}")

    _compare("messages.json", {"types": sorted(type_of(m) for m in MESSAGES), "schemas": components})


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
