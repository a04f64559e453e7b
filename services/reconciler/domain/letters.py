"""A dead letter: what can be read of it, what makes two alike, and how an edited one differs."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from shared import topology
from shared.contracts.dead_letters import SEALED, Change
from shared.differing import changes
from shared.ids import NOBODY
from shared.inbox import digest_of
from shared.messages import Environment
from shared.vault import WRAPPED

TEXT_MAX_CHARACTERS = 8_000
BODY_SHOWN_MAX_BYTES = 64 * 1024
FRAMES_MAX = 5
# Whatever goes by these names is shown to nobody, also where a stranger's message says it in the clear.
SECRET_NAMES = re.compile(r"token|secret|password|api_?key|authorization|payment_method|card|cvc|iban|email|phone", re.IGNORECASE)
# What differs between two of a kind: names of things, numbers, quoted values.
_PARTICULAR = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\d+(?:\.\d+)*|'[^']*'")
_OWN = re.compile(r"(^|/)(services|shared)/")
_FRAME = re.compile(r'File "([^"]+)", line \d+, in (\S+)')


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as it is kept."""

    service: str
    # Which lane it came from, and goes back to.
    queue: str
    store_id: UUID
    environment: str
    source: str
    message_id: UUID | None
    digest: bytes
    message_type: str
    actor: str
    correlation_id: str
    order_id: UUID | None
    headers: dict[str, Any]
    body: bytes
    reason: str
    traceback: str
    attempts: int
    first_seen_at: datetime
    died_at: datetime

    @property
    def fingerprint(self) -> str:
        """Name what went wrong: the same for letters that failed alike."""
        frames = _FRAME.findall(self.traceback)
        # By our own frames where there are any: a library fails in other places the second time, when it has prepared what it does.
        own = [frame for frame in frames if _OWN.search(frame[0])] or frames
        where = [f"{file.rpartition('/')[2]}:{function}" for file, function in own[-FRAMES_MAX:]]
        said = [self.service, self.message_type, _PARTICULAR.sub("*", self.reason), *where]
        return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]

    @property
    def identity(self) -> bytes:
        """Name the message: the same whenever it dies; one without an id is named by when it died."""
        who = [str(self.store_id), self.environment, self.source, str(self.message_id or self.died_at.isoformat())]
        return hashlib.sha256("\n".join([self.service, self.queue, *who, self.digest.hex()]).encode()).digest()


def read(service: str, *, kind: str, body: bytes, headers: Mapping[str, Any], now: datetime) -> Letter:
    """Read as much of a dead letter as can be read; never fails, whatever it holds."""
    store_id, environment = _uuid(headers.get("store_id")), str(headers.get("environment", ""))
    owned = store_id is not None and environment in set(Environment)
    by_broker = _by_broker(headers)
    died_at = _moment(headers.get("dead_at")) or by_broker.died_at or now
    queue = str(headers.get("dead_queue") or by_broker.queue)
    return Letter(
        service=service,
        queue=queue if queue in _lanes(service) else _lane_of(service, kind),
        store_id=store_id if store_id is not None and owned else NOBODY,
        environment=environment if owned else "",
        source=_text(headers.get("source", "")),
        message_id=_uuid(headers.get("id")) if owned else None,
        digest=digest_of(kind, body),
        message_type=_text(kind),
        actor=_text(headers.get("actor", "")),
        correlation_id=_text(headers.get("correlation_id", "")),
        order_id=_order_of(body),
        headers={_text(name): _plain(value) for name, value in headers.items()},
        body=body,
        reason=_text(headers.get("dead_reason") or by_broker.reason),
        traceback=_text(headers.get("dead_traceback", "")),
        attempts=_number(headers.get("dead_attempts")) or by_broker.attempts,
        first_seen_at=_moment(headers.get("first_seen")) or died_at,
        died_at=died_at,
    )


class _ByBroker(msgspec.Struct, frozen=True, kw_only=True):
    queue: str = ""
    reason: str = "the broker gave it up"
    attempts: int = 1
    died_at: datetime | None = None


_BROKER_SAYS = {
    "rejected": "its service could neither handle it nor send it on",
    "delivery_limit": "whoever took it died with it in hand, again and again",
    "expired": "it was not taken in time",
    "maxlen": "the queue was full",
}


def _by_broker(headers: Mapping[str, Any]) -> _ByBroker:
    """Read what the broker says of a letter that it moved itself."""
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else None
    if last is None:
        return _ByBroker()
    reason = str(last.get("reason", ""))
    return _ByBroker(
        queue=str(last.get("queue", "")),
        reason=f"Broker: {_BROKER_SAYS.get(reason, reason)}",
        attempts=_number(headers.get("x-delivery-count")) or _number(last.get("count")) or 1,
        died_at=_moment(last.get("time")),
    )


def _lanes(service: str) -> tuple[str, str]:
    return topology.lane(service), topology.background_lane(service)


def _lane_of(service: str, kind: str) -> str:
    inward, background = _lanes(service)
    return inward if kind.startswith(f"{service}.") else background


def _order_of(body: bytes) -> UUID | None:
    found = _parsed(body)
    return _uuid(found.get("order_id")) if isinstance(found, dict) else None


def _parsed(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _uuid(value: Any) -> UUID | None:
    try:
        return UUID(str(value))
    except ValueError:
        return None


def _moment(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else 0


def _text(value: Any) -> str:
    # A database text holds no NUL.
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()[:TEXT_MAX_CHARACTERS]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_text(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, bool | int):
        return value
    return value.isoformat() if isinstance(value, datetime) else _text(value)


# Showing and editing


def shown(body: bytes) -> tuple[Any, str | None]:
    """Give a body as an operator may see it: what is sealed or secret only as such; as text where it is no JSON."""
    found = _parsed(body)
    if found is None and body.strip() != b"null":
        return None, _text(body[:BODY_SHOWN_MAX_BYTES])
    return _masked(found), None


def _masked(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _masked(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner, name) for inner in value]
    return SEALED if isinstance(value, str) and value and (value.startswith(f"{WRAPPED}:") or SECRET_NAMES.search(name)) else value


def edited(before: bytes, said: dict[str, Any]) -> bytes:
    """Give the body that an operator's edition means: what it shows as sealed is what it was."""
    return msgspec.json.encode(_unmasked(said, _parsed(before)))


def _unmasked(said: Any, before: Any) -> Any:
    if said == SEALED:
        return before
    if isinstance(said, dict):
        known = before if isinstance(before, dict) else {}
        return {key: _unmasked(inner, known.get(key)) for key, inner in said.items()}
    if isinstance(said, list):
        listed = before if isinstance(before, list) else []
        return [_unmasked(inner, listed[n] if n < len(listed) else None) for n, inner in enumerate(said)]
    return said


def difference(before: bytes, after: bytes) -> list[Change]:
    """Tell where two bodies differ, as an operator may see them."""
    return list(changes(shown(before)[0], shown(after)[0]))
