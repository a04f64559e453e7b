"""The settings of webhooks."""

from pathlib import Path
from typing import Annotated

from cryptography import x509

from services.webhooks.domain import configured_accounts
from shared.credentials import VaultSettings
from shared.settings import PORT_MAX, SettingsRefused, about, several
from shared.topology import TIERS_MILLISECONDS


def _unreadable(accounts: str) -> str | None:
    try:
        configured_accounts(accounts)
    except SettingsRefused as refused:
        return str(refused)
    return None


def _no_authorities(file: str) -> str | None:
    try:
        x509.load_pem_x509_certificates(Path(file).read_bytes())
    except OSError as failed:
        return f"{file} cannot be read: {failed.strerror}"
    except ValueError:
        return f"{file} holds no certificates in PEM"
    return None


class Settings(VaultSettings, frozen=True, kw_only=True):
    """Read from the environment."""

    write_pause_seconds: Annotated[
        float, about("How long a write waits for others to be written with it, where no caller waits for its result.", ge=0)
    ] = 0.02
    prefetch: Annotated[
        int,
        about(
            "Messages of one store that a process handles at the same time, and a third more of others; few, because in a burst the "
            "answers to providers come first.",
            unit="messages",
            ge=1,
            le=PORT_MAX,
        ),
    ] = 16
    webhook_accounts: Annotated[
        str,
        about("Whose webhooks are taken, and with which secrets; see Webhooks in the README.", secret=True, form="JSON", check=_unreadable),
    ] = "[]"
    paypal_authorities_file: Annotated[
        str,
        about(
            "PEM file of the authorities that PayPal's certificate must come from; the system's own when empty.",
            form="file name",
            check=_no_authorities,
        ),
    ] = ""
    ask_timeout_seconds: Annotated[
        float, about("How long payments or fulfillment may take for an event before it is tried again.", gt=0)
    ] = 10.0
    match_every_seconds: Annotated[float, about("How often events are looked at that came before their payment.", gt=0)] = 1.0
    measure_every_seconds: Annotated[float, about("How often waiting events are counted and failing endpoints are switched off.", gt=0)] = (
        5.0
    )
    clean_every_seconds: Annotated[float, about("How often old payloads and events are deleted.", gt=0)] = 3600.0
    deliver_every_seconds: Annotated[float, about("How often deliveries to merchants that are due are looked for.", gt=0)] = 1.0
    delivery_timeout_seconds: Annotated[float, about("How long a merchant's endpoint may take to answer.", gt=0)] = 10.0
    disable_after_seconds: Annotated[float, about("How long an endpoint may take nothing before it is switched off.", gt=0)] = (
        5 * 24 * 3600.0
    )
    allow_private_endpoints: Annotated[
        bool, about("Whether merchants' endpoints may be http and in private networks: for trying things out.")
    ] = False
    retry_tiers_bug: Annotated[
        str,
        several("The waits before a message is tried again that failed by an error of ours; then it is a dead letter.", TIERS_MILLISECONDS),
    ] = "1s,30s"
    retry_tiers_silent: Annotated[
        str, several("The waits before a message is tried again when a service or a server did not answer.", TIERS_MILLISECONDS)
    ] = "1s,1s,30s,30s,10m,10m,10m,10m"
