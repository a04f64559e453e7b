"""Exact amounts and the one place where they are rounded: fractions in, whole minor units out, nothing lost between."""

from collections.abc import Sequence
from enum import StrEnum
from fractions import Fraction


class RoundingMode(StrEnum):
    """What becomes of a part of a minor unit; half-up is what most laws say (US Streamlined Agreement §324, HMRC VATREC12030)."""

    HALF_UP = "half_up"
    HALF_EVEN = "half_even"
    HALF_DOWN = "half_down"
    DOWN = "down"
    UP = "up"


def rounded(amount: Fraction, mode: RoundingMode) -> int:
    """Round to whole minor units; halves and directions count from zero, so a refund mirrors its sale."""
    whole, rest = divmod(abs(amount.numerator), amount.denominator)
    twice = 2 * rest
    match mode:
        case RoundingMode.HALF_UP:
            up = twice >= amount.denominator
        case RoundingMode.HALF_DOWN:
            up = twice > amount.denominator
        case RoundingMode.HALF_EVEN:
            up = twice > amount.denominator or (twice == amount.denominator and whole % 2 == 1)
        case RoundingMode.DOWN:
            up = False
        case RoundingMode.UP:
            up = rest > 0
    return (whole + up) * (-1 if amount < 0 else 1)


def prorated(weights: Sequence[int] | Sequence[Fraction], total: int) -> list[int]:
    """Share a total by weights, by largest remainder, the first of equals first; nothing to weigh by means equal shares."""
    if not weights:
        return []
    weights = weights if sum(weights) else [1] * len(weights)
    return apportioned([Fraction(total * weight) / sum(weights) for weight in weights], total)


def apportioned(exact: Sequence[Fraction], total: int) -> list[int]:
    """Bring exact shares to whole ones that add up to a total: each is cut towards zero, what is left goes to the largest remainders."""
    sign = -1 if total < 0 else 1
    cut = [rounded(share, RoundingMode.DOWN) for share in exact]
    left = total - sum(cut)
    # Shares of the other sign (a discount among lines) give before they take.
    by_remainder = sorted(range(len(exact)), key=lambda n: (-sign * (exact[n] - cut[n]), n))
    while left and by_remainder:
        step = 1 if left > 0 else -1
        for n in by_remainder if step == sign else by_remainder[::-1]:
            if not left:
                break
            cut[n] += step
            left -= step
    return cut
