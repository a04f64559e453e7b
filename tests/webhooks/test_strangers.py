"""What a stranger or a neighbouring store may do to the address that providers post to, by the rows of the security report."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from services.webhooks.domain import LINE_BREAK, Account, Event, Incoming, keepable
from services.webhooks.handlers import receiving
from services.webhooks.handlers.context import check_accounts
from services.webhooks.providers import adyen
from services.webhooks.store import events as store
from shared.ids import new_id
from shared.settings import SettingsRefused
from tests.webhooks.test_ingest import an_event, post
from tests.webhooks.test_signatures import ADYEN_KEY, KNOWN, PUBLISHED, PUBLISHED_KEY, STANDARD, STRIPE, VECTORS, Vector, _account, _open
from tests.world import Answer, Place, World, a_world, until

FOREVER = 100_000
SAMPLE_MAX_BYTES = 8 * 1024
# braintree_python, tests/integration: the keys of its own tests, whose private key is as long as all are.
BRAINTREE_PUBLIC, BRAINTREE_PRIVATE = "integration_public_key", "integration_private_key"

# Of an account that payments does not know (any more).
SECRET_OF_GONE = "whsec_" + base64.b64encode(b"gone" * 8).decode()


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    common = {"environment": "sandbox"}
    accounts = [
        {**common, "provider": "braintree", "store_id": new_id(), "account": "b", "secrets": [f"{BRAINTREE_PUBLIC}:{BRAINTREE_PRIVATE}"]},
        {**common, "provider": "adyen", "store_id": new_id(), "account": "a", "secrets": [PUBLISHED_KEY]},
        {**common, "provider": "sandbox", "store_id": new_id(), "account": "sandbox:gone", "secrets": [SECRET_OF_GONE]},
    ]
    async with a_world(place, webhooks={"accounts": accounts}) as made:
        yield made


async def put_secret(world: World, provider: str, secret: str) -> Answer:
    path = f"/api/v1/admin/providers/{provider}/credentials"
    return await world.send("PUT", path, {"use": "webhooks", "fields": {"secret": secret}})


async def post_standard(world: World, secret: str, path: str, *, event_id: str = "") -> int:
    """Post an event that is signed as Standard Webhooks says."""
    event_id, at, body = event_id or f"msg_{new_id().hex}", str(int(time.time())), b'{"type":"customer.created"}'
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = base64.b64encode(hmac.digest(key, f"{event_id}.{at}.".encode() + body, "sha256")).decode()
    headers = {"webhook-id": event_id, "webhook-timestamp": at, "webhook-signature": f"v1,{mac}"}
    return (await world.http.post(f"/api/v1/webhooks/{path}", content=body, headers=headers)).status_code


def a_secret(size: int = 32, *, of: bytes = b"") -> str:
    return f"whsec_{base64.b64encode(hashlib.sha512(of or new_id().bytes).digest()[:size]).decode()}"


class TestSecrets:
    """H5, M3, rows 55 and 56: a secret is judged when it is given."""

    @pytest.mark.parametrize(
        ("provider", "secret"),
        [
            ("standard", "whsec_"),
            ("standard", "a"),
            ("standard", "whsec_a"),
            ("standard", "whsec_ä"),
            ("standard", a_secret(23, of=b"tests")),
            ("svix", "whpk_AAAA"),
            ("svix", "whpk_" + base64.b64encode(b"x" * 31).decode()),
            ("sandbox", "whsec_====" * 8),
            ("adyen", "not-hex"),
            ("adyen", PUBLISHED_KEY[:-1]),
            ("adyen", PUBLISHED_KEY[:-2]),
            ("adyen-platform", "zz" * 32),
            ("braintree", "nocolon"),
            ("braintree", "pk:"),
            ("braintree", ":" + "p" * 32),
            ("braintree", "pk:short"),
            ("paypal", "a b"),
            ("stripe", "whsec_"),
            ("easypost", "fifteen bytes.."),
            ("square", "x"),
            ("mollie", "x"),
            ("shippo", "x"),
            ("checkout-com", "x"),
        ],
    )
    async def test_what_is_none_is_refused(self, world: World, provider: str, secret: str) -> None:
        answer = await put_secret(world, provider, secret)

        assert (answer.status, answer.code, answer.json["field"]) == (422, "credential-unfit", "fields.secret")
        assert secret not in answer.response.text or len(secret) < 3

    @pytest.mark.parametrize(
        ("provider", "secret"), [("standard", a_secret(24, of=b"tests")), ("svix", a_secret(64, of=b"tests")), ("adyen", PUBLISHED_KEY)]
    )
    async def test_what_is_one_is_taken(self, world: World, provider: str, secret: str) -> None:
        assert (await put_secret(world, provider, secret)).status == 200

    @pytest.mark.parametrize(("provider", "secret"), [("adyen", "not-hex"), ("standard", "whsec_"), ("nobody", "x" * 32)])
    def test_the_installations_own_are_judged_at_the_start(self, provider: str, secret: str) -> None:
        account = Account(provider=provider, store_id=new_id(), environment="sandbox", account="acme", secrets=(secret,))  # type: ignore[arg-type]

        with pytest.raises(SettingsRefused, match="WEBHOOK_ACCOUNTS") as refused:
            check_accounts([account], KNOWN)

        assert secret not in str(refused.value)

    async def test_what_a_neighbour_gave_before_it_was_judged_harms_nobody(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        good = a_secret()
        assert (await put_secret(world, "standard", good)).status == 200
        path = f"standard/{world.store_id}"
        await until(lambda: _is(post_standard(world, good, path), 200))
        # As an older Tender would have kept it.
        for scheme in (KNOWN["standard"], KNOWN["adyen"]):
            monkeypatch.setattr(type(scheme), "check_secret", lambda self, secret: None)
        for provider, broken in (("standard", "whsec_a"), ("adyen", "not-hex")):
            assert (await put_secret(world, provider, broken)).status == 200
        monkeypatch.undo()

        assert await post_standard(world, good, path) == 200
        assert (await world.http.post(f"/api/v1/webhooks/adyen/{world.store_id}", content=an_adyen_batch(PUBLISHED))).status_code in (
            200,
            401,
        )
        assert (await world.http.post("/api/v1/webhooks/adyen", content=an_adyen_batch(PUBLISHED))).status_code == 200


async def _is(asked: Any, status: int) -> bool:
    return bool(await asked == status)


def an_adyen_batch(*items: Any) -> bytes:
    return msgspec.json.encode({"live": "false", "notificationItems": [{"NotificationRequestItem": item} for item in items]})


class TestWork:
    """H6: what anybody may have tried does not grow with the stores, or with the request."""

    async def test_a_stores_secret_is_tried_at_its_own_address_alone(self, world: World) -> None:
        secret = a_secret()
        assert (await put_secret(world, "svix", secret)).status == 200

        await until(lambda: _is(post_standard(world, secret, f"svix/{world.store_id}"), 200))

        assert await post_standard(world, secret, "svix") == 401
        assert await post_standard(world, secret, f"svix/{new_id()}") == 401

    async def test_a_batch_has_an_end_and_each_item_is_looked_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tried: list[object] = []
        real = adyen._matches

        def matches(item: Any, secret: str) -> bool:
            tried.append(item)
            return real(item, secret)

        monkeypatch.setattr(adyen, "_matches", matches)
        account = _account(Vector(provider="adyen", secret=ADYEN_KEY, headers={}, body=b""))

        same = await KNOWN["adyen"].open(Incoming({}, an_adyen_batch(*[PUBLISHED] * adyen.ITEMS_MAX)), [account], now=None)  # type: ignore[arg-type]
        more = await KNOWN["adyen"].open(Incoming({}, an_adyen_batch(*[PUBLISHED] * (adyen.ITEMS_MAX + 1))), [account], now=None)  # type: ignore[arg-type]

        assert (len(tried), len(same.forged), len(more.forged)) == (1, 1, 1)
        assert same.genuine == more.genuine == ()

    @pytest.mark.parametrize("vector", [STANDARD, STRIPE], ids=lambda vector: vector.provider)
    async def test_a_time_stamp_out_of_tolerance_costs_no_hashing(self, vector: Vector, monkeypatch: pytest.MonkeyPatch) -> None:
        def hashing(*_: object) -> bytes:
            raise AssertionError("nothing is hashed")

        monkeypatch.setattr(hmac, "digest", hashing)

        assert (await _open(vector, later_seconds=301)).genuine == ()

    @pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
    async def test_a_large_body_is_hashed_beside_the_loop(self, vector: Vector, monkeypatch: pytest.MonkeyPatch) -> None:
        hashed_on: list[bool] = []
        real = hmac.digest

        def digest(key: bytes, msg: bytes, digest: str) -> bytes:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                hashed_on.append(False)
            else:
                hashed_on.append(len(msg) > 64 * 1024)
            return real(key, msg, digest)

        monkeypatch.setattr(hmac, "digest", digest)

        await _open(vector, body=vector.body + b" " * (1024 * 1024 - len(vector.body)))

        assert not any(hashed_on)


class TestSamples:
    """H3, row 73: of what is refused a few KiB are kept, of which the newest thousand."""

    async def test_a_forgery_leaves_a_few_kib(self, world: World) -> None:
        told = an_event(world, {})
        signed = {**world.sandbox.outgoing.headers(told), "webhook-signature": "v1," + "A" * 5_000}
        more = {f"x-{number}": "a" * 300 for number in range(60)}

        async def kept() -> Any:
            assert (await post(world, told, headers={**more, **signed})).status == 401
            return await world.rows("SELECT * FROM webhooks.webhook_rejections WHERE body_start = $1", told.body[:2_048])

        [sample, *_] = await until(kept)
        assert len(sample["headers"]) + len(sample["body_start"]) < SAMPLE_MAX_BYTES
        assert "webhook-signature" in sample["headers"]

    async def test_the_newest_take_the_place_of_the_oldest(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store, "REJECTIONS_KEPT_MAX", 5)
        monkeypatch.setattr(receiving, "SAMPLE_EVERY_SECONDS", 0.0)

        for number in range(9):
            assert (await world.http.post("/api/v1/webhooks/adyen", content=str(number).encode())).status_code == 401

        rows = await world.rows("SELECT body_start FROM webhooks.webhook_rejections ORDER BY id")
        assert [row["body_start"] for row in rows] == [b"4", b"5", b"6", b"7", b"8"]


class TestForms:
    """L1, L3, L4: bodies and headers in forms that providers do use, and some that nobody should."""

    @pytest.mark.parametrize(
        "body",
        [
            b'{"notificationItems":' + b"[" * FOREVER + b"]" * FOREVER + b"}",
            b'{"notificationItems":[{"NotificationRequestItem":' + b"[" * FOREVER + b"]" * FOREVER + b"}]}",
            b'{"notificationItems":[{"NotificationRequestItem":{"pspReference":"\xff\xfe"}}]}',
            b"\xff",
            b"[" * FOREVER,
        ],
    )
    async def test_an_unsigned_body_of_any_kind_is_refused(self, world: World, body: bytes) -> None:
        answer = Answer(await world.http.post("/api/v1/webhooks/adyen", content=body))

        assert (answer.status, answer.code) == (401, "signature-invalid")

    async def test_an_odd_item_costs_itself_alone(self) -> None:
        """Row 7: `originalReference: null` is as if it were left out, and a boolean is signed as it is written."""
        account = _account(Vector(provider="adyen", secret=PUBLISHED_KEY, headers={}, body=b""))
        body = an_adyen_batch({**PUBLISHED, "originalReference": None, "success": True}, {"amount": 7}, PUBLISHED)

        opened = await KNOWN["adyen"].open(Incoming({}, body), [account], now=None)  # type: ignore[arg-type]

        assert {event.id for _, event in opened.genuine} == {"AUTHORISATION:7914073381342284:true"}
        assert len(opened.forged) == 1

    @pytest.mark.parametrize("vector", [STANDARD, STRIPE], ids=lambda vector: vector.provider)
    async def test_the_signatures_header_may_be_repeated(self, vector: Vector) -> None:
        """Rows 4 and 36: each line is a signature of its own, whichever comes first."""
        [name] = [name for name in vector.headers if "signature" in name]
        good = vector.headers[name]
        bad = good[:-4] + "AAA="

        for value in (f"{bad}{LINE_BREAK}{good}", f"{good}{LINE_BREAK}{bad}"):
            assert (await _open(vector, headers={**vector.headers, name: value})).genuine
        assert not (await _open(vector, headers={**vector.headers, name: f"{bad}{LINE_BREAK}{bad}"})).genuine

    def test_samples_that_share_an_id_are_events_of_their_own(self) -> None:
        """L4, row 34: dj-stripe and laravel-stripe know that every test send of Stripe's has one id."""
        samples = [Event(id="evt_00000000000000", type=t, happened_at=None, payload=t.encode()) for t in ("a.b", "c.d", "a.b")]

        first, second, repeated = (keepable(each).id for each in samples)

        assert first == repeated != second
        assert keepable(msgspec.structs.replace(samples[0], id="evt_10")).id == "evt_10"

    async def test_repeated_headers_arrive_as_lines(self, world: World) -> None:
        told = an_event(world, {}, kind="customer.created")
        sent = world.sandbox.outgoing.headers(told)
        headers = [(name, value) for name, value in sent.items() if name != "webhook-signature"]
        headers += [("webhook-signature", "v1,AAAA"), ("webhook-signature", sent["webhook-signature"])]

        answer = await world.http.post(f"/api/v1/webhooks/{world.provider}", content=told.body, headers=headers)

        assert answer.status_code == 200

    @pytest.mark.parametrize("direct", [True, False])
    async def test_braintree_is_answered_when_it_asks_whose_the_address_is(self, world: World, direct: bool) -> None:
        """Row 12. The vector is braintree_python's own (tests/unit/test_webhooks.py, verify)."""
        base = world.webhooks_url if direct else world.gateway_url
        url = f"{base}/api/v1/webhooks/braintree?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53"

        answer = await world.http.get(url)

        assert (answer.status_code, answer.text) == (200, "integration_public_key|d9b899556c966b3f06945ec21311865d35df3ce4")

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("braintree?bt_challenge=goodbye%20cruel%20world", 401),
            ("braintree", 401),
            ("braintree?bt_challenge=%ff", 401),
            ("braintree/0192f0c1-7e00-7000-8000-00000000abcd?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53", 401),
            ("adyen?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53", 405),
        ],
    )
    async def test_nothing_else_is_answered(self, world: World, path: str, status: int) -> None:
        assert (await world.http.get(f"/api/v1/webhooks/{path}")).status_code == status


async def test_accounts_cannot_be_told_apart_from_outside(world: World) -> None:
    """L5, case 123: neither a provider nor a store that is not configured is answered otherwise than a forgery."""
    paths = (
        "adyen",
        "mollie",
        "no-such-provider",
        f"sandbox/{world.store_id}",
        f"sandbox/{new_id()}",
        "braintree",
        f"braintree/{new_id()}",
    )
    answers = [
        (await world.http.request(method, f"{base}/api/v1/webhooks/{path}", content=content, headers={"X-Correlation-Id": "same"}))
        for base in (world.gateway_url, world.webhooks_url)
        for path in paths
        for method, content in [("POST", b"{}"), *([("GET", None)] if path.startswith("braintree") else [])]
    ]

    assert {(answer.status_code, answer.content) for answer in answers} == {(401, answers[0].content)}
    assert {answer.headers["x-content-type-options"] for answer in answers} == {"nosniff"}


async def test_headers_and_urls_with_secrets_are_not_recorded(world: World) -> None:
    """Case 120: an API key beside a webhook's signature, and a token in an endpoint's address."""
    token, told = "planted0123456789", an_event(world, {}, kind="customer.created")
    secret = dict.fromkeys(("X-Api-Key", "apikey", "X-Auth-Token", "Authorization", "Cookie", "Client-Secret"), token)
    answers = [
        await post(world, told, headers={**world.sandbox.outgoing.headers(told), **secret}),
        await post(world, told, headers={"webhook-signature": "v1,AAAA", **secret}),
        await world.send(
            "POST", "/api/v1/admin/webhook-endpoints", {"url": f"https://u:{token}@hooks.shop-of-the-tests.com/hook?token={token}"}
        ),
        await world.send("POST", "/api/v1/admin/webhook-endpoints", {"url": f"https://hooks.shop-of-the-tests.com/hook?token={token}"}),
    ]

    tables = ("webhooks.webhook_payloads", "webhooks.webhook_rejections", "webhooks.admin_audit")
    every = [str(dict(row)) for table in tables for row in await world.rows(f"SELECT * FROM {table}")]
    assert [answer.status for answer in answers[:2]] == [200, 401]
    assert 200 in [answer.status for answer in answers[2:]]
    assert "https://hooks.shop-of-the-tests.com" in str(every)
    assert [row for row in every if token in row] == []


@pytest.mark.parametrize("path", ["/metrics", "/health/ready"])
async def test_public_port_of_webhooks_has_no_monitoring(world: World, path: str) -> None:
    """L5, case 123."""
    assert (await world.http.get(world.webhooks_url + path)).status_code == 404
    assert (await world.http.get(world.monitoring["webhooks"] + path)).status_code == 200


async def test_two_accounts_of_a_store_may_use_one_event_id(place: Place) -> None:
    """M12, row 33: providers number events within an account."""
    store_id, secrets = new_id(), [a_secret(), a_secret()]
    accounts = [
        {"provider": "standard", "store_id": store_id, "environment": "sandbox", "account": f"account-{number}", "secrets": [secret]}
        for number, secret in enumerate(secrets)
    ]
    async with a_world(place, webhooks={"accounts": accounts}) as world:
        for secret in (*secrets, *secrets):
            assert await post_standard(world, secret, "standard", event_id="evt_00000000000000") == 200
        rows = await world.rows("SELECT account FROM webhooks.webhook_events WHERE store_id = $1", store_id)

    assert sorted(row["account"] for row in rows) == ["account-0", "account-1"]


class TestNoKey:
    async def test_an_event_refused_for_want_of_a_key_is_read_anew_when_it_is_sent_once_more(self, world: World) -> None:
        """F6, C08: a dead letter that is retried has the id that was refused; with the key back it must not be answered from memory."""
        event_id = f"msg_{new_id().hex}"
        assert await post_standard(world, SECRET_OF_GONE, "sandbox", event_id=event_id) == 200

        async def given_up() -> str | None:
            found = await world.rows("SELECT status, last_error FROM webhooks.webhook_events WHERE provider_event_id = $1", event_id)
            return str(found[0]["last_error"]) if found and found[0]["status"] == "dead" else None

        assert "provider-not-configured" in await until(given_up)
        kept = "SELECT i.message_id FROM payments.inbox i JOIN webhooks.webhook_events e USING (store_id) WHERE e.provider_event_id = $1"
        assert await world.rows(kept, event_id) == []
