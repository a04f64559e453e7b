"""What webhooks does: take in over HTTP, hand on over the bus, show and replay; one function each."""

from services.webhooks.handlers.context import Webhooks
from services.webhooks.handlers.processing import process, process_failed
from services.webhooks.handlers.receiving import receive
from services.webhooks.handlers.replaying import get_event, list_events, replay, replay_many

__all__ = ["Webhooks", "get_event", "list_events", "process", "process_failed", "receive", "replay", "replay_many"]
