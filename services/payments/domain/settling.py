"""Which row of the ledger a line of a payout report settles."""

from collections.abc import Collection, Sequence
from uuid import UUID

from services.payments.domain.intents import Intent, Transaction, TransactionStatus
from shared.contracts.settlements import LineMatched, SettlementLine

# What a line is about that brings back the amount of a refund that failed.
REFUND_FAILURE = "refund_failure"


def match(line: SettlementLine, intent: Intent, rows: Sequence[Transaction], *, settled: Collection[UUID]) -> LineMatched:
    """Find the row that a line settles: of its operation, done, not settled yet, and of the amount that the customer saw.

    A refund that failed is settled twice: by the line that took its amount, and by the one that brought it back.
    """
    done = [row for row in rows if _is_settled_by(line, row)]
    free = [row for row in sorted(done, key=lambda row: row.id) if row.id not in settled]
    wanted, currency = _as_charged(line, intent)
    fitting = next((row for row in free if wanted == _amount(row) and currency == intent.currency), None)
    if fitting is not None:
        return _said(line, "matched", intent, fitting)
    return _said(line, "amount", intent, free[0]) if free else LineMatched(key=line.key, result="missing", order_id=intent.order_id)


def _is_settled_by(line: SettlementLine, row: Transaction) -> bool:
    if line.operation == REFUND_FAILURE:
        return row.came_back
    return row.operation.value == line.operation and (row.status is TransactionStatus.SUCCEEDED or row.came_back)


def _amount(row: Transaction) -> int:
    return row.amount if row.came_back else row.moved


def _as_charged(line: SettlementLine, intent: Intent) -> tuple[int, str]:
    if line.customer_amount is not None and line.customer_currency is not None:
        return abs(line.customer_amount), line.customer_currency
    return abs(line.gross), line.currency


def _said(line: SettlementLine, result: str, intent: Intent, row: Transaction) -> LineMatched:
    return LineMatched(
        key=line.key, result=result, transaction_id=row.id, order_id=intent.order_id, amount=_amount(row), currency=intent.currency
    )
