"""The sandbox put together: its books, its faces, and whom it tells."""

import asyncio
from collections.abc import Callable
from typing import Any

from litestar import Litestar
from litestar.datastructures import State

from deploy.sandbox import control, drifting
from deploy.sandbox.books import Dispute, Operation, Payment, now
from deploy.sandbox.faces import carrier, easypost, own, shippo, stripe, tax
from deploy.sandbox.faces.stripe import let_go_of_the_rest
from deploy.sandbox.faces.stripe_events import events_of
from deploy.sandbox.faces.stripe_versions import speaking
from deploy.sandbox.intermediary import ASGIApp
from deploy.sandbox.parcels import Label, Parcel, Scan
from deploy.sandbox.server import BODY_MAX_BYTES, Sandbox


def app(sandbox: Sandbox) -> ASGIApp:
    """Serve a sandbox, behind its intermediary."""

    def tell(kind: str, payment: Payment, operation: Operation | Dispute) -> None:
        if payment.id.startswith(stripe.PREFIX):
            with speaking(sandbox.account.api_version):
                for name, thing in events_of(kind, payment, operation):
                    sandbox.stripe.tell(name, thing, now().isoformat())
            if isinstance(operation, Operation):
                let_go_of_the_rest(sandbox, payment, operation)
        else:
            sandbox.outgoing.tell(kind, payment, now().isoformat())

    def tell_of_parcel(kind: str, label: Label, parcel: Parcel | None, scan: Scan | None) -> None:
        if label.face == easypost.FACE:
            if (event := easypost.event_of(sandbox, label, parcel, scan)) is not None:
                sandbox.easypost.tell(*event, now().isoformat())
            return
        if label.face == shippo.FACE:
            sandbox.shippo.tell(*shippo.event_of(sandbox, label, parcel, scan), now().isoformat())
            return
        sandbox.parcels.tell(kind, carrier.event_of(label, parcel, scan), now().isoformat())

    def wake(seconds: float, do: Callable[[], object]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, do)

    sandbox.books.tell = tell
    sandbox.books.wake = wake
    sandbox.carrier.tell = tell_of_parcel
    provider: Any = Litestar(
        [own.router, stripe.router, carrier.router, easypost.router, shippo.router, tax.router, control.router, drifting.router],
        state=State({"sandbox": sandbox}),
        request_max_body_size=BODY_MAX_BYTES,
        openapi_config=None,
        logging_config=None,
    )
    return sandbox.intermediary.before(provider)
