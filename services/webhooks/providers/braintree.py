"""Braintree: a form whose payload is signed with HMAC-SHA1 under the digest of the private key (braintree_python)."""

import base64
import binascii
import hashlib
import hmac
import re
from datetime import datetime
from urllib.parse import parse_qs

from services.webhooks.domain import Account, Event, Incoming
from services.webhooks.providers import UNKNOWN_TYPE, Forged, WholeBody, digest, insist, moment

_KIND = re.compile(rb"<kind>([a-z_]+)</kind>")
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
    public_key, private_key = secret.split(":", 1)
    key = hashlib.sha1(private_key.encode(), usedforsecurity=False).digest()
    given = [signature for name, _, signature in (pair.partition("|") for pair in pairs.split("&")) if name == public_key]
    # Whether the payload's last line break is covered differs between senders.
    expected = [hmac.digest(key, text.encode(), "sha1").hex() for text in (payload, payload + "\n")]
    insist(given, *expected)


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


BRAINTREE = WholeBody(_check, _read)
