"""Places for requests in hand, so that no store and no caller can take all of them."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from services.gateway.domain import Overloaded, Principal, Role, TooManyInHand
from services.gateway.settings import Settings

# Whoever shops waits for one thing at a time, in a tab or two.
TOKEN_ROLES = frozenset({Role.SHOPPER, Role.CUSTOMER})


class Places:
    """Counts requests in hand: in all, by store and environment, and by caller; whoever repeats a key shares its place."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys: Counter[tuple[str, str]] = Counter()
        self._stores: Counter[str] = Counter()
        self._callers: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """How many places are taken."""
        return len(self._keys)

    @contextlib.contextmanager
    def taking(self, principal: Principal, key: str) -> Iterator[None]:
        """Hold a place inside, or share that of the same key; raises Overloaded or TooManyInHand before anything is claimed."""
        place, store = (principal.scope, key), f"{principal.store_id}"
        if place not in self._keys:
            self._refuse_too_much(principal, store)
            self._stores[store] += 1
            self._callers[principal.scope] += 1
        self._keys[place] += 1
        try:
            yield
        finally:
            self._keys[place] -= 1
            if not self._keys[place]:
                del self._keys[place]
                _count_out(self._stores, store)
                _count_out(self._callers, principal.scope)

    def _refuse_too_much(self, principal: Principal, store: str) -> None:
        settings = self._settings
        if self.taken >= settings.requests_in_flight_max:
            raise Overloaded("Too many requests are under way.", {"in_flight": self.taken})
        if self._stores[store] >= settings.requests_in_flight_per_store_max:
            raise TooManyInHand("This store has as many requests under way as one store may.", {"in_flight": self._stores[store]})
        if principal.role in TOKEN_ROLES and self._callers[principal.scope] >= settings.requests_in_flight_per_token_max:
            raise TooManyInHand(
                "This token has as many requests under way as one token may.", {"in_flight": self._callers[principal.scope]}
            )


def _count_out(counted: Counter[str], name: str) -> None:
    counted[name] -= 1
    if not counted[name]:
        del counted[name]
