"""The rows of the table: which Debian, which account in which folder, whose servers."""

from dataclasses import dataclass
from itertools import product

SUITES = ("bookworm", "trixie", "sid")
SERVERS = ("own", "system")


@dataclass(frozen=True, kw_only=True)
class Location:
    """An account and the folder in which its clone lies."""

    name: str
    account: str
    home: str
    clone: str

    @property
    def described(self) -> str:
        """The account and its folder, as the table shows them."""
        return f"{'root' if self.account == 'root' else 'ordinary user'}, {self.clone}"


LOCATIONS = (
    Location(name="user", account="shop", home="/home/shop", clone="/home/shop/tender"),
    Location(name="root", account="root", home="/root", clone="/root/tender"),
    Location(name="root-opt", account="root", home="/root", clone="/opt/tender"),
)


@dataclass(frozen=True, kw_only=True)
class PlatformRow:
    """One system to try."""

    suite: str
    location: Location
    servers: str

    @property
    def name(self) -> str:
        """Its name on the command line and of its log."""
        return f"{self.suite}/{self.location.name}/{self.servers}"


ROWS = tuple(
    PlatformRow(suite=suite, location=location, servers=servers) for suite, location, servers in product(SUITES, LOCATIONS, SERVERS)
)
