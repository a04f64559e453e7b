"""Measuring a path over the whole system beside yardsticks, in interleaved rounds whose medians count."""

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec
from rich.progress import Progress, TaskID

from deploy.seed import seed
from deploy.servers import Choice
from deploy.stack import STORE_ID, Options, Running, running, webhook_secret
from deploy.state import Instance
from tests.bench import export, worker
from tests.bench.client import Sample, closed_loop, open_loop
from tests.bench.cpu import seconds_by_process, seconds_of
from tests.bench.shop import Shop
from tests.bench.sink import a_sink
from tests.bench.yardsticks import BODY, Yardsticks

ROUNDS = 3
WARM_UP = 300
COUNT_MIN = 100
GROWTH_BEFORE = 1_000
GROWTH_REQUESTS = 400
TRACES_SAMPLED = 0.1
# How fast each kind is expected to be at first; after one round it is known.
FIRST_GUESS_PER_SECOND = {"replay": 1_000.0, "checkout": 30.0, "webhooks": 800.0}


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure, and how."""

    what: str
    clients: tuple[int, ...]
    seconds: float
    # An open loop begins this many a second, whatever becomes of them; a closed one as fast as it is answered.
    rate: float | None = None
    growth_orders: int = 1_000_000
    export_lines: int = 1_000_000


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table: medians over the rounds."""

    label: str
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int
    cpu_ms: dict[str, float]
    yardsticks: dict[str, float]

    @property
    def cpu_together_ms(self) -> float:
        """The services, the database and the broker; the sandbox stands for somebody else's machine."""
        return sum(used for name, used in self.cpu_ms.items() if name != "sandbox")

    def ratio(self, yardstick: str) -> float:
        """How many of ours go for one of a yardstick's."""
        return self.per_second / self.yardsticks[yardstick]


def run(wish: Wish, *, home: Path, say: Callable[[str], None]) -> list[Figures]:
    """Start a stack of its own, measure, and give a line for each number of clients."""
    instance = Instance(home, "bench")
    with ExitStack() as stack:
        up = stack.enter_context(running(instance, _options(), say))
        bare = Yardsticks(stack, instance.logs, database_url=up.state.database_url, amqp_url=up.state.amqp_url)
        progress = stack.enter_context(Progress(transient=True))
        if wish.what == "telemetry":
            traced = stack.enter_context(running(Instance(home, "bench-traced"), _options(traces_to=stack.enter_context(a_sink())), say))
            return asyncio.run(_telemetry(wish, up, traced, bare, progress))
        if wish.what == "worker":
            return asyncio.run(_worker(up, bare, progress, instance.logs))
        if wish.what == "export":
            return [_export(wish, up, bare)]
        if wish.what == "growth":
            return asyncio.run(_growth(wish, up, bare, progress))
        return asyncio.run(_measure(wish, up, bare, progress, secret=webhook_secret(instance)))


def _options(*, traces_to: str = "") -> Options:
    # One key asks for all of it here, more than one caller is allowed.
    settings = {"RATE_PER_SECOND": "100000", "RATE_BURST": "100000", "TRACE_SAMPLE_RATIO": str(TRACES_SAMPLED), "TRACES_KEPT_HOURS": "0"}
    return Options(choice=Choice(), log_level="WARNING", webhooks=False, otlp_endpoint=traces_to, settings=settings)


async def _telemetry(wish: Wish, plain: Running, traced: Running, bare: Yardsticks, progress: Progress) -> list[Figures]:
    """Authorize over two stacks in turn, one of which traces what it is usual to sample."""
    stacks = {"authorize, no traces": plain, f"authorize, {TRACES_SAMPLED:.0%} traced": traced}
    shops = {name: Shop(up, webhook_secret="") for name, up in stacks.items()}
    for shop in shops.values():
        await closed_loop(shop.url, await shop.make("authorize", WARM_UP), clients=16, count=WARM_UP)
    authorize = Wish(what="authorize", clients=(16,), seconds=wish.seconds)
    count, rounds = max(COUNT_MIN, round(100 * wish.seconds / ROUNDS)), dict[str, list[Figures]]()
    for number in progress.track(range(2 * ROUNDS), description="telemetry"):
        for name, up in list(stacks.items())[:: 1 if number % 2 else -1]:
            figures = await _round(authorize, up, bare, shops[name], 16, count)
            rounds.setdefault(name, []).append(msgspec.structs.replace(figures, label=name))
    return [_median(rounds[name]) for name in stacks]


async def _measure(wish: Wish, up: Running, bare: Yardsticks, progress: Progress, *, secret: str) -> list[Figures]:
    shop = Shop(up, webhook_secret=secret)
    await closed_loop(shop.url_of(wish.what), await shop.make(wish.what, WARM_UP), clients=16, count=WARM_UP)
    task = progress.add_task(wish.what, total=ROUNDS * len(wish.clients))
    rounds: dict[int, list[Figures]] = {clients: [] for clients in wish.clients}
    rate = FIRST_GUESS_PER_SECOND.get(wish.what, 60.0)
    for number in range(ROUNDS):
        for clients in wish.clients:
            progress.update(task, description=f"{wish.what}, {clients} clients, round {number + 1} of {ROUNDS}")
            known = rounds[clients]
            count = max(COUNT_MIN, round((wish.rate or (known[-1].per_second if known else rate)) * wish.seconds / ROUNDS))
            rounds[clients].append(await _round(wish, up, bare, shop, clients, count))
            progress.advance(task)
    return [_median(each) for each in rounds.values()]


async def _round(wish: Wish, up: Running, bare: Yardsticks, shop: Shop, clients: int, count: int) -> Figures:
    work = await shop.make(wish.what, count)
    before, started = seconds_by_process(up.processes), time.perf_counter()
    if wish.rate is None:
        samples = await closed_loop(shop.url_of(wish.what), work, clients=clients, count=count)
    else:
        samples = await open_loop(shop.url_of(wish.what), work, per_second=wish.rate, count=count)
    elapsed = time.perf_counter() - started
    used = {name: seconds - before[name] for name, seconds in seconds_by_process(up.processes).items()}
    label = f"{wish.what}, {clients} clients" if wish.rate is None else f"{wish.what}, {wish.rate:g}/s begun"
    return _figures(label, samples, elapsed, used, await bare.measure(clients))


def _figures(label: str, samples: list[Sample], elapsed: float, used: dict[str, float], yardsticks: dict[str, float]) -> Figures:
    times = sorted(s.seconds * 1000 for s in samples)
    return Figures(
        label=label,
        per_second=len(samples) / elapsed,
        p50_ms=times[len(times) // 2],
        p95_ms=times[int(len(times) * 0.95)],
        p99_ms=times[int(len(times) * 0.99)],
        errors=sum(1 for s in samples if s.status >= 400),
        cpu_ms={name: seconds * 1000 / len(samples) for name, seconds in used.items()},
        yardsticks=yardsticks,
    )


def _median(rounds: Sequence[Figures]) -> Figures:
    def middle(pick: Callable[[Figures], float]) -> float:
        return statistics.median(pick(each) for each in rounds)

    return Figures(
        label=rounds[0].label,
        per_second=middle(lambda f: f.per_second),
        p50_ms=middle(lambda f: f.p50_ms),
        p95_ms=middle(lambda f: f.p95_ms),
        p99_ms=middle(lambda f: f.p99_ms),
        errors=sum(f.errors for f in rounds),
        cpu_ms={name: middle(lambda f, name=name: f.cpu_ms[name]) for name in rounds[0].cpu_ms},  # type: ignore[misc]
        yardsticks={name: middle(lambda f, name=name: f.yardsticks[name]) for name in rounds[0].yardsticks},  # type: ignore[misc]
    )


async def _growth(wish: Wish, up: Running, bare: Yardsticks, progress: Progress) -> list[Figures]:
    """Authorize with a short past behind it, load a long one, and authorize again."""
    authorize = Wish(what="authorize", clients=(1,), seconds=wish.seconds)
    shop, lines = Shop(up, webhook_secret=""), list[Figures]()
    await closed_loop(shop.url, await shop.make("authorize", WARM_UP), clients=16, count=WARM_UP)
    behind = 0
    for orders in (GROWTH_BEFORE, wish.growth_orders):
        task = progress.add_task(f"loading {orders} orders", total=orders - behind)
        loaded = partial(_completed, progress, task)
        await seed(up.state.database_url, store_id=STORE_ID, orders=orders - behind, progress=loaded)
        behind = orders
        # A first round over cold pages is part of loading, not of growth.
        await closed_loop(shop.url, await shop.make("authorize", WARM_UP), clients=4, count=WARM_UP)
        rounds = [await _round(authorize, up, bare, shop, 1, GROWTH_REQUESTS) for _ in range(ROUNDS)]
        lines.append(msgspec.structs.replace(_median(rounds), label=f"authorize behind {orders} orders, 1 client"))
    return lines


async def _worker(up: Running, bare: Yardsticks, progress: Progress, folder: Path) -> list[Figures]:
    """A queue full of commands, each a row and an answer in one transaction; how long one takes is not asked."""
    owned = await worker.prepare(up.state.database_url, up.state.amqp_url, folder)
    rounds = []
    for _ in progress.track(range(ROUNDS), description="worker"):
        before = seconds_of(os.getpid())
        per_second = await worker.measure(owned, up.state.database_url, up.state.amqp_url, BODY)
        used = {"worker": (seconds_of(os.getpid()) - before) * 1000 / worker.MESSAGES}
        figures = Figures(
            label="worker", per_second=per_second, p50_ms=0, p95_ms=0, p99_ms=0, errors=0, cpu_ms=used, yardsticks=await bare.measure(1)
        )
        rounds.append(figures)
    return [_median(rounds)]


def _export(wish: Wish, up: Running, bare: Yardsticks) -> Figures:
    """Lines a second of a long export, the slower of two; p50 and p99 are not asked."""
    before = seconds_by_process(up.processes)
    done = export.run(up, wish.export_lines)
    used = {name: seconds - before[name] for name, seconds in seconds_by_process(up.processes).items()}
    grown = ", ".join(f"{name} +{mib:.0f} MiB" for name, mib in done.grown_mib.items())
    return Figures(
        label=f"export, {done.lines} lines, {grown}",
        per_second=done.lines / max(done.seconds),
        p50_ms=0,
        p95_ms=0,
        p99_ms=0,
        # That it comes out the same is the point.
        errors=0 if done.same and done.lines == wish.export_lines else 1,
        cpu_ms={name: seconds * 1000 / (2 * done.lines) for name, seconds in used.items()},
        yardsticks={**asyncio.run(bare.measure(1)), "copy": done.lines / done.copied_seconds},
    )


def _completed(progress: Progress, task: TaskID, count: int) -> None:
    progress.update(task, completed=count)
