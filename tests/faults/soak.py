"""The soak: shoppers without end while random pairs of faults strike, and the auditor's counters at the end."""

import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from deploy.sandbox.webhooks import Moods
from tests.faults.audit import Counters, audit
from tests.faults.faults import FAULTS, Fault
from tests.faults.ground import Ground, a_ground
from tests.faults.nursery import Nursery
from tests.faults.shopping import Shop

SHOPPERS = 8
ANSWERS_BEFORE = 10
ANSWERS_AFTER = 12
LASTS_MIN_SECONDS = 1.0
LASTS_MAX_SECONDS = 15.0
# Longer than every heartbeat and lease.
FROZEN_SECONDS = 60.0
FROZEN_LIKELIHOOD = 0.3
# The provider tells of everything all the while, as providers do.
MOODS = Moods(lost=0.1, doubled=0.3, late=0.2, late_seconds=1.0, shuffled_seconds=0.5)


def run(*, minutes: float, seed: int, say: Callable[[str], None]) -> Counters:
    """Break things in pairs for so many minutes and count what came of it."""
    with tempfile.TemporaryDirectory(prefix="tender-soak-") as folder:
        nursery = Nursery(Path(folder) / "nursery")
        try:
            return asyncio.run(_soak(nursery, Path(folder), minutes, random.Random(seed), say))
        finally:
            nursery.close()


async def _soak(nursery: Nursery, folder: Path, minutes: float, rng: random.Random, say: Callable[[str], None]) -> Counters:
    total = Counters()
    ends = time.monotonic() + minutes * 60
    async with a_ground(nursery, folder, moods=MOODS) as ground:
        ground.rng = rng
        for pair in _pairs(rng):
            if time.monotonic() >= ends:
                break
            seconds = [_lasts(fault, rng) for fault in pair]
            names = " + ".join(f"{fault.name} ({lasts:.0f} s)" for fault, lasts in zip(pair, seconds, strict=True))
            counters = await strike(ground, pair, seconds, rng)
            total.add(counters)
            say(f"{names}: {counters}")
            for finding in counters.findings:
                say(f"  {finding}")
    return total


async def strike(ground: Ground, faults: Sequence[Fault], seconds: Sequence[float], rng: random.Random) -> Counters:
    """Have shoppers under way, let faults happen at once, wait until things go well again, and audit."""
    shop = Shop(ground.world, rng)
    shopping = asyncio.create_task(shop.shoppers(SHOPPERS))
    await shop.more_answers(ANSWERS_BEFORE)
    await asyncio.gather(*(fault.inject(ground, lasts) for fault, lasts in zip(faults, seconds, strict=True)))
    await shop.more_answers(ANSWERS_AFTER)
    shop.close()
    await shopping
    return await audit(ground.world, shop.attempts)


def _pairs(rng: random.Random) -> Iterator[tuple[Fault, Fault]]:
    """Give pairs without end, in rounds in which every fault comes first in one pair: none is left to chance."""
    while True:
        for one in rng.sample(FAULTS, len(FAULTS)):
            yield one, rng.choice([other for other in FAULTS if _can_pair(one, other)])


def _can_pair(one: Fault, other: Fault) -> bool:
    return one.touches != other.touches and not (one.needs & {other.touches} or other.needs & {one.touches})


def _lasts(fault: Fault, rng: random.Random) -> float:
    if fault.name.endswith("frozen") and rng.random() < FROZEN_LIKELIHOOD:
        return FROZEN_SECONDS
    return rng.uniform(LASTS_MIN_SECONDS, LASTS_MAX_SECONDS)
