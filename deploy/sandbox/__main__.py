"""Run the sandbox provider as a process."""

import os
from pathlib import Path

import uvicorn

from deploy.sandbox.app import app
from deploy.sandbox.books import Books
from deploy.sandbox.faces.easypost import EasyPostEvents
from deploy.sandbox.faces.shippo import ShippoEvents
from deploy.sandbox.faces.stripe_events import StripeEvents
from deploy.sandbox.parcels import Carrier
from deploy.sandbox.server import Sandbox
from deploy.sandbox.taxbooks import TaxOffice
from deploy.sandbox.webhooks import Outgoing

# Longer than any time-out of ours that a test or the demo sets.
SILENCE_SECONDS = 30.0


def main() -> None:
    """Serve until told to stop."""
    host, port = os.environ.get("HTTP_HOST", "127.0.0.1"), int(os.environ.get("HTTP_PORT", "8090"))
    file = os.environ.get("SANDBOX_FILE")
    secret = os.environ.get("SANDBOX_WEBHOOK_SECRET", "")
    secret = os.environ.get("SANDBOX_WEBHOOK_SECRET", "")
    sandbox = Sandbox(
        Books(Path(file) if file else None),
        base_url=os.environ.get("SANDBOX_PUBLIC_URL", f"http://{host}:{port}"),
        api_key=os.environ.get("SANDBOX_API_KEY", "sk_sandbox_local"),
        outgoing=Outgoing(url=os.environ.get("SANDBOX_WEBHOOK_URL", ""), secret=secret),
        stripe=Outgoing(
            url=os.environ.get("SANDBOX_STRIPE_WEBHOOK_URL", ""),
            secret=os.environ.get("SANDBOX_STRIPE_WEBHOOK_SECRET", ""),
            style=StripeEvents(),
        ),
        parcels=Outgoing(url=os.environ.get("SANDBOX_CARRIER_WEBHOOK_URL", ""), secret=secret),
        easypost=Outgoing(
            url=os.environ.get("SANDBOX_EASYPOST_WEBHOOK_URL", ""),
            secret=secret,
            style=EasyPostEvents(),
        ),
        shippo=Outgoing(url=os.environ.get("SANDBOX_SHIPPO_WEBHOOK_URL", ""), secret=secret, style=ShippoEvents()),
        carrier=Carrier(Path(f"{file}.carrier") if file else None),
        taxes=TaxOffice(Path(f"{file}.taxes") if file else None),
        silence_seconds=float(os.environ.get("SANDBOX_SILENCE_SECONDS", SILENCE_SECONDS)),
    )
    uvicorn.run(
        app(sandbox),
        host=host,
        port=port,
        http="httptools",
        loop="uvloop",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
