"""The world a test acts in: the real services over HTTP, a real database and broker, and the sandbox outside."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import asyncpg
import httpx
import jsonschema
import msgspec
import uvicorn

from deploy import broker_users, setup
from deploy.sandbox.app import app as sandbox_app
from deploy.sandbox.books import Books
from deploy.sandbox.faces.easypost import EasyPostEvents
from deploy.sandbox.faces.shippo import ShippoEvents
from deploy.sandbox.faces.stripe_events import StripeEvents
from deploy.sandbox.server import Sandbox
from deploy.sandbox.webhooks import Outgoing
from deploy.state import free_port
from services.fulfillment.app import build as build_fulfillment
from services.fulfillment.settings import Settings as FulfillmentSettings
from services.gateway.app import build as build_gateway
from services.gateway.domain import Role, key_parts
from services.gateway.settings import Settings as GatewaySettings
from services.payments.app import build as build_payments
from services.payments.settings import Settings as PaymentsSettings
from services.reconciler.app import build as build_reconciler
from services.reconciler.settings import Settings as ReconcilerSettings
from services.webhooks.app import build as build_webhooks
from services.webhooks.settings import Settings as WebhooksSettings
from shared import topology
from shared.http_server import Server
from shared.ids import new_id
from shared.messages import Environment
from shared.service import Parts
from tests.planted import PASSWORD as PASSWORD
from tests.planted import PRIVATE_KEYS as PRIVATE_KEYS
from tests.planted import PUBLIC_KEYS as PUBLIC_KEYS
from tests.planted import SANDBOX_KEY as SANDBOX_KEY
from tests.planted import TOKEN_SECRET as TOKEN_SECRET
from tests.planted import WEBHOOK_SECRET as WEBHOOK_SECRET
from tests.planted import leaks_in

CONDITION_TIMEOUT_SECONDS = 20.0
BROKER_TIMEOUT_SECONDS = 60.0
CONDITION_POLL_SECONDS = 0.02
PROVIDER_TIMEOUT_SECONDS = 1.5
SILENCE_SECONDS = 2.5

SECRETS_PATH = re.compile(r"/api/v1/admin/webhook-endpoints/[^/]+/secrets")

MUG = {"product_variant_id": "0192f0c1-7e00-7000-8000-000000000001", "name": "Mug", "quantity": 2, "unit_price": 5000}
# A shop that prices shipping and tax itself; what it leaves out, fulfillment works out.
ORDER: dict[str, Any] = {"currency": "EUR", "items": [MUG], "shipping_amount": 0, "tax_lines": []}
TOTAL = 10_000


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A database and a vhost of a test module's own."""

    database_url: str
    amqp_url: str
    management_url: str | None
    vhost: str

    def amqp_of(self, service: str) -> str:
        """Where a service logs into the broker, as itself where the broker's users can be made."""
        return self.amqp_url if self.management_url is None else broker_users.service_url(self.amqp_url, service, PASSWORD)


def http_client(url: str, *, timeout_seconds: float = 5.0) -> httpx.AsyncClient:
    """Open a client for plain HTTP: without the authorities, which cost 25 ms of processor time to load."""
    return httpx.AsyncClient(base_url=url, timeout=timeout_seconds, verify=False)


def management(url: str | None) -> httpx.AsyncClient:
    """Open the broker's management API, which takes its time when the broker is busy."""
    assert url is not None, "the tests' broker has its management API"
    return http_client(url, timeout_seconds=BROKER_TIMEOUT_SECONDS)


class Answer:
    """An HTTP answer, taken apart."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.status = response.status_code
        self.content = response.content
        self.headers = response.headers
        self.json: Any = response.json() if response.content and "json" in response.headers.get("content-type", "") else None

    @property
    def code(self) -> str:
        """The problem's code."""
        return str(self.json["code"])

    def __repr__(self) -> str:
        return f"<{self.status} {self.response.text[:600]}>"


class World:
    """What a test can do: call the API as a shop, look into the sandbox, look into the database."""

    # As the first world of the process served it; the same code serves the same in every other.
    _contract: ClassVar["Contract | None"] = None

    def __init__(
        self,
        place: Place,
        *,
        gateway_url: str,
        monitoring: Mapping[str, str],
        sandbox: Sandbox,
        keys: Mapping[Role, str],
        store_id: UUID,
        webhooks_url: str = "",
        provider: str = "sandbox",
    ) -> None:
        self.place = place
        self.gateway_url = gateway_url
        # Where each service that runs serves its health and metrics.
        self.monitoring = monitoring
        self.webhooks_url = webhooks_url
        self.provider = provider
        self.sandbox = sandbox
        self.keys = keys
        self.store_id = store_id
        self.http = http_client(gateway_url, timeout_seconds=60)

    @property
    def outgoing(self) -> Outgoing:
        """What the provider that orders are paid with tells."""
        return self.sandbox.stripe if self.provider == "stripe" else self.sandbox.outgoing

    # HTTP

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = "",
        role: Role = Role.ADMIN,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> Answer:
        """Make a request; a fresh idempotency key by default, none when it is None. The answer must fit the served contract."""
        sent = {"Authorization": f"Bearer {token or self.keys[role]}", **(headers or {})}
        if key is not None and method != "GET":
            sent.setdefault("Idempotency-Key", key or new_id().hex)
        if body is not None:
            content = msgspec.json.encode(body)
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        response = await self.http.request(method, path, content=content, headers=sent)
        await self._check(method, path, content if isinstance(content, bytes) else None, response)
        return Answer(response)

    async def _check(self, method: str, path: str, content: bytes | None, response: httpx.Response) -> None:
        contract = World._contract
        if contract is None:
            contract = World._contract = Contract((await self.http.get("/openapi/openapi.json")).json())
        contract.check(method, path, response)
        # The one answer that is there to show a secret.
        if SECRETS_PATH.fullmatch(path) is None:
            assert leaks_in(response.text) == [], f"{method} {path} tells"
        if response.is_success and content:
            contract.check_request(method, path, content)

    # The shop's ways

    async def an_order(self, **changes: Any) -> UUID:
        """Push an order."""
        order_id = new_id()
        answer = await self.put_order(order_id, {**ORDER, **changes})
        assert answer.status == 200, answer
        return order_id

    async def put_order(self, order_id: UUID, content: Any, **how: Any) -> Answer:
        return await self.send("PUT", f"/api/v1/admin/orders/{order_id}", content, **how)

    async def quote(self, order_id: UUID, **how: Any) -> Answer:
        return await self.send("POST", "/api/v1/checkout/quote", {"order_id": order_id, "payment_provider": self.provider}, **how)

    async def a_snapshot(self, order_id: UUID) -> str:
        """Quote an order and give the snapshot's id."""
        answer = await self.quote(order_id)
        assert answer.status == 201, answer
        return str(answer.json["snapshot_id"])

    async def authorize(self, order_id: UUID, snapshot_id: str, method: str = "tok_success", *, more: Any = None, **how: Any) -> Answer:
        # Whoever may have to act must be able to come back; the sandbox's own face does without.
        back = {"return_url": "https://shop.example/back"} if self.provider == "stripe" else {}
        body = {"snapshot_id": snapshot_id, "payment_method": method, **back, **(more or {})}
        return await self.send("POST", f"/api/v1/checkout/orders/{order_id}/payments/authorize", body, **how)

    async def a_payment(self, method: str = "tok_success", **changes: Any) -> "Payment":
        """Push, quote and authorize an order."""
        order_id = await self.an_order(**changes)
        answer = await self.authorize(order_id, await self.a_snapshot(order_id), method)
        assert answer.status == 201, answer
        return Payment(self, order_id, UUID(answer.json["intent"]["id"]))

    async def a_captured_payment(self, method: str = "tok_success") -> "Payment":
        """Push, quote, authorize and capture an order."""
        payment = await self.a_payment(method)
        assert (await payment.capture()).status == 201
        return payment

    async def ledger(self, order_id: UUID) -> Any:
        answer = await self.send("GET", f"/api/v1/admin/orders/{order_id}/payments")
        assert answer.status == 200, answer
        return answer.json

    async def operation(self, location: str) -> Any:
        return (await self.send("GET", location)).json

    # Looking behind

    async def rows(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Read the database as its owner."""
        connection = await asyncpg.connect(self.place.database_url)
        try:
            return await connection.fetch(sql, *arguments)
        finally:
            await connection.close()

    async def change(self, sql: str, *arguments: Any) -> None:
        """Change the database as its owner, where a test must make time pass."""
        await self.rows(sql, *arguments)

    async def books_agree(self, order_id: UUID) -> None:
        """Insist that the ledger and the sandbox say the same of an order, to the unit, and that amounts equal the fold."""
        ledger = await self.ledger(order_id)
        theirs = [p for p in self.sandbox.books.payments.values() if p.order_id == str(order_id)]
        for kind in ("authorize", "capture", "refund", "chargeback", "chargeback_reversal"):
            ours = sum(
                t["processed_amount"]
                for payment in ledger["payments"]
                for t in payment["transactions"]
                if t["operation"] == kind and t["status"] == "succeeded"
            )
            assert ours == sum(p.moved(kind) for p in theirs), (kind, ledger)
        for payment in ledger["payments"]:
            amounts = {kind: payment["intent"][f"{name}_amount"] for kind, name in FOLDED.items()}
            folded = {
                kind: sum(t["processed_amount"] for t in payment["transactions"] if (t["operation"], t["status"]) == (kind, "succeeded"))
                for kind in (*FOLDED, "chargeback_reversal")
            }
            folded["chargeback"] -= folded.pop("chargeback_reversal")
            assert amounts == folded


FOLDED = {"authorize": "authorized", "capture": "captured", "refund": "refunded", "chargeback": "charged_back"}


class Payment:
    """A payment in a test's hands."""

    def __init__(self, world: World, order_id: UUID, intent_id: UUID) -> None:
        self.world = world
        self.order_id = order_id
        self.id = intent_id

    async def _do(self, what: str, body: Any, **how: Any) -> Answer:
        return await self.world.send("POST", f"/api/v1/admin/orders/{self.order_id}/payments/{self.id}/{what}", body, **how)

    async def capture(self, amount: int | None = None, *, final: bool = False, **how: Any) -> Answer:
        return await self._do("capture", {"final": final, **({} if amount is None else {"amount": amount})}, **how)

    async def refund(self, amount: int | None = None, **how: Any) -> Answer:
        return await self._do("refund", {} if amount is None else {"amount": amount}, **how)

    async def void(self, **how: Any) -> Answer:
        return await self._do("void", None, **how)

    async def confirm(self, **how: Any) -> Answer:
        path = f"/api/v1/checkout/orders/{self.order_id}/payments/{self.id}/confirm"
        return await self.world.send("POST", path, **how)

    async def intent(self) -> Any:
        payments = (await self.world.ledger(self.order_id))["payments"]
        return next(p["intent"] for p in payments if p["intent"]["id"] == str(self.id))

    async def transactions(self) -> Any:
        payments = (await self.world.ledger(self.order_id))["payments"]
        return next(p["transactions"] for p in payments if p["intent"]["id"] == str(self.id))

    def at_the_provider(self) -> Any:
        """What the sandbox's books hold of it."""
        return next(p for p in self.world.sandbox.books.payments.values() if p.order_id == str(self.order_id))


class Contract:
    """The served OpenAPI document, as a judge of answers."""

    def __init__(self, document: Any) -> None:
        self.document = document

    def check(self, method: str, path: str, response: httpx.Response) -> None:
        """Insist that an answer is documented and fits its schema."""
        operation = self._operation(method, path.split("?")[0])
        if operation is None:
            return
        status = str(response.status_code)
        assert status in operation["responses"], f"{method} {path} answered {status}, which is not documented"
        content = operation["responses"][status].get("content", {})
        kind = response.headers.get("content-type", "").split(";")[0]
        if not response.content and not content:
            return
        assert kind in content, f"{method} {path} {status} is {kind}, documented are {list(content)}"
        if "json" not in kind:
            return
        schema = {**content[kind]["schema"], "components": self.document["components"]}
        jsonschema.Draft202012Validator(schema).validate(response.json())

    def check_request(self, method: str, path: str, content: bytes) -> None:
        """Insist that a request that was accepted fits its schema."""
        operation = self._operation(method, path.split("?")[0])
        if operation is not None:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            whole = {**schema, "components": self.document["components"]}
            jsonschema.Draft202012Validator(whole).validate(msgspec.json.decode(content))

    def _operation(self, method: str, path: str) -> Any:
        parts = path.split("/")
        for template, item in self.document["paths"].items():
            wanted = template.split("/")
            if len(wanted) == len(parts) and all(w == p or w.startswith("{") for w, p in zip(wanted, parts, strict=True)):
                return item.get(method.lower())
        return None


async def until(condition: Callable[[], Awaitable[Any]], *, timeout_seconds: float = CONDITION_TIMEOUT_SECONDS) -> Any:
    """Wait until a condition holds and give what it gave."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + timeout_seconds
    while not (found := await condition()):
        assert loop.time() < ends, f"the condition did not come to hold within {timeout_seconds} s"
        await asyncio.sleep(CONDITION_POLL_SECONDS)
    return found


async def patiently(send: Callable[[], Awaitable[Answer]], *, timeout_seconds: float = CONDITION_TIMEOUT_SECONDS) -> Answer:
    """Ask with the same key until there is a true answer, as a client does."""

    async def answered() -> Answer | None:
        try:
            answer = await send()
        except httpx.HTTPError:
            return None
        again = answer.status in (202, 503) or (answer.status == 409 and answer.json["retry"] == "after")
        return None if again else answer

    found: Answer = await until(answered, timeout_seconds=timeout_seconds)
    return found


@contextlib.asynccontextmanager
async def a_sandbox(file: Path | None = None, *, port: int = 0, webhook_url: str = "") -> AsyncIterator[Sandbox]:
    """Run the sandbox provider over HTTP in this process."""
    port = port or free_port()
    sandbox = Sandbox(
        Books(file),
        base_url=f"http://127.0.0.1:{port}",
        api_key=SANDBOX_KEY,
        silence_seconds=SILENCE_SECONDS,
        outgoing=Outgoing(url=webhook_url and f"{webhook_url}/sandbox", secret=WEBHOOK_SECRET),
        parcels=Outgoing(url=webhook_url and f"{webhook_url}/sandbox-carrier", secret=WEBHOOK_SECRET),
        easypost=Outgoing(url=webhook_url and f"{webhook_url}/easypost", secret=WEBHOOK_SECRET, style=EasyPostEvents()),
        shippo=Outgoing(url=webhook_url and f"{webhook_url}/shippo", secret=WEBHOOK_SECRET, style=ShippoEvents()),
        stripe=Outgoing(url=webhook_url and f"{webhook_url}/stripe", secret=WEBHOOK_SECRET, style=StripeEvents()),
    )
    config = uvicorn.Config(
        sandbox_app(sandbox),
        port=port,
        http="httptools",
        loop="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield sandbox
    finally:
        server.should_exit = True
        await serving
        await sandbox.close()


@contextlib.asynccontextmanager
async def a_world(
    place: Place,
    *,
    payments: Mapping[str, Any] | None = None,
    gateway: Mapping[str, Any] | None = None,
    webhooks: Mapping[str, Any] | None = None,
    fulfillment: Mapping[str, Any] | None = None,
    reconciler: Mapping[str, Any] | None = None,
    provider: str = "sandbox",
) -> AsyncIterator[World]:
    """Run sandbox, payments and gateway in this process, each over its real wires; the others too when their settings are given.

    Orders are paid with `provider`, one of the sandbox's faces.
    """
    async with contextlib.AsyncExitStack() as stack:
        store_id = new_id()
        told = f"http://127.0.0.1:{free_port()}" if webhooks is not None else ""
        sandbox = await stack.enter_async_context(a_sandbox(webhook_url=told and f"{told}/api/v1/webhooks"))
        paying: Parts = await stack.enter_async_context(build_payments(payments_settings(place, sandbox.base_url, payments)).running())
        monitoring = {"payments": paying.monitoring_url}
        if webhooks is not None:
            settings = webhooks_settings(place, store_id, {"http_port": told.rpartition(":")[2], **webhooks})
            monitoring["webhooks"] = (await stack.enter_async_context(build_webhooks(settings).running())).monitoring_url
        if fulfillment is not None:
            await stack.enter_async_context(build_fulfillment(fulfillment_settings(place, sandbox.base_url, fulfillment)).running())
        if reconciler is not None:
            await stack.enter_async_context(build_reconciler(reconciler_settings(place, reconciler)).running())
        gating: Parts = await stack.enter_async_context(
            build_gateway(gateway_settings(place, {"webhooks_url": told, **(gateway or {})})).running()
        )
        keys = {role: await a_key(place, store_id, role) for role in KEY_ROLES}
        world = World(
            place,
            gateway_url=gating.url,
            monitoring={**monitoring, "gateway": gating.monitoring_url},
            sandbox=sandbox,
            keys=keys,
            store_id=store_id,
            webhooks_url=told,
            provider=provider,
        )
        stack.push_async_callback(world.http.aclose)
        await until(lambda: _ready(world))
        yield world


async def a_neighbour(world: World) -> World:
    """Call the API of a world as another store of it."""
    store_id = new_id()
    keys = {role: await a_key(world.place, store_id, role) for role in (Role.CHECKOUT, Role.ADMIN, Role.OPERATOR)}
    return World(
        world.place,
        gateway_url=world.gateway_url,
        monitoring=world.monitoring,
        sandbox=world.sandbox,
        keys=keys,
        store_id=store_id,
        webhooks_url=world.webhooks_url,
        provider=world.provider,
    )


async def _ready(world: World) -> bool:
    answers = [await world.http.get(f"{url}/health/ready") for url in world.monitoring.values()]
    return all(answer.status_code == 200 for answer in answers)


# Of which a key can be; the others come from tokens.
KEY_ROLES = (Role.CHECKOUT, Role.SUPPORT, Role.FINANCE, Role.ADMIN, Role.OPERATOR)


async def a_key(place: Place, store_id: UUID, role: Role, environment: Environment = Environment.SANDBOX) -> str:
    """Make an API key."""
    return await setup.create_key(place.database_url, store_id=store_id, environment=environment, role=role, name="tests")


def secret_of(key: str) -> str:
    """Take the secret part out of an API key."""
    parts = key_parts(key)
    assert parts is not None, "a_key makes keys"
    return parts.secret


def vault_keys(service: str) -> str:
    """The keys of a service, as its setting has them."""
    return msgspec.json.encode(PRIVATE_KEYS[service]).decode()


def payments_settings(place: Place, sandbox_url: str, changes: Mapping[str, Any] | None = None) -> PaymentsSettings:
    """Settings of payments with short time-outs."""
    return PaymentsSettings(
        **{
            "database_url": setup.service_url(place.database_url, "payments", PASSWORD),
            "vault_keys": vault_keys("payments"),
            "vault_public_keys": PUBLIC_KEYS,
            "amqp_url": place.amqp_of("payments"),
            "sandbox_url": sandbox_url,
            "sandbox_api_key": SANDBOX_KEY,
            "stripe_url": sandbox_url,
            "stripe_api_key": SANDBOX_KEY,
            "stripe_multicapture": True,
            "provider_timeout_seconds": PROVIDER_TIMEOUT_SECONDS,
            "resolve_every_seconds": 0.2,
            "housekeeping_every_seconds": 0.2,
            "shutdown_grace_seconds": 5.0,
            "retry_tiers_bug": "1s,1s",
            **(changes or {}),
        }
    )


def fulfillment_settings(place: Place, sandbox_url: str, changes: Mapping[str, Any] | None = None) -> FulfillmentSettings:
    """Settings of fulfillment with short time-outs."""
    return FulfillmentSettings(
        **{
            "database_url": setup.service_url(place.database_url, "fulfillment", PASSWORD),
            "vault_keys": vault_keys("fulfillment"),
            "amqp_url": place.amqp_of("fulfillment"),
            "sandbox_url": sandbox_url,
            "sandbox_api_key": SANDBOX_KEY,
            "easypost_url": sandbox_url,
            "easypost_api_key": SANDBOX_KEY,
            "shippo_url": sandbox_url,
            "shippo_api_key": SANDBOX_KEY,
            "taxjar_url": sandbox_url,
            "taxjar_api_key": SANDBOX_KEY,
            "taxjar_environment": Environment.SANDBOX,
            "avalara_url": sandbox_url,
            "avalara_account_id": "sandbox",
            "avalara_license_key": SANDBOX_KEY,
            "avalara_environment": Environment.SANDBOX,
            "rates_timeout_seconds": 1.0,
            "tax_timeout_seconds": 1.0,
            "provider_timeout_seconds": PROVIDER_TIMEOUT_SECONDS,
            "resolve_every_seconds": 0.2,
            "housekeeping_every_seconds": 0.2,
            "look_every_seconds": 0.2,
            "lease_seconds": 2.0,
            "shutdown_grace_seconds": 5.0,
            "retry_tiers_bug": "1s,1s",
            **(changes or {}),
        }
    )


def reconciler_settings(place: Place, changes: Mapping[str, Any] | None = None) -> ReconcilerSettings:
    """Settings of the reconciler with short waits and nothing scheduled."""
    return ReconcilerSettings(
        **{
            "database_url": setup.service_url(place.database_url, "reconciler", PASSWORD),
            "amqp_url": place.amqp_of("reconciler"),
            "reconcile_schedules": "[]",
            "asks_per_second": 500.0,
            "ask_timeout_seconds": 10.0,
            "lease_seconds": 2.0,
            "leader_lease_seconds": 2.0,
            "schedule_every_seconds": 0.2,
            "run_every_seconds": 0.2,
            "shutdown_grace_seconds": 5.0,
            **(changes or {}),
        }
    )


def gateway_settings(place: Place, changes: Mapping[str, Any] | None = None) -> GatewaySettings:
    """Settings of the gateway with short waits."""
    return GatewaySettings(
        **{
            "database_url": setup.service_url(place.database_url, "gateway", PASSWORD),
            "amqp_url": place.amqp_of("gateway"),
            "queue_depths_amqp_url": place.amqp_of(topology.OBSERVER),
            "shutdown_notice_seconds": 0.0,
            "token_secret": TOKEN_SECRET,
            "console_secure_cookie": False,
            "vault_public_keys": PUBLIC_KEYS,
            "sweep_every_seconds": 0.2,
            "redrive_after_seconds": 1.0,
            "shutdown_grace_seconds": 5.0,
            **(changes or {}),
        }
    )


def webhooks_settings(place: Place, store_id: UUID, changes: Mapping[str, Any] | None = None) -> WebhooksSettings:
    """Settings of webhooks with short waits, for the sandbox's account and one of every other provider."""
    given = dict(changes or {})
    common = {"store_id": store_id, "environment": "sandbox", "secrets": [WEBHOOK_SECRET]}
    ours = [
        {**common, "provider": name, "account": f"{name}:default"}
        for name in ("sandbox", "stripe", "sandbox-carrier", "easypost", "shippo")
    ]
    accounts = [*ours, *given.pop("accounts", [])]
    return WebhooksSettings(
        **{
            "database_url": setup.service_url(place.database_url, "webhooks", PASSWORD),
            "vault_keys": vault_keys("webhooks"),
            "amqp_url": place.amqp_of("webhooks"),
            "webhook_accounts": msgspec.json.encode(accounts).decode(),
            "ask_timeout_seconds": 2.0,
            "shutdown_notice_seconds": 0.0,
            "match_every_seconds": 0.2,
            "measure_every_seconds": 0.2,
            "clean_every_seconds": 0.2,
            "shutdown_grace_seconds": 5.0,
            "retry_tiers_bug": "1s,1s",
            "retry_tiers_silent": "1s,1s",
            **given,
            "http_port": int(given.get("http_port", 0)),
        }
    )
