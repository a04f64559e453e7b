"""Seals: they open where they belong and nowhere else; sealing, opening and rotating in any order loses and mixes nothing."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy import keys
from services.payments.domain.intents import Operation
from services.payments.handlers.asking import Payments
from services.payments.providers import Prepared
from services.payments.store.questions import Question
from services.webhooks.handlers.signing_secrets import SecretOwner
from shared import credentials
from shared.contracts.credentials import TOLD, Use, place_of
from shared.credentials import Credential, Wallet
from shared.database import Pool, connected, open_pool
from shared.ids import new_id
from shared.messages import Envelope, Environment, type_of
from shared.vault import (
    DATA_KEY_PLACE,
    WRAPPED,
    BrokenSeal,
    Chest,
    KeySource,
    PrivateKeys,
    Sealed,
    Sealer,
    UnknownKey,
    Unwrapper,
    Vault,
    Wrapper,
    as_text,
    endpoint_place,
    new_private_key,
    of_text,
    payment_method_place,
    personal_place,
    public_of,
)
from shared.vitals import Pulse
from shared.work import Desk, Work
from tests.locks import rows_held, waiting
from tests.world import Place, payments_settings, vault_keys

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


class TestAWrappedText:
    """Of a context that is not bound: what was wrapped for one place would open at every other."""

    def test_opens_by_the_private_key_alone_at_its_place_alone(self) -> None:
        ours = some_keys(1)
        wrapper, unwrapper = Wrapper(Sealer(public_of(ours))), Unwrapper(Vault(ours))
        here, there = wrapper.wrap(b"secret", info="here"), wrapper.wrap(b"another", info="there")

        assert (unwrapper.unwrap(here, info="here"), unwrapper.unwrap(there, info="there")) == (b"secret", b"another")
        for text, info in ((here, "there"), (there, "here"), (here, ""), (here, "her")):
            with pytest.raises(BrokenSeal):
                unwrapper.unwrap(text, info=info)
        with pytest.raises(BrokenSeal):
            Unwrapper(Vault(some_keys(1))).unwrap(here, info="here")
        with pytest.raises(UnknownKey):
            Unwrapper(Vault(some_keys(2))).unwrap(here, info="here")

    def test_looks_different_each_time_and_hides_what_is_in_it(self) -> None:
        wrapper = Wrapper(Sealer(public_of(some_keys(1))))
        first, second = wrapper.wrap(b"secret", info="here"), wrapper.wrap(b"secret", info="here")

        assert first.split(":")[:3] == second.split(":")[:3]
        assert first.split(":")[3] != second.split(":")[3]
        assert b"secret" not in base64.b64decode(first.split(":")[3])

    def test_that_was_altered_does_not_open(self) -> None:
        ours = some_keys(1)
        *head, content = Wrapper(Sealer(public_of(ours))).wrap(b"secret", info="here").split(":")
        raw = bytearray(base64.b64decode(content))
        raw[-1] ^= 1

        for altered in (base64.b64encode(raw).decode(), "", "*"):
            with pytest.raises(BrokenSeal):
                Unwrapper(Vault(ours)).unwrap(":".join((*head, altered)), info="here")

    def test_takes_no_seal_of_another_place_for_its_data_key(self) -> None:
        ours, key, nonce = some_keys(1), bytes(32), bytes(12)
        content = base64.b64encode(nonce + AESGCM(key).encrypt(nonce, b"secret", b"here")).decode()

        for place, opens in ((DATA_KEY_PLACE, True), ("tender/credential/1|store|sandbox|stripe|payments", False)):
            sealed = base64.b64encode(Sealer(public_of(ours)).seal(key, info=place).blob).decode()
            text = f"{WRAPPED}:1:{sealed}:{content}"
            with nullcontext() if opens else pytest.raises(BrokenSeal):
                assert Unwrapper(Vault(ours)).unwrap(text, info="here") == b"secret"


class TestAChest:
    def test_opens_by_its_secret_and_purpose_for_its_subject_alone(self) -> None:
        """Of answers at rest that are not bound to their operation: one caller's could be put into another's row."""
        chest = Chest("secret", purpose="answers")
        locked = chest.lock(b"answer", about=b"one")

        assert Chest("secret", purpose="answers").unlock(locked, about=b"one") == b"answer"
        for other, about in (
            (chest, b"two"),
            (chest, b""),
            (Chest("another", purpose="answers"), b"one"),
            (Chest("secret", purpose="questions"), b"one"),
        ):
            with pytest.raises(BrokenSeal):
                other.unlock(locked, about=about)
        assert chest.lock(b"answer", about=b"one") != locked
        assert b"answer" not in locked


STORE, THING = new_id(), new_id()
# Every place at which something opens, by the facts that name it; all services take the texts from these.
PLACES: dict[str, tuple[Callable[..., str], tuple[object, ...]]] = {
    "payment method": (payment_method_place, (STORE, "sandbox", THING)),
    "personal": (personal_place, (STORE, "sandbox", THING)),
    "webhook endpoint": (endpoint_place, (STORE, "sandbox", THING)),
    "credential": (place_of, (STORE, "sandbox", "stripe", "payments")),
    "signing secret": (
        lambda store_id, environment, endpoint_id: SecretOwner(store_id=store_id, environment=environment, endpoint_id=endpoint_id).info,
        (STORE, "sandbox", THING),
    ),
}


class TestPlaces:
    @pytest.mark.parametrize("what", PLACES)
    def test_name_every_fact(self, what: str) -> None:
        """Of a place without its store or environment: both sides leave it out, so that only a stranger would notice."""
        name, facts = PLACES[what]
        texts = [name(*facts[:n], f"other-{fact}", *facts[n + 1 :]) for n, fact in enumerate(facts)]

        assert len({name(*facts), *texts}) == len(facts) + 1

    def test_are_told_apart_by_what_lies_there(self) -> None:
        assert len({name(*facts) for name, facts in PLACES.values()}) == len(PLACES)


async def a_wallet(pool: Pool) -> Wallet:
    wallet = Wallet(pool, KeySource(text=vault_keys("payments")), [Use.PAYMENTS])
    await wallet.refresh()
    return wallet


class TestInRows:
    """What the rows of a service hold wrapped opens in its own row alone."""

    async def test_a_kept_reply_opens_for_its_command_alone(self, pool: Pool) -> None:
        desk = _desk(pool)
        desk.seal = await a_wallet(pool)
        envelope = Envelope(
            id=new_id(), store_id=new_id(), environment=Environment.SANDBOX, source="tests", actor="tests", correlation_id="tests"
        )

        kept = desk.sealed(envelope, b"reply")

        assert b"reply" not in kept
        assert desk.unsealed(envelope, kept) == b"reply"
        for change in ({"id": new_id()}, {"store_id": new_id()}, {"environment": Environment.PRODUCTION}, {"source": "gateway"}):
            with pytest.raises(BrokenSeal):
                desk.unsealed(msgspec.structs.replace(envelope, **change), kept)

    async def test_an_exact_call_opens_for_its_transaction_alone(self, pool: Pool) -> None:
        """Another row's call would be repeated in its place, with another amount or another customer's token."""
        nothing: Any = SimpleNamespace()
        context = Payments(desk=nothing, settings=nothing, wallet=await a_wallet(pool), providers=nothing, pricing=nothing)
        prepared, ours = Prepared(operation="authorize", method="POST", path="/v1/payments", body=b"tok_success"), new_id()

        request = context.pinned(ours, prepared)

        assert b"tok_success" not in request
        assert context.with_call(_question(ours, request)).prepared == prepared
        assert context.with_call(_question(new_id(), request)).prepared is None


def _question(transaction_id: UUID, request: bytes) -> Question:
    envelope = Envelope(
        id=new_id(), store_id=new_id(), environment=Environment.SANDBOX, source="tests", actor="tests", correlation_id="tests"
    )
    return Question(
        transaction_id=transaction_id,
        intent_id=new_id(),
        order_id=new_id(),
        operation=Operation.AUTHORIZE,
        provider="sandbox",
        provider_account="sandbox:default",
        provider_payment_id=None,
        provider_txn_id=None,
        prepared=None,
        request=request,
        idempotency_key="tests",
        lease_token=1,
        looks=0,
        age_seconds=0,
        awaiting_customer=False,
        intent_abandoned=False,
        envelope=envelope,
        command_type="tests",
        command_digest=b"",
    )


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


class TestAtOnce:
    """Two processes at one credential: held between their reading and their writing, and let go."""

    async def test_of_two_that_are_put_one_is_decided_again(self, place: Place, pool: Pool, tmp_path: Path) -> None:
        keys.make(tmp_path)
        # Each with a desk of its own: one process writes what is of one shape one after the other.
        grounds = [_Ground(pool, tmp_path) for _ in PROVIDERS]
        for ground in grounds:
            await ground.wallets[0].refresh()

        async with rows_held(place, "payments.credentials_revision"):
            putting = [
                asyncio.create_task(ground.put(provider, ground.wallets[0])) for ground, provider in zip(grounds, PROVIDERS, strict=True)
            ]
            await waiting(place, 2)
        results = await asyncio.gather(*putting, return_exceptions=True)

        assert sorted(type(each).__name__ for each in results) == ["Contended", "NoneType"]

    async def test_what_was_sealed_again_meanwhile_stays(self, place: Place, pool: Pool, tmp_path: Path) -> None:
        keys.make(tmp_path)
        ground, wallet = _Ground(pool, tmp_path), Wallet(pool, KeySource(file=str(keys.private_file(tmp_path, "payments"))), [Use.PAYMENTS])
        await wallet.refresh()
        async with connected(pool) as db:
            await db.execute("DELETE FROM provider_credentials")
        await ground.put("stripe", wallet)
        keys.renew(tmp_path, "payments")
        await wallet.refresh()

        async with rows_held(place, "payments.provider_credentials") as others:
            sealing = asyncio.create_task(wallet.reseal())
            await waiting(place, 1)
            await others.execute("UPDATE payments.provider_credentials SET key_version = 7, sealed = 'theirs'")
        await sealing

        async with connected(pool) as db:
            rows = await db.fetch("DELETE FROM provider_credentials RETURNING key_version, sealed")
        assert [tuple(row) for row in rows] == [(7, b"theirs")]


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
