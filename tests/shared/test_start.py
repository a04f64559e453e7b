"""What a service says when it cannot start: what it waits for within a second or two, and one line on what waiting cannot mend."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy import setup
from deploy.state import ROOT, free_port
from services.reconciler.app import OWNED
from shared.migrations import migrate
from tests.world import PASSWORD, Place, until

# A process has to load its program first, on a busy machine; what it waits for it then says within a second.
SAID_WITHIN_SECONDS = 15.0
ENDED_WITHIN_SECONDS = 15.0
WRONG = "wrong-" + PASSWORD
POSTGRES_SSL_REQUEST_BYTES = 8


class Started:
    """A service as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.said: list[str] = []

    async def read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.said.append(line.decode().rstrip())

    async def has_said(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self.said)

    async def readiness(self) -> tuple[int, dict[str, str]]:
        async with httpx.AsyncClient(timeout=5) as http:
            with contextlib.suppress(httpx.TransportError):
                answer = await http.get(f"{self.url}/health/ready")
                return answer.status_code, answer.json()["checks"]
        return 0, {}


@contextlib.asynccontextmanager
async def a_service(environment: Mapping[str, str]) -> AsyncIterator[Started]:
    """Run the reconciler, which needs the fewest settings, until inside is left."""
    port = free_port()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MONITORING_PORT": str(port), **environment}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.reconciler", env=env, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    started = Started(process, port)
    reading = asyncio.create_task(started.read())
    try:
        yield started
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(ENDED_WITHIN_SECONDS):
            code = await process.wait()
            await reading
    assert [line for line in started.said if "Traceback" in line or PASSWORD in line] == []
    assert code in (0, 1)


def urls_of(place: Place) -> dict[str, str]:
    return {"DATABASE_URL": setup.service_url(place.database_url, OWNED.name, PASSWORD), "AMQP_URL": place.amqp_of(OWNED.name)}


def with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.username}:{password}@{parts.netloc.rpartition('@')[2]}"))


def with_server(url: str, server: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{server}"))


def with_path(url: str, path: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{path}"))


@contextlib.asynccontextmanager
async def a_silent_server() -> AsyncIterator[str]:
    """A server that takes connections and says nothing, ever."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def _signed_by_itself(file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))


@contextlib.asynccontextmanager
async def a_server_nobody_vouches_for(folder: Path, *, postgres: bool) -> AsyncIterator[str]:
    """A server whose certificate signs itself; Postgres's clients ask in clear text first."""
    _signed_by_itself(folder / "server.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if postgres:
                await reader.readexactly(POSTGRES_SSL_REQUEST_BYTES)
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(context)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=None if postgres else context)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


class TestWaiting:
    """What may come yet: the process lives, says what it waits for, and is not ready."""

    @pytest.mark.parametrize(
        ("variable", "server", "reason"),
        [
            ("DATABASE_URL", "127.0.0.1:1", "ConnectionRefusedError"),
            ("DATABASE_URL", "no-such-host.invalid:5432", "gaierror"),
            ("AMQP_URL", "127.0.0.1:1", "Connection refused"),
            ("AMQP_URL", "no-such-host.invalid:5672", "AMQPConnectionError"),
        ],
    )
    async def test_says_which_server_does_not_answer(self, place: Place, variable: str, server: str, reason: str) -> None:
        urls = urls_of(place)
        async with a_service({**urls, variable: with_server(urls[variable], server)}) as service:
            what = "database" if variable == "DATABASE_URL" else "broker"

            await until(lambda: service.has_said(f"waiting for the {what}", server, reason), timeout_seconds=SAID_WITHIN_SECONDS)

            status, checks = await service.readiness()
            assert status == 503
            assert reason in checks[what]
            async with httpx.AsyncClient() as http:
                assert (await http.get(f"{service.url}/health/live")).status_code == 200
                assert (await http.get(f"{service.url}/metrics")).status_code == 200

    @pytest.mark.parametrize("variable", ["DATABASE_URL", "AMQP_URL"])
    async def test_says_that_a_server_is_silent(self, place: Place, variable: str) -> None:
        urls = urls_of(place)
        what = "database" if variable == "DATABASE_URL" else "broker"
        async with a_silent_server() as server, a_service({**urls, variable: with_server(urls[variable], server)}) as service:
            await until(lambda: service.has_said(f"waiting for the {what}", server), timeout_seconds=SAID_WITHIN_SECONDS)

            assert (await service.readiness())[0] == 503

    @pytest.mark.parametrize("how", [ssl.SOL_SOCKET, 0], ids=["reset", "closed"])
    async def test_waits_for_a_broker_that_closes_at_once(self, place: Place, how: int) -> None:
        """As a proxy does whose broker is away; the library's errors were a circle of causes, and escaped as StopAsyncIteration."""

        async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if how:
                # Closed with a reset instead of an end.
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()

        urls = urls_of(place)
        async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with a_service({**urls, "AMQP_URL": with_server(urls["AMQP_URL"], address)}) as service:
                await until(lambda: service.has_said("waiting for the broker", address), timeout_seconds=SAID_WITHIN_SECONDS)
                status, checks = await service.readiness()
                assert (status, bool(checks["broker"])) == (503, True)

    async def test_says_that_a_virtual_host_is_not_there(self, place: Place) -> None:
        urls = urls_of(place)
        async with a_service({**urls, "AMQP_URL": with_path(urls["AMQP_URL"], "no_such_vhost")}) as service:
            await until(
                lambda: service.has_said("waiting for the broker", "the virtual host no_such_vhost does not exist"),
                timeout_seconds=SAID_WITHIN_SECONDS,
            )

    async def test_waits_for_the_migrations(self, bare_place: Place) -> None:
        urls = urls_of(bare_place)
        async with a_service(urls) as service:
            await until(
                lambda: service.has_said("waiting for the migrations", "there is no schema reconciler"), timeout_seconds=SAID_WITHIN_SECONDS
            )
            assert sum("waiting for the migrations" in line for line in service.said) == 1

            await migrate(bare_place.database_url, [OWNED], password=PASSWORD)

            await until(lambda: service.has_said("no longer waiting for the migrations"), timeout_seconds=SAID_WITHIN_SECONDS)

    async def test_goes_on_once_the_broker_is_there(self, place: Place) -> None:
        urls, port = urls_of(place), free_port()
        upstream = urlsplit(urls["AMQP_URL"])
        async with a_service({**urls, "AMQP_URL": with_server(urls["AMQP_URL"], f"127.0.0.1:{port}")}) as service:
            await until(lambda: service.has_said("waiting for the broker"), timeout_seconds=SAID_WITHIN_SECONDS)

            async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                theirs, ours = await asyncio.open_connection(upstream.hostname, upstream.port)
                await asyncio.wait(
                    [asyncio.create_task(_copy(reader, ours)), asyncio.create_task(_copy(theirs, writer))],
                    return_when=asyncio.FIRST_COMPLETED,
                )
                ours.close()
                writer.close()

            async with await asyncio.start_server(pass_on, "127.0.0.1", port):
                await until(lambda: _ready(service), timeout_seconds=SAID_WITHIN_SECONDS)
                assert await service.has_said("no longer waiting for the broker")
                service.process.send_signal(signal.SIGTERM)
                assert await service.process.wait() == 0


class TestEnding:
    """What waiting cannot mend: one line that names it, and the end."""

    @pytest.mark.parametrize(
        ("variable", "change", "words"),
        [
            ("DATABASE_URL", lambda url: with_password(url, WRONG), ["the database at 127.0.0.1", "password authentication failed"]),
            (
                "DATABASE_URL",
                lambda url: with_path(url, "no_such_database"),
                ["the database at", 'database "no_such_database" does not exist'],
            ),
            (
                "DATABASE_URL",
                lambda url: f"{url}?sslmode=verify-full&sslrootcert=/no/such/file",
                ["DATABASE_URL: names a file that cannot be read: sslrootcert=/no/such/file"],
            ),
            ("DATABASE_URL", lambda url: f"{url}?sslmode=sometimes", ["the database at", "sslmode"]),
            ("AMQP_URL", lambda url: with_password(url, WRONG), ["the broker at 127.0.0.1", "the login was refused"]),
            (
                "AMQP_URL",
                lambda url: url.replace("amqp://", "amqps://") + "?cafile=/no/such/file",
                ["AMQP_URL: names a file that cannot be read: cafile=/no/such/file"],
            ),
        ],
    )
    async def test_a_wrong_setting_ends_it_with_one_line(self, place: Place, variable: str, change: object, words: list[str]) -> None:
        urls = urls_of(place)
        assert callable(change)

        said = await _last_words({**urls, variable: change(urls[variable])})

        assert all(word in said for word in words), said

    async def test_a_database_with_an_unknown_authority_ends_it(self, place: Place, tmp_path: Path) -> None:
        async with a_server_nobody_vouches_for(tmp_path, postgres=True) as server:
            # Another authority's than the one it is signed by: any certificate will do.
            _signed_by_itself(tmp_path / "authority.pem")
            url = f"postgresql://a:b@{server}/x?sslmode=verify-full&sslrootcert={tmp_path / 'authority.pem'}"
            said = await _last_words({**urls_of(place), "DATABASE_URL": url})

        assert "its certificate is not trusted: self-signed certificate" in said

    async def test_a_broker_with_an_unknown_authority_ends_it(self, place: Place, tmp_path: Path) -> None:
        async with a_server_nobody_vouches_for(tmp_path, postgres=False) as server:
            said = await _last_words({**urls_of(place), "AMQP_URL": f"amqps://a:b@{server}/"})

        assert "its certificate is not trusted: self-signed certificate" in said

    async def test_a_schema_that_is_closed_to_the_role_ends_it(self, bare_place: Place) -> None:
        await migrate(bare_place.database_url, [OWNED], password=PASSWORD)
        owner = await asyncpg.connect(bare_place.database_url)
        await owner.execute("REVOKE USAGE ON SCHEMA reconciler FROM tender_reconciler")
        await owner.close()

        said = await _last_words(urls_of(bare_place))

        assert "the role tender_reconciler may not use the schema reconciler" in said

    @pytest.mark.parametrize(
        ("variable", "url"),
        [
            ("AMQP_URL", f"amqp://guest:{PASSWORD}/vhost"),
            ("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672,/"),
            ("AMQP_URL", "amqp://guest:guest@/vhost"),
            ("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672,b:abc/"),
            ("AMQP_URL", "amqp://guest:guest@127.0.0.1:99999/"),
            ("DATABASE_URL", f"postgresql://tender:{PASSWORD}/tender"),
            ("DATABASE_URL", "postgresql://tender@127.0.0.1:5432,/tender"),
            ("DATABASE_URL", "postgresql://tender@127.0.0.1:x/tender"),
        ],
    )
    async def test_an_address_that_cannot_be_read_ends_it(self, place: Place, variable: str, url: str) -> None:
        said = await _last_words({**urls_of(place), variable: url})

        assert f"{variable}: host" in said

    async def test_a_parameter_that_the_database_does_not_know_ends_it(self, place: Place) -> None:
        urls = urls_of(place)

        said = await _last_words({**urls, "DATABASE_URL": f"{urls['DATABASE_URL']}?bogus=1"})

        assert 'unrecognized configuration parameter "bogus"' in said

    async def test_a_port_in_use_ends_it(self, place: Place) -> None:
        async with a_silent_server() as server:
            said = await _last_words({**urls_of(place), "MONITORING_PORT": server.rpartition(":")[2]})

        assert "(MONITORING_HOST, MONITORING_PORT) cannot be listened on" in said


class TestListening:
    @pytest.mark.parametrize(("host", "reached"), [("::", ["127.0.0.1", "[::1]"]), ("::1", ["[::1]"]), ("localhost", ["127.0.0.1"])])
    async def test_listens_on_every_family_of_its_host(self, place: Place, host: str, reached: list[str]) -> None:
        async with a_service({**urls_of(place), "MONITORING_HOST": host}) as service:
            port = urlsplit(service.url).port
            for each in reached:
                service.url = f"http://{each}:{port}"
                await until(lambda: _ready(service), timeout_seconds=SAID_WITHIN_SECONDS)


async def _ready(service: Started) -> bool:
    return (await service.readiness())[0] == 200


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)


async def _last_words(environment: Mapping[str, str]) -> str:
    """Run a service that must end by itself; give the one line it ends with."""
    async with a_service(environment) as service:
        async with asyncio.timeout(ENDED_WITHIN_SECONDS):
            assert await service.process.wait() == 1
    plain = [line for line in service.said if not _structured(line)]
    assert len(plain) == 1, plain
    return plain[0]


def _structured(line: str) -> bool:
    with contextlib.suppress(ValueError):
        return isinstance(json.loads(line), dict)
    return False
