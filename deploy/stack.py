"""The local stack: servers, sandbox and services as children of one process, ready when this says so."""

import asyncio
import base64
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from urllib.error import URLError
from urllib.request import urlopen
from uuid import UUID, uuid5

import msgspec

from deploy import broker_users, keys, local_store, setup
from deploy.processes import Failed, Process, start, wait_until
from deploy.servers import Choice, Say, Servers, servers
from deploy.state import ROOT, Instance, StackState, free_port
from services.gateway.domain import Role
from shared import topology
from shared.messages import Environment

DATABASE = "tender"
READY_TIMEOUT_SECONDS = 60.0
HTTP_TIMEOUT_SECONDS = 2
STRIPE_URL = "https://api.stripe.com"
STRIPE_TEST_KEYS = ("sk_test_", "rk_test_")
# The local store; every installation of the local stack uses the same.
STORE_ID = uuid5(UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8"), "https://tender.invalid/stores/local")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to run the stack."""

    choice: Choice
    gateway_port: int = 0
    sandbox_port: int = 0
    log_level: str = "INFO"
    otlp_endpoint: str = ""
    # Whether the sandbox tells what happens there.
    webhooks: bool = True
    # Settings of the services that are not to be their defaults.
    settings: Mapping[str, str] = {}


class StripeAccount(msgspec.Struct, frozen=True, kw_only=True):
    """The Stripe account that payments are made with: the sandbox's face, or the one a key in the environment belongs to."""

    url: str
    api_key: str
    multicapture: bool
    webhook_secret: str


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A stack that is up: how to reach it, and its processes."""

    state: StackState
    processes: dict[str, Process]


@contextmanager
def running(instance: Instance, options: Options, say: Say) -> Iterator[Running]:
    """Run the whole system while inside."""
    for port in (options.gateway_port, options.sandbox_port):
        _refuse_busy(port)
    stripe_account(instance, "")  # Refuses a key that is none for tests before anything is started.
    started = time.monotonic()
    with ExitStack() as stack:
        found = stack.enter_context(servers(instance, options.choice, say))
        database_url = found.database_url if found.database_given else asyncio.run(setup.create_database(found.database_url, DATABASE))
        applied = asyncio.run(setup.prepare(database_url, found.amqp_url, password=instance.secret("services")))
        if found.management_url is not None:
            asyncio.run(broker_users.make(found.management_url, password=instance.secret("services")))
            asyncio.run(broker_users.grant(found.management_url, broker_users.vhost_of(found.amqp_url)))
        say(f"Schemas, roles and queues: {_migrations(applied)}.")
        if asyncio.run(local_store.furnish(database_url, STORE_ID)):
            say("Store: a new one in Berlin, with the starter set of tax rules.")
        environments = service_environments(instance, options, database_url=database_url, found=found)
        say(f"Services: {', '.join(environments)} ...")
        processes = {name: _start(stack, instance, name, env) for name, env in environments.items()}
        for name, process in processes.items():
            _await_ready(name, process, environments[name])
        say(f"Ready in {time.monotonic() - started:.1f} s.")
        state = StackState(
            pid=os.getpid(),
            started=time.time(),
            gateway_url=url_of(environments["gateway"]),
            sandbox_url=url_of(environments["sandbox"]),
            urls={name: url_of(env) for name, env in environments.items() if "HTTP_PORT" in env},
            probes={name: probe_of(env) for name, env in environments.items()},
            api_key=asyncio.run(_key(instance, database_url, Role.ADMIN)),
            database_url=database_url,
            amqp_url=found.amqp_url,
            checkout_key=asyncio.run(_key(instance, database_url, Role.CHECKOUT)),
            operator_key=asyncio.run(_key(instance, database_url, Role.OPERATOR)),
            stripe_url=environments["payments"]["STRIPE_URL"],
            stripe_tells=bool(stripe_account(instance, "").webhook_secret),
        )
        instance.keep_stack(state)
        stack.callback(instance.forget_stack)
        yield Running(state=state, processes=processes)
        say("Stopping ...")


def _migrations(applied: Sequence[str]) -> str:
    services = {name.partition("/")[0] for name in applied}
    return f"{len(applied)} migrations applied for {len(services)} services" if applied else "up to date"


def service_environments(instance: Instance, options: Options, *, database_url: str, found: Servers) -> dict[str, dict[str, str]]:
    """Say with which environment each process is started."""
    sandbox_port = options.sandbox_port or free_port()
    password, api_key = instance.secret("services"), sandbox_key(instance)
    common = {
        **{key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "TZ", "VIRTUAL_ENV")},
        "PYTHONPATH": str(ROOT),
        "LOG_LEVEL": options.log_level,
        # No load balancer has to see that a service stops.
        "SHUTDOWN_NOTICE_SECONDS": "0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": options.otlp_endpoint,
        # Whoever tries it out looks at every request.
        "TRACE_SAMPLE_RATIO": "1.0",
        **options.settings,
    }

    def amqp_url(service: str) -> str:
        # Where nobody can make users, all share the one that was given.
        return found.amqp_url if found.management_url is None else broker_users.service_url(found.amqp_url, service, password)

    vault = instance.folder / "vault"
    keys.make(vault)
    webhooks_port, sandbox_url = free_port(), f"http://127.0.0.1:{sandbox_port}"
    stripe, secret = stripe_account(instance, sandbox_url), webhook_secret(instance)
    secrets = {"sandbox": secret, "sandbox-carrier": secret, "easypost": secret, "shippo": secret, "stripe": stripe.webhook_secret}
    taken = [
        {"provider": name, "environment": "sandbox", "account": f"{name}:default", "secrets": [each]}
        for name, each in secrets.items()
        if each
    ]
    told = f"http://127.0.0.1:{webhooks_port}/api/v1/webhooks" if options.webhooks else ""
    return {
        "sandbox": {
            **common,
            "HTTP_PORT": str(sandbox_port),
            "SANDBOX_FILE": str(instance.folder / "sandbox.sqlite"),
            "SANDBOX_API_KEY": api_key,
            "SANDBOX_WEBHOOK_URL": told and f"{told}/sandbox",
            "SANDBOX_WEBHOOK_SECRET": secret,
            "SANDBOX_CARRIER_WEBHOOK_URL": told and f"{told}/sandbox-carrier",
            "SANDBOX_EASYPOST_WEBHOOK_URL": told and f"{told}/easypost",
            "SANDBOX_SHIPPO_WEBHOOK_URL": told and f"{told}/shippo",
            "SANDBOX_STRIPE_WEBHOOK_URL": told and f"{told}/stripe",
            "SANDBOX_STRIPE_WEBHOOK_SECRET": stripe.webhook_secret,
        },
        "webhooks": {
            **common,
            "HTTP_PORT": str(webhooks_port),
            "MONITORING_PORT": str(free_port()),
            "DATABASE_URL": setup.service_url(database_url, "webhooks", password),
            "AMQP_URL": amqp_url("webhooks"),
            "VAULT_KEYS_FILE": str(keys.private_file(vault, "webhooks")),
            "WEBHOOK_ACCOUNTS": msgspec.json.encode(taken).decode(),
            # Whoever tries it out listens on this machine.
            "ALLOW_PRIVATE_ENDPOINTS": "true",
        },
        "payments": {
            **common,
            "MONITORING_PORT": str(free_port()),
            "DATABASE_URL": setup.service_url(database_url, "payments", password),
            "AMQP_URL": amqp_url("payments"),
            "VAULT_KEYS_FILE": str(keys.private_file(vault, "payments")),
            "VAULT_PUBLIC_KEYS_FILE": str(vault / keys.PUBLIC),
            "SANDBOX_URL": sandbox_url,
            "SANDBOX_API_KEY": api_key,
            "STRIPE_URL": stripe.url,
            "STRIPE_API_KEY": stripe.api_key,
            "STRIPE_MULTICAPTURE": str(stripe.multicapture).lower(),
        },
        "fulfillment": {
            **common,
            "MONITORING_PORT": str(free_port()),
            "DATABASE_URL": setup.service_url(database_url, "fulfillment", password),
            "AMQP_URL": amqp_url("fulfillment"),
            "VAULT_KEYS_FILE": str(keys.private_file(vault, "fulfillment")),
            "SANDBOX_URL": sandbox_url,
            "SANDBOX_API_KEY": api_key,
            "EASYPOST_URL": sandbox_url,
            "EASYPOST_API_KEY": api_key,
            "SHIPPO_URL": sandbox_url,
            "SHIPPO_API_KEY": api_key,
            "TAXJAR_URL": sandbox_url,
            "TAXJAR_API_KEY": api_key,
            "TAXJAR_ENVIRONMENT": "sandbox",
            "AVALARA_URL": sandbox_url,
            "AVALARA_ACCOUNT_ID": "sandbox",
            "AVALARA_LICENSE_KEY": api_key,
            "AVALARA_ENVIRONMENT": "sandbox",
        },
        "reconciler": {
            **common,
            "MONITORING_PORT": str(free_port()),
            "DATABASE_URL": setup.service_url(database_url, "reconciler", password),
            "AMQP_URL": amqp_url("reconciler"),
        },
        "gateway": {
            **common,
            "HTTP_PORT": str(options.gateway_port or free_port()),
            "MONITORING_PORT": str(free_port()),
            "DATABASE_URL": setup.service_url(database_url, "gateway", password),
            "AMQP_URL": amqp_url("gateway"),
            "QUEUE_DEPTHS_AMQP_URL": amqp_url(topology.OBSERVER),
            "TOKEN_SECRET": instance.secret("tokens"),
            "VAULT_PUBLIC_KEYS_FILE": str(vault / keys.PUBLIC),
            "WEBHOOKS_URL": f"http://127.0.0.1:{webhooks_port}",
            # Browsers take cookies for HTTPS alone from no plain http://127.0.0.1.
            "CONSOLE_SECURE_COOKIE": "false",
        },
    }


def sandbox_key(instance: Instance) -> str:
    """Tell with which key the sandbox is spoken to, whatever its face."""
    return f"sk_sandbox_{instance.secret('sandbox')}"


def stripe_account(instance: Instance, sandbox_url: str) -> StripeAccount:
    """Tell which Stripe is paid with: Stripe itself when there is a key in STRIPE_API_KEY, which must be one for tests."""
    api_key = os.environ.get("STRIPE_API_KEY", "")
    if not api_key:
        return StripeAccount(url=sandbox_url, api_key=sandbox_key(instance), multicapture=True, webhook_secret=webhook_secret(instance))
    if not api_key.startswith(STRIPE_TEST_KEYS):
        raise Failed(f"STRIPE_API_KEY is not a key for tests ({', '.join(STRIPE_TEST_KEYS)}…); the local system takes no other.")
    return StripeAccount(
        url=os.environ.get("STRIPE_URL", STRIPE_URL),
        api_key=api_key,
        multicapture=os.environ.get("STRIPE_MULTICAPTURE", "") == "true",
        webhook_secret=os.environ.get("STRIPE_WEBHOOK_SECRET", ""),
    )


def webhook_secret(instance: Instance) -> str:
    """Tell with which secret the sandbox signs its webhooks."""
    return f"whsec_{base64.b64encode(bytes.fromhex(instance.secret('webhooks'))).decode()}"


def module_of(name: str) -> str:
    """Tell which module runs a process."""
    return "deploy.sandbox" if name == "sandbox" else f"services.{name}"


def url_of(environment: dict[str, str]) -> str:
    """Tell where a process serves HTTP."""
    return f"http://127.0.0.1:{environment['HTTP_PORT']}"


def probe_of(environment: dict[str, str]) -> str:
    """Tell at which URL a process says that it is ready, or, the sandbox, that it is there."""
    port = environment.get("MONITORING_PORT")
    return f"{url_of(environment)}/health/live" if port is None else f"http://127.0.0.1:{port}/health/ready"


def _start(stack: ExitStack, instance: Instance, name: str, environment: dict[str, str]) -> Process:
    process = start(name, [sys.executable, "-m", module_of(name)], log=instance.logs / f"{name}.log", env=environment)
    stack.callback(process.stop)
    return process


def _await_ready(name: str, process: Process, environment: dict[str, str]) -> None:
    wait_until(
        lambda: answers(probe_of(environment)), process=process, timeout_seconds=READY_TIMEOUT_SECONDS, what=f"the readiness of {name}"
    )


def answers(url: str) -> bool:
    """Tell whether a URL answers 200."""
    try:
        with urlopen(url, timeout=HTTP_TIMEOUT_SECONDS) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


def _refuse_busy(port: int) -> None:
    if port:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as busy:
                raise Failed(f"Port {port} is in use ({busy.strerror}); choose another with --port or --sandbox-port.") from busy


async def _key(instance: Instance, database_url: str, role: Role) -> str:
    # The same every time, so that what was pasted yesterday works today.
    secret = instance.secret(f"key-{role.value}")
    return await setup.create_key(
        database_url,
        store_id=STORE_ID,
        environment=Environment.SANDBOX,
        role=role,
        name=f"local {instance.name}",
        key_id=uuid5(STORE_ID, f"{role.value} {secret}"),
        secret=secret,
    )
