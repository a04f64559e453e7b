"""Sealing (HPKE, RFC 9180): a public key seals, only the private one opens, and only at the place for which it was sealed."""

import base64
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from shared.settings import SettingsRefused

COMMAND_TIMEOUT_SECONDS = 30
FILE_MODE = 0o600
SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
# Says what a text that bears it is: sealed, by which version of the key.
MARK = "sealed"


K = TypeVar("K")


class KeysRefused(SettingsRefused):
    """Key material is missing or cannot be read; the text says which."""


class UnknownKey(Exception):
    """A seal names a version of the key that is not here, perhaps not yet."""


class BrokenSeal(Exception):
    """A seal does not open here: it was made for another place, or is no seal."""


class Sealed(msgspec.Struct, frozen=True):
    """Something sealed, and by which version of the key."""

    key_version: int
    blob: bytes


class PrivateKeys(msgspec.Struct, frozen=True, kw_only=True):
    """A service's key pair in all its versions that are still in use; the private halves as base64."""

    current: int
    keys: dict[str, str]


class PublicKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The public halves of one service's present key, for whoever seals for it."""

    current: int
    key: str


def new_private_key() -> str:
    """Make a private key."""
    return _text(X25519PrivateKey.generate().private_bytes_raw())


def public_of(keys: PrivateKeys) -> PublicKeys:
    """Give the half of the present key that others may have."""
    return PublicKeys(current=keys.current, key=_text(_private(keys.keys[str(keys.current)]).public_key().public_bytes_raw()))


class Sealer:
    """Seals for one service."""

    def __init__(self, keys: PublicKeys) -> None:
        self._version = keys.current
        self._key = X25519PublicKey.from_public_bytes(base64.b64decode(keys.key))

    def seal(self, plain: bytes, *, info: str) -> Sealed:
        """Seal something so that it opens at one place only, which `info` names."""
        return Sealed(self._version, SUITE.encrypt(plain, self._key, info=info.encode()))


class Vault:
    """Opens what was sealed for a service, whichever of its keys it was sealed with, and seals with the present one."""

    def __init__(self, keys: PrivateKeys) -> None:
        self.current = keys.current
        self._keys = {int(version): _private(key) for version, key in keys.keys.items()}
        if keys.current not in self._keys:
            raise KeysRefused(f"the present key, version {keys.current}, is not among the keys")
        self._sealer = Sealer(public_of(keys))

    def open(self, sealed: Sealed, *, info: str) -> bytes:
        """Open a seal; raises UnknownKey for a version that is not here, BrokenSeal where it does not belong here."""
        key = self._keys.get(sealed.key_version)
        if key is None:
            raise UnknownKey(f"version {sealed.key_version} of the key is not here; there are {sorted(self._keys)}")
        try:
            return SUITE.decrypt(sealed.blob, key, info=info.encode())
        except (InvalidTag, ValueError) as broken:
            raise BrokenSeal(f"a seal by version {sealed.key_version} does not open as {info}") from broken

    def seal(self, plain: bytes, *, info: str) -> Sealed:
        """Seal with the present key."""
        return self._sealer.seal(plain, info=info)


def as_text(sealed: Sealed) -> str:
    """Write a seal so that it travels in a message's text."""
    return f"{MARK}:{sealed.key_version}:{_text(sealed.blob)}"


def of_text(text: str) -> Sealed | None:
    """Read a seal from a text; nothing when it is none."""
    mark, _, rest = text.partition(":")
    version, _, blob = rest.partition(":")
    if mark != MARK or not version.isdigit() or not blob:
        return None
    try:
        return Sealed(int(version), base64.b64decode(blob, validate=True))
    except ValueError:
        return None


class KeySource(msgspec.Struct, frozen=True, kw_only=True):
    """Where key material comes from: a file, the text itself (an environment variable), or a command (a KMS's, say) that prints it."""

    file: str = ""
    text: str = ""
    command: str = ""

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return bool(self.file or self.text or self.command)

    def read(self) -> bytes:
        """Fetch it; raises KeysRefused."""
        try:
            if self.file:
                return Path(self.file).read_bytes()
            if self.command:
                done = subprocess.run(shlex.split(self.command), capture_output=True, check=True, timeout=COMMAND_TIMEOUT_SECONDS)
                return done.stdout
        except (OSError, subprocess.SubprocessError) as failed:
            raise KeysRefused(f"key material cannot be fetched: {type(failed).__name__}") from None
        return self.text.encode()

    def private(self) -> PrivateKeys:
        """Read a service's own keys; raises KeysRefused."""
        return _decoded(self.read(), PrivateKeys)

    def public(self) -> Mapping[str, PublicKeys]:
        """Read the public keys of services by their names; raises KeysRefused."""
        return _decoded(self.read(), dict[str, PublicKeys])

    def changed_at(self) -> float:
        """Tell when its file was changed last; always the same for what only a restart changes."""
        try:
            return os.stat(self.file).st_mtime if self.file else 0.0
        except OSError:
            return 0.0


def write(file: Path, keys: PrivateKeys | Mapping[str, PublicKeys]) -> None:
    """Write key material into a file that only its owner reads, as a whole or not at all."""
    whole = file.with_suffix(".new")
    whole.touch(mode=FILE_MODE)
    whole.write_bytes(msgspec.json.format(msgspec.json.encode(keys)))
    whole.replace(file)


def _decoded(raw: bytes, kind: type[K]) -> K:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as unfit:
        # What was read is not shown: it may be a key.
        raise KeysRefused(f"key material cannot be read: {type(unfit).__name__}") from None


def _private(key: str) -> X25519PrivateKey:
    try:
        return X25519PrivateKey.from_private_bytes(base64.b64decode(key, validate=True))
    except ValueError:
        raise KeysRefused("a private key is not 32 bytes in base64") from None


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
