"""Refunds of tax: taken from the rows that were recorded, never worked out anew, and never more than was collected."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import msgspec

from services.fulfillment.domain.tax.amounts import RoundingMode, rounded
from services.fulfillment.domain.tax.engine import Row
from shared.errors import Outcome, Refusal


class RefundTooLarge(Refusal):
    """More would be given back than was sold."""

    code = "refund-too-large"
    title = "More would be refunded than was sold"
    outcome = Outcome.CONFLICT


def reversed_rows(rows: Sequence[Row], *, sold: Mapping[int, int], before: Mapping[int, int], now: Mapping[int, int]) -> list[Row]:
    """Give the rows that reverse a refund's share of recorded ones, with negative amounts.

    All by line, in minor units of the price as it stood on the line: what was sold, what was refunded before, and what is now. Of each row
    as much is back in all as of its line, rounded half-up; so the last refund takes the remainder and leaves nothing.
    """
    for line, amount in now.items():
        # What rounded a total down comes back as less.
        sign = -1 if sold[line] < 0 else 1
        if sign * amount < 0 or sign * (before.get(line, 0) + amount) > sign * sold[line]:
            left = sold[line] - before.get(line, 0)
            raise RefundTooLarge(
                f"{amount} of line {line} was asked, {left} is left.", {"line": line, "requested": amount, "available": left}
            )
    return [_reversed(row, sold[row.line], before.get(row.line, 0), now[row.line]) for row in rows if now.get(row.line)]


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of what is kept of a sale takes back of its tax or, where more is kept than before, records again."""

    # As the customer got it back or paid it after all, by line.
    line_amounts: Mapping[int, int]
    rows: Sequence[Row]


def corrections(
    rows: Sequence[Row], *, sold: Mapping[int, int], before: Mapping[int, int], after: Mapping[int, int]
) -> tuple[Correction | None, Correction | None]:
    """Bring what is reversed of a sale from what it was to what it is to be, by line: what is to be reversed, and reinstated."""
    change = {line: after[line] - before[line] for line in sold}
    down = {line: amount for line, amount in change.items() if amount * sold[line] > 0}
    up = {line: -amount for line, amount in change.items() if amount * sold[line] < 0}
    first = Correction(line_amounts=down, rows=_moved(rows, sold, before, down)) if down else None
    # What is reinstated mirrors the reversal from where it ends.
    lower = {line: before[line] + down.get(line, 0) - up.get(line, 0) for line in sold}
    again = Correction(line_amounts=up, rows=[_negated(row) for row in _moved(rows, sold, lower, up)]) if up else None
    return first, again


def _moved(rows: Sequence[Row], sold: Mapping[int, int], before: Mapping[int, int], now: Mapping[int, int]) -> list[Row]:
    """Reverse rows by line; what is taxed of a line that costs its buyer nothing goes as all the others go."""
    whole, had, more = sum(sold.values()), sum(before.values()), sum(now.values())
    free = [line for line, price in sold.items() if not price]
    return reversed_rows(
        rows,
        sold={**sold, **dict.fromkeys(free, whole)},
        before={**before, **dict.fromkeys(free, had)},
        now={**now, **dict.fromkeys(free, more)},
    )


def _negated(row: Row) -> Row:
    return msgspec.structs.replace(row, amount=-row.amount, taxable_amount=-row.taxable_amount, untaxed_amount=-row.untaxed_amount)


def _reversed(row: Row, sold: int, before: int, now: int) -> Row:
    def back(amount: int) -> int:
        return _share(amount, before + now, sold) - _share(amount, before, sold)

    return msgspec.structs.replace(
        row, amount=-back(row.amount), taxable_amount=-back(row.taxable_amount), untaxed_amount=-back(row.untaxed_amount)
    )


def _share(amount: int, part: int, whole: int) -> int:
    return rounded(Fraction(amount * part, whole), RoundingMode.HALF_UP)
