"""The rules of webhooks: how an event stands, who is told of it, and how long it is waited for."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from shared.credentials import Credential
from shared.errors import Refusal
from shared.ids import NOBODY
from shared.messages import Environment
from shared.settings import SettingsRefused

BODY_MAX_BYTES = 1024 * 1024
SIGNATURE_TOLERANCE_SECONDS = 300
EVENT_NAME_MAX_CHARACTERS = 255
# The type of an event whose body cannot be read.
UNREADABLE_TYPE = "unreadable"

# An event of something not known yet is matched later: after so many seconds, again and again, for three days.
MATCH_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 900.0)
MATCH_FOR_SECONDS = 3 * 24 * 3600.0

# Who reads the events of a provider; what nobody reads is kept and counted as ignored.
READERS: Mapping[str, str] = {
    "sandbox": "payments",
    "stripe": "payments",
    "sandbox-carrier": "fulfillment",
    "easypost": "fulfillment",
    "shippo": "fulfillment",
}


class Status(StrEnum):
    """How an event stands."""

    RECEIVED = "received"
    # A try failed; another one is under way.
    FAILING = "failing"
    # Nothing is known yet of what it speaks of.
    WAITING = "waiting"
    PROCESSED = "processed"
    # It says nothing that concerns us.
    IGNORED = "ignored"
    # Its last try failed; it lies in the dead letters, and can be replayed.
    DEAD = "dead"
    # What it speaks of never became known.
    UNMATCHED = "unmatched"


SETTLED = frozenset({Status.PROCESSED, Status.IGNORED})


# Between the values of a header that was repeated; no value can hold one.
LINE_BREAK = "\n"


class Incoming(msgspec.Struct, frozen=True):
    """A request as it came: its headers in lower case, repeated ones joined by line breaks, and its exact bytes."""

    headers: Mapping[str, str]
    body: bytes


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What a genuine request says happened, as far as anybody can tell without understanding it."""

    id: str
    type: str
    happened_at: datetime | None
    payload: bytes


# Stripe's test sends all have this id, whatever they are about (evt_00000000000000).
SAMPLE_ID = re.compile(r"evt_0+")


def keepable(event: Event) -> Event:
    """Name an event as it can be stored: an id that is too long for an index or holds NUL is replaced by its digest, a type is cut.

    A sample's id, which many events bear, is replaced by the digest of what was sent.
    """
    if SAMPLE_ID.fullmatch(event.id):
        return msgspec.structs.replace(event, id=f"sample:{hashlib.sha256(event.payload).hexdigest()}")
    named = len(event.id) <= EVENT_NAME_MAX_CHARACTERS and "\0" not in event.id
    return msgspec.structs.replace(
        event,
        id=event.id if named else f"sha256:{hashlib.sha256(event.id.encode()).hexdigest()}",
        type=event.type.replace("\0", "")[:EVENT_NAME_MAX_CHARACTERS],
    )


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Whose webhooks are taken: the secret that matches says to which account and environment an event belongs."""

    provider: str
    environment: Environment
    # As the service that reads the events names the provider's account.
    account: str
    # All that are active; two while one replaces the other.
    secrets: tuple[str, ...]
    # The exact address that was told to the provider, where the signature covers it (Square).
    url: str = ""
    # The store that alone uses the account. None where several do: then each event is the store's that it is about.
    store_id: UUID | None = None

    @property
    def received_for(self) -> UUID:
        """The store under which an event is filed when it comes in; that of no store where the account is shared."""
        return self.store_id or NOBODY


def configured_accounts(text: str) -> list[Account]:
    """Read the accounts of the installation from a JSON list; raises SettingsRefused."""
    try:
        return msgspec.json.decode(text, type=list[Account])
    except msgspec.DecodeError as wrong:
        raise SettingsRefused(f"must be a JSON list of accounts: {wrong}") from None


def accounts_of(credentials: Sequence[Credential]) -> list[Account]:
    """Tell whose webhooks are taken by the secrets that stores gave, all that are active of each."""
    secrets: dict[str, list[Credential]] = {}
    for credential in credentials:
        secrets.setdefault(credential.account, []).append(credential)
    return [
        Account(
            provider=active[0].provider,
            store_id=active[0].store_id,
            environment=active[0].environment,
            account=account,
            secrets=tuple(each.fields["secret"] for each in active),
            url=active[0].fields.get("url", ""),
        )
        for account, active in secrets.items()
    ]


class NotGenuine(Refusal):
    """The signature does not match, or there is no account whose it could be; the answer never says which."""

    code = "signature-invalid"
    title = "The signature is not valid"
    status = 401


# A delivery that was not taken is tried again after so long, for three days in all.
DELIVERY_SECONDS = (5.0, 30.0, 120.0, 600.0, 1_800.0, 3_600.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0, 93_600.0)
# How much earlier or later, at random, so that a merchant who comes back is not stormed.
DELIVERY_JITTER = 0.2


# So many deliveries are out at once: in all, for one store (a quarter), for those of its endpoints that time out, and for one endpoint.
DELIVERIES_OUT_MAX = 64
DELIVERIES_OUT_PER_STORE_MAX = DELIVERIES_OUT_MAX // 4
DELIVERIES_OUT_PER_STORE_TIMING_OUT_MAX = DELIVERIES_OUT_PER_STORE_MAX // 2
DELIVERIES_OUT_PER_ENDPOINT_MAX = 8
# How long an endpoint may ask us to wait (Retry-After); one that asks for longer waits this long.
RETRY_AFTER_MAX_SECONDS = 24 * 3600.0
RETRY_AFTER_MAX_DIGITS = 12


def delivery_again_seconds(tries: int, *, spread: float) -> float | None:
    """Say in how many seconds an event is delivered again after so many tries; nothing after the last. `spread` is from 0 to 1."""
    if tries >= len(DELIVERY_SECONDS):
        return None
    return DELIVERY_SECONDS[tries] * (1 + DELIVERY_JITTER * (2 * spread - 1))


def retry_after_seconds(text: str | None, *, now: datetime) -> float | None:
    """Read a Retry-After header (RFC 9110: seconds or a date) as seconds from now, none where it says nothing that can be read."""
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:RETRY_AFTER_MAX_DIGITS])
    else:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
    return min(seconds, RETRY_AFTER_MAX_SECONDS) if seconds > 0 else None


def wait_seconds(tries: int) -> float:
    """Say in how many seconds something not known yet is looked for again."""
    return MATCH_SECONDS[min(tries, len(MATCH_SECONDS) - 1)]
