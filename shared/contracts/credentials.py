"""Credentials of providers: sealed by whoever takes them in, opened only by the service that uses them."""

from datetime import datetime
from enum import StrEnum

import msgspec

from shared.messages import Message, Query


class Use(StrEnum):
    """What a credential is for."""

    PAYMENTS = "payments"
    SHIPPING = "shipping"
    TAX = "tax"
    WEBHOOKS = "webhooks"


class Kind(msgspec.Struct, frozen=True):
    """What a provider's credential consists of, and with what a key begins that belongs to an environment."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()
    # By field: what a production value begins with, and a sandbox value; nothing where they cannot be told apart.
    production: tuple[str, ...] = ()
    sandbox: tuple[str, ...] = ()
    # Nothing of it exists outside the sandbox environment.
    sandbox_only: bool = False


# Where the keys of both worlds are told apart: docs.stripe.com/keys, docs.easypost.com/docs/authentication, docs.goshippo.com (tokens).
KINDS: dict[tuple[Use, str], Kind] = {
    (Use.PAYMENTS, "sandbox"): Kind(("api_key",), sandbox_only=True),
    (Use.PAYMENTS, "stripe"): Kind(
        ("api_key",), ("publishable_key", "multicapture"), production=("sk_live_", "rk_live_"), sandbox=("sk_test_", "rk_test_")
    ),
    (Use.SHIPPING, "sandbox"): Kind(("api_key",), sandbox_only=True),
    (Use.SHIPPING, "easypost"): Kind(("api_key",), production=("EZAK",), sandbox=("EZTK",)),
    (Use.SHIPPING, "shippo"): Kind(("api_key",), production=("shippo_live_",), sandbox=("shippo_test_",)),
    (Use.TAX, "taxjar"): Kind(("api_key",)),
    (Use.TAX, "avalara"): Kind(("account_id", "license_key"), ("company_code",)),
    **{(Use.WEBHOOKS, name): Kind(("secret",), ("url",), sandbox_only=True) for name in ("sandbox", "sandbox-carrier")},
    **{
        (Use.WEBHOOKS, name): Kind(("secret",), ("url",))
        for name in (
            *("stripe", "adyen", "adyen-platform", "paypal", "braintree", "mollie", "square", "checkout-com"),
            *("easypost", "shippo", "standard", "svix"),
        )
    },
}
OWNERS = {Use.PAYMENTS: "payments", Use.SHIPPING: "fulfillment", Use.TAX: "fulfillment", Use.WEBHOOKS: "webhooks"}


def place_of(store_id: object, environment: str, provider: str, use: str) -> str:
    """Name the one place at which a credential's seal opens."""
    return f"tender/credential/1|{store_id}|{environment}|{provider}|{use}"


class PutCredential(Message, frozen=True, kw_only=True):
    """Keep a credential, sealed for the service that is told; the one before stays active beside it."""

    provider: str
    use: Use
    sealed: str


class RetireCredential(Message, frozen=True, kw_only=True):
    """Use a credential no more: one version, or all of them."""

    provider: str
    use: Use
    version: int | None = None


class VerifyCredential(Message, frozen=True, kw_only=True):
    """Try the newest credential by a call that changes nothing."""

    provider: str
    use: Use


class ListCredentials(Query, frozen=True, kw_only=True):
    """Say which credentials of a provider there are, and never what they are."""

    provider: str


class CredentialView(msgspec.Struct, frozen=True, kw_only=True):
    """A credential: what it is for, which one, since when; never the secret."""

    provider: str
    use: Use
    version: int
    fingerprint: str
    key_version: int
    active: bool
    created_at: datetime
    retired_at: datetime | None
    actor: str


class CredentialsView(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's credentials, the newest first."""

    credentials: list[CredentialView]


class VerifiedView(msgspec.Struct, frozen=True, kw_only=True):
    """What came of trying a credential: accepted, rejected, or nobody answered."""

    provider: str
    use: Use
    version: int
    fingerprint: str
    result: str
    detail: str = ""


class Told(msgspec.Struct, frozen=True):
    """What a service that uses credentials is told and asked."""

    put: type[PutCredential]
    retire: type[RetireCredential]
    verify: type[VerifyCredential]
    list: type[ListCredentials]


def _told(service: str) -> Told:
    def of(base: type[Message], name: str) -> type[Message]:
        made = msgspec.defstruct(
            f"{service.title()}{base.__name__}",
            [],
            bases=(base,),
            tag=f"{service}.{name}.v1",
            tag_field="type",
            frozen=True,
            kw_only=True,
            namespace={"__doc__": base.__doc__},
        )
        assert issubclass(made, Message), "it is made of one"
        return made

    return Told(
        put=of(PutCredential, "put_credential"),  # type: ignore[arg-type]
        retire=of(RetireCredential, "retire_credential"),  # type: ignore[arg-type]
        verify=of(VerifyCredential, "verify_credential"),  # type: ignore[arg-type]
        list=of(ListCredentials, "list_credentials"),  # type: ignore[arg-type]
    )


TOLD: dict[str, Told] = {service: _told(service) for service in sorted(set(OWNERS.values()))}
MESSAGES: tuple[type[Message], ...] = tuple(kind for told in TOLD.values() for kind in (told.put, told.retire, told.verify, told.list))
