"""Stripe: `Stripe-Signature: t=…,v1=…`, HMAC-SHA256 in hex over the time and the body (stripe-python, _webhook.py)."""

import hmac
from datetime import datetime

from services.webhooks.domain import Account, Incoming
from services.webhooks.providers import Forged, WholeBody, check_time, insist, lines, read_json

HEADER = "stripe-signature"
LINES_MAX = 4


def check_timed(incoming: Incoming, name: str, secret: str, now: datetime) -> None:
    """Check a header of the form `t=…,v1=…[,v1=…]`; other schemes in it are ignored."""
    reasons = []
    # Old secret and new may each have a line of their own.
    for line in lines(incoming, name)[:LINES_MAX]:
        try:
            return _check_line(line, incoming.body, secret, now)
        except Forged as forged:
            reasons.append(forged)
    raise reasons[0]


def _check_line(line: str, body: bytes, secret: str, now: datetime) -> None:
    parts = [part.split("=", 1) for part in line.split(",") if "=" in part]
    times = [value for key, value in parts if key == "t"]
    if len(times) != 1:
        raise Forged("there is not one time-stamp")
    check_time(times[0], now)
    expected = hmac.digest(secret.encode(), times[0].encode() + b"." + body, "sha256").hex()
    insist([value for key, value in parts if key == "v1"], expected)


def _check(incoming: Incoming, _: Account, secret: str, now: datetime) -> None:
    check_timed(incoming, HEADER, secret, now)


STRIPE = WholeBody(_check, read_json)
