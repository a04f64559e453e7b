"""What strangers may take of an HTTP server: every head, body and connection ends (security report H2, M13, L11)."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shared import http_limits
from shared.http_server import HttpServer
from shared.settings import BusSettings
from tests.world import until

CONNECTIONS_MAX = 12
PER_ADDRESS_MAX = 4
ANSWERED_WITHIN_SECONDS = 10.0
# Far more than any limit; sending stops when the server has closed.
FLOOD_BYTES = 20 * 1024 * 1024
PIECE = 64 * 1024


class Taken:
    """What the application got, and who is connected."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body, more = b"", scope["path"] != "/unread"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        await self.gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def connect(self, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))

    async def answer_to(self, *pieces: bytes) -> tuple[int, dict[str, Any] | None]:
        """Send all of it as far as it is taken; the status, and a problem's body."""
        reader, writer = await self.connect()
        sending = asyncio.create_task(_send(writer, pieces))
        async with asyncio.timeout(ANSWERED_WITHIN_SECONDS):
            answer = await _read(reader)
            await sending
        writer.close()
        if not answer:
            return 0, None
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body) if b"problem+json" in head else None


async def _send(writer: asyncio.StreamWriter, pieces: tuple[bytes, ...]) -> None:
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()


async def _read(reader: asyncio.StreamReader) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(PIECE):
            answer += piece
            if answer.endswith(b"\r\n\r\nok"):
                break
    return answer


@pytest.fixture
async def taken() -> AsyncIterator[Taken]:
    settings = BusSettings(
        database_url="", amqp_url="", http_connections_max=CONNECTIONS_MAX, http_connections_per_address_max=PER_ADDRESS_MAX
    )
    async with HttpServer(settings, "probe", {}) as server:
        made = Taken(int(server.url.rpartition(":")[2]))
        server.serve(made.app, {})
        yield made


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "HEAD_TIMEOUT_SECONDS", 0.4)
    monkeypatch.setattr(http_limits, "BODY_TIMEOUT_SECONDS", 0.8)
    monkeypatch.setattr(http_limits, "TIMEOUT_CHECK_SECONDS", 0.05)


START = b"POST / HTTP/1.1\r\nhost: shop\r\n"
CHUNKED = START + b"transfer-encoding: chunked\r\n\r\n"
FLOODS = {
    "many headers": (START, 431, b"x-n: " + b"a" * 100 + b"\r\n"),
    "many empty headers": (START, 431, b"a:\r\n"),
    "one header": (START + b"x-n: ", 431, b"a" * 100),
    "one header's name": (START, 431, b"a" * 100),
    "a folded header": (START + b"x-n: a\r\n", (400, 431), b" a\r\n"),
    "a path": (b"GET /", 414, b"a" * 100),
    "a query": (b"GET /?", 414, b"a=b&" * 25),
    "a method": (b"", (400, 431), b"POST" * 25),
    "blank lines": (b"", (400, 431), b"\r\n" * 50),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", 431, b"x-n: " + b"a" * 100 + b"\r\n"),
    "one trailer": (CHUNKED + b"1\r\nx\r\n0\r\nx-n: ", 431, b"a" * 100),
    "a chunk's extension": (CHUNKED + b"1;", (400, 431), b"a" * 100),
    "a chunk's extension's value": (CHUNKED + b"1;a=", (400, 431), b"a" * 100),
    "a chunk's quoted extension": (CHUNKED + b'1;a="', (400, 431), b"a" * 100),
    "a chunk's size": (CHUNKED, (400, 431), b"0" * 100),
}


async def test_public_port_is_closed_before_the_service_has_started() -> None:
    async def starting() -> str:
        return "starting"

    settings = BusSettings(database_url="", amqp_url="")
    async with HttpServer(settings, "probe", {"process": starting}) as server, httpx.AsyncClient() as http:
        api, live = await http.get(f"{server.url}/api/v1/anything"), await http.get(f"{server.url}/health/live")
        ready, metrics = await http.get(f"{server.monitoring_url}/health/ready"), await http.get(f"{server.monitoring_url}/metrics")
        hidden = await http.get(f"{server.url}/health/ready")

    assert (api.status_code, api.headers["retry-after"], api.json()["code"]) == (503, "1", "service-starting")
    assert api.headers["x-content-type-options"] == "nosniff"
    assert (live.status_code, metrics.status_code, hidden.json()["code"]) == (200, 200, "service-starting")
    assert (ready.status_code, ready.json()["checks"]) == (503, {"process": "starting"})


async def test_service_without_an_api_has_no_public_port() -> None:
    async with HttpServer(BusSettings(database_url="", amqp_url=""), "probe", {}, public=False) as server, httpx.AsyncClient() as http:
        assert (server.url, (await http.get(f"{server.monitoring_url}/health/ready")).status_code) == ("", 200)


@pytest.mark.parametrize(("start", "status", "more"), FLOODS.values(), ids=FLOODS.keys())
async def test_a_head_without_end_is_refused(taken: Taken, start: bytes, status: int | tuple[int, ...], more: bytes) -> None:
    pieces = PIECE // len(more)

    answered, problem = await taken.answer_to(start, *([more * pieces] * (FLOOD_BYTES // PIECE)))

    assert answered in ((status,) if isinstance(status, int) else status)
    assert problem is not None
    assert problem["status"] == answered
    assert taken.bodies == []


@pytest.mark.parametrize("size", [1, 7, PIECE])
async def test_what_is_within_the_limits_passes_however_it_is_cut(taken: Taken, size: int) -> None:
    body = b"b" * 3_000
    request = b"".join(
        (
            b"POST /" + b"p" * 4_000 + b"?" + b"q" * 4_000 + b" HTTP/1.1\r\nhost: shop\r\n",
            *(b"x-%d: %s\r\n" % (number, b"v" * 150) for number in range(60)),
            b"transfer-encoding: chunked\r\n\r\n",
            *(b"%x;note=%s\r\n%s\r\n" % (len(part), b"n" * 20, part) for part in (body[at : at + 500] for at in range(0, 3_000, 500))),
            b"0\r\nx-trailer: t\r\n\r\n",
        )
    )

    status, _ = await taken.answer_to(*(request[at : at + size] for at in range(0, len(request), size)))

    assert (status, taken.bodies) == (200, [body])
    assert b"x-trailer" not in dict(taken.scopes[0]["headers"])


@pytest.mark.parametrize("size", [http_limits.URL_MAX_BYTES - 1, http_limits.URL_MAX_BYTES, http_limits.URL_MAX_BYTES + 1])
async def test_the_longest_address_is_taken(taken: Taken, size: int) -> None:
    status, _ = await taken.answer_to(b"GET /" + b"p" * (size - 1) + b" HTTP/1.1\r\nhost: shop\r\n\r\n")

    assert status == (200 if size <= http_limits.URL_MAX_BYTES else 414)


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_the_largest_head_is_taken(taken: Taken, over: int) -> None:
    size = http_limits.HEAD_MAX_BYTES - len(b"hostshopx-n") + over

    status, _ = await taken.answer_to(START.replace(b"POST", b"GET") + b"x-n: " + b"a" * size + b"\r\n\r\n")

    assert status == (200 if over <= 0 else 431)


# RFC 9112, section 3.2: "A server MUST respond with a 400 status code to any HTTP/1.1 request message that lacks a Host header field and
# to any request message that contains more than one Host header field line".
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHOST: b\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nconnection: close\r\n\r\n", 200),
        (b"GET http://a/ HTTP/1.1\r\nhost: a\r\n\r\n", 200),
        (b"nonsense\r\n\r\n", 400),
    ],
)
async def test_a_request_has_one_host(taken: Taken, head: bytes, status: int) -> None:
    answered, problem = await taken.answer_to(head)

    assert answered == status
    assert (problem or {}).get("code") == (None if status == 200 else "malformed-request")
    assert len(taken.scopes) == (1 if status == 200 else 0)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    "sent",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nhost: shop\r\nx-n:",
        START + b"content-length: 1000\r\n\r\n",
        START + b"content-length: 1000\r\n\r\na",
        CHUNKED + b"fff\r\na",
        CHUNKED + b"1\r\na\r\n0\r\nx-trailer: ",
        b"POST /unread HTTP/1.1\r\nhost: shop\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n\r\n",
    ],
)
async def test_a_request_that_does_not_end_is_ended(taken: Taken, sent: bytes) -> None:
    reader, writer = await taken.connect()
    dripping = asyncio.create_task(_drip(writer, sent))

    async with asyncio.timeout(ANSWERED_WITHIN_SECONDS):
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(PIECE):
                answer += piece

    assert b"unread" in sent or answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n"), answer
    dripping.cancel()
    writer.close()


async def _drip(writer: asyncio.StreamWriter, sent: bytes) -> None:
    """Send one byte after the other, so that something always comes."""
    writer.write(sent)
    with contextlib.suppress(ConnectionError):
        while True:
            await asyncio.sleep(0.1)
            writer.write(b"a")
            await writer.drain()


WHOLE = b"POST /whole HTTP/1.1\r\nhost: shop\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(b"NONSENSE\r\n\r\n", id="nonsense"),
        pytest.param(b"GET / HTTP/1.1\r\nho", id="half a head"),
        pytest.param(b"GET /" + b"a" * 20_000, id="a long address"),
        pytest.param(WHOLE + b"NONSENSE\r\n\r\n", id="a good one and nonsense"),
        pytest.param(CHUNKED + b"z", id="a bad body"),
    ],
)
@pytest.mark.usefixtures("hurried")
async def test_what_follows_a_request_in_hand_is_not_answered_in_its_place(taken: Taken, after: bytes) -> None:
    """F3: whoever waits for the answer to the first would take it for its own, though the first is carried out."""
    taken.gate.clear()
    reader, writer = await taken.connect()
    writer.write(WHOLE)

    async def in_hand() -> bool:
        return len(taken.bodies) == 1

    await until(in_hand)

    writer.write(after)
    async with asyncio.timeout(ANSWERED_WITHIN_SECONDS):
        answer = await _read(reader)
    taken.gate.set()
    writer.close()

    assert answer == b""


@pytest.mark.usefixtures("hurried")
async def test_a_connection_that_says_nothing_is_closed_without_a_word(taken: Taken) -> None:
    reader, writer = await taken.connect()

    async with asyncio.timeout(ANSWERED_WITHIN_SECONDS):
        assert await reader.read() == b""
    writer.close()


@pytest.mark.usefixtures("hurried")
async def test_waiting_for_our_own_answer_is_no_lateness(taken: Taken) -> None:
    taken.gate.clear()
    reader, writer = await taken.connect()
    writer.write(START + b"content-length: 1\r\n\r\na")
    await until(lambda: _is(taken.bodies == [b"a"]))
    await asyncio.sleep(2 * http_limits.BODY_TIMEOUT_SECONDS)
    taken.gate.set()

    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_one_address_takes_its_share_of_connections_alone(taken: Taken) -> None:
    held = [await taken.connect() for _ in range(PER_ADDRESS_MAX)]

    status, problem = await taken.answer_to(START + b"content-length: 0\r\n\r\n")
    assert (status, (problem or {})["code"]) == (503, "too-many-connections")

    reader, writer = await taken.connect("127.0.0.2")
    writer.write(START + b"content-length: 0\r\n\r\n")
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    for _, each in [*held, (reader, writer)]:
        each.close()
    await until(lambda: _answers(taken))


async def test_all_addresses_together_take_no_more_than_there_is(taken: Taken) -> None:
    held = [await taken.connect(f"127.0.0.{2 + number // PER_ADDRESS_MAX}") for number in range(CONNECTIONS_MAX)]

    status, problem = await taken.answer_to(START + b"content-length: 0\r\n\r\n")

    assert (status, (problem or {})["code"]) == (503, "too-many-connections")
    for _, each in held:
        each.close()
    await until(lambda: _answers(taken))


async def _answers(taken: Taken) -> bool:
    return (await taken.answer_to(START + b"content-length: 0\r\n\r\n"))[0] == 200


async def _is(fact: bool) -> bool:
    return fact


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_network_of_ipv6_is_one_address(address: str, site: str) -> None:
    assert http_limits.site_of(address) == site
