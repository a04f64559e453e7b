"""Taking in: verified on the raw bytes, kept, answered; only then is anything done about it."""

import logging
import time
from datetime import UTC, datetime
from uuid import UUID

from services.webhooks.domain import Account, Event, Incoming, NotGenuine, keepable
from services.webhooks.handlers.context import Webhooks
from services.webhooks.providers import Forged, Scheme
from services.webhooks.providers.braintree import challenge_answer
from services.webhooks.store import events as store
from services.webhooks.store.events import Arrival
from shared import telemetry
from shared.contracts.webhooks import Process
from shared.ids import new_id
from shared.messages import Envelope
from shared.outbox import command_parcel

logger = logging.getLogger(__name__)

# Headers of a request that are stored: what the schemes sign with, and how the body was written. In any other there may be a secret.
STORED_HEADERS = frozenset(
    {
        *("content-type", "user-agent"),
        *("webhook-id", "webhook-timestamp", "webhook-signature", "svix-id", "svix-timestamp", "svix-signature"),
        *("stripe-signature", "shippo-auth-signature", "x-hmac-signature", "hmacsignature", "cko-signature"),
        *("x-mollie-signature", "x-square-hmacsha256-signature"),
        *("paypal-transmission-id", "paypal-transmission-time", "paypal-transmission-sig", "paypal-auth-algo", "paypal-cert-url"),
    }
)
SAMPLE_EVERY_SECONDS = 0.1
FORGED = "The request is not signed as it should be."
PROVIDER_MAX_CHARACTERS = 60
REASON_MAX_CHARACTERS = 500
# What is kept of a refused request's headers, in all and of each.
SAMPLED_HEADERS_MAX_CHARACTERS = 4_096
SAMPLED_HEADER_MAX_CHARACTERS = 512
SIGNATURE_WORDS = ("sign", "hmac", "webhook", "svix", "paypal", "type")


async def receive(context: Webhooks, provider: str, store_id: UUID | None, incoming: Incoming, *, correlation_id: str) -> bytes:
    """Keep what a provider sent; gives what the provider wants to hear once it is durable."""
    scheme, accounts = _at(context, provider, store_id)

    opened = await scheme.open(incoming, accounts, now=datetime.now(UTC))

    headers = {name: value for name, value in incoming.headers.items() if name in STORED_HEADERS}
    arrivals = [_arrival(account, event, headers, correlation_id) for account, event in opened.genuine]
    for is_new in await context.keeping.submit_all(arrivals):
        telemetry.webhooks_received.labels(provider, "new" if is_new else "repeated").inc()
    if opened.forged:
        await _turn_away(context, provider, opened.forged, headers, incoming.body)
        raise NotGenuine(FORGED)
    return scheme.accepted


def answer_challenge(context: Webhooks, provider: str, store_id: UUID | None, challenge: str) -> bytes:
    """Answer Braintree, which asks whether an address is ours before it posts to it."""
    _, accounts = _at(context, provider, store_id)
    try:
        return challenge_answer(accounts[0].secrets[0], challenge)
    except Forged:
        raise NotGenuine(FORGED) from None


def _at(context: Webhooks, provider: str, store_id: UUID | None) -> tuple[Scheme, list[Account]]:
    scheme = context.schemes.get(provider)
    accounts = [] if scheme is None else context.accounts_of(provider, scheme, store_id)
    if scheme is None or not accounts:
        # Answered as a forgery is: a stranger learns neither which providers nor which stores there are.
        telemetry.webhooks_received.labels("none", "unknown").inc()
        facts = {"provider": provider[:PROVIDER_MAX_CHARACTERS], "store_id": store_id}
        telemetry.say(logger, logging.WARNING, "webhook for an account that is not configured", facts)
        raise NotGenuine(FORGED)
    return scheme, accounts


def _arrival(account: Account, event: Event, headers: dict[str, str], correlation_id: str) -> Arrival:
    envelope = Envelope(
        id=new_id(),
        store_id=account.received_for,
        environment=account.environment,
        source="webhooks",
        actor=f"webhook:{account.provider}",
        correlation_id=correlation_id,
        traceparent=telemetry.traceparent(),
    )
    # The event's id is its first command's, so that a replay says whom it repeats.
    process = command_parcel(Process(event_id=envelope.id), envelope)
    return Arrival(id=envelope.id, account=account, event=keepable(event), headers=headers, process=process)


async def _turn_away(context: Webhooks, provider: str, reasons: tuple[str, ...], headers: dict[str, str], body: bytes) -> None:
    telemetry.webhooks_received.labels(provider, "forged").inc()
    telemetry.say(
        logger, logging.WARNING, "a webhook is not genuine", {"provider": provider, "reason": "; ".join(reasons)[:REASON_MAX_CHARACTERS]}
    )
    # A flood of forgeries must not become a flood of rows.
    if time.monotonic() - context.sampled_at_seconds < SAMPLE_EVERY_SECONDS:
        return
    context.sampled_at_seconds = time.monotonic()
    await store.keep_rejection(
        context.desk.pool, provider=provider, reason="; ".join(reasons)[:REASON_MAX_CHARACTERS], headers=_sample(headers), body=body
    )


def _sample(headers: dict[str, str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    room = SAMPLED_HEADERS_MAX_CHARACTERS
    # What is about the signature first: the rest is what a sender can make up.
    for name, value in sorted(headers.items(), key=lambda each: not any(word in each[0] for word in SIGNATURE_WORDS)):
        short = value[:SAMPLED_HEADER_MAX_CHARACTERS]
        room -= len(name) + len(short)
        if room < 0:
            break
        kept[name] = short
    return kept
