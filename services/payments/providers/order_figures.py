"""Shipping and tax as the order itself states them."""

from services.payments.providers import ShippingAndTax
from shared.contracts.orders import OrderContent
from shared.contracts.payments import ShippingRate


class OrderFigures:
    """Takes the shipping amount and the tax lines that the shop sent with the order."""

    async def shipping_and_tax(self, content: OrderContent) -> ShippingAndTax:
        """Say what the order says."""
        rate = ShippingRate(service="as-ordered", amount=content.shipping_amount, currency=content.currency)
        return ShippingAndTax(rates=[rate], selected=rate, tax_lines=content.tax_lines, providers={})
