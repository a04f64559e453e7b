"""One broker user a service, allowed what that service needs and nothing else."""

import asyncio
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

from shared import topology
from shared.connection_errors import host_of, one_line
from shared.errors import Clear
from shared.migrations import role_of

TIMEOUT_SECONDS = 30.0
SERVICES = tuple(topology.TOLD)


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


async def make(management_url: str, *, password: str) -> None:
    """Make the users, or give them their password anew."""
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as http:
        for service in SERVICES:
            await _put(http, f"{management_url}/api/users/{role_of(service)}", {"password": password, "tags": ""})


async def grant(management_url: str, vhost: str) -> None:
    """Let each user do what its service needs in a virtual host; doing it again changes nothing."""
    where = quote(vhost, safe="")
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as http:
        await asyncio.gather(*(_grant(http, management_url, where, service) for service in SERVICES))


async def _grant(http: httpx.AsyncClient, management_url: str, vhost: str, service: str) -> None:
    may, user = topology.permissions_of(service), role_of(service)
    names = {"configure": may.configure, "write": may.write, "read": may.read}
    await _put(http, f"{management_url}/api/permissions/{vhost}/{user}", names)
    for exchange, keys in ((topology.COMMANDS, may.commands), (topology.EVENTS, may.events)):
        topics = {"exchange": exchange, "write": keys, "read": ".*"}
        await _put(http, f"{management_url}/api/topic-permissions/{vhost}/{user}", topics)


async def _put(http: httpx.AsyncClient, url: str, body: dict[str, str]) -> None:
    try:
        (await http.put(url, json=body)).raise_for_status()
    except httpx.HTTPStatusError as refused:
        raise UsersRefused(
            f"RabbitMQ's management API at {host_of(url)}: it answered {refused.response.status_code} to {_path(url)}"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as failed:
        raise UsersRefused(f"RabbitMQ's management API at {host_of(url)}: {one_line(failed)}") from None


def _path(url: str) -> str:
    return urlsplit(url).path
