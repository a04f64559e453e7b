"""The hostile soak: one store attacks in each way of the security report; another's requests and all services' memory are measured."""

import asyncio
import logging
import math
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec

from deploy.operator import table
from deploy.state import ROOT
from services.gateway.domain import Role
from shared.ids import new_id
from tests.faults.attacks import ATTACKS, Attack, Outcome, Plan
from tests.faults.bystander import Bystander, Measured, a_bystander
from tests.faults.ground import a_ground
from tests.faults.nursery import Nursery
from tests.faults.system import System
from tests.world import World, a_key

QUIET_SECONDS_MAX = 30.0
# The other store's p99 may grow by this much under attack.
RATIO_MAX = 2.0
# A p99 that grew by less is not counted: attacker, bystander, sandbox, five services, database and broker share a few cores,
# and on two of them the scheduler alone moves a p99 by as much.
FLOOR_SECONDS = 0.25
# A service's memory may grow by this share during one attack, and by the floor in any case: caches, and what the allocator holds.
MEMORY_GROWTH_SHARE_MAX = 0.2
MEMORY_FLOOR_BYTES = 24 * 1024 * 1024
# An attack fills all places that the limits leave it (connections and their buffers), and those stay; from then on memory is flat.
FILLING_SHARE = 0.25
SETTLE_SECONDS = 3.0
ATTACKER_KEYS = 20
OUTCOME_TIMEOUT_SECONDS = 120.0
# As long as a provider that does not answer stays silent.
SILENCE_SECONDS = 30.0
SERVICES = ("gateway", "payments", "webhooks", "fulfillment", "reconciler")
# Settings that tests shorten have their defaults here.
DEFAULTS: dict[str, Any] = dict.fromkeys(
    (
        *("ask_timeout_seconds", "match_every_seconds", "retry_tiers_silent", "provider_timeout_seconds", "lease_seconds"),
        *("outbox_head_start_seconds", "run_every_seconds", "schedule_every_seconds", "leader_lease_seconds"),
        *("resolve_every_seconds", "sweep_every_seconds", "redrive_after_seconds"),
    ),
    "",
)


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """One attack, what the other store measured meanwhile, and each service's memory once all places are taken and at the end, in bytes."""

    name: str
    about: str
    outcome: Outcome
    measured: Measured
    memory_filled: dict[str, int]
    memory_after: dict[str, int]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The quiet measurement and every attack."""

    quiet: Measured
    phases: list[Phase]

    @property
    def findings(self) -> list[str]:
        """What should not have been, a line each; none when the other store was not harmed."""
        found = [f"quiet: {failure}" for failure in self.quiet.failures]
        return found + [f"{phase.name}: {line}" for phase in self.phases for line in _findings(self.quiet, phase)]


def run(*, attack_seconds: float, only: Collection[str], say: Callable[[str], None]) -> Report:
    """Attack in each way, or only in some by their names, for so many seconds, with servers and services of our own."""
    # Of the requests that the sandbox is still silent about at the end it would write a traceback each.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
    with tempfile.TemporaryDirectory(prefix="tender-hostile-") as folder:
        nursery = Nursery(Path(folder) / "nursery")
        try:
            return asyncio.run(_on_ground(nursery, Path(folder), attack_seconds, only, say))
        finally:
            nursery.close()


async def _on_ground(nursery: Nursery, folder: Path, attack_seconds: float, only: Collection[str], say: Callable[[str], None]) -> Report:
    attacks = [attack for attack in ATTACKS if not only or attack.name in only]
    async with a_ground(nursery, folder, fulfillment=True, allow_private_endpoints=True, **DEFAULTS) as ground:
        await ground.system.start("reconciler")
        return await attack_all(ground.system, ground.world, attacks, attack_seconds=attack_seconds, say=say)


async def attack_all(
    system: System, world: World, attacks: Sequence[Attack], *, attack_seconds: float, say: Callable[[str], None]
) -> Report:
    """Measure the quiet system, then carry out one attack after the other."""
    world.sandbox.silence_seconds = SILENCE_SECONDS
    store_id = new_id()
    keys = [await a_key(world.place, store_id, Role.ADMIN) for _ in range(ATTACKER_KEYS)]
    async with a_bystander(world) as bystander:
        await bystander.measure(1.0)  # Connections, caches and statements that every first request makes.
        quiet = await bystander.measure(min(attack_seconds, QUIET_SECONDS_MAX))
        say(f"quiet: requests p99 {_ms(_p(quiet.requests, 0.99))}, deliveries p99 {_ms(_p(quiet.deliveries, 0.99))}")
        phases = []
        for attack in attacks:
            plan = Plan(
                attack=attack.name,
                seconds=attack_seconds,
                per_second=attack.per_second,
                gateway_url=world.gateway_url,
                store_id=str(store_id),
                admin_keys=keys,
            )
            phase = await _phase(system, bystander, attack, plan)
            phases.append(phase)
            say(f"{attack.name} {attack.about}: {'; '.join(_findings(quiet, phase)) or 'ok'}")
    return Report(quiet=quiet, phases=phases)


async def _phase(system: System, bystander: Bystander, attack: Attack, plan: Plan) -> Phase:
    inside = attack.name == "H4"
    if inside:
        # The bystander's own server is at an inside address too.
        await bystander.unsubscribe()
        await _webhooks_again(system, {"ALLOW_PRIVATE_ENDPOINTS": "false"})
    attacked = asyncio.create_task(_under_attack(plan, bystander))
    await asyncio.wait([attacked], timeout=FILLING_SHARE * plan.seconds)
    filled = memory(system)
    outcome, measured = await attacked
    await asyncio.sleep(SETTLE_SECONDS)
    after = memory(system)
    if inside:
        await _webhooks_again(system, {})
        await bystander.subscribe()
    return Phase(name=attack.name, about=attack.about, outcome=outcome, measured=measured, memory_filled=filled, memory_after=after)


async def _webhooks_again(system: System, settings: dict[str, str]) -> None:
    await system.stop_one("webhooks")
    await system.start("webhooks", settings)


async def _under_attack(plan: Plan, bystander: Bystander) -> tuple[Outcome, Measured]:
    attacker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.attacks"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        limit=1024 * 1024,
    )
    assert attacker.stdin is not None, "it was opened"
    assert attacker.stdout is not None, "it was opened"
    try:
        async with asyncio.timeout(OUTCOME_TIMEOUT_SECONDS + plan.seconds):
            attacker.stdin.write(msgspec.json.encode(plan) + b"\n")
            ready = await attacker.stdout.readline()
            assert ready == b"ready\n", f"the attacker ended before it began: {ready!r}"
            measured = await bystander.measure(plan.seconds)
            outcome = msgspec.json.decode(await attacker.stdout.readline(), type=Outcome)
            await attacker.wait()
    finally:
        if attacker.returncode is None:
            attacker.kill()
            await attacker.wait()
    return outcome, measured


def memory(system: System) -> dict[str, int]:
    """Read how many bytes of memory each running service holds."""
    found = {}
    for name in SERVICES:
        status = Path(f"/proc/{system.child(name).pid}/status").read_text() if system.has(name) else ""
        lines = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        if lines:
            found[name] = int(lines[0].split()[1]) * 1024
    return found


def _findings(quiet: Measured, phase: Phase) -> list[str]:
    found = []
    for what in ("requests", "deliveries"):
        before, under = _p(getattr(quiet, what), 0.99), _p(getattr(phase.measured, what), 0.99)
        if under > max(RATIO_MAX * before, before + FLOOR_SECONDS):
            longest = ", ".join(f"{name} {_ms(each)}" for name, each in phase.measured.longest.items()) if what == "requests" else ""
            found.append(f"{what} p99 {_ms(before)} -> {_ms(under)}" + (f" (at most {longest})" if longest else ""))
    for name, filled_bytes in phase.memory_filled.items():
        after_bytes = phase.memory_after.get(name)
        if after_bytes is None:
            found.append(f"{name} is gone")
        elif after_bytes - filled_bytes > max(MEMORY_FLOOR_BYTES, MEMORY_GROWTH_SHARE_MAX * filled_bytes):
            found.append(f"{name} grew from {_mib(filled_bytes)} to {_mib(after_bytes)} MiB")
    if phase.outcome.reached_inside:
        found.append(f"{phase.outcome.reached_inside} connections reached an inside address")
    if phase.measured.failures:
        found.append(f"{len(phase.measured.failures)} failures, the first: {phase.measured.failures[0]}")
    return found


def drawn(report: Report) -> str:
    """Lay the report out: a table of times, one of memory, and the findings."""
    rows: list[dict[str, Any]] = [{"attack": "quiet", **_times(report.quiet, report.quiet)}]
    for phase in report.phases:
        statuses = " ".join(f"{status}:{count}" for status, count in sorted(phase.outcome.statuses.items()))
        made = {"attack": f"{phase.name} {phase.about}", "made": phase.outcome.requests, "statuses": statuses}
        rows.append({**made, **_times(report.quiet, phase.measured)})
    times = table(rows, "attack", "made", "p50", "p99", "ratio", "delivery p50", "delivery p99", "delivery ratio", "failures", "statuses")
    grown = [
        {"attack": phase.name, **{name: _growth(phase, name) for name in SERVICES if name in phase.memory_filled}}
        for phase in report.phases
    ]
    findings = "\n".join(report.findings) or "Nothing found."
    return f"{times}\n\nMemory in MiB, once all places are taken and at the end\n{table(grown, 'attack', *SERVICES)}\n\n{findings}"


def _times(quiet: Measured, measured: Measured) -> dict[str, Any]:
    row: dict[str, Any] = {"failures": len(measured.failures)}
    for prefix, what in (("", "requests"), ("delivery ", "deliveries")):
        found = getattr(measured, what)
        before = _p(getattr(quiet, what), 0.99)
        if found:
            row |= {f"{prefix}p50": _ms(_p(found, 0.5)), f"{prefix}p99": _ms(_p(found, 0.99))}
            row[f"{prefix}ratio"] = f"{_p(found, 0.99) / before:.1f}" if before else ""
    return row


def _growth(phase: Phase, name: str) -> str:
    return f"{_mib(phase.memory_filled[name])} -> {_mib(phase.memory_after[name]) if name in phase.memory_after else 'gone'}"


def _p(samples: Sequence[float], share: float) -> float:
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)] if samples else 0.0


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _mib(count: int) -> int:
    return round(count / 1024 / 1024)
