"""Standard Webhooks, which Svix, our sandbox and our own outgoing webhooks use (standard-webhooks spec)."""

import base64
import hmac
from datetime import datetime

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.webhooks.domain import Account, Event, Incoming
from services.webhooks.providers import Forged, SecretUnfit, WholeBody, check_time, header, insist, key_of_base64, lines, read_json

SECRET_PREFIX = "whsec_"
PUBLIC_KEY_PREFIX = "whpk_"
# standard-webhooks.md, "Signature scheme": a secret has 24 to 64 bytes; an ed25519 public key has 32.
SECRET_BYTES = range(24, 65)
PUBLIC_KEY_BYTES = 32
# One for each secret in use, of which a sender rotates one at a time; verifying one with a public key hashes the whole body.
SIGNATURES_MAX = 10


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
    check_time(timestamp, now)
    signatures = [signature for line in _lines(incoming, "signature") for signature in line.split(" ")]
    if len(signatures) > SIGNATURES_MAX:
        raise Forged(f"there are more than {SIGNATURES_MAX} signatures")
    if not secret.startswith(PUBLIC_KEY_PREFIX):
        insist(signatures, sign(secret, event_id=event_id, timestamp=timestamp, body=incoming.body))
    elif not any(_verified(secret, s.removeprefix("v1a,"), content) for s in signatures if s.startswith("v1a,")):
        raise Forged("no signature matches")


def _check_secret(secret: str) -> None:
    if secret.startswith(PUBLIC_KEY_PREFIX):
        if len(key_of_base64(secret.removeprefix(PUBLIC_KEY_PREFIX))) != PUBLIC_KEY_BYTES:
            raise SecretUnfit(f"a public key has {PUBLIC_KEY_BYTES} bytes")
    elif len(key_of_base64(secret.removeprefix(SECRET_PREFIX))) not in SECRET_BYTES:
        raise SecretUnfit(f"it has not {SECRET_BYTES.start} to {SECRET_BYTES.stop - 1} bytes")


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
    return header(incoming, _name(incoming, name))


def _lines(incoming: Incoming, name: str) -> list[str]:
    return lines(incoming, _name(incoming, name))


def _name(incoming: Incoming, name: str) -> str:
    return f"svix-{name}" if f"svix-{name}" in incoming.headers else f"webhook-{name}"


def _read(incoming: Incoming) -> Event:
    return msgspec.structs.replace(read_json(incoming), id=_either(incoming, "id"))


STANDARD = WholeBody(_check, _read, _check_secret)
