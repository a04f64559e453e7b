"""Shipping and tax as fulfillment works them out; what an order states itself is taken as it is."""

from typing import TypeVar

import msgspec

from shared.bus import Unroutable
from shared.contracts.fulfillment.pricing import Figures, Price, ProviderMetadata, QuoteRates, RatesView, ShippingRate
from shared.contracts.orders import OrderContent, impersonal, personal_text
from shared.errors import UNAVAILABLE, Refusal, Unavailable
from shared.ids import new_id
from shared.messages import Done, Envelope, Query
from shared.replies import Replies
from shared.sealing import Sealing
from shared.vault import personal_place

AS_ORDERED = ProviderMetadata(name="as-ordered", capabilities={}, browser={})

V = TypeVar("V")
PricingQuery = TypeVar("PricingQuery", Price, QuoteRates)


class FulfillmentPricing:
    """Asks fulfillment, once per quote, for what the order leaves open."""

    def __init__(self, replies: Replies, sealing: Sealing, *, timeout_seconds: float) -> None:
        self._replies = replies
        self._sealing = sealing
        self._timeout_seconds = timeout_seconds

    async def figures(self, envelope: Envelope, asked: Price) -> Figures:
        """Say what shipping and tax come to; raises a refusal, or Unavailable when nobody answers."""
        if asked.content.shipping_amount is not None and asked.content.tax_lines is not None:
            return _as_ordered(asked.content)
        return await self._ask(envelope, self._sealed(envelope, asked), Figures)

    async def rates(self, envelope: Envelope, asked: QuoteRates) -> RatesView:
        """Say what it costs to ship an order; raises as above."""
        return await self._ask(envelope, self._sealed(envelope, asked), RatesView)

    def _sealed(self, envelope: Envelope, asked: PricingQuery) -> PricingQuery:
        place = personal_place(envelope.store_id, envelope.environment.value, asked.order_id)
        hidden = self._sealing.hide("fulfillment", personal_text(asked.content), info=place)
        return msgspec.structs.replace(asked, content=impersonal(asked.content), personal=hidden)

    async def _ask(self, envelope: Envelope, query: Query, kind: type[V]) -> V:
        asking = msgspec.structs.replace(envelope, id=new_id(), source="payments", attempt=0, first_seen=None, reply_to="")
        try:
            answer = await self._replies.ask(asking, query, timeout_seconds=self._timeout_seconds)
        except Unroutable as missing:
            raise Unavailable(str(missing)) from missing
        if isinstance(answer, Done):
            return msgspec.json.decode(answer.body, type=kind)
        # What its rules say is passed on, also that somebody else is silent.
        if answer.problem.code == UNAVAILABLE:
            raise Unavailable(f"fulfillment: {answer.problem.detail}")
        raise Refusal.of(answer.problem)


def _as_ordered(content: OrderContent) -> Figures:
    rate = ShippingRate(service="as-ordered", amount=content.shipping_amount or 0, currency=content.currency)
    return Figures(
        shipping_amount=rate.amount,
        rates=[rate],
        selected=rate,
        tax_lines=content.tax_lines or [],
        providers={"shipping": AS_ORDERED, "tax": AS_ORDERED},
    )
