"""The services as processes, so that they can be killed in the middle."""

import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from deploy import setup
from deploy.processes import Process, start
from deploy.sandbox.server import Sandbox
from deploy.stack import ROOT
from deploy.state import free_port
from services.gateway.domain import Role
from shared.ids import new_id
from tests.world import PASSWORD, SANDBOX_KEY, TOKEN_SECRET, Place, World, a_key, a_sandbox, until


class System:
    """Payments and the gateway as processes of ours, and the world to call them from."""

    def __init__(self, place: Place, folder: Path, sandbox: Sandbox, **changes: Any) -> None:
        self._place = place
        self._folder = folder
        self._ports = {"payments": free_port(), "gateway": free_port(), "gateway 2": free_port()}
        self._processes: dict[str, Process] = {}
        self._changes = {key.upper(): str(value) for key, value in changes.items()}
        self.sandbox = sandbox

    def url(self, name: str) -> str:
        """Tell where a process serves HTTP."""
        return f"http://127.0.0.1:{self._ports[name]}"

    async def start(self, name: str) -> None:
        """Start a service and wait until it is ready."""
        self._processes[name] = start(
            name,
            [sys.executable, "-m", f"services.{name.split()[0]}"],
            log=self.log(name),
            env=self._environment(name),
            stop_signal=signal.SIGTERM,
        )
        await until(lambda: self._ready(name))

    def kill(self, name: str) -> None:
        """Kill a service without a word."""
        self._processes[name].send(signal.SIGKILL)
        self._processes[name].wait(10)

    def stop(self) -> None:
        """Stop everything."""
        for process in self._processes.values():
            process.stop()

    def ask_to_stop(self, name: str) -> Process:
        """Tell a service to stop, and do not wait."""
        process = self._processes[name]
        process.send(signal.SIGTERM)
        return process

    def log(self, name: str) -> Path:
        """Where a service's log lies."""
        return self._folder / f"{name.replace(' ', '-')}.log"

    async def _ready(self, name: str) -> bool:
        assert self._processes[name].running, self._processes[name].tail()
        async with httpx.AsyncClient() as http:
            with contextlib.suppress(httpx.HTTPError):
                return (await http.get(f"{self.url(name)}/health/ready")).status_code == 200
        return False

    def _environment(self, name: str) -> dict[str, str]:
        service = name.split()[0]
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HTTP_PORT": str(self._ports[name]),
            "AMQP_URL": self._place.amqp_url,
            "DATABASE_URL": setup.service_url(self._place.database_url, service, PASSWORD),
            "TOKEN_SECRET": TOKEN_SECRET,
            "SANDBOX_URL": self.sandbox.base_url,
            "SANDBOX_API_KEY": SANDBOX_KEY,
            "PROVIDER_TIMEOUT_SECONDS": "1.5",
            "RESOLVE_EVERY_SECONDS": "0.2",
            "SWEEP_EVERY_SECONDS": "0.2",
            "REDRIVE_AFTER_SECONDS": "1.0",
            **self._changes,
        }


@contextlib.asynccontextmanager
async def a_system(place: Place, folder: Path, **changes: Any) -> AsyncIterator[tuple[System, World]]:
    """Run the services as processes, with a sandbox in this one."""
    async with a_sandbox() as sandbox:
        system = System(place, folder, sandbox, **changes)
        try:
            await system.start("payments")
            await system.start("gateway")
            store_id = new_id()
            keys = {role: await a_key(place, store_id, role) for role in (Role.CHECKOUT, Role.ADMIN, Role.OPERATOR)}
            world = World(
                place, gateway_url=system.url("gateway"), payments_url=system.url("payments"), sandbox=sandbox, keys=keys, store_id=store_id
            )
            yield system, world
            await world.http.aclose()
        finally:
            system.stop()
