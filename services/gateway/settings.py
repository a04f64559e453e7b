"""The settings of the gateway."""

from shared.settings import BusSettings


class Settings(BusSettings, frozen=True, kw_only=True):
    """Read from the environment; see README for what each means."""

    # Signs tokens, and locks answers that are kept.
    token_secret: str
    # The one before, while tokens and answers of it are still about.
    token_secret_before: str = ""
    # As whom the gateway asks how full the queues are; left out: as itself, which RabbitMQ 4.2.6 and newer do not answer.
    queue_depths_amqp_url: str = ""
    # The public keys of the services that open what is sealed here, by their names.
    vault_public_keys_file: str = ""
    vault_public_keys: str = ""
    vault_public_keys_command: str = ""
    # Serve nothing but the sandbox environment; without keys there is no other way to serve at all.
    sandbox_only: bool = False
    wait_seconds: float = 10.0
    drive_timeout_seconds: float = 60.0
    redrive_after_seconds: float = 3.0
    sweep_every_seconds: float = 1.0
    query_timeout_seconds: float = 5.0
    # How long a service is waited for where several tell their part; one that does not is named as missing.
    part_timeout_seconds: float = 2.0
    # How often everybody is asked how they are, for the lines on the console's overview.
    sample_every_seconds: float = 15.0
    # How often an open console page looks whether it still says what is so, and for how long somebody stays signed in.
    console_live_seconds: float = 2.0
    console_session_seconds: float = 43_200.0
    # Whether the console is only ever reached over HTTPS, so that its cookie never travels otherwise.
    console_secure_cookie: bool = False
    requests_in_flight_max: int = 512
    # Where the webhooks service is; providers may post to it through the gateway's host.
    webhooks_url: str = ""
    cors_origins: str = ""
    rate_per_second: float = 1000.0
    rate_burst: int = 2000
    checkout_token_lifetime_seconds: int = 3600
    customer_token_lifetime_seconds: int = 3600
