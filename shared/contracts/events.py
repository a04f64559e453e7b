"""What services that read providers' events answer, whoever they are."""

from uuid import UUID

import msgspec

# The code of the refusal that says "not yet": the event is kept and asked about again.
NOT_KNOWN_YET = "not-known-yet"


class EventTaken(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an event: applied, unchanged or ignored (with a reason where it is a stranger's), and whose order it was about."""

    result: str
    reason: str = ""
    # The store that it is about, where it is about one.
    store_id: UUID | None = None
    order_id: UUID | None = None
    intent_id: UUID | None = None
