"""The settings of fulfillment."""

from shared.credentials import VaultSettings
from shared.messages import Environment


class Settings(VaultSettings, frozen=True, kw_only=True):
    """Read from the environment; see README for what each means."""

    sandbox_url: str = ""
    sandbox_api_key: str = "sk_sandbox_local"
    # A production key serves production, a test key (EZTK…, or any other) the sandbox environment.
    easypost_api_key: str = ""
    easypost_url: str = "https://api.easypost.com"
    # A live key (shippo_live_…) serves production, any other the sandbox environment.
    shippo_api_key: str = ""
    shippo_url: str = "https://api.goshippo.com"
    # Which environment a tax provider's key serves.
    taxjar_api_key: str = ""
    taxjar_url: str = "https://api.taxjar.com"
    taxjar_environment: Environment = Environment.PRODUCTION
    avalara_account_id: str = ""
    avalara_license_key: str = ""
    avalara_company_code: str = "DEFAULT"
    avalara_url: str = "https://rest.avatax.com"
    avalara_environment: Environment = Environment.PRODUCTION
    # How long a quote waits for each carrier and for the tax engine; shorter than payments waits for the quote.
    rates_timeout_seconds: float = 2.5
    tax_timeout_seconds: float = 2.5
    # How long anything else may take a carrier.
    provider_timeout_seconds: float = 15.0
    # How long a rate holds whose carrier does not say.
    rate_lifetime_seconds: int = 900
    lease_seconds: float = 5.0
    # How long a document may take to be recorded at a tax provider before another tries.
    filing_lease_seconds: float = 60.0
    file_every_seconds: float = 2.0
    resolve_every_seconds: float = 1.0
    # How often a parcel is looked for whose carrier tells nothing by webhook.
    track_every_seconds: float = 3600.0
    look_every_seconds: float = 30.0
    housekeeping_every_seconds: float = 60.0
    retry_tiers_bug: str = "1s,30s"
