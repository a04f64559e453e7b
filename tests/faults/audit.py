"""The auditor: compares what shoppers were told, what our ledger says and what the sandbox did, and counts."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from deploy.sandbox.books import Payment as Theirs
from tests.faults.shopping import Attempt
from tests.world import World, management, until

SETTLE_TIMEOUT_SECONDS = 120.0
# In which operations money moves; each has one effect at the provider, named by our row's id.
MOVING = ("authorize", "confirm", "capture", "void", "refund")
# Refusals a story can run into without anybody having done wrong.
EXPECTED_REFUSALS = ("payment-declined",)


class Counters(msgspec.Struct, kw_only=True):
    """What came of the operations of a run; the last three must be zero."""

    asked: int = 0
    acknowledged: int = 0
    refused: int = 0
    recovered: int = 0
    lost: int = 0
    duplicated: int = 0
    unexpected: int = 0
    findings: list[str] = []

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, nothing happened twice and nothing surprised."""
        return self.lost == self.duplicated == self.unexpected == 0

    def add(self, other: "Counters") -> None:
        """Count another run in."""
        for name in ("asked", "acknowledged", "refused", "recovered", "lost", "duplicated", "unexpected"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.findings = [*self.findings, *other.findings]

    def __str__(self) -> str:
        return (
            f"asked {self.asked}, acknowledged {self.acknowledged}, refused {self.refused}, recovered {self.recovered}, "
            f"lost {self.lost}, duplicated {self.duplicated}, unexpected {self.unexpected}"
        )


async def settled(world: World) -> list[str]:
    """Wait until no command, key, event or outcome is open any more; tells what still is when the time is up."""

    async def nothing_open() -> bool:
        return not any((await _open_ends(world)).values())

    try:
        await until(nothing_open, timeout_seconds=SETTLE_TIMEOUT_SECONDS)
    except AssertionError:
        return [f"{count} {what} still open" for what, count in (await _open_ends(world)).items() if count]
    return []


async def _open_ends(world: World) -> dict[str, int]:
    row = await world.rows(
        """
        SELECT (SELECT count(*) FROM payments.inbox WHERE state <> 'done') AS "commands",
               (SELECT count(*) FROM payments.outbox) AS "events",
               (SELECT count(*) FROM gateway.idempotency_keys WHERE status <> 'completed' AND NOT resting) AS "keys",
               (SELECT count(*) FROM payments.payment_transactions WHERE status IN ('pending', 'unknown') AND NOT awaiting_customer)
                   AS "outcomes",
               (SELECT count(*) FROM webhooks.inbox WHERE state <> 'done') AS "commands of webhooks",
               (SELECT count(*) FROM webhooks.outbox) AS "promises of webhooks",
               (SELECT count(*) FROM webhooks.webhook_events WHERE status NOT IN ('processed', 'ignored')) AS "webhooks"
        """
    )
    return dict(row[0])


async def audit(world: World, attempts: Sequence[Attempt]) -> Counters:
    """Settle, then compare all three sides."""
    counters = Counters(asked=len(attempts), findings=[])
    for text in await settled(world):
        _find(counters, "unexpected", text)
    for text in [*await _dead_letters(world), *await _gaps(world)]:
        _find(counters, "unexpected", text)
    ours = {attempt.order_id for attempt in attempts}
    theirs = {order_id: payments for order_id, payments in _by_order(world).items() if order_id in ours}
    effects: dict[UUID, Counter[str]] = {order_id: _effects(payments) for order_id, payments in theirs.items()}
    acknowledged: dict[UUID, set[str]] = defaultdict(set)
    for attempt in attempts:
        _judge(counters, attempt, effects.get(attempt.order_id, Counter()), acknowledged)
    for order_id, happened in effects.items():
        for reference, times in happened.items():
            if times > 1:
                _find(counters, "duplicated", f"order {order_id}: {reference} happened {times} times")
            elif reference not in acknowledged[order_id]:
                _find(counters, "unexpected", f"order {order_id}: {reference} happened and nobody was told so")
        if len(theirs[order_id]) > 1 and sum(1 for p in theirs[order_id] if p.moved("authorize")) > 1:
            _find(counters, "duplicated", f"order {order_id} was charged {len(theirs[order_id])} times")
        try:
            await world.books_agree(order_id)
        except AssertionError as different:
            _find(counters, "unexpected", f"order {order_id}: the books differ: {str(different)[:300]}")
    return counters


def _judge(counters: Counters, attempt: Attempt, happened: Counter[str], acknowledged: dict[UUID, set[str]]) -> None:
    what = f"order {attempt.order_id}: {attempt.operation} with key {attempt.key}"
    for text in attempt.surprises:
        _find(counters, "unexpected", f"{what}: {text}")
    answer = attempt.answered
    if answer is None:
        if not attempt.surprises:
            _find(counters, "lost", f"{what} never got an answer ({attempt.sent} times sent)")
        return
    if attempt.sent > 1:
        counters.recovered += 1
    if answer.status >= 400:
        counters.refused += 1
        if answer.json.get("code") not in EXPECTED_REFUSALS:
            _find(counters, "unexpected", f"{what}: {answer!r}")
        return
    counters.acknowledged += 1
    if attempt.operation in MOVING:
        reference = f"{_kind(attempt.operation)} {answer.json['transaction']['id']}"
        acknowledged[attempt.order_id].add(reference)
        waits = answer.json["intent"]["status"] == "requires_action"
        if not happened[reference] and not waits:
            _find(counters, "lost", f"{what} was acknowledged and did not happen")


def _kind(operation: str) -> str:
    return "authorize" if operation == "confirm" else operation


def _by_order(world: World) -> dict[UUID, list[Theirs]]:
    found: dict[UUID, list[Theirs]] = defaultdict(list)
    for payment in world.sandbox.books.payments.values():
        found[UUID(str(payment.order_id))].append(payment)
    return found


def _effects(payments: list[Theirs]) -> Counter[str]:
    return Counter(f"{o.kind} {o.reference}" for p in payments for o in p.operations if o.status == "succeeded")


async def _dead_letters(world: World) -> list[str]:
    taken = await world.rows("SELECT message_type, reason FROM reconciler.dead_letters LIMIT 50")
    kept = [f"a dead letter: {row['message_type']} {row['reason']}" for row in taken]
    if world.place.management_url is None:
        return kept
    wanted = {"count": 50, "ackmode": "ack_requeue_false", "encoding": "auto"}
    found: list[Any] = []
    async with management(world.place.management_url) as http:
        for service in ("payments", "webhooks"):
            found += (await http.post(f"/api/queues/%2F/{service}.dead.v1/get", json=wanted)).json()
    return kept + [f"a dead letter: {m['properties'].get('type')} {m['properties']['headers'].get('dead_reason')}" for m in found]


async def _gaps(world: World) -> list[str]:
    """Orders whose events, as the merchant is told them, are not numbered from one without a gap."""
    rows = await world.rows(
        "SELECT order_id FROM webhooks.merchant_events GROUP BY order_id HAVING min(sequence) <> 1 OR max(sequence) <> count(*)"
    )
    return [f"order {row['order_id']}: the merchant is told with a gap" for row in rows]


def _find(counters: Counters, which: str, text: str) -> None:
    setattr(counters, which, getattr(counters, which) + 1)
    counters.findings.append(f"{which}: {text}")


def report(counters: Counters) -> Any:
    """Write the counters and what was found for people."""
    return "\n".join([str(counters), *(f"  {text}" for text in counters.findings)])
