"""TLS to the broker: its certificate is checked, and ours is asked for."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import msgspec
import pytest

from deploy import broker_users
from deploy.servers import rabbitmq
from deploy.state import Instance, free_port
from shared import topology
from shared.bus import LOST, Publisher
from shared.bus.connections import close, connect
from shared.bus.letters import Letter
from tests.certificates import Authority, Pair
from tests.world import PASSWORD

ADDRESS = "127.0.0.1"


class Listener(msgspec.Struct, frozen=True):
    """A broker that takes TLS connections of clients with certificates."""

    netloc: str
    authority: Authority
    client: Pair
    management_url: str

    def url(self, *, host: str = ADDRESS, authority: Authority | None = None, client: Pair | None = None) -> str:
        """Tell where it is, and with which files it is spoken to."""
        user, _, address = self.netloc.rpartition("@")
        files = {"cafile": (authority or self.authority).file}
        files |= {"certfile": client.certificate, "keyfile": client.key} if client else {}
        return f"amqps://{user}@{address.replace(ADDRESS, host)}/?{urlencode(files)}"


@pytest.fixture(scope="module")
async def listener(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Listener]:
    folder = tmp_path_factory.mktemp("tls")
    authority, port, management_port = Authority(folder, "authority"), free_port(), free_port()
    server, client = authority.issue("server", ADDRESS), authority.issue("tender_payments")
    configuration = "\n".join(
        [
            f"listeners.ssl.1 = {ADDRESS}:{port}",
            f"ssl_options.cacertfile = {authority.file}",
            f"ssl_options.certfile = {server.certificate}",
            f"ssl_options.keyfile = {server.key}",
            "ssl_options.verify = verify_peer",
            "ssl_options.fail_if_no_peer_cert = true",
            f"management.ssl.ip = {ADDRESS}",
            f"management.ssl.port = {management_port}",
            f"management.ssl.cacertfile = {authority.file}",
            f"management.ssl.certfile = {server.certificate}",
            f"management.ssl.keyfile = {server.key}",
        ]
    )
    installation = rabbitmq.installed() or rabbitmq.downloaded(Instance(folder, "servers"), lambda _: None)
    broker = rabbitmq.Private(Instance(folder, "broker"), installation, configuration=configuration)
    try:
        await asyncio.to_thread(broker.start)
        user = urlsplit(broker.amqp_url).netloc.rpartition("@")[0]
        yield Listener(f"{user}@{ADDRESS}:{port}", authority, client, f"https://{user}@{ADDRESS}:{management_port}")
    finally:
        await asyncio.to_thread(broker.stop)


async def test_a_client_with_a_certificate_connects_and_publishes(listener: Listener) -> None:
    url = listener.url(client=listener.client)
    await topology.declare(url, topology.CONSUMERS)

    connection = await connect(url, name="tests")
    async with Publisher(url, name="tests") as publisher:
        await publisher.publish(Letter(exchange=topology.EVENTS, routing_key="tests", body=b"{}", headers={}))

    assert connection.server_properties["product"] == "RabbitMQ"
    await close(connection)


async def test_an_unknown_authority_is_refused_and_named(listener: Listener, tmp_path: Path) -> None:
    unknown = Authority(tmp_path, "unknown")

    with pytest.raises(LOST, match=r"unable to get local issuer certificate|self.signed certificate"):
        await connect(listener.url(authority=unknown, client=listener.client), name="tests")


async def test_another_host_name_is_refused_and_named(listener: Listener) -> None:
    with pytest.raises(LOST, match="Hostname mismatch, certificate is not valid for 'localhost'"):
        await connect(listener.url(host="localhost", client=listener.client), name="tests")


async def test_a_client_without_a_certificate_is_refused(listener: Listener) -> None:
    # The broker says why; but it may have reset the connection before that is read.
    with pytest.raises(LOST):
        await connect(listener.url(), name="tests")


async def test_a_client_with_a_certificate_of_another_authority_is_refused(listener: Listener, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").issue("tender_payments")

    with pytest.raises(LOST):
        await connect(listener.url(client=stranger), name="tests")


async def test_the_management_api_is_trusted_by_its_authority(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(broker_users.UsersRefused):
        await broker_users.make(listener.management_url, password=PASSWORD)

    monkeypatch.setenv("SSL_CERT_FILE", str(listener.authority.file))
    await broker_users.make(listener.management_url, password=PASSWORD)
