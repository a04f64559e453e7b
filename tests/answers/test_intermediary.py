"""A hostile intermediary executes requests or drops them and answers with its own: what was done is found, and nothing is done twice."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import msgspec
import pytest

from deploy.sandbox.books import Payment as TheirPayment
from deploy.sandbox.intermediary import JSON, REPLIES, UNKEPT, Meddling, Reply
from deploy.sandbox.server import Sandbox
from services.fulfillment.providers import Carrier, RatesRequest
from services.fulfillment.providers.avalara import Avalara
from services.fulfillment.providers.downloads import fetched
from services.fulfillment.providers.easypost import EasyPost
from services.fulfillment.providers.sandbox import SandboxCarrier
from services.fulfillment.providers.shippo import Shippo
from services.fulfillment.providers.taxjar import TaxJar
from services.payments.domain.intents import Operation
from services.payments.providers.sandbox import SandboxPayments
from services.payments.providers.stripe.client import StripePayments
from shared.ids import new_id
from shared.provider_answers import IndeterminateResponse
from tests.answers.adapters import CONTENT, FILING, HOME, PACKAGE, PAYMENTS, UNKNOWN, WANTED, outcome
from tests.answers.scripted import Reply as Scripting
from tests.answers.scripted import a_scripted_server
from tests.fulfillment import shop
from tests.fulfillment.shop import an_order, finalize, ok, pay, quote
from tests.world import SANDBOX_KEY, Place, World, a_sandbox, a_world, until

TIMEOUT_SECONDS = 1.0


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with a_sandbox() as made:
        yield made


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change, and how its provider is asked whether it happened."""

    make: Callable[[], Awaitable[object]]
    find: Callable[[], Awaitable[object]]


async def a_payment(provider: Any) -> Change:
    reference = new_id()
    request = msgspec.structs.replace(PAYMENTS["authorize"], reference=reference, order_id=new_id())
    prepared = provider.prepare(request)
    return Change(
        make=lambda: provider.send(prepared, idempotency_key=reference.hex, reference=reference),
        find=lambda: provider.find_by_reference(reference, operation=Operation.AUTHORIZE, provider_payment_id=None),
    )


async def a_label(carrier: Carrier, *, document: str = "pdf") -> Change:
    reference = new_id()
    rate = (await carrier.rates(RatesRequest(ship_from=HOME, ship_to=HOME, packages=(PACKAGE,), content=CONTENT)))[1]
    request = msgspec.structs.replace(WANTED, provider_rate_id=rate.provider_rate_id, service=rate.service, document=document)
    return Change(make=lambda: carrier.buy(request, reference=reference), find=lambda: carrier.find(request, reference=reference))


async def a_tax_document(engine: TaxJar | Avalara) -> Change:
    filing = msgspec.structs.replace(FILING, document_id=new_id())
    return Change(make=lambda: engine.file(filing), find=lambda: engine.get_record(str(filing.document_id)))


KEYED: dict[str, tuple[Any, Callable[[Any], Awaitable[Change]]]] = {
    "stripe": (StripePayments, a_payment),
    "sandbox payments": (SandboxPayments, a_payment),
    "sandbox carrier": (SandboxCarrier, a_label),
    "easypost": (EasyPost, a_label),
    "shippo": (Shippo, a_label),
    "taxjar": (TaxJar, a_tax_document),
    "avalara": (Avalara, a_tax_document),
}


def _made(name: str, url: str) -> Any:
    if name == "avalara":
        return Avalara(base_url=url, account_id="sandbox", license_key=SANDBOX_KEY, company_code="TENDER", timeout_seconds=TIMEOUT_SECONDS)
    return KEYED[name][0](base_url=url, api_key=SANDBOX_KEY, timeout_seconds=TIMEOUT_SECONDS)


class TestEveryAdapter:
    @pytest.mark.parametrize("executed", [True, False], ids=["executed", "dropped"])
    @pytest.mark.parametrize("name", KEYED)
    async def test_finds_out_what_was_done(self, sandbox: Sandbox, name: str, executed: bool) -> None:
        adapter, wrong = _made(name, sandbox.base_url), []
        for reply in REPLIES:
            change = await KEYED[name][1](adapter)
            sandbox.intermediary.meddle(Meddling(rate=1, executed=float(executed), times=1, methods=("POST",), replies=(reply,)))

            answered = await outcome(lambda _, make=change.make: make(), adapter)  # type: ignore[misc]
            found = await change.find()

            if (answered, found is not None, sandbox.intermediary.answered) != (UNKNOWN, executed, 1):
                wrong.append((reply, answered, found))
        await adapter.close()

        assert wrong == []


class TestAfterAPurchase:
    """What is read then, a price or a printed form, can be refused or lost as well; the label stays bought."""

    OWN_ERRORS = (
        Reply(status=404, body='{"detail": "Not found"}', media_type=JSON),
        Reply(status=422, body='{"error": {"code": "SHIPMENT.INVALID_PARAMS", "message": "No.", "errors": []}}', media_type=JSON),
    )

    @pytest.mark.parametrize("document", ["pdf", "zpl"])
    @pytest.mark.parametrize("name", ["easypost", "shippo"])
    async def test_no_answer_makes_it_a_failure(self, sandbox: Sandbox, name: str, document: str) -> None:
        carrier, wrong = _made(name, sandbox.base_url), []
        for reply in (*REPLIES, *self.OWN_ERRORS):
            change = await a_label(carrier, document=document)
            sandbox.intermediary.meddle(Meddling(rate=1, executed=0, times=1, methods=("GET",), replies=(reply,)))

            answered = await outcome(lambda _, make=change.make: make(), carrier)  # type: ignore[misc]
            found = await change.find()

            if (answered, found is not None, sandbox.intermediary.answered) != (UNKNOWN, True, 1):
                wrong.append((reply, answered, found))
        await carrier.close()

        assert wrong == []

    @pytest.mark.parametrize(
        ("content", "whole"),
        [
            (b"%PDF-1.4\n" + b"x" * 150_000 + b"\n%%EOF\n", True),
            (b"%PDF-1.4\n" + b"x" * 200_000 + b"\n%%EOF\n", False),
            (b"%PDF-1.4\n" + b"x" * 150_000, False),
            (b"<html>%%EOF</html>", False),
            (b"", False),
        ],
        ids=["large", "too large", "cut off", "a page", "empty"],
    )
    async def test_a_printed_label_is_read_whole_or_not_at_all(self, content: bytes, whole: bool) -> None:
        async with a_scripted_server() as server:
            server.reply = Scripting(200, content)
            try:
                read = await fetched(f"{server.url}/label.pdf", form="pdf", hosts=(), carrier_url=server.url)
            except IndeterminateResponse:
                read = b""

        assert read == (content if whole else b"")


class TestTheIntermediary:
    async def test_does_the_same_by_the_same_seed(self, sandbox: Sandbox) -> None:
        provider, told = _made("sandbox payments", sandbox.base_url), []
        for _ in range(2):
            sandbox.intermediary.meddle(Meddling(rate=0.5, seed=7))
            told.append([await outcome(lambda p: p.get_transaction("pay_0"), provider) for _ in range(20)])
        sandbox.intermediary.meddle(Meddling())
        await provider.close()

        assert told[0] == told[1]
        assert len(set(told[0])) == 2


# Through the system

# What it answers with a page, and whether the request was executed.
MEDDLED = ((302, True), (404, True), (408, True), (404, False))
SEATTLE = {
    "name": "J",
    "street_address": "415 Pine St",
    "city": "Seattle",
    "country_area": "WA",
    "postal_code": "98101",
    "country_code": "US",
}
ITEM = {"product_variant_id": str(new_id()), "name": "Mug", "quantity": 2, "unit_price": 2495, "weight_grams": 400}
SIZED = [{"weight_grams": 837, "length_mm": 120, "width_mm": 95, "height_mm": 101}]


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, provider="stripe", fulfillment={}, webhooks={}) as made:
        await shop.set_up(made, carriers=["sandbox", "easypost", "shippo"])
        yield made


def _meddle(world: World, status: int, *, executed: bool = True, method: str = "POST") -> None:
    """Have it answer the next request."""
    replies = (Reply(status=status),)
    world.sandbox.intermediary.meddle(Meddling(rate=1, executed=float(executed), times=1, methods=(method,), replies=replies))


class TestThroughTheSystem:
    @pytest.mark.parametrize(("status", "executed"), MEDDLED)
    async def test_a_payment_is_made_once(self, world: World, status: int, executed: bool) -> None:
        """C04: the shopper paid twice."""
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)
        _meddle(world, status, executed=executed)

        answer = await world.authorize(order_id, snapshot_id, "pm_card_visa")

        assert answer.status in (201, 202), answer
        await until(lambda: _has(world, order_id, "status", "authorized"))
        assert world.sandbox.intermediary.answered == 1
        assert len(_payments(world, order_id)) == 1
        await world.books_agree(order_id)

    @pytest.mark.parametrize("body", UNKEPT, ids=["a NUL", "too deep"])
    async def test_a_payment_is_made_whatever_it_says(self, world: World, body: str) -> None:
        """The audit of the call was what the database refused, and with it the payment (kin of F18)."""
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)
        replies = (Reply(status=400, body=body, media_type=JSON),)
        world.sandbox.intermediary.meddle(Meddling(rate=1, executed=1, times=1, methods=("POST",), replies=replies))

        await world.authorize(order_id, snapshot_id, "pm_card_visa")

        await until(lambda: _has(world, order_id, "status", "authorized"))

    async def test_a_refund_is_made_once(self, world: World) -> None:
        payment = await world.a_captured_payment("pm_card_visa")
        _meddle(world, 302)

        answer = await payment.refund(400)

        assert answer.status in (201, 202), answer
        await until(lambda: _has(world, payment.order_id, "refunded_amount", 400))
        await world.books_agree(payment.order_id)

    async def test_an_event_whose_look_up_it_answers_is_not_lost(self, world: World) -> None:
        """C11: the look-up was answered 404, the event was processed, and the refund was not in the books."""
        payment = await world.a_captured_payment("pm_card_visa")
        _meddle(world, 404, method="GET")

        world.sandbox.books.add(payment.at_the_provider(), "refund", 400, reason="dashboard")

        await until(lambda: _has(world, payment.order_id, "refunded_amount", 400))
        assert world.sandbox.intermediary.answered == 1
        await world.books_agree(payment.order_id)

    @pytest.mark.parametrize(
        ("carrier", "status", "executed"),
        [
            *(("sandbox", *each) for each in MEDDLED),
            ("easypost", 404, True),
            ("easypost", 302, True),
            ("shippo", 404, True),
            ("shippo", 408, True),
        ],
    )
    async def test_a_label_is_bought_once(self, world: World, carrier: str, status: int, executed: bool) -> None:
        order_id, before = await an_order(world), len(world.sandbox.carrier.labels)
        rate = await _rate(world, order_id, carrier)
        _meddle(world, status, executed=executed)

        path = f"/api/v1/admin/orders/{order_id}/shipping/labels"
        answer = await world.send("POST", path, {"rate_id": rate}, headers={"Prefer": "wait=10"})

        assert answer.status == 201, answer
        assert answer.json["label"]["status"] == "purchased"
        assert world.sandbox.intermediary.answered == 1
        assert len(world.sandbox.carrier.labels) == before + 1

    async def test_a_void_is_asked_for_until_it_is_known(self, world: World) -> None:
        order_id = await an_order(world)
        rate, path = await _rate(world, order_id, "sandbox"), f"/api/v1/admin/orders/{order_id}/shipping/labels"
        label = (await ok(await world.send("POST", path, {"rate_id": rate})))["label"]
        _meddle(world, 404)

        voided = await ok(await world.send("POST", f"{path}/{label['id']}/void"))

        assert voided["status"] == "void_requested"
        await until(lambda: _label_is(world, order_id, "refunded"))

    @pytest.mark.parametrize(
        ("engine", "status", "executed"),
        [
            ("taxjar", 302, True),
            ("taxjar", 404, True),
            ("taxjar", 404, False),
            ("avalara", 408, True),
            ("avalara", 404, False),
        ],
    )
    async def test_a_tax_is_recorded_once(self, world: World, engine: str, status: int, executed: bool) -> None:
        ship_from = {**SEATTLE, "country_area": "NJ", "postal_code": "07446", "city": "Ramsey"}
        await _settle(world, tax_provider=engine, home_country="US", ship_from=ship_from)
        order_id = await an_order(world, currency="USD", items=[ITEM], shipping_amount=795, shipping_address=SEATTLE)
        snapshot = await ok(await quote(world, order_id))
        await pay(world, order_id, snapshot["snapshot_id"])
        _meddle(world, status, executed=executed)

        recorded = await ok(await finalize(world, order_id, snapshot["snapshot_id"], tax_hash=snapshot["tax_hash"]))

        await until(lambda: _filed(world, recorded["id"]))
        assert world.sandbox.intermediary.answered == 1
        assert [each.tax for each in world.sandbox.taxes.documents.values() if each.key == recorded["id"]] == ["5.99"]

    async def test_a_quote_that_it_answers_has_no_tax_of_nothing(self, world: World) -> None:
        await _settle(world, tax_provider="avalara", home_country="US", ship_from=SEATTLE)
        order_id = await an_order(world, currency="USD", items=[ITEM], shipping_amount=795, shipping_address=SEATTLE)
        _meddle(world, 200)

        answer = await quote(world, order_id)

        assert (answer.status, answer.code) == (503, "tax-unavailable")


async def _settle(world: World, **settings: Any) -> None:
    await ok(await world.send("PUT", "/api/v1/admin/fulfillment/settings", {**shop.SETTINGS, "carriers": ["sandbox"], **settings}))


async def _rate(world: World, order_id: UUID, carrier: str) -> str:
    path = f"/api/v1/checkout/orders/{order_id}/shipping/rates"
    found = (await ok(await world.send("POST", path, {"packages": SIZED})))["rates"]
    return str(next(each["id"] for each in found if each["carrier"] == carrier and each["service"].lower().endswith("ground")))


async def _has(world: World, order_id: UUID, name: str, value: Any) -> bool:
    ledger = await world.ledger(order_id)
    return [each["intent"][name] for each in ledger["payments"]] == [value]


def _payments(world: World, order_id: UUID) -> list[TheirPayment]:
    return [each for each in world.sandbox.books.payments.values() if each.order_id == str(order_id)]


async def _label_is(world: World, order_id: UUID, status: str) -> bool:
    shipments = (await ok(await world.send("GET", f"/api/v1/admin/shipments?order_id={order_id}")))["shipments"]
    return [label["status"] for each in shipments for label in each["labels"]] == [status]


async def _filed(world: World, document_id: str) -> bool:
    rows = await world.rows("SELECT status FROM fulfillment.tax_filings WHERE document_id = $1", UUID(document_id))
    return [row["status"] for row in rows] == ["filed"]
