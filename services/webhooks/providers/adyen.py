"""Adyen: each item of a batch bears its own signature over named fields; its platform webhooks sign the body (Adyen util.py)."""

import base64
import binascii
import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from services.webhooks.domain import Account, Event, Incoming
from services.webhooks.providers import Forged, Opened, WholeBody, header, insist, moment, read_json


class _Amount(msgspec.Struct):
    value: int | None = None
    currency: str = ""


class _Additional(msgspec.Struct):
    hmac_signature: str = msgspec.field(default="", name="hmacSignature")


class _Item(msgspec.Struct, rename="camel"):
    psp_reference: str = ""
    original_reference: str = ""
    merchant_account_code: str = ""
    merchant_reference: str = ""
    amount: _Amount = msgspec.field(default_factory=_Amount)
    event_code: str = ""
    success: str = ""
    event_date: str = ""
    additional_data: _Additional = msgspec.field(default_factory=_Additional)


class _Wrapped(msgspec.Struct):
    item: msgspec.Raw = msgspec.field(name="NotificationRequestItem")


class _Batch(msgspec.Struct, rename="camel"):
    notification_items: list[_Wrapped]


class Adyen:
    """Standard notifications: what matches is kept, and anything that does not has the whole batch sent again."""

    accepted = b"[accepted]"

    async def open(self, incoming: Incoming, accounts: Sequence[Account], *, now: datetime) -> Opened:
        """Judge each item on its own."""
        try:
            wrapped = msgspec.json.decode(incoming.body, type=_Batch).notification_items
            items = [(bytes(each.item), msgspec.json.decode(each.item, type=_Item)) for each in wrapped]
        except msgspec.DecodeError:
            return Opened((), ("the body is not a batch of notifications",))
        genuine: list[tuple[Account, Event]] = []
        forged: list[str] = []
        for raw, item in items:
            account = next((a for a in accounts if any(_matches(item, secret) for secret in a.secrets)), None)
            if account is None:
                forged.append(f"the signature of {item.psp_reference or 'an item'} does not match")
            else:
                genuine.append((account, _event(raw, item)))
        return Opened(tuple(genuine), tuple(forged))


def signed_text(item: _Item) -> str:
    """Write what an item's signature covers: fields joined by colons, nothing escaped, what is missing empty."""
    value = "" if item.amount.value is None else str(item.amount.value)
    fields: list[Any] = [
        item.psp_reference,
        item.original_reference,
        item.merchant_account_code,
        item.merchant_reference,
        value,
        item.amount.currency,
        item.event_code,
        item.success,
    ]
    return ":".join(fields)


def _matches(item: _Item, secret: str) -> bool:
    return hmac.compare_digest(_mac(secret, signed_text(item).encode()).encode(), item.additional_data.hmac_signature.encode())


def _mac(secret: str, content: bytes) -> str:
    try:
        key = binascii.unhexlify(secret)
    except (binascii.Error, ValueError) as broken:
        raise Forged("a key of ours is not hexadecimal") from broken
    return base64.b64encode(hmac.digest(key, content, "sha256")).decode()


def _event(raw: bytes, item: _Item) -> Event:
    # Adyen names no event; the same code, reference and outcome is the same notification sent again.
    return Event(
        id=f"{item.event_code}:{item.psp_reference}:{item.success}",
        type=item.event_code,
        happened_at=moment(item.event_date),
        payload=raw,
    )


def _check_platform(incoming: Incoming, _: Account, secret: str, __: datetime) -> None:
    insist([header(incoming, "hmacsignature")], _mac(secret, incoming.body))


ADYEN_PLATFORM = WholeBody(_check_platform, read_json)
