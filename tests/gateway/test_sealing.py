"""Sealing at the gateway: newer keys are taken up, broken ones change nothing, and without any nothing passes in the clear."""

import os
from pathlib import Path

import pytest

from shared import sealing
from shared.sealing import Sealing
from shared.vault import KeySource, KeysRefused, PrivateKeys, Unwrapper, Vault, new_private_key, public_of, write

PLACE = "tender/payment-method/1|store|sandbox|order"


@pytest.fixture(autouse=True)
def _looking_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "LOOK_EVERY_SECONDS", 0.0)


def keys_of(version: int) -> PrivateKeys:
    return PrivateKeys(current=version, keys={str(version): new_private_key()})


def put(file: Path, keys: PrivateKeys | None, *, at_seconds: int) -> None:
    """Write a file as of a time: clocks of file systems tick slower than this test."""
    if keys is None:
        file.write_text("not keys")
    else:
        write(file, {"payments": public_of(keys)})
    os.utime(file, (at_seconds, at_seconds))


def opened(keys: PrivateKeys, text: str) -> bytes:
    return Unwrapper(Vault(keys)).unwrap(text, info=PLACE)


def test_newer_keys_are_taken_up_and_broken_ones_change_nothing(tmp_path: Path) -> None:
    file, first, second = tmp_path / "public.json", keys_of(1), keys_of(2)
    put(file, first, at_seconds=1)
    hiding = Sealing(KeySource(file=str(file)))
    by_first = hiding.hide("payments", "tok_1", info=PLACE)

    put(file, None, at_seconds=2)
    still_by_first = hiding.hide("payments", "tok_2", info=PLACE)
    put(file, second, at_seconds=3)
    by_second = hiding.hide("payments", "tok_3", info=PLACE)

    assert [opened(first, by_first), opened(first, still_by_first), opened(second, by_second)] == [b"tok_1", b"tok_2", b"tok_3"]


def test_keys_that_cannot_be_read_let_nothing_pass_in_the_clear(tmp_path: Path) -> None:
    file = tmp_path / "public.json"
    put(file, None, at_seconds=1)
    hiding = Sealing(KeySource(file=str(file)))

    for _ in range(2):
        with pytest.raises(KeysRefused):
            hiding.hide("payments", "tok_1", info=PLACE)
