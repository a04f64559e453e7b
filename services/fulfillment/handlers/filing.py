"""Recording documents at the tax provider that worked them out: looked for before it is said again, for ever until it stands there."""

import logging

from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.providers.tax_books import TaxRefusedForGood
from services.fulfillment.store import filings as rows
from services.fulfillment.store.filings import Due
from shared import audit, telemetry
from shared.backoff import step
from shared.database import Statement, connected
from shared.errors import Contended
from shared.http_client import recorded
from shared.provider_answers import OUTCOME_UNKNOWN

logger = logging.getLogger(__name__)

AGAIN_SECONDS = (1.0, 5.0, 30.0, 300.0, 1800.0, 3600.0)


async def file_due(context: Fulfillment) -> None:
    """Record every document that is due."""
    async with connected(context.desk.pool) as db:
        due = await rows.take_due(db, lease_seconds=context.settings.filing_lease_seconds)
    for each in due:
        await _file(context, each)


async def _file(context: Fulfillment, due: Due) -> None:
    books = context.tax_books(due.store_id, due.environment, due.provider)
    envelope = due.envelope()
    facts = {"document_id": str(due.document_id), "provider": due.provider, "looks": due.looks}
    with recorded() as calls:
        try:
            if books is None:
                outcome = rows.put_off(due, f"{due.provider} is not configured", again_seconds=AGAIN_SECONDS[-1])
            else:
                # What was perhaps said before is looked for first.
                known = await books.get_record(str(due.document_id)) if due.looks > 1 else None
                if known is None:
                    await books.file(due.filing)
                outcome = rows.filed(due)
                telemetry.say(logger, logging.INFO, "recorded at the tax provider", facts)
        except OUTCOME_UNKNOWN as silent:
            reason = f"{type(silent).__name__}: {silent}"
            telemetry.say(logger, logging.WARNING, "a document cannot be recorded now", {**facts, "reason": reason})
            outcome = rows.put_off(due, reason, again_seconds=step(AGAIN_SECONDS, due.looks - 1))
        except TaxRefusedForGood as refused:
            telemetry.say(logger, logging.ERROR, "a document is refused by the tax provider", {**facts, "reason": str(refused)})
            outcome = rows.refused(due, str(refused))
    statements: list[Statement] = [outcome]
    if calls:
        statements += audit.called(envelope, due.document_id, calls)
    try:
        await context.desk.rows.write(statements)
    except Contended:
        telemetry.say(logger, logging.WARNING, "somebody else recorded a document", facts)
