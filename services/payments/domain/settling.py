"""Which row of the ledger a line of a payout report settles."""

from collections.abc import Collection, Sequence
from uuid import UUID

from services.payments.domain.intents import Intent, Transaction, TransactionStatus
from shared.contracts.settlements import LineMatched, SettlementLine


def match(line: SettlementLine, intent: Intent, rows: Sequence[Transaction], *, settled: Collection[UUID]) -> LineMatched:
    """Find the row that a line settles: of its operation, done, not settled yet, and of the amount that the customer saw."""
    done = [row for row in rows if row.operation.value == line.operation and row.status is TransactionStatus.SUCCEEDED]
    free = [row for row in sorted(done, key=lambda row: row.id) if row.id not in settled]
    wanted, currency = _as_charged(line, intent)
    fitting = next((row for row in free if wanted == row.moved and currency == intent.currency), None)
    if fitting is not None:
        return _said(line, "matched", intent, fitting)
    return _said(line, "amount", intent, free[0]) if free else LineMatched(key=line.key, result="missing", order_id=intent.order_id)


def _as_charged(line: SettlementLine, intent: Intent) -> tuple[int, str]:
    if line.customer_amount is not None and line.customer_currency is not None:
        return abs(line.customer_amount), line.customer_currency
    return abs(line.gross), line.currency


def _said(line: SettlementLine, result: str, intent: Intent, row: Transaction) -> LineMatched:
    return LineMatched(
        key=line.key, result=result, transaction_id=row.id, order_id=intent.order_id, amount=row.moved, currency=intent.currency
    )
