"""The gateway's rules: who may do what, what makes two requests the same, and what must never come in."""

import base64
import hashlib
import hmac
import json
import math
import re
from collections import Counter
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any
from uuid import UUID

import msgspec

from shared.errors import Outcome, Refusal, Retry
from shared.messages import Environment

KEY_PREFIX = "tender"
TOKEN_PREFIX = "tok"
IDEMPOTENCY_KEY = re.compile(r"^[\x20-\x7e]{1,255}$")
WAIT_MAX_SECONDS = 60
# In a header. Python's own digits are also those of other scripts, and "²"; a number of thousands of digits it does not read at all.
WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")
CARD_NUMBER = re.compile(r"\d(?:[ -]?\d){11,18}")


class Role(StrEnum):
    """Who a caller is to a store; the last two come from tokens that expire."""

    CHECKOUT = "checkout"
    SUPPORT = "support"
    FINANCE = "finance"
    ADMIN = "admin"
    OPERATOR = "operator"
    SHOPPER = "shopper"
    CUSTOMER = "customer"


# Who has a key and may sign in at the console.
STAFF = frozenset({Role.SUPPORT, Role.FINANCE, Role.ADMIN, Role.OPERATOR})


class Access(StrEnum):
    """What a route does for its caller; from it follows which roles may call it."""

    CHECKOUT = "checkout"
    CUSTOMER = "customer"
    READ = "read"
    RETRY = "retry"
    FINANCE = "finance"
    REPAIR = "repair"
    ADMIN = "admin"
    INSTALLATION = "installation"
    ANYONE = "anyone"


ROLES: dict[Access, frozenset[Role]] = {
    Access.CHECKOUT: frozenset({Role.CHECKOUT, Role.ADMIN, Role.SHOPPER}),
    Access.CUSTOMER: frozenset({Role.CUSTOMER}),
    Access.READ: STAFF,
    # Replays and retries: the same message, event or delivery again.
    Access.RETRY: frozenset({Role.SUPPORT, Role.ADMIN, Role.OPERATOR}),
    # Captures, refunds, voids, labels, decisions about money, exports.
    Access.FINANCE: frozenset({Role.FINANCE, Role.ADMIN, Role.OPERATOR}),
    # A changed message can do whatever any message can.
    Access.REPAIR: frozenset({Role.ADMIN, Role.OPERATOR}),
    # Keys, tokens, credentials, signing secrets, endpoints, orders, settings.
    Access.ADMIN: frozenset({Role.ADMIN}),
    Access.INSTALLATION: frozenset({Role.OPERATOR}),
    Access.ANYONE: frozenset(Role),
}


class Principal(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Who calls: from which store and environment, in which role, and limited to what."""

    id: str
    store_id: UUID
    environment: Environment
    role: Role
    order_id: UUID | None = None
    customer_id: UUID | None = None

    @cached_property
    def scope(self) -> str:
        """The room in which this caller's idempotency keys are unique."""
        return f"{self.store_id}:{self.environment.value}:{self.id}"

    @property
    def actor(self) -> str:
        """Who, for the history."""
        return f"{self.role.value}:{self.id}"

    def may(self, access: Access) -> bool:
        """Tell whether this caller's role has an access."""
        return self.role in ROLES[access]

    def in_store(self, header: str | None) -> "Principal":
        """Work in the store that the Tender-Store header names, which only an operator may outside their own; none is the own."""
        if header is None:
            return self
        try:
            store_id = UUID(header.strip())
        except ValueError as wrong:
            raise HeaderMalformed(f"Tender-Store takes a store's id, not {header!r}.", {"header": "Tender-Store"}) from wrong
        if store_id == self.store_id:
            return self
        self.require(Access.INSTALLATION)
        return msgspec.structs.replace(self, store_id=store_id)

    def require(self, access: Access) -> None:
        """Refuse a caller whose role does not have an access."""
        if not self.may(access):
            needed = ", ".join(sorted(ROLES[access]))
            raise Forbidden(f"This needs one of the roles {needed}.", {"role": self.role.value})


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody signed in at the console: as whom, by the key of which name."""

    principal: Principal
    key_name: str


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as it is listed; the secret was shown once."""

    id: UUID
    role: Role
    name: str
    created_at: datetime
    revoked_at: datetime | None


class KeysView(msgspec.Struct, frozen=True, kw_only=True):
    """The API keys of a store's environment, the newest first."""

    keys: list[KeyView]


# Refusals that come before a key is claimed


class Unauthenticated(Refusal):
    """No valid key or token."""

    code = "unauthenticated"
    title = "A valid API key or token is needed"
    status = 401
    outcome = Outcome.NOT_ATTEMPTED


class Forbidden(Refusal):
    """The caller is known and may not do this."""

    code = "forbidden"
    title = "This key or token may not do this"
    status = 403
    outcome = Outcome.NOT_ATTEMPTED


class OwnKey(Refusal):
    """Whoever revokes the key they use would lock themselves out."""

    code = "own-key"
    title = "This is the key you use"
    outcome = Outcome.NOT_ATTEMPTED


class KeyRequired(Refusal):
    """Every mutation needs an idempotency key."""

    code = "idempotency-key-required"
    title = "The Idempotency-Key header is missing"
    status = 400
    outcome = Outcome.NOT_ATTEMPTED


class KeyMalformed(Refusal):
    """The idempotency key is not 1 to 255 printable characters."""

    code = "idempotency-key-malformed"
    title = "The Idempotency-Key header cannot be read"
    status = 400
    outcome = Outcome.NOT_ATTEMPTED


class KeyReused(Refusal):
    """The key belongs to another request."""

    code = "idempotency-key-reused"
    title = "This Idempotency-Key was used for another request"
    status = 422
    outcome = Outcome.CONFLICT


class TooManyRequests(Refusal):
    """The caller is over its rate."""

    code = "rate-limited"
    title = "Too many requests with this key"
    status = 429
    outcome = Outcome.NOT_ATTEMPTED
    retry = Retry.AFTER
    retry_after_seconds = 1


# Within so long so many sign-ins may fail.
SIGN_INS_WITHIN_SECONDS = 60


class TooManySignIns(Refusal):
    """Sign-ins have failed too often lately, from one address or in all."""

    code = "too-many-sign-ins"
    title = "Too many failed sign-ins"
    status = 429
    outcome = Outcome.NOT_ATTEMPTED
    retry = Retry.AFTER
    retry_after_seconds = SIGN_INS_WITHIN_SECONDS


class Overloaded(Refusal):
    """The gateway takes no more work just now."""

    code = "overloaded"
    title = "The service takes no more requests just now"
    status = 503
    outcome = Outcome.NOT_ATTEMPTED
    retry = Retry.SAME_KEY
    retry_after_seconds = 1


class TooManyInHand(Refusal):
    """This store or caller has as many requests under way as one may; the others' go on."""

    code = "too-many-in-hand"
    title = "Too many requests in progress"
    status = 429
    outcome = Outcome.NOT_ATTEMPTED
    retry = Retry.SAME_KEY
    retry_after_seconds = 1


class CardNumberRefused(Refusal):
    """A card number came in; only tokens may."""

    code = "card-number-refused"
    title = "Send a payment method's token, never a card number"
    status = 422
    outcome = Outcome.NOT_ATTEMPTED


class BodyAmbiguous(Refusal):
    """The body is JSON that two readers could read differently."""

    code = "malformed-request"
    title = "The body cannot be read in one way only"
    status = 400
    outcome = Outcome.NOT_ATTEMPTED


class TextUnstorable(Refusal):
    """A text holds a character that cannot be kept."""

    code = "invalid-request"
    title = "A text holds a character that cannot be kept"
    status = 422
    outcome = Outcome.NOT_ATTEMPTED


class HeaderMalformed(Refusal):
    """A header cannot be read."""

    code = "header-malformed"
    title = "A header cannot be read"
    status = 400
    outcome = Outcome.NOT_ATTEMPTED


def idempotency_key(header: str | None) -> str:
    """Read the Idempotency-Key header, bare or quoted (RFC 8941 string)."""
    if header is None:
        raise KeyRequired("Send an Idempotency-Key of your choice, the same again on every retry.")
    bare = header.strip()
    if len(bare) >= 2 and bare[0] == bare[-1] == '"':
        bare = bare[1:-1]
    if not IDEMPOTENCY_KEY.match(bare):
        raise KeyMalformed("An Idempotency-Key is 1 to 255 printable ASCII characters.")
    return bare


def wait_seconds(prefer: str | None, default_seconds: float) -> float:
    """Read how long the caller wants to wait from the Prefer header (RFC 7240)."""
    for preference in (prefer or "").split(","):
        name, _, value = preference.strip().partition("=")
        if name.lower() == "respond-async":
            return 0.0
        if name.lower() == "wait":
            if not WHOLE_NUMBER.fullmatch(value.strip()):
                raise HeaderMalformed(f"Prefer: wait takes whole seconds, not {value!r}.", {"header": "Prefer"})
            return float(min(int(value), WAIT_MAX_SECONDS))
    return default_seconds


def expected_version(if_match: str | None) -> int | None:
    """Read the version a caller expects from If-Match; `*` and no header expect nothing."""
    if if_match is None or if_match.strip() == "*":
        return None
    bare = if_match.strip().removeprefix("W/").strip('"')
    if not WHOLE_NUMBER.fullmatch(bare):
        raise HeaderMalformed(f"If-Match takes an order's version as its ETag, not {if_match!r}.", {"header": "If-Match"})
    return int(bare)


def request_hash(method: str, path: str, body: Any, headers: tuple[str, ...] = ()) -> bytes:
    """Fingerprint a request: method, path and the JSON's meaning, whatever its spelling."""
    canonical = msgspec.json.encode([method, path, body, headers], order="deterministic")
    return hashlib.sha256(canonical).digest()


def refuse_card_numbers(text: str) -> None:
    """Refuse anything that looks like a card number (12 to 19 digits that pass the Luhn check)."""
    for found in CARD_NUMBER.findall(text):
        digits = [int(c) for c in found if c.isdigit()]
        doubled = [d * 2 - 9 if d > 4 else d * 2 for d in digits[-2::-2]]
        if (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0:
            raise CardNumberRefused("This looks like a card number; it was not stored.", {"field": "$.payment_method"})


def parsed(raw: bytes) -> Any:
    """Read a body's JSON; refuses what readers differ over (RFC 8259 4 and 6: a key twice, endless numbers) and texts that hold NUL."""
    try:
        value = _READER.decode(raw.decode())
    except (json.JSONDecodeError, UnicodeError):
        raise
    except ValueError as endless:
        raise BodyAmbiguous("A number has more digits than can be read.", {}) from endless
    # Postgres keeps no NUL; JSON can only spell it as an escape.
    if b"\\u0000" in raw:
        refuse_unstorable(value)
    return value


def refuse_unstorable(value: Any) -> None:
    """Refuse a value with a text in it that holds NUL."""
    if (inside := _where_nul(value)) is not None:
        field = f"${inside}"
        raise TextUnstorable(f"{field} holds a NUL character.", {"errors": [{"field": field, "reason": "holds a NUL character"}]})


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise BodyAmbiguous(f"The key {twice!r} comes twice in one object.", {"key": twice})
    return found


_READER = json.JSONDecoder(object_pairs_hook=_each_key_once)


def _where_nul(value: Any) -> str | None:
    """Find a text with NUL; where it lies is written on the way back, for a way to each of many values would be longer than the body."""
    match value:
        case str():
            return "" if "\0" in value else None
        case dict():
            if any("\0" in name for name in value):
                return ""
            return next((f".{name}{found}" for name, inner in value.items() if (found := _where_nul(inner)) is not None), None)
        case list():
            return next((f"[{number}]{found}" for number, inner in enumerate(value) if (found := _where_nul(inner)) is not None), None)
    return None


# API keys


def api_key(key_id: UUID, environment: Environment, secret: str) -> str:
    """Write an API key as its owner sees it, once."""
    return f"{KEY_PREFIX}_{environment.value}_{key_id.hex}_{secret}"


class KeyParts(msgspec.Struct, frozen=True, kw_only=True):
    """What an API key says of itself; the environment is compared with the stored one."""

    environment: Environment
    id: UUID
    secret: str


def key_parts(key: str) -> KeyParts | None:
    """Read an API key's parts; nothing when it is not one."""
    parts = key.split("_", 3)
    if len(parts) != 4 or parts[0] != KEY_PREFIX or parts[1] not in set(Environment) or not re.fullmatch(r"[0-9a-f]{32}", parts[2]):
        return None
    return KeyParts(environment=Environment(parts[1]), id=UUID(parts[2]), secret=parts[3])


def secret_hash(secret: str) -> bytes:
    """Hash a key's secret for keeping."""
    return hashlib.sha256(secret.encode()).digest()


# Tokens: signed, not stored, and they expire


class Claims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token says of its bearer."""

    id: UUID
    store_id: UUID
    environment: Environment
    role: Role
    expires_at: datetime
    order_id: UUID | None = None
    customer_id: UUID | None = None


def unsigned_token(claims: Claims) -> str:
    """Write a token without its signature: what may be stored, and is worth nothing."""
    return f"{TOKEN_PREFIX}_{base64.urlsafe_b64encode(msgspec.json.encode(claims)).decode().rstrip('=')}"


def sign(unsigned: str, secret: str) -> str:
    """Complete a token; the same one always gets the same signature."""
    mac = hmac.digest(secret.encode(), unsigned.encode(), "sha256")
    return f"{unsigned}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def is_token(credential: str) -> bool:
    """Tell a token from a key, by how it begins."""
    return credential.startswith(f"{TOKEN_PREFIX}_")


def read_token(token: str, secret: str, now: datetime) -> Principal | None:
    """Read a token; nothing when it is not ours, was altered or has expired."""
    unsigned, _, _ = token.rpartition(".")
    if not is_token(unsigned) or not hmac.compare_digest(sign(unsigned, secret).encode(), token.encode()):
        return None
    payload = unsigned.removeprefix(f"{TOKEN_PREFIX}_")
    claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=Claims)
    if claims.expires_at <= now:
        return None
    return Principal(
        id=str(claims.id),
        store_id=claims.store_id,
        environment=claims.environment,
        role=claims.role,
        order_id=claims.order_id,
        customer_id=claims.customer_id,
    )


# Rates


class Bucket(msgspec.Struct, frozen=True):
    """What is left of a caller's burst, and since when."""

    tokens: float
    at_seconds: float


def draw(bucket: Bucket | None, *, now_seconds: float, rate_per_second: float, burst: int) -> Bucket:
    """Take one request out of a caller's bucket; refuses when it is empty."""
    before = bucket or Bucket(float(burst), now_seconds)
    tokens = min(float(burst), before.tokens + (now_seconds - before.at_seconds) * rate_per_second)
    if tokens < 1:
        raise TooManyRequests(f"Wait {math.ceil((1 - tokens) / rate_per_second)} s.", {"rate_per_second": rate_per_second})
    return Bucket(tokens - 1, now_seconds)
