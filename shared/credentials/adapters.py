"""Adapters of providers: a store's own, made of its credential, or the installation's."""

from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from shared.contracts.credentials import Use
from shared.credentials.wallet import Credential, Wallet
from shared.messages import Environment

A = TypeVar("A", bound="Closes")


class Closes(Protocol):
    """Something with connections to close."""

    async def close(self) -> None:
        """Close them."""
        ...


class Adapters(Generic[A]):
    """The adapters of a service's providers: a store's own, made of its credential, or the installation's."""

    def __init__(
        self,
        wallet: Wallet,
        use: Use,
        *,
        installed: Mapping[tuple[Environment, str], A],
        make: Callable[[Credential], A | None],
    ) -> None:
        self._wallet = wallet
        self._use = use
        self._installed = installed
        self._make = make
        self._made: dict[tuple[UUID, Environment, str], tuple[int, A]] = {}
        self._replaced: list[A] = []

    def get(self, store_id: UUID, environment: Environment, name: str) -> A | None:
        """Find a store's adapter; its newest credential counts, and what is under way goes on with the one it began with."""
        credentials = self._wallet.active(store_id, environment, name, self._use)
        if not credentials:
            return self._installed.get((environment, name))
        newest, key = credentials[0], (store_id, environment, name)
        known = self._made.get(key)
        if known is not None and known[0] == newest.version:
            return known[1]
        made = self._make(newest)
        if made is None:
            return None
        if known is not None:
            self._replaced.append(known[1])
        self._made[key] = (newest.version, made)
        return made

    def choices(self, store_id: UUID, environment: Environment, name: str) -> list[A]:
        """List the adapters a store's work may mean, its own first: what began with the installation's ends with it."""
        found = (self.get(store_id, environment, name), self._installed.get((environment, name)))
        return list(dict.fromkeys(each for each in found if each is not None))

    def names(self, store_id: UUID, environment: Environment) -> list[str]:
        """List whom a store can use."""
        own = [c.provider for c in self._wallet.every() if (c.store_id, c.environment, c.use) == (store_id, environment, self._use)]
        return list(dict.fromkeys([*own, *(name for where, name in self._installed if where is environment)]))

    def make(self, credential: Credential) -> A | None:
        """Make an adapter of a credential, to try it."""
        return self._make(credential)

    async def close(self) -> None:
        """Close every adapter's connections."""
        for adapter in (*self._installed.values(), *(made for _, made in self._made.values()), *self._replaced):
            await adapter.close()
