"""An order's packages: packed by the order's own weights and sizes, or named by the shop's backend and held against them."""

from collections.abc import Mapping, Sequence
from math import hypot

import msgspec

from services.fulfillment.domain.shipping.packing import Goods, Size, packed, size_of, volume
from shared.contracts.fulfillment.pricing import PackageBody
from shared.contracts.orders import Item, OrderContent, SupplyKind
from shared.errors import Refusal

WEIGHT_MIN_GRAMS = 1
# As the contract has it (Millimetres).
SIDE_MAX_MM = 100_000


class PackagesUnfit(Refusal):
    """The named packages cannot hold what the order says."""

    code = "packages-unfit"
    title = "Packages do not fit the order"
    status = 422


def pack_order(content: OrderContent, *, limit_grams: int, limit_mm3: int) -> list[PackageBody]:
    """Pack the goods of an order by their weights and sizes; refuses a unit that is over the limit."""
    goods = [
        Goods(line=n, quantity=item.quantity, weight_grams=item.weight_grams or 0, size=_size(item))
        for n, item in enumerate(content.items)
        if item.supply is SupplyKind.GOODS
    ]
    return [
        PackageBody(
            weight_grams=max(WEIGHT_MIN_GRAMS, package.weight_grams),
            units={str(line): count for line, count in sorted(package.units.items())},
            **_sides(_sized(content.items, package.units)),
        )
        for package in packed(goods, limit_grams=limit_grams, limit_mm3=limit_mm3)
    ]


def check_packages(content: OrderContent, packages: Sequence[PackageBody]) -> list[PackageBody]:
    """Hold named packages against their order: every unit of goods is in one of them, and none is lighter or smaller than what is in it.

    A single package that names no units holds all goods; one that names no size is sized as one of ours.
    """
    checked = [_checked(content.items, package, number, alone=len(packages) == 1) for number, package in enumerate(packages)]
    for line, item in enumerate(content.items):
        count = sum(package.units.get(str(line), 0) for package in checked)
        if item.supply is SupplyKind.GOODS and count != item.quantity:
            facts = {"line": line, "quantity": item.quantity, "packed": count}
            raise PackagesUnfit(f"Of line {line} {count} units are packed; the order has {item.quantity}.", facts)
    return checked


def lines_without_size(content: OrderContent) -> list[int]:
    """List the lines of a known weight and an unknown size, where the size of others is known: packages are sized without them."""
    goods = [(n, item) for n, item in enumerate(content.items) if item.supply is SupplyKind.GOODS]
    if all(item.dimensions is None for _, item in goods):
        return []
    return [n for n, item in goods if item.dimensions is None and item.weight_grams]


def _checked(items: Sequence[Item], package: PackageBody, number: int, *, alone: bool) -> PackageBody:
    goods = {str(n): item.quantity for n, item in enumerate(items) if item.supply is SupplyKind.GOODS}
    names = package.units or (goods if alone else {})
    if not names:
        raise PackagesUnfit(f"Package {number} names no units; of several packages each must.", {"package": number})
    units = {line: names[str(line)] for line in range(len(items)) if str(line) in names}
    if unknown := sorted(names.keys() - {str(line) for line in units}):
        raise PackagesUnfit(f"The order has no line {unknown[0]!r}.", {"package": number, "line": unknown[0]})
    least_grams = sum(count * (items[line].weight_grams or 0) for line, count in units.items())
    if package.weight_grams < least_grams:
        facts = {"package": number, "weight_grams": package.weight_grams, "least_grams": least_grams}
        raise PackagesUnfit(f"Package {number} holds {least_grams} g and cannot weigh {package.weight_grams} g.", facts)
    size = _named_size(items, package, units, number)
    if size is not None and max(size) > SIDE_MAX_MM:
        raise PackagesUnfit(f"Package {number} would be longer than {SIDE_MAX_MM} mm.", {"package": number, "side_max_mm": SIDE_MAX_MM})
    return msgspec.structs.replace(package, units=names, **_sides(size))


def _named_size(items: Sequence[Item], package: PackageBody, units: Mapping[int, int], number: int) -> Size | None:
    sides = (package.length_mm, package.width_mm, package.height_mm)
    if not any(sides):
        return _sized(items, units)
    if not all(sides):
        raise PackagesUnfit(f"Package {number} needs its length, width and height, or none of them.", {"package": number})
    longest = max((max(size) for line in units if (size := _size(items[line]))), default=0)
    least_mm3 = sum(count * volume(size) for line, count in units.items() if (size := _size(items[line])))
    # What must hold of any rigid box: it may lie across, and it may not take up more than there is.
    if volume(sides) < least_mm3 or hypot(*sides) < longest:
        facts = {"package": number, "volume_mm3": volume(sides), "least_mm3": least_mm3, "longest_mm": longest}
        raise PackagesUnfit(f"Package {number} is too small for what is in it.", facts)
    return sides


def _sized(items: Sequence[Item], units: Mapping[int, int]) -> Size | None:
    known = [(size, count) for line, count in units.items() if (size := _size(items[line]))]
    # What travels alone is as it is.
    return known[0][0] if [count for _, count in known] == [1] else size_of(known)


def _size(item: Item) -> Size | None:
    size = item.dimensions
    return None if size is None else (size.length_mm, size.width_mm, size.height_mm)


def _sides(size: Size | None) -> dict[str, int]:
    return {} if size is None else dict(zip(("length_mm", "width_mm", "height_mm"), size, strict=True))
