"""The URLs of servers, which may name several hosts: taken apart here, because urllib refuses several where one has brackets (3.14)."""

import re

import msgspec

_URL = re.compile(r"(?P<scheme>[^:/?#]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.DOTALL)


class ServerUrl(msgspec.Struct, frozen=True, kw_only=True):
    """A server's URL in its parts; `login` is with its @, `rest` from the path on."""

    scheme: str
    login: str
    hosts: tuple[str, ...]
    rest: str

    @property
    def query(self) -> str:
        """The parameters behind the question mark."""
        return self.rest.partition("#")[0].partition("?")[2]


def parts_of(url: str) -> ServerUrl:
    """Take a URL apart; one without :// has no host."""
    found = _URL.fullmatch(url)
    if found is None:
        return ServerUrl(scheme="", login="", hosts=("",), rest=url)
    user, at, hosts = found["authority"].rpartition("@")
    return ServerUrl(scheme=found["scheme"].lower(), login=user + at, hosts=tuple(hosts.split(",")), rest=found["rest"])
