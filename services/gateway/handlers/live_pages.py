"""Shares of the open console pages, so that no store and no key has all of them."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from services.gateway.domain import Principal

# Open pages, each of which is rendered again whenever it changes: in all, of one store, and of one key.
LIVE_PAGES_MAX = 200
LIVE_PAGES_PER_STORE_MAX = 50
LIVE_PAGES_PER_KEY_MAX = 20


class LivePages:
    """Counts open pages by store and by key."""

    def __init__(self) -> None:
        self._stores: Counter[str] = Counter()
        self._keys: Counter[str] = Counter()

    def full(self, principal: Principal) -> bool:
        """Tell whether a caller may open no other page."""
        return (
            self._stores.total() >= LIVE_PAGES_MAX
            or self._stores[str(principal.store_id)] >= LIVE_PAGES_PER_STORE_MAX
            or self._keys[principal.id] >= LIVE_PAGES_PER_KEY_MAX
        )

    @contextlib.contextmanager
    def open(self, principal: Principal) -> Iterator[None]:
        """Count a page while it is open."""
        store, key = str(principal.store_id), principal.id
        self._stores[store] += 1
        self._keys[key] += 1
        try:
            yield
        finally:
            for counted, name in ((self._stores, store), (self._keys, key)):
                counted[name] -= 1
                if not counted[name]:
                    del counted[name]
