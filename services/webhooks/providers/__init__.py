"""How the providers sign what they send, and how it is told what they sent."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from services.webhooks.domain import LINE_BREAK, SIGNATURE_TOLERANCE_SECONDS, UNREADABLE_TYPE, Account, Event, Incoming

UNKNOWN_TYPE = "unknown"
# A shared secret shorter than this can be guessed; providers' own are longer (Standard Webhooks: 24 to 64).
SECRET_MIN_BYTES = 16
# Ten until the year 2286; Python reads no number of thousands of digits.
TIMESTAMP_MAX_DIGITS = 12
# Hashing more than this is left to a thread, so that nobody else waits for it.
HASHED_ON_LOOP_MAX_BYTES = 64 * 1024


class Forged(Exception):
    """A signature does not match; the text is for our log, never for the sender."""


class SecretUnfit(Exception):
    """A secret cannot be one that this provider signs with; the text says why, and quotes nothing of it."""


class Opened(msgspec.Struct, frozen=True):
    """What a request turned out to be: genuine events with the account whose secret matched, and why others are not."""

    genuine: tuple[tuple[Account, Event], ...]
    forged: tuple[str, ...] = ()


class Scheme(Protocol):
    """How one provider signs; `accepted` is what it wants to hear."""

    accepted: bytes

    def check_secret(self, secret: str) -> None:
        """Raise SecretUnfit for what cannot be a secret of this provider."""
        ...

    async def open(self, incoming: Incoming, accounts: Sequence[Account], *, now: datetime) -> Opened:
        """Tell what is genuine in a request, and whose it is."""
        ...


class WholeBody:
    """A scheme with one signature over the whole of a request, which holds one event."""

    accepted = b""

    def __init__(
        self,
        check: Callable[[Incoming, Account, str, datetime], None],
        read: Callable[[Incoming], Event],
        check_secret: Callable[[str], None] | None = None,
    ) -> None:
        self._check = check
        self._read = read
        self._check_secret = check_secret or insist_on_length

    def check_secret(self, secret: str) -> None:
        """Raise SecretUnfit for what cannot be a secret of this provider."""
        self._check_secret(secret)

    async def open(self, incoming: Incoming, accounts: Sequence[Account], *, now: datetime) -> Opened:
        """Try every active secret of every account."""
        if len(incoming.body) > HASHED_ON_LOOP_MAX_BYTES:
            return await asyncio.to_thread(self._open, incoming, accounts, now)
        return self._open(incoming, accounts, now)

    def _open(self, incoming: Incoming, accounts: Sequence[Account], now: datetime) -> Opened:
        reasons: list[str] = []
        for account in accounts:
            for secret in account.secrets:
                try:
                    self._check(incoming, account, secret, now)
                except Forged as forged:
                    reasons.append(str(forged))
                    continue
                return Opened(((account, self._read(incoming)),))
        return Opened((), tuple(reasons[:1]) or ("no secret is configured",))


def insist_on_length(secret: str) -> None:
    """Refuse a shared secret that could be guessed."""
    if len(secret.encode()) < SECRET_MIN_BYTES:
        raise SecretUnfit(f"it has fewer than {SECRET_MIN_BYTES} bytes")


def key_of_base64(text: str) -> bytes:
    """Decode a key, which is written as base64 is and in no other way; raises SecretUnfit."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as broken:
        raise SecretUnfit("it is not base64") from broken


def header(incoming: Incoming, name: str) -> str:
    """Read a header that a genuine request has."""
    value = incoming.headers.get(name)
    if value is None:
        raise Forged(f"{name} is missing")
    return value


def lines(incoming: Incoming, name: str) -> list[str]:
    """Read every line of a header that a genuine request has at least one of."""
    return header(incoming, name).split(LINE_BREAK)


def insist(given: Sequence[str], *expected: str) -> None:
    """Refuse unless one of what was given is one of what a signature may be; takes as long for any that is not."""
    if not any(hmac.compare_digest(each.encode(), one.encode()) for each in expected for one in given):
        raise Forged("no signature matches")


def check_time(timestamp: str, now: datetime) -> None:
    """Refuse a time-stamp in Unix seconds that is too old or too far ahead."""
    # Digits alone: Python would also read "+1", "1_0" and digits of other scripts.
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= TIMESTAMP_MAX_DIGITS):
        raise Forged("the time-stamp cannot be read")
    if abs(now.timestamp() - int(timestamp)) > SIGNATURE_TOLERANCE_SECONDS:
        raise Forged("the time-stamp is outside the tolerance")


class _Facts(msgspec.Struct):
    id: Any = None
    event_id: Any = None
    type: Any = None
    event_type: Any = None
    event: Any = None
    description: Any = None
    created: Any = None
    created_at: Any = None
    create_time: Any = None
    created_on: Any = None
    # Adyen's platform and Mollie write it so.
    created_at_camel: Any = msgspec.field(default=None, name="createdAt")


def read_json(incoming: Incoming, *, id_prefix: str = "") -> Event:
    """Read the id, type and time where most providers write them; without an id the body's own digest is one."""
    try:
        facts = msgspec.json.decode(incoming.body, type=_Facts)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        # Genuine all the same, so it is kept: somebody has to look at it.
        facts = _Facts(type=UNREADABLE_TYPE)
    found = facts.event_id or facts.id
    named = isinstance(found, str) and found.startswith(id_prefix)
    kinds = (facts.type, facts.event_type, facts.event, facts.description)
    times = (facts.created, facts.created_at, facts.create_time, facts.created_on, facts.created_at_camel)
    return Event(
        id=found if named else digest(incoming.body),
        type=next((kind for kind in kinds if isinstance(kind, str) and kind), UNKNOWN_TYPE),
        happened_at=moment(next((time for time in times if time), None)),
        payload=incoming.body,
    )


def digest(body: bytes) -> str:
    """Name an event that has no id by its content."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def moment(value: Any) -> datetime | None:
    """Read Unix seconds or ISO 8601; nothing when it is neither, or no time that can be kept."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        if found is None or found.tzinfo is None:
            return found and found.replace(tzinfo=UTC)
        return found.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
