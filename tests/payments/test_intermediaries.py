"""Only the provider's own words prove that nothing happened: whatever else answers, the outcome is unknown, or found out.

Reported of others as double charges: rainbow-me/rainbow pull 7799, aws-samples/sample-agentcore-cloudfront-x402-payments issue 40.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from services.payments.domain.intents import Operation, TransactionStatus
from services.payments.providers import Ambiguous, AuthorizeRequest, CaptureRequest, PaymentProvider, RefundRequest, Request, VoidRequest
from services.payments.providers.sandbox import SandboxPayments
from services.payments.providers.stripe.client import StripePayments
from shared.http_client import NoAnswer, NotSent
from shared.ids import new_id
from tests.payments.intermediary import Intermediary, Reply, an_intermediary
from tests.world import Place, World, a_world, until

TIMEOUT_SECONDS = 0.5
REFERENCE = new_id()
HTML = b"<html><head><title>Blocked</title></head><body>Your request was blocked.</body></html>"
# docs.stripe.com/api/errors: the types of errors, and what the HTTP statuses mean.
CARD_ERROR = msgspec.json.encode(
    {"error": {"type": "card_error", "code": "card_declined", "decline_code": "do_not_honor", "message": "No."}}
)
BAD_REQUEST = msgspec.json.encode({"error": {"type": "invalid_request_error", "code": "amount_too_small", "message": "No."}})
MISSING = msgspec.json.encode({"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such payment_intent"}})
OWN_ERROR = msgspec.json.encode({"error": {"code": "amount_too_large", "message": "No."}})
OWN_MISSING = msgspec.json.encode({"error": {"code": "resource_missing", "message": "No such payment"}})
# What is nobody's error.
OTHERS = {
    "html": HTML,
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "a list of things": b'[{"id": "x"}]',
    "other json": b'{"status": "ok", "id": "x"}',
    "other data": b'{"data": []}',
    "no error": b'{"error": null}',
    "a text as error": b'{"error": "not found"}',
    "an unknown error": b'{"error": {"type": "gateway_error", "code": "blocked", "message": "No."}}',
    "a proxy's problem": b'{"type": "about:blank", "title": "Not Found", "status": 404}',
    "cut off": b'{"id": "pi_1", "object": "payment_intent", "amount": 1000, "curr',
}
SOME_STATUSES = (200, 201, 202, 204, 301, 302, 307, 400, 402, 404, 405, 408, 410, 413, 421, 422, 451, 460, 499, 500, 502, 504, 520, 599)
REQUESTS: dict[str, Request] = {
    "authorize": AuthorizeRequest(
        amount=1000,
        currency="EUR",
        payment_method="tok_success",
        order_id=new_id(),
        reference=REFERENCE,
        return_url="https://shop.example/",
    ),
    "capture": CaptureRequest(provider_payment_id="pi_1", amount=1000, currency="EUR", final=True, reference=REFERENCE),
    "void": VoidRequest(provider_payment_id="pi_1", reference=REFERENCE),
    "refund": RefundRequest(provider_payment_id="pi_1", amount=400, currency="EUR", reason="", reference=REFERENCE),
}
Made = Callable[[str], PaymentProvider]
PROVIDERS: dict[str, Made] = {
    "stripe": lambda url: StripePayments(api_key="sk_test_x", base_url=url, timeout_seconds=TIMEOUT_SECONDS, multicapture=True),
    "sandbox": lambda url: SandboxPayments(api_key="x", base_url=url, timeout_seconds=TIMEOUT_SECONDS),
}
PROOF = {"stripe": {400: BAD_REQUEST, 402: CARD_ERROR, 404: MISSING}, "sandbox": {400: OWN_ERROR, 404: OWN_MISSING}}
ABSENCE = {"stripe": MISSING, "sandbox": OWN_MISSING}


@pytest.fixture
async def between() -> AsyncIterator[Intermediary]:
    async with an_intermediary() as made:
        yield made


@pytest.fixture(params=PROVIDERS)
async def provider(request: pytest.FixtureRequest, between: Intermediary) -> AsyncIterator[PaymentProvider]:
    made = PROVIDERS[request.param](between.url)
    yield made
    await made.close()


async def _proves(provider: PaymentProvider, request: Request) -> bool:
    """Whether the adapter takes the answer for a proof that nothing was done."""
    try:
        [shown] = await provider.send(provider.prepare(request), idempotency_key="k", reference=REFERENCE)
    except (Ambiguous, NoAnswer, NotSent):
        return False
    assert shown.status in (TransactionStatus.FAILED, TransactionStatus.DECLINED)
    return True


class TestAChange:
    @pytest.mark.parametrize("status", [range(100, 200), range(200, 400), range(400, 500), range(500, 600)], ids=lambda r: f"{r[0]}-")
    async def test_is_proven_undone_by_the_providers_error_alone(
        self, between: Intermediary, provider: PaymentProvider, status: range
    ) -> None:
        """The provider's own error on a status where its documentation says so; a page never, whatever its status."""
        proof = PROOF[provider.name]
        proven = []
        for each in status:
            for body in (HTML, proof[400]):
                between.reply = Reply(each, body)
                if await _proves(provider, REQUESTS["authorize"]):
                    proven.append((each, body))

        assert proven == [(each, proof[400]) for each in proof if each in status]

    @pytest.mark.parametrize("operation", REQUESTS)
    async def test_is_left_open_by_whatever_is_not_the_providers(
        self, between: Intermediary, provider: PaymentProvider, operation: str
    ) -> None:
        proven = []
        for status in SOME_STATUSES:
            for name, body in OTHERS.items():
                between.reply = Reply(status, body, "application/json")
                if await _proves(provider, REQUESTS[operation]):
                    proven.append((status, name))

        assert proven == []

    @pytest.mark.parametrize("operation", REQUESTS)
    async def test_is_refused_by_the_providers_own_words(self, between: Intermediary, provider: PaymentProvider, operation: str) -> None:
        for status, body in PROOF[provider.name].items():
            between.reply = Reply(status, body, "application/json")
            assert await _proves(provider, REQUESTS[operation]), status


class TestALook:
    async def test_finds_nothing_only_when_the_provider_says_so(self, between: Intermediary, provider: PaymentProvider) -> None:
        now = datetime.now(UTC)
        looks: dict[str, Callable[[], Awaitable[object]]] = {
            "get": lambda: provider.get_transaction("pi_1"),
            "find": lambda: provider.find_by_reference(REFERENCE, operation=Operation.AUTHORIZE, provider_payment_id=None),
            "find of known": lambda: provider.find_by_reference(REFERENCE, operation=Operation.REFUND, provider_payment_id="pi_1"),
            "list": lambda: provider.list_transactions(since=now - timedelta(hours=1), until=now, cursor=None),
        }
        answered = []
        for name, look in looks.items():
            for status in SOME_STATUSES:
                for what, body in OTHERS.items():
                    between.reply = Reply(status, body, "application/json")
                    try:
                        answered.append((name, status, what, await look()))
                    except (Ambiguous, NoAnswer, NotSent):
                        continue

        assert answered == []

    async def test_finds_nothing_when_the_provider_says_so(self, between: Intermediary, provider: PaymentProvider) -> None:
        between.reply = Reply(404, ABSENCE[provider.name], "application/json")

        assert await provider.get_transaction("pi_1") is None


class TestThroughTheSystem:
    """A proxy that has the request carried out and then answers with a page of its own (fault F3, the double charge)."""

    @pytest.mark.parametrize("status", [201, 204, 302, 404, 408, 499])
    async def test_a_payment_is_made_once(self, place: Place, status: int) -> None:
        async with an_intermediary() as between, a_world(place, provider="stripe", payments={"stripe_url": between.url}) as world:
            between._upstream = world.sandbox.base_url
            order_id = await world.an_order()
            snapshot_id = await world.a_snapshot(order_id)
            between.reply = Reply(status, HTML)

            answer = await world.authorize(order_id, snapshot_id, "pm_card_visa")

            assert between.replaced == 1
            assert answer.status in (201, 202), answer
            await until(lambda: _authorized(world, order_id))
            assert len([each for each in world.sandbox.books.payments.values() if each.order_id == str(order_id)]) == 1
            await world.books_agree(order_id)

    async def test_a_refund_is_made_once(self, place: Place) -> None:
        async with an_intermediary() as between, a_world(place, provider="stripe", payments={"stripe_url": between.url}) as world:
            between._upstream = world.sandbox.base_url
            payment = await world.a_captured_payment("pm_card_visa")
            between.reply = Reply(302, HTML)

            answer = await payment.refund(400)

            assert answer.status in (201, 202), answer
            await until(lambda: _refunded(world, payment.order_id))
            await world.books_agree(payment.order_id)


async def _authorized(world: World, order_id: object) -> bool:
    ledger = await world.send("GET", f"/api/v1/admin/orders/{order_id}/payments")
    return [each["intent"]["status"] for each in ledger.json["payments"]] == ["authorized"]


async def _refunded(world: World, order_id: object) -> bool:
    ledger = await world.send("GET", f"/api/v1/admin/orders/{order_id}/payments")
    return [each["intent"]["refunded_amount"] for each in ledger.json["payments"]] == [400]
