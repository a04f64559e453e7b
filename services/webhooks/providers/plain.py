"""Providers that send an HMAC of the body in a header and no time: each event's id keeps a replay from counting twice."""

import base64
import hmac
import unicodedata
from datetime import datetime
from functools import partial

from services.webhooks.domain import Account, Incoming
from services.webhooks.providers import WholeBody, header, insist, lines, read_json


def _check_easypost(incoming: Incoming, _: Account, secret: str, __: datetime) -> None:
    """`X-Hmac-Signature: hmac-sha256-hex=…`, the secret normalised (easypost-python, util.py)."""
    key = unicodedata.normalize("NFKD", secret).encode()
    insist([header(incoming, "x-hmac-signature")], f"hmac-sha256-hex={_hex(key, incoming.body)}")


def _check_mollie(incoming: Incoming, _: Account, secret: str, __: datetime) -> None:
    """`X-Mollie-Signature: sha256=…`, which may repeat (mollie-api-php, SignatureValidator.php)."""
    expected = f"sha256={_hex(secret.encode(), incoming.body)}"
    given = [part.strip() for line in lines(incoming, "x-mollie-signature") for part in line.split(",")]
    insist(given, expected)


def _check_square(incoming: Incoming, account: Account, secret: str, _: datetime) -> None:
    """`x-square-hmacsha256-signature`, base64 over the exact address and the body (square-python-sdk)."""
    mac = hmac.digest(secret.encode(), account.url.encode() + incoming.body, "sha256")
    insist([header(incoming, "x-square-hmacsha256-signature")], base64.b64encode(mac).decode())


def _check_checkout_com(incoming: Incoming, _: Account, secret: str, __: datetime) -> None:
    """`Cko-Signature`, hex over the body (checkout.com docs)."""
    insist([header(incoming, "cko-signature")], _hex(secret.encode(), incoming.body))


def _hex(key: bytes, body: bytes) -> str:
    return hmac.digest(key, body, "sha256").hex()


EASYPOST = WholeBody(_check_easypost, partial(read_json, id_prefix="evt_"))
# In its older form the body names the payment, not the event.
MOLLIE = WholeBody(_check_mollie, partial(read_json, id_prefix="event_"))
SQUARE = WholeBody(_check_square, read_json)
CHECKOUT_COM = WholeBody(_check_checkout_com, read_json)
