"""What differs between our books and a provider's: typed, complete, and nothing that is merely on its way."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from shared.contracts.books import Entry, EntryStatus, Pair, Side

# What may be open for days, its amount reserved, and can fail after it was done; all else that is done on one side only waits for an end.
REFUNDS = frozenset({"refund"})
REASON_MAX_CHARACTERS = 200


class DriftType(StrEnum):
    """How two books differ."""

    MISSING_LOCALLY = "missing_locally"
    MISSING_AT_PROVIDER = "missing_at_provider"
    AMOUNT = "amount"
    CURRENCY = "currency"
    STATUS = "status"
    DUPLICATE = "duplicate"
    UNREADABLE = "unreadable"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One difference: about what, how, and what each side says."""

    type: DriftType
    key: str
    # Which operation of it; empty when it is about the whole. Of what cannot be read, why.
    entry: str = ""
    ours: Entry | None = None
    theirs: Entry | None = None
    # Whether taking in the provider's word is all it needs.
    heals: bool = False


def compare(pair: Pair) -> list[Difference]:
    """Tell how the two sides of one thing differ; the same pair always differs the same."""
    ours, theirs = pair.ours, pair.theirs
    if pair.unreadable:
        mine = None if ours is None else _largest(ours)
        return [Difference(type=DriftType.UNREADABLE, key=pair.key, entry=pair.unreadable[:REASON_MAX_CHARACTERS], ours=mine)]
    if theirs is None:
        return [] if ours is None else _nothing_there(ours)
    if ours is None:
        return _nothing_here(theirs)
    if ours.key and ours.key != theirs.key:
        # Ours is another one under the same reference: this one was made beside it.
        return [_whole(DriftType.DUPLICATE, theirs.key, ours=_largest(ours), theirs=_largest(theirs))] if _effective(theirs) else []
    return _entries(ours, theirs)


def _nothing_there(ours: Side) -> list[Difference]:
    if ours.in_flight or not _effective(ours):
        return []
    return [_whole(DriftType.MISSING_AT_PROVIDER, ours.key, ours=_largest(ours), theirs=None)]


def _nothing_here(theirs: Side) -> list[Difference]:
    # What came to nothing is nobody's money; whoever tried it may be a stranger on a shared account.
    if not _effective(theirs):
        return []
    return [_whole(DriftType.MISSING_LOCALLY, theirs.key, ours=None, theirs=_largest(theirs))]


def _effective(side: Side) -> bool:
    return any(entry.status is EntryStatus.DONE for entry in side.entries)


def _largest(side: Side) -> Entry:
    done = [entry for entry in side.entries if entry.status is EntryStatus.DONE] or list(side.entries)
    return max(done, key=lambda entry: entry.amount or 0)


def _whole(kind: DriftType, key: str, *, ours: Entry | None, theirs: Entry | None) -> Difference:
    return Difference(type=kind, key=key, ours=ours, theirs=theirs)


def _entries(ours: Side, theirs: Side) -> list[Difference]:
    found: list[Difference] = []
    left = list(ours.entries)
    matched: set[Entry] = set()
    for entry in theirs.entries:
        mine = _counterpart(entry, left)
        if mine is not None:
            left.remove(mine)
            matched.add(mine)
            found += _between(theirs.key, mine, entry, in_flight=ours.in_flight)
        elif (first := _counterpart(entry, matched)) is not None and entry.status is EntryStatus.DONE:
            found.append(Difference(type=DriftType.DUPLICATE, key=theirs.key, entry=_name(entry), ours=first, theirs=entry))
        elif entry.status is EntryStatus.DONE or (entry.status is EntryStatus.OPEN and entry.kind in REFUNDS):
            found.append(Difference(type=DriftType.MISSING_LOCALLY, key=theirs.key, entry=_name(entry), theirs=entry, heals=True))
    for entry in left:
        if entry.status is EntryStatus.DONE:
            found.append(Difference(type=DriftType.MISSING_AT_PROVIDER, key=theirs.key, entry=_name(entry), ours=entry))
    return found


def _counterpart(entry: Entry, among: Iterable[Entry]) -> Entry | None:
    same = [each for each in among if each.kind == entry.kind]
    if entry.reference is not None:
        by_reference = next((each for each in same if each.reference == entry.reference), None)
        if by_reference is not None:
            return by_reference
    named = (each for each in same if entry.provider_id is not None and each.provider_id == entry.provider_id)
    return next(named, None)


def _name(entry: Entry) -> str:
    return f"{entry.kind} {entry.provider_id or entry.reference or ''}".strip()


def _between(key: str, ours: Entry, theirs: Entry, *, in_flight: bool) -> list[Difference]:
    def differs(kind: DriftType, *, heals: bool = False) -> list[Difference]:
        return [Difference(type=kind, key=key, entry=_name(theirs), ours=ours, theirs=theirs, heals=heals)]

    if ours.status is EntryStatus.DONE and theirs.status is EntryStatus.DONE:
        # Some providers name no currency.
        if ours.currency and theirs.currency and ours.currency != theirs.currency:
            return differs(DriftType.CURRENCY)
        return differs(DriftType.AMOUNT) if ours.amount != theirs.amount else []
    if ours.status is theirs.status:
        return []
    if ours.status is EntryStatus.OPEN and in_flight:
        # Whoever asked is about to learn it.
        return []
    if theirs.status is EntryStatus.OPEN and ours.status is EntryStatus.NOT_DONE:
        # Given up here and still open there: nothing moved, and what may yet move will be told.
        return []
    came_back = ours.kind in REFUNDS and theirs.status is EntryStatus.NOT_DONE
    return differs(DriftType.STATUS, heals=ours.status is not EntryStatus.DONE or came_back)
