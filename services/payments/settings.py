"""The settings of payments."""

from shared.credentials import VaultSettings


class Settings(VaultSettings, frozen=True, kw_only=True):
    """Read from the environment; see README for what each means."""

    sandbox_url: str = ""
    sandbox_api_key: str = "sk_sandbox_local"
    # A secret or restricted key; a live one (sk_live_, rk_live_) serves production, any other the sandbox environment.
    stripe_api_key: str = ""
    stripe_publishable_key: str = ""
    stripe_url: str = "https://api.stripe.com"
    # Whether the account has multicapture; without it a payment is captured once.
    stripe_multicapture: bool = False
    provider_timeout_seconds: float = 10.0
    # How long a quote waits for fulfillment, which waits for carriers and tax engines.
    pricing_timeout_seconds: float = 8.0
    # Short, and renewed while the call is out, so that a crash costs seconds.
    lease_seconds: float = 5.0
    quote_lifetime_seconds: int = 900
    # An FX reference rate that is older is no reference.
    fx_stale_after_days: int = 7
    abandon_after_seconds: float = 3600.0
    resolve_every_seconds: float = 1.0
    housekeeping_every_seconds: float = 2.0
    customer_look_seconds: float = 60.0
    retry_tiers_bug: str = "1s,30s"
