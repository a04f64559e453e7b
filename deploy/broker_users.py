"""One broker user a service, allowed what that service needs and nothing else."""

import asyncio
from collections.abc import Mapping
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

from shared import topology
from shared.connection_errors import host_of, one_line
from shared.errors import Clear
from shared.migrations import password_of, role_of

TIMEOUT_SECONDS = 30.0
SERVICES = tuple(topology.TOLD)
USERS = {**{service: topology.permissions_of(service) for service in SERVICES}, topology.OBSERVER: topology.observer_permissions()}


class UsersRefused(Clear):
    """The broker's management API cannot be reached, or does not let us; the text says which."""


def service_url(amqp_url: str, service: str, password: str) -> str:
    """Tell with which URL a service logs into the broker."""
    parts = urlsplit(amqp_url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role_of(service)}:{quote(password)}@{host}"))


def vhost_of(amqp_url: str) -> str:
    """Tell which virtual host a URL names; none is the default one."""
    return urlsplit(amqp_url).path.removeprefix("/") or "/"


async def make(management_url: str, *, password: str | Mapping[str, str]) -> None:
    """Make the users, or set their passwords again: one for all, or each its own by its service's name."""
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as http:
        for name in USERS:
            await _put(http, f"{management_url}/api/users/{role_of(name)}", {"password": password_of(password, name), "tags": ""})


async def grant(management_url: str, vhost: str) -> None:
    """Let each user do what its service needs in a virtual host; doing it again changes nothing.

    The topology has to be declared before: RabbitMQ from 4.3 on refuses rights on an exchange that does not exist.
    """
    where = quote(vhost, safe="")
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as http:
        await asyncio.gather(*(_grant(http, management_url, where, role_of(name), may) for name, may in USERS.items()))


async def _grant(http: httpx.AsyncClient, management_url: str, vhost: str, user: str, may: topology.Permissions) -> None:
    names = {"configure": may.configure, "write": may.write, "read": may.read}
    await _put(http, f"{management_url}/api/permissions/{vhost}/{user}", names)
    for exchange, keys in ((topology.COMMANDS, may.commands), (topology.EVENTS, may.events)):
        topics = {"exchange": exchange, "write": keys, "read": ".*"}
        await _put(http, f"{management_url}/api/topic-permissions/{vhost}/{user}", topics)


async def _put(http: httpx.AsyncClient, url: str, body: dict[str, str]) -> None:
    try:
        answer = await http.put(url, json=body)
    except httpx.InvalidURL:
        # Its text quotes what could not be read, which may be a part of the password.
        raise UsersRefused(f"RabbitMQ's management API at {host_of(url)}: the URL cannot be read") from None
    except httpx.HTTPError as failed:
        raise UsersRefused(f"RabbitMQ's management API at {host_of(url)}: {one_line(failed)}") from None
    if answer.is_error:
        hint = " (declare the topology first: ./tender topology)" if "exchange does not exist" in answer.text else ""
        said = f"it answered {answer.status_code} to {urlsplit(url).path}{hint}"
        raise UsersRefused(f"RabbitMQ's management API at {host_of(url)}: {said}")
