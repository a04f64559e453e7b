"""Refunds of tax: taken from the rows that were recorded, never worked out anew, and never more than was collected."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import msgspec

from services.fulfillment.domain.tax.amounts import RoundingMode, prorated, rounded
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


def shares_of_refund(line_amounts: Mapping[int, int], before: Mapping[int, int], amount: int) -> dict[int, int]:
    """Share a refund that names no lines among them, by what is left of each; no line gives more than it has."""
    left = {line: paid - before.get(line, 0) for line, paid in line_amounts.items()}
    shares = prorated(list(left.values()), min(amount, sum(left.values())))
    return {line: share for line, share in zip(left, shares, strict=True) if share}


def _reversed(row: Row, sold: int, before: int, now: int) -> Row:
    def back(amount: int) -> int:
        return _share(amount, before + now, sold) - _share(amount, before, sold)

    return msgspec.structs.replace(
        row, amount=-back(row.amount), taxable_amount=-back(row.taxable_amount), untaxed_amount=-back(row.untaxed_amount)
    )


def _share(amount: int, part: int, whole: int) -> int:
    return rounded(Fraction(amount * part, whole), RoundingMode.HALF_UP)
