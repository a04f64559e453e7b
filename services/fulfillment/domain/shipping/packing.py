"""Packing: which units travel in which package, when the shop does not say."""

from collections.abc import Sequence

import msgspec

from shared.errors import Refusal

PACKAGES_MAX = 1_000


class TooHeavy(Refusal):
    """One unit alone is over the limit of a package, or there are too many packages."""

    code = "cannot-be-packed"
    title = "This cannot be packed"
    status = 422


class Goods(msgspec.Struct, frozen=True, kw_only=True):
    """So many units of something, each of a weight."""

    line: int
    quantity: int
    weight_grams: int


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """What travels together: units by line, and their weight."""

    units: dict[int, int]
    weight_grams: int


def packed(goods: Sequence[Goods], *, limit_grams: int) -> list[Package]:
    """Pack units by first fit, the heaviest first; for the same goods always the same. Refuses what is too heavy."""
    room: list[int] = []
    contents: list[dict[int, int]] = []
    for each in sorted(goods, key=lambda g: (-g.weight_grams, g.line)):
        if each.weight_grams > limit_grams:
            facts = {"line": each.line, "weight_grams": each.weight_grams, "limit_grams": limit_grams}
            raise TooHeavy(f"A unit of line {each.line} weighs {each.weight_grams} g; a package takes {limit_grams} g.", facts)
        left = each.quantity
        for number in range(len(room)):
            fits = left if each.weight_grams == 0 else min(left, room[number] // each.weight_grams)
            if fits:
                left -= _put(contents[number], each.line, fits)
                room[number] -= fits * each.weight_grams
            if not left:
                break
        while left:
            if len(room) == PACKAGES_MAX:
                raise TooHeavy(f"This needs more than {PACKAGES_MAX} packages.", {"packages_max": PACKAGES_MAX})
            fits = left if each.weight_grams == 0 else min(left, limit_grams // each.weight_grams)
            contents.append({})
            left -= _put(contents[-1], each.line, fits)
            room.append(limit_grams - fits * each.weight_grams)
    return [Package(units=units, weight_grams=limit_grams - left) for units, left in zip(contents, room, strict=True)]


def _put(units: dict[int, int], line: int, count: int) -> int:
    units[line] = units.get(line, 0) + count
    return count
