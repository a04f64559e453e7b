"""Shippo: `Shippo-Auth-Signature: t=…,v1=…`, the same construction as Stripe's (docs.goshippo.com/tracking/webhook-security)."""

from datetime import datetime

from services.webhooks.domain import Account, Incoming
from services.webhooks.providers import WholeBody, read_json
from services.webhooks.providers.stripe import check_timed


def _check(incoming: Incoming, _: Account, secret: str, now: datetime) -> None:
    check_timed(incoming, "shippo-auth-signature", secret, now)


SHIPPO = WholeBody(_check, read_json)
