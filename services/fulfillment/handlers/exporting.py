"""Exports of recorded tax, piece by piece: the same period comes out the same, byte for byte, once it is over."""

import base64
import logging

import msgspec

from services.fulfillment.domain.tax import exports as rules
from services.fulfillment.domain.tax.exports import Format
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.store import exports as rows
from services.fulfillment.store import registrations
from services.fulfillment.store.exports import Cursor
from shared import telemetry
from shared.contracts.fulfillment.tax import EXPORT_PAGE_ROWS_MAX, ExportDone, ExportPage, ExportPiece, ExportsView, ExportView, ListExports
from shared.database import Connection, connected
from shared.errors import Invalid, Outcome, Refusal
from shared.messages import Envelope

logger = logging.getLogger(__name__)


class ExportDiffers(Refusal):
    """A closed period came out otherwise than before: somebody changed what must never change."""

    code = "export-differs"
    title = "The period was exported before and came out otherwise"
    outcome = Outcome.CONFLICT


async def export_page(envelope: Envelope, query: ExportPage, context: Fulfillment) -> ExportPiece:
    """Read a piece of an export."""
    if query.first_day > query.last_day:
        raise Invalid("The period ends before it begins.", {"field": "to"})
    async with connected(context.desk.pool) as db:
        closed = await rows.closed(db, query.last_day)
        if query.format == Format.ITEMIZED.value:
            return await _itemized(db, envelope, query, closed=closed)
        text = await _summary(db, envelope, query, context)
    return ExportPiece(text=text, rows=text.count("\n") - 1, next=None, closed=closed)


async def _itemized(db: Connection, envelope: Envelope, query: ExportPage, *, closed: bool) -> ExportPiece:
    after = None if query.cursor is None else msgspec.json.decode(base64.urlsafe_b64decode(query.cursor), type=Cursor)
    found = await rows.items(db, envelope, first=query.first_day, last=query.last_day, after=after, limit=EXPORT_PAGE_ROWS_MAX)
    full = len(found) == EXPORT_PAGE_ROWS_MAX
    cursor = base64.urlsafe_b64encode(msgspec.json.encode(found[-1][1])).decode() if full else None
    return ExportPiece(text=rules.itemized((item for item, _ in found), heading=after is None), rows=len(found), next=cursor, closed=closed)


async def _summary(db: Connection, envelope: Envelope, query: ExportPage, context: Fulfillment) -> str:
    first, last = query.first_day, query.last_day
    if query.format == Format.US_STATES.value:
        return rules.us_states(await rows.us_states(db, envelope, first=first, last=last))
    found = await rows.oss(db, envelope, first=first, last=last)
    if query.format == Format.OSS.value:
        return rules.oss(found)
    year, quarter = rules.quarter_of(first, last)
    settings = (await context.standing(db, envelope)).settings
    nexus = await registrations.nexus_of(db, envelope.store_id, envelope.environment.value)
    numbers = {each.nexus.country: each.nexus.registration_number for each in nexus if each.nexus.registered}
    home = "" if settings is None else settings.home_country
    return rules.bzst(found, home=home, vat_numbers=numbers, year=year, quarter=quarter)


async def export_done(envelope: Envelope, query: ExportDone, context: Fulfillment) -> ExportView:
    """Keep what an export came to; of a closed period it must be what it was before."""
    async with connected(context.desk.pool) as db:
        closed = await rows.closed(db, query.last_day)
        kept = await rows.keep(
            db,
            envelope,
            first=query.first_day,
            last=query.last_day,
            format=query.format,
            rows=query.rows,
            sha256=query.sha256,
            is_closed=closed,
        )
    if kept is None:
        facts = {"from": str(query.first_day), "to": str(query.last_day), "format": query.format, "sha256": query.sha256}
        telemetry.say(logger, logging.ERROR, "an export of a closed period differs from the one before", facts)
        raise ExportDiffers("What was recorded of this period is not what it was when it was first exported.", facts)
    return kept


async def list_exports(envelope: Envelope, query: ListExports, context: Fulfillment) -> ExportsView:
    """Read which exports were made."""
    async with connected(context.desk.pool) as db:
        return ExportsView(exports=await rows.made(db, envelope))
