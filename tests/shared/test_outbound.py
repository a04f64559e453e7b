"""The way out to addresses that somebody else chose: which may be called, that no other is connected to, and what is shown of a failure.

The numbers of cases are those of the red team's table (issue 20): 18, 44, 52, 58 to 68.
"""

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from services.fulfillment.providers.downloads import fetched
from services.fulfillment.providers.easypost import LABEL_HOSTS as EASYPOST_HOSTS
from services.fulfillment.settings import Settings as FulfillmentSettings
from services.webhooks.app import CERTIFICATE_MAX_BYTES, fetch
from shared import outbound
from shared.errors import Unavailable
from shared.outbound import (
    GLOBAL_IPV6,
    LOOKUPS_MAX,
    PORTS,
    SPECIAL_IPV4,
    SPECIAL_IPV6,
    SPECIAL_NAMES,
    URL_MAX_CHARACTERS,
    OutboundCallFailed,
    OutboundClient,
    OutboundFailure,
    OutboundUrl,
    OutboundUrlInvalid,
    PublicResolver,
    check_address,
    check_return_url,
    is_public,
)
from shared.provider_answers import IndeterminateResponse
from shared.settings import SettingsRefused, load

TIMEOUT_SECONDS = 5.0
NAME = "hooks.shop.example.com"
PUBLIC_IPV4 = "93.184.216.34"
LABEL = b"%PDF-1.4\n%%EOF\n"

# Where something of an operator's may listen, or of the machine itself.
INSIDE = (
    *("127.0.0.1", "127.1.2.3", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254", "100.64.0.1"),
    *("0.0.0.0", "192.0.0.8", "192.0.0.170", "198.18.0.1", "192.88.99.1", "203.0.113.7", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
)


def spellings(address: str) -> Iterator[str]:
    """Write an IPv4 address in every way that some reader reads as it (cases 58 to 62 and 64)."""
    a, b, c, d = parts = [int(each) for each in address.split(".")]
    number = int(ipaddress.IPv4Address(address))
    high, low = number >> 16, number & 0xFFFF
    yield from (address, f"{address}.", f"{address}..", f"user@{address}", f"{address}%00.example.com", f"{address}%2f.example.com")
    yield from (str(number), hex(number), f"0{number:o}", f"{number:#X}", f"{number}.", f"{hex(number)}.")
    yield from (f"{a}.{b * 65536 + c * 256 + d}", f"{a}.{b}.{c * 256 + d}", f"{a}.{b}.0x{c * 256 + d:x}", f"0x{a:x}.{number & 0xFFFFFF}")
    yield from (".".join(hex(each) for each in parts), ".".join(f"0{each:o}" for each in parts), ".".join(f"{each:03}" for each in parts))
    yield from (
        f"0x{a:x}.{b}.{c}.{d}",
        f"{a}.{b}.{c}.0{d:o}",
        f"0{a}.{b}.{c}.{d}",
        address.replace(".", "%2e"),
        address.replace(".", "%2E", 1),
    )
    full_width = address.translate({ord(digit): chr(ord("０") + int(digit)) for digit in "0123456789"})
    circled = address.translate({ord(digit): "⓪①②③④⑤⑥⑦⑧⑨"[int(digit)] for digit in "0123456789"})
    bold = address.translate({ord(digit): chr(0x1D7CE + int(digit)) for digit in "0123456789"})
    yield from (each.replace(".", dot) for each in (address, full_width, circled, bold) for dot in ".。．｡")
    yield from (address.replace(".", "%E3%80%82"), full_width.replace("０", "%EF%BC%90"), address.replace(".", "\u2024"))
    for prefix in ("::ffff:", "::", "::ffff:0:", "64:ff9b::", "64:ff9b:1::", "fec0::", "fe80::5efe:", "2001:db8::", "5f00::", "3fff::"):
        yield from (f"[{prefix}{address}]", f"[{prefix}{high:x}:{low:x}]")
    yield from (f"[2002:{high:x}:{low:x}::1]", f"[2001::{high:x}:{low:x}]", f"[{address}]", f"[v1.{address}]", f"[::{address}%25lo]")


def accepted(urls: Iterator[str]) -> list[str]:
    """List the addresses that may be called."""
    found = []
    for each in urls:
        with contextlib.suppress(OutboundUrlInvalid):
            OutboundUrl.parse(each)
            found.append(each)
    return found


class TestReading:
    def test_no_spelling_of_an_inside_address_is_accepted(self) -> None:
        urls = [f"https://{host}{rest}" for address in INSIDE for host in spellings(address) for rest in ("/", ":8443/hooks", "")]

        assert len(set(urls)) > 2_000
        assert accepted(iter(urls)) == []

    def test_no_inside_name_is_accepted(self) -> None:
        names = ["localhost", "ｌocalhost", "ⓛocalhost", "LOCALHOST", "postgres", "db", "metadata", "xn--bcher-kva"]
        names += [f"x.{each}" for each in sorted(SPECIAL_NAMES)] + ["metadata.google.internal", "1.0.0.127.in-addr.arpa", "x.home.arpa"]
        urls = [f"https://{name}{end}/" for name in names for end in ("", ".", "..", "。", ":443", ".:443")]

        assert accepted(iter(urls)) == []

    def test_no_trick_with_the_authority_is_accepted(self) -> None:
        hosts = [f"{end}{NAME}" for end in ("user@", "user:pw@", ":@", "a@b@", ".", "-", "*.", "%2e", "[", "_.-.")]
        hosts += [
            f"{NAME}{end}" for end in (".", "..", "-", "]", "%", "%00", "%2f", "%25lo", "\\@127.0.0.1", "\\.x.com", "\u200b", "／x", "℀")
        ]
        hosts += [
            f"a..{NAME}",
            "a" * 64 + f".{NAME}",
            f"{'a.' * 130}com",
            "a b.com",
            "a,b.com",
            "a;b.com",
            "a'b.com",
            "[::1]x.com",
            "",
            "?",
        ]
        hosts += [
            f"{NAME}:{port}"
            for port in ("0", "22", "25", "80", "444", "6379", "65536", "-1", "0x1bb", "+443", "4_43", "４４３", "443:443", "443@x.com")
        ]

        assert accepted(f"https://{host}/" for host in hosts) == []

    def test_no_other_scheme_is_accepted(self) -> None:
        schemes = ("http", "ftp", "file", "gopher", "ws", "wss", "javascript", "data", "unix", "https+unix", "")
        urls = [f"{scheme}://{NAME}/" for scheme in schemes] + [
            f"//{NAME}/",
            f"https:{NAME}",
            f"https:/{NAME}",
            f"https:///{NAME}",
            NAME,
            "",
        ]

        assert accepted(iter([*urls, f"https://{NAME}/{'a' * URL_MAX_CHARACTERS}"])) == []

    def test_no_character_that_readers_drop_is_accepted(self) -> None:
        odd = [chr(each) for each in (*range(0x21), 0x7F, *range(0x80, 0xA1), 0xAD, 0x200B, 0x2028, 0x2029, 0x202E, 0xFEFF, 0xE000)] + [
            "\\"
        ]
        urls = [
            url
            for each in odd
            for url in (f"https://{NAME}/{each}x", f"https://hooks{each}.example.com/", f"https://{NAME}/?{each}", f"{each}x")
        ]

        assert accepted(iter(urls)) == []

    @pytest.mark.parametrize(
        ("text", "stored"),
        [
            (f"https://{NAME}/tender", f"https://{NAME}/tender"),
            (f"HTTPS://{NAME.upper()}:8443/a?b=c%2B+d", f"https://{NAME}:8443/a?b=c%2B+d"),
            ("https://bücher.de/ü", "https://xn--bcher-kva.de/%C3%BC"),
            ("https://ⓖoogle.com/", "https://google.com/"),
            (f"https://{NAME}#part", f"https://{NAME}"),
            (f"https://{PUBLIC_IPV4}/", f"https://{PUBLIC_IPV4}/"),
            ("https://[2606:2800:220:1:0:0:0:1]/", "https://[2606:2800:220:1::1]/"),
            ("https://a_b.my-shop.com:/?a[]=1", "https://a_b.my-shop.com/?a%5B%5D=1"),
        ],
    )
    def test_a_public_address_is_stored_as_the_client_reads_it(self, text: str, stored: str) -> None:
        assert str(OutboundUrl.parse(text)) == stored

    @given(st.text(max_size=40) | st.from_regex(r"https://[\w.:@%\[\]\\/?#-]{1,40}", fullmatch=True))
    @settings(max_examples=300, deadline=None)
    def test_what_is_accepted_reads_the_same_again(self, text: str) -> None:
        try:
            found = OutboundUrl.parse(text)
        except OutboundUrlInvalid:
            return

        host = found.url.raw_host or ""
        assert (found.url.scheme, host.isascii(), found.url.port in PORTS) == ("https", True, True)
        assert OutboundUrl.parse(str(found)) == found

    def test_an_operators_setting_allows_what_is_private(self) -> None:
        url = "http://127.0.0.1:8080/hooks"

        assert OutboundUrl.parse(url, allow_private=True).allow_private
        assert OutboundUrl.parse(url, trusted="http://127.0.0.1:8080/api").allow_private
        for trusted in ("https://127.0.0.1:8080", "http://127.0.0.1:8081", "http://127.0.0.2:8080", f"https://{NAME}"):
            with pytest.raises(OutboundUrlInvalid):
                OutboundUrl.parse(url, trusted=trusted)

    def test_a_return_url_is_http_and_in_one_line(self) -> None:
        """Case 68; no server connects to it, so it may be private."""
        refused = [
            "javascript:alert(1)",
            "//evil.example",
            "https://shop.example/\r\nSet-Cookie: a=b",
            "https://shop.example/\n",
            "https:///x",
        ]
        refused += [
            "https://user@shop.example/",
            "https://bücher.example/",
            "https://ｓhop.example/",
            "https://shop.example\\@evil.example/",
        ]
        refused += [
            "https://2130706433/",
            "https://127.1/",
            "https://shop.example:0/",
            "https://shop.example/ x",
            f"https://shop.example/{'a' * 2_000}",
        ]
        for each in refused:
            with pytest.raises(OutboundUrlInvalid):
                check_return_url(each)
        for each in (
            "https://shop.example/back?order=1&x=ü#/cart",
            "http://localhost:3000/back",
            "http://127.0.0.1:3000",
            "https://[::1]:8443/",
        ):
            check_return_url(each)


class TestRanges:
    def test_a_special_range_is_not_public_to_its_edges(self) -> None:
        edges = [each[at] for each in SPECIAL_IPV4 for at in (0, 1, -1)], [each[at] for each in SPECIAL_IPV6 for at in (0, 1, -1)]

        assert [str(each) for each in chain(*edges) if is_public(ipaddress.ip_address(str(each)))] == []

    def test_nothing_outside_global_unicast_is_public(self) -> None:
        mapped = ("::ffff:93.184.216.34", "::93.184.216.34", "64:ff9b::5db8:d822", "64:ff9b:1::1")
        inside = (
            "::",
            "::1",
            "100::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00::1",
            "fe80::1",
            "fe80::1%lo",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
        )

        assert [each for each in (*mapped, *inside, "2606:2800:220:1::1%lo") if is_public(ipaddress.ip_address(each))] == []
        assert not is_public(GLOBAL_IPV6[0] - 1)
        assert not is_public(GLOBAL_IPV6[-1] + 1)

    @pytest.mark.parametrize("address", [PUBLIC_IPV4, "1.1.1.1", "11.0.0.1", "172.32.0.1", "2606:2800:220:1::1", "2001:200::1", "2a00::1"])
    def test_a_servers_address_is_public(self, address: str) -> None:
        check_address(address)


class Listener:
    """A server on loopback: how often it was connected to, and what it was sent."""

    def __init__(self) -> None:
        self.connections = 0
        self.received = b""
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> URL:
        return URL(f"http://127.0.0.1:{self.port}/hooks")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        while piece := await reader.read(4096):
            self.received += piece
            if self.received.endswith((b"\r\n\r\n", b"{}")) or not self.answer.startswith(b"HTTP"):
                writer.write(self.answer)
                await writer.drain()
                break
        if self.answer:
            writer.close()
        with contextlib.suppress(ConnectionError):
            await reader.read()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    made = Listener()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    for writer in made.writers:
        writer.close()


@pytest.fixture
async def client() -> AsyncIterator[OutboundClient]:
    async with OutboundClient(timeout_seconds=TIMEOUT_SECONDS) as made:
        yield made


async def post(client: OutboundClient, url: OutboundUrl) -> int | OutboundFailure:
    try:
        return (await client.post(url, body=b"{}", headers={})).status
    except OutboundCallFailed as failed:
        return failed.failure


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    """Have names resolve to these addresses, one answer after the other, the last again and again."""
    left = list(answers)

    def lookup(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


class TestConnecting:
    async def test_a_literal_inside_is_not_connected_to(self, listener: Listener, client: OutboundClient) -> None:
        """Cases 59 to 61: also where the address came here without having been checked."""
        hosts = [
            "127.0.0.1",
            "１２７.0.0.1",
            "127。0。0。1",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.0.0.1.",
            "0",
            "0.0.0.0",
        ]
        hosts += ["[::ffff:127.0.0.1]", "[::127.0.0.1]", "[::1]", "localhost", "localhost."]
        for scheme in ("http", "https"):
            for host in hosts:
                answered = await post(client, OutboundUrl(URL(f"{scheme}://{host}:{listener.port}/hooks")))
                assert answered in (OutboundFailure.NOT_ALLOWED, OutboundFailure.DNS_FAILED), host

        assert listener.connections == 0
        assert await post(client, OutboundUrl(listener.url, allow_private=True)) == 200

    @pytest.mark.parametrize("found", [["127.0.0.1"], [PUBLIC_IPV4, "127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"]], ids=str)
    async def test_a_name_that_leads_inside_is_not_connected_to(
        self, listener: Listener, client: OutboundClient, monkeypatch: pytest.MonkeyPatch, found: list[str]
    ) -> None:
        resolving(monkeypatch, found)

        assert await post(client, OutboundUrl(URL(f"http://{NAME}:{listener.port}/"))) is OutboundFailure.DNS_FAILED
        assert listener.connections == 0

    async def test_a_name_that_moves_inside_is_not_connected_to(
        self, listener: Listener, client: OutboundClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Case 65: the resolver's answer was public when it was checked, and is not when it is connected to."""

        async def rebound(*_: Any, **__: Any) -> list[Any]:
            return [{"hostname": NAME, "host": "127.0.0.1", "port": listener.port, "family": socket.AF_INET, "proto": 6, "flags": 0}]

        monkeypatch.setattr(PublicResolver, "resolve", rebound)

        assert await post(client, OutboundUrl(URL(f"http://{NAME}:{listener.port}/"))) is OutboundFailure.NOT_ALLOWED
        assert listener.connections == 0

    async def test_a_peer_inside_is_sent_nothing(self, listener: Listener, client: OutboundClient, monkeypatch: pytest.MonkeyPatch) -> None:
        """The last of three checks, with the two before it taken out."""
        monkeypatch.setattr(outbound, "public_socket", lambda info: socket.socket(*info[:3]))

        assert await post(client, OutboundUrl(listener.url)) is OutboundFailure.NOT_ALLOWED
        assert listener.received == b""

    async def test_slow_lookups_hold_up_no_other(self, client: OutboundClient, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each ends only once all of them run, which is more than the loop's own threads would let."""
        together = threading.Barrier(LOOKUPS_MAX, timeout=TIMEOUT_SECONDS)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [] if together.wait() >= 0 else None)
        urls = [OutboundUrl(URL(f"https://{each}.{NAME}/")) for each in range(LOOKUPS_MAX)]

        assert set(await asyncio.gather(*(post(client, url) for url in urls))) == {OutboundFailure.DNS_FAILED}
        threads = [each for each in threading.enumerate() if each.name.startswith("outbound-dns")]
        await client.close()
        for each in threads:
            await asyncio.to_thread(each.join, TIMEOUT_SECONDS)
        assert [each for each in threads if each.is_alive()] == []


class TestAnswers:
    async def test_no_redirect_is_followed_and_no_cookie_returned(self, listener: Listener, client: OutboundClient) -> None:
        """Cases 44 and 52."""
        listener.answer = (
            b"HTTP/1.1 302 Found\r\nLocation: /other\r\nSet-Cookie: a=b; Path=/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        url = OutboundUrl(URL(f"http://localhost:{listener.port}/hooks"), allow_private=True)

        assert [await post(client, url), await post(client, url)] == [302, 302]
        assert listener.received.count(b"POST /hooks") == 2
        assert b"other" not in listener.received
        assert b"cookie" not in listener.received.lower()

    @pytest.mark.parametrize(
        "answer",
        [b"", b"220 mail.internal ESMTP\r\n", b"-ERR unknown command\r\n", b"HTTP/1.1 OK\r\n\r\n"],
        ids=["none", "smtp", "redis", "odd"],
    )
    async def test_a_failure_says_nothing_of_what_listens(self, listener: Listener, client: OutboundClient, answer: bytes) -> None:
        """Case 66: an open port, whatever it says, and a closed one look the same."""
        listener.answer = answer or b"\r\n"
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            nowhere = OutboundUrl(URL(f"http://127.0.0.1:{closed.getsockname()[1]}/"), allow_private=True)

            failures = [await post(client, url) for url in (OutboundUrl(listener.url, allow_private=True), nowhere)]

        assert failures == [OutboundFailure.CONNECTION_FAILED] * 2

    async def test_a_failure_has_its_class(self, listener: Listener) -> None:
        listener.answer = b"220 no TLS\r\n"
        secure = OutboundUrl(listener.url.with_scheme("https"), allow_private=True)
        async with OutboundClient(timeout_seconds=TIMEOUT_SECONDS) as patient:
            assert await post(patient, secure) is OutboundFailure.TLS_FAILED
        listener.answer = b""
        async with OutboundClient(timeout_seconds=0.1) as hasty:
            assert await post(hasty, OutboundUrl(listener.url, allow_private=True)) is OutboundFailure.TIMED_OUT

    @pytest.mark.parametrize("ended", [True, False])
    async def test_an_answer_is_read_to_its_limit(self, listener: Listener, client: OutboundClient, ended: bool) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" if ended else b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        listener.answer = head + b"123456789"
        url = OutboundUrl(listener.url, allow_private=True)

        assert await client.get(url, bytes_max=9) == (200, b"123456789")
        with pytest.raises(OutboundCallFailed) as refused:
            await client.get(url, bytes_max=8)
        assert refused.value.failure is OutboundFailure.ANSWER_TOO_LARGE


@contextlib.asynccontextmanager
async def a_label_server(calls: list[str]) -> AsyncIterator[str]:
    async def label(request: web.BaseRequest) -> web.Response:
        calls.append(request.path)
        return web.Response(body=LABEL)

    runner = web.ServerRunner(web.Server(label))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


class TestLabels:
    async def test_a_label_elsewhere_is_not_read(self) -> None:
        """Case 67: an address in the carrier's answer leads to an inside server, or to a stranger's."""
        calls: list[str] = []
        async with a_label_server(calls) as server:
            elsewhere = [
                f"{server}/label.pdf",
                server.replace("http:", "https:"),
                server.replace("127.0.0.1", "localhost"),
                "http://169.254.169.254/",
            ]
            elsewhere += [
                "https://evil.example.com/a.pdf",
                f"https://{min(EASYPOST_HOSTS)}.evil.example.com/a.pdf",
                "",
                "file:///etc/passwd",
            ]
            elsewhere += [
                f"https://{min(EASYPOST_HOSTS)}@127.0.0.1/",
                f"http://{min(EASYPOST_HOSTS)}/a.pdf",
                f"https://{min(EASYPOST_HOSTS)}:8080/a.pdf",
            ]
            for url in elsewhere:
                with pytest.raises(IndeterminateResponse, match="address"):
                    await fetched(url, form="pdf", hosts=EASYPOST_HOSTS, carrier_url="https://api.easypost.com")
            assert calls == []

            assert await fetched(f"{server}/label.pdf", form="pdf", hosts=EASYPOST_HOSTS, carrier_url=f"{server}/v2") == LABEL

    async def test_a_carriers_host_that_leads_inside_is_not_read(self, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
        resolving(monkeypatch, ["127.0.0.1"])

        with pytest.raises(IndeterminateResponse, match="dns_failed"):
            await fetched(f"https://{min(EASYPOST_HOSTS)}/a.pdf", form="pdf", hosts=EASYPOST_HOSTS, carrier_url="https://api.easypost.com")
        assert listener.connections == 0

    @pytest.mark.parametrize(
        "hosts", ["localhost", "labels.example.com,127.0.0.1", "labels.example.com, other.example.com", "a.example.com/x"]
    )
    def test_a_setting_that_names_no_public_host_is_refused(self, hosts: str) -> None:
        with pytest.raises(SettingsRefused, match=r"LABEL_HOSTS: .* is no host for labels"):
            load(FulfillmentSettings, {"LABEL_HOSTS": hosts})

    def test_a_setting_names_further_hosts(self) -> None:
        with pytest.raises(SettingsRefused) as others:
            load(FulfillmentSettings, {"LABEL_HOSTS": "labels.example.com,other.example.com"})
        assert "LABEL_HOSTS" not in str(others.value)


class TestCertificates:
    @pytest.mark.parametrize(
        ("status", "body", "read"),
        [
            ("200 OK", b"PEM", b"PEM"),
            ("404 Not Found", b"no", b""),
            ("302 Found", b"", b""),
            ("200 OK", b"x" * (CERTIFICATE_MAX_BYTES + 1), b""),
            ("503 Service Unavailable", b"later", None),
            ("429 Too Many Requests", b"later", None),
        ],
        ids=["whole", "absent", "redirect", "large", "down", "busy"],
    )
    async def test_a_provider_that_is_down_says_nothing_of_it(
        self, listener: Listener, status: str, body: bytes, read: bytes | None
    ) -> None:
        """Case 18: what is called useless is not fetched again, so a 503 must not be."""
        listener.answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        url = OutboundUrl(listener.url, allow_private=True)

        if read is None:
            with pytest.raises(Unavailable):
                await fetch(url)
        else:
            assert await fetch(url) == read
