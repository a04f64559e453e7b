"""The same cases against every carrier's adapter: what is bought is bought once and found, trouble proves nothing, a refusal does."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pypdfium2
import pytest

from deploy.sandbox.server import Sandbox
from services.fulfillment.domain.shipping.labels import LabelStatus
from services.fulfillment.domain.shipping.tracking import TrackingStatus
from services.fulfillment.providers import Carrier, CarrierRefused, LabelRequest, RatesRequest
from services.fulfillment.providers.easypost import EasyPost
from services.fulfillment.providers.sandbox import SandboxCarrier
from services.fulfillment.providers.shippo import Shippo
from shared.contracts.fulfillment.pricing import PackageBody
from shared.contracts.orders import Address, OrderContent
from shared.http_client import NoAnswer
from shared.ids import new_id
from shared.provider_answers import IndeterminateResponse
from tests.fulfillment.shop import MUG
from tests.world import SANDBOX_KEY, a_sandbox

HOME = Address(name="Shop", street_address="Karl-Marx-Allee 1", city="Berlin", postal_code="10178", country_code="DE")
AWAY = Address(name="Erika", street_address="Marienplatz 1", city="München", postal_code="80331", country_code="DE")
CONTENT = msgspec.convert(
    {"currency": "EUR", "items": [{"product_variant_id": MUG["product_variant_id"], "name": "Mug", "quantity": 1, "unit_price": 1490}]},
    OrderContent,
)
PACKAGE = PackageBody(weight_grams=437, length_mm=120, width_mm=95, height_mm=101)
ADAPTERS: dict[str, type[SandboxCarrier] | type[EasyPost] | type[Shippo]] = {
    "sandbox": SandboxCarrier,
    "easypost": EasyPost,
    "shippo": Shippo,
}


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with a_sandbox() as made:
        yield made


@pytest.fixture(params=list(ADAPTERS))
async def carrier(request: pytest.FixtureRequest, sandbox: Sandbox) -> AsyncIterator[Carrier]:
    made = ADAPTERS[request.param](base_url=sandbox.base_url, api_key=SANDBOX_KEY, timeout_seconds=0.5)
    yield made
    await made.close()


def asked(there: Address = AWAY) -> RatesRequest:
    return RatesRequest(ship_from=HOME, ship_to=there, packages=(PACKAGE,), content=CONTENT)


async def wanted(carrier: Carrier, there: Address = AWAY, **changes: Any) -> LabelRequest:
    """A label by the second cheapest rate."""
    rate = (await carrier.rates(asked(there)))[1]
    said: dict[str, Any] = {
        "provider_rate_id": rate.provider_rate_id,
        "service": rate.service,
        "ship_from": HOME,
        "ship_to": there,
        "packages": (PACKAGE,),
        "content": CONTENT,
        "document": "pdf",
        "insured_amount": None,
        "is_return": False,
    }
    return LabelRequest(**{**said, **changes})


async def test_rates_are_exact_and_expire(carrier: Carrier) -> None:
    rates = await carrier.rates(asked())

    assert [(rate.amount, rate.currency, rate.transit_days) for rate in rates] == [(390, "EUR", 4), (490, "EUR", 2), (1290, "EUR", 1)]
    assert all(rate.expires_at is not None for rate in rates)


async def test_a_silent_one_is_silence(carrier: Carrier) -> None:
    with pytest.raises(NoAnswer):
        await carrier.rates(asked(msgspec.structs.replace(AWAY, city="Silent Hill")))


@pytest.mark.parametrize("document", ["pdf", "zpl"])
async def test_a_label_is_bought_and_printed(carrier: Carrier, document: str) -> None:
    bought = await carrier.buy(await wanted(carrier, document=document), reference=new_id())

    assert (bought.amount, bought.currency, bought.status) == (490, "EUR", LabelStatus.PURCHASED)
    [package] = bought.packages
    if document == "pdf":
        assert package.tracking_number in pypdfium2.PdfDocument(package.document)[0].get_textpage().get_text_bounded()
    else:
        assert f"^FD{package.tracking_number}^FS".encode() in package.document


async def test_what_was_not_bought_is_not_found_and_what_was_is(carrier: Carrier) -> None:
    request, reference = await wanted(carrier), new_id()

    assert await carrier.find(request, reference=reference) is None
    bought = await carrier.buy(request, reference=reference)
    assert await carrier.find(request, reference=reference) == bought


async def test_an_answer_that_never_came_is_found(carrier: Carrier, sandbox: Sandbox) -> None:
    there = msgspec.structs.replace(AWAY, city="Late Harbour")
    request, reference, before = await wanted(carrier, there), new_id(), len(sandbox.carrier.labels)

    with pytest.raises(NoAnswer):
        await carrier.buy(request, reference=reference)

    found = await carrier.find(request, reference=reference)
    assert found is not None
    assert found.status is LabelStatus.PURCHASED
    assert len(sandbox.carrier.labels) == before + 1


@pytest.mark.parametrize("city", ["Failing Once", "Busytown"])
async def test_its_own_trouble_proves_nothing(carrier: Carrier, sandbox: Sandbox, city: str) -> None:
    request, before = await wanted(carrier, msgspec.structs.replace(AWAY, city=city)), len(sandbox.carrier.labels)

    with pytest.raises(IndeterminateResponse):
        await carrier.buy(request, reference=new_id())

    assert len(sandbox.carrier.labels) == before


async def test_a_rate_that_is_not_there_is_refused_with_a_reason(carrier: Carrier) -> None:
    known = await wanted(carrier)
    unknown = msgspec.structs.replace(known, provider_rate_id=f"{known.provider_rate_id.partition('/')[0]}/rate_0")

    with pytest.raises(CarrierRefused):
        await carrier.buy(unknown, reference=new_id())


async def test_a_void_is_granted(carrier: Carrier) -> None:
    bought, reference = await carrier.buy(await wanted(carrier), reference=new_id()), new_id()

    assert await carrier.status(bought.provider_label_id) is LabelStatus.PURCHASED
    assert await carrier.void(bought.provider_label_id, reference=reference) is LabelStatus.REFUNDED
    assert await carrier.void(bought.provider_label_id, reference=reference) is LabelStatus.REFUNDED
    assert await carrier.status(bought.provider_label_id) is LabelStatus.REFUNDED


async def test_a_void_is_decided_later(carrier: Carrier, sandbox: Sandbox) -> None:
    sandbox.carrier.grants_voids = False
    bought = await carrier.buy(await wanted(carrier), reference=new_id())
    label, _ = sandbox.carrier.parcel(bought.packages[0].tracking_number)

    asked_for = await carrier.void(bought.provider_label_id, reference=new_id())
    waiting = await carrier.status(bought.provider_label_id)
    sandbox.carrier.decide_void(label, granted=False)
    sandbox.carrier.grants_voids = True

    assert (asked_for, waiting) == (LabelStatus.VOID_REQUESTED, LabelStatus.VOID_REQUESTED)
    assert await carrier.status(bought.provider_label_id) is LabelStatus.REJECTED


async def test_a_history_to_the_door(carrier: Carrier, sandbox: Sandbox) -> None:
    bought = await carrier.buy(await wanted(carrier), reference=new_id())
    number = bought.packages[0].tracking_number
    for _ in range(5):
        sandbox.carrier.move(number, {})

    events = await carrier.track(number, provider_label_id=bought.provider_label_id)

    # EasyPost has no word for taken in.
    taken_in = TrackingStatus.IN_TRANSIT if carrier.name == "easypost" else TrackingStatus.PICKED_UP
    assert [event.status for event in events] == [
        TrackingStatus.PRE_TRANSIT,
        taken_in,
        TrackingStatus.IN_TRANSIT,
        TrackingStatus.OUT_FOR_DELIVERY,
        TrackingStatus.DELIVERED,
    ]
    assert {(event.carrier, event.tracking_number) for event in events} == {(carrier.carrier, number)}


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"data":{"scan":{}},"event":"track_updated","result":{"object":"Tracker"}}'])
async def test_an_event_that_cannot_be_read(carrier: Carrier, body: bytes) -> None:
    try:
        news = carrier.read_event("parcel.moved", body)
    except ValueError:
        return
    assert (news.events, news.label_status) == ((), None)


async def test_a_key_that_is_wrong_proves_nothing(sandbox: Sandbox) -> None:
    for adapter in (EasyPost, Shippo):
        carrier = adapter(base_url=sandbox.base_url, api_key="wrong", timeout_seconds=0.5)
        with pytest.raises(IndeterminateResponse, match="401"):
            await carrier.rates(asked())
        await carrier.close()
