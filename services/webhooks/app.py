"""Webhooks: which provider signs how, which message, which function."""

import ssl
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from services.webhooks import handlers, routes
from services.webhooks.domain import configured_accounts
from services.webhooks.handlers import Webhooks, delivering, processing
from services.webhooks.handlers.context import check_accounts, checking
from services.webhooks.handlers.posting import Messenger
from services.webhooks.handlers.signing_secrets import RESEAL_EVERY_SECONDS
from services.webhooks.providers import Scheme
from services.webhooks.providers.adyen import ADYEN_PLATFORM, Adyen
from services.webhooks.providers.braintree import BRAINTREE
from services.webhooks.providers.paypal import Fetch, PayPal
from services.webhooks.providers.plain import CHECKOUT_COM, EASYPOST, MOLLIE, SQUARE
from services.webhooks.providers.shippo import SHIPPO
from services.webhooks.providers.standard import STANDARD
from services.webhooks.providers.stripe import STRIPE
from services.webhooks.settings import Settings
from services.webhooks.store import events as event_rows
from services.webhooks.store import happenings as happening_rows
from shared import credentials, happenings
from shared.contracts import credentials as contract
from shared.contracts import timeline
from shared.contracts import webhooks as messages
from shared.contracts.credentials import Use
from shared.contracts.payments import IntentChanged
from shared.credentials import Wallet
from shared.errors import Unavailable
from shared.health import Check
from shared.messages import Message, Query
from shared.migrations import Owned
from shared.outbound import OutboundCallFailed, OutboundClient, OutboundFailure, OutboundUrl
from shared.replies import Replies
from shared.schedule import Job
from shared.service import Service
from shared.work import Desk
from shared.worker import CommandHandler, FailureHandler, QueryHandler, RetrySchedules, Together

OWNED = Owned(name="webhooks", files=Path(__file__).parent / "schema", also=("credentials",))
TOLD = contract.TOLD["webhooks"]
# Without the broker webhooks are stored all the same, and worked on once it is back.
ONLY_SHOWN = frozenset({"broker", "replies"})
CERTIFICATE_TIMEOUT_SECONDS = 5.0
CERTIFICATE_MAX_BYTES = 64 * 1024
OK = 200
# What a server answers that would answer otherwise later.
NOT_NOW = frozenset({408, 425, 429, *range(500, 600)})

COMMANDS: dict[type[Message], CommandHandler[Webhooks]] = {
    messages.Process: handlers.process,
    messages.Replay: handlers.replay,
    messages.ReplayMany: handlers.replay_many,
    messages.PutEndpoint: handlers.put_endpoint,
    messages.DeleteEndpoint: handlers.delete_endpoint,
    messages.RotateSecret: handlers.rotate_secret,
    messages.Redeliver: handlers.redeliver,
    messages.RecoverDeliveries: handlers.recover_deliveries,
    IntentChanged: handlers.tell_of_payment,
    TOLD.put: credentials.put,
    TOLD.retire: credentials.retire,
    TOLD.verify: credentials.verify,
}
FAILED: dict[type[Message], FailureHandler[Webhooks]] = {messages.Process: handlers.process_failed}
QUERIES: dict[type[Query], QueryHandler[Webhooks]] = {
    messages.ListEvents: handlers.list_events,
    messages.GetEvent: handlers.get_event,
    messages.ListEndpoints: handlers.list_endpoints,
    messages.GetSecrets: handlers.get_secrets,
    messages.ListDeliveries: handlers.list_deliveries,
    messages.CatchUp: handlers.catch_up,
    timeline.WebhooksListHappenings: happenings.answering(happening_rows.SQL),
    TOLD.list: credentials.listed,
}


def schemes(*, fetch: Fetch, authorities: Sequence[x509.Certificate]) -> Mapping[str, Scheme]:
    """Name every provider whose signatures can be verified."""
    return {
        "sandbox": STANDARD,
        "sandbox-carrier": STANDARD,
        "standard": STANDARD,
        "svix": STANDARD,
        "stripe": STRIPE,
        "adyen": Adyen(),
        "adyen-platform": ADYEN_PLATFORM,
        "paypal": PayPal(fetch=fetch, authorities=authorities),
        "braintree": BRAINTREE,
        "mollie": MOLLIE,
        "square": SQUARE,
        "checkout-com": CHECKOUT_COM,
        "easypost": EASYPOST,
        "shippo": SHIPPO,
    }


def build(settings: Settings) -> Service[Webhooks]:
    """Put webhooks together."""
    return Service(
        name=OWNED.name,
        settings=settings,
        owned=OWNED,
        context=lambda desk: _context(desk, settings),
        handlers=COMMANDS,
        queries=QUERIES,
        failed=FAILED,
        discarded=event_rows.discarded,
        jobs=partial(_jobs, settings),
        http=routes.api,
        checks=_checks,
        only_shown=ONLY_SHOWN,
        together={IntentChanged: Together(handler=handlers.tell_of_payments, about=lambda event: event.intent.order_id)},
        schedules=RetrySchedules(silent=tuple(settings.retry_tiers_silent.split(",")), bug=tuple(settings.retry_tiers_bug.split(","))),
    )


@asynccontextmanager
async def _context(desk: Desk, settings: Settings) -> AsyncIterator[Webhooks]:
    accounts = configured_accounts(settings.webhook_accounts)
    paypal = any(account.provider == "paypal" for account in accounts)
    known = schemes(fetch=fetch, authorities=_authorities(settings.paypal_authorities_file) if paypal else ())
    check_accounts(accounts, known)
    wallet = Wallet(desk.pool, settings.key_source, [Use.WEBHOOKS], checking(known))
    await wallet.refresh()
    desk.seal = wallet
    messenger = Messenger(allow_private=settings.allow_private_endpoints, timeout_seconds=settings.delivery_timeout_seconds)
    async with Replies(settings.amqp_url, desk.publisher, name=OWNED.name) as replies:
        context = Webhooks(
            desk=desk, settings=settings, replies=replies, wallet=wallet, accounts=accounts, schemes=known, messenger=messenger
        )
        try:
            yield context
        finally:
            await context.deliveries_out.close()
            await messenger.close()


def _authorities(file: str) -> list[x509.Certificate]:
    if file:
        return x509.load_pem_x509_certificates(Path(file).read_bytes())
    trusted = ssl.create_default_context()
    with warnings.catch_warnings():
        # Some authority that a system trusts may have a certificate that breaks a rule; PayPal's is not among them.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return [x509.load_der_x509_certificate(each) for each in trusted.get_ca_certs(binary_form=True)]


async def fetch(url: OutboundUrl) -> bytes:
    """Fetch a certificate from a provider's host; nothing where there is none of a certificate's size, raises Unavailable."""
    try:
        async with OutboundClient(timeout_seconds=CERTIFICATE_TIMEOUT_SECONDS) as client:
            status, body = await client.get(url, bytes_max=CERTIFICATE_MAX_BYTES)
    except OutboundCallFailed as failed:
        if failed.failure is OutboundFailure.ANSWER_TOO_LARGE:
            return b""
        raise Unavailable(f"PayPal's certificate: {failed.failure.value}") from failed
    if status in NOT_NOW:
        raise Unavailable(f"PayPal's certificate: status {status}")
    return body if status == OK else b""


def _jobs(settings: Settings, context: Webhooks) -> Sequence[Job]:
    deliveries = Job("deliveries", lambda: delivering.deliver_due(context), every_seconds=settings.deliver_every_seconds)
    context.wake_deliveries = deliveries.wake
    return [
        deliveries,
        Job("failing endpoints", lambda: delivering.disable_failing(context), every_seconds=settings.measure_every_seconds),
        Job("matching", lambda: processing.match_waiting(context), every_seconds=settings.match_every_seconds),
        Job("measuring", lambda: processing.measure(context), every_seconds=settings.measure_every_seconds),
        *credentials.jobs(context.wallet),
        Job("sealing endpoints", context.signing_secrets.reseal, every_seconds=RESEAL_EVERY_SECONDS),
        Job("cleaning", lambda: processing.clean(context), every_seconds=settings.clean_every_seconds),
    ]


def _checks(context: Webhooks) -> dict[str, Check]:
    async def replies() -> str | None:
        return context.replies.trouble

    return {"replies": replies}
