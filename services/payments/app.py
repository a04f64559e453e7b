"""Payments: which message, which function, which provider."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from services.payments import handlers
from services.payments.handlers import Payments, acceptance, comparing, deciding, housekeeping, listing, resolving, settling
from services.payments.providers import PaymentProvider
from services.payments.providers.fulfillment import FulfillmentPricing
from services.payments.providers.sandbox import SandboxPayments
from services.payments.providers.stripe.client import StripePayments
from services.payments.settings import Settings
from services.payments.store import happenings as happening_rows
from services.payments.store import questions
from shared import audit, credentials, happenings
from shared.contracts import books, calls, timeline
from shared.contracts import credentials as contract
from shared.contracts import payments as messages
from shared.contracts.credentials import Use
from shared.contracts.settlements import ListUnsettled, TakeSettlements
from shared.credentials import Adapters, Credential, Wallet
from shared.messages import Environment, Message, Query
from shared.migrations import Owned
from shared.replies import Replies
from shared.schedule import Job
from shared.sealing import Sealing
from shared.service import Service
from shared.work import Desk
from shared.worker import CommandHandler, QueryHandler, RetrySchedules

OWNED = Owned(name="payments", files=Path(__file__).parent / "schema", also=("credentials",))
TOLD = contract.TOLD["payments"]
LIVE_STRIPE_KEYS = ("sk_live_", "rk_live_")

COMMANDS: dict[type[Message], CommandHandler[Payments]] = {
    messages.PutOrder: handlers.put_order,
    messages.Quote: handlers.quote,
    messages.ShopRates: handlers.shop_rates,
    messages.Authorize: handlers.authorize,
    messages.Confirm: handlers.confirm,
    messages.Capture: handlers.capture,
    messages.Void: handlers.void,
    messages.Refund: handlers.refund,
    messages.AcceptFacts: acceptance.accept_facts,
    messages.Observe: handlers.observe,
    messages.TakeEvent: handlers.take_event,
    messages.DecideOutcome: deciding.decide_outcome,
    TakeSettlements: settling.take_settlements,
    books.PaymentsHeal: comparing.heal,
    TOLD.put: credentials.put,
    TOLD.retire: credentials.retire,
    TOLD.verify: credentials.verify,
}
QUERIES: dict[type[Query], QueryHandler[Payments]] = {
    messages.GetOrder: handlers.get_order,
    messages.ListOrders: handlers.list_orders,
    messages.GetPayments: handlers.get_payments,
    messages.FindOrders: listing.find_orders,
    messages.ListAttention: listing.list_attention,
    messages.ListUnknown: deciding.list_unknown,
    ListUnsettled: settling.list_unsettled,
    books.PaymentsListBooks: comparing.list_books,
    books.PaymentsListTheirs: comparing.list_theirs,
    books.PaymentsListOurs: comparing.list_ours,
    books.PaymentsLookAt: comparing.look_at,
    calls.PaymentsListCalls: audit.list_calls,
    timeline.PaymentsListHappenings: happenings.answering(happening_rows.SQL),
    TOLD.list: credentials.listed,
}


def build(settings: Settings) -> Service[Payments]:
    """Put payments together."""
    return Service(
        name=OWNED.name,
        settings=settings,
        owned=OWNED,
        context=lambda desk: _context(desk, settings),
        handlers=COMMANDS,
        queries=QUERIES,
        jobs=partial(_jobs, settings),
        schedules=RetrySchedules(bug=tuple(settings.retry_tiers_bug.split(","))),
        may_have_left=questions.may_have_left,
        failures_answered=(messages.TakeEvent, TakeSettlements, books.PaymentsHeal),
        looking=(messages.Authorize, messages.Confirm, messages.Capture, messages.Void, messages.Refund),
    )


@asynccontextmanager
async def _context(desk: Desk, settings: Settings) -> AsyncIterator[Payments]:
    wallet = Wallet(desk.pool, settings.key_source, [Use.PAYMENTS])
    await wallet.refresh()
    desk.seal = wallet
    providers = Adapters(wallet, Use.PAYMENTS, installed=_installed(settings), make=partial(_made, settings))
    async with Replies(settings.amqp_url, desk.publisher, name=OWNED.name) as replies:
        pricing = FulfillmentPricing(replies, Sealing(settings.public_key_source), timeout_seconds=settings.pricing_timeout_seconds)
        try:
            yield Payments(desk=desk, settings=settings, wallet=wallet, providers=providers, pricing=pricing)
        finally:
            await providers.close()


def _installed(settings: Settings) -> dict[tuple[Environment, str], PaymentProvider]:
    providers: dict[tuple[Environment, str], PaymentProvider] = {}
    if settings.sandbox_url:
        sandbox = SandboxPayments(
            base_url=settings.sandbox_url, api_key=settings.sandbox_api_key, timeout_seconds=settings.provider_timeout_seconds
        )
        providers[Environment.SANDBOX, sandbox.name] = sandbox
    if settings.stripe_api_key:
        stripe = StripePayments(
            base_url=settings.stripe_url,
            api_key=settings.stripe_api_key,
            publishable_key=settings.stripe_publishable_key,
            multicapture=settings.stripe_multicapture,
            timeout_seconds=settings.provider_timeout_seconds,
        )
        live = settings.stripe_api_key.startswith(LIVE_STRIPE_KEYS)
        providers[Environment.PRODUCTION if live else Environment.SANDBOX, stripe.name] = stripe
    return providers


def _made(settings: Settings, credential: Credential) -> PaymentProvider | None:
    """Make the adapter of a store's own account."""
    fields, timeout_seconds = credential.fields, settings.provider_timeout_seconds
    if credential.provider == SandboxPayments.name:
        return SandboxPayments(
            base_url=settings.sandbox_url, api_key=fields["api_key"], timeout_seconds=timeout_seconds, account=credential.account
        )
    if credential.provider == StripePayments.name:
        return StripePayments(
            base_url=settings.stripe_url,
            api_key=fields["api_key"],
            publishable_key=fields.get("publishable_key", ""),
            multicapture=fields.get("multicapture") == "true",
            timeout_seconds=timeout_seconds,
            account=credential.account,
        )
    return None


def _jobs(settings: Settings, context: Payments) -> Sequence[Job]:
    resolver = Job("resolver", lambda: resolving.resolve_due(context), every_seconds=settings.resolve_every_seconds)
    context.wake_resolver = resolver.wake
    every = settings.housekeeping_every_seconds
    return [
        resolver,
        Job("submitted payments", lambda: housekeeping.capture_submitted(context), every_seconds=settings.resolve_every_seconds),
        Job("abandoned payments", lambda: housekeeping.abandon_old(context), every_seconds=every),
        Job("money to give back", lambda: housekeeping.give_back(context), every_seconds=every),
        *credentials.jobs(context.wallet),
        Job("audit partitions", lambda: housekeeping.keep_audit_partitions(context), every_seconds=audit.KEEP_EVERY_SECONDS),
    ]
