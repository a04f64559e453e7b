"""Packing: which units travel in which package, and how large the package is, when the shop does not say."""

from collections.abc import Sequence
from math import isqrt

import msgspec

from shared.errors import Refusal

PACKAGES_MAX = 1_000
# No parcel carrier takes a cubic metre in one package (UPS ends at 165 inches of length and girth, which is 0.59 m3 as a cube).
VOLUME_MAX_MM3 = 1_000_000_000

# Length, width and height in millimetres.
Size = tuple[int, int, int]


class TooHeavy(Refusal):
    """One unit alone is over the limit of a package, or there are too many packages."""

    code = "cannot-be-packed"
    title = "This cannot be packed"
    status = 422


class Goods(msgspec.Struct, frozen=True, kw_only=True):
    """So many units of something, each of a weight, and of a size where it is known."""

    line: int
    quantity: int
    weight_grams: int
    size: Size | None = None

    @property
    def volume_mm3(self) -> int:
        """What one unit takes up; nothing where its size is unknown."""
        return volume(self.size) if self.size else 0


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """What travels together: units by line, and their weight."""

    units: dict[int, int]
    weight_grams: int


class _Room(msgspec.Struct, kw_only=True):
    """A package that is being filled, and what still goes into it."""

    units: dict[int, int]
    grams: int
    mm3: int

    def fits(self, *, grams: int, mm3: int, wanted: int) -> int:
        """Count the units of a weight and a volume that still go in; none or fewer where it is full."""
        return min(wanted, self.grams // grams if grams else wanted, self.mm3 // mm3 if mm3 else wanted)

    def put(self, goods: Goods, count: int) -> int:
        """Put units in."""
        self.units[goods.line] = self.units.get(goods.line, 0) + count
        self.grams -= count * goods.weight_grams
        self.mm3 -= count * goods.volume_mm3
        return count


def packed(goods: Sequence[Goods], *, limit_grams: int, limit_mm3: int = VOLUME_MAX_MM3) -> list[Package]:
    """Pack units by first fit, the heaviest first; for the same goods always the same. What is too large for a package travels alone."""
    rooms: list[_Room] = []
    for each in sorted(goods, key=lambda g: (-g.weight_grams, -g.volume_mm3, g.line)):
        if each.weight_grams > limit_grams:
            facts = {"line": each.line, "weight_grams": each.weight_grams, "limit_grams": limit_grams}
            raise TooHeavy(f"A unit of line {each.line} weighs {each.weight_grams} g; a package takes {limit_grams} g.", facts)
        left, grams, mm3 = each.quantity, each.weight_grams, each.volume_mm3
        for room in rooms:
            if (fits := room.fits(grams=grams, mm3=mm3, wanted=left)) > 0:
                left -= room.put(each, fits)
            if not left:
                break
        while left:
            if len(rooms) == PACKAGES_MAX:
                raise TooHeavy(f"This needs more than {PACKAGES_MAX} packages.", {"packages_max": PACKAGES_MAX})
            room = _Room(units={}, grams=limit_grams, mm3=limit_mm3)
            rooms.append(room)
            left -= room.put(each, max(1, room.fits(grams=grams, mm3=mm3, wanted=left)))
    return [Package(units=room.units, weight_grams=limit_grams - room.grams) for room in rooms]


def size_of(units: Sequence[tuple[Size, int]]) -> Size | None:
    """Size the package of so many units of each size: on every side as long as its largest unit, with the volume of all together.

    It grows evenly, the shortest sides first, until all fit by volume. Units whose size is unknown are left out by the caller.
    """
    if not units:
        return None
    length, width, height = (max(sides) for sides in zip(*(sorted(size, reverse=True) for size, _ in units), strict=True))
    wanted = sum(volume(size) * count for size, count in units)
    if length * width * height >= wanted:
        return length, width, height
    if (height := _quotient(wanted, length * width)) <= width:
        return length, width, height
    if (width := _root(_quotient(wanted, length))) <= length:
        return length, width, _quotient(wanted, length * width)
    length = _cube_root(wanted)
    width = _root(_quotient(wanted, length))
    return length, width, _quotient(wanted, length * width)


def volume(size: Size) -> int:
    """What a box takes up, in cubic millimetres."""
    length, width, height = size
    return length * width * height


def _quotient(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


def _root(value: int) -> int:
    """The least whole number whose square is no less."""
    return isqrt(value - 1) + 1


def _cube_root(value: int) -> int:
    """The least whole number whose cube is no less."""
    low, high = 1, 1 << -(-value.bit_length() // 3)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if middle**3 >= value else (middle + 1, high)
    return low
