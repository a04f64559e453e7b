"""How money that went back is shared among the lines of a sale: lines that it names give their own amount, the rest is shared by value."""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import msgspec


class RefundLine(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a refund is for one line, by its position from 0; without a line it is for shipping."""

    line: int | None
    amount: int


class Returned(msgspec.Struct, frozen=True, kw_only=True):
    """Money that went back to the customer: a refund, or what a dispute took and has not given back."""

    transaction_id: UUID
    amount: int
    # What it is for, where that was said.
    lines: tuple[RefundLine, ...] = ()


def given_back(prices: Mapping[int | None, int], parts: Iterable[Returned], *, unpaid: int = 0) -> dict[int | None, int]:
    """Add up by line what was not paid of a sale or went back, part after part; no line gives more than its price.

    What a part does not name, or names beyond what its line has left, is shared by what is left of all lines; so is what was never paid.
    Where nothing is left of the whole, nothing is left of any line, also where one of less than nothing rounds the total.
    """
    left = dict(prices)
    _take(left, unpaid)
    for part in parts:
        amount = part.amount
        for each in part.lines:
            taken = min(each.amount, left.get(each.line, 0), amount)
            amount -= taken
            left |= {each.line: left[each.line] - taken} if taken else {}
        _take(left, amount)
    if sum(prices.values()) and not sum(left.values()):
        left = dict.fromkeys(left, 0)
    return {line: price - left[line] for line, price in prices.items()}


def owed_parts(parts: Sequence[Returned], *, excess: int) -> tuple[Returned, ...]:
    """Leave out what was taken and never owed: it goes back first, out of the parts that name no line before those that do."""
    owed = {}
    for part in sorted(parts, key=lambda each: bool(each.lines)):
        free = min(excess, part.amount)
        excess -= free
        owed[part.transaction_id] = part.amount - free
    kept = (msgspec.structs.replace(part, amount=owed[part.transaction_id]) for part in parts)
    return tuple(part for part in kept if part.amount)


def _take(left: dict[int | None, int], amount: int) -> None:
    """Take an amount from lines by what is left of each: by largest remainder, the first of equals first."""
    whole = sum(left.values())
    amount = min(amount, whole)
    if not amount:
        return
    exact = {line: divmod(amount * price, whole) for line, price in left.items()}
    over = amount - sum(share for share, _ in exact.values())
    for n, line in enumerate(sorted(exact, key=lambda line: -exact[line][1])):
        left[line] -= exact[line][0] + (n < over)
