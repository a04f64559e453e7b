"""PayPal: RSA over a digest of the request, with a certificate fetched from PayPal alone (PayPal-Python-SDK, notifications.py)."""

import base64
import re
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from services.webhooks.domain import Account, Incoming
from services.webhooks.providers import Forged, Opened, SecretUnfit, header, moment, read_json
from shared.errors import Unavailable
from shared.outbound import OutboundUrl, OutboundUrlInvalid
from shared.rations import Ration

# Nothing is fetched from anywhere else, whatever a request says.
CERTIFICATE_HOSTS = frozenset({"api.paypal.com", "api-m.paypal.com", "api.sandbox.paypal.com", "api-m.sandbox.paypal.com"})
NAME_SUFFIX = ".paypal.com"
ALGORITHM = "SHA256withRSA"
# Neither a query nor anything else can make many addresses of one certificate.
CERTIFICATE_PATH = re.compile(r"/v1/notifications/certs/[A-Za-z0-9-]{1,64}")
CERTIFICATES_MAX = 16
# Made-up addresses are fetched so often a minute.
FETCHES_MAX = 20
FETCHES_SECONDS = 60.0
# A certificate that could not be fetched or used is not fetched again for so long; each request meanwhile gets the same answer.
FAILURE_SECONDS = 30.0
# PayPal tries again for three days (developer.paypal.com, webhooks); what is older is somebody's replay.
TRANSMITTED_WITHIN = timedelta(days=4)
TRANSMITTED_AHEAD = timedelta(minutes=5)
WEBHOOK_ID = re.compile(r"[A-Za-z0-9-]{8,64}")

Fetch = Callable[[OutboundUrl], Awaitable[bytes]]


class PayPal:
    """Verifies with PayPal's certificate; an account's secret is the id of the webhook as PayPal shows it."""

    accepted = b""

    def __init__(self, *, fetch: Fetch, authorities: Sequence[x509.Certificate]) -> None:
        self._fetch = fetch
        self._authorities = authorities
        self._known: dict[str, list[x509.Certificate]] = {}
        self._fetches = Ration(FETCHES_MAX, seconds=FETCHES_SECONDS)
        # By address: until when, by this process's monotonic clock, a failure is the answer.
        self._failed: dict[str, tuple[float, Forged | Unavailable]] = {}

    def check_secret(self, secret: str) -> None:
        """Raise SecretUnfit for what cannot be a webhook's id."""
        if not WEBHOOK_ID.fullmatch(secret):
            raise SecretUnfit("it is not the id of a webhook")

    async def open(self, incoming: Incoming, accounts: Sequence[Account], *, now: datetime) -> Opened:
        """Fetch the certificate from its pinned host, check whose it is, then try every webhook id."""
        try:
            _check_transmitted(header(incoming, "paypal-transmission-time"), now)
            key = await self._key(header(incoming, "paypal-cert-url"), now)
            signature = _decoded(header(incoming, "paypal-transmission-sig"))
            if header(incoming, "paypal-auth-algo") != ALGORITHM:
                raise Forged("the algorithm is another")
            for account in accounts:
                for webhook_id in account.secrets:
                    if _matches(key, signature, signed_text(incoming, webhook_id)):
                        return Opened(((account, read_json(incoming)),))
        except Forged as forged:
            return Opened((), (str(forged),))
        return Opened((), ("the signature does not match",))

    async def _key(self, url: str, now: datetime) -> rsa.RSAPublicKey:
        try:
            checked = OutboundUrl.parse(url, hosts=CERTIFICATE_HOSTS)
        except OutboundUrlInvalid as invalid:
            raise Forged(f"the certificate's address: {invalid}") from invalid
        # Written in one way only, so that many addresses cannot be made of one certificate.
        if str(checked) != url or not CERTIFICATE_PATH.fullmatch(checked.url.raw_path_qs):
            raise Forged("the certificate is said to lie elsewhere, or is none")
        chain = self._known.get(url) or await self._fetched(checked, now)
        leaf = chain[0]
        # Also one that is known: it may have expired since.
        self._check_chain(leaf, chain[1:], now)
        key = leaf.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise Forged("the certificate's key is no RSA key")
        return key

    async def _fetched(self, address: OutboundUrl, now: datetime) -> list[x509.Certificate]:
        """Fetch a certificate and remember it, or for a while that it could not be had; raises Forged or Unavailable."""
        url = str(address)
        until_seconds, failure = self._failed.get(url, (0.0, None))
        if failure is not None and time.monotonic() < until_seconds:
            raise type(failure)(*failure.args)
        if not self._fetches.allows():
            raise Unavailable("too many certificates of PayPal's are asked for")
        try:
            chain = x509.load_pem_x509_certificates(await self._fetch(address))
            self._check_chain(chain[0], chain[1:], now)
        except ValueError as broken:
            raise self._remembered(url, Forged("the certificate cannot be read")) from broken
        except (Forged, Unavailable) as failed:
            raise self._remembered(url, failed) from None
        self._failed.pop(url, None)
        _make_room(self._known, CERTIFICATES_MAX)
        self._known[url] = chain
        return chain

    def _remembered(self, url: str, failure: Forged | Unavailable) -> Forged | Unavailable:
        self._failed.pop(url, None)
        _make_room(self._failed, FETCHES_MAX)
        self._failed[url] = (time.monotonic() + FAILURE_SECONDS, failure)
        return failure

    def _check_chain(self, leaf: x509.Certificate, between: Sequence[x509.Certificate], now: datetime) -> None:
        names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        name = str(names[0].value) if len(names) == 1 else ""
        if not name.endswith(NAME_SUFFIX):
            raise Forged("the certificate is not PayPal's")
        verifier = (
            PolicyBuilder().store(Store(list(self._authorities))).time(now.replace(tzinfo=None)).build_server_verifier(x509.DNSName(name))
        )
        try:
            verifier.verify(leaf, list(between))
        except VerificationError as wrong:
            raise Forged(f"the certificate is not valid: {wrong}") from wrong


def _make_room(known: dict[str, Any], most: int) -> None:
    """Leave room for one more, by dropping the oldest."""
    while len(known) >= most:
        del known[next(iter(known))]


def signed_text(incoming: Incoming, webhook_id: str) -> bytes:
    """Write what the signature covers; the webhook id is the one configured, never the event's."""
    transmission, time = header(incoming, "paypal-transmission-id"), header(incoming, "paypal-transmission-time")
    return f"{transmission}|{time}|{webhook_id}|{zlib.crc32(incoming.body) & 0xFFFFFFFF}".encode()


def _check_transmitted(text: str, now: datetime) -> None:
    sent = moment(text)
    if sent is None or not -TRANSMITTED_AHEAD <= now - sent <= TRANSMITTED_WITHIN:
        raise Forged("the time of transmission is outside the tolerance")


def _matches(key: rsa.RSAPublicKey, signature: bytes, text: bytes) -> bool:
    try:
        key.verify(signature, text, padding.PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def _decoded(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as broken:
        raise Forged("the signature is not base64") from broken
    if base64.b64encode(raw).decode() != text:
        raise Forged("the signature is not written as base64 is")
    return raw
