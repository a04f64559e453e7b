"""The settings of the gateway."""

import re
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Annotated

from shared.settings import HTTP, BusSettings, about, url
from shared.vault import KeySource

TOKEN_SECRET_CHARACTERS_MIN = 32
# As browsers send them (RFC 6454 6.2): no path, not even a slash; or any.
ORIGIN = re.compile(r"https?://[^/\s@]+|\*")


def _no_networks(text: str) -> str | None:
    for each in filter(None, (part.strip() for part in text.split(","))):
        try:
            ip_network(each)
        except ValueError as wrong:
            return f"must be a list of addresses and networks such as 10.0.0.0/8, separated by commas ({wrong})"
    return None


def _no_origins(text: str) -> str | None:
    wrong = [each for each in text.split(",") if each.strip() and not ORIGIN.fullmatch(each.strip())]
    return f"must be a list of origins such as https://shop.example, separated by commas (got '{wrong[0].strip()}')" if wrong else None


class Settings(BusSettings, frozen=True, kw_only=True):
    """Read from the environment."""

    token_secret: Annotated[
        str,
        about(
            "Signs checkout and customer tokens, and encrypts the answers that are stored for idempotency.",
            secret=True,
            min_length=TOKEN_SECRET_CHARACTERS_MIN,
        ),
    ]
    token_secret_before: Annotated[
        str, about("The secret before it, as long as its tokens and stored answers are still in use.", secret=True)
    ] = ""
    queue_depths_amqp_url: Annotated[
        str,
        url(
            "The broker, with the user `tender_observer`, by whom the gateway sees how full the queues are. Left out, it looks as itself, "
            "which RabbitMQ 4.2.6 and newer refuse: the overview then shows no waiting messages.",
            "amqp",
            "amqps",
            secret=True,
        ),
    ] = ""
    vault_public_keys_file: Annotated[
        str, about("The file of the public keys that credentials are sealed with; it is read again when it changes.", form="file name")
    ] = ""
    vault_public_keys: Annotated[str, about("Those keys themselves, as JSON.", form="JSON")] = ""
    vault_public_keys_command: Annotated[str, about("A command that prints those keys, such as a KMS's.", form="command")] = ""
    sandbox_only: Annotated[bool, about("Serve nothing but the sandbox environment; then no public keys are needed.")] = False
    wait_seconds: Annotated[float, about("How long a request waits for its outcome before it is answered 202.", ge=0)] = 10.0
    drive_timeout_seconds: Annotated[float, about("How long the gateway waits when it sends an unfinished operation again.", gt=0)] = 60.0
    redrive_after_seconds: Annotated[float, about("The age after which an unfinished operation is sent again.", gt=0)] = 3.0
    sweep_every_seconds: Annotated[float, about("How often unfinished operations are looked for.", gt=0)] = 1.0
    query_timeout_seconds: Annotated[float, about("How long a request that only reads waits for a service.", gt=0)] = 5.0
    part_timeout_seconds: Annotated[
        float, about("How long one of several services is waited for; one that does not answer is named as missing.", gt=0)
    ] = 2.0
    sample_every_seconds: Annotated[float, about("How often every service is asked for the numbers of the console's overview.", gt=0)] = (
        15.0
    )
    console_live_seconds: Annotated[float, about("How often an open console page is brought up to date.", gt=0)] = 2.0
    console_session_seconds: Annotated[float, about("How long staff stay signed in to the console at most.", gt=0)] = 43_200.0
    console_idle_seconds: Annotated[
        float, about("How long a console session lasts in which no page is opened and no form is sent.", gt=0)
    ] = 1800.0
    console_secure_cookie: Annotated[
        bool,
        about(
            "Whether the console's cookies travel over HTTPS alone, with the prefix `__Host-`; switch it off only where the console is "
            "served by plain HTTP on the same machine: browsers then refuse such cookies."
        ),
    ] = True
    sign_ins_per_address_per_minute_max: Annotated[
        int, about("Failed sign-ins at the console a minute from one address; more are answered 429.", unit="sign-ins", ge=1)
    ] = 10
    sign_ins_per_minute_max: Annotated[
        int,
        about(
            "Failed sign-ins a minute from all addresses together; more are answered 429, but for addresses that have signed in lately.",
            unit="sign-ins",
            ge=1,
        ),
    ] = 300
    trusted_proxies: Annotated[
        str,
        about(
            "Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed, as addresses or networks separated by commas; behind them a "
            "client's own address is counted, and HTTPS is known.",
            form="list of addresses and networks",
            check=_no_networks,
        ),
    ] = ""
    hsts_seconds: Annotated[
        int, about("How long browsers are to come by HTTPS alone, in answers to HTTPS requests (RFC 6797); 0 leaves it out.", ge=0)
    ] = 31_536_000
    requests_in_flight_max: Annotated[
        int, about("Requests in hand beyond which others are answered 503, before a key is claimed.", unit="requests", ge=1)
    ] = 512
    requests_in_flight_per_store_max: Annotated[
        int, about("The most of these places that one store's requests take; more are answered 429.", unit="requests", ge=1)
    ] = 384
    requests_in_flight_per_token_max: Annotated[
        int, about("The most of these places that one shopper's or customer's token takes; more are answered 429.", unit="requests", ge=1)
    ] = 16
    webhooks_url: Annotated[str, url("The webhooks service, to which the gateway passes on what providers post to its host.", *HTTP)] = ""
    api_docs: Annotated[
        bool, about("Whether `/docs` and `/openapi` are served; they show what every installation has, and nothing of this one.")
    ] = True
    cors_origins: Annotated[
        str, about("Origins whose browsers may call the API, separated by commas.", form="list of origins", check=_no_origins)
    ] = ""
    rate_per_second: Annotated[
        float, about("Requests a second that one key may send to one gateway process.", unit="requests a second", gt=0)
    ] = 1000.0
    rate_burst: Annotated[int, about("Requests that one key may send at once to one gateway process.", unit="requests", ge=1)] = 2000
    token_rate_per_second: Annotated[
        float,
        about("Requests a second that one shopper's or customer's token may send to one gateway process.", unit="requests a second", gt=0),
    ] = 10.0
    token_rate_burst: Annotated[
        int, about("Requests that one such token may send at once to one gateway process.", unit="requests", ge=1)
    ] = 100
    checkout_token_lifetime_seconds: Annotated[int, about("How long a checkout token is valid.", ge=1)] = 3600
    customer_token_lifetime_seconds: Annotated[int, about("How long a customer token is valid.", ge=1)] = 3600

    @property
    def key_source(self) -> KeySource:
        """Where the services' public keys come from."""
        return KeySource(
            file=self.vault_public_keys_file,
            text=self.vault_public_keys,
            command=self.vault_public_keys_command,
            variable="VAULT_PUBLIC_KEYS",
        )

    def problems(self) -> Iterator[str]:
        """Say whether there are public keys to seal with."""
        yield from self.key_source.problems(KeySource.public, sandbox_only=self.sandbox_only)
