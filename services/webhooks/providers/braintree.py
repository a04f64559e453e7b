"""Braintree: a form whose payload is signed with HMAC-SHA1 under the digest of the private key (braintree_python)."""

import base64
import binascii
import hashlib
import hmac
import re
from datetime import datetime
from urllib.parse import parse_qs

from services.webhooks.domain import Account, Event, Incoming
from services.webhooks.providers import UNKNOWN_TYPE, Forged, SecretUnfit, WholeBody, digest, insist, insist_on_length, moment

_KIND = re.compile(rb"<kind>([a-z_]+)</kind>")
_CHALLENGE = re.compile(r"[a-f0-9]{20,32}")
_TIME = re.compile(rb"<timestamp[^>]*>([^<]+)</timestamp>")


def _form(incoming: Incoming) -> tuple[str, str]:
    try:
        form = parse_qs(incoming.body.decode("ascii"), strict_parsing=True, max_num_fields=10)
        return form["bt_signature"][0], form["bt_payload"][0]
    except (ValueError, KeyError) as broken:
        raise Forged("the body is not a signed form") from broken


def _check(incoming: Incoming, _: Account, secret: str, __: datetime) -> None:
    """Check with a secret of the form `public_key:private_key`."""
    pairs, payload = _form(incoming)
    public_key, key = _keys(secret)
    given = [signature for name, _, signature in (pair.partition("|") for pair in pairs.split("&")) if name == public_key]
    # Whether the payload's last line break is covered differs between senders.
    expected = [hmac.digest(key, text.encode(), "sha1").hex() for text in (payload, payload + "\n")]
    insist(given, *expected)


def _keys(secret: str) -> tuple[str, bytes]:
    public_key, _, private_key = secret.partition(":")
    return public_key, hashlib.sha1(private_key.encode(), usedforsecurity=False).digest()


def _check_secret(secret: str) -> None:
    public_key, _, private_key = secret.partition(":")
    if not public_key:
        raise SecretUnfit("it is not written as public_key:private_key")
    insist_on_length(private_key)


def challenge_answer(secret: str, challenge: str) -> bytes:
    """Answer what Braintree asks an address that is being registered (webhook_notification_gateway.py, verify); raises Forged."""
    if not _CHALLENGE.fullmatch(challenge):
        raise Forged("this is not a challenge of Braintree's")
    public_key, key = _keys(secret)
    return f"{public_key}|{hmac.digest(key, challenge.encode(), 'sha1').hex()}".encode()


def _read(incoming: Incoming) -> Event:
    _, payload = _form(incoming)
    try:
        document = base64.b64decode(payload)
    except binascii.Error:
        document = b""
    kind, time = _KIND.search(document), _TIME.search(document)
    return Event(
        id=digest(payload.encode()),
        type=kind[1].decode() if kind else UNKNOWN_TYPE,
        happened_at=moment(time[1].decode(errors="replace")) if time else None,
        payload=document or payload.encode(),
    )


BRAINTREE = WholeBody(_check, _read, _check_secret)
