"""What webhooks does: take in over HTTP, hand on over the bus, show and replay; one function each."""

from services.webhooks.handlers.context import Webhooks
from services.webhooks.handlers.endpoints import (
    delete_endpoint,
    get_secrets,
    list_deliveries,
    list_endpoints,
    put_endpoint,
    recover_deliveries,
    redeliver,
    rotate_secret,
)
from services.webhooks.handlers.processing import process, process_failed
from services.webhooks.handlers.receiving import answer_challenge, receive
from services.webhooks.handlers.replaying import get_event, list_events, replay, replay_many
from services.webhooks.handlers.telling import catch_up, tell_of_payment, tell_of_payments

__all__ = [
    "Webhooks",
    "answer_challenge",
    "catch_up",
    "delete_endpoint",
    "get_event",
    "get_secrets",
    "list_deliveries",
    "list_endpoints",
    "list_events",
    "process",
    "process_failed",
    "put_endpoint",
    "receive",
    "recover_deliveries",
    "redeliver",
    "replay",
    "replay_many",
    "rotate_secret",
    "tell_of_payment",
    "tell_of_payments",
]
