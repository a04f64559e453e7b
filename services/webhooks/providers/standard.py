"""Standard Webhooks, which Svix, our sandbox and our own outgoing webhooks use (standard-webhooks spec)."""

import base64
import hmac
from datetime import datetime

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.webhooks.domain import Account, Event, Incoming
from services.webhooks.providers import Forged, WholeBody, check_time, header, insist, read_json

SECRET_PREFIX = "whsec_"
PUBLIC_KEY_PREFIX = "whpk_"


def sign(secret: str, *, event_id: str, timestamp: str, body: bytes) -> str:
    """Sign a body with a `whsec_` secret."""
    return f"v1,{base64.b64encode(_mac(secret, _content(event_id, timestamp, body))).decode()}"


def _content(event_id: str, timestamp: str, body: bytes) -> bytes:
    return f"{event_id}.{timestamp}.".encode() + body


def _mac(secret: str, content: bytes) -> bytes:
    return hmac.digest(base64.b64decode(secret.removeprefix(SECRET_PREFIX)), content, "sha256")


def _check(incoming: Incoming, _: Account, secret: str, now: datetime) -> None:
    event_id, timestamp = _either(incoming, "id"), _either(incoming, "timestamp")
    content = _content(event_id, timestamp, incoming.body)
    signatures = _either(incoming, "signature").split(" ")
    if not secret.startswith(PUBLIC_KEY_PREFIX):
        insist(signatures, sign(secret, event_id=event_id, timestamp=timestamp, body=incoming.body))
    elif not any(_verified(secret, s.removeprefix("v1a,"), content) for s in signatures if s.startswith("v1a,")):
        raise Forged("no signature matches")
    check_time(timestamp, now)


def _verified(public_key: str, signature: str, content: bytes) -> bool:
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix(PUBLIC_KEY_PREFIX)))
    try:
        raw = base64.b64decode(signature, validate=True)
        key.verify(raw, content)
    except (InvalidSignature, ValueError):
        return False
    # The unused bits of the last character could be anything else.
    return base64.b64encode(raw).decode() == signature


def _either(incoming: Incoming, name: str) -> str:
    under_svix = incoming.headers.get(f"svix-{name}")
    return header(incoming, f"webhook-{name}") if under_svix is None else under_svix


def _read(incoming: Incoming) -> Event:
    return msgspec.structs.replace(read_json(incoming), id=_either(incoming, "id"))


STANDARD = WholeBody(_check, _read)
