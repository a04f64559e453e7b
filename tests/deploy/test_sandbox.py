"""The sandbox keeps its own word: one key, one effect, also while it is slow."""

import asyncio
from collections import Counter

import httpx

from shared.ids import new_id
from tests.world import SANDBOX_KEY, a_sandbox


class TestKey:
    async def test_used_twice_at_once_has_one_effect(self) -> None:
        headers = {"Authorization": f"Bearer {SANDBOX_KEY}", "Idempotency-Key": new_id().hex}
        body = {"amount": 100, "currency": "EUR", "payment_method": "tok_slow"}
        async with a_sandbox() as sandbox, httpx.AsyncClient(base_url=sandbox.base_url, headers=headers) as http:
            answers = await asyncio.gather(*(http.post("/v1/payments", json=body) for _ in range(5)))

        assert Counter(a.status_code for a in answers) == {200: 1, 409: 4}
        assert len(sandbox.books.payments) == 1
