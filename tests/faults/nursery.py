"""A process that has everything imported and forks services on demand, so that a crash test costs a fork, not a start."""

import contextlib
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from deploy.processes import PR_SET_PDEATHSIG, Process, start
from deploy.state import ROOT
from services.fulfillment.app import build as build_fulfillment
from services.fulfillment.settings import Settings as FulfillmentSettings
from services.gateway.app import build as build_gateway
from services.gateway.settings import Settings as GatewaySettings
from services.payments.app import build as build_payments
from services.payments.settings import Settings as PaymentsSettings
from services.reconciler.app import build as build_reconciler
from services.reconciler.settings import Settings as ReconcilerSettings
from services.webhooks.app import build as build_webhooks
from services.webhooks.settings import Settings as WebhooksSettings
from shared.health import health_app
from shared.run import run
from tests.faults import points


class Birth(msgspec.Struct, frozen=True):
    """What to fork: which service, with which environment, writing where."""

    service: str
    environment: dict[str, str]
    log: str


class Child:
    """A forked service."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @property
    def running(self) -> bool:
        """Whether it is still there."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def send(self, number: int) -> None:
        """Send it a signal; one that is gone gets none."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Nursery:
    """The forking process, as a test holds it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._requests, self._answers = folder / "requests", folder / "answers"
        for pipe in (self._requests, self._answers):
            os.mkfifo(pipe)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.faults.nursery", str(self._requests), str(self._answers)]
        self.process: Process = start("nursery", command, log=folder / "nursery.log", env=environment)
        # Everything that it and what it forked have written.
        self.logs = {folder / "nursery.log"}
        self._to = self._requests.open("wb", buffering=0)
        self._from = self._answers.open("rb", buffering=0)

    def fork(self, service: str, environment: Mapping[str, str], log: Path) -> Child:
        """Fork a service."""
        self.logs.add(log)
        self._to.write(msgspec.json.encode(Birth(service, dict(environment), str(log))) + b"\n")
        answer = self._from.read(16)
        assert answer, self.process.tail()
        return Child(int(answer))

    def close(self) -> None:
        """End it; what it forked ends with it."""
        self._to.close()
        self._from.close()
        self.process.stop()


def _serve(requests: str, answers: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody waits for the dead, so the system buries them.
    health_app({})  # Its first application imports what all of them need.
    gc.collect()
    gc.freeze()  # So that no service that is forked has to go through it.
    with open(requests, "rb") as incoming, open(answers, "wb", buffering=0) as outgoing:
        for line in incoming:
            birth = msgspec.json.decode(line, type=Birth)
            child = os.fork()
            if child == 0:
                _live(birth)
            outgoing.write(f"{child:<16d}".encode())


def _live(birth: Birth) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgrp()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    log = os.open(birth.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.clear()
    os.environ.update(birth.environment)
    points.arm(birth.environment)
    try:
        if birth.service == "payments":
            run(build_payments, PaymentsSettings)
        elif birth.service == "webhooks":
            run(build_webhooks, WebhooksSettings)
        elif birth.service == "fulfillment":
            run(build_fulfillment, FulfillmentSettings)
        elif birth.service == "reconciler":
            run(build_reconciler, ReconcilerSettings)
        else:
            run(build_gateway, GatewaySettings)
    except SystemExit as ended:
        print(ended, file=sys.stderr, flush=True)  # noqa: T201
    finally:
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
