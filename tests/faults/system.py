"""The services as processes, so that they can be killed in the middle."""

import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from deploy import setup
from deploy.processes import LOG_TAIL_LINES
from deploy.sandbox.server import Sandbox
from deploy.sandbox.webhooks import Moods
from deploy.state import free_port
from services.gateway.domain import Role
from shared.ids import new_id
from tests.faults.nursery import Child, Nursery
from tests.world import (
    PASSWORD,
    PRIVATE_KEYS,
    PUBLIC_KEYS,
    SANDBOX_KEY,
    TOKEN_SECRET,
    Place,
    World,
    a_key,
    a_sandbox,
    http_client,
    until,
    vault_keys,
    webhooks_settings,
)

START_TIMEOUT_SECONDS = 120.0
STOP_TIMEOUT_SECONDS = 20.0
STOP_POLL_SECONDS = 0.01
SILENT_TRIES = 200


PROCESSES = (
    *("payments", "payments 2", "webhooks", "fulfillment", "reconciler", "reconciler 2"),
    *("gateway", "gateway 2"),
)


class System:
    """Payments and the gateway as processes of ours, and the world to call them from."""

    def __init__(self, nursery: Nursery, place: Place, folder: Path, sandbox: Sandbox, **changes: Any) -> None:
        self._nursery = nursery
        self._place = place
        self._folder = folder
        self._ports = {name: free_port() for name in PROCESSES}
        self._monitoring_ports = {name: free_port() for name in PROCESSES}
        self.store_id = new_id()
        self._children: dict[str, Child] = {}
        self._changes = {key.upper(): str(value) for key, value in changes.items()}
        self.sandbox = sandbox

    def url(self, name: str) -> str:
        """Tell where a process serves HTTP."""
        return f"http://127.0.0.1:{self._ports[name]}"

    def monitoring_url(self, name: str) -> str:
        """Tell where a process serves its health and metrics."""
        return f"http://127.0.0.1:{self._monitoring_ports[name]}"

    async def start(self, name: str, more: Mapping[str, str] | None = None) -> None:
        """Start a service and wait until it is ready."""
        environment = {**self._environment(name), **(more or {})}
        self._children[name] = self._nursery.fork(name.split()[0], environment, self.log(name))
        await until(lambda: self._ready(name), timeout_seconds=START_TIMEOUT_SECONDS)

    def child(self, name: str) -> Child:
        """Find a running service's process."""
        return self._children[name]

    def has(self, name: str) -> bool:
        """Tell whether a service was started and still runs."""
        return name in self._children and self._children[name].running

    async def kill(self, name: str) -> None:
        """Kill a service without a word."""
        self._children[name].send(signal.SIGKILL)
        await self.end_of(name)

    async def end_of(self, name: str) -> None:
        """Wait until a service's process is gone."""
        await until(lambda: self._gone(name), timeout_seconds=START_TIMEOUT_SECONDS)

    async def stop_one(self, name: str) -> None:
        """Tell a service to stop and wait until it has."""
        self.ask_to_stop(name)
        await self.end_of(name)

    def stop(self) -> None:
        """Stop everything."""
        for child in self._children.values():
            child.send(signal.SIGCONT)
            child.send(signal.SIGTERM)
        ends = time.monotonic() + STOP_TIMEOUT_SECONDS
        while any(child.running for child in self._children.values()) and time.monotonic() < ends:
            time.sleep(STOP_POLL_SECONDS)
        for child in self._children.values():
            child.send(signal.SIGKILL)

    def ask_to_stop(self, name: str) -> Child:
        """Tell a service to stop, and do not wait."""
        child = self._children[name]
        child.send(signal.SIGTERM)
        return child

    def log(self, name: str) -> Path:
        """Where a service's log lies."""
        return self._folder / f"{name.replace(' ', '-')}.log"

    def through(self, gateway: str, world: World) -> World:
        """The same world, called through another gateway."""
        return World(
            world.place,
            gateway_url=self.url(gateway),
            monitoring={**world.monitoring, "gateway": self.monitoring_url(gateway)},
            sandbox=world.sandbox,
            keys=world.keys,
            store_id=world.store_id,
        )

    async def _gone(self, name: str) -> bool:
        return not self._children[name].running

    async def _ready(self, name: str) -> bool:
        assert self._children[name].running, "\n".join(self.log(name).read_text().splitlines()[-LOG_TAIL_LINES:])
        async with http_client(self.monitoring_url(name)) as http:
            with contextlib.suppress(httpx.HTTPError):
                return (await http.get("/health/ready")).status_code == 200
        return False

    def _environment(self, name: str) -> dict[str, str]:
        service = name.split()[0]
        return {
            "PATH": os.environ["PATH"],
            "HTTP_PORT": str(self._ports[name]),
            "MONITORING_PORT": str(self._monitoring_ports[name]),
            "AMQP_URL": self._place.amqp_of(service),
            "DATABASE_URL": setup.service_url(self._place.database_url, service, PASSWORD),
            "TOKEN_SECRET": TOKEN_SECRET,
            "VAULT_PUBLIC_KEYS": PUBLIC_KEYS,
            "VAULT_KEYS": vault_keys(service) if service in PRIVATE_KEYS else "",
            "SANDBOX_URL": self.sandbox.base_url,
            "SANDBOX_API_KEY": SANDBOX_KEY,
            "STRIPE_URL": self.sandbox.base_url,
            "STRIPE_API_KEY": SANDBOX_KEY,
            "STRIPE_MULTICAPTURE": "true",
            "WEBHOOK_ACCOUNTS": webhooks_settings(self._place, self.store_id).webhook_accounts,
            "WEBHOOKS_URL": self.url("webhooks"),
            "ASK_TIMEOUT_SECONDS": "2.0",
            "MATCH_EVERY_SECONDS": "0.2",
            # As patient as in life, in less time.
            "RETRY_TIERS_SILENT": ",".join(["1s"] * SILENT_TRIES),
            "PROVIDER_TIMEOUT_SECONDS": "1.5",
            "LEASE_SECONDS": "1.0",
            "OUTBOX_HEAD_START_SECONDS": "1.0",
            "RECONCILE_SCHEDULES": "[]",
            "RUN_EVERY_SECONDS": "0.1",
            "SCHEDULE_EVERY_SECONDS": "0.1",
            "LEADER_LEASE_SECONDS": "1.0",
            "RESOLVE_EVERY_SECONDS": "0.2",
            "SWEEP_EVERY_SECONDS": "0.2",
            "SHUTDOWN_NOTICE_SECONDS": "0",
            "REDRIVE_AFTER_SECONDS": "1.0",
            # Its shoppers are declined as often as chance has it.
            "DECLINES_PER_STORE_MAX": "1000000",
            **self._changes,
        }


@contextlib.asynccontextmanager
async def a_system(
    nursery: Nursery,
    place: Place,
    folder: Path,
    *,
    webhooks: bool = False,
    fulfillment: bool = False,
    moods: Moods | None = None,
    provider: str = "sandbox",
    **changes: Any,
) -> AsyncIterator[tuple[System, World]]:
    """Run the services as processes, with a sandbox in this one, which tells what happens there when it is given moods to do so in."""
    async with a_sandbox() as sandbox:
        system = System(nursery, place, folder, sandbox, **changes)
        if moods is not None:
            sandbox.outgoing.url = f"{system.url('webhooks')}/api/v1/webhooks/sandbox"
            sandbox.outgoing.moods = moods
        try:
            await system.start("payments")
            if webhooks:
                await system.start("webhooks")
            if fulfillment:
                await system.start("fulfillment")
            await system.start("gateway")
            store_id = system.store_id
            keys = {role: await a_key(place, store_id, role) for role in (Role.CHECKOUT, Role.ADMIN, Role.OPERATOR)}
            world = World(
                place,
                gateway_url=system.url("gateway"),
                monitoring={name: system.monitoring_url(name) for name in ("gateway", "payments", "webhooks")},
                sandbox=sandbox,
                keys=keys,
                store_id=store_id,
                webhooks_url=system.url("webhooks"),
                provider=provider,
            )
            yield system, world
            await world.http.aclose()
        finally:
            system.stop()
