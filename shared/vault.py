"""Sealing (HPKE, RFC 9180): a public key seals, only the private one opens, and only at the place for which it was sealed."""

import base64
import hmac
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.settings import SettingsRefused

COMMAND_TIMEOUT_SECONDS = 30
FILE_MODE = 0o600
SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
# Says what a text that bears it is: sealed, by which version of the key.
MARK = "sealed"
FINGERPRINT_PURPOSE = b"tender/fingerprint/1"
# 128 bits.
FINGERPRINT_DIGITS = 32


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
        try:
            self._key = X25519PublicKey.from_public_bytes(base64.b64decode(keys.key, validate=True))
        except ValueError:
            raise KeysRefused("a public key is not 32 bytes in base64") from None

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
        private = self._keys[keys.current].private_bytes_raw()
        self._fingerprint_key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=FINGERPRINT_PURPOSE).derive(private)

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

    def fingerprint(self, plain: bytes, *, info: str) -> str:
        """Tell one secret from another without telling it: as hexadecimal, and of use to guess from only with the private key.

        By the present key: after a rotation the same secret has another one.
        """
        return hmac.digest(self._fingerprint_key, info.encode() + b"\0" + plain, "sha256").hex()[:FINGERPRINT_DIGITS]

    @property
    def sealer(self) -> Sealer:
        """Who seals with the present key."""
        return self._sealer


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


# A text sealed with a data key of its sender's, and that key sealed with the receiver's: what is sealed often costs little.
WRAPPED = "wrapped"
DATA_KEY_PLACE = "tender/data-key/1"
DATA_KEY_LASTS_SECONDS = 600.0
DATA_KEYS_KNOWN_MAX = 10_000
NONCE_BYTES = 12


class Wrapper:
    """Seals many small things for one service with a data key that it takes along, and changes now and then."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._since_seconds = -DATA_KEY_LASTS_SECONDS
        self._prefix = ""
        self._cipher: AESGCM | None = None

    def wrap(self, plain: bytes, *, info: str) -> str:
        """Seal something as a text that opens at one place only, which `info` names."""
        if self._cipher is None or time.monotonic() - self._since_seconds >= DATA_KEY_LASTS_SECONDS:
            key, self._since_seconds = AESGCM.generate_key(256), time.monotonic()
            sealed = self._sealer.seal(key, info=DATA_KEY_PLACE)
            self._prefix = f"{WRAPPED}:{sealed.key_version}:{_text(sealed.blob)}:"
            self._cipher = AESGCM(key)
        return self._prefix + _text(_encrypted(self._cipher, plain, info.encode()))


class Unwrapper:
    """Opens what was wrapped for a service; the data keys that were met before are known."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._known: dict[tuple[str, str], AESGCM] = {}

    def unwrap(self, text: str, *, info: str) -> bytes:
        """Open a wrapped text; raises UnknownKey, or BrokenSeal where it does not belong here."""
        mark, version, key, content = (*text.split(":"), "", "", "", "")[:4]
        if mark != WRAPPED or not version.isdigit():
            raise BrokenSeal("this is not a wrapped text")
        try:
            return _decrypted(self._data_key(version, key), base64.b64decode(content, validate=True), info.encode())
        except (InvalidTag, ValueError) as broken:
            raise BrokenSeal(f"a wrapped text does not open as {info}") from broken

    def _data_key(self, version: str, key: str) -> AESGCM:
        known = self._known.get((version, key))
        if known is None:
            known = AESGCM(self._vault.open(Sealed(int(version), base64.b64decode(key, validate=True)), info=DATA_KEY_PLACE))
            if len(self._known) >= DATA_KEYS_KNOWN_MAX:
                self._known.clear()
            self._known[version, key] = known
        return known


class Chest:
    """Keeps what only whoever has the same secret may read: an answer at rest, say."""

    def __init__(self, secret: str, *, purpose: str) -> None:
        self._cipher = AESGCM(HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret.encode()))

    def lock(self, plain: bytes, *, about: bytes) -> bytes:
        """Encrypt something, bound to what it is about."""
        return _encrypted(self._cipher, plain, about)

    def unlock(self, locked: bytes, *, about: bytes) -> bytes:
        """Decrypt it; raises BrokenSeal when the secret is another one, or it was about something else."""
        try:
            return _decrypted(self._cipher, locked, about)
        except (InvalidTag, ValueError) as broken:
            raise BrokenSeal("what is locked does not open with this secret") from broken


def _encrypted(cipher: AESGCM, plain: bytes, about: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, about)


def _decrypted(cipher: AESGCM, raw: bytes, about: bytes) -> bytes:
    return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], about)


def payment_method_place(store_id: object, environment: str, order_id: object) -> str:
    """Name the one place at which a payment method's wrapped token opens."""
    return f"tender/payment-method/1|{store_id}|{environment}|{order_id}"


def personal_place(store_id: object, environment: str, order_id: object) -> str:
    """Name the one place at which an order's wrapped personal data opens."""
    return f"tender/personal/1|{store_id}|{environment}|{order_id}"


def endpoint_place(store_id: object, environment: str, endpoint_id: object) -> str:
    """Name the one place at which the wrapped URL of a merchant's webhook endpoint opens."""
    return f"tender/webhook-endpoint/1|{store_id}|{environment}|{endpoint_id}"


class KeySource(msgspec.Struct, frozen=True, kw_only=True):
    """Where key material comes from: a file, the text itself (an environment variable), or a command (a KMS's, say) that prints it."""

    file: str = ""
    text: str = ""
    command: str = ""
    # The setting that holds the text; those of the file and the command are named after it.
    variable: str = "VAULT_KEYS"

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
        except OSError as failed:
            raise KeysRefused(f"{failed.filename} cannot be read: {failed.strerror}") from None
        except (subprocess.SubprocessError, ValueError) as failed:
            # Neither the command nor what it printed is shown: there may be a key in it.
            raise KeysRefused(f"the command failed: {type(failed).__name__}") from None
        return self.text.encode()

    def private(self) -> PrivateKeys:
        """Read a service's own keys; raises KeysRefused."""
        return _decoded(self.read(), PrivateKeys)

    def public(self) -> Mapping[str, PublicKeys]:
        """Read the public keys of services by their names; raises KeysRefused."""
        return _decoded(self.read(), dict[str, PublicKeys])

    def problems(self, read: "Callable[[KeySource], PrivateKeys | Mapping[str, PublicKeys]]", *, sandbox_only: bool) -> Iterator[str]:
        """Say what is wrong with the keys, by the setting's variable; without any, only the sandbox environment may be served."""
        if self.given:
            named = f"{self.variable}_FILE" if self.file else f"{self.variable}_COMMAND" if self.command else self.variable
            try:
                keys = read(self)
                _ = Vault(keys) if isinstance(keys, PrivateKeys) else [Sealer(each) for each in keys.values()]
            except KeysRefused as refused:
                yield f"{named}: {refused}"
        elif not sandbox_only:
            yield (
                f"{self.variable}_FILE: no key material; set {self.variable}_FILE, {self.variable} or {self.variable}_COMMAND"
                " (./tender keys make writes a file), or SANDBOX_ONLY=true to serve nothing but the sandbox environment"
            )

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
