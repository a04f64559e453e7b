"""The settings of the sandbox."""

from typing import Annotated

from shared.settings import HTTP, PORT_MAX, EnvironmentSettings, about, url

_TO = "Where {} are posted; none posts none."


class SandboxSettings(EnvironmentSettings, frozen=True, kw_only=True):
    """Read from the environment."""

    http_host: Annotated[str, about("The address that HTTP is served on.")] = "127.0.0.1"
    http_port: Annotated[
        int, about("The port of its API, of every provider that it plays, and of `/control`.", unit="port", ge=1, le=PORT_MAX)
    ] = 8090
    sandbox_file: Annotated[
        str,
        about(
            "The SQLite file of its books; those of its carrier and its tax office are in the same folder. None keeps them in memory.",
            form="file name",
        ),
    ] = ""
    sandbox_api_key: Annotated[str, about("The key that it is called with.", secret=True)] = "sk_sandbox_local"
    sandbox_public_url: Annotated[str, url("Where browsers reach it, for 3DS; by default where it serves.", *HTTP)] = ""
    sandbox_webhook_url: Annotated[str, url(_TO.format("its own webhooks"), *HTTP)] = ""
    sandbox_webhook_secret: Annotated[str, about("Signs all webhooks but those of Stripe's kind.", secret=True)] = ""
    sandbox_carrier_webhook_url: Annotated[str, url(_TO.format("its carrier's webhooks"), *HTTP)] = ""
    sandbox_easypost_webhook_url: Annotated[str, url(_TO.format("webhooks of EasyPost's kind"), *HTTP)] = ""
    sandbox_shippo_webhook_url: Annotated[str, url(_TO.format("webhooks of Shippo's kind"), *HTTP)] = ""
    sandbox_stripe_webhook_url: Annotated[str, url(_TO.format("webhooks of Stripe's kind"), *HTTP)] = ""
    sandbox_stripe_webhook_secret: Annotated[str, about("Signs webhooks of Stripe's kind.", secret=True)] = ""
    sandbox_silence_seconds: Annotated[float, about("How long it is silent where it plays a provider that does not answer.", ge=0)] = 30.0
