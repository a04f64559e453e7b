"""Messages that could not be handled: shown, sent once more, changed, or put away; and what their services say of them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from shared.messages import Message, Query

PAGE_ROWS_MAX = 200
CHOSEN_MAX = 1_000
RATE_MAX_PER_SECOND = 1_000.0
SEALED = "«sealed»"


# What the services are told and asked about messages of theirs


class PutAway(Message, frozen=True, kw_only=True):
    """Answer a message for ever as discarded, or as replaced by another, unless it has been carried out."""

    message_id: UUID
    source: str
    message_type: str
    # Of the exact bytes, in hexadecimal: another message under the same id is left alone.
    digest: str
    replaced_by: UUID | None = None


class DescribeMessage(Query, frozen=True, kw_only=True):
    """Ask what has become of a message."""

    message_id: UUID
    source: str


class MessageFate(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of a message: open, done, parked, discarded, or unseen; and whether a provider may have been called for it."""

    state: str
    may_have_left: bool


class PaymentsPutAway(PutAway, frozen=True, kw_only=True, tag="background.payments.put_away.v1"):
    """Tell payments."""


class PaymentsDescribeMessage(DescribeMessage, frozen=True, kw_only=True, tag="background.payments.describe_message.v1"):
    """Ask payments."""


class WebhooksPutAway(PutAway, frozen=True, kw_only=True, tag="background.webhooks.put_away.v1"):
    """Tell webhooks."""


class WebhooksDescribeMessage(DescribeMessage, frozen=True, kw_only=True, tag="background.webhooks.describe_message.v1"):
    """Ask webhooks."""


class FulfillmentPutAway(PutAway, frozen=True, kw_only=True, tag="background.fulfillment.put_away.v1"):
    """Tell fulfillment."""


class FulfillmentDescribeMessage(DescribeMessage, frozen=True, kw_only=True, tag="background.fulfillment.describe_message.v1"):
    """Ask fulfillment."""


class ReconcilerPutAway(PutAway, frozen=True, kw_only=True, tag="background.reconciler.put_away.v1"):
    """Tell the reconciler."""


class ReconcilerDescribeMessage(DescribeMessage, frozen=True, kw_only=True, tag="background.reconciler.describe_message.v1"):
    """Ask the reconciler."""


class Attended(msgspec.Struct, frozen=True):
    """How a service is told and asked about a message of its own."""

    put_away: type[PutAway]
    describe: type[DescribeMessage]


ATTENDED = {
    "payments": Attended(PaymentsPutAway, PaymentsDescribeMessage),
    "webhooks": Attended(WebhooksPutAway, WebhooksDescribeMessage),
    "fulfillment": Attended(FulfillmentPutAway, FulfillmentDescribeMessage),
    "reconciler": Attended(ReconcilerPutAway, ReconcilerDescribeMessage),
}


# What operators tell and ask


class LetterStatus(StrEnum):
    """Where a dead letter stands: it waits for somebody, was sent once more, replaced by a changed one, or put away."""

    WAITING = "waiting"
    RETRIED = "retried"
    REPLACED = "replaced"
    DISCARDED = "discarded"


class Action(StrEnum):
    """What is done with dead letters."""

    RETRY = "retry"
    DISCARD = "discard"


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which dead letters are meant: all that fit everything that is said."""

    service: Annotated[str, Meta(max_length=50)] | None = None
    message_type: Annotated[str, Meta(max_length=200)] | None = None
    fingerprint: Annotated[str, Meta(max_length=64)] | None = None
    order_id: UUID | None = None
    correlation_id: Annotated[str, Meta(max_length=200)] | None = None
    message_id: UUID | None = None
    # Words of the reason, the type or the actor, as one would type them into a search engine.
    text: Annotated[str, Meta(max_length=500)] | None = None


class RetryLetter(Message, frozen=True, kw_only=True, tag="reconciler.retry_dead_letter.v1"):
    """Send a dead letter once more, with its own id."""

    letter_id: UUID
    reason: str = ""


class EditLetter(Message, frozen=True, kw_only=True, tag="reconciler.edit_dead_letter.v1"):
    """Put a dead letter away and send another in its place."""

    letter_id: UUID
    body: dict[str, Any]
    reason: str


class DiscardLetter(Message, frozen=True, kw_only=True, tag="reconciler.discard_dead_letter.v1"):
    """Put a dead letter away for ever."""

    letter_id: UUID
    reason: str


class StartRedrive(Message, frozen=True, kw_only=True, tag="reconciler.start_redrive.v1"):
    """Retry or discard many dead letters, at a rate, or only count them."""

    action: Action
    ids: tuple[UUID, ...] | None = None
    chosen: Filter | None = None
    rate_per_second: float = 10.0
    dry_run: bool = False
    reason: str = ""


class StopRedrive(Message, frozen=True, kw_only=True, tag="reconciler.stop_redrive.v1"):
    """Stop a redrive where it is."""

    redrive_id: UUID
    reason: str = ""


class ListLetters(Query, frozen=True, kw_only=True, tag="reconciler.list_dead_letters.v1"):
    """Read a page of dead letters, the newest first."""

    status: LetterStatus | None = None
    chosen: Filter = Filter()
    # Those that do not say whose they are, instead of the store's.
    unreadable: bool = False
    before: UUID | None = None
    limit: int = PAGE_ROWS_MAX


class GroupLetters(Query, frozen=True, kw_only=True, tag="reconciler.group_dead_letters.v1"):
    """Count dead letters by what went wrong, the largest group first."""

    status: LetterStatus = LetterStatus.WAITING
    unreadable: bool = False


class GetLetter(Query, frozen=True, kw_only=True, tag="reconciler.get_dead_letter.v1"):
    """Read a dead letter with everything that is known of it."""

    letter_id: UUID


class ListRedrives(Query, frozen=True, kw_only=True, tag="reconciler.list_redrives.v1"):
    """Read the latest redrives."""

    limit: int = PAGE_ROWS_MAX


class GetRedrive(Query, frozen=True, kw_only=True, tag="reconciler.get_redrive.v1"):
    """Read a redrive."""

    redrive_id: UUID


class LetterView(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as a list shows it."""

    id: UUID
    service: str
    message_type: str
    message_id: UUID | None
    order_id: UUID | None
    correlation_id: str
    actor: str
    reason: str
    attempts: int
    fingerprint: str
    status: LetterStatus
    deaths: int
    retries: int
    first_seen_at: datetime
    died_at: datetime
    settled_at: datetime | None
    settled_by: str
    settled_reason: str
    replaces: UUID | None
    replaced_by: UUID | None


class LetterPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of dead letters; `next` is the cursor of the following one."""

    letters: list[LetterView]
    next: UUID | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One place in which an edited body differs from the one before; what was not there is absent."""

    path: str
    before: Any = None
    after: Any = None


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """One time that a message was parked."""

    died_at: datetime
    reason: str
    traceback: str
    attempts: int


class LetterDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter with everything that is known of it."""

    letter: LetterView
    queue: str
    source: str
    # What is sealed is shown as such, and stays as it is when an edited body says it so.
    body: Any
    # Of a body that is no JSON.
    body_text: str | None
    headers: dict[str, Any]
    history: list[Death]
    difference: list[Change]
    # As its service says just now; none while that is down, or the message has no id.
    fate: MessageFate | None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters that are alike."""

    fingerprint: str
    service: str
    message_type: str
    reason: str
    letters: int
    oldest_at: datetime
    newest_at: datetime


class Groups(msgspec.Struct, frozen=True, kw_only=True):
    """All groups, the largest first."""

    groups: list[Group]


class RedriveView(msgspec.Struct, frozen=True, kw_only=True):
    """Many dead letters being retried or discarded: how many there were, and what came of them so far."""

    id: UUID
    action: Action
    status: str
    rate_per_second: float
    letters: int
    done: int
    # Settled by somebody else meanwhile, or refused by their service; the last refusal says why.
    skipped: int
    last_error: str | None
    actor: str
    reason: str
    created_at: datetime
    finished_at: datetime | None


class RedrivePage(msgspec.Struct, frozen=True, kw_only=True):
    """The latest redrives."""

    redrives: list[RedriveView]


MESSAGES: tuple[type[Message], ...] = (
    *(attended.put_away for attended in ATTENDED.values()),
    *(attended.describe for attended in ATTENDED.values()),
    RetryLetter,
    EditLetter,
    DiscardLetter,
    StartRedrive,
    StopRedrive,
    ListLetters,
    GroupLetters,
    GetLetter,
    ListRedrives,
    GetRedrive,
)
