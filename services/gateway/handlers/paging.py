"""One page out of several services' pages."""

from collections.abc import Sequence
from typing import Protocol, TypeVar
from uuid import UUID


class Named(Protocol):
    """Something whose id says when it came about (UUIDv7)."""

    @property
    def id(self) -> UUID:
        """Its id."""


T = TypeVar("T", bound=Named)


def together(pages: Sequence[tuple[Sequence[T], UUID | None]], limit: int) -> tuple[list[T], UUID | None]:
    """Put pages together, the newest first, and say where to go on."""
    # Whoever has more has told of everything down to its `next`; below the highest of these nothing is certain yet.
    floor = max((following for _, following in pages if following is not None), default=None)
    certain = [each for rows, _ in pages for each in rows if floor is None or each.id >= floor]
    found = sorted(certain, key=lambda each: each.id, reverse=True)
    return (found[:limit], found[limit - 1].id) if len(found) > limit else (found, floor)
