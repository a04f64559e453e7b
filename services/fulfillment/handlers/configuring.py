"""What a store decides: its settings, tax rules, registrations and certificates."""

import re

import msgspec

from services.fulfillment.domain.postal import pattern_fault
from services.fulfillment.domain.tax import importing
from services.fulfillment.domain.tax.rules import Rule
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.handlers.counting import progress
from services.fulfillment.providers.built_in import BuiltIn
from services.fulfillment.store import registrations
from services.fulfillment.store import rules as rule_rows
from services.fulfillment.store import settings as settings_rows
from shared.contracts.fulfillment.pricing import GetSettings, PutSettings, SettingsView, TableBody
from shared.contracts.fulfillment.tax import (
    PAGE_ROWS_MAX,
    DeleteExemption,
    DeleteNexus,
    DeleteRule,
    ExemptionPage,
    ExemptionView,
    GoneView,
    ListExemptions,
    ListNexus,
    ListRules,
    NexusBody,
    NexusesView,
    NexusView,
    PutExemption,
    PutNexus,
    PutRule,
    RuleBody,
    RulePage,
)
from shared.database import connected
from shared.errors import Invalid, NotFound
from shared.messages import Envelope, done
from shared.regions import current, exists, regions_of
from shared.work import Work

# Implementing Regulation (EU) 2020/194, Annex: the individual identification number of the import scheme.
IOSS_NUMBER = re.compile(r"IM\d{10}")

# Settings


async def put_settings(work: Work, command: PutSettings, context: Fulfillment) -> None:
    """Set where a store sells from and how."""
    settings, envelope = command.settings, work.envelope
    for name in settings.carriers:
        context.carrier(envelope, name)
    context.engine(envelope, settings.tax_provider)
    if settings.fixed_price == "net" and settings.tax_provider != BuiltIn.name:
        raise Invalid("Net prices are fixed by the store's own rules; the tax provider must be built_in.", {"field": "$.fixed_price"})
    if settings.table is not None:
        settings = msgspec.structs.replace(settings, table=_checked(settings.table))
    if settings.customs is not None and settings.customs.itn is not None:
        raise Invalid("An ITN is of one export: give it with the order or the label.", {"field": "$.customs.itn"})
    async with connected(context.desk.pool) as db:
        before = await context.standing(db, envelope)
    revision = before.revision + 1
    batch = work.batch()
    batch.add(settings_rows.kept(envelope, settings))
    batch.audit("fulfillment_settings.put", str(envelope.store_id), before=before.settings, after=settings)
    batch.conclude(done(SettingsView(settings=settings, revision=revision, updated_at=before.now)))
    await batch.commit()


def _checked(table: TableBody) -> TableBody:
    """Refuse zones that no address could lie in, and tariffs without a zone."""
    if strange := sorted({tariff.zone for tariff in table.tariffs} - {zone.name for zone in table.zones}):
        raise Invalid(f"There are tariffs for zones that do not exist: {', '.join(strange)}.", {"field": "$.table.tariffs"})
    for n, zone in enumerate(table.zones):
        for pattern in zone.postal_codes:
            if fault := pattern_fault(zone.country, pattern):
                raise Invalid(f"The postal code {pattern!r} {fault}.", {"field": f"$.table.zones[{n}].postal_codes"})
    named = [
        msgspec.structs.replace(zone, region=_region(zone.country, zone.region, field=f"$.table.zones[{n}].region"))
        for n, zone in enumerate(table.zones)
    ]
    return msgspec.structs.replace(table, zones=named)


def _region(country: str, region: str, *, field: str) -> str:
    """Give a region's present code; refuses one that its country does not have."""
    known = current(region)
    if known and (not known.startswith(f"{country}-") or (regions_of(country) and not exists(known))):
        raise Invalid(f"{region} is no region of {country} (ISO 3166-2).", {"field": field})
    return known


async def get_settings(envelope: Envelope, query: GetSettings, context: Fulfillment) -> SettingsView:
    """Read a store's settings."""
    async with connected(context.desk.pool) as db:
        found = settings_rows.view(await context.standing(db, envelope))
    if found is None:
        raise NotFound("The store has no settings for shipping and tax yet.")
    return found


# Rules


async def put_rule(work: Work, command: PutRule, context: Fulfillment) -> None:
    """Add a tax rule, or replace one; a changed rule is a new version, and what the old one led to keeps its own."""
    envelope, where = work.envelope, (work.envelope.store_id, work.envelope.environment.value)
    rule = _rule(command.rule)
    async with connected(context.desk.pool) as db:
        known = await rule_rows.in_use(db, *where)
        now = (await context.standing(db, envelope)).now
    before = next((each for each in known if each.id == command.rule_id), None)
    if command.change and before is None:
        raise NotFound(f"There is no tax rule {command.rule_id}.")
    others = [each.rule for each in known if each.id != command.rule_id and each.rule.country == rule.country]
    importing.refuse_overlap(rule, others)
    batch = work.batch()
    if before is None or before.rule != rule:
        if before is not None:
            batch.add(rule_rows.removed(*where, [before.id], must=True))
        batch.add(rule_rows.added(*where, rule, rule_id=command.rule_id), settings_rows.changed(*where))
    batch.audit("tax_rule.put", str(command.rule_id), before=None if before is None else rule_rows.view(before), after=command.rule)
    created = now if before is None else before.created_at
    batch.conclude(done(rule_rows.view(rule_rows.Kept(id=command.rule_id, rule=rule, created_at=created))))
    await batch.commit()


def _rule(body: RuleBody) -> Rule:
    return importing.one({name: value for name, value in msgspec.to_builtins(body).items() if value is not None})


async def delete_rule(work: Work, command: DeleteRule, context: Fulfillment) -> None:
    """Take a tax rule out of use."""
    where = (work.envelope.store_id, work.envelope.environment.value)
    async with connected(context.desk.pool) as db:
        before = await rule_rows.one(db, work.envelope, command.rule_id)
    if before is None:
        raise NotFound(f"There is no tax rule {command.rule_id}.")
    batch = work.batch()
    batch.audit("tax_rule.delete", str(command.rule_id), before=rule_rows.view(before))
    batch.add(rule_rows.removed(*where, [command.rule_id]), settings_rows.changed(*where))
    batch.conclude(done(GoneView(id=command.rule_id)))
    await batch.commit()


async def list_rules(envelope: Envelope, query: ListRules, context: Fulfillment) -> RulePage:
    """Read a page of tax rules."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        found = await rule_rows.page(
            db, envelope, country=query.country, tax_code=query.tax_code, on=query.on, after=query.after, limit=limit + 1
        )
    page = found[:limit]
    return RulePage(rules=[rule_rows.view(each) for each in page], next=page[-1].id if len(found) > limit else None)


# Registrations


async def put_nexus(work: Work, command: PutNexus, context: Fulfillment) -> None:
    """Say where a store collects tax, or watch where it may have to."""
    nexus, envelope = command.nexus, work.envelope
    _check_nexus(nexus)
    nexus = msgspec.structs.replace(nexus, region=_region(nexus.country, nexus.region, field="$.region"))
    async with connected(context.desk.pool) as db:
        known = await registrations.nexus_of(db, envelope.store_id, envelope.environment.value)
        now = (await context.standing(db, envelope)).now
    before = next((each for each in known if each.id == command.nexus_id), None)
    if command.change and before is None:
        raise NotFound(f"There is no registration {command.nexus_id}.")
    batch = work.batch()
    batch.add(
        registrations.nexus_kept(envelope, command.nexus_id, nexus), settings_rows.changed(envelope.store_id, envelope.environment.value)
    )
    batch.audit("nexus.put", str(command.nexus_id), before=None if before is None else before.nexus, after=nexus)
    created = now if before is None else before.created_at
    batch.conclude(done(NexusView(id=command.nexus_id, nexus=nexus, threshold=None, created_at=created)))
    await batch.commit()


def _check_nexus(nexus: NexusBody) -> None:
    if [bool(nexus.country), nexus.oss, nexus.ioss].count(True) != 1:
        raise Invalid("Name a country, or oss or ioss for the whole EU, and one of them alone.", {"field": "$.country"})
    if nexus.importer and not nexus.country:
        raise Invalid("An importer is registered in a country.", {"field": "$.importer"})
    if nexus.ioss and nexus.registration_number and not IOSS_NUMBER.fullmatch(nexus.registration_number):
        raise Invalid("An IOSS number is IM and ten digits.", {"field": "$.registration_number"})
    if (nexus.threshold_amount is None) != (nexus.threshold_currency is None):
        raise Invalid("A threshold's amount needs its currency, and the other way round.", {"field": "$.threshold_currency"})
    if nexus.valid_to is not None and nexus.valid_to < nexus.valid_from:
        raise Invalid("It ends before it begins.", {"field": "$.valid_to"})


async def delete_nexus(work: Work, command: DeleteNexus, context: Fulfillment) -> None:
    """Take a registration or a watch back."""
    envelope = work.envelope
    async with connected(context.desk.pool) as db:
        known = await registrations.nexus_of(db, envelope.store_id, envelope.environment.value)
    before = next((each for each in known if each.id == command.nexus_id), None)
    if before is None:
        raise NotFound(f"There is no registration {command.nexus_id}.")
    batch = work.batch()
    batch.audit("nexus.delete", str(command.nexus_id), before=before.nexus)
    batch.add(registrations.nexus_removed(envelope, command.nexus_id), settings_rows.changed(envelope.store_id, envelope.environment.value))
    batch.conclude(done(GoneView(id=command.nexus_id)))
    await batch.commit()


async def list_nexus(envelope: Envelope, query: ListNexus, context: Fulfillment) -> NexusesView:
    """Read where a store collects tax, and how near it is to where it must."""
    where = (envelope.store_id, envelope.environment.value)
    async with connected(context.desk.pool) as db:
        today = (await context.standing(db, envelope)).now.date()
        known = await registrations.nexus_of(db, *where)
        shown = [
            NexusView(
                id=each.id, nexus=each.nexus, threshold=await progress(db, *where, each.nexus, today=today), created_at=each.created_at
            )
            for each in known
        ]
    return NexusesView(nexus=shown)


# Certificates


async def put_exemption(work: Work, command: PutExemption, context: Fulfillment) -> None:
    """Keep a customer's certificate."""
    body = command.exemption
    if body.valid_to is not None and body.valid_to < body.valid_from:
        raise Invalid("It ends before it begins.", {"field": "$.valid_to"})
    body = msgspec.structs.replace(body, region=_region(body.country, body.region, field="$.region"))
    async with connected(context.desk.pool) as db:
        before = await registrations.exemption(db, work.envelope, command.exemption_id)
        now = (await context.standing(db, work.envelope)).now
    if command.change and before is None:
        raise NotFound(f"There is no certificate {command.exemption_id}.")
    batch = work.batch()
    batch.add(registrations.exemption_kept(work.envelope, command.exemption_id, body))
    batch.audit("exemption.put", str(command.exemption_id), before=None if before is None else before.exemption, after=body)
    created = now if before is None else before.created_at
    batch.conclude(done(ExemptionView(id=command.exemption_id, exemption=body, created_at=created)))
    await batch.commit()


async def delete_exemption(work: Work, command: DeleteExemption, context: Fulfillment) -> None:
    """Take a certificate out of use."""
    async with connected(context.desk.pool) as db:
        before = await registrations.exemption(db, work.envelope, command.exemption_id)
    if before is None:
        raise NotFound(f"There is no certificate {command.exemption_id}.")
    batch = work.batch()
    batch.audit("exemption.delete", str(command.exemption_id), before=before.exemption)
    batch.add(registrations.exemption_removed(work.envelope, command.exemption_id))
    batch.conclude(done(GoneView(id=command.exemption_id)))
    await batch.commit()


async def list_exemptions(envelope: Envelope, query: ListExemptions, context: Fulfillment) -> ExemptionPage:
    """Read certificates, a customer's or all."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        found = await registrations.exemptions_page(db, envelope, customer_id=query.customer_id, after=query.after, limit=limit + 1)
    page = found[:limit]
    return ExemptionPage(exemptions=page, next=page[-1].id if len(found) > limit else None)
