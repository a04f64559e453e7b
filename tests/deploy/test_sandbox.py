"""The sandbox keeps its own word: one key, one effect, also while it is slow."""

import asyncio
from collections import Counter

import httpx

from shared.ids import new_id
from tests.world import SANDBOX_KEY, a_sandbox


class TestIntermediary:
    async def test_answers_for_the_provider_by_the_controls(self) -> None:
        headers = {"Authorization": f"Bearer {SANDBOX_KEY}"}
        meddling = {"rate": 1, "executed": 0, "times": 2, "replies": [{"status": 502, "body": "Bad gateway"}]}
        async with a_sandbox() as sandbox, httpx.AsyncClient(base_url=sandbox.base_url, headers=headers) as http:
            await http.post("/control", json={"intermediary": meddling})
            answers = [await http.post("/v1/payments", json={}) for _ in range(2)]
            told = (await http.post("/control", json={})).json()["intermediary"]
            stood_aside = await http.get("/v1/payments")

        assert [(a.status_code, a.text) for a in answers] == [(502, "Bad gateway")] * 2
        assert told == {"rate": 1.0, "answered": 2}
        assert (stood_aside.status_code, stood_aside.json()["data"]) == (200, [])


class TestKey:
    async def test_used_twice_at_once_has_one_effect(self) -> None:
        headers = {"Authorization": f"Bearer {SANDBOX_KEY}", "Idempotency-Key": new_id().hex}
        body = {"amount": 100, "currency": "EUR", "payment_method": "tok_slow"}
        async with a_sandbox() as sandbox, httpx.AsyncClient(base_url=sandbox.base_url, headers=headers) as http:
            answers = await asyncio.gather(*(http.post("/v1/payments", json=body) for _ in range(5)))

        assert Counter(a.status_code for a in answers) == {200: 1, 409: 4}
        assert len(sandbox.books.payments) == 1
