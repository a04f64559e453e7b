"""What must not lie about in the clear is sealed here for the service that needs it; the sender itself cannot open it again."""

import logging
import time
from collections.abc import Mapping

from shared import telemetry
from shared.errors import Outcome, Refusal
from shared.vault import KeySource, KeysRefused, Sealer, Wrapper, as_text

logger = logging.getLogger(__name__)

# A file with newer keys is noticed so soon; until then the older ones seal, which open just as well.
LOOK_EVERY_SECONDS = 1.0


class Sealing:
    """Seals with the keys as they are in their file now."""

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self._changed_at = -1.0
        self._looked_at_seconds = -LOOK_EVERY_SECONDS
        self._sealers: Mapping[str, Sealer] = {}
        self._wrappers: Mapping[str, Wrapper] = {}

    def seal(self, service: str, plain: bytes, *, info: str) -> str:
        """Seal something for a service, as a text; raises NothingToSealWith when there is no key for it."""
        self._refresh()
        sealer = self._sealers.get(service)
        if sealer is None:
            raise NothingToSealWith(f"There is no public key of {service} to seal with.")
        return as_text(sealer.seal(plain, info=info))

    def hide(self, service: str, plain: str, *, info: str) -> str:
        """Wrap something personal for a service; an installation without keys, for the sandbox alone, leaves it as it is.

        Raises NothingToSealWith when there are keys and none is this service's.
        """
        self._refresh()
        if not self._source.given:
            return plain
        wrapper = self._wrappers.get(service)
        if wrapper is None:
            raise NothingToSealWith(f"There is no public key of {service} to seal with.")
        return wrapper.wrap(plain.encode(), info=info)

    def _refresh(self) -> None:
        now_seconds = time.monotonic()
        if now_seconds - self._looked_at_seconds < LOOK_EVERY_SECONDS:
            return
        # Looked at before it is read: what changes in between is read again.
        changed_at = self._source.changed_at()
        if self._source.given and changed_at != self._changed_at:
            try:
                self._sealers = {name: Sealer(keys) for name, keys in self._source.public().items()}
            except KeysRefused as refused:
                # Without any, nothing may pass: it would lie in the clear.
                if not self._sealers:
                    raise
                telemetry.say(logger, logging.WARNING, "newer public keys cannot be used", {"reason": str(refused)})
            else:
                self._wrappers = {name: Wrapper(sealer) for name, sealer in self._sealers.items()}
                self._changed_at = changed_at
        self._looked_at_seconds = now_seconds


class NothingToSealWith(Refusal):
    """The installation has no public key of the service that is meant, so it can keep no secrets."""

    code = "vault-not-configured"
    title = "No key material is configured"
    status = 422
    outcome = Outcome.NOT_ATTEMPTED
