"""Secrets that every test plants by merely running, so that whatever tells one is found."""

import re

import msgspec

from shared.vault import PrivateKeys, new_private_key, public_of

# Keys of this run's services.
PRIVATE_KEYS = {name: PrivateKeys(current=1, keys={"1": new_private_key()}) for name in ("payments", "fulfillment", "webhooks")}
PUBLIC_KEYS = msgspec.json.encode({name: public_of(keys) for name, keys in PRIVATE_KEYS.items()}).decode()
PASSWORD = "services-of-the-tests"
SANDBOX_KEY = "sk_sandbox_tests"
TOKEN_SECRET = "tokens-of-the-tests"
WEBHOOK_SECRET = "whsec_c2VjcmV0LW9mLXRoZS13ZWJob29rcy1vZi10aGUtdGVzdHM="

PLANTED = {
    "a provider's key": SANDBOX_KEY,
    "the services' password": PASSWORD,
    "what tokens are signed with": TOKEN_SECRET,
    "what webhooks are signed with": WEBHOOK_SECRET,
    **{f"the private key of {service}": keys.keys["1"] for service, keys in PRIVATE_KEYS.items()},
}


# What services make to sign deliveries with looks like this (Standard Webhooks, 32 bytes), and every one of them is a canary.
SIGNING_SECRET_PATTERN = "whsec_[A-Za-z0-9+/]{43}="


def leaks_in(text: str) -> list[str]:
    """Which of what was planted is in a text, as it is or as rows show bytes."""
    found = [name for name, secret in PLANTED.items() if secret in text or secret.encode().hex() in text]
    return [*found, "what deliveries are signed with"] if re.search(SIGNING_SECRET_PATTERN, text) else found
