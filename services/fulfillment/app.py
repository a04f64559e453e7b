"""Fulfillment: which message, which function, which carrier and tax engine."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from services.fulfillment.handlers import (
    comparing,
    configuring,
    deciding,
    exporting,
    filing,
    finalizing,
    labels,
    listening,
    pricing,
    resolving,
    tracking,
    voiding,
)
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.providers import Carrier, TaxEngine
from services.fulfillment.providers.avalara import Avalara
from services.fulfillment.providers.built_in import BuiltIn
from services.fulfillment.providers.easypost import EasyPost
from services.fulfillment.providers.sandbox import SandboxCarrier
from services.fulfillment.providers.shippo import Shippo
from services.fulfillment.providers.table_rate import TableRate
from services.fulfillment.providers.taxjar import TaxJar
from services.fulfillment.settings import Settings
from services.fulfillment.store import happenings as happening_rows
from services.fulfillment.store import labels as label_rows
from shared import audit, credentials, happenings
from shared.contracts import books, calls, timeline
from shared.contracts import credentials as contract
from shared.contracts.credentials import Use
from shared.contracts.fulfillment import pricing as pricing_messages
from shared.contracts.fulfillment import shipping as shipping_messages
from shared.contracts.fulfillment import tax as tax_messages
from shared.contracts.payments import IntentChanged
from shared.credentials import Adapters, Credential, Wallet
from shared.database import connected
from shared.messages import Environment, Message, Query
from shared.migrations import Owned
from shared.schedule import Job
from shared.service import Service
from shared.work import Desk
from shared.worker import CommandHandler, QueryHandler, RetrySchedules, Together

# A test key begins with EZTK (docs.easypost.com/docs/authentication).
EASYPOST_PRODUCTION_KEYS = "EZAK"
SHIPPO_LIVE_KEYS = "shippo_live_"
OWNED = Owned(name="fulfillment", files=Path(__file__).parent / "schema", also=("credentials",))
TOLD = contract.TOLD["fulfillment"]

COMMANDS: dict[type[Message], CommandHandler[Fulfillment]] = {
    pricing_messages.PutSettings: configuring.put_settings,
    tax_messages.PutRule: configuring.put_rule,
    tax_messages.DeleteRule: configuring.delete_rule,
    tax_messages.PutNexus: configuring.put_nexus,
    tax_messages.DeleteNexus: configuring.delete_nexus,
    tax_messages.PutExemption: configuring.put_exemption,
    tax_messages.DeleteExemption: configuring.delete_exemption,
    tax_messages.FinalizeTax: finalizing.finalize_tax,
    shipping_messages.BuyLabel: labels.buy_label,
    shipping_messages.VoidLabel: voiding.void_label,
    shipping_messages.TakeEvent: listening.take_event,
    IntentChanged: finalizing.payment_changed,
    shipping_messages.DecideLabel: deciding.decide_label,
    books.FulfillmentHeal: comparing.heal,
    TOLD.put: credentials.put,
    TOLD.retire: credentials.retire,
    TOLD.verify: credentials.verify,
}
QUERIES: dict[type[Query], QueryHandler[Fulfillment]] = {
    pricing_messages.Price: pricing.price,
    pricing_messages.QuoteRates: pricing.quote_rates,
    pricing_messages.GetSettings: configuring.get_settings,
    tax_messages.ListRules: configuring.list_rules,
    tax_messages.ListNexus: configuring.list_nexus,
    tax_messages.ListExemptions: configuring.list_exemptions,
    tax_messages.GetTax: finalizing.get_tax,
    tax_messages.ExportPage: exporting.export_page,
    tax_messages.ExportDone: exporting.export_done,
    tax_messages.ListExports: exporting.list_exports,
    shipping_messages.GetDocument: labels.get_document,
    shipping_messages.GetTracking: tracking.get_tracking,
    shipping_messages.ListShipments: tracking.list_shipments,
    shipping_messages.ListUnknownLabels: deciding.list_unknown,
    books.FulfillmentListBooks: comparing.list_books,
    books.FulfillmentListTheirs: comparing.list_theirs,
    books.FulfillmentListOurs: comparing.list_ours,
    books.FulfillmentLookAt: comparing.look_at,
    calls.FulfillmentListCalls: audit.list_calls,
    timeline.FulfillmentListHappenings: happenings.answering(happening_rows.SQL),
    TOLD.list: credentials.listed,
}


def build(settings: Settings) -> Service[Fulfillment]:
    """Put fulfillment together."""
    return Service(
        name=OWNED.name,
        settings=settings,
        owned=OWNED,
        context=lambda desk: _context(desk, settings),
        handlers=COMMANDS,
        queries=QUERIES,
        jobs=partial(_jobs, settings),
        schedules=RetrySchedules(bug=tuple(settings.retry_tiers_bug.split(","))),
        may_have_left=label_rows.may_have_left,
        failures_answered=(shipping_messages.TakeEvent, books.FulfillmentHeal),
        together={IntentChanged: Together(handler=finalizing.payments_changed, about=lambda event: event.intent.order_id)},
    )


@asynccontextmanager
async def _context(desk: Desk, settings: Settings) -> AsyncIterator[Fulfillment]:
    wallet = Wallet(desk.pool, settings.key_source, [Use.SHIPPING, Use.TAX])
    await wallet.refresh()
    desk.seal = wallet
    carriers: Adapters[Carrier] = Adapters(wallet, Use.SHIPPING, installed=_carriers(settings), make=partial(_carrier, settings))
    engines: Adapters[TaxEngine] = Adapters(wallet, Use.TAX, installed=_engines(settings), make=partial(_engine, settings))
    try:
        yield Fulfillment(desk=desk, settings=settings, wallet=wallet, carriers=carriers, engines=engines)
    finally:
        await carriers.close()
        await engines.close()


def _carriers(settings: Settings) -> dict[tuple[Environment, str], Carrier]:
    """Make the installation's carriers, by the environment that each key serves."""
    carriers: dict[tuple[Environment, str], Carrier] = {(environment, TableRate.name): TableRate() for environment in Environment}
    timeout_seconds, label_hosts = settings.provider_timeout_seconds, settings.label_hosts.split(",")
    if settings.sandbox_url:
        carriers[Environment.SANDBOX, SandboxCarrier.name] = SandboxCarrier(
            base_url=settings.sandbox_url, api_key=settings.sandbox_api_key, timeout_seconds=timeout_seconds
        )
    if settings.easypost_api_key:
        live = settings.easypost_api_key.startswith(EASYPOST_PRODUCTION_KEYS)
        carriers[Environment.PRODUCTION if live else Environment.SANDBOX, EasyPost.name] = EasyPost(
            base_url=settings.easypost_url, api_key=settings.easypost_api_key, timeout_seconds=timeout_seconds, label_hosts=label_hosts
        )
    if settings.shippo_api_key:
        live = settings.shippo_api_key.startswith(SHIPPO_LIVE_KEYS)
        carriers[Environment.PRODUCTION if live else Environment.SANDBOX, Shippo.name] = Shippo(
            base_url=settings.shippo_url, api_key=settings.shippo_api_key, timeout_seconds=timeout_seconds, label_hosts=label_hosts
        )
    return carriers


def _carrier(settings: Settings, credential: Credential) -> Carrier | None:
    """Make the carrier of a store's own account."""
    key, timeout_seconds = credential.fields["api_key"], settings.provider_timeout_seconds
    label_hosts = settings.label_hosts.split(",")
    match credential.provider:
        case SandboxCarrier.name:
            return SandboxCarrier(base_url=settings.sandbox_url, api_key=key, timeout_seconds=timeout_seconds)
        case EasyPost.name:
            return EasyPost(base_url=settings.easypost_url, api_key=key, timeout_seconds=timeout_seconds, label_hosts=label_hosts)
        case Shippo.name:
            return Shippo(base_url=settings.shippo_url, api_key=key, timeout_seconds=timeout_seconds, label_hosts=label_hosts)
        case _:
            return None


def _engines(settings: Settings) -> dict[tuple[Environment, str], TaxEngine]:
    """Make the installation's tax engines."""
    engines: dict[tuple[Environment, str], TaxEngine] = {(environment, BuiltIn.name): BuiltIn() for environment in Environment}
    if settings.taxjar_api_key:
        engines[settings.taxjar_environment, TaxJar.name] = TaxJar(
            base_url=settings.taxjar_url, api_key=settings.taxjar_api_key, timeout_seconds=settings.tax_timeout_seconds
        )
    if settings.avalara_license_key:
        engines[settings.avalara_environment, Avalara.name] = Avalara(
            base_url=settings.avalara_url,
            account_id=settings.avalara_account_id,
            license_key=settings.avalara_license_key,
            company_code=settings.avalara_company_code,
            timeout_seconds=settings.tax_timeout_seconds,
        )
    return engines


def _engine(settings: Settings, credential: Credential) -> TaxEngine | None:
    """Make the tax engine of a store's own account."""
    fields, timeout_seconds = credential.fields, settings.tax_timeout_seconds
    match credential.provider:
        case TaxJar.name:
            return TaxJar(base_url=settings.taxjar_url, api_key=fields["api_key"], timeout_seconds=timeout_seconds)
        case Avalara.name:
            return Avalara(
                base_url=settings.avalara_url,
                account_id=fields["account_id"],
                license_key=fields["license_key"],
                company_code=fields.get("company_code", settings.avalara_company_code),
                timeout_seconds=timeout_seconds,
            )
        case _:
            return None


def _jobs(settings: Settings, context: Fulfillment) -> Sequence[Job]:
    async def partitions() -> None:
        async with connected(context.desk.pool) as db:
            await audit.keep_partitions(db)

    resolver = Job("label resolver", lambda: resolving.resolve_due(context), every_seconds=settings.resolve_every_seconds)
    context.wake_resolver = resolver.wake
    return [
        resolver,
        Job("tax filings", lambda: filing.file_due(context), every_seconds=settings.file_every_seconds),
        Job("parcels", lambda: tracking.look_for_due(context), every_seconds=settings.look_every_seconds),
        Job("old quotes", lambda: pricing.forget_old(context), every_seconds=settings.housekeeping_every_seconds),
        *credentials.jobs(context.wallet),
        Job("audit partitions", partitions, every_seconds=audit.KEEP_EVERY_SECONDS),
    ]
