"""Payout reports: what was paid out is matched with the ledger, and what does not fit is a difference like any other."""

from uuid import UUID, uuid5

from services.reconciler.domain.comparing import Difference, DriftType
from services.reconciler.handlers.context import Reconciler
from services.reconciler.store import drift as drift_rows
from services.reconciler.store import runs as rows
from services.reconciler.store.drift import Found
from shared.contracts.books import Entry, EntryStatus
from shared.contracts.settlements import (
    ImportSettlements,
    LineMatched,
    SettlementLine,
    SettlementsTaken,
    SettlementsView,
    TakeSettlements,
)
from shared.messages import done
from shared.work import Work


async def import_settlements(work: Work, command: ImportSettlements, context: Reconciler) -> None:
    """Match a piece of a payout report with the ledger; the same file again changes nothing."""
    asked = TakeSettlements(provider=command.provider, file_sha256=command.file_sha256, lines=command.lines)
    taken = await context.tell(work.envelope, asked, SettlementsTaken)
    differing = [(line, said) for line, said in zip(command.lines, taken.lines, strict=True) if said.result in ("missing", "amount")]
    found = [Found(_difference(line, said), said.order_id, False) for line, said in differing]

    run = rows.of_file(work.envelope, _run_id(work, command), command)
    batch = work.batch()
    batch.add(rows.imported(run, compared=len(command.lines), found=len(found)))
    if found:
        batch.add(drift_rows.met(run, found))
    batch.audit("settlements.import", str(run.id), after={"file_sha256": command.file_sha256, "lines": len(command.lines)})
    results = [said.result for said in taken.lines]
    view = SettlementsView(
        run_id=run.id,
        matched=results.count("matched"),
        repeated=results.count("repeated"),
        differing=[said for _, said in differing],
    )
    batch.conclude(done(view))
    await batch.commit()


def _run_id(work: Work, command: ImportSettlements) -> UUID:
    """A file is one run, in however many pieces it comes."""
    return uuid5(work.envelope.store_id, f"{work.envelope.environment.value} {command.provider} {command.file_sha256}")


def _difference(line: SettlementLine, said: LineMatched) -> Difference:
    theirs = Entry(
        kind=line.operation,
        status=EntryStatus.DONE,
        currency=line.customer_currency or line.currency,
        amount=abs(line.gross if line.customer_amount is None else line.customer_amount),
        provider_id=line.key,
    )
    ours = None
    if said.transaction_id is not None:
        ours = Entry(
            kind=line.operation, status=EntryStatus.DONE, currency=said.currency, amount=said.amount, reference=said.transaction_id
        )
    kind = DriftType.AMOUNT if said.result == "amount" else DriftType.MISSING_LOCALLY
    return Difference(type=kind, key=line.payment, entry=f"settlement {line.key}", ours=ours, theirs=theirs)
