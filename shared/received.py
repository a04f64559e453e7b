"""HTTP requests of which a header is read where it lies: the framework makes a mapping of all of them to read one."""

from collections.abc import Iterable
from typing import Any, TypeAlias

from litestar import Request
from litestar.datastructures import State

from shared import telemetry
from shared.ids import new_id_text

HttpRequest: TypeAlias = Request[Any, Any, State]


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """Read a header by its name in lower case; the first, if it was sent more than once."""
    for each, value in headers:
        if each == name:
            return value.decode("latin-1")
    return None


def correlation_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Take the correlation id that a request brings, or make one where it brings none that fits."""
    given = header(headers, b"x-correlation-id")
    return given if given is not None and telemetry.CORRELATION_ID.match(given) else new_id_text()


class Received(HttpRequest):
    """A request whose body is read without a mapping of its headers."""

    __slots__ = ()

    @property
    def content_length(self) -> int | None:
        """How many bytes the body is said to have; what is no number the server has refused."""
        said = header(self.scope["headers"], b"content-length")
        return None if said is None else int(said)
