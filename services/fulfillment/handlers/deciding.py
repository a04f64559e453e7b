"""Labels of which nobody knows whether they were bought: shown by age with what was tried, and settled by an operator."""

from services.fulfillment.handlers import labels
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.providers import Bought, Carrier, CarrierRefused
from services.fulfillment.store import labels as rows
from services.fulfillment.store.labels import Label
from shared.contracts.fulfillment.shipping import PAGE_ROWS_MAX, BuyLabel, DecideLabel, ListUnknownLabels, UnknownLabelPage
from shared.database import connected
from shared.errors import NotFound, Outcome, Refusal, Retry
from shared.http_client import recorded
from shared.messages import Envelope, done, type_of
from shared.provider_answers import OUTCOME_UNKNOWN
from shared.work import Work


class LabelKnown(Refusal):
    """It is known whether the label was bought; there is nothing left to decide."""

    code = "outcome-known"
    title = "The outcome of this label is known"
    outcome = Outcome.CONFLICT


class LabelBeingLookedFor(Refusal):
    """The resolver is asking about it this very moment."""

    code = "operation-in-progress"
    title = "This label is being looked for"
    retry = Retry.AFTER
    retry_after_seconds = 2


async def list_unknown(envelope: Envelope, query: ListUnknownLabels, context: Fulfillment) -> UnknownLabelPage:
    """Read a page of labels of which nobody knows whether they were bought, the oldest first."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        found = await rows.list_unknown(db, envelope, after=query.after, limit=limit + 1)
    return UnknownLabelPage(labels=found[:limit], next=found[limit - 1].label_id if len(found) > limit else None)


async def decide_label(work: Work, command: DecideLabel, context: Fulfillment) -> None:
    """Take an operator's word that a label was not bought, unless the carrier, asked once more, has one of its own."""
    label = await _known(context, work.envelope, command)
    if label.status == "buying":
        await _decide(context, command)
        label = await _known(context, work.envelope, command)
    if label.status != "failed":
        raise LabelKnown(f"It is {label.status}.", {"label_id": str(label.id), "label_status": label.status})

    batch = work.batch()
    batch.audit("label.decide", str(label.id), before={"status": "buying"}, after={"status": label.status}, reason=command.evidence)
    batch.conclude(done(rows.view(label, [])))
    await batch.commit()


async def _known(context: Fulfillment, envelope: Envelope, command: DecideLabel) -> Label:
    async with connected(context.desk.pool) as db:
        label = await rows.one(db, envelope, command.label_id)
    if label is None:
        raise NotFound(f"There is no label {command.label_id}.")
    return label


async def _decide(context: Fulfillment, command: DecideLabel) -> None:
    async with connected(context.desk.pool) as db:
        label = await rows.take_one(db, command.label_id, lease_seconds=context.settings.lease_seconds)
    if label is None:
        raise LabelBeingLookedFor("Try again in a moment.", {"label_id": str(command.label_id)})
    own = Work(context.desk, label.envelope(), kind=type_of(BuyLabel), digest=label.command_digest)
    carrier = context.carrier(label.envelope(), label.carrier)

    with recorded() as calls:
        found = await _found(context, carrier, label)

    if found is not None:
        await labels.purchased(own, context, carrier, label, found, calls)
    else:
        await labels.failed(own, context, label, CarrierRefused("decided_by_operator", command.evidence), calls)


async def _found(context: Fulfillment, carrier: Carrier, label: Label) -> Bought | None:
    """Ask the carrier once more; one that is silent has no word of its own."""
    try:
        async with labels.kept(context, label):
            return await carrier.find(label.request, reference=label.id)
    except (CarrierRefused, *OUTCOME_UNKNOWN):
        return None
