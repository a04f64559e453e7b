"""Seals: they open where they belong and nowhere else; sealing, opening and rotating in any order loses and mixes nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy import keys
from shared import credentials
from shared.contracts.credentials import TOLD, Use, place_of
from shared.credentials import Credential, Wallet
from shared.database import Pool, connected, open_pool
from shared.ids import new_id
from shared.messages import Envelope, Environment, type_of
from shared.vault import BrokenSeal, KeySource, PrivateKeys, Sealed, Sealer, UnknownKey, Vault, as_text, new_private_key, of_text, public_of
from shared.vitals import Pulse
from shared.work import Desk, Work
from tests.world import Place, payments_settings

PROVIDERS = ("sandbox", "stripe")
OPERATIONS = ("put", "rotate", "reseal", "refresh", "retire")


def some_keys(*versions: int) -> PrivateKeys:
    return PrivateKeys(current=versions[-1], keys={str(version): new_private_key() for version in versions})


class TestASeal:
    def test_opens_by_the_private_key_alone_at_its_place_alone(self) -> None:
        ours = some_keys(1)
        sealed = Sealer(public_of(ours)).seal(b"secret", info="here")

        assert Vault(ours).open(sealed, info="here") == b"secret"
        with pytest.raises(BrokenSeal):
            Vault(ours).open(sealed, info="there")
        with pytest.raises(BrokenSeal):
            Vault(some_keys(1)).open(sealed, info="here")
        with pytest.raises(UnknownKey):
            Vault(some_keys(2)).open(sealed, info="here")

    def test_looks_different_each_time_and_hides_what_is_in_it(self) -> None:
        sealer = Sealer(public_of(some_keys(1)))
        first, second = sealer.seal(b"secret", info="here"), sealer.seal(b"secret", info="here")

        assert first.blob != second.blob
        assert b"secret" not in first.blob

    @pytest.mark.parametrize("at", [0, 40, -1])
    def test_that_was_altered_does_not_open(self, at: int) -> None:
        ours = some_keys(1)
        sealed = Sealer(public_of(ours)).seal(b"secret", info="here")
        altered = bytearray(sealed.blob)
        altered[at] ^= 1

        with pytest.raises(BrokenSeal):
            Vault(ours).open(Sealed(1, bytes(altered)), info="here")

    def test_travels_as_text(self) -> None:
        sealed = Sealer(public_of(some_keys(7))).seal(b"secret", info="here")

        assert of_text(as_text(sealed)) == sealed
        assert [of_text(text) for text in ("", "tok_success", "sealed:x:y", "sealed:1:*", "sealed:1")] == [None] * 5


class _Ground:
    """Two processes' wallets on one table, and the key files that they read."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.folder = folder
        self.store_id = new_id()
        source = KeySource(file=str(keys.private_file(folder, "payments")))
        self.wallets = [Wallet(pool, source, [Use.PAYMENTS]) for _ in range(2)]
        self._desk = _desk(pool)
        # What must be found: by provider, the secrets that are active, the newest first.
        self.expected: dict[str, list[str]] = {provider: [] for provider in PROVIDERS}

    async def put(self, provider: str, wallet: Wallet) -> None:
        secret = f"sk_test_{new_id().hex}"
        place = place_of(self.store_id, "sandbox", provider, "payments")
        sealed = Sealer(keys.public_keys(self.folder)["payments"]).seal(msgspec.json.encode({"api_key": secret}), info=place)
        command = TOLD["payments"].put(provider=provider, use=Use.PAYMENTS, sealed=as_text(sealed))
        await credentials.put(self._work(command), command, SimpleNamespace(wallet=wallet))
        self.expected[provider] = [secret, *self.expected[provider][:1]]

    async def retire(self, provider: str, wallet: Wallet) -> None:
        if self.expected[provider]:
            command = TOLD["payments"].retire(provider=provider, use=Use.PAYMENTS)
            await credentials.retire(self._work(command), command, SimpleNamespace(wallet=wallet))
            self.expected[provider] = []

    def _work(self, command: Any) -> Work:
        envelope = Envelope(
            id=new_id(), store_id=self.store_id, environment=Environment.SANDBOX, source="tests", actor="tests", correlation_id="tests"
        )
        return Work(self._desk, envelope, kind=type_of(type(command)), digest=b"")

    def seen(self, wallet: Wallet, provider: str) -> list[str]:
        found: list[Credential] = wallet.active(self.store_id, Environment.SANDBOX, provider, Use.PAYMENTS)
        return [credential.fields["api_key"] for credential in found]


def _desk(pool: Pool) -> Desk:
    told = SimpleNamespace(head_start_seconds=1.0, send_soon=lambda _: None)
    return Desk(pool=pool, publisher=SimpleNamespace(), relay=told, pulse=Pulse("tests"))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
async def pool(place: Place) -> AsyncIterator[Pool]:
    opened = await open_pool(payments_settings(place, "").database_url, connections=6)
    yield opened
    await opened.close()


steps = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.sampled_from(PROVIDERS), st.integers(0, 1)), min_size=4, max_size=16)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=steps)
async def test_in_any_order_with_concurrent_readers_nothing_is_lost_or_mixed(
    pool: Pool, tmp_path_factory: pytest.TempPathFactory, story: list[tuple[str, str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("keys")
    keys.make(folder)
    async with connected(pool) as db:
        await db.execute("DELETE FROM provider_credentials")
    ground = _Ground(pool, folder)
    reading = [asyncio.create_task(_read_on(ground, wallet)) for wallet in ground.wallets]

    for operation, provider, which in story:
        wallet = ground.wallets[which]
        # What a process does every second; it may come at any time.
        await wallet.refresh()
        match operation:
            case "put":
                await ground.put(provider, wallet)
            case "retire":
                await ground.retire(provider, wallet)
            case "rotate":
                await _until_sealed_anew(ground)
                keys.renew(folder, "payments")
            case "reseal":
                await wallet.reseal()

    for wallet in ground.wallets:
        await wallet.refresh()
        assert {provider: ground.seen(wallet, provider) for provider in PROVIDERS} == ground.expected
    await _until_sealed_anew(ground)
    fresh = Wallet(pool, KeySource(file=str(keys.private_file(folder, "payments"))), [Use.PAYMENTS])
    await fresh.refresh()
    assert {provider: ground.seen(fresh, provider) for provider in PROVIDERS} == ground.expected
    for task in reading:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled(), task.exception()


async def _read_on(ground: _Ground, wallet: Wallet) -> None:
    """Whoever reads meanwhile sees secrets of its own provider, never another's and never one that was not given."""
    given_ever: dict[str, set[str]] = {provider: set() for provider in PROVIDERS}
    while True:
        await wallet.refresh()
        for provider in PROVIDERS:
            given_ever[provider] |= set(ground.expected[provider])
        await asyncio.sleep(0)
        for provider in PROVIDERS:
            given_ever[provider] |= set(ground.expected[provider])
            other = given_ever[PROVIDERS[1 - PROVIDERS.index(provider)]]
            assert not set(ground.seen(wallet, provider)) & other


async def _until_sealed_anew(ground: _Ground) -> None:
    for wallet in ground.wallets:
        await wallet.refresh()
    # Older than the one before nothing may be when the next key comes.
    await ground.wallets[0].reseal()
    async with connected(ground.wallets[0].pool) as db:
        versions = await db.fetch("SELECT DISTINCT key_version FROM provider_credentials")
    assert {row["key_version"] for row in versions} <= {ground.wallets[0].vault.current}


def test_fingerprints_tell_secrets_apart_with_the_key_alone() -> None:
    """L14, row 125: without the private key no guess at a weak secret can be compared with them."""
    first, second = (Vault(PrivateKeys(current=1, keys={"1": new_private_key()})) for _ in range(2))

    shown = first.fingerprint(b"1234", info="a")

    assert shown == first.fingerprint(b"1234", info="a")
    assert (
        len({shown, first.fingerprint(b"1234", info="b"), first.fingerprint(b"1235", info="a"), second.fingerprint(b"1234", info="a")}) == 4
    )
    assert len(bytes.fromhex(shown)) == 16
