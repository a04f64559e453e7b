"""The simulation, and the adapter in front of it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from deploy.sandbox.books import Payment
from deploy.sandbox.server import Account, Sandbox
from services.payments.domain.intents import Observation, TransactionStatus
from services.payments.providers import (
    AuthorizeRequest,
    CaptureRequest,
    ProviderTransaction,
    RefundRequest,
    Request,
    VoidRequest,
)
from services.payments.providers.stripe import client
from services.payments.providers.stripe.client import StripePayments
from shared.ids import new_id
from tests.world import SANDBOX_KEY, a_sandbox

OLD = "2023-08-16"
HELD = 10_000


class Stripe:
    """An account at the simulation, with the adapter that speaks to it."""

    def __init__(self, sandbox: Sandbox, http: httpx.AsyncClient) -> None:
        self.sandbox = sandbox
        self.http = http
        self.adapter = an_adapter(sandbox)

    async def send(self, request: Request) -> tuple[Observation, ...]:
        reference = getattr(request, "reference", new_id())
        return await self.adapter.send(self.adapter.prepare(request), idempotency_key=f"key-{reference}", reference=reference)

    async def authorize(self, method: str, amount: int = HELD, currency: str = "EUR") -> tuple[Observation, ...]:
        return await self.send(
            AuthorizeRequest(
                reference=new_id(),
                order_id=new_id(),
                amount=amount,
                currency=currency,
                payment_method=method,
                return_url="https://a.example",
            )
        )

    async def hold(self, amount: int = HELD, *, currency: str = "EUR", method: str = "pm_card_visa") -> str:
        (held, *_) = await self.authorize(method, amount, currency)
        return held.provider_payment_id

    async def capture(self, payment_id: str, amount: int, *, final: bool = True, earlier: Any = ()) -> tuple[Observation, ...]:
        request = CaptureRequest(
            reference=new_id(), provider_payment_id=payment_id, amount=amount, currency="EUR", final=final, earlier=tuple(earlier)
        )
        return await self.send(request)

    async def void(self, payment_id: str) -> tuple[Observation, ...]:
        return await self.send(VoidRequest(reference=new_id(), provider_payment_id=payment_id))

    async def refund(self, payment_id: str, amount: int) -> tuple[Observation, ...]:
        return await self.send(
            RefundRequest(reference=new_id(), provider_payment_id=payment_id, amount=amount, currency="EUR", reason="returned")
        )

    def in_the_dashboard(self, payment_id: str, kind: str, amount: int, **facts: Any) -> None:
        self.sandbox.books.add(self.at_stripe(payment_id), kind, amount, **{"reason": "dashboard", **facts})

    def at_stripe(self, payment_id: str) -> Payment:
        return self.sandbox.books.get(payment_id)

    async def read(self, payment_id: str) -> ProviderTransaction:
        found = await self.adapter.get_transaction(payment_id)
        assert found is not None
        return found

    async def shows(self, payment_id: str) -> list[tuple[str, int]]:
        """What the adapter reads of a payment beyond its authorization: each operation that succeeded, and its amount."""
        observations = (await self.read(payment_id)).observations[1:]
        return [(o.operation.value, o.amount) for o in observations if o.status is TransactionStatus.SUCCEEDED]


def an_adapter(sandbox: Sandbox) -> StripePayments:
    return StripePayments(base_url=sandbox.base_url, api_key=SANDBOX_KEY, timeout_seconds=10.0, multicapture=True, settled_after_seconds=0)


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with a_sandbox(webhook_url="http://127.0.0.1:9/nobody") as made:
        yield made


@pytest.fixture(scope="module")
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    """Whoever has the account's key, without our adapter."""
    async with httpx.AsyncClient(base_url=sandbox.base_url, headers={"Authorization": f"Bearer {SANDBOX_KEY}"}) as made:
        yield made


@pytest.fixture
async def stripe(sandbox: Sandbox, http: httpx.AsyncClient) -> AsyncIterator[Stripe]:
    made = Stripe(sandbox, http)
    yield made
    await made.adapter.close()
    sandbox.account = Account()


@pytest.fixture
async def old_stripe(sandbox: Sandbox, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stripe]:
    """The same account as an adapter of old spoke to it; its account is as old."""
    sandbox.account = Account(api_version=OLD)
    with monkeypatch.context() as of_old:
        of_old.setattr(client, "API_VERSION", OLD)
        made = Stripe(sandbox, http)
    yield made
    await made.adapter.close()


@pytest.fixture
def told(sandbox: Sandbox) -> Callable[[], list[str]]:
    """List the types of the events since this test began."""
    before = set(sandbox.stripe.events)
    return lambda: [event.type for event_id, event in sandbox.stripe.events.items() if event_id not in before]
