"""HTTP requests of which a header is read where it lies: the framework makes a mapping of all of them to read one."""

from typing import Any, TypeAlias

from litestar import Request
from litestar.datastructures import State

HttpRequest: TypeAlias = Request[Any, Any, State]


def header(request: HttpRequest, name: bytes) -> str | None:
    """Read a header by its name in lower case; the first, if it was sent more than once."""
    for each, value in request.scope["headers"]:
        if each == name:
            return value.decode("latin-1")
    return None


class Received(HttpRequest):
    """A request as our applications make them for the framework."""

    __slots__ = ()

    @property
    def content_length(self) -> int | None:
        """How many bytes the body is said to have; what is no number the server has refused."""
        said = header(self, b"content-length")
        return None if said is None else int(said)
