"""Run the sandbox provider as a process."""

import os
import sys
from pathlib import Path

import uvicorn

from deploy.sandbox.app import app
from deploy.sandbox.books import Books
from deploy.sandbox.faces.easypost import EasyPostEvents
from deploy.sandbox.faces.shippo import ShippoEvents
from deploy.sandbox.faces.stripe_events import StripeEvents
from deploy.sandbox.parcels import Carrier
from deploy.sandbox.server import Sandbox
from deploy.sandbox.settings import SandboxSettings
from deploy.sandbox.taxbooks import TaxOffice
from deploy.sandbox.webhooks import Outgoing
from shared.settings import SettingsRefused, load


def main() -> None:
    """Serve until told to stop."""
    try:
        settings = load(SandboxSettings, os.environ)
    except SettingsRefused as refused:
        sys.exit(str(refused))
    file, secret = settings.sandbox_file, settings.sandbox_webhook_secret
    sandbox = Sandbox(
        Books(Path(file) if file else None),
        base_url=settings.sandbox_public_url or f"http://{settings.http_host}:{settings.http_port}",
        api_key=settings.sandbox_api_key,
        outgoing=Outgoing(url=settings.sandbox_webhook_url, secret=secret),
        stripe=Outgoing(url=settings.sandbox_stripe_webhook_url, secret=settings.sandbox_stripe_webhook_secret, style=StripeEvents()),
        parcels=Outgoing(url=settings.sandbox_carrier_webhook_url, secret=secret),
        easypost=Outgoing(url=settings.sandbox_easypost_webhook_url, secret=secret, style=EasyPostEvents()),
        shippo=Outgoing(url=settings.sandbox_shippo_webhook_url, secret=secret, style=ShippoEvents()),
        carrier=Carrier(Path(f"{file}.carrier") if file else None),
        taxes=TaxOffice(Path(f"{file}.taxes") if file else None),
        silence_seconds=settings.sandbox_silence_seconds,
    )
    uvicorn.run(
        app(sandbox),
        host=settings.http_host,
        port=settings.http_port,
        http="httptools",
        loop="uvloop",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
