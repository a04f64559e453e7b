"""Work to measure: prepared beforehand, so that only the measured requests are measured."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import msgspec

from deploy.sandbox.webhooks import Outgoing, Told
from deploy.stack import Running
from shared.ids import new_id
from tests.bench.client import Connection, Work, closed_loop

ITEM = {"product_variant_id": "0192f0c1-7e00-7000-8000-000000000001", "name": "Mug", "quantity": 1, "unit_price": 1250}
PRICED_BY_THE_SHOP: Any = {"currency": "EUR", "items": [ITEM], "shipping_amount": 0, "tax_lines": []}
PRICED_BY_US: Any = {
    "currency": "EUR",
    "items": [{**ITEM, "weight_grams": 400, "tax_behavior": "inclusive"}] * 3,
    "shipping_address": {
        "name": "Jean",
        "street_address": "1 Rue de Rivoli",
        "city": "Paris",
        "postal_code": "75001",
        "country_code": "FR",
    },
}
PREPARING_CLIENTS = 16


class Shop:
    """Makes pieces of work of each kind against a running stack."""

    def __init__(self, up: Running, *, webhook_secret: str) -> None:
        self.url = up.state.gateway_url
        self._ingest_url = up.state.urls["webhooks"]
        self._provider = Outgoing(url="", secret=webhook_secret)
        # As it is used: the shop's backend pays with a key for checkout, its staff's tools do the rest with theirs.
        self._checkout, self._staff = (
            {"content-type": "application/json", "authorization": f"Bearer {key}"} for key in (up.state.checkout_key, up.state.api_key)
        )

    def url_of(self, what: str) -> str:
        """Tell to which service a kind of work goes."""
        return self._ingest_url if what == "webhooks" else self.url

    async def make(self, what: str, count: int) -> Work:
        """Prepare so many pieces of work of a kind."""
        makers: dict[str, Callable[[int], Awaitable[Work]]] = {
            "authorize": self._authorizing,
            "capture": self._capturing,
            "refund": self._refunding,
            "replay": self._replaying,
            "checkout": self._checking_out,
            "quote": self._quoting,
            "webhooks": self._telling,
        }
        return await makers[what](count)

    async def _authorizing(self, count: int) -> Work:
        quoted = await self._quoted(count)

        async def work(connection: Connection, number: int) -> tuple[int, bytes]:
            return await self._authorize(connection, *quoted[number])

        return work

    async def _capturing(self, count: int) -> Work:
        paid = await self._authorized(count)

        async def work(connection: Connection, number: int) -> tuple[int, bytes]:
            return await self._operate(connection, "capture", *paid[number], {})

        return work

    async def _refunding(self, count: int) -> Work:
        paid = await self._authorized(count)

        async def capture(connection: Connection, number: int) -> tuple[int, bytes]:
            return await self._operate(connection, "capture", *paid[number], {})

        await closed_loop(self.url, capture, clients=PREPARING_CLIENTS, count=count)

        async def work(connection: Connection, number: int) -> tuple[int, bytes]:
            return await self._operate(connection, "refund", *paid[number], {"amount": 500})

        return work

    async def _replaying(self, _: int) -> Work:
        order_id, snapshot_id = (await self._quoted(1))[0]
        key = f"replay-{order_id}"

        async def work(connection: Connection, _: int) -> tuple[int, bytes]:
            return await self._authorize(connection, order_id, snapshot_id, key)

        await closed_loop(self.url, work, clients=1, count=1)
        return work

    async def _checking_out(self, count: int) -> Work:
        orders = await self._pushed(count)

        async def work(connection: Connection, number: int) -> tuple[int, bytes]:
            order_id = orders[number]
            _, quoted = await self._send(connection, "POST", "/api/v1/checkout/quote", {"order_id": order_id})
            _, paid = await self._authorize(connection, order_id, msgspec.json.decode(quoted)["snapshot_id"])
            return await self._operate(connection, "capture", order_id, msgspec.json.decode(paid)["intent"]["id"], {})

        return work

    async def _quoting(self, count: int) -> Work:
        """Quotes whose shipping and tax are worked out: a carrier, a table and the rules are asked for each."""
        orders = await self._pushed(count, PRICED_BY_US)

        async def work(connection: Connection, number: int) -> tuple[int, bytes]:
            return await self._send(connection, "POST", "/api/v1/checkout/quote", {"order_id": orders[number]})

        return work

    async def _telling(self, count: int) -> Work:
        """Signed events about nothing of ours: kept like any other, and soon dealt with."""
        events = []
        for _ in range(count):
            event_id = f"evt_{new_id().hex}"
            body = msgspec.json.encode({"id": event_id, "type": "customer.updated", "data": {"id": "cus_1", "note": "x" * 700}})
            told = Told(id=event_id, type="customer.updated", body=body)
            events.append((body, {name.lower(): value for name, value in self._provider.headers(told).items()}))

        async def work(connection: Connection, number: int) -> tuple[int, bytes]:
            return await connection.request("POST", "/api/v1/webhooks/sandbox", *events[number])

        return work

    # Steps

    async def _pushed(self, count: int, content: Any = PRICED_BY_THE_SHOP) -> dict[int, UUID]:
        orders = {number: new_id() for number in range(count)}

        async def push(connection: Connection, number: int) -> tuple[int, bytes]:
            return await self._send(
                connection,
                "PUT",
                f"/api/v1/admin/orders/{orders[number]}",
                content,
            )

        await closed_loop(self.url, push, clients=PREPARING_CLIENTS, count=count)
        return orders

    async def _quoted(self, count: int) -> dict[int, tuple[UUID, str]]:
        orders, quoted = await self._pushed(count), dict[int, tuple[UUID, str]]()

        async def quote(connection: Connection, number: int) -> tuple[int, bytes]:
            status, answer = await self._send(connection, "POST", "/api/v1/checkout/quote", {"order_id": orders[number]})
            quoted[number] = (orders[number], msgspec.json.decode(answer)["snapshot_id"])
            return status, answer

        await closed_loop(self.url, quote, clients=PREPARING_CLIENTS, count=count)
        return quoted

    async def _authorized(self, count: int) -> dict[int, tuple[UUID, str]]:
        quoted, paid = await self._quoted(count), dict[int, tuple[UUID, str]]()

        async def pay(connection: Connection, number: int) -> tuple[int, bytes]:
            status, answer = await self._authorize(connection, *quoted[number])
            paid[number] = (quoted[number][0], msgspec.json.decode(answer)["intent"]["id"])
            return status, answer

        await closed_loop(self.url, pay, clients=PREPARING_CLIENTS, count=count)
        return paid

    async def _authorize(self, connection: Connection, order_id: UUID, snapshot_id: str, key: str = "") -> tuple[int, bytes]:
        body = {"snapshot_id": snapshot_id, "payment_method": "tok_success"}
        return await self._send(connection, "POST", f"/api/v1/checkout/orders/{order_id}/payments/authorize", body, key)

    async def _operate(self, connection: Connection, what: str, order_id: UUID, intent_id: str, body: Any) -> tuple[int, bytes]:
        return await self._send(connection, "POST", f"/api/v1/admin/orders/{order_id}/payments/{intent_id}/{what}", body)

    async def _send(self, connection: Connection, method: str, path: str, body: Any, key: str = "") -> tuple[int, bytes]:
        own = self._staff if path.startswith("/api/v1/admin") else self._checkout
        headers = {**own, "idempotency-key": key or new_id().hex}
        return await connection.request(method, path, msgspec.json.encode(body), headers)
