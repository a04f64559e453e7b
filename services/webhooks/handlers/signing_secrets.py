"""Signing secrets of merchants' endpoints: sealed in the row of their endpoint, opened to sign a delivery or when an admin reads them."""

import base64
import logging
import secrets
from collections.abc import Sequence
from uuid import UUID

import msgspec

from services.webhooks.providers.standard import SECRET_PREFIX
from services.webhooks.store import merchants
from services.webhooks.store.merchants import SealedSecrets
from shared import telemetry
from shared.credentials import NoVault, Wallet
from shared.messages import Envelope
from shared.vault import BrokenSeal, UnknownKey, as_text, of_text

logger = logging.getLogger(__name__)

SECRET_BYTES = 32
# Opening a seal costs more than signing does, and every delivery needs it.
OPENED_SECRETS_MAX = 10_000
RESEAL_EVERY_SECONDS = 2.0


class SigningSecretClosed(Exception):
    """A signing secret does not open: its key is not here, perhaps not yet, or it was sealed for another endpoint."""


class SecretOwner(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoint in whose row alone a secret opens."""

    store_id: UUID
    environment: str
    endpoint_id: UUID

    @property
    def info(self) -> str:
        """The text that the seal is bound to."""
        return f"tender/signing-secret/1|{self.store_id}|{self.environment}|{self.endpoint_id}"


def owner_of(envelope: Envelope, endpoint_id: UUID) -> SecretOwner:
    """Name the owner of a secret by the store that a message comes from."""
    return SecretOwner(store_id=envelope.store_id, environment=envelope.environment.value, endpoint_id=endpoint_id)


def new_secret() -> str:
    """Make a secret as Standard Webhooks writes it, from 32 random bytes."""
    return f"{SECRET_PREFIX}{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


class SigningSecrets:
    """Seals and opens the signing secrets of endpoints with the keys of the service; refuses where there are none."""

    def __init__(self, wallet: Wallet) -> None:
        self._wallet = wallet
        self._opened: dict[tuple[str, SecretOwner], str] = {}

    def seal(self, plain: Sequence[str], owner: SecretOwner) -> SealedSecrets:
        """Seal all secrets of an endpoint with the present key."""
        vault = self._wallet.vault
        sealed = [as_text(vault.seal(each.encode(), info=owner.info)) for each in plain]
        return SealedSecrets(secrets=sealed, key_version=vault.current)

    def open(self, text: str, owner: SecretOwner) -> str:
        """Open one secret; raises SigningSecretClosed."""
        sealed = of_text(text)
        if sealed is None:
            return text  # Written before secrets were sealed.
        plain = self._opened.get((text, owner))
        if plain is None:
            try:
                plain = self._wallet.vault.open(sealed, info=owner.info).decode()
            except (UnknownKey, BrokenSeal, NoVault) as closed:
                raise SigningSecretClosed(f"the signing secret does not open: {closed}") from closed
            if len(self._opened) >= OPENED_SECRETS_MAX:
                self._opened.clear()
            self._opened[text, owner] = plain
        return plain

    async def reseal(self) -> None:
        """Seal with the present key what is sealed with older ones, or not at all; what does not open is left, and logged."""
        try:
            current = self._wallet.vault.current
        except NoVault:
            return
        after = UUID(int=0)
        while rows := await merchants.list_sealed_before(self._wallet.pool, current, after):
            for row in rows:
                owner = SecretOwner(store_id=row.store_id, environment=row.environment, endpoint_id=row.id)
                try:
                    sealed = self.seal([self.open(each, owner) for each in row.secrets], owner)
                except SigningSecretClosed as closed:
                    telemetry.say(
                        logger, logging.ERROR, "a signing secret is not sealed again", {"endpoint_id": str(row.id), "reason": str(closed)}
                    )
                    continue
                await merchants.update_secrets(self._wallet.pool, row, sealed)
            after = rows[-1].id
