"""Payments as they are compared: our ledger and a provider's word, operation by operation, in the same terms."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from services.payments.domain.intents import Intent, Observation, Operation, Transaction, TransactionStatus
from shared.contracts.books import Entry, EntryStatus, Side

# What a void releases is the rest, which each side works out for itself.
AMOUNTLESS = frozenset({Operation.VOID})


def status_of(status: TransactionStatus) -> EntryStatus:
    """Say how an operation ended in the terms of comparing."""
    match status:
        case TransactionStatus.SUCCEEDED:
            return EntryStatus.DONE
        case TransactionStatus.DECLINED | TransactionStatus.FAILED:
            return EntryStatus.NOT_DONE
        case _:
            return EntryStatus.OPEN


def our_side(intent: Intent, transactions: Sequence[Transaction]) -> Side:
    """Show a payment as our ledger has it."""
    return Side(
        key=intent.provider_payment_id or "",
        entries=tuple(
            Entry(
                kind=row.operation.value,
                status=status_of(row.status),
                currency=intent.currency,
                amount=None if row.operation in AMOUNTLESS else row.moved if row.status is TransactionStatus.SUCCEEDED else row.amount,
                provider_id=row.provider_txn_id,
                reference=row.id,
            )
            for row in transactions
        ),
        made_at=intent.created_at,
        order_id=intent.order_id,
        in_flight=any(row.open and not (row.awaiting_customer or row.accepted) for row in transactions),
    )


def their_side(key: str, observations: Sequence[Observation], *, made_at: datetime) -> Side:
    """Show a payment as a provider tells of it."""
    return Side(
        key=key,
        entries=tuple(
            Entry(
                kind=seen.operation.value,
                status=status_of(seen.status),
                currency=seen.currency,
                amount=None if seen.operation in AMOUNTLESS else seen.amount,
                provider_id=seen.provider_txn_id,
                reference=seen.reference,
            )
            for seen in observations
        ),
        made_at=made_at,
    )


def references_in(observations: Sequence[Observation]) -> list[UUID]:
    """List the rows of ours that a provider's word refers to."""
    return [seen.reference for seen in observations if seen.reference is not None]
