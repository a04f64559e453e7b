"""What payments does for each message: the story, one function each."""

from services.payments.handlers.asking import Payments
from services.payments.handlers.lifecycle import authorize, capture, confirm, refund, void
from services.payments.handlers.observing import observe, take_event
from services.payments.handlers.orders import get_order, get_payments, list_orders, put_order, quote, shop_rates

__all__ = [
    "Payments",
    "authorize",
    "capture",
    "confirm",
    "get_order",
    "get_payments",
    "list_orders",
    "observe",
    "put_order",
    "quote",
    "refund",
    "shop_rates",
    "take_event",
    "void",
]
