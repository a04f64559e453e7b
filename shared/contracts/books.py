"""What the reconciler asks whoever owns books that a provider keeps too: one side page by page, beside what the other side says."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from shared.messages import Message, Query


class Domain(StrEnum):
    """Which books are compared."""

    PAYMENTS = "payments"
    SHIPPING = "shipping"
    TAX = "tax"


class EntryStatus(StrEnum):
    """How an operation ended, as far as a side knows."""

    OPEN = "open"
    DONE = "done"
    NOT_DONE = "not_done"


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One operation as one side has it: a capture, a label, a tax document."""

    kind: str
    status: EntryStatus
    currency: str
    # Minor units; none where the sides have no common amount for it (the rest that a void releases is derived).
    amount: int | None = None
    # What the provider calls it, and which row of ours it is or refers to.
    provider_id: str | None = None
    reference: UUID | None = None


class Side(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A payment, label or tax document as one side has it, operation by operation."""

    # What the provider calls the whole.
    key: str
    entries: tuple[Entry, ...]
    made_at: datetime
    order_id: UUID | None = None
    # A question of ours about it is open: whoever asks it will learn the answer.
    in_flight: bool = False


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides of one thing; a side that has nothing of it is none."""

    key: str
    ours: Side | None = None
    theirs: Side | None = None
    # Why the provider's side, which is there, cannot be read.
    unreadable: str = ""


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """A store's books at one provider."""

    store_id: UUID
    environment: str
    domain: Domain
    provider: str


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """Every book a service keeps."""

    books: list[Book]


class Pairs(msgspec.Struct, frozen=True, kw_only=True):
    """A page; `next` is the cursor of the following one."""

    pairs: list[Pair]
    next: str | None = None
    # What the provider listed and another store of ours owns.
    elsewhere: int = 0


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """A page of what our books know the provider by; `next` is the cursor of the following one."""

    keys: list[str]
    next: str | None = None


class ListBooks(Query, frozen=True, kw_only=True):
    """Say which books there are, of every store; asked by the schedule alone."""


class ListTheirs(Query, frozen=True, kw_only=True):
    """Read a page of the provider's books by time of creation, and what ours say of each."""

    domain: Domain
    provider: str
    since: datetime
    until: datetime
    cursor: str | None = None


class ListOurs(Query, frozen=True, kw_only=True):
    """Read by what keys the provider should know what we made in a time; the provider is not asked. Answered with Keys."""

    domain: Domain
    provider: str
    since: datetime
    until: datetime
    cursor: str | None = None


class LookAt(Query, frozen=True, kw_only=True):
    """Read single things on both sides as they are now, the provider's by its own word on each."""

    domain: Domain
    provider: str
    keys: tuple[str, ...]


class Heal(Message, frozen=True, kw_only=True):
    """Have our books learn what the provider's say of one thing, as an observation like any other."""

    domain: Domain
    provider: str
    key: str


class Healed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: applied, unchanged, or unknown (nothing of ours is known under this key)."""

    result: str


class PaymentsListBooks(ListBooks, frozen=True, kw_only=True, tag="payments.list_books.v1"):
    """Ask payments."""


class PaymentsListTheirs(ListTheirs, frozen=True, kw_only=True, tag="background.payments.list_theirs.v1"):
    """Ask payments."""


class PaymentsListOurs(ListOurs, frozen=True, kw_only=True, tag="background.payments.list_ours.v1"):
    """Ask payments."""


class PaymentsLookAt(LookAt, frozen=True, kw_only=True, tag="background.payments.look_at.v1"):
    """Ask payments."""


class PaymentsHeal(Heal, frozen=True, kw_only=True, tag="background.payments.heal.v1"):
    """Tell payments."""


class FulfillmentListBooks(ListBooks, frozen=True, kw_only=True, tag="fulfillment.list_books.v1"):
    """Ask fulfillment."""


class FulfillmentListTheirs(ListTheirs, frozen=True, kw_only=True, tag="background.fulfillment.list_theirs.v1"):
    """Ask fulfillment."""


class FulfillmentListOurs(ListOurs, frozen=True, kw_only=True, tag="background.fulfillment.list_ours.v1"):
    """Ask fulfillment."""


class FulfillmentLookAt(LookAt, frozen=True, kw_only=True, tag="background.fulfillment.look_at.v1"):
    """Ask fulfillment."""


class FulfillmentHeal(Heal, frozen=True, kw_only=True, tag="background.fulfillment.heal.v1"):
    """Tell fulfillment."""


MESSAGES: tuple[type[Message], ...] = (
    PaymentsListBooks,
    PaymentsListTheirs,
    PaymentsListOurs,
    PaymentsLookAt,
    PaymentsHeal,
    FulfillmentListBooks,
    FulfillmentListTheirs,
    FulfillmentListOurs,
    FulfillmentLookAt,
    FulfillmentHeal,
)
