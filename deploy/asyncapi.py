"""The bus as an AsyncAPI 3 document: which message goes by which exchange to which service, with its schema."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from services.fulfillment import app as fulfillment
from services.payments import app as payments
from services.reconciler import app as reconciler
from services.webhooks import app as webhooks
from shared import topology
from shared.contracts import actions, traces, vitals
from shared.contracts.dead_letters import ATTENDED
from shared.messages import Envelope, Event, Message, Query, type_of

ASYNCAPI = "3.0.0"
CONTRACTS = "shared.contracts."
HANDLED: Mapping[str, Sequence[type[Message]]] = {
    "payments": [*payments.COMMANDS, *payments.QUERIES],
    "webhooks": [*webhooks.COMMANDS, *webhooks.QUERIES],
    "fulfillment": [*fulfillment.COMMANDS, *fulfillment.QUERIES],
    "reconciler": [*reconciler.COMMANDS, *reconciler.QUERIES],
}
DESCRIPTION = (
    "Commands and queries go by the topic exchange tender.commands, events by tender.events; the routing key is the message's type, "
    "which names its version. Whose it is, who asked and for what request stands in its headers. Every message may come more than once: "
    "its id and source make it one."
)


def document() -> dict[str, Any]:
    """Describe everything that travels."""
    received = {service: _of(service) for service in HANDLED}
    kinds = sorted({kind for of in received.values() for kind in of} | set(_events()), key=type_of)
    named, schemas = msgspec.json.schema_components([*kinds, Envelope], ref_template="#/components/schemas/{name}")
    *payloads, headers = named
    return {
        "asyncapi": ASYNCAPI,
        "info": {"title": "Tender's bus", "version": "1", "description": DESCRIPTION},
        "defaultContentType": "application/json",
        "channels": {_id(kind): _channel(kind) for kind in kinds},
        "operations": {
            **{f"{s}.receives.{_id(k)}": _operation("receive", k, s) for s, of in received.items() for k in sorted(of, key=type_of)},
            **{f"{s}.sends.{_id(k)}": _operation("send", k, s) for s in topology.TOLD for k in kinds if _may_send(s, k)},
        },
        "components": {
            "schemas": schemas,
            "messages": {_id(kind): _message(kind, payload, headers) for kind, payload in zip(kinds, payloads, strict=True)},
        },
    }


def _of(service: str) -> set[type[Message]]:
    """Tell what a service takes: its own handlers' messages, and what all services are told and asked."""
    attended = ATTENDED[service]
    common = (attended.put_away, attended.describe, vitals.ASKED[service], traces.ASKED[service], actions.ASKED[service])
    return {*HANDLED[service], *common}


def _events() -> list[type[Message]]:
    waiting, found = list(Event.__subclasses__()), []
    while waiting:
        each = waiting.pop()
        waiting += each.__subclasses__()
        found.append(each)
    return [each for each in found if each.__struct_config__.tag and each.__module__.startswith(CONTRACTS)]


def _id(kind: type[Message]) -> str:
    return type_of(kind)


def _exchange(kind: type[Message]) -> str:
    return topology.EVENTS if issubclass(kind, Event) else topology.COMMANDS


def _may_send(service: str, kind: type[Message]) -> bool:
    if issubclass(kind, Event):
        return type_of(kind).startswith(f"{service}.")
    # The gateway's own rule is wide; background work is none of its business.
    allowed = re.match(topology.TOLD[service], type_of(kind)) is not None
    return allowed and not (service == "gateway" and type_of(kind).startswith("background."))


def _channel(kind: type[Message]) -> dict[str, Any]:
    return {
        "address": type_of(kind),
        "messages": {"message": {"$ref": f"#/components/messages/{_escaped(kind)}"}},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": _exchange(kind), "type": "topic", "durable": True, "autoDelete": False},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _message(kind: type[Message], payload: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any]:
    sort = "event" if issubclass(kind, Event) else "query" if issubclass(kind, Query) else "command"
    return {
        "name": type_of(kind),
        "title": kind.__name__,
        "summary": (kind.__doc__ or "").strip(),
        "tags": [{"name": sort}],
        "contentType": "application/json",
        "headers": headers,
        "payload": payload,
    }


def _operation(action: str, kind: type[Message], service: str) -> dict[str, Any]:
    channel = f"#/channels/{_escaped(kind)}"
    return {
        "action": action,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/message"}],
        "tags": [{"name": service}],
        **({"bindings": {"amqp": {"ack": True, "bindingVersion": "0.3.0"}}} if action == "receive" else {}),
    }


def _escaped(kind: type[Message]) -> str:
    return _id(kind).replace("~", "~0").replace("/", "~1")
