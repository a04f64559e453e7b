"""The settings of payments."""

from collections.abc import Iterator
from typing import Annotated

from shared.credentials import VaultSettings
from shared.settings import HTTP, about, several, url
from shared.topology import TIERS_MILLISECONDS
from shared.vault import KeySource


class Settings(VaultSettings, frozen=True, kw_only=True):
    """Read from the environment."""

    vault_public_keys_file: Annotated[
        str, about("The file of the public keys that buyers' data are sealed with for fulfillment; it is read again.", form="file name")
    ] = ""
    vault_public_keys: Annotated[str, about("Those keys themselves, as JSON.", form="JSON")] = ""
    vault_public_keys_command: Annotated[str, about("A command that prints those keys, such as a KMS's.", form="command")] = ""
    sandbox_url: Annotated[str, url("The sandbox provider; none leaves it out.", *HTTP)] = ""
    sandbox_api_key: Annotated[str, about("The key for the sandbox provider.", secret=True)] = "sk_sandbox_local"
    stripe_api_key: Annotated[
        str,
        about(
            "A secret or restricted key of Stripe; a live one (`sk_live_`, `rk_live_`) serves production, another the sandbox environment.",
            secret=True,
        ),
    ] = ""
    stripe_publishable_key: Annotated[str, about("The publishable key that goes with it; browsers see it.")] = ""
    stripe_url: Annotated[str, url("Stripe's API.", *HTTP)] = "https://api.stripe.com"
    stripe_multicapture: Annotated[bool, about("Whether the Stripe account has multicapture; without it a payment is captured once.")] = (
        False
    )
    provider_timeout_seconds: Annotated[float, about("How long one call of a provider may take.", gt=0)] = 10.0
    pricing_timeout_seconds: Annotated[
        float, about("How long a quote waits for fulfillment, which waits for carriers and tax engines.", gt=0)
    ] = 8.0
    declines_per_order_max: Annotated[
        int, about("Declined payments of one order within ten minutes, beyond which the provider is not asked.", unit="payments", ge=1)
    ] = 10
    declines_per_token_max: Annotated[
        int,
        about("Declined payments of one checkout token within ten minutes, beyond which the provider is not asked.", unit="payments", ge=1),
    ] = 5
    declines_per_store_max: Annotated[
        int,
        about(
            "Declined payments of one store's environment within ten minutes, beyond which the provider is not asked; raise it for a "
            "shop with more than some ten payments a second.",
            unit="payments",
            ge=1,
        ),
    ] = 500
    lease_seconds: Annotated[
        float,
        about(
            "How long a crash in the middle of a provider call costs before another process goes on; renewed while the call is out.", gt=0
        ),
    ] = 5.0
    quote_lifetime_seconds: Annotated[int, about("How long a quote holds; a store can have its own with `./tender stores set`.", ge=1)] = (
        900
    )
    fx_stale_after_days: Annotated[int, about("The age after which a reference exchange rate is not used; the quote says so.", ge=1)] = 7
    abandon_after_seconds: Annotated[
        float, about("When an unfinished payment frees its order; what still succeeds later is given back.", gt=0)
    ] = 3600.0
    resolve_every_seconds: Annotated[float, about("How often payments with an unknown outcome are looked for.", gt=0)] = 1.0
    housekeeping_every_seconds: Annotated[float, about("How often abandoned payments and money to give back are looked for.", gt=0)] = 2.0
    customer_look_seconds: Annotated[
        float, about("How often a provider is asked for a payment that waits for its customer, such as for 3DS.", gt=0)
    ] = 60.0
    retry_tiers_bug: Annotated[
        str,
        several("The waits before a message is tried again that failed by an error of ours; then it is a dead letter.", TIERS_MILLISECONDS),
    ] = "1s,30s"

    @property
    def public_key_source(self) -> KeySource:
        """Where fulfillment's public key comes from."""
        return KeySource(
            file=self.vault_public_keys_file,
            text=self.vault_public_keys,
            command=self.vault_public_keys_command,
            variable="VAULT_PUBLIC_KEYS",
        )

    def problems(self) -> Iterator[str]:
        """Say whether there are keys to open credentials with, and to seal for fulfillment."""
        yield from self.key_source.problems(KeySource.private, sandbox_only=self.sandbox_only)
        yield from self.public_key_source.problems(KeySource.public, sandbox_only=self.sandbox_only)
