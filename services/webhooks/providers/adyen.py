"""Adyen: each item of a batch bears its own signature over named fields; its platform webhooks sign the body (Adyen util.py)."""

import asyncio
import base64
import binascii
import hmac
from collections.abc import Sequence
from datetime import datetime

import msgspec

from services.webhooks.domain import Account, Event, Incoming
from services.webhooks.providers import (
    HASHED_ON_LOOP_MAX_BYTES,
    UNKNOWN_TYPE,
    Opened,
    SecretUnfit,
    WholeBody,
    header,
    insist,
    moment,
    read_json,
)

# docs.adyen.com/development-resources/webhooks: a batch has up to six items today, and an HMAC key 32 bytes.
ITEMS_MAX = 100
KEY_BYTES = 32
# A body nested without end is one more way to be no batch.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Amount(msgspec.Struct):
    value: int | None = None
    currency: str | None = None


class _Additional(msgspec.Struct):
    hmac_signature: str | None = msgspec.field(default=None, name="hmacSignature")


class _Item(msgspec.Struct, rename="camel"):
    psp_reference: str | None = None
    original_reference: str | None = None
    merchant_account_code: str | None = None
    merchant_reference: str | None = None
    amount: _Amount | None = None
    event_code: str | None = None
    success: str | bool | None = None
    event_date: str | None = None
    additional_data: _Additional | None = None

    @property
    def outcome(self) -> str:
        """Whether it succeeded, as it is signed."""
        return str(self.success).lower() if isinstance(self.success, bool) else self.success or ""


class _Wrapped(msgspec.Struct):
    item: msgspec.Raw = msgspec.field(name="NotificationRequestItem")


class _Batch(msgspec.Struct, rename="camel"):
    notification_items: list[_Wrapped]


class Adyen:
    """Standard notifications: what matches is kept, and anything that does not has the whole batch sent again."""

    accepted = b"[accepted]"

    def check_secret(self, secret: str) -> None:
        """Raise SecretUnfit for what cannot be a secret of this provider."""
        _check_secret(secret)

    async def open(self, incoming: Incoming, accounts: Sequence[Account], *, now: datetime) -> Opened:
        """Judge each item on its own."""
        if len(incoming.body) > HASHED_ON_LOOP_MAX_BYTES:
            return await asyncio.to_thread(self._open, incoming, accounts)
        return self._open(incoming, accounts)

    def _open(self, incoming: Incoming, accounts: Sequence[Account]) -> Opened:
        try:
            wrapped = msgspec.json.decode(incoming.body, type=_Batch).notification_items
        except UNREADABLE:
            return Opened((), ("the body is not a batch of notifications",))
        if len(wrapped) > ITEMS_MAX:
            return Opened((), (f"the batch has more than {ITEMS_MAX} items",))
        genuine: list[tuple[Account, Event]] = []
        forged: list[str] = []
        for raw in dict.fromkeys(bytes(each.item) for each in wrapped):
            try:
                item = msgspec.json.decode(raw, type=_Item)
            except UNREADABLE:
                forged.append("an item cannot be read")
                continue
            account = next((a for a in accounts if any(_matches(item, secret) for secret in a.secrets)), None)
            if account is None:
                forged.append(f"the signature of {item.psp_reference or 'an item'} does not match")
            else:
                genuine.append((account, _event(raw, item)))
        return Opened(tuple(genuine), tuple(forged))


def signed_text(item: _Item) -> str:
    """Write what an item's signature covers: fields joined by colons, nothing escaped, what is missing empty."""
    amount = item.amount or _Amount()
    fields = [
        item.psp_reference,
        item.original_reference,
        item.merchant_account_code,
        item.merchant_reference,
        None if amount.value is None else str(amount.value),
        amount.currency,
        item.event_code,
        item.outcome,
    ]
    return ":".join(field or "" for field in fields)


def _matches(item: _Item, secret: str) -> bool:
    given = "" if item.additional_data is None else item.additional_data.hmac_signature or ""
    return hmac.compare_digest(_mac(secret, signed_text(item).encode()).encode(), given.encode())


def _mac(secret: str, content: bytes) -> str:
    return base64.b64encode(hmac.digest(binascii.unhexlify(secret), content, "sha256")).decode()


def _check_secret(secret: str) -> None:
    try:
        size = len(binascii.unhexlify(secret))
    except ValueError as broken:
        raise SecretUnfit("it is not hexadecimal") from broken
    if size != KEY_BYTES:
        raise SecretUnfit(f"it has not {KEY_BYTES} bytes, written as {2 * KEY_BYTES} hexadecimal digits")


def _event(raw: bytes, item: _Item) -> Event:
    # Adyen names no event; the same code, reference and outcome is the same notification sent again.
    code = item.event_code or ""
    return Event(
        id=f"{code}:{item.psp_reference or ''}:{item.outcome}",
        type=code or UNKNOWN_TYPE,
        happened_at=moment(item.event_date),
        payload=raw,
    )


def _check_platform(incoming: Incoming, _: Account, secret: str, __: datetime) -> None:
    insist([header(incoming, "hmacsignature")], _mac(secret, incoming.body))


ADYEN_PLATFORM = WholeBody(_check_platform, read_json, _check_secret)
