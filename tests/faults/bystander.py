"""A store that goes about its business while another attacks: a light, steady mixture at a fixed rate, and how long each of it took."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import aiohttp
import msgspec
from aiohttp import web

from deploy.sandbox.webhooks import Told
from services.gateway.domain import Role
from shared.ids import new_id
from tests.world import ORDER, World

# Stories a second, each of four requests and one delivery: a few hundredths of what the system can do.
STORIES_PER_SECOND = 3.0
REQUEST_TIMEOUT_SECONDS = 30.0
# How long after its payment an event may come before it counts as lost.
DELIVERY_TIMEOUT_SECONDS = 60.0
EXPECTED = {"order": 200, "quote": 201, "authorize": 201, "webhook": 200}


class Measured(msgspec.Struct, kw_only=True):
    """How long each request and each delivery took, in seconds, the longest of each kind of request, and what failed."""

    requests: list[float] = []
    longest: dict[str, float] = {}
    deliveries: list[float] = []
    failures: list[str] = []


class Bystander:
    """The store's client, the server that its events are delivered to, and the provider that posts to it."""

    def __init__(self, world: World, http: aiohttp.ClientSession, url: str) -> None:
        self._world = world
        self._http = http
        self._url = url
        self._endpoint_id = ""
        self._delivered: dict[str, asyncio.Event] = {}

    async def subscribe(self) -> None:
        """Have the store's events delivered."""
        answer = await self._world.send(
            "POST", "/api/v1/admin/webhook-endpoints", {"url": self._url, "event_types": ["payment.authorized"]}
        )
        assert answer.status == 200, answer
        self._endpoint_id = answer.json["id"]

    async def unsubscribe(self) -> None:
        """Have them delivered no more."""
        answer = await self._world.send("DELETE", f"/api/v1/admin/webhook-endpoints/{self._endpoint_id}")
        assert answer.status == 200, answer
        self._endpoint_id = ""

    async def receive(self, request: web.Request) -> web.Response:
        """Receive an event as the store's server does."""
        event = msgspec.json.decode(await request.read())
        arrived = self._delivered.get(event["order_id"])
        if arrived is not None:
            arrived.set()
        return web.Response()

    async def measure(self, seconds: float) -> Measured:
        """Begin stories at the fixed rate, however long earlier ones take, and wait for the last of them."""
        measured = Measured(requests=[], longest={}, deliveries=[], failures=[])
        loop = asyncio.get_running_loop()
        started, number = loop.time(), 0
        async with asyncio.TaskGroup() as stories:
            while (due := number / STORIES_PER_SECOND) < seconds:
                await asyncio.sleep(max(0.0, started + due - loop.time()))
                stories.create_task(self._story(measured, started + due))
                number += 1
        return measured

    async def _story(self, measured: Measured, due: float) -> None:
        order_id = new_id()
        arrived = self._delivered[str(order_id)] = asyncio.Event()
        quoted = None
        if await self._timed(measured, "order", "PUT", f"/api/v1/admin/orders/{order_id}", ORDER, since=due) is not None:
            body = {"order_id": order_id, "payment_provider": "sandbox"}
            quoted = await self._timed(measured, "quote", "POST", "/api/v1/checkout/quote", body)
        if quoted is not None:
            await self._pay(measured, order_id, quoted["snapshot_id"], arrived)
        await self._webhook(measured)
        del self._delivered[str(order_id)]

    async def _pay(self, measured: Measured, order_id: UUID, snapshot_id: str, arrived: asyncio.Event) -> None:
        path = f"/api/v1/checkout/orders/{order_id}/payments/authorize"
        paid = await self._timed(measured, "authorize", "POST", path, {"snapshot_id": snapshot_id, "payment_method": "tok_success"})
        if paid is None or not self._endpoint_id:
            return
        loop = asyncio.get_running_loop()
        since = loop.time()
        try:
            await asyncio.wait_for(arrived.wait(), timeout=DELIVERY_TIMEOUT_SECONDS)
        except TimeoutError:
            measured.failures.append("delivery: none")
        measured.deliveries.append(loop.time() - since)

    async def _webhook(self, measured: Measured) -> None:
        event_id = f"evt_{new_id().hex}"
        body = msgspec.json.encode({"id": event_id, "type": "customer.created", "created_at": "2026-01-01T00:00:00Z", "data": {}})
        headers = self._world.sandbox.outgoing.headers(Told(id=event_id, type="customer.created", body=body))
        await self._timed(measured, "webhook", "POST", "/api/v1/webhooks/sandbox", body, headers=headers)

    async def _timed(
        self,
        measured: Measured,
        what: str,
        method: str,
        path: str,
        body: Any,
        *,
        since: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        key = self._world.keys[Role.ADMIN]
        sent = headers or {"Authorization": f"Bearer {key}", "Idempotency-Key": new_id().hex, "Content-Type": "application/json"}
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        loop = asyncio.get_running_loop()
        began = since or loop.time()
        try:
            async with self._http.request(method, self._world.gateway_url + path, data=content, headers=sent) as response:
                status, text = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as failed:
            status, text = 0, type(failed).__name__.encode()
        elapsed_seconds = loop.time() - began
        measured.requests.append(elapsed_seconds)
        measured.longest[what] = max(elapsed_seconds, measured.longest.get(what, 0.0))
        if status == EXPECTED[what]:
            return msgspec.json.decode(text) if text else {}
        measured.failures.append(f"{what}: {status} {text[:120].decode(errors='replace')}")
        return None


@contextlib.asynccontextmanager
async def a_bystander(world: World) -> AsyncIterator[Bystander]:
    """Run the store's server while inside; its events are delivered from the beginning."""
    app = web.Application()
    runner = web.AppRunner(app)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)) as http:
        receivers: list[Bystander] = []

        async def receive(request: web.Request) -> web.Response:
            return await receivers[0].receive(request)

        app.router.add_post("/hooks", receive)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server: Any = site._server
        bystander = Bystander(world, http, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks")
        receivers.append(bystander)
        try:
            await bystander.subscribe()
            yield bystander
        finally:
            await runner.cleanup()
