"""Every published vector passes, and one flipped bit anywhere makes each fail."""

import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.webhooks.app import fetch, schemes
from services.webhooks.domain import UNREADABLE_TYPE, Account, Incoming
from services.webhooks.providers import Opened
from services.webhooks.providers.paypal import CERTIFICATES_MAX, FAILURE_SECONDS, FETCHES_MAX
from services.webhooks.providers.standard import SIGNATURES_MAX
from shared.errors import Unavailable
from shared.ids import new_id
from shared.messages import Environment
from shared.outbound import OutboundUrl


class Vector(msgspec.Struct, frozen=True, kw_only=True):
    """A signed request, and when it was sent."""

    provider: str
    secret: str
    headers: Mapping[str, str]
    body: bytes
    at: int = 1_700_000_000
    url: str = ""
    event_id: str = ""
    event_type: str = ""


# standard-webhooks libraries/go/webhook_test.go; the same in Svix's own libraries.
STANDARD = Vector(
    provider="standard",
    secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    headers={
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    },
    body=b'{"test": 2432232314}',
    at=1_614_265_330,
    event_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
)
SVIX = msgspec.structs.replace(
    STANDARD, provider="svix", headers={name.replace("webhook", "svix"): value for name, value in STANDARD.headers.items()}
)
# The rest of these are computed from the providers' descriptions; no key of theirs is published.
STRIPE = Vector(
    provider="stripe",
    secret="whsec_test_secret",
    headers={"stripe-signature": "t=1700000000,v1=22d8dc182f5c588077683bd378368e29765bfe5df2560112b4f28fef120f0e31"},
    body=b'{"id":"evt_1","type":"payment_intent.succeeded"}',
    event_id="evt_1",
    event_type="payment_intent.succeeded",
)
SHIPPO = Vector(
    provider="shippo",
    secret="shippo_test_secret",
    headers={"shippo-auth-signature": "t=1700000000,v1=06d5706c6529b83341116c8d3693fd16911ccb5a00885e1c4fd11940fbe7305f"},
    body=b'{"event":"track_updated","test":true}',
    event_type="track_updated",
)
# The inputs are of Mollie's own test (mollie-api-php, SignatureValidator).
MOLLIE = Vector(
    provider="mollie",
    secret="test_webhook_secret",
    headers={"x-mollie-signature": "sha256=e479a5e4aaa17db94cfc546071e10e91c0b37f21e464e751ebdd7d7ad2ffd146"},
    body=b'{"id":"tr_12345","event_type":"payment-link.paid"}',
    event_type="payment-link.paid",
)
CHECKOUT_COM = Vector(
    provider="checkout-com",
    secret="cko-webhook-test",
    headers={"cko-signature": "674ee000ba566ad64379838a5fff8c6d8c714bf6162a75cad6912fb9468de030"},
    body=b'{"id":"evt_1","type":"payment_captured"}',
    event_id="evt_1",
    event_type="payment_captured",
)


def _easypost() -> Vector:
    body = b'{"id":"evt_7","object":"Event","description":"tracker.updated"}'
    # NFKD turns the ligature of the secret into two letters (easypost-python, util.py).
    mac = hmac.new(b"sefiret", body, hashlib.sha256).hexdigest()
    return Vector(
        provider="easypost",
        secret="se\ufb01ret",
        headers={"x-hmac-signature": f"hmac-sha256-hex={mac}"},
        body=body,
        event_id="evt_7",
        event_type="tracker.updated",
    )


def _square() -> Vector:
    body, url = b'{"event_id":"e-1","type":"payment.updated","created_at":"2023-11-14T22:13:20Z"}', "https://shop.example/webhooks/square"
    mac = base64.b64encode(hmac.new(b"square-key", url.encode() + body, hashlib.sha256).digest()).decode()
    return Vector(
        provider="square",
        secret="square-key",
        headers={"x-square-hmacsha256-signature": mac},
        body=body,
        url=url,
        event_id="e-1",
        event_type="payment.updated",
    )


ADYEN_KEY = "74F490DD33F7327BAECC88B2947C011FC02D014A473AAA33A8EC93E4DC069174"


def _adyen_platform() -> Vector:
    body = b'{"type":"balancePlatform.transfer.created","data":{"id":"1W1UG35U8A9J5ZLG"}}'
    mac = base64.b64encode(hmac.new(bytes.fromhex(ADYEN_KEY), body, hashlib.sha256).digest()).decode()
    return Vector(provider="adyen-platform", secret=ADYEN_KEY, headers={"hmacsignature": mac}, body=body)


def _braintree() -> Vector:
    document = b"<notification><kind>disbursement</kind><timestamp>2023-11-14T22:13:20Z</timestamp></notification>"
    payload = base64.encodebytes(document).decode()
    key = hashlib.sha1(b"private", usedforsecurity=False).digest()
    mac = hmac.new(key, payload.encode(), hashlib.sha1).hexdigest()
    form = urlencode({"bt_signature": f"public|{mac}", "bt_payload": payload})
    return Vector(provider="braintree", secret="public:private", headers={}, body=form.encode(), event_type="disbursement")


def _standard_ed25519() -> Vector:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a key of the tests").digest())
    body = b'{"type":"order.paid"}'
    signature = base64.b64encode(key.sign(b"msg_1.1700000000." + body)).decode()
    public = base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
    headers = {"webhook-id": "msg_1", "webhook-timestamp": "1700000000", "webhook-signature": f"v1a,{signature}"}
    return Vector(provider="standard", secret=f"whpk_{public}", headers=headers, body=body, event_id="msg_1", event_type="order.paid")


SIGNED_WHOLE = {
    "standard": STANDARD,
    "standard, ed25519": _standard_ed25519(),
    "svix": SVIX,
    "stripe": STRIPE,
    "shippo": SHIPPO,
    "mollie": MOLLIE,
    "checkout.com": CHECKOUT_COM,
    "easypost": _easypost(),
    "square": _square(),
    "adyen platform": _adyen_platform(),
}
VECTORS = {**SIGNED_WHOLE, "braintree": _braintree()}


async def _nothing_is_fetched(url: OutboundUrl) -> bytes:
    raise AssertionError(f"nothing is fetched, least of all {url}")


KNOWN = schemes(fetch=_nothing_is_fetched, authorities=())


def _account(vector: Vector, *secrets: str) -> Account:
    return Account(
        provider=vector.provider,
        store_id=new_id(),
        environment=Environment.SANDBOX,
        account="tests",
        secrets=secrets or (vector.secret,),
        url=vector.url,
    )


async def _open(vector: Vector, *, accounts: Sequence[Account] | None = None, later_seconds: int = 0, **changes: Any) -> Opened:
    sent = msgspec.structs.replace(vector, **changes)
    now = datetime.fromtimestamp(vector.at + later_seconds, UTC)
    return await KNOWN[vector.provider].open(Incoming(sent.headers, sent.body), accounts or [_account(vector)], now=now)


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
class TestEveryScheme:
    async def test_takes_what_is_genuine(self, vector: Vector) -> None:
        opened = await _open(vector)

        assert opened.forged == ()
        [(_, event)] = opened.genuine
        assert event.id == vector.event_id or (not vector.event_id and event.id.startswith("sha256:"))
        assert vector.event_type in ("", event.type)

    async def test_takes_any_of_two_active_secrets(self, vector: Vector) -> None:
        other = {"adyen-platform": "00" * 32, "braintree": "public:other", "standard": "whsec_" + base64.b64encode(b"x" * 24).decode()}
        accounts = [_account(vector), _account(vector, other.get(vector.provider, "whsec_eHh4"), vector.secret)]

        assert (await _open(vector, accounts=accounts[1:])).genuine[0][0] == accounts[1]

    async def test_refuses_another_secret(self, vector: Vector) -> None:
        other = {"adyen-platform": "00" * 32, "braintree": "public:other"}.get(vector.provider, "whsec_eHh4")

        assert (await _open(vector, accounts=[_account(vector, other)])).genuine == ()

    async def test_refuses_without_its_headers(self, vector: Vector) -> None:
        for name in vector.headers:
            left = {key: value for key, value in vector.headers.items() if key != name}
            assert (await _open(vector, headers=left)).genuine == (), name


@pytest.mark.parametrize("vector", SIGNED_WHOLE.values(), ids=SIGNED_WHOLE)
async def test_one_flipped_bit_anywhere_is_refused(vector: Vector) -> None:
    for at in range(len(vector.body) * 8):
        assert (await _open(vector, body=_flipped(vector.body, at))).genuine == (), at
    for name, value in vector.headers.items():
        for at in range(len(value) * 8):
            changed = _flipped(value.encode(), at).decode("latin-1")
            assert (await _open(vector, headers={**vector.headers, name: changed})).genuine == (), (name, changed)


async def test_one_flipped_bit_of_a_form_changes_nothing_or_is_refused() -> None:
    # The same payload can be written into a form in more than one way; another payload cannot pass.
    vector = VECTORS["braintree"]
    [(_, genuine)] = (await _open(vector)).genuine

    for at in range(len(vector.body) * 8):
        opened = await _open(vector, body=_flipped(vector.body, at))
        assert [event.payload for _, event in opened.genuine] in ([], [genuine.payload]), at


def _flipped(raw: bytes, at: int) -> bytes:
    changed = bytearray(raw)
    changed[at // 8] ^= 1 << (at % 8)
    return bytes(changed)


@pytest.mark.parametrize("vector", [STANDARD, SVIX, STRIPE, SHIPPO], ids=lambda v: v.provider)
class TestTime:
    async def test_is_checked_in_both_directions(self, vector: Vector) -> None:
        assert [len((await _open(vector, later_seconds=by)).genuine) for by in (-301, -300, 300, 301)] == [0, 1, 1, 0]

    @pytest.mark.parametrize("digits", [13, 400, 5_000])
    async def test_of_many_digits_is_refused(self, vector: Vector, digits: int) -> None:
        """F18: no float holds 400 digits, and Python reads no number of 5000."""
        timed = {name: value.replace(str(vector.at), "9" * digits) for name, value in vector.headers.items()}

        assert (await _open(vector, headers=timed)).genuine == ()


class TestStripe:
    async def test_ignores_other_schemes_and_takes_any_of_several_signatures(self) -> None:
        good = STRIPE.headers["stripe-signature"]
        time, signature = good.split(",")

        assert (await _open(STRIPE, headers={"stripe-signature": f"{time},v0=aa,v1=bb,{signature}"})).genuine
        assert not (await _open(STRIPE, headers={"stripe-signature": good.replace("v1=", "v0=")})).genuine


class TestMollie:
    async def test_takes_a_repeated_header(self) -> None:
        assert (await _open(MOLLIE, headers={"x-mollie-signature": f"sha256=00,{MOLLIE.headers['x-mollie-signature']}"})).genuine


class TestWhatIsNoText:
    async def test_is_kept_all_the_same(self) -> None:
        """F6: a genuine body that is no UTF-8 (RFC 8259, 8.1) is kept for somebody to look at, not answered with an error of ours."""
        body = b'{"id":"event_1","type":"caf\xe9"}'
        signature = hmac.digest(MOLLIE.secret.encode(), body, "sha256").hex()

        [(_, event)] = (await _open(MOLLIE, body=body, headers={"x-mollie-signature": f"sha256={signature}"})).genuine

        assert (event.type, event.payload) == (UNREADABLE_TYPE, body)


# adyen-python test/UtilTest.py
PUBLISHED_KEY = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"
PUBLISHED: dict[str, Any] = {
    "pspReference": "7914073381342284",
    "merchantAccountCode": "TestMerchant",
    "merchantReference": "TestPayment-1407325143704",
    "amount": {"value": 1130, "currency": "EUR"},
    "eventCode": "AUTHORISATION",
    "success": "true",
    "eventDate": "2019-05-06T17:15:34+02:00",
    "additionalData": {"hmacSignature": "coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0="},
}
# adyen-python test/mocks/util: nothing is escaped in what is signed.
WITH_SLASHES: dict[str, Any] = {
    "pspReference": "T7FD4VM4D3RZNN82",
    "merchantAccountCode": "AntoniStroinski",
    "merchantReference": "\\\\slashes are fun",
    "amount": {"value": 1000, "currency": "EUR"},
    "eventCode": "AUTHORISATION",
    "success": "true",
    "additionalData": {"hmacSignature": "nIgT81gaB5oJpn2jPXupDq68iRo2wUlBsuYjtYfwKqo="},
}


class TestAdyen:
    async def test_takes_the_published_item(self) -> None:
        opened = await self._opened([PUBLISHED], PUBLISHED_KEY)

        [(_, event)] = opened.genuine
        assert (event.id, event.type) == ("AUTHORISATION:7914073381342284:true", "AUTHORISATION")
        assert event.happened_at == datetime.fromisoformat("2019-05-06T17:15:34+02:00")
        assert msgspec.json.decode(event.payload) == PUBLISHED

    async def test_takes_slashes_as_they_are(self) -> None:
        assert (await self._opened([WITH_SLASHES], ADYEN_KEY)).genuine

    async def test_judges_each_item_of_a_batch_on_its_own(self) -> None:
        other = {**PUBLISHED, "success": "false"}

        opened = await self._opened([PUBLISHED, other, WITH_SLASHES], PUBLISHED_KEY, ADYEN_KEY)

        assert [event.id for _, event in opened.genuine] == ["AUTHORISATION:7914073381342284:true", "AUTHORISATION:T7FD4VM4D3RZNN82:true"]
        assert len(opened.forged) == 1

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("pspReference", "7914073381342285"),
            ("originalReference", "1"),
            ("merchantAccountCode", "Testmerchant"),
            ("merchantReference", "TestPayment-1407325143705"),
            ("amount", {"value": 1131, "currency": "EUR"}),
            ("amount", {"value": 1130, "currency": "USD"}),
            ("eventCode", "CAPTURE"),
            ("success", "false"),
            ("additionalData", {"hmacSignature": "coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo1="}),
            ("additionalData", {}),
        ],
    )
    async def test_refuses_a_change_of_any_signed_field(self, field: str, value: Any) -> None:
        assert not (await self._opened([{**PUBLISHED, field: value}], PUBLISHED_KEY)).genuine

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"notificationItems":[{}]}', b'{"notificationItems":7}'])
    async def test_refuses_what_is_no_batch(self, body: bytes) -> None:
        opened = await KNOWN["adyen"].open(Incoming({}, body), [self._account(PUBLISHED_KEY)], now=datetime.now(UTC))

        assert opened.genuine == ()
        assert opened.forged

    async def _opened(self, items: list[Any], *keys: str) -> Opened:
        body = msgspec.json.encode({"live": "false", "notificationItems": [{"NotificationRequestItem": item} for item in items]})
        return await KNOWN["adyen"].open(Incoming({}, body), [self._account(key) for key in keys], now=datetime.now(UTC))

    def _account(self, key: str) -> Account:
        return Account(provider="adyen", store_id=new_id(), environment=Environment.SANDBOX, account="tests", secrets=(key,))


WEBHOOK_ID = "1JE4291016473214C"
CERTIFICATE_URL = "https://api.paypal.com/v1/notifications/certs/CERT-1"


class Authority:
    """A certificate authority of the tests' own."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.certificate = self._certificate("Tests' own authority", "Tests' own authority", self.key, ca=True)

    def issues(self, name: str, key: rsa.RSAPrivateKey, *, days: int = 30) -> x509.Certificate:
        return self._certificate(name, "Tests' own authority", key, ca=False, days=days)

    def _certificate(self, name: str, issuer: str, key: rsa.RSAPrivateKey, *, ca: bool, days: int = 30) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(_usage(ca=ca), critical=True)
        )
        if not ca:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False).add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
            )
        return builder.sign(self.key, SHA256())


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


class PayPalOfTheTests:
    """PayPal with a certificate of our own authority, which signs and says where its certificate lies."""

    def __init__(self, *, name: str = "messageverificationcerts.paypal.com", days: int = 30, trusted: bool = True) -> None:
        authority = Authority()
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.certificate = authority.issues(name, self.key, days=days)
        self.fetched: list[str] = []
        self.silent = self.garbage = False
        trust = authority if trusted else Authority()
        self.scheme = schemes(fetch=self._fetch, authorities=[trust.certificate])["paypal"]

    async def _fetch(self, url: OutboundUrl) -> bytes:
        self.fetched.append(str(url))
        if self.silent:
            raise Unavailable("PayPal is silent")
        if self.garbage:
            return b"<html>"
        return self.certificate.public_bytes(Encoding.PEM)

    def headers(self, body: bytes, *, ago: timedelta = timedelta()) -> dict[str, str]:
        at = (datetime.now(UTC) - ago).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = f"69cd13f0-d67a-11e5-baa3-778b53f4ae55|{at}|{WEBHOOK_ID}|{zlib.crc32(body)}".encode()
        return {
            "paypal-transmission-id": "69cd13f0-d67a-11e5-baa3-778b53f4ae55",
            "paypal-transmission-time": at,
            "paypal-transmission-sig": base64.b64encode(self.key.sign(text, padding.PKCS1v15(), SHA256())).decode(),
            "paypal-cert-url": CERTIFICATE_URL,
            "paypal-auth-algo": "SHA256withRSA",
        }

    async def open(self, body: bytes, headers: Mapping[str, str], *, webhook_id: str = WEBHOOK_ID) -> Opened:
        account = Account(provider="paypal", store_id=new_id(), environment=Environment.SANDBOX, account="tests", secrets=(webhook_id,))
        return await self.scheme.open(Incoming(headers, body), [account], now=datetime.now(UTC))


PAYPAL_BODY = b'{"id":"WH-1","event_type":"PAYMENT.CAPTURE.COMPLETED","create_time":"2016-02-18T20:01:35Z"}'


class TestPayPal:
    def test_digest_is_as_published(self) -> None:
        assert zlib.crc32(b"{}") == 2745614147

    async def test_takes_what_is_genuine_and_fetches_the_certificate_once(self) -> None:
        paypal = PayPalOfTheTests()

        opened = [await paypal.open(PAYPAL_BODY, paypal.headers(PAYPAL_BODY)) for _ in range(2)]

        assert [o.genuine[0][1].id for o in opened] == ["WH-1", "WH-1"]
        assert opened[0].genuine[0][1].happened_at == datetime(2016, 2, 18, 20, 1, 35, tzinfo=dt.UTC)
        assert paypal.fetched == [CERTIFICATE_URL]

    @pytest.mark.parametrize(
        "url",
        [
            "https://evil.example/cert",
            "http://api.paypal.com/cert",
            "https://api.paypal.com.evil.example/cert",
            "https://api.paypal.com@evil.example/cert",
            "https://api.paypal.com:8443/cert",
            "https://api.paypal.com/cert",
            CERTIFICATE_URL.replace("api.paypal.com", "API.paypal.com"),
            CERTIFICATE_URL.replace("api.paypal.com", "api.paypal.com:443"),
            CERTIFICATE_URL.replace("api.paypal.com", "api.paypal.com."),
            CERTIFICATE_URL.replace("api.paypal.com", "ａpi.paypal.com"),
            f"{CERTIFICATE_URL}?1",
            f"{CERTIFICATE_URL}#1",
            f"{CERTIFICATE_URL}/../x",
            CERTIFICATE_URL.replace("certs/", "certs/%2e%2e/"),
            "file:///etc/passwd",
        ],
    )
    async def test_fetches_from_nowhere_else(self, url: str) -> None:
        paypal = PayPalOfTheTests()

        opened = await paypal.open(PAYPAL_BODY, {**paypal.headers(PAYPAL_BODY), "paypal-cert-url": url})

        assert (opened.genuine, paypal.fetched) == ((), [])

    @pytest.mark.parametrize(
        "how", [{"trusted": False}, {"days": -1}, {"name": "messages.paypal.com.evil.example"}], ids=["untrusted", "expired", "not theirs"]
    )
    async def test_refuses_a_certificate_that_is(self, how: dict[str, Any]) -> None:
        paypal = PayPalOfTheTests(**how)

        assert (await paypal.open(PAYPAL_BODY, paypal.headers(PAYPAL_BODY))).genuine == ()

    async def test_failed_fetch_is_remembered_for_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """L2: PayPal sends it again on 503; a flood meanwhile fetches nothing, and a failure that has passed is no verdict."""
        paypal, now = PayPalOfTheTests(), 1_000.0
        monkeypatch.setattr("services.webhooks.providers.paypal.time", SimpleNamespace(monotonic=lambda: now))
        paypal.silent = True

        for _ in range(3):
            with pytest.raises(Unavailable):
                await paypal.open(PAYPAL_BODY, paypal.headers(PAYPAL_BODY))
        assert len(paypal.fetched) == 1
        paypal.silent, now = False, now + FAILURE_SECONDS

        assert (await paypal.open(PAYPAL_BODY, paypal.headers(PAYPAL_BODY))).genuine

    async def test_unreadable_certificate_is_remembered_for_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        paypal, now = PayPalOfTheTests(), 1_000.0
        monkeypatch.setattr("services.webhooks.providers.paypal.time", SimpleNamespace(monotonic=lambda: now))
        paypal.garbage = True

        for _ in range(3):
            assert (await paypal.open(PAYPAL_BODY, paypal.headers(PAYPAL_BODY))).genuine == ()
        assert len(paypal.fetched) == 1
        paypal.garbage, now = False, now + FAILURE_SECONDS

        assert (await paypal.open(PAYPAL_BODY, paypal.headers(PAYPAL_BODY))).genuine

    async def test_newer_certificates_replace_the_oldest(self) -> None:
        """L2: sixteen places, in which certificates that PayPal uses no more do not stay."""
        paypal = PayPalOfTheTests()
        urls = [CERTIFICATE_URL.replace("CERT-1", f"CERT-{number}") for number in range(CERTIFICATES_MAX + 1)]

        for url in [*urls, urls[-1]]:
            assert (await paypal.open(PAYPAL_BODY, {**paypal.headers(PAYPAL_BODY), "paypal-cert-url": url})).genuine

        assert paypal.fetched == urls

    @pytest.mark.parametrize(("status", "raised"), [(503, True), (429, True), (404, False), (302, False)])
    async def test_answer_that_may_change_is_no_verdict(self, status: int, raised: bool) -> None:
        """L2: PayPal's own trouble is answered 503, so that it sends the webhook again."""

        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status)

        app = web.Application()
        app.router.add_get("/certificate", answer)
        async with TestServer(app) as server:
            with pytest.raises(Unavailable, match=str(status)) if raised else contextlib.nullcontext():
                url = OutboundUrl.parse(str(server.make_url("/certificate")), allow_private=True)
                assert await fetch(url) == b""

    async def test_made_up_addresses_are_looked_at_a_few_times_a_minute(self) -> None:
        paypal = PayPalOfTheTests(trusted=False)
        invented = [CERTIFICATE_URL.replace("CERT-", f"CERT-{number}-") for number in range(FETCHES_MAX)]

        for url in invented:
            assert (await paypal.open(PAYPAL_BODY, {**paypal.headers(PAYPAL_BODY), "paypal-cert-url": url})).genuine == ()
        with pytest.raises(Unavailable):
            await paypal.open(PAYPAL_BODY, paypal.headers(PAYPAL_BODY))

        assert paypal.fetched == invented

    @pytest.mark.parametrize(("days", "taken"), [(0, 1), (3.9, 1), (4.1, 0), (5 * 365, 0), (-0.1, 0)])
    async def test_what_was_sent_long_ago_is_refused(self, days: float, taken: int) -> None:
        paypal = PayPalOfTheTests()

        assert len((await paypal.open(PAYPAL_BODY, paypal.headers(PAYPAL_BODY, ago=timedelta(days=days)))).genuine) == taken

    async def test_refuses_another_webhook_id_and_another_algorithm(self) -> None:
        paypal = PayPalOfTheTests()
        headers = paypal.headers(PAYPAL_BODY)

        assert (await paypal.open(PAYPAL_BODY, headers, webhook_id="other")).genuine == ()
        assert (await paypal.open(PAYPAL_BODY, {**headers, "paypal-auth-algo": "SHA1withRSA"})).genuine == ()

    async def test_one_flipped_bit_is_refused(self) -> None:
        paypal = PayPalOfTheTests()
        headers = paypal.headers(PAYPAL_BODY)

        for at in range(0, len(PAYPAL_BODY) * 8, 7):
            assert (await paypal.open(_flipped(PAYPAL_BODY, at), headers)).genuine == (), at
        for name in ("paypal-transmission-id", "paypal-transmission-time", "paypal-transmission-sig"):
            for at in range(0, len(headers[name]) * 8, 7):
                changed = _flipped(headers[name].encode(), at).decode("latin-1")
                assert (await paypal.open(PAYPAL_BODY, {**headers, name: changed})).genuine == (), (name, at)


async def test_no_more_signatures_are_tried_than_a_sender_rotates() -> None:
    """Each costs a hash of the whole body where the secret is a public key: 330 of 1 MiB took 1.5 s, without a secret."""
    key, now = ed25519.Ed25519PrivateKey.generate(), datetime.now(UTC)
    public = base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
    account = Account(provider="standard", environment=Environment.SANDBOX, account="a", secrets=(f"whpk_{public}",))
    timestamp, body = str(int(now.timestamp())), b"{}"
    genuine = f"v1a,{base64.b64encode(key.sign(f'msg_1.{timestamp}.'.encode() + body)).decode()}"
    other = f"v1a,{base64.b64encode(key.sign(b'other')).decode()}"

    async def opened(count: int) -> Opened:
        headers = {"webhook-id": "msg_1", "webhook-timestamp": timestamp, "webhook-signature": " ".join([other] * (count - 1) + [genuine])}
        return await KNOWN["standard"].open(Incoming(headers, body), [account], now=now)

    assert (await opened(SIGNATURES_MAX)).genuine
    assert (await opened(SIGNATURES_MAX + 1)).forged == (f"there are more than {SIGNATURES_MAX} signatures",)
