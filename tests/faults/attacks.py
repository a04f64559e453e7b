"""What a hostile store or a stranger sends, from a process of its own: one attack at a named rate, counted by the statuses it got."""

import asyncio
import base64
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from shared.ids import new_id

# The attacker gives way: on two cores it must not be its own processor time that slows others.
NICENESS = 10
# What is under way at once; report H1 had 560.
CONCURRENT_MAX = 560
REQUEST_TIMEOUT_SECONDS = 90.0
SETUP_TIMEOUT_SECONDS = 60.0
WAIT = {"Prefer": "wait=60"}
# A flood ends when the server closes; this is far over every limit.
FLOOD_MAX_BYTES = 20 * 1024 * 1024
FLOOD_PIECE = b"x-n: " + b"a" * 1_000 + b"\r\n"
FORGED_HEADERS = 28
FORGED_HEADER_BYTES = 1_000
# Addresses of the loopback network that the slow bodies come from, each of them an address for the limits.
SLOW_ADDRESSES = tuple(f"127.0.0.{number}" for number in range(2, 5))
BODY_BYTES = 1024 * 1024 - 1
BATCH_ITEMS = 4_000
ENDPOINTS_MAX = 20
# Counted instead of a status: connections that the server had not ended when the attack was over.
STILL_OPEN = "open"
STORE_KEYS_PATH = "/api/v1/admin/providers/{provider}/credentials"
ADYEN_KEY = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"

ORDER: dict[str, Any] = {
    "currency": "EUR",
    "items": [{"product_variant_id": "0192f0c1-7e00-7000-8000-000000000001", "name": "Mug", "quantity": 1, "unit_price": 1000}],
    "shipping_amount": 0,
    "tax_lines": [],
}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the attacker knows and does: which attack, how long, how many requests a second, and with which keys of its own store."""

    attack: str
    seconds: float
    per_second: float
    gateway_url: str
    store_id: str
    admin_keys: list[str]


class Outcome(msgspec.Struct, kw_only=True):
    """What came of an attack: requests by status (0: no answer, open: not ended yet), and connections to an address inside."""

    statuses: dict[str, int]
    reached_inside: int = 0

    @property
    def requests(self) -> int:
        """How many were made."""
        return sum(self.statuses.values())


class Attacker:
    """The hostile store's client."""

    def __init__(self, plan: Plan, http: aiohttp.ClientSession) -> None:
        self.plan = plan
        self._http = http
        self.statuses: Counter[str] = Counter()
        self.reached_inside = 0
        parts = urlsplit(plan.gateway_url)
        self.address = (parts.hostname or "127.0.0.1", parts.port or 80)

    async def send(
        self, method: str, path: str, body: Any = None, *, key: str = "", token: str = "", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Make a request as the hostile store and count its status."""
        sent = {"Authorization": f"Bearer {token or self.plan.admin_keys[0]}", "Idempotency-Key": key or new_id().hex, **(headers or {})}
        content = None if body is None else msgspec.json.encode(body)
        if content is not None:
            sent["Content-Type"] = "application/json"
        return await self._counted(method, path, content, sent)

    async def post_raw(self, path: str, content: bytes, headers: Mapping[str, str]) -> int:
        """Post as a stranger and count the status."""
        status, _ = await self._counted("POST", path, content, headers)
        return status

    async def _counted(self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]) -> tuple[int, Any]:
        try:
            async with self._http.request(method, self.plan.gateway_url + path, data=content, headers=headers) as response:
                text = await response.read()
                self.statuses[str(response.status)] += 1
                return response.status, json.loads(text) if "json" in response.content_type and text else None
        except (aiohttp.ClientError, TimeoutError, OSError):
            self.statuses["0"] += 1
            return 0, None

    async def an_order(self) -> tuple[str, str]:
        """Push and quote an order; gives its id and its snapshot's."""
        order_id = str(new_id())
        await self.send("PUT", f"/api/v1/admin/orders/{order_id}", ORDER)
        _, quote = await self.send("POST", "/api/v1/checkout/quote", {"order_id": order_id, "payment_provider": "sandbox"})
        return order_id, str((quote or {}).get("snapshot_id", ""))

    async def a_token(self, order_id: str) -> str:
        """Mint a shopper's token of an order."""
        _, minted = await self.send("POST", f"/api/v1/admin/orders/{order_id}/checkout-token")
        return str((minted or {}).get("token", ""))

    async def pay(self, order: tuple[str, str], method: str, **how: Any) -> None:
        """Authorize an order."""
        body = {"snapshot_id": order[1], "payment_method": method}
        await self.send("POST", f"/api/v1/checkout/orders/{order[0]}/payments/authorize", body, **how)

    async def raw(self, *pieces: bytes, address: str = "127.0.0.1") -> None:
        """Send bytes of our own making until the server ends it; counts the status it answered with."""
        try:
            reader, writer = await asyncio.open_connection(*self.address, local_addr=(address, 0))
        except OSError:
            self.statuses["0"] += 1
            return
        # Read at once: what a server writes before it closes is gone once we write into the closed connection.
        reading = asyncio.ensure_future(reader.read(64))
        try:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    if reading.done():
                        break
            head = await reading
        except ConnectionError:
            head = b""
        except asyncio.CancelledError:
            self.statuses[STILL_OPEN] += 1
            reading.cancel()
            raise
        finally:
            writer.close()
        self.statuses[head[9:12].decode(errors="replace") if head.startswith(b"HTTP/") else "0"] += 1


Shot = Callable[[int], Awaitable[None]]


@contextlib.asynccontextmanager
async def _places(attacker: Attacker) -> AsyncIterator[Shot]:
    """H1: one token waits for a silent provider by one key hundreds of times; the store's keys wait for one order each."""
    order = await attacker.an_order()
    token = await attacker.a_token(order[0])
    keys = attacker.plan.admin_keys

    async def shoot(number: int) -> None:
        if number % 4:
            await attacker.pay(order, "tok_silent", key="one-key-for-all", token=token, headers=WAIT)
            return
        key = keys[number // 4 % len(keys)]
        await attacker.pay(await attacker.an_order(), "tok_silent", token=key, headers=WAIT)

    yield shoot


@contextlib.asynccontextmanager
async def _heads(attacker: Attacker) -> AsyncIterator[Shot]:
    """H2: heads without end, and bodies that never come, from several addresses."""
    start = b"POST /api/v1/webhooks/standard HTTP/1.1\r\nhost: shop\r\n"
    flood = [start, *([FLOOD_PIECE] * (FLOOD_MAX_BYTES // len(FLOOD_PIECE)))]

    async def shoot(number: int) -> None:
        if number % 10 == 0:
            await attacker.raw(*flood)
            return
        address = SLOW_ADDRESSES[number % len(SLOW_ADDRESSES)]
        await attacker.raw(start + b"content-length: 1000\r\n\r\nx", address=address)

    yield shoot


@contextlib.asynccontextmanager
async def _samples(attacker: Attacker) -> AsyncIterator[Shot]:
    """H3: forged webhooks whose headers are as large as are taken, and larger."""
    padding = {f"x-padding-{number}": "a" * FORGED_HEADER_BYTES for number in range(FORGED_HEADERS)}

    async def shoot(number: int) -> None:
        signed = {"webhook-id": f"evt_{number}", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1," + "A" * 44}
        large = {"x-more": "a" * FORGED_HEADER_BYTES * 5} if number % 5 == 0 else {}
        await attacker.post_raw("/api/v1/webhooks/sandbox", b"{}", {**padding, **signed, **large})

    yield shoot


# Ways to write an address inside; the port is the listener's.
INSIDE = (
    "https://127.0.0.1:{port}/",
    "https://１２７.０.０.１:{port}/",
    "https://127。0。0。1:{port}/",
    "https://①②⑦.⓪.⓪.①:{port}/",
    "https://127｡0｡0｡1:{port}/",
    "https://[::1]:{port}/",
    "https://[::ffff:127.0.0.1]:{port}/",
    "https://[::127.0.0.1]:{port}/",
    "https://[64:ff9b::7f00:1]:{port}/",
    "https://localhost:{port}/",
    "https://localhost.:{port}/",
    "https://0x7f000001:{port}/",
    "https://2130706433:{port}/",
    "https://0177.0.0.1:{port}/",
    "https://127.1:{port}/",
    "http://127.0.0.1:{port}/",
)


@contextlib.asynccontextmanager
async def _inside(attacker: Attacker) -> AsyncIterator[Shot]:
    """H4: endpoints at inside addresses, and payments that would be told there; what listens must see no connection."""

    async def reached(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attacker.reached_inside += 1
        writer.close()

    server = await asyncio.start_server(reached, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    endpoints: list[str] = []

    async def shoot(number: int) -> None:
        if number % 2:
            await attacker.pay(await attacker.an_order(), "tok_success")
            return
        url = INSIDE[number // 2 % len(INSIDE)].format(port=port)
        status, made = await attacker.send("POST", "/api/v1/admin/webhook-endpoints", {"url": url, "event_types": []})
        if status == 200:
            endpoints.append(made["id"])

    yield shoot
    await _without_endpoints(attacker, endpoints)
    server.close()


async def _without_endpoints(attacker: Attacker, endpoints: list[str]) -> None:
    for endpoint_id in endpoints:
        await attacker.send("DELETE", f"/api/v1/admin/webhook-endpoints/{endpoint_id}")


# Secrets that are none, and some that are.
SECRETS = (
    ("standard", "whsec_a"),
    ("standard", "whsec_"),
    ("adyen", "not-hex"),
    ("braintree", "nocolon"),
    ("sandbox", "whsec_===="),
    ("sandbox", "whsec_" + base64.b64encode(b"hostile" * 5).decode()),
    ("stripe", "x"),
    ("paypal", "a b"),
)


@contextlib.asynccontextmanager
async def _secrets(attacker: Attacker) -> AsyncIterator[Shot]:
    """H5: webhook secrets that cannot be used, for providers whose shared address others use too."""

    async def shoot(number: int) -> None:
        provider, secret = SECRETS[number % len(SECRETS)]
        await attacker.send("PUT", STORE_KEYS_PATH.format(provider=provider), {"use": "webhooks", "fields": {"secret": secret}})

    yield shoot


@contextlib.asynccontextmanager
async def _forgeries(attacker: Attacker) -> AsyncIterator[Shot]:
    """H6: large forged posts, batches of thousands of Adyen items, and certificates under made-up addresses of PayPal's."""
    store = attacker.plan.store_id
    for provider, secret in (("adyen", ADYEN_KEY), ("paypal", "1JE4291016473214C")):
        await attacker.send("PUT", STORE_KEYS_PATH.format(provider=provider), {"use": "webhooks", "fields": {"secret": secret}})
    body = b'{"id":"' + b"a" * (BODY_BYTES - 10) + b'"}'
    item = {"pspReference": "", "merchantReference": "", "additionalData": {"hmacSignature": "A" * 44}}
    items = [{"NotificationRequestItem": {**item, "pspReference": str(number)}} for number in range(BATCH_ITEMS)]
    batch = msgspec.json.encode({"live": "false", "notificationItems": items})
    json_type = {"Content-Type": "application/json"}

    async def shoot(number: int) -> None:
        if number % 3 == 0:
            signature = f"t={int(time.time())},v1={'0' * 64}"
            await attacker.post_raw("/api/v1/webhooks/stripe", body, {"stripe-signature": signature, **json_type})
        elif number % 3 == 1:
            await attacker.post_raw(f"/api/v1/webhooks/adyen/{store}", batch, json_type)
        else:
            headers = {
                "paypal-transmission-id": str(number),
                "paypal-transmission-time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "paypal-cert-url": f"https://api.paypal.com/v1/notifications/certs/CERT-1?{number}",
                "paypal-auth-algo": "SHA256withRSA",
                "paypal-transmission-sig": "AAAA",
            }
            await attacker.post_raw(f"/api/v1/webhooks/paypal/{store}", b"{}", {**headers, **json_type})

    yield shoot


@contextlib.asynccontextmanager
async def _slow_endpoints(attacker: Attacker) -> AsyncIterator[Shot]:
    """M1: as many endpoints as a store may have, none of which answers, and many events for each."""
    hold = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    endpoints = []
    for number in range(ENDPOINTS_MAX):
        url = f"http://127.0.0.1:{port}/{number}"
        status, made = await attacker.send("POST", "/api/v1/admin/webhook-endpoints", {"url": url, "event_types": []})
        if status == 200:
            endpoints.append(made["id"])

    async def shoot(_: int) -> None:
        await attacker.pay(await attacker.an_order(), "tok_success")

    yield shoot
    await _without_endpoints(attacker, endpoints)
    hold.set()
    server.close()


@contextlib.asynccontextmanager
async def _declines(attacker: Attacker) -> AsyncIterator[Shot]:
    """M14: cards tried out by one shopper's token."""
    order = await attacker.an_order()
    token = await attacker.a_token(order[0])

    async def shoot(_: int) -> None:
        await attacker.pay(order, "tok_declined_do_not_honor", token=token)

    yield shoot


class Attack(msgspec.Struct, frozen=True, kw_only=True):
    """One way to attack, by the report's number, and how often a second."""

    name: str
    about: str
    per_second: float
    shoot: Callable[[Attacker], contextlib.AbstractAsyncContextManager[Shot]]


ATTACKS = (
    Attack(name="H1", about="waiting authorizes", per_second=40.0, shoot=_places),
    Attack(name="H2", about="endless heads, slow bodies", per_second=50.0, shoot=_heads),
    Attack(name="H3", about="huge headers", per_second=30.0, shoot=_samples),
    Attack(name="H4", about="endpoints inside", per_second=4.0, shoot=_inside),
    Attack(name="H5", about="unusable secrets", per_second=5.0, shoot=_secrets),
    Attack(name="H6", about="large forgeries", per_second=10.0, shoot=_forgeries),
    Attack(name="M1", about="endpoints that are silent", per_second=3.0, shoot=_slow_endpoints),
    Attack(name="M14", about="card testing", per_second=20.0, shoot=_declines),
)
BY_NAME = {attack.name: attack for attack in ATTACKS}


async def carry_out(plan: Plan, ready: Callable[[], None]) -> Outcome:
    """Prepare an attack, say when it is ready, and go on with it at its rate until its time is over."""
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
        attacker = Attacker(plan, http)
        async with BY_NAME[plan.attack].shoot(attacker) as shoot:
            attacker.statuses.clear()
            ready()
            await _at_rate(shoot, plan)
            statuses = dict(attacker.statuses)
        return Outcome(statuses=statuses, reached_inside=attacker.reached_inside)


async def _at_rate(shoot: Shot, plan: Plan) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    under_way: set[asyncio.Future[None]] = set()
    number = 0
    while (due := number / plan.per_second) < plan.seconds:
        await asyncio.sleep(max(0.0, started + due - loop.time()))
        if len(under_way) < CONCURRENT_MAX * len(SLOW_ADDRESSES):
            task: asyncio.Future[None] = asyncio.ensure_future(shoot(number))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        number += 1
    for task in under_way:
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)


def main() -> None:
    """Read a plan from standard input, carry it out, and write what came of it."""
    os.nice(NICENESS)
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)
    outcome = asyncio.run(carry_out(plan, lambda: _write(b"ready")))
    _write(msgspec.json.encode(outcome))


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
