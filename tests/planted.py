"""Secrets that every test plants by merely running, so that whatever tells one is found."""

import re
from base64 import b64encode
from collections.abc import Mapping

import msgspec

from shared.ids import new_id
from shared.vault import PrivateKeys, new_private_key, public_of

# Keys of this run's services.
PRIVATE_KEYS = {name: PrivateKeys(current=1, keys={"1": new_private_key()}) for name in ("payments", "fulfillment", "webhooks")}
PUBLIC_KEYS = msgspec.json.encode({name: public_of(keys) for name, keys in PRIVATE_KEYS.items()}).decode()
PASSWORD = "services-of-the-tests"
SANDBOX_KEY = "sk_sandbox_tests"
TOKEN_SECRET = "what-the-tests-sign-their-tokens-with"
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
# A buyer whom the tests' shop sends to.
RUN = new_id().hex[-8:]
BUYER = {"name": f"Erika {RUN}", "street_address": f"Marienplatz {RUN}", "phone": f"+49 89 {int(RUN, 16)}"}
ENDPOINT_TOKEN, API_KEY_HEADER = f"token-in-a-url-{RUN}", f"key-in-a-header-{RUN}"
PERSONAL = {
    **{f"a buyer's {field}": value for field, value in BUYER.items()},
    "the token in an endpoint's URL": ENDPOINT_TOKEN,
    "a webhook's X-Api-Key": API_KEY_HEADER,
}
# Where such may lie as it is: with who ships, bills or posts.
IN_THE_CLEAR = frozenset(
    {
        *("payments.orders", "payments.order_checkout_snapshots"),
        "webhooks.webhook_endpoints",
        *("fulfillment.shipments", "fulfillment.shipment_labels", "fulfillment.shipment_packages", "fulfillment.shipment_rates"),
    }
)


def forms_of(secrets: Mapping[str, str]) -> list[str]:
    """Write secrets as they are and as rows show bytes."""
    return [form for secret in secrets.values() for form in (secret, secret.encode().hex())]


def every_form_of(text: str) -> list[str]:
    """Write a text as it is, as rows show bytes, and in base64, wherever in what was encoded it begins."""
    return sorted({*forms_of({"": text}), *(form for shift in range(3) for form in _in_base64(text.encode(), shift))})


def _in_base64(raw: bytes, shift: int) -> tuple[str, str]:
    # A character holds six bits: those that hold bits of what is before or after are left out.
    first, end = -(-shift * 8 // 6), (shift + len(raw)) * 8 // 6
    form = b64encode(bytes(shift) + raw).decode()[first:end]
    return form, form.replace("+", "-").replace("/", "_")


def leaks_in(text: str) -> list[str]:
    """Which of what was planted is in a text, as it is or as rows show bytes."""
    found = [name for name, secret in PLANTED.items() if secret in text or secret.encode().hex() in text]
    return [*found, "what deliveries are signed with"] if re.search(SIGNING_SECRET_PATTERN, text) else found
