"""Settings that are missing or wrong are named by variable, all at once, and no secret is shown."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.sandbox.settings import SandboxSettings
from deploy.state import ROOT
from services.gateway.settings import Settings as GatewaySettings
from services.payments.settings import Settings as PaymentsSettings
from services.reconciler.settings import Settings as ReconcilerSettings
from services.webhooks.settings import Settings as WebhooksSettings
from shared.settings import BusSettings, SettingsRefused, load
from tests.planted import PRIVATE_KEYS, PUBLIC_KEYS

TIMEOUT_SECONDS = 60.0
SECRET = "do-not-show-me"
SERVERS = {"DATABASE_URL": "postgresql://u@h/d", "AMQP_URL": "amqp://u@h/"}
SANDBOX = {**SERVERS, "SANDBOX_ONLY": "true"}
TOKEN = {"TOKEN_SECRET": "thirty-two characters in one text"}
SCHEME = "must begin with postgresql:// or postgres:// (got {})"

BEHIND = "has its @ behind the host: write /, ? and # of a password as %2F, %3F and %23"
UNREADABLE = "host 1 is not written as host:port, with a port from 1 to 65535"


def refused(kind: type[BusSettings], environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsRefused) as error:
        load(kind, environ)
    return str(error.value).splitlines()


class TestOneThatIsWrong:
    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({"DATABASE_URL": ""}, "DATABASE_URL: is required and not set"),
            ({"DATABASE_URL": SECRET}, f"DATABASE_URL: {SCHEME.format('no ://')}"),
            ({"DATABASE_URL": f"mysql://u:{SECRET}@h/d"}, f"DATABASE_URL: {SCHEME.format('mysql://…')}"),
            ({"DATABASE_URL": "postgresql://"}, "DATABASE_URL: names no host"),
            ({"DATABASE_URL": f"postgresql://u:{SECRET}#1@h/d"}, f"DATABASE_URL: {BEHIND}"),
            ({"DATABASE_URL": f"postgresql://u:{SECRET}/1@h/d"}, f"DATABASE_URL: {BEHIND}"),
            ({"AMQP_URL": f"amqp://u:{SECRET}?1@h/"}, f"AMQP_URL: {BEHIND}"),
            (
                {"DATABASE_URL": f"postgresql://u:{SECRET}@[h/d"},
                f"DATABASE_URL: {UNREADABLE}",
            ),
            (
                {"DATABASE_URL": f"postgresql://u:{SECRET}@\u2100/d"},
                f"DATABASE_URL: {UNREADABLE}",
            ),
            (
                {"DATABASE_URL": f"postgresql://u:{SECRET}@h/d?sslmode=verify-full&sslrootcert=/nowhere/ca.crt"},
                "DATABASE_URL: names a file that cannot be read: sslrootcert=/nowhere/ca.crt",
            ),
            (
                {"AMQP_URL": f"amqps://u:{SECRET}@h/?certfile={__file__}&keyfile=/nowhere/key&cafile=/nowhere/ca"},
                "AMQP_URL: names a file that cannot be read: keyfile=/nowhere/key, cafile=/nowhere/ca",
            ),
            ({"AMQP_URL": f"http://u:{SECRET}@h/"}, "AMQP_URL: must begin with amqp:// or amqps:// (got http://…)"),
            ({"HTTP_PORT": "eighty"}, "HTTP_PORT: must be a whole number (port), at least 0, at most 65535 (got 'eighty')"),
            ({"HTTP_PORT": "65536"}, "HTTP_PORT: must be a whole number (port), at least 0, at most 65535 (got '65536')"),
            ({"PREFETCH": "0"}, "PREFETCH: must be a whole number (messages), at least 1, at most 65535 (got '0')"),
            ({"DATABASE_CONNECTIONS": "0"}, "DATABASE_CONNECTIONS: must be a whole number (connections), at least 1 (got '0')"),
            ({"LEASE_SECONDS": "-1"}, "LEASE_SECONDS: must be a number (seconds), more than 0 (got '-1')"),
            ({"LEASE_SECONDS": "inf"}, "LEASE_SECONDS: must be a number (seconds), more than 0 (got 'inf')"),
            ({"LEASE_SECONDS": "nan"}, "LEASE_SECONDS: must be a number (seconds), more than 0 (got 'nan')"),
            ({"TRACE_SAMPLE_RATIO": "1.5"}, "TRACE_SAMPLE_RATIO: must be a number (share), at least 0, at most 1 (got '1.5')"),
            ({"LOG_LEVEL": "loud"}, "LOG_LEVEL: must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL (got 'loud')"),
            ({"STRIPE_MULTICAPTURE": "yes"}, "STRIPE_MULTICAPTURE: must be true or false (got 'yes')"),
            ({"STRIPE_URL": "api.stripe.com"}, "STRIPE_URL: must begin with http:// or https:// (got no ://)"),
            ({"STRIPE_URL": "https://h:99999"}, "STRIPE_URL: is not a URL: its host or port cannot be read"),
            ({"STRIPE_URL": "https:///v1"}, "STRIPE_URL: names no host"),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "jaeger"}, "OTEL_EXPORTER_OTLP_ENDPOINT: must begin with http:// or https:// (got no ://)"),
            ({"RETRY_TIERS_BUG": "1s,2s"}, "RETRY_TIERS_BUG: must be a list of 1s, 30s, 10m, separated by commas (got '1s,2s')"),
            ({"VAULT_KEYS_FILE": "/nowhere"}, "VAULT_KEYS_FILE: /nowhere cannot be read: No such file or directory"),
            ({"VAULT_KEYS": f'{{"current":1,"keys":{{"1":"{SECRET}"}}}}'}, "VAULT_KEYS: a private key is not 32 bytes in base64"),
            ({"VAULT_KEYS": f'{{"{SECRET}'}, "VAULT_KEYS: key material cannot be read: DecodeError"),
            ({"VAULT_KEYS_COMMAND": f"false {SECRET}"}, "VAULT_KEYS_COMMAND: the command failed: CalledProcessError"),
            ({"VAULT_KEYS_COMMAND": "/nowhere/kms"}, "VAULT_KEYS_COMMAND: /nowhere/kms cannot be read: No such file or directory"),
        ],
    )
    def test_of_payments_is_one_line_by_its_variable(self, changes: dict[str, str], line: str) -> None:
        assert refused(PaymentsSettings, {**SANDBOX, **changes}) == [line]

    @pytest.mark.parametrize(
        ("kind", "changes", "line"),
        [
            (GatewaySettings, {**TOKEN, "TOKEN_SECRET": "short"}, "TOKEN_SECRET: must be text of at least 32 characters"),
            (GatewaySettings, {**TOKEN, "RATE_BURST": "0"}, "RATE_BURST: must be a whole number (requests), at least 1 (got '0')"),
            (GatewaySettings, {**TOKEN, "VAULT_PUBLIC_KEYS": "{"}, "VAULT_PUBLIC_KEYS: key material cannot be read: DecodeError"),
            (
                GatewaySettings,
                {**TOKEN, "VAULT_PUBLIC_KEYS": '{"payments":{"current":1,"key":"x"}}'},
                "VAULT_PUBLIC_KEYS: a public key is not 32 bytes in base64",
            ),
            (
                WebhooksSettings,
                {"WEBHOOK_ACCOUNTS": f'[{{"provider":"stripe","secrets":["{SECRET}"]}}]'},
                "WEBHOOK_ACCOUNTS: must be a JSON list of accounts: Object missing required field `environment` - at `$[0]`",
            ),
            (
                WebhooksSettings,
                {"PAYPAL_AUTHORITIES_FILE": "/nowhere"},
                "PAYPAL_AUTHORITIES_FILE: /nowhere cannot be read: No such file or directory",
            ),
            (
                WebhooksSettings,
                {"PAYPAL_AUTHORITIES_FILE": __file__},
                f"PAYPAL_AUTHORITIES_FILE: {__file__} holds no certificates in PEM",
            ),
            (
                GatewaySettings,
                {**TOKEN, "CORS_ORIGINS": "https://shop.example, shop.example"},
                "CORS_ORIGINS: must be a list of origins such as https://shop.example, separated by commas (got 'shop.example')",
            ),
            (
                GatewaySettings,
                {**TOKEN, "CORS_ORIGINS": "https://shop.example/"},
                "CORS_ORIGINS: must be a list of origins such as https://shop.example, separated by commas (got 'https://shop.example/')",
            ),
            (
                ReconcilerSettings,
                {"RECONCILE_SCHEDULES": '[{"domain":"money","cron":"* * * * *"}]'},
                "RECONCILE_SCHEDULES: must be a JSON list of schedules: Invalid enum value 'money' - at `$[0].domain`",
            ),
            (
                ReconcilerSettings,
                {"RECONCILE_SCHEDULES": '[{"domain":"tax","cron":"61 * * * *"}]'},
                "RECONCILE_SCHEDULES: must be a JSON list of schedules: Bad minute",
            ),
        ],
    )
    def test_of_another_service_too(self, kind: type[BusSettings], changes: dict[str, str], line: str) -> None:
        assert refused(kind, {**SANDBOX, **changes}) == [line]

    def test_without_keys_is_refused_unless_only_the_sandbox_is_served(self) -> None:
        [private, public] = refused(PaymentsSettings, SERVERS)
        [gateway] = refused(GatewaySettings, {**SERVERS, **TOKEN})

        assert private.startswith("VAULT_KEYS_FILE: no key material")
        assert public.startswith("VAULT_PUBLIC_KEYS_FILE: no key material")
        assert gateway.startswith("VAULT_PUBLIC_KEYS_FILE: no key material")
        assert load(PaymentsSettings, SANDBOX).sandbox_only

    def test_a_password_in_a_url_is_not_shown(self) -> None:
        lines = refused(PaymentsSettings, {**SANDBOX, "LEASE_SECONDS": f"https://u:{SECRET}@h"})

        assert lines == ["LEASE_SECONDS: must be a number (seconds), more than 0 (got 'https://…@h')"]


class TestThatAreRight:
    @pytest.mark.parametrize(
        "url",
        [
            "postgres://u:p@h:1/d",
            "postgresql://u:p@a:5432,b:5432/d?target_session_attrs=read-write",
            "postgresql://u:p@[::1]/d",
            "postgresql:///d?host=/run/postgresql",
        ],
    )
    def test_urls_of_the_database_are_taken_as_they_are(self, url: str) -> None:
        assert load(PaymentsSettings, {**SANDBOX, "DATABASE_URL": url}).database_url == url

    @pytest.mark.parametrize("origins", ["*", "https://shop.example", "http://localhost:3000,https://shop.example"])
    def test_origins_are_taken_as_they_are(self, origins: str) -> None:
        assert load(GatewaySettings, {**SANDBOX, **TOKEN, "CORS_ORIGINS": origins}).cors_origins == origins

    def test_keys_are_read(self) -> None:
        environ = {**SERVERS, **TOKEN, "VAULT_PUBLIC_KEYS": PUBLIC_KEYS}

        assert load(GatewaySettings, environ).key_source.public().keys() == PRIVATE_KEYS.keys()


class TestSecretsInFiles:
    def test_are_read_without_the_line_end(self, tmp_path: Path) -> None:
        file = tmp_path / "url"
        file.write_text("postgresql://u:p@h/d\n")
        environ = {**SANDBOX, "DATABASE_URL": "", "DATABASE_URL_FILE": str(file)}

        assert load(PaymentsSettings, environ).database_url == "postgresql://u:p@h/d"

    def test_are_checked_as_others_are(self, tmp_path: Path) -> None:
        file = tmp_path / "url"
        file.write_text(SECRET)

        assert refused(PaymentsSettings, {**SANDBOX, "DATABASE_URL": "", "DATABASE_URL_FILE": str(file)}) == [
            f"DATABASE_URL: {SCHEME.format('no ://')}"
        ]

    @pytest.mark.parametrize(
        ("content", "why"), [(None, "No such file or directory"), (b"\xff", "it is not text")], ids=["missing", "not text"]
    )
    def test_that_cannot_be_read_are_named(self, content: bytes | None, why: str, tmp_path: Path) -> None:
        file = tmp_path / "key"
        if content is not None:
            file.write_bytes(content)

        assert refused(PaymentsSettings, {**SANDBOX, "STRIPE_API_KEY_FILE": str(file)}) == [
            f"STRIPE_API_KEY: STRIPE_API_KEY_FILE names {file}, which cannot be read: {why}"
        ]

    def test_and_in_the_environment_at_once_are_refused(self, tmp_path: Path) -> None:
        assert refused(PaymentsSettings, {**SANDBOX, "AMQP_URL_FILE": str(tmp_path)}) == [
            "AMQP_URL: is set, and AMQP_URL_FILE too; only one of them may be"
        ]


def start(module: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ}
    return subprocess.run(
        [sys.executable, "-m", module], cwd=ROOT, env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )


WRONG = {"DATABASE_URL": f"x://u:{SECRET}@h", "PREFETCH": "none", "SHUTDOWN_GRACE_SECONDS": "-1", "LOG_LEVEL": "info", "HTTP_PORT": "99999"}
ALL = ["AMQP_URL", "DATABASE_URL", "HTTP_PORT", "LOG_LEVEL", "PREFETCH", "SHUTDOWN_GRACE_SECONDS"]


@pytest.mark.parametrize(
    ("service", "more", "also"),
    [
        ("gateway", {"TOKEN_SECRET": "short", "RATE_BURST": "0"}, ["RATE_BURST", "TOKEN_SECRET", "VAULT_PUBLIC_KEYS_FILE"]),
        ("payments", {"STRIPE_URL": "x", "VAULT_KEYS": SECRET}, ["STRIPE_URL", "VAULT_KEYS", "VAULT_PUBLIC_KEYS_FILE"]),
        (
            "webhooks",
            {"WEBHOOK_ACCOUNTS": SECRET, "RETRY_TIERS_SILENT": "1h"},
            ["RETRY_TIERS_SILENT", "VAULT_KEYS_FILE", "WEBHOOK_ACCOUNTS"],
        ),
        ("fulfillment", {"TAXJAR_ENVIRONMENT": "moon"}, ["TAXJAR_ENVIRONMENT", "VAULT_KEYS_FILE"]),
        ("reconciler", {"RECONCILE_SCHEDULES": "nightly"}, ["RECONCILE_SCHEDULES"]),
    ],
)
def test_a_service_names_everything_at_once_and_ends(service: str, more: dict[str, str], also: list[str]) -> None:
    done = start(f"services.{service}", {**WRONG, **more})

    assert done.returncode == 1
    assert done.stdout == ""
    assert sorted(line.partition(":")[0] for line in done.stderr.splitlines()) == sorted([*ALL, *also])
    assert SECRET not in done.stderr


def test_the_sandbox_does_so_too() -> None:
    done = start("deploy.sandbox", {"HTTP_PORT": "x", "SANDBOX_WEBHOOK_URL": "nowhere", "SANDBOX_SILENCE_SECONDS": "-1"})

    assert done.returncode == 1
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["HTTP_PORT", "SANDBOX_WEBHOOK_URL", "SANDBOX_SILENCE_SECONDS"]
    assert load(SandboxSettings, {}).http_port == 8090
