"""Payout reports: each line is put beside the row of the ledger that it settles, with what the provider kept."""

from uuid import UUID

from services.payments.domain.settling import match
from services.payments.handlers.asking import Payments
from services.payments.store import books as books_rows
from services.payments.store import settlements as rows
from services.payments.store.books import Kept
from shared.contracts.settlements import (
    UNSETTLED_ROWS_MAX,
    LineMatched,
    ListUnsettled,
    SettlementLine,
    SettlementsTaken,
    TakeSettlements,
    UnsettledPage,
)
from shared.database import connected
from shared.messages import Envelope, done
from shared.work import Work


async def take_settlements(work: Work, command: TakeSettlements, context: Payments) -> None:
    """Write down what was paid out for payments of ours, and say of each line what our ledger says to it."""
    provider = context.provider(work.envelope, command.provider)
    async with connected(context.desk.pool) as db:
        kept = await books_rows.by_provider(db, provider.account, [line.payment for line in command.lines], [])
        own = [each for each in kept if (each.store_id, each.environment) == (work.envelope.store_id, work.envelope.environment.value)]
        by_payment = {each.intent.provider_payment_id: each for each in own}
        intents = [each.intent.id for each in own]
        known = await rows.known(db, work.envelope, provider.account, [line.key for line in command.lines], intents)
    repeated = {each.line_key for each in known}
    # By whether the line brought money in: a refund that failed has a line of either kind.
    settled: dict[bool, set[UUID]] = {True: set(), False: set()}
    for each in known:
        if each.transaction_id is not None:
            settled[each.gross > 0].add(each.transaction_id)

    answers: list[LineMatched] = []
    fresh: list[tuple[SettlementLine, LineMatched, UUID]] = []
    for line in command.lines:
        said = _said(line, by_payment.get(line.payment), repeated, settled[line.gross > 0])
        answers.append(said)
        if said.result != "repeated" and line.payment in by_payment:
            fresh.append((line, said, by_payment[line.payment].intent.id))
            repeated.add(line.key)
        if said.result == "matched" and said.transaction_id is not None:
            settled[line.gross > 0].add(said.transaction_id)

    batch = work.batch()
    if fresh:
        batch.add(rows.taken(work.envelope, provider.account, command.file_sha256, fresh))
    batch.conclude(done(SettlementsTaken(lines=answers)))
    await batch.commit()


def _said(line: SettlementLine, kept: Kept | None, repeated: set[str], settled: set[UUID]) -> LineMatched:
    if line.key in repeated:
        return LineMatched(key=line.key, result="repeated", order_id=None if kept is None else kept.intent.order_id)
    if kept is None:
        return LineMatched(key=line.key, result="missing")
    return match(line, kept.intent, kept.transactions, settled=settled)


async def list_unsettled(envelope: Envelope, query: ListUnsettled, context: Payments) -> UnsettledPage:
    """Read a page of captures and refunds of a time that no payout report has mentioned so far."""
    limit = min(query.limit, UNSETTLED_ROWS_MAX)
    account = context.provider(envelope, query.provider).account
    async with connected(context.desk.pool) as db:
        found = await rows.unsettled(db, envelope, account, query, limit=limit + 1)
    return UnsettledPage(transactions=found[:limit], next=found[limit - 1].transaction_id if len(found) > limit else None)
