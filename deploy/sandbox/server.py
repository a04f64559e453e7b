"""The sandbox over HTTP: one set of books behind several faces, idempotency keys, and misfortunes on request."""

import asyncio
import base64
import hashlib
import random
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from litestar import MediaType, Request, Response
from litestar.datastructures import State

from deploy.sandbox.books import Books, Payment, Refused, now
from deploy.sandbox.faces.stripe_versions import CURRENT
from deploy.sandbox.intermediary import Intermediary
from deploy.sandbox.parcels import Carrier
from deploy.sandbox.taxbooks import TaxOffice
from deploy.sandbox.tokens import Act
from deploy.sandbox.webhooks import Outgoing

SLOW_SECONDS = 1.0
PAGE_ROWS_MAX = 100
BODY_MAX_BYTES = 64 * 1024

HttpRequest = Request[Any, Any, State]
Fields = dict[str, Any]

# Troubles that can befall any call. Of "busy", "fail" and "silent" nothing has happened; of the others all has.
WEATHERS = {"slow": Act.SLOW, "busy": Act.BUSY_ONCE, "fail": Act.FAIL_ONCE, "silent": Act.SILENT_ONCE, "late": Act.SUCCEED_SILENTLY}


class Face(Protocol):
    """How requests and errors are written in one provider's API."""

    # Whether a failure of its own is what every repeat of its key gets, too.
    remembers_failures: bool

    def read(self, raw: bytes) -> Fields:
        """Read a request's body; raises Refused."""
        ...

    def error(self, refused: Refused) -> bytes:
        """Write an error."""
        ...


class Account(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the Stripe account behind the face can do."""

    multicapture: bool = True
    # How long a new payment is not found by searching.
    search_lag_seconds: float = 1.0
    # In some countries accounts have no search.
    searchable: bool = True
    # What its events, its dashboard and time speak, and requests that name no version.
    api_version: str = CURRENT


class Sandbox:
    """The simulator's state while it runs."""

    def __init__(
        self,
        books: Books,
        *,
        base_url: str,
        api_key: str,
        silence_seconds: float,
        outgoing: Outgoing | None = None,
        stripe: Outgoing | None = None,
        parcels: Outgoing | None = None,
        easypost: Outgoing | None = None,
        shippo: Outgoing | None = None,
        carrier: Carrier | None = None,
        taxes: TaxOffice | None = None,
    ) -> None:
        self.books = books
        self.carrier = carrier or Carrier(None)
        self.taxes = taxes or TaxOffice(None)
        self.base_url = base_url
        self.api_key = api_key
        self.silence_seconds = silence_seconds
        self.calls: dict[str, int] = {}
        self.weather: dict[str, float] = {}
        self.account = Account()
        self.intermediary = Intermediary()
        self.outgoing = outgoing or Outgoing(url="", secret="")
        self.stripe = stripe or Outgoing(url="", secret="")
        self.parcels = parcels or Outgoing(url="", secret="")
        self.easypost = easypost or Outgoing(url="", secret="")
        self.shippo = shippo or Outgoing(url="", secret="")
        # What faces of the carrier keep between two calls, by their own names for it.
        self.shipments: dict[str, Any] = {}
        self._misbehaved: set[str] = set()
        self._busy: set[str] = set()

    async def close(self) -> None:
        """Stop telling, and close the books."""
        await self.outgoing.close()
        await self.stripe.close()
        await self.parcels.close()
        await self.easypost.close()
        await self.shippo.close()
        self.carrier.close()
        self.taxes.close()
        self.books.close()

    async def keyed(
        self, request: HttpRequest, face: Face, kind: str, act: Callable[[Fields], Act], do: Callable[[Fields], Any]
    ) -> Response[bytes]:
        """Carry a request out under its idempotency key, the way Stripe does: the first answer is the answer."""
        self.authenticate(request)
        self.calls[kind] = self.calls.get(kind, 0) + 1
        raw = await request.body()
        body = face.read(raw)
        key = request.headers.get("idempotency-key", "") if self.books.check_keys else ""
        digest = hashlib.sha256(request.url.path.encode() + b"\0" + raw).hexdigest()
        if key and (known := self.books.answer_to(key)) is not None:
            return _repeated(known, digest)
        if key in self._busy:
            raise Refused(409, "idempotency_key_in_use", "Another request with this key is under way")
        misbehaving = self._struck() or act(body)
        if (trouble := await self._before(misbehaving, key or digest)) is not None:
            failed = face.error(trouble)
            if key and trouble.status == 500 and face.remembers_failures:
                self.books.keep_answer(key, digest, 500, failed)
            return json_response(failed, trouble.status, {"Retry-After": "1"} if trouble.status == 429 else None)
        if key:
            self._busy.add(key)
        try:
            if misbehaving is Act.SLOW:
                await asyncio.sleep(SLOW_SECONDS)
            status, answer = _carried_out(face, do, body)
            if key:
                self.books.keep_answer(key, digest, status, answer)
        finally:
            self._busy.discard(key)
        if misbehaving is Act.SUCCEED_SILENTLY and self._first_time(f"{key or digest} after"):
            await asyncio.sleep(self.silence_seconds)
        return json_response(answer, status)

    async def _before(self, act: Act, what: str) -> Refused | None:
        if act is Act.SILENT or (act is Act.SILENT_ONCE and self._first_time(what)):
            await asyncio.sleep(self.silence_seconds)
            return Refused(504, "silent", "This answer comes too late")
        if act is Act.FAIL_ONCE and self._first_time(what):
            return Refused(500, "api_error", "Something went wrong on our end")
        if act is Act.BUSY_ONCE and self._first_time(what):
            return Refused(429, "rate_limit", "Too many requests")
        return None

    def _struck(self) -> Act | None:
        for weather, likelihood in self.weather.items():
            if random.random() < likelihood:
                return WEATHERS[weather]
        return None

    def _first_time(self, what: str) -> bool:
        first = what not in self._misbehaved
        self._misbehaved.add(what)
        return first

    def authenticate(self, request: HttpRequest) -> None:
        """Turn away who has no key."""
        # EasyPost has the key as a name without a password, AvaTax as an account's password.
        basic = [base64.b64encode(each.encode()).decode() for each in (f"{self.api_key}:", f"sandbox:{self.api_key}")]
        if request.headers.get("authorization") not in (
            f"Bearer {self.api_key}",
            f"ShippoToken {self.api_key}",
            *(f"Basic {each}" for each in basic),
        ):
            raise Refused(401, "invalid_api_key", "Invalid API key")

    def read(self, request: HttpRequest) -> Books:
        """Let a reader in."""
        self.authenticate(request)
        self.calls["read"] = self.calls.get("read", 0) + 1
        return self.books


def sandbox_of(request: HttpRequest) -> Sandbox:
    """Find the sandbox that a request has come to."""
    found: Sandbox = request.app.state.sandbox
    return found


def json_response(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """Answer with JSON that is written already."""
    return Response(body, status_code=status, media_type=MediaType.JSON, headers=dict(headers or {}))


def age_seconds(payment: Payment) -> float:
    """Tell how many seconds ago a payment was made."""
    return (now() - payment.made_at).total_seconds()


def _carried_out(face: Face, do: Callable[[Fields], Any], body: Fields) -> tuple[int, bytes]:
    try:
        return 200, msgspec.json.encode(do(body))
    except Refused as refused:
        return refused.status, face.error(refused)


def _repeated(known: tuple[str, int, bytes], digest: str) -> Response[bytes]:
    before, status, body = known
    if before != digest:
        raise Refused(400, "idempotency_error", "Keys for idempotent requests can only be used with the same parameters")
    return json_response(body, status, {"Idempotent-Replayed": "true"})
