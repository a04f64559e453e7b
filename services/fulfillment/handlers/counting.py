"""Counting sales towards thresholds from which on tax must be collected, and saying so at 80 % and at 100 %."""

import logging
from datetime import date
from uuid import UUID

from services.fulfillment.domain.tax.thresholds import Period, State, Threshold, percent, spans, state
from services.fulfillment.domain.territories import EU_GOODS
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.store import registrations
from shared import telemetry
from shared.contracts.fulfillment.tax import NexusBody, ThresholdReached, ThresholdView
from shared.database import Connection, connected
from shared.errors import Contended
from shared.work import Work

logger = logging.getLogger(__name__)


async def progress(db: Connection, store_id: UUID, environment: str, nexus: NexusBody, *, today: date) -> ThresholdView | None:
    """Say how near sales are to a threshold; of several spans the one with the most counts."""
    if nexus.threshold_amount is None and nexus.threshold_count is None:
        return None
    threshold = Threshold(amount=nexus.threshold_amount, count=nexus.threshold_count, both=nexus.threshold_both)
    countries = sorted(EU_GOODS - {nexus.country}) if nexus.oss else [nexus.country]
    found: list[ThresholdView] = []
    for first, last in spans(today, Period(nexus.threshold_period)):
        sold = await registrations.sold_between(
            db, store_id, environment, countries=countries, region=nexus.region, currency=nexus.threshold_currency, first=first, last=last
        )
        part = percent(threshold, amount=sold.amount, count=sold.count)
        found.append(ThresholdView(since=first, amount=sold.amount, count=sold.count, percent=part, state=state(part).value))
    return max(found, key=lambda view: view.percent)


async def warn(work: Work, context: Fulfillment) -> None:
    """Say which thresholds sales have come near to or reached, each once."""
    envelope, where = work.envelope, (work.envelope.store_id, work.envelope.environment.value)
    async with connected(context.desk.pool) as db:
        known = [each for each in await registrations.nexus_of(db, *where) if not each.nexus.registered]
        today = (await context.standing(db, envelope)).now.date() if known else date.min
        views = [(each, await progress(db, *where, each.nexus, today=today)) for each in known]
    for each, view in views:
        if view is None or view.state == State.BELOW.value:
            continue
        said = f"{view.state} {view.since}"
        if each.warned in (said, f"{State.REACHED.value} {view.since}"):
            continue
        batch = work.batch()
        batch.add(registrations.warned(each.id, before=each.warned, state=said))
        batch.tell([ThresholdReached(nexus_id=each.id, state=view.state, threshold=view)])
        try:
            await batch.commit()
        except Contended:
            continue  # Somebody else has just said it.
        facts = {"country": each.nexus.country or "EU", "region": each.nexus.region, "percent": view.percent}
        telemetry.say(logger, logging.WARNING, "sales are near a threshold for collecting tax", facts)
