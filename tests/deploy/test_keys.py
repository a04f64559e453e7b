"""Rotating the keys while everything runs: broken off and gone on with, and nobody who pays notices."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from deploy import keys
from shared.ids import new_id
from shared.vault import KeySource
from tests.world import SANDBOX_KEY, Place, World, a_world


def a_shop(place: Place, folder: Path) -> contextlib.AbstractAsyncContextManager[World]:
    """A shop whose keys lie in files."""
    own = {service: {"vault_keys": "", "vault_keys_file": str(keys.private_file(folder, service))} for service in keys.SERVICES}
    public = {"vault_public_keys": "", "vault_public_keys_file": str(folder / keys.PUBLIC)}
    return a_world(place, gateway=public, payments={**own["payments"], **public}, fulfillment=own["fulfillment"], webhooks=own["webhooks"])


async def versions(place: Place) -> dict[str, dict[int, int]]:
    return {service: await keys.by_key_version(place.database_url, service) for service in keys.SERVICES}


async def given(world: World) -> None:
    """A credential for each service, and an endpoint to sign deliveries for."""
    endpoint = await world.send("POST", "/api/v1/admin/webhook-endpoints", {"url": "https://hooks.example.com/", "enabled": False})
    assert endpoint.status == 200, endpoint
    for provider, body in {
        "sandbox": {"use": "payments", "fields": {"api_key": SANDBOX_KEY}},
        "easypost": {"fields": {"api_key": SANDBOX_KEY}},
        "taxjar": {"fields": {"api_key": SANDBOX_KEY}},
        "stripe": {"use": "webhooks", "fields": {"secret": new_id().hex}},
    }.items():
        answer = await world.send("PUT", f"/api/v1/admin/providers/{provider}/credentials", body)
        assert answer.status == 200, answer


async def signing_secrets(world: World) -> list[list[str]]:
    """The secrets of every endpoint, the oldest endpoint first."""
    endpoints = (await world.send("GET", "/api/v1/admin/webhook-endpoints")).json["endpoints"]
    answers = [await world.send("GET", f"/api/v1/admin/webhook-endpoints/{each['id']}/secrets") for each in endpoints]
    return [answer.json["secrets"] for answer in answers]


async def test_online_resumable_and_unnoticed(own_place: Place, tmp_path: Path) -> None:
    keys.make(tmp_path)
    said: list[str] = []
    async with a_shop(own_place, tmp_path) as world:
        await given(world)
        secrets = await signing_secrets(world)
        paying = asyncio.create_task(_pay_on(world))

        # Broken off as soon as it has begun, which leaves a new key and old seals.
        keys.renew(tmp_path, "payments")
        await keys.rotate(tmp_path, own_place.database_url, say=said.append)
        first = await versions(own_place)
        await given(world)
        await keys.rotate(tmp_path, own_place.database_url, say=said.append)
        second = await versions(own_place)

        paying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await paying
        tried = await world.send("POST", "/api/v1/admin/providers/easypost/credentials/verify", {})
        assert (await signing_secrets(world))[0] == secrets[0]

    assert first["fulfillment"] == {2: 2}
    assert list(first["payments"]) in ([2], [3])
    assert {service: list(counts) for service, counts in second.items()} == {
        service: [max(counts) + 1] for service, counts in first.items()
    }
    assert any("everything is sealed with version" in line for line in said)
    assert tried.json["result"] == "accepted"
    # Of the private keys those in use and the one before are left.
    kept = KeySource(file=str(keys.private_file(tmp_path, "fulfillment"))).private().keys
    assert sorted(kept) == ["2", "3"]


async def _pay_on(world: World) -> None:
    while True:
        payment = await world.a_payment()
        assert (await payment.capture()).status == 201


def test_made_once(tmp_path: Path) -> None:
    assert keys.make(tmp_path)
    before = (tmp_path / keys.PUBLIC).read_bytes()

    assert not keys.make(tmp_path)
    assert (tmp_path / keys.PUBLIC).read_bytes() == before
    assert all(file.stat().st_mode & 0o077 == 0 for file in tmp_path.iterdir())


async def test_says_so_when_nobody_seals_anew(own_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys.make(tmp_path)
    async with a_shop(own_place, tmp_path) as world:
        await given(world)
    monkeypatch.setattr(keys, "STALLED_AFTER_SECONDS", 0.5)

    with pytest.raises(keys.RotationStalled, match="is the service running"):
        await keys.rotate(tmp_path, own_place.database_url, say=lambda _: None)
