"""The settings of webhooks."""

from shared.credentials import VaultSettings


class Settings(VaultSettings, frozen=True, kw_only=True):
    """Read from the environment; see README for what each means."""

    write_pause_seconds: float = 0.02
    # Fewer at once than elsewhere: in a burst the answers to providers come first, and the work after them.
    prefetch: int = 16
    # A JSON list of whose webhooks are taken, and with which secrets; see `Account`.
    webhook_accounts: str = "[]"
    # PEM file of the authorities that PayPal's certificate must come from; the system's own when empty.
    paypal_authorities_file: str = ""
    ask_timeout_seconds: float = 10.0
    match_every_seconds: float = 1.0
    measure_every_seconds: float = 5.0
    clean_every_seconds: float = 3600.0
    deliver_every_seconds: float = 1.0
    # How long a merchant may take to answer.
    delivery_timeout_seconds: float = 10.0
    # An address that has taken nothing for so long is told no more.
    disable_after_seconds: float = 5 * 24 * 3600.0
    # Whether merchants' addresses may be http and lie in private networks: for trying things out.
    allow_private_endpoints: bool = False
    # How long an event may wait unprocessed before readiness says so.
    stalled_after_seconds: float = 300.0
    retry_tiers_bug: str = "1s,30s"
    retry_tiers_silent: str = "1s,1s,30s,30s,10m,10m,10m,10m"
