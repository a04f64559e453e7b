"""The resolver: labels of which nothing is known are found, or bought with the same reference; undecided voids are asked about."""

import asyncio
import logging
import time
from contextlib import suppress

import msgspec

from services.fulfillment.domain.shipping.labels import LabelStatus
from services.fulfillment.handlers import labels, voiding
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.handlers.labels import LOOKS_SECONDS
from services.fulfillment.providers import CarrierRefused
from services.fulfillment.store import labels as rows
from services.fulfillment.store.labels import Label
from shared import telemetry
from shared.backoff import step
from shared.contracts.fulfillment.shipping import BuyLabel
from shared.database import connected
from shared.errors import Contended
from shared.http_client import recorded
from shared.messages import type_of
from shared.provider_answers import OUTCOME_UNKNOWN
from shared.schedule import alone
from shared.work import Work

logger = logging.getLogger(__name__)


async def resolve_due(context: Fulfillment) -> None:
    """Look at labels that are due, all at once: one carrier that is silent delays no other's."""
    async with connected(context.desk.pool) as db:
        due = await rows.take_due(db, lease_seconds=context.settings.lease_seconds)
    await asyncio.gather(*(_look_alone(context, label) for label in due))


async def _look_alone(context: Fulfillment, label: Label) -> None:
    if not await alone("look for a label", _look(context, label), {"label_id": str(label.id)}):
        await context.desk.rows.write([rows.looked(label, again_seconds=step(LOOKS_SECONDS, label.looks))])


async def _look(context: Fulfillment, label: Label) -> None:
    work = Work(context.desk, label.envelope(), kind=type_of(BuyLabel), digest=label.command_digest)
    with suppress(Contended):  # Somebody else found it out.
        if label.status == "buying":
            await _find(work, context, label)
        else:
            await _ask_about_void(work, context, label)


async def _find(work: Work, context: Fulfillment, label: Label) -> None:
    carrier = context.carrier(label.envelope(), label.carrier)
    with recorded() as calls:
        try:
            async with labels.kept(context, label):
                found = await carrier.find(label.request, reference=label.id)
        except CarrierRefused as refused:
            await labels.failed(work, context, label, refused, calls)
            return
        except OUTCOME_UNKNOWN as silent:
            facts = {"label_id": str(label.id), "age_seconds": round(label.age_seconds), "trouble": f"{type(silent).__name__}: {silent}"}
            telemetry.say(logger, logging.WARNING, "a label cannot be looked for", facts)
            await _again(work, label)
            return
    if found is not None:
        await labels.purchased(work, context, carrier, label, found, calls)
    elif label.age_seconds >= carrier.absence_is_proof_after_seconds:
        # It was not bought, so it is bought now: by the same reference, which is the carrier's key.
        await labels.buy(work, context, carrier, msgspec.structs.replace(label, leased_at_seconds=time.monotonic()))
    else:
        await _again(work, label)


async def _ask_about_void(work: Work, context: Fulfillment, label: Label) -> None:
    carrier = context.carrier(label.envelope(), label.carrier)
    assert label.provider_label_id is not None, "only what was bought is given back"
    try:
        status = await carrier.status(label.provider_label_id)
    except OUTCOME_UNKNOWN:
        await _again(work, label)
        return
    if status is LabelStatus.PURCHASED:
        # The request never arrived.
        await voiding.ask_void(work, context, label)
    else:
        await voiding.decided(work, context, label, status)


async def _again(work: Work, label: Label) -> None:
    batch = work.batch()
    batch.add(rows.looked(label, again_seconds=step(LOOKS_SECONDS, label.looks)))
    await batch.commit()
