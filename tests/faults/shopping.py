"""Shoppers under way while things break: each goes through a story with patience and writes down what it was told."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import httpx
import msgspec

from shared.ids import new_id
from tests.world import Answer, Payment, World, until

ANSWER_TIMEOUT_SECONDS = 240.0
PAUSE_SECONDS = 0.1
PAUSE_MAX_SECONDS = 2.0

# What the provider does in a story, and how often.
TOKENS = {
    "tok_success": 12,
    "tok_declined_insufficient_funds": 1,
    "tok_slow": 1,
    "tok_500_once": 1,
    "tok_429_once": 1,
    "tok_timeout_once": 1,
    "tok_timeout_after_success": 1,
    "tok_3ds_passed": 1,
    "tok_3ds_timeout": 1,
    "tok_capture_500_once": 1,
    "tok_capture_timeout": 1,
    "tok_capture_slow": 1,
    "tok_void_timeout": 1,
    "tok_refund_500_once": 1,
    "tok_refund_timeout": 1,
}


class Attempt(msgspec.Struct, kw_only=True):
    """One operation a shopper wanted, and what came of it."""

    operation: str
    order_id: UUID
    key: str
    sent: int = 0
    answer: Any = None
    surprises: list[str] = []

    @property
    def answered(self) -> Answer | None:
        """The true answer, if one came."""
        found: Answer | None = self.answer
        return found


class Shop:
    """Sends shoppers through their stories until it is closed."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._open = True
        self.attempts: list[Attempt] = []

    def close(self) -> None:
        """Let nobody begin another story."""
        self._open = False

    @property
    def answers(self) -> int:
        """How many operations have their true answer."""
        return sum(1 for attempt in self.attempts if attempt.answer is not None)

    async def more_answers(self, count: int, *, timeout_seconds: float = ANSWER_TIMEOUT_SECONDS) -> None:
        """Wait for so many more true answers."""
        wanted = self.answers + count

        async def there() -> bool:
            return self.answers >= wanted

        await until(there, timeout_seconds=timeout_seconds)

    async def shoppers(self, count: int) -> None:
        """Have so many shoppers go through stories, one after the other, until the shop closes."""
        await asyncio.gather(*(self._shopper() for _ in range(count)))

    async def _shopper(self) -> None:
        while self._open:
            await self.story()

    async def story(self) -> None:
        """Go through one order: push, quote, authorize, and then whatever chance brings."""
        world, rng, order_id = self._world, self._rng, new_id()
        token = rng.choices(list(TOKENS), list(TOKENS.values()))[0]
        price = rng.randrange(1_000, 20_000)
        content = {
            "currency": "EUR",
            "items": [{"product_variant_id": str(new_id()), "name": "Mug", "quantity": 1, "unit_price": price}],
            "shipping_amount": 0,
            "tax_lines": [],
        }
        pushed = await self._do("order", order_id, lambda **how: world.put_order(order_id, content, **how))
        if pushed is None:
            return
        quoted = await self._do("quote", order_id, lambda **how: world.quote(order_id, **how))
        if quoted is None:
            return
        snapshot_id = quoted.json["snapshot_id"]
        paid = await self._do("authorize", order_id, lambda **how: world.authorize(order_id, snapshot_id, token, **how))
        if paid is None:
            return
        payment = Payment(world, order_id, UUID(paid.json["intent"]["id"]))
        waits = paid.json["intent"]["status"] == "requires_action"
        if waits and await self._do("confirm", order_id, lambda **how: payment.confirm(**how)) is None:
            return
        await self._afterwards(payment, price)

    async def _afterwards(self, payment: Payment, price: int) -> None:
        rng, order_id = self._rng, payment.order_id
        if rng.random() < 0.2:
            await self._do("void", order_id, lambda **how: payment.void(**how))
            return
        first = rng.choice([price, price // 2])
        if await self._do("capture", order_id, lambda **how: payment.capture(first, **how)) is None:
            return
        if first < price and rng.random() < 0.5:
            await self._do("void", order_id, lambda **how: payment.void(**how))
        elif first < price:
            # Two at once: one waits for the other or is told to come back.
            rest = price - first
            await asyncio.gather(
                self._do("capture", order_id, lambda **how: payment.capture(rest // 2, **how)),
                self._do("capture", order_id, lambda **how: payment.capture(rest - rest // 2, **how)),
            )
        for _ in range(rng.choice([0, 1, 2])):
            amount = rng.randrange(1, first // 2)
            await self._do("refund", order_id, lambda amount=amount, **how: payment.refund(amount, **how))

    async def _do(self, operation: str, order_id: UUID, send: Callable[..., Awaitable[Answer]]) -> Answer | None:
        """Ask with one key until there is a true answer; returns it when it is a success."""
        attempt = Attempt(operation=operation, order_id=order_id, key=new_id().hex, surprises=[])
        self.attempts.append(attempt)
        loop = asyncio.get_running_loop()
        ends, pause = loop.time() + ANSWER_TIMEOUT_SECONDS, PAUSE_SECONDS
        while loop.time() < ends:
            attempt.sent += 1
            try:
                answer = await send(key=attempt.key, headers={"Prefer": "wait=5"})
            except httpx.HTTPError:
                answer = None
            except AssertionError as undocumented:
                attempt.surprises.append(str(undocumented))
                return None
            if answer is not None and not _again(answer):
                attempt.answer = answer
                return answer if answer.status < 400 else None
            if answer is not None and answer.status == 500:
                attempt.surprises.append(f"500 {answer.content[:200]!r}")
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_MAX_SECONDS)
        return None


def _again(answer: Answer) -> bool:
    return answer.status in (202, 429, 500, 503) or (answer.status == 409 and answer.json.get("retry") == "after")
