"""What a server refuses or a URL gets wrong, in one line that names the server and bears no password."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, unquote, urlsplit

from shared.errors import Clear
from shared.settings import TLS_FILES

# How aiormq words that the broker closed the connection instead of opening the virtual host.
CLOSED_AT_OPEN = "Expected one of ['Connection.OpenOk'], got <Connection.Close"

_USER_INFO = re.compile(r"(?<=://)[^/?#\s]*@")


class ServerRefused(Clear):
    """A server cannot be reached or refuses us; the text says which and why."""


@contextmanager
def naming(server: str, url: str, *errors: type[Exception]) -> Iterator[None]:
    """Raise ServerRefused for these errors and for what a network or a malformed URL raises."""
    known: tuple[type[Exception], ...] = (*errors, OSError, ValueError, IndexError)
    try:
        yield
    except known as failure:
        raise ServerRefused(f"{server} at {host_of(url)}: {_reason(failure, url)}") from None


def host_of(url: str) -> str:
    """Name the host and port of a URL, never its user or password."""
    if "://" not in url:
        return "a URL without ://"
    hosts = re.split(r"[/?#]", _USER_INFO.sub("", url).partition("://")[2])[0]
    # What is no port may be a password whose @ is missing.
    return re.sub(r":(?![0-9]{1,5}(?:,|$))[^,\]]*(?=,|$)", ":…", hosts) or "a URL without a host"


def one_line(failure: Exception) -> str:
    """Write an error as one line, without the user and the password of any URL in it."""
    text = " ".join(str(failure).split())
    return _USER_INFO.sub("", text) or type(failure).__name__


def _reason(failure: Exception, url: str) -> str:
    if type(failure) in (ValueError, IndexError, UnicodeError):
        # Its text quotes what could not be read, which may be a part of the password.
        return "the URL cannot be read; write it as scheme://user:password@host:port/name, and percent-encode user and password"
    text = one_line(failure)
    if unreadable := _unreadable_files(url):
        text = f"{text}: {', '.join(unreadable)}"
    if CLOSED_AT_OPEN in text:
        # The library forgets what the broker said.
        name = unquote(urlsplit(url).path.removeprefix("/")) or "/"
        text = f"the broker refuses the virtual host {name!r}: there is none of this name, or this user has no access to it"
    for secret in _secrets_of(url):
        text = text.replace(secret, "…")
    return text


def _unreadable_files(url: str) -> list[str]:
    named = parse_qsl(urlsplit(url).query)
    return [f"{name}={value}" for name, value in named if name in TLS_FILES and not os.access(value, os.R_OK)]


def _secrets_of(url: str) -> set[str]:
    password = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    return {each for each in (password, unquote(password)) if each}
