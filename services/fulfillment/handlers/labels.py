"""Labels: bought once, whoever asks how often; and read."""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from uuid import UUID

import msgspec

from services.fulfillment.domain.pricing import RateChanged, RateExpired, above_nets
from services.fulfillment.domain.shipping.customs import said_of_return, terms_of, way_of
from services.fulfillment.domain.shipping.labels import LabelStatus
from services.fulfillment.domain.shipping.shipments import (
    LabelExists,
    LabelUnderWay,
    ShipmentFinalized,
    meant,
)
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.handlers.shopping import FALLBACK, registered_numbers
from services.fulfillment.providers import (
    Bought,
    Carrier,
    CarrierRate,
    CarrierRefused,
    LabelRequest,
    RatesRequest,
    Unsupported,
)
from services.fulfillment.store import labels as rows
from services.fulfillment.store import rates as rate_rows
from services.fulfillment.store import shipments, taxes
from services.fulfillment.store.labels import Label
from services.fulfillment.store.rates import Rate
from services.fulfillment.store.settings import Standing
from services.fulfillment.store.shipments import Shipment
from shared import audit, telemetry
from shared.backoff import step
from shared.contracts.customs import CustomsTerms, DeliveryConfirmation
from shared.contracts.fulfillment.shipping import (
    BuyLabel,
    DocumentView,
    GetDocument,
    LabelChanged,
    LabelResult,
    LabelView,
)
from shared.database import Statement, connected
from shared.errors import Invalid, NotFound, Outcome, Refusal, Unavailable
from shared.http_client import Call, recorded
from shared.ids import new_id
from shared.leases import lease_kept
from shared.messages import Envelope, Refused, done, type_of
from shared.provider_answers import OUTCOME_UNKNOWN, IndeterminateResponse
from shared.work import Batch, Work

logger = logging.getLogger(__name__)

# Of a label of which nothing is known the first look comes at once; then ever more rarely, until there is proof.
LOOKS_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


class RateNeeded(Refusal):
    """The shipment was priced without a carrier, so a label needs a rate of one."""

    code = "rate-needed"
    title = "Choose a carrier's rate"
    status = 422


async def buy_label(work: Work, command: BuyLabel, context: Fulfillment) -> None:
    """Buy the label of an order's shipment; what nothing is known of is left to the resolver."""
    envelope = work.envelope
    async with connected(context.desk.pool) as db:
        choice = await shipments.of_order(db, envelope, command.order_id)
        known = await rows.of_order(db, envelope, command.order_id)
    if any(label.command_id == envelope.id for label in known):
        # A crash came between: whether the carrier was asked is found out by the resolver, which answers this command.
        context.wake_resolver()
        return
    unpriced = None if choice.shipments or command.rate_id is None else await _unpriced(envelope, command, context)
    shipment = unpriced or meant(choice.shipments, snapshot_id=command.snapshot_id, paid_by=choice.paid_by)
    _refuse_second([label for label in known if label.shipment_id == shipment.id and label.is_return == command.is_return])
    carrier, request, rate = await _request(envelope, command, context, shipment)
    if carrier.capabilities.rates_buy_once and any(each.request.provider_rate_id == request.provider_rate_id for each in known):
        raise RateExpired("This rate has bought a label before; ask for the rates again.", {"rate_id": str(rate.shown.id)})

    label_id = new_id()
    batch = work.batch()
    # Whoever waits is known from now on, also to the resolver.
    batch.begin()
    if not shipment.finalized:
        batch.add(shipments.finalized(shipment, rate.shown) if unpriced is None else shipments.made_final(envelope, shipment))
        batch.add(shipments.happened(envelope, shipment.id, shipment.order_id, event="finalized", label_id=None, detail=request.service))
    batch.add(
        rows.begun(
            envelope,
            label_id,
            shipment,
            digest=work.digest,
            carrier=carrier.name,
            request=request,
            currency=rate.shown.currency,
            lease_seconds=context.settings.lease_seconds,
        )
    )
    await batch.commit()

    label = await read(context, envelope, command.order_id, label_id)
    await buy(work, context, carrier, label)


async def _unpriced(envelope: Envelope, command: BuyLabel, context: Fulfillment) -> Shipment | None:
    """Make a shipment for an order that states its shipping itself, from a rate that was asked for apart from a quote."""
    assert command.rate_id is not None, "it was looked at before"
    async with connected(context.desk.pool) as db:
        standing = await context.standing(db, envelope)
        content = await rate_rows.content_of(db, envelope, command.order_id, command.rate_id)
        found = await rate_rows.shown_with(db, envelope, command.order_id, command.rate_id)
        rate = next((each for each in found if each.shown.id == command.rate_id), None)
        if content is None or rate is None:
            return None
        if content.tax_lines is None:
            nets = await taxes.nets(db, envelope, command.order_id, rate.priced_hash)
            content = msgspec.structs.replace(content, tax_lines=above_nets(content, nets))
    return Shipment(
        id=new_id(),
        order_id=command.order_id,
        snapshot_id=None,
        status="draft",
        carrier=rate.shown.carrier,
        service=rate.shown.service,
        amount=rate.shown.amount,
        currency=rate.shown.currency,
        rate_id=rate.shown.id,
        content=content,
        ship_from=standing.settings.ship_from if standing.settings else None,
        packages=rate.packages,
        tracking_status="unknown",
        finalized_at=None,
        created_at=standing.now,
    )


def _refuse_second(known: Sequence[Label]) -> None:
    for label in known:
        if label.status == "buying":
            raise LabelUnderWay("Ask again in a moment.", {"label_id": str(label.id)})
        if label.status not in ("failed", LabelStatus.REFUNDED.value):
            raise LabelExists("Void the label first, if another one is needed.", {"label_id": str(label.id), "label_status": label.status})


async def _request(envelope: Envelope, command: BuyLabel, context: Fulfillment, shipment: Shipment) -> tuple[Carrier, LabelRequest, Rate]:
    """Say exactly what is to be bought; refuses what cannot be before anybody is asked."""
    async with connected(context.desk.pool) as db:
        standing = await context.standing(db, envelope)
        rate_id = command.rate_id or shipment.rate_id
        found = [] if rate_id is None else await rate_rows.shown_with(db, envelope, shipment.order_id, rate_id)
    rate = next((each for each in found if each.shown.id == rate_id), None)
    if rate is None:
        raise RateNeeded("Ask for rates and choose one of them (rate_id).", {"rate_id": None if rate_id is None else str(rate_id)})
    if rate.shown.carrier == FALLBACK:
        raise RateNeeded(
            "The shipment has the store's fallback rate, which is no carrier's. Ask for the rates again (POST …/shipping/rates) and name "
            "a carrier's (rate_id); what the customer pays stays as it is.",
            {"rate_id": str(rate_id), "service": rate.shown.service},
        )
    await _refuse_stale(envelope, context, shipment, rate)
    wanted = (rate.shown.carrier, rate.shown.service)
    if shipment.finalized and wanted != (shipment.carrier, shipment.service):
        raise ShipmentFinalized(
            "A label was asked for already; the chosen service stands.",
            {"service": shipment.service, "carrier": shipment.carrier, "wanted": rate.shown.service},
        )
    if command.service is not None and command.service != rate.shown.service:
        facts = {"service": rate.shown.service, "wanted": command.service}
        if shipment.finalized:
            raise ShipmentFinalized("A label was asked for already; the chosen service stands.", facts)
        raise Invalid("The rate is for another service.", facts)
    carrier = context.carrier(envelope, rate.shown.carrier)
    _refuse_unable(carrier, command, packages=len(rate.packages), currency=shipment.content.currency)
    address, here = shipment.content.shipping_address, shipment.ship_from or (standing.settings.ship_from if standing.settings else None)
    if address is None or here is None:
        raise Invalid("The shipment has no address to go to or to come from.", {"shipment_id": str(shipment.id)})
    start, end = (address, here) if command.is_return else (here, address)
    way = way_of(start, end, is_return=command.is_return)
    terms = terms_of(
        shipment.content,
        rate.packages,
        way,
        said=(command.customs, *_customs_terms(shipment, standing, command)),
        confirmations=(command.delivery_confirmation, *_confirmations(shipment, standing, command)),
        registered=await registered_numbers(envelope, context, standing, way),
    )
    asked = RatesRequest(ship_from=start, ship_to=end, packages=rate.packages, content=shipment.content, terms=terms)
    provider_rate_id = rate.provider_rate_id
    if command.is_return:
        provider_rate_id = (await _rate_again(context, carrier, asked, rate)).provider_rate_id
    elif rate.shown.expires_at is not None and rate.shown.expires_at <= standing.now:
        raise RateExpired(
            "Ask for the rates again and buy by one of them (rate_id); the price may be another.",
            {"rate_id": str(rate.shown.id), "service": rate.shown.service, "amount": rate.shown.amount},
        )
    elif carrier.capabilities.rates_bind_terms and terms.digest != rate.terms_digest:
        again = await _rate_again(context, carrier, asked, rate)
        _refuse_dearer(again, rate)
        provider_rate_id = again.provider_rate_id
    request = LabelRequest(
        provider_rate_id=provider_rate_id,
        service=rate.shown.service,
        ship_from=start,
        ship_to=end,
        packages=rate.packages,
        content=shipment.content,
        document=command.document,
        insured_amount=command.insured_amount,
        is_return=command.is_return,
        terms=terms,
    )
    return carrier, request, rate


def _customs_terms(shipment: Shipment, standing: Standing, command: BuyLabel) -> tuple[CustomsTerms | None, ...]:
    store = standing.settings.customs if standing.settings else None
    return (said_of_return(store),) if command.is_return else (shipment.content.customs, store)


def _confirmations(shipment: Shipment, standing: Standing, command: BuyLabel) -> tuple[DeliveryConfirmation | None, ...]:
    store = standing.settings.delivery_confirmation if standing.settings else None
    return () if command.is_return else (shipment.content.delivery_confirmation, store)


def _refuse_dearer(again: CarrierRate, rate: Rate) -> None:
    if again.currency != rate.shown.currency or again.amount > rate.shown.amount:
        raise RateExpired(
            "With what is declared now it costs more; say it in the order, ask for the rates again and buy by one of them (rate_id).",
            {"rate_id": str(rate.shown.id), "service": rate.shown.service, "amount": again.amount, "currency": again.currency},
        )


async def _refuse_stale(envelope: Envelope, context: Fulfillment, shipment: Shipment, rate: Rate) -> None:
    """Refuse a rate that was quoted for something else than the shipment: its packages are another order's."""
    if shipment.rate_id in (None, rate.shown.id):
        return
    async with connected(context.desk.pool) as db:
        found = await rate_rows.shown_with(db, envelope, shipment.order_id, shipment.rate_id)
    if any(each.priced_hash != rate.priced_hash for each in found):
        facts = {"rate_id": str(rate.shown.id), "shipment_id": str(shipment.id)}
        raise RateChanged("Ask for the rates again; this one is for what the order was at another time.", facts)


async def _rate_again(context: Fulfillment, carrier: Carrier, asked: RatesRequest, rate: Rate) -> CarrierRate:
    """Find the same service's rate for another way or other terms than the customer's quote had."""
    try:
        async with asyncio.timeout(context.settings.rates_timeout_seconds):
            offered = await carrier.rates(asked)
    except (TimeoutError, *OUTCOME_UNKNOWN) as silent:
        raise Unavailable(f"{carrier.name} gave no rate for the label") from silent
    except CarrierRefused as refused:
        raise CarrierSaidNo(refused.detail, {"carrier": carrier.name, "carrier_code": refused.code}) from refused
    for each in offered:
        if each.service == rate.shown.service:
            return each
    raise Unsupported(f"{carrier.name} does not offer {rate.shown.service} for this label.", {"service": rate.shown.service})


def _refuse_unable(carrier: Carrier, command: BuyLabel, *, packages: int, currency: str) -> None:
    can = carrier.capabilities
    insurable = not can.insurance_currencies or currency in can.insurance_currencies
    wishes = (
        (True, can.labels, "prints no labels"),
        (True, command.document in can.documents or not can.labels, f"prints no {command.document}"),
        (command.is_return, can.returns, "has no labels for the way back"),
        (command.insured_amount is not None, can.insurance, "does not insure"),
        (command.insured_amount is not None, insurable, f"does not insure in {currency}"),
        (packages > 1, can.multiple_packages, "takes one package a label"),
    )
    for wanted, able, text in wishes:
        if wanted and not able:
            raise Unsupported(f"{carrier.name} {text}.", {"carrier": carrier.name})


class CarrierSaidNo(Refusal):
    """The carrier refused for a reason of its own; nothing was bought."""

    code = "carrier-refused"
    title = "The carrier refused"
    status = 422
    outcome = Outcome.DECLINED


async def buy(work: Work, context: Fulfillment, carrier: Carrier, label: Label) -> None:
    """Make the call under our lease, and remember what came of it."""
    with recorded() as calls:
        try:
            async with kept(context, label):
                if time.monotonic() - label.leased_at_seconds > context.settings.lease_seconds:
                    # We stood still (a frozen machine, say) and somebody else may be at it by now.
                    raise IndeterminateResponse("the lease ran out before anything was sent")
                bought = await carrier.buy(label.request, reference=label.id)
        except CarrierRefused as refused:
            await failed(work, context, label, refused, calls)
            return
        except OUTCOME_UNKNOWN as silent:
            facts = {"label_id": str(label.id), "carrier": carrier.name, "trouble": f"{type(silent).__name__}: {silent}"}
            telemetry.say(logger, logging.WARNING, "nothing is known of a label", facts)
            batch = work.batch()
            batch.add(rows.looked(label, again_seconds=step(LOOKS_SECONDS, label.looks)), *audited(label, calls))
            await batch.commit()
            context.wake_resolver()
            return
    await purchased(work, context, carrier, label, bought, calls)


async def purchased(work: Work, context: Fulfillment, carrier: Carrier, label: Label, bought: Bought, calls: Sequence[Call]) -> None:
    """Remember a label that was bought, and answer whoever waits for it."""
    numbers = [package.tracking_number for package in bought.packages]
    now = rows.after(label, bought.status, bought)
    shown = rows.view(now, numbers)
    batch = work.batch()
    batch.add(
        rows.stands(label, bought.status.value, bought=bought),
        rows.packed(label, bought, carrier=carrier.carrier, look_seconds=context.settings.track_every_seconds),
        shipments.happened(label.envelope(), label.shipment_id, label.order_id, event="label_purchased", label_id=label.id),
        *audited(label, calls),
    )
    await _answer(batch, context, label, shown)
    batch.tell([LabelChanged(order_id=label.order_id, label=shown)])
    await batch.commit()


async def failed(work: Work, context: Fulfillment, label: Label, refused: CarrierRefused, calls: Sequence[Call]) -> None:
    """Remember that nothing was bought, and say why."""
    batch = work.batch()
    reason = f"{refused.code}: {refused.detail}"
    batch.add(
        rows.stands(label, "failed", reason=reason),
        shipments.happened(label.envelope(), label.shipment_id, label.order_id, event="label_failed", label_id=label.id, detail=reason),
        *audited(label, calls),
    )
    facts = {"carrier": label.carrier, "carrier_code": refused.code, "label_id": str(label.id)}
    problem = CarrierSaidNo(refused.detail or "The carrier gave no reason.", facts).problem()
    batch.conclude_for(label.envelope(), kind=type_of(BuyLabel), digest=label.command_digest, reply=Refused(problem))
    await batch.commit()


async def _answer(batch: Batch, context: Fulfillment, label: Label, shown: LabelView) -> None:
    async with connected(context.desk.pool) as db:
        choice = await shipments.of_order(db, label.envelope(), label.order_id)
    shipment = next(each for each in choice.shipments if each.id == label.shipment_id)
    result = LabelResult(shipment=shipments.view(shipment, [shown]), label=shown)
    batch.conclude_for(label.envelope(), kind=type_of(BuyLabel), digest=label.command_digest, reply=done(result))


def audited(label: Label, calls: Sequence[Call]) -> list[Statement]:
    """Write the audit of calls made for a label, if there were any."""
    return audit.called(label.envelope(), label.id, calls)


def kept(context: Fulfillment, label: Label) -> AbstractAsyncContextManager[None]:
    """Keep our lease on a label while a carrier is asked about it."""
    seconds = context.settings.lease_seconds
    return lease_kept(lambda: rows.renew(context.desk.pool, label, lease_seconds=seconds), lease_seconds=seconds)


async def read(context: Fulfillment, envelope: Envelope, order_id: UUID, label_id: UUID) -> Label:
    """Read an order's label; raises NotFound."""
    async with connected(context.desk.pool) as db:
        found = next((each for each in await rows.of_order(db, envelope, order_id) if each.id == label_id), None)
    if found is None:
        raise NotFound(f"There is no label {label_id} of this order.")
    return found


# Reading


async def get_document(envelope: Envelope, query: GetDocument, context: Fulfillment) -> DocumentView:
    """Read a label's printed form."""
    async with connected(context.desk.pool) as db:
        found = await rows.document(db, envelope, query.order_id, query.label_id, query.package)
    if found is None:
        raise NotFound(f"There is no printed label {query.label_id} for package {query.package} of this order.")
    return DocumentView(media_type=found[0], content=found[1])
